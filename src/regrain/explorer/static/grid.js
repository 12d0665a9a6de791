// Samples as tiles; only those in sight are in the document, however many there are.

const SVG = "http://www.w3.org/2000/svg";
// Least width of a tile, and the height of its face: of a picture, the width of the tile.
const SIZES = { image: [112, 0], text: [240, 92], vector: [150, 84], series: [150, 84] };
const CAPTION = 36;
const GAP = 8;

function drawing(viewBox) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", viewBox);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  return picture;
}

// A vector as bars from its columns' means, a series as curves.
export function numbers(cell) {
  return cell.bars ? bars(cell.bars) : lines(cell.lines);
}

function bars(values) {
  const picture = drawing(`0 0 ${values.length} 40`);
  values.forEach((value, index) => {
    if (value === null) return;
    const bar = document.createElementNS(SVG, "rect");
    const height = Math.max(0.6, Math.abs(value - 0.5) * 40);
    const sides = { x: index + 0.1, width: 0.8, y: value < 0.5 ? 20 : 20 - height, height };
    for (const [name, side] of Object.entries(sides)) bar.setAttribute(name, side);
    bar.setAttribute("class", value < 0.5 ? "less" : "more");
    picture.append(bar);
  });
  return picture;
}

function lines(channels) {
  const picture = drawing("0 0 100 40");
  channels.forEach((values, channel) => {
    const line = document.createElementNS(SVG, "path");
    let path = "";
    let broken = true;
    values.forEach((value, index) => {
      if (value === null) {
        broken = true;
        return;
      }
      const x = values.length > 1 ? (100 * index) / (values.length - 1) : 50;
      path += `${broken ? "M" : "L"}${x.toFixed(1)} ${(38 - 36 * value).toFixed(1)}`;
      broken = false;
    });
    line.setAttribute("d", path);
    line.setAttribute("class", `channel channel-${channel}`);
    picture.append(line);
  });
  return picture;
}

export class Grid extends EventTarget {
  constructor(box, store, thumbs) {
    super();
    this.box = box;
    this.store = store;
    this.thumbs = thumbs;
    this.rows = [];
    this.active = -1;
    this.anchor = -1;
    this.shown = new Map();
    this.sheet = document.createElement("div");
    this.sheet.className = "sheet-of-tiles";
    this.sheet.setAttribute("role", "presentation");
    this.box.append(this.sheet);
    this.modality = store.overview.modality;
    box.addEventListener("scroll", () => this.later());
    new ResizeObserver(() => this.later()).observe(box);
    box.addEventListener("click", (event) => this.click(event));
    box.addEventListener("dblclick", (event) => {
      const tile = event.target.closest(".tile");
      if (tile) this.dispatchEvent(new CustomEvent("open", { detail: Number(tile.dataset.row) }));
    });
    box.addEventListener("keydown", (event) => this.key(event));
    for (const kind of ["state", "proposals", "selection"]) store.addEventListener(kind, () => this.later(true));
  }

  // Show rows in this order; the active one, and the one that a range starts at, stay where they are still there.
  show(rows, { keep = false } = {}) {
    const [at, from] = [this.rows[this.active], this.rows[this.anchor]];
    this.rows = rows;
    this.active = keep ? Math.min(Math.max(0, rows.includes(at) ? rows.indexOf(at) : this.active), rows.length - 1) : -1;
    this.anchor = keep && rows.includes(from) ? rows.indexOf(from) : this.active;
    if (!keep) this.box.scrollTop = 0;
    this.later(true);
  }

  get activeRow() {
    return this.active >= 0 ? this.rows[this.active] : -1;
  }

  // Tiles fill the width.
  columns() {
    const [least] = SIZES[this.modality];
    return Math.max(1, Math.floor((this.box.clientWidth - GAP) / (least + GAP)));
  }

  get width() {
    return Math.floor((this.box.clientWidth - GAP) / this.columns()) - GAP;
  }

  get height() {
    return (SIZES[this.modality][1] || this.width) + CAPTION;
  }

  later(refresh = false) {
    this.refresh ||= refresh;
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    if (!this.box.clientWidth) return; // another pane is shown
    const columns = this.columns();
    const { width, height } = this;
    const step = height + GAP;
    this.sheet.style.height = `${Math.ceil(this.rows.length / columns) * step + GAP}px`;
    const first = Math.max(0, Math.floor(this.box.scrollTop / step) - 1) * columns;
    const last = Math.min(this.rows.length, (Math.ceil((this.box.scrollTop + this.box.clientHeight) / step) + 1) * columns);
    const wanted = new Map();
    for (let place = first; place < last; place += 1) wanted.set(this.rows[place], place);
    for (const [row, tile] of this.shown) {
      if (wanted.has(row)) continue;
      tile.remove();
      this.shown.delete(row);
    }
    for (const [row, place] of wanted) {
      let tile = this.shown.get(row);
      const fresh = !tile;
      if (fresh) {
        tile = this.tile(row);
        this.shown.set(row, tile);
        this.sheet.append(tile);
      }
      tile.style.transform = `translate(${GAP + (place % columns) * (width + GAP)}px, ${GAP + Math.floor(place / columns) * step}px)`;
      tile.style.width = `${width}px`;
      tile.style.height = `${height}px`;
      tile.setAttribute("aria-posinset", place + 1);
      tile.setAttribute("aria-setsize", this.rows.length);
      tile.classList.toggle("active", place === this.active);
      if (fresh || this.refresh) this.describe(tile, row);
      if (this.modality === "image" && !tile.firstChild.dataset.shown) this.thumbs.put(tile.firstChild, row);
    }
    this.refresh = false;
    const active = this.activeRow;
    if (active >= 0 && this.shown.has(active)) this.box.setAttribute("aria-activedescendant", `tile-${active}`);
    else this.box.removeAttribute("aria-activedescendant");
    this.fetch([...wanted.keys()]);
  }

  fetch(rows) {
    const missing = rows.filter((row) => !this.store.cells.has(row));
    if (!missing.length || this.fetching) return;
    this.fetching = this.store.loadCells(missing)
      .then(() => this.later(true), (error) => this.store.tell("problem", error.message))
      .finally(() => { this.fetching = null; });
  }

  // Draw at once, and wait until the samples in sight are on the screen.
  async shownAll() {
    this.draw();
    await Promise.all([this.fetching, this.thumbs.asking]);
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  }

  tile(row) {
    const tile = document.createElement("div");
    tile.className = `tile ${this.modality}`;
    tile.id = `tile-${row}`;
    tile.dataset.row = row;
    tile.setAttribute("role", "option");
    const face = document.createElement("div");
    face.className = "face";
    const caption = document.createElement("div");
    caption.className = "caption";
    const marks = document.createElement("div");
    marks.className = "marks";
    tile.append(face, caption, marks);
    return tile;
  }

  describe(tile, row) {
    const { store } = this;
    const cell = store.cells.get(row);
    const [face, caption, marks] = tile.children;
    if (cell && this.modality !== "image" && !face.childNodes.length) {
      if (this.modality === "text") face.textContent = cell.text;
      else face.append(numbers(cell));
    }
    const [words, state, sureness] = this.words(row);
    caption.textContent = words;
    caption.className = `caption ${state}`;
    const badges = sureness ? [sureness] : [];
    if (store.isConfirmed(row)) badges.push("✓");
    else if (store.exemplars.has(row)) badges.push("exemplar");
    if (store.isOutlier(row)) badges.push("outlier");
    if (store.isHeldOut(row)) badges.push(store.overview.splits[store.split[row]] || "held out");
    marks.textContent = badges.join(" · ");
    tile.setAttribute("aria-selected", store.selected[row] ? "true" : "false");
    tile.setAttribute("aria-label", [cell ? `sample ${cell.id}` : `row ${row}`, cell?.text, words, ...badges]
      .filter(Boolean).join(", ").replace("✓", "confirmed"));
    if (cell) tile.title = `${cell.id}\n${words}`;
  }

  // What is said of a sample, how it is known, and for a proposal how sure that is.
  words(row) {
    const { store } = this;
    const group = store.groups.get(store.group[row]);
    const proposed = store.groups.get(store.proposed[row]);
    const percent = `${Math.round(100 * store.confidence[row])}%`;
    if (store.isOutlier(row)) return ["outlier", "outlier"];
    if (store.isConfirmed(row)) return [group?.name ?? store.groupTitle(store.group[row]), "confirmed"];
    if (store.isGiven(row)) {
      const other = proposed && proposed.name !== group?.name;
      return [other ? `${group.name} (${proposed.name}? ${percent})` : group.name, other ? "doubted" : "given"];
    }
    if (proposed) return [`${proposed.name}?`, "proposed", percent];
    return [group?.name ? `${group.name}?` : store.groupTitle(store.group[row]), "proposed"];
  }

  // Pointer and keys

  click(event) {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const row = Number(tile.dataset.row);
    const place = this.rows.indexOf(row);
    if (event.shiftKey && this.anchor >= 0) this.extend(this.anchor, place, event.ctrlKey || event.metaKey);
    else {
      this.anchor = place;
      this.store.toggle(row);
    }
    this.go(place);
  }

  extend(from, to, add) {
    this.store.select(this.rows.slice(Math.min(from, to), Math.max(from, to) + 1), { add });
  }

  go(place) {
    this.active = Math.max(0, Math.min(this.rows.length - 1, place));
    const step = this.height + GAP;
    const top = Math.floor(this.active / this.columns()) * step;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + step + GAP > this.box.scrollTop + this.box.clientHeight) {
      this.box.scrollTop = top + step + GAP - this.box.clientHeight;
    }
    this.later();
    this.dispatchEvent(new CustomEvent("active", { detail: this.activeRow }));
  }

  key(event) {
    if (!this.rows.length || event.altKey) return;
    const columns = this.columns();
    const page = columns * Math.max(1, Math.floor(this.box.clientHeight / (this.height + GAP)));
    const moves = {
      ArrowRight: this.active + 1,
      ArrowLeft: this.active - 1,
      ArrowDown: this.active + columns,
      ArrowUp: this.active - columns,
      PageDown: this.active + page,
      PageUp: this.active - page,
      Home: 0,
      End: this.rows.length - 1,
    };
    if (event.key in moves) {
      if (event.shiftKey && this.anchor < 0) this.anchor = Math.max(0, this.active);
      this.go(this.active < 0 ? 0 : moves[event.key]);
      if (event.shiftKey) this.extend(this.anchor, this.active, false);
      else this.anchor = this.active;
    } else if (event.key === " " && this.active >= 0) this.store.toggle(this.activeRow);
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) this.store.select(this.rows);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
