// What the page knows: the server's state, by its sequence number, and what is selected here.

import { Refused, getBuffer, getJson, postJson } from "./api.js";

export const CONFIRMED = 1;
export const OUTLIER = 2;
export const GIVEN = 4;

const RETRY = 1500;

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export class Store extends EventTarget {
  async load() {
    const asked = [getJson("/api/overview"), getBuffer("/api/points"), this.loadPlaces()];
    const [overview, { headers, buffer }] = await Promise.all(asked);
    this.overview = overview;
    const count = (this.count = overview.count);
    this.group = new Int32Array(buffer, 0, count);
    this.flags = new Uint8Array(buffer, 4 * count, count);
    this.split = new Uint8Array(buffer, 5 * count, count);
    this.selected = new Uint8Array(count);
    this.selectedCount = 0;
    this.exemplars = new Set();
    this.proposed = new Int32Array(count).fill(-1);
    this.confidence = new Float32Array(count);
    this.proposedSeq = -1;
    this.notices = [];
    this.cells = new Map();
    this.pending = 0;
    this.queue = Promise.resolve();
    this.take(overview.changes);
    const seq = Number(headers.get("x-sequence"));
    if (seq === this.seq) return;
    this.seq = Math.min(seq, this.seq); // somebody acted between the two answers
    await this.pull();
  }

  tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  // The server's state

  take(changes) {
    if (changes.seq < this.seq) return;
    this.seq = changes.seq;
    this.canUndo = changes.can_undo;
    this.canRedo = changes.can_redo;
    this.groups = new Map(changes.groups.map((group) => [group.number, group]));
    changes.rows.forEach((row, index) => {
      this.group[row] = changes.group[index];
      this.flags[row] = changes.flags[index];
    });
    this.tell("state", changes.rows);
  }

  async pull() {
    this.take(await getJson(`/api/changes?since=${this.seq}`));
  }

  async loadPlaces() {
    const { headers, buffer } = await getBuffer("/api/places");
    this.places = new Float32Array(buffer);
    this.map = Number(headers.get("x-map"));
    this.tell("map");
  }

  async loadProposals() {
    const { headers, buffer } = await getBuffer("/api/proposals");
    this.proposed = new Int32Array(buffer, 0, this.count);
    this.confidence = new Float32Array(buffer, 4 * this.count, this.count);
    this.proposedSeq = Number(headers.get("x-sequence"));
    this.notices = JSON.parse(headers.get("x-notices"));
    this.tell("proposals");
  }

  watch() {
    const source = new EventSource("/api/watch");
    source.onmessage = (message) => {
      const standing = JSON.parse(message.data);
      this.tell("connection", true);
      this.queue = this.queue.then(async () => {
        if (standing.seq > this.seq) await this.pull();
        if (standing.proposed > this.proposedSeq) await this.loadProposals();
        if (standing.map > this.map) await this.loadPlaces();
      });
      this.queue = this.queue.catch((error) => this.tell("problem", error.message));
    };
    source.onerror = () => {
      this.tell("connection", false);
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this.watch(), RETRY);
    };
  }

  // Actions: one after the other, each repeated until the server has answered; it does none of them twice.

  act(kind, fields = {}) {
    const action = crypto.randomUUID();
    this.pending += 1;
    this.tell("pending");
    const done = this.queue.then(() => this.send({ action, kind, ...fields }));
    this.queue = done.catch(() => {}).finally(() => {
      this.pending -= 1;
      this.tell("pending");
    });
    return done;
  }

  async send(request) {
    for (;;) {
      try {
        this.take(await postJson("/api/act", { ...request, seen: this.seq }));
        return;
      } catch (error) {
        if (!(error instanceof Refused)) {
          this.tell("connection", false);
          await pause(RETRY);
          continue;
        }
        if (error.status === 409) await this.pull();
        throw error;
      }
    }
  }

  // Samples

  async loadCells(rows) {
    const missing = rows.filter((row) => !this.cells.has(row));
    for (let at = 0; at < missing.length; at += 400) {
      const cells = await getJson(`/api/cells?rows=${missing.slice(at, at + 400).join(",")}`);
      for (const cell of cells) this.cells.set(cell.row, cell);
    }
  }

  groupTitle(number) {
    const group = this.groups.get(number);
    if (!group) return "";
    return group.name ?? `${group.superclass ?? "subclass"} #${number}`;
  }

  // Browsers keep pictures by address: the key keeps those of another run on the same port apart.
  picture(path) {
    return `/api/${path}${path.includes("?") ? "&" : "?"}v=${this.overview.key}`;
  }

  isConfirmed(row) {
    return (this.flags[row] & CONFIRMED) !== 0;
  }

  isOutlier(row) {
    return (this.flags[row] & OUTLIER) !== 0;
  }

  isGiven(row) {
    return (this.flags[row] & GIVEN) !== 0;
  }

  isHeldOut(row) {
    return this.overview.splits[this.split[row]] !== "train";
  }

  // How doubtful a sample is: what is confirmed last, then by confidence, small first.
  doubt(row) {
    if (this.isConfirmed(row) || this.isOutlier(row)) return 2;
    return this.proposed[row] < 0 ? 1.5 : this.confidence[row];
  }

  // Selection

  select(rows, { add = false } = {}) {
    if (!add) {
      this.selected.fill(0);
      this.selectedCount = 0;
    }
    for (const row of rows) {
      if (!this.selected[row]) this.selectedCount += 1;
      this.selected[row] = 1;
    }
    this.tell("selection");
  }

  toggle(row) {
    this.selected[row] ^= 1;
    this.selectedCount += this.selected[row] ? 1 : -1;
    this.tell("selection");
  }

  selectedRows() {
    const rows = [];
    for (let row = 0; row < this.count; row += 1) if (this.selected[row]) rows.push(row);
    return rows;
  }
}
