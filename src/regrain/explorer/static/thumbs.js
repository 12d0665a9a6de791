// Thumbnails: those that are asked for in one moment come as one picture, of which each element shows its cell.

const MOST = 100;

export class Thumbs {
  constructor(store) {
    this.store = store;
    this.sheets = new Map(); // row -> [address, column, line, columns, lines]
    this.waiting = new Map(); // row -> elements
    this.asked = new Set();
  }

  // Let an element show a sample, now or when its sheet has come.
  put(box, row) {
    box.dataset.thumb = row;
    if (this.sheets.has(row)) {
      this.show(box, row);
      return;
    }
    if (!this.waiting.has(row)) this.waiting.set(row, new Set());
    this.waiting.get(row).add(box);
    this.asking ||= Promise.resolve().then(() => {
      this.asking = null;
      return this.ask();
    });
  }

  ask() {
    const rows = [...this.waiting.keys()].filter((row) => !this.asked.has(row));
    const sheets = [];
    for (let at = 0; at < rows.length; at += MOST) sheets.push(this.fetch(rows.slice(at, at + MOST)));
    return Promise.all(sheets);
  }

  async fetch(rows) {
    for (const row of rows) this.asked.add(row);
    const address = this.store.picture(`tiles?rows=${rows.join(",")}`);
    const sheet = new Image();
    sheet.src = address;
    let came = true;
    try {
      await sheet.decode();
    } catch {
      came = false; // what is drawn again asks again
    }
    const columns = Math.min(this.store.overview.across, rows.length);
    const lines = Math.ceil(rows.length / columns);
    rows.forEach((row, index) => {
      if (came) {
        this.sheets.set(row, [address, index % columns, Math.floor(index / columns), columns, lines]);
        for (const box of this.waiting.get(row)) if (box.dataset.thumb === String(row)) this.show(box, row);
      }
      this.waiting.delete(row);
      this.asked.delete(row);
    });
  }

  show(box, row) {
    const [address, column, line, columns, lines] = this.sheets.get(row);
    const share = (at, count) => `${count > 1 ? (100 * at) / (count - 1) : 0}%`;
    box.style.backgroundImage = `url("${address}")`;
    box.style.backgroundSize = `${100 * columns}% ${100 * lines}%`;
    box.style.backgroundPosition = `${share(column, columns)} ${share(line, lines)}`;
    box.dataset.shown = "true";
  }
}
