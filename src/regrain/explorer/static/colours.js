// Colours of points, by what the user wants to see.

const dark = matchMedia("(prefers-color-scheme: dark)");

function fromHsl(hue, saturation, lightness) {
  const reach = saturation * Math.min(lightness, 1 - lightness);
  const channel = (offset) => {
    const at = (offset + hue / 30) % 12;
    return Math.round(255 * (lightness - reach * Math.max(-1, Math.min(at - 3, 9 - at, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

// Far apart for numbers that follow each other.
export function colourOf(number) {
  const hue = (number * 137.508 + 210) % 360;
  const turn = Math.floor(number / 9) % 3;
  const light = dark.matches ? [0.66, 0.55, 0.77][turn] : [0.45, 0.34, 0.58][turn];
  return fromHsl(hue, [0.72, 0.6, 0.5][turn], light);
}

export function onDarkChange(listener) {
  dark.addEventListener("change", listener);
}

const grey = () => (dark.matches ? [92, 101, 114] : [176, 182, 191]);

function doubtColour(doubt) {
  if (doubt >= 1.5) return grey();
  return fromHsl(20 + 190 * Math.min(1, Math.max(0, doubt)), 0.8, dark.matches ? 0.6 : 0.42);
}

export function colours(store, by, superclasses) {
  const bytes = new Uint8Array(4 * store.count);
  const memo = new Map();
  const numbered = (number) => {
    if (!memo.has(number)) memo.set(number, number < 0 ? grey() : colourOf(number));
    return memo.get(number);
  };
  const classes = new Map();
  const classOf = (row) => {
    const sure = store.isConfirmed(row) || store.isGiven(row) || store.proposed[row] < 0;
    const group = store.groups.get(sure ? store.group[row] : store.proposed[row]);
    if (!group?.name) return -1;
    const key = JSON.stringify([group.superclass, group.name]);
    if (!classes.has(key)) classes.set(key, classes.size);
    return classes.get(key);
  };
  const ways = {
    group: (row) => numbered(store.group[row]),
    superclass: (row) => numbered(superclasses.indexOf(store.groups.get(store.group[row])?.superclass ?? null)),
    class: (row) => numbered(classOf(row)),
    doubt: (row) => doubtColour(store.doubt(row)),
    said: (row) => (store.isConfirmed(row) ? numbered(2) : store.isOutlier(row) ? numbered(3) : grey()),
    split: (row) => numbered(store.split[row]),
  };
  for (let row = 0; row < store.count; row += 1) {
    const [r, g, b] = ways[by](row);
    bytes[4 * row] = r;
    bytes[4 * row + 1] = g;
    bytes[4 * row + 2] = b;
    bytes[4 * row + 3] = 255;
  }
  return bytes;
}

export function paper() {
  return dark.matches ? [0.106, 0.129, 0.165] : [1, 1, 1];
}

export { grey };
