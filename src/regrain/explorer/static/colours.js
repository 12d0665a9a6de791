// Colours of points, by what the user wants to see.

const dark = matchMedia("(prefers-color-scheme: dark)");

// Hues that are told apart best, in this order; more classes than these share the circle by the golden angle.
const HUES = [255, 50, 150, 350, 95, 305, 200, 25];
const GOLDEN = 137.508;

// From OKLCH, in which equal steps look equal, to bytes.
function fromOklch(lightness, chroma, hue) {
  const [a, b] = [chroma * Math.cos((hue * Math.PI) / 180), chroma * Math.sin((hue * Math.PI) / 180)];
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((value) => {
    const bounded = Math.min(1, Math.max(0, value));
    return Math.round(255 * (bounded <= 0.0031308 ? 12.92 * bounded : 1.055 * bounded ** (1 / 2.4) - 0.055));
  });
}

const hueOf = (number, many) => (many <= HUES.length ? HUES[number % HUES.length] : (number * GOLDEN + 255) % 360);

// 0, 1/2, 1/4, 3/4, ...: far apart for ranks that follow each other, and the same however many follow.
function spread(rank) {
  let [share, step] = [0, 0.5];
  for (let left = rank; left > 0; left = Math.floor(left / 2)) {
    share += step * (left % 2);
    step /= 2;
  }
  return share;
}

// A shade of a hue, of which each rank has its own.
function shade(hue, rank) {
  const [low, high] = dark.matches ? [0.6, 0.86] : [0.44, 0.74];
  const at = spread(rank);
  const turned = hue + (rank ? 14 * (((rank * 3) % 5) / 2 - 1) : 0);
  return fromOklch(low + (high - low) * ((at + 0.4) % 1), rank % 2 ? 0.12 : 0.17, turned);
}

const plain = (number, many) => shade(hueOf(number, many), many > HUES.length ? number % 4 : 0);

export function onDarkChange(listener) {
  dark.addEventListener("change", listener);
}

export const grey = () => (dark.matches ? [92, 101, 114] : [176, 182, 191]);

export const css = (colour) => `rgb(${colour.join(" ")})`;

// A subclass has a shade of its superclass's hue; without superclasses, a hue of its own.
export function groupColours(store) {
  const { superclasses } = store.overview;
  const ranks = new Map();
  const found = new Map();
  for (const group of [...store.groups.values()].sort((a, b) => a.number - b.number)) {
    const above = superclasses.indexOf(group.superclass);
    const rank = ranks.get(above) ?? 0;
    ranks.set(above, rank + 1);
    const alone = superclasses.length < 2;
    found.set(group.number, alone ? plain(group.number, store.groups.size) : shade(hueOf(above, superclasses.length), rank));
  }
  return found;
}

function doubtColour(doubt) {
  if (doubt >= 1.5) return grey();
  const share = Math.min(1, Math.max(0, doubt));
  return fromOklch(dark.matches ? 0.74 : 0.6, 0.15, 40 + 215 * share);
}

// What a way of colouring shows: the colour of each sample, and the entries of its legend.
function way(store, by) {
  const { superclasses, splits } = store.overview;
  const name = (text) => text ?? "(none)";
  if (by === "superclass") {
    const of = superclasses.map((_, index) => plain(index, superclasses.length));
    return {
      colour: (row) => of[superclasses.indexOf(store.groups.get(store.group[row])?.superclass ?? null)] ?? grey(),
      legend: superclasses.map((text, index) => [of[index], name(text)]),
    };
  }
  if (by === "class") return byClass(store);
  if (by === "doubt") {
    return {
      colour: (row) => doubtColour(store.doubt(row)),
      legend: [[doubtColour(0), "least sure"], [doubtColour(0.5), "half"], [doubtColour(1), "sure"], [grey(), "settled, or no proposal"]],
    };
  }
  if (by === "said") {
    const [confirmed, outlier] = [plain(2, 4), plain(7, 8)];
    return {
      colour: (row) => (store.isOutlier(row) ? outlier : store.isConfirmed(row) ? confirmed : grey()),
      legend: [[confirmed, "confirmed"], [outlier, "outlier"], [grey(), "neither"]],
    };
  }
  if (by === "split") {
    const of = splits.map((_, index) => plain(index, splits.length));
    return { colour: (row) => of[store.split[row]], legend: splits.map((text, index) => [of[index], text || "no split"]) };
  }
  const of = groupColours(store);
  return { colour: (row) => of.get(store.group[row]) ?? grey(), legend: [] }; // the tree is its legend
}

function byClass(store) {
  const classOf = (row) => {
    const sure = store.isConfirmed(row) || store.isGiven(row) || store.proposed[row] < 0;
    const group = store.groups.get(sure ? store.group[row] : store.proposed[row]);
    return group?.name ? JSON.stringify([group.superclass, group.name]) : null;
  };
  const named = [...store.groups.values()].filter((group) => group.name);
  const classes = [...new Set(named.map((group) => JSON.stringify([group.superclass, group.name])))];
  const of = new Map(classes.map((key, index) => [key, plain(index, classes.length)]));
  return {
    colour: (row) => of.get(classOf(row)) ?? grey(),
    legend: [...classes.map((key) => [of.get(key), JSON.parse(key)[1]]), [grey(), "no class yet"]],
  };
}

export function colours(store, by) {
  const { colour, legend } = way(store, by);
  const bytes = new Uint8Array(4 * store.count);
  for (let row = 0; row < store.count; row += 1) {
    bytes.set(colour(row), 4 * row);
    bytes[4 * row + 3] = 255;
  }
  return { bytes, legend };
}

// Towards the paper, so that what is not looked at steps back and still shows what it is.
export function dim(bytes, row) {
  const ground = paper();
  for (let channel = 0; channel < 3; channel += 1) {
    const at = 4 * row + channel;
    bytes[at] = 0.2 * bytes[at] + 0.8 * 255 * ground[channel];
  }
}

export function paper() {
  return dark.matches ? [0.106, 0.129, 0.165] : [1, 1, 1];
}
