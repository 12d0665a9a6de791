// The subclasses within their superclasses, each with a few typical samples.

import { css, groupColours } from "./colours.js";
import { getJson } from "./api.js";
import { numbers } from "./grid.js";

const MOST = 200;

function element(kind, text, kind_of_class) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  if (kind_of_class) made.className = kind_of_class;
  return made;
}

export class Tree extends EventTarget {
  constructor(box, store, thumbs) {
    super();
    this.box = box;
    this.store = store;
    this.thumbs = thumbs;
    this.typical = new Map(); // number -> [size when asked, rows]
    this.wanted = new Set();
    this.seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) this.picture(target);
    }, { root: box.closest("nav"), rootMargin: "200px" });
  }

  // Subclasses that hold samples or have a name, largest first within their superclass.
  groups() {
    const place = (group) => this.store.overview.superclasses.indexOf(group.superclass);
    return [...this.store.groups.values()]
      .filter((group) => group.size || group.name)
      .sort((a, b) => place(a) - place(b) || b.size - a.size || a.number - b.number);
  }

  numbers() {
    return [...this.box.querySelectorAll("details[open] [data-group]")].map((leaf) => Number(leaf.dataset.group));
  }

  // Show all, with one of them as the current one, or none.
  show(current) {
    const focused = document.activeElement?.dataset?.group;
    const closed = new Set([...this.box.querySelectorAll("details:not([open])")].map((d) => d.dataset.superclass));
    this.colours = groupColours(this.store);
    this.seen.disconnect();
    const groups = this.groups();
    const { superclasses } = this.store.overview;
    this.box.replaceChildren(...superclasses.map((name) => this.branch(
      name, groups.filter((group) => group.superclass === name), closed, current)));
    if (focused !== undefined) this.box.querySelector(`[data-group="${Number(focused)}"]`)?.focus();
    for (const leaf of this.box.querySelectorAll("[data-group]")) this.seen.observe(leaf);
    if (this.current !== current) {
      this.current = current;
      this.box.querySelector("[aria-current=true]")?.scrollIntoView({ block: "nearest" });
    }
  }

  branch(superclass, groups, closed, current) {
    const details = element("details");
    details.dataset.superclass = superclass ?? "";
    details.open = !closed.has(superclass ?? "");
    const summary = element("summary", superclass ?? "Subclasses");
    summary.append(" ", element("span", `${groups.filter((group) => group.name).length} of ${groups.length} named`));
    const list = element("ul");
    for (const group of groups) {
      const item = element("li");
      item.append(this.leaf(group, current));
      list.append(item);
    }
    details.append(summary, list);
    return details;
  }

  leaf(group, current) {
    const count = (number) => number.toLocaleString("en");
    const button = element("button", undefined, "group");
    button.type = "button";
    button.dataset.group = group.number;
    button.setAttribute("aria-current", String(current === group.number));
    const dot = element("span", undefined, "dot");
    dot.style.background = css(this.colours.get(group.number));
    const nameless = group.proposed ? `#${group.number} ${group.proposed}?` : `#${group.number}`;
    const who = element("span", group.name ?? nameless, group.name ? "who" : "who nameless");
    const size = element("span", `${count(group.confirmed)}/${count(group.size)}`, "size");
    size.title = "confirmed / samples";
    const bar = element("span", undefined, "share");
    bar.append(element("span"));
    bar.firstChild.style.width = `${(100 * group.confirmed) / Math.max(1, group.size)}%`;
    button.append(dot, who, size, element("span", undefined, "strip"), bar);
    const proposal = !group.name && group.proposed ? `, proposed name ${group.proposed}` : "";
    const samples = `${count(group.size)} ${group.size === 1 ? "sample" : "samples"}`;
    button.setAttribute("aria-label", `${this.store.groupTitle(group.number)}${proposal}, ${group.confirmed} of ${samples} confirmed`);
    button.addEventListener("click", () => this.dispatchEvent(new CustomEvent("open", { detail: group.number })));
    return button;
  }

  // Typical samples

  picture(leaf) {
    const number = Number(leaf.dataset.group);
    const known = this.typical.get(number);
    if (known) this.draw(leaf, known.rows);
    if (known?.size === this.store.groups.get(number)?.size) return;
    this.wanted.add(number);
    this.timer ||= setTimeout(() => {
      this.timer = 0;
      this.ask();
    });
  }

  async ask() {
    const numbers = [...this.wanted];
    this.wanted.clear();
    for (let at = 0; at < numbers.length; at += MOST) {
      const asked = numbers.slice(at, at + MOST).filter((number) => this.store.groups.has(number));
      const sizes = asked.map((number) => this.store.groups.get(number).size);
      if (!asked.length) continue;
      let found;
      try {
        found = await getJson(`/api/typical?groups=${asked.join(",")}`);
        if (this.store.overview.modality !== "image") await this.store.loadCells(Object.values(found).flat());
      } catch (error) {
        this.store.tell("problem", error.message);
        return;
      }
      asked.forEach((number, index) => {
        this.typical.set(number, { size: sizes[index], rows: found[number] ?? [] });
        const leaf = this.box.querySelector(`[data-group="${number}"]`);
        if (leaf) this.draw(leaf, found[number] ?? []);
      });
    }
  }

  draw(leaf, rows) {
    const strip = leaf.querySelector(".strip");
    const { modality } = this.store.overview;
    strip.className = `strip ${modality}`;
    if (modality === "text") {
      strip.textContent = rows.length ? this.store.cells.get(rows[0]).text.slice(0, 160) : "";
      return;
    }
    strip.replaceChildren(...rows.slice(0, modality === "image" ? 4 : 2).map((row) => {
      const box = element("span", undefined, "thumb");
      if (modality === "image") this.thumbs.put(box, row);
      else box.append(numbers(this.store.cells.get(row)));
      return box;
    }));
  }
}
