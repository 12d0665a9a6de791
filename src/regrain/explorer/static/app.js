// The page: what each control does, and what is shown when something changed.

import { getJson, postJson } from "./api.js";
import { colours, css, dim, onDarkChange, paper } from "./colours.js";
import { Grid } from "./grid.js";
import { ScatterMap } from "./map.js";
import { Store } from "./store.js";
import { Thumbs } from "./thumbs.js";
import { Tree } from "./tree.js";

const $ = (id) => document.getElementById(id);
const store = new Store();
let grid;
let map;
let thumbs;
let tree;
let view = { kind: "all" };
let found = [];
let foundFor = view;
let finding = Promise.resolve();
let quick = [];

const KEYS = [
  ["/", "search", () => $("search").focus()],
  ["n", "name the subclass", () => focusOn("name")],
  ["l", "label the selected samples", () => focusOn("label")],
  ["1 to 9", "label with the class of that number, and go on", null],
  ["c", "confirm the selected samples", () => $("confirm").click()],
  ["a", "accept their proposals", () => $("accept").click()],
  ["o", "mark as outliers, or no longer", () => $("outlier").click()],
  ["m", "move to another subclass", () => focusOn("move")],
  ["g", "merge the subclass with another", () => focusOn("merge")],
  ["s", "split the subclass", () => focusOn("parts")],
  ["k", "nearest neighbours", () => $("neighbours").click()],
  ["v", "look at the sample", () => $("look").click()],
  ["d", "most doubtful first, of all samples", () => $("doubtful").click()],
  ["j / p", "next, previous subclass", null],
  ["x", "clear the selection", () => store.select([])],
  ["u", "undo (also Ctrl Z)", () => $("undo").click()],
  ["r", "redo (also Ctrl Shift Z, Ctrl Y)", () => $("redo").click()],
  ["?", "this list", () => $("help-dialog").showModal()],
  ["Arrows, Page, Home, End", "from sample to sample; with Shift, select", null],
  ["Space, Ctrl A", "select a sample, all samples", null],
  ["Arrows, + - 0, Enter", "on the map: pan, zoom, whole map, select what is in view", null],
];

function focusOn(id) {
  const field = $(id);
  if (field.closest("[hidden]")) return say("choose a subclass first");
  showPane("samples");
  const menu = field.closest("details");
  if (menu) menu.open = true;
  field.focus();
  field.select?.();
}

function say(text, problem = false) {
  $("status").textContent = text;
  $("status").classList.toggle("problem", problem);
}

const count = (number) => number.toLocaleString("en");
const some = (number, what, several = `${what}s`) => `${count(number)} ${number === 1 ? what : several}`;

// Actions

async function act(kind, fields, done) {
  try {
    await store.act(kind, fields);
    say(typeof done === "function" ? done() : done);
    return true;
  } catch (error) {
    say(`not done: ${error.message}`, true);
    return false;
  }
}

// The samples an action is about: those selected, else the active one.
function targets() {
  if (store.selectedCount) return store.selectedRows();
  return grid.activeRow >= 0 ? [grid.activeRow] : [];
}

function withTargets(work) {
  const rows = targets();
  if (rows.length) return work(rows);
  say("select samples first: click them, or Space");
  return undefined;
}

function heldOut(rows) {
  const held = rows.filter((row) => store.isHeldOut(row)).length;
  return held ? `; ${some(held, "sample")} held out from training, marked as such` : "";
}

async function finished(kind, fields, rows, words) {
  const single = !store.selectedCount;
  if (!(await act(kind, fields, `${words}${heldOut(rows)}`))) return;
  store.select([]);
  if (single) grid.go(grid.active + 1);
}

const superclassOf = (row) => store.groups.get(store.group[row])?.superclass ?? null;

// What a move does besides: samples that it takes to another superclass.
function crossing(moves) {
  const taken = moves.flatMap(({ group, samples }) => {
    const above = store.groups.get(group)?.superclass ?? null;
    return samples.filter((row) => superclassOf(row) !== above);
  });
  return taken.length ? `; ${some(taken.length, "sample")} to another superclass` : "";
}

// Without a superclass, the server labels every sample within its own.
function labelWith(name, superclass) {
  withTargets((rows) => {
    const owners = superclass === undefined ? new Set(rows.map(superclassOf)).size : 1;
    const spread = owners > 1 ? `, within each of ${owners} superclasses` : "";
    finished("label", { samples: rows, name, superclass }, rows, `${some(rows.length, "sample")} labelled ${name}${spread}`);
  });
}

function accept() {
  withTargets((rows) => {
    const free = rows.filter((row) => !store.isConfirmed(row) && !store.isOutlier(row));
    const settled = rows.length - free.length;
    const left = settled ? `; ${some(settled, "sample")} left out, confirmed or marked as ${settled === 1 ? "an outlier" : "outliers"}` : "";
    const byGroup = new Map();
    for (const row of free) {
      const group = store.proposed[row];
      if (group >= 0 && store.groups.has(group)) byGroup.set(group, [...(byGroup.get(group) ?? []), row]);
    }
    if (!byGroup.size) return say(`there is no proposal for these samples${left}`);
    const moves = [...byGroup].map(([group, samples]) => ({ group, samples }));
    const moved = moves.flatMap(({ samples }) => samples);
    return finished("move", { moves }, moved, `${some(moved.length, "proposal")} accepted${left}${crossing(moves)}`);
  });
}

const actions = {
  undo: () => act("undo", {}, "undone"),
  redo: () => act("redo", {}, "redone"),
  accept,
  confirm: () => withTargets((rows) => finished("confirm", { samples: rows }, rows, `${some(rows.length, "sample")} confirmed`)),
  outlier: () => withTargets((rows) => {
    const marked = !rows.every((row) => store.isOutlier(row));
    finished("outlier", { samples: rows, marked }, rows, `${some(rows.length, "sample")} marked ${marked ? "as outliers" : "as no outliers"}`);
  }),
  "confirm-all": async () => {
    const { number } = view;
    await finding.catch(() => {});
    const rows = found.filter((row) => store.group[row] === number && !store.isOutlier(row));
    act("confirm", { samples: rows }, `${some(rows.length, "sample")} confirmed${heldOut(rows)}`);
  },
  neighbours: () => withTargets((rows) => open({ kind: "neighbours", row: rows[0] })),
  look: () => look(targets()[0] ?? -1),
  "select-all": () => store.select(grid.rows),
  clear: () => store.select([]),
  all: () => open({ kind: "all" }),
  doubtful: () => open({ kind: "doubtful" }),
  outliers: () => open({ kind: "outliers" }),
  help: () => $("help-dialog").showModal(),
  export: () => {
    $("exported").replaceChildren();
    $("export-dialog").showModal();
  },
  link: async () => {
    try {
      $("link-text").value = (await postJson("/api/link", {})).link;
      $("link-dialog").showModal();
    } catch (error) {
      say(error.message, true);
    }
  },
  pan: () => setMode("pan"),
  lasso: () => setMode("lasso"),
  home: () => map.home(),
  "in-view": () => lassoed(map.inView(), false),
};

const forms = {
  "name-form": async () => {
    const group = view.number;
    const name = $("name").value.trim() || $("name").placeholder;
    await finding.catch(() => {}); // who types fast is ahead of the exemplars, which the name confirms
    const samples = [...store.exemplars].filter(
      (row) => store.group[row] === group && !store.isOutlier(row) && !store.selected[row]);
    act("name", { group, name, samples }, `named ${name}; its ${some(samples.length, "exemplar")} confirmed`)
      .then((done) => {
        if (!done) return;
        store.select([]);
        $("grid").focus();
      });
  },
  "merge-form": () => {
    const other = Number($("merge").value);
    const title = store.groupTitle(other);
    const [from, to] = [other, view.number].map((number) => store.groups.get(number)?.superclass ?? null);
    const crossed = from === to ? "" : `, from superclass ${from ?? "(none)"} to ${to ?? "(none)"}`;
    act("merge", { group: view.number, others: [other] }, `${title} merged into ${store.groupTitle(view.number)}${crossed}`);
  },
  "split-form": () => {
    const before = new Set(store.groups.keys());
    act("split", { group: view.number, count: Number($("parts").value) }, () => {
      const made = [...store.groups.keys()].filter((number) => !before.has(number));
      return `split: ${made.map((number) => store.groupTitle(number)).join(", ")} came out of it`;
    });
  },
  "label-form": () => {
    labelWith($("label").value.trim());
    $("label").value = "";
    $("grid").focus();
  },
  "move-form": () => withTargets((rows) => {
    const group = Number($("move").value);
    const moves = [{ group, samples: rows }];
    finished("move", { moves }, rows, `${some(rows.length, "sample")} moved to ${store.groupTitle(group)}${crossing(moves)}`);
  }),
  "search-form": () => open({ kind: "search", query: $("search").value }),
  "export-form": writeExport,
};

async function writeExport() {
  const box = $("exported");
  box.textContent = "writing ...";
  try {
    const made = await postJson("/api/export", { format: $("format").value });
    const lines = [`${made.files.join(", ")} in ${made.folder}`, ...made.notices.map((notice) => `Proposals: ${notice}.`)];
    box.replaceChildren(...lines.map((line) => element("p", line)));
    const purposes = { fit: "Train on the result:", adapt: "A classifier on this run as it is:" };
    for (const [what, purpose] of Object.entries(purposes)) {
      if (made.commands[what]) box.append(element("p", purpose), element("pre", made.commands[what]));
    }
  } catch (error) {
    box.textContent = error.message;
  }
}

function element(kind, text, kind_of_class) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  if (kind_of_class) made.className = kind_of_class;
  return made;
}

// Views: which samples the grid shows

// At once all that the page knows itself: who types fast acts on the view that was asked for.
async function open(wanted) {
  view = wanted;
  showPane("samples");
  store.exemplars = new Set();
  $("name").value = nameShown();
  showTree();
  showView();
  try {
    await find();
  } catch (error) {
    say(error.message, true);
    return;
  }
  $("order").value = view.kind === "doubtful" ? "doubt" : "found";
  if (view.kind === "doubtful" && !found.length) say(store.notices.join("; ") || "no proposals were made yet");
  showRows();
  showView();
  paintMap();
}

// On a narrow page one pane is shown at a time.
function showPane(name) {
  document.querySelector("main").dataset.pane = name;
  for (const button of document.querySelectorAll("#panes button")) {
    button.setAttribute("aria-pressed", String(button.dataset.pane === name));
  }
}

// Whoever looks while another look is under way sees what the newest one finds: answers may come in any order.
function find() {
  const asked = view;
  const looking = lookedUp(asked).then(([rows, exemplars]) => {
    if (looking !== finding) return finding;
    found = rows;
    foundFor = asked;
    store.exemplars = exemplars;
    return undefined;
  });
  finding = looking;
  return looking;
}

async function lookedUp(wanted) {
  const every = () => Array.from({ length: store.count }, (_, row) => row);
  const { kind } = wanted;
  if (kind === "group") {
    const members = await getJson(`/api/members/${wanted.number}`);
    return [members.rows, new Set(members.exemplars)];
  }
  let rows;
  if (kind === "neighbours") rows = (await getJson(`/api/neighbours/${wanted.row}?count=100`)).rows;
  else if (kind === "search") {
    const result = await getJson(`/api/search?q=${encodeURIComponent(wanted.query)}`);
    const groups = new Set(result.groups);
    rows = [...new Set([...result.rows, ...every().filter((row) => groups.has(store.group[row]))])];
    say(`${some(result.groups.length, "subclass", "subclasses")}, ${some(result.total, "sample")} found`);
  } else if (kind === "outliers") rows = every().filter((row) => store.isOutlier(row));
  else if (kind === "doubtful") rows = every().filter((row) => store.doubt(row) < 1.5);
  else if (kind === "selection") rows = wanted.rows;
  else rows = every();
  return [rows, new Set()];
}

function showRows(keep = false) {
  const order = $("order").value;
  let rows = found;
  if (order === "doubt") rows = [...found].sort((a, b) => store.doubt(a) - store.doubt(b) || a - b);
  else if (order === "reverse") rows = [...found].reverse();
  grid.show(rows, { keep });
}

function viewTitle() {
  const titles = {
    all: "All samples",
    doubtful: "Most doubtful proposals",
    outliers: "Outliers",
    selection: "Selected on the map",
    neighbours: "Nearest neighbours",
    search: `Found for “${view.query}”`,
  };
  if (view.kind !== "group") return titles[view.kind];
  const group = store.groups.get(view.number);
  return group?.name && group.superclass ? `${group.superclass} / ${group.name}` : store.groupTitle(view.number);
}

const nameShown = () => (view.kind === "group" && store.groups.get(view.number)?.name) || "";

function showView() {
  const isGroup = view.kind === "group" && store.groups.has(view.number);
  $("view-title").textContent = foundFor === view ? `${viewTitle()} (${count(found.length)})` : viewTitle();
  $("group-bar").hidden = !isGroup;
  if (isGroup && document.activeElement !== $("name")) $("name").value = nameShown();
  const proposed = isGroup ? store.groups.get(view.number).proposed : null;
  $("name").placeholder = proposed ?? "";
  $("name").required = !proposed; // left empty, the field takes the proposed name
  const above = isGroup ? store.groups.get(view.number).superclass : null;
  const others = tree.groups().filter((group) => group.number !== view.number);
  const near = isGroup ? [...others].sort((a, b) => (b.superclass === above) - (a.superclass === above)) : others;
  if ($("merge").dataset.group !== String(view.number)) $("merge").value = "";
  $("merge").dataset.group = view.number;
  fillSelect($("merge"), near);
  fillSelect($("move"), near);
  const named = [...store.groups.values()].map((group) => group.name);
  const names = [...new Set([proposed, ...named].filter(Boolean))].sort();
  $("classes").replaceChildren(...names.map((name) => Object.assign(element("option"), { value: name })));
  showQuick(isGroup, above);
}

// The nine largest classes, of the superclass where one is shown, by number key.
function showQuick(isGroup, above) {
  const sizes = new Map();
  for (const group of store.groups.values()) {
    if (!group.name || (isGroup && group.superclass !== above)) continue;
    const key = JSON.stringify([group.superclass, group.name]);
    sizes.set(key, (sizes.get(key) ?? 0) + group.size);
  }
  quick = [...sizes].sort((a, b) => b[1] - a[1]).slice(0, 9).map(([key]) => JSON.parse(key));
  $("quick").hidden = !quick.length;
  $("quick").replaceChildren(...quick.map(([superclass, name], index) => {
    const button = element("button");
    button.type = "button";
    button.append(element("kbd", String(index + 1)), ` ${name}`);
    button.addEventListener("click", () => labelWith(name, superclass));
    return button;
  }));
}

function fillSelect(select, groups) {
  const before = select.value;
  select.replaceChildren(...groups.map((group) => Object.assign(
    element("option", `${store.groupTitle(group.number)} (${count(group.size)})`), { value: group.number })));
  if (groups.some((group) => String(group.number) === before)) select.value = before;
}

function showTree() {
  tree.show(view.kind === "group" ? view.number : undefined);
  for (const id of ["all", "doubtful", "outliers"]) $(id).setAttribute("aria-current", String(view.kind === id));
}

function step(by) {
  const numbers = tree.numbers();
  if (!numbers.length) return;
  const at = view.kind === "group" ? numbers.indexOf(view.number) : by > 0 ? -1 : 0;
  open({ kind: "group", number: numbers[(at + by + numbers.length) % numbers.length] });
}

// The map

function paintMap() {
  if (!map.available) return;
  const { bytes, legend } = colours(store, $("colour").value);
  showLegend(legend);
  const weights = new Uint8Array(store.count).fill(1);
  const narrowed = view.kind !== "all" && view.kind !== "doubtful";
  if (narrowed || store.selectedCount) {
    const inside = new Uint8Array(store.count);
    if (narrowed) for (const row of found) inside[row] = 1;
    for (let row = 0; row < store.count; row += 1) {
      if (store.selected[row]) weights[row] = 2;
      else if (inside[row]) weights[row] = store.selectedCount ? 1 : 2;
      else {
        weights[row] = 0;
        dim(bytes, row);
      }
    }
  }
  map.paint(bytes, weights, paper());
}

function showLegend(entries) {
  $("legend").hidden = !entries.length;
  $("legend").replaceChildren(...entries.map(([colour, text]) => {
    const item = element("li");
    const dot = element("span", undefined, "dot");
    dot.style.background = css(colour);
    item.append(dot, text);
    return item;
  }));
}

let painting = 0;
function paintLater() {
  painting ||= requestAnimationFrame(() => {
    painting = 0;
    paintMap();
  });
}

function setMode(mode) {
  map.mode = mode;
  $("pan").setAttribute("aria-pressed", String(mode === "pan"));
  $("lasso").setAttribute("aria-pressed", String(mode === "lasso"));
  $("points").classList.toggle("lasso", mode === "lasso");
}

function lassoed(rows, add) {
  store.select(rows, { add });
  if (!rows.length) return say("no sample lies there");
  say(`${some(rows.length, "sample")} selected on the map`);
  return open({ kind: "selection", rows: store.selectedRows() });
}

function summary(row) {
  const [words, , sureness] = grid.words(row);
  return sureness ? `${words} ${sureness}` : words;
}

async function hover(row) {
  const box = $("hover");
  box.hidden = row < 0;
  if (row < 0) return;
  const [x, y] = map.toScreen(row);
  box.style.left = `${Math.max(0, Math.min(x + 12, map.canvas.clientWidth - 225))}px`;
  box.style.top = `${Math.max(0, Math.min(y + 12, map.canvas.clientHeight - 170))}px`;
  if (box.dataset.row === String(row)) return;
  box.dataset.row = row;
  const isImage = store.overview.modality === "image";
  const face = element("div", undefined, isImage ? "thumb" : "");
  if (isImage) thumbs.put(face, row);
  box.replaceChildren(face, element("div", summary(row)));
  if (store.overview.modality !== "text") return;
  await store.loadCells([row]);
  if (box.dataset.row === String(row)) face.textContent = store.cells.get(row).text.slice(0, 160);
}

async function look(row) {
  if (row < 0) return say("choose a sample first");
  await store.loadCells([row]);
  const cell = store.cells.get(row);
  $("picture-title").textContent = cell.id;
  const about = [`split ${cell.split || "none"}`, cell.superclass, summary(row)].filter(Boolean).join(" · ");
  const body = store.overview.modality === "image"
    ? Object.assign(element("img"), { src: store.picture(`picture/${row}`), alt: `sample ${cell.id}` })
    : cell.text !== undefined ? element("p", cell.text) : document.querySelector(`#tile-${row} svg`)?.cloneNode(true) ?? "";
  $("picture").replaceChildren(element("p", about), body);
  return $("picture-dialog").showModal();
}

// What is shown when something changed

async function stateChanged(rows) {
  showProgress();
  if (view.kind === "group" && !store.groups.has(view.number)) return open({ kind: "all" });
  showTree();
  showView();
  paintLater();
  if (view.kind !== "outliers" && !(view.kind === "group" && rows.length)) return undefined;
  await find();
  showRows(true);
  showView();
  return paintLater();
}

function showProgress() {
  const groups = [...store.groups.values()].filter((group) => group.size || group.name);
  const confirmed = groups.reduce((sum, group) => sum + group.confirmed, 0);
  const named = groups.filter((group) => group.name).length;
  const saved = store.pending ? "saving ..." : `${some(store.seq, "action")} saved`;
  $("progress").textContent = `${named} of ${some(groups.length, "subclass", "subclasses")} named · ${count(confirmed)} of ${some(store.count, "sample")} confirmed · ${saved}`;
  $("undo").disabled = !store.canUndo;
  $("redo").disabled = !store.canRedo;
}

function showSelection() {
  $("selected").textContent = store.selectedCount ? `${count(store.selectedCount)} selected` : "none selected";
  paintLater();
}

// Keys

function keyed(event) {
  const typing = event.target.closest("input, select, textarea, dialog");
  const key = event.key;
  if ((event.ctrlKey || event.metaKey) && !typing && "zyZY".includes(key)) {
    event.preventDefault();
    $(key.toLowerCase() === "y" || event.shiftKey ? "redo" : "undo").click();
    return;
  }
  if (key === "Escape" && !event.target.closest("dialog")) {
    const menu = document.querySelector(".menu[open]");
    if (menu) {
      menu.open = false;
      menu.firstElementChild.focus();
    } else if (typing) $("grid").focus();
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^[1-9]$/.test(key)) {
    const wanted = quick[Number(key) - 1];
    if (wanted) labelWith(wanted[1], wanted[0]);
  } else if (key === "j" || key === "p") step(key === "j" ? 1 : -1);
  else {
    const known = KEYS.find(([name, , work]) => name === key && work);
    if (!known) return;
    known[2]();
  }
  event.preventDefault();
}

function showKeys() {
  for (const [key, what] of KEYS) {
    const row = element("tr");
    const cell = element("td");
    cell.append(element("kbd", key));
    row.append(cell, element("td", what));
    $("keys").append(row);
  }
}

// Start

async function start() {
  await store.load();
  const { overview } = store;
  document.title = `${overview.run} · regrain explore`;
  $("run").textContent = overview.run;
  thumbs = new Thumbs(store);
  grid = new Grid($("grid"), store, thumbs);
  tree = new Tree($("superclasses"), store, thumbs);
  map = new ScatterMap($("points"), $("overlay"), store.places);
  for (const [id, work] of Object.entries(actions)) $(id).addEventListener("click", work);
  for (const [id, work] of Object.entries(forms)) {
    $(id).addEventListener("submit", (event) => {
      event.preventDefault();
      work();
    });
  }
  for (const button of document.querySelectorAll("#panes button")) {
    button.addEventListener("click", () => showPane(button.dataset.pane));
  }
  for (const menu of document.querySelectorAll(".menu")) {
    menu.addEventListener("submit", () => { menu.open = false; });
    menu.addEventListener("click", (event) => {
      if (event.target.closest(".sheet > button")) menu.open = false;
    });
  }
  document.addEventListener("pointerdown", (event) => {
    for (const menu of document.querySelectorAll(".menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  $("order").addEventListener("change", () => showRows());
  $("colour").addEventListener("change", paintMap);
  onDarkChange(() => {
    showTree();
    paintMap();
  });
  map.addEventListener("lasso", ({ detail }) => lassoed(detail.rows, detail.add));
  map.addEventListener("pick", ({ detail }) => {
    store.select([detail.row], { add: detail.add });
    open({ kind: "neighbours", row: detail.row });
  });
  map.addEventListener("hover", ({ detail }) => hover(detail));
  grid.addEventListener("open", ({ detail }) => look(detail));
  tree.addEventListener("open", ({ detail }) => open({ kind: "group", number: detail }));
  $("mapping").hidden = !overview.mapping || store.map > 0;
  store.addEventListener("map", () => {
    $("mapping").hidden = true;
    map.place(store.places);
  });
  store.addEventListener("state", ({ detail }) => stateChanged(detail).catch((error) => say(error.message, true)));
  store.addEventListener("pending", showProgress);
  store.addEventListener("selection", showSelection);
  store.addEventListener("proposals", () => {
    if ($("order").value === "doubt") showRows(true);
    showView();
    paintLater();
  });
  store.addEventListener("connection", ({ detail }) => {
    if (!detail) say("the server does not answer: nothing more is saved until it does", true);
    else if ($("status").textContent.startsWith("the server")) say("the server answers again");
  });
  store.addEventListener("problem", ({ detail }) => say(detail, true));
  document.addEventListener("keydown", keyed);
  showKeys();
  showProgress();
  await open({ kind: "all" });
  await grid.shownAll(); // before what takes longer
  map.open();
  $("no-map").hidden = map.available;
  paintMap();
  if (overview.proposed >= 0) await store.loadProposals();
  store.watch();
  say(overview.notices.join(" · ") || `Choose a subclass, look at its samples and name it. Names become the level “${overview.level}”; ? lists the keys.`);
  document.body.dataset.ready = "true";
}

start().catch((error) => say(error.message, true));
