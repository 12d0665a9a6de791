"use strict";
(() => {
  const payload = JSON.parse(document.getElementById("payload").textContent);
  const arrays = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };
  const root = document.documentElement;
  const redraws = [];
  const tip = document.getElementById("tip");

  const unpack = (packed) => {
    const bytes = Uint8Array.from(atob(packed.base64), (c) => c.charCodeAt(0));
    return new arrays[packed.dtype](bytes.buffer);
  };
  const colourProbe = document.createElement("i");
  document.body.append(colourProbe);
  // light-dark() is resolved only in a real property, and a canvas needs the resolved colour
  const resolved = (name) => ((colourProbe.style.color = `var(${name})`), getComputedStyle(colourProbe).color);
  const isDark = () => {
    const [r, g, b] = resolved("--card").match(/[\d.]+/g).map(Number);
    return r + g + b < 384;
  };
  const first = ["#3b78d8", "#e08214", "#2e9e5b", "#d1495b", "#8a63c9", "#9a6b3f", "#d873b5", "#7a8793", "#a5a819", "#1fa6b8"];
  const colour = (n) => (n < first.length ? first[n] : `hsl(${(n * 137.508) % 360} ${55 + (n % 3) * 12}% ${42 + (n % 4) * 7}%)`);
  const number = (v) => (Math.abs(v) >= 1e5 || (v && Math.abs(v) < 1e-3) ? v.toExponential(1) : String(+v.toPrecision(4)));

  const element = (name, attributes = {}, text) => {
    const svg = ["svg", "path", "line", "text", "circle", "rect", "polygon", "title"].includes(name);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const showTip = (x, y, ...children) => {
    tip.replaceChildren(...children);
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${Math.max(4, y + 14 + height > innerHeight ? y - height - 10 : y + 14)}px`;
  };
  const hideTip = () => (tip.hidden = true);

  // Samples: a picture of the sprite, a text, bars or small curves.
  const cells = payload.cells ?? {};
  const values = cells.values ? unpack(cells.values) : null;
  const size = cells.shape ? cells.shape.reduce((a, b) => a * b, 1) : 0;
  const bars = (own) => {
    const svg = element("svg", { width: 64, height: 48, viewBox: `0 0 ${own.length} 254`, preserveAspectRatio: "none" });
    own.forEach((v, i) => {
      if (v === 255) return;
      svg.append(element("rect", { x: i + 0.1, width: 0.8, y: Math.min(254 - v, 127), height: Math.max(Math.abs(v - 127), 2), fill: v < 127 ? first[3] : first[0] }));
    });
    const strong = [...own.keys()].filter((i) => own[i] !== 255).sort((a, b) => Math.abs(own[b] - 127) - Math.abs(own[a] - 127));
    const said = strong.slice(0, 5).map((i) => `${cells.names[i] ?? `column ${i + 1}`} ${(((own[i] - 127) / 127) * 3).toFixed(1)} sd`);
    svg.append(element("title", {}, said.join(", ")));
    return svg;
  };
  const curves = (own) => {
    const [steps, channels] = cells.shape;
    const svg = element("svg", { width: 64, height: 48, viewBox: `0 0 ${steps - 1 || 1} 254`, preserveAspectRatio: "none" });
    for (let c = 0; c < channels; c++) {
      let path = "", pen = "M";
      for (let t = 0; t < steps; t++) {
        const v = own[t * channels + c];
        if (v === 255) { pen = "M"; continue; }
        path += `${pen}${t} ${254 - v}`;
        pen = "L";
      }
      svg.append(element("path", { d: path, fill: "none", stroke: colour(c), "stroke-width": 1.4, "vector-effect": "non-scaling-stroke" }));
    }
    return svg;
  };
  const cellOf = (place) => {
    if (cells.kind === "image") {
      const tile = element("span", { class: "tile", role: "img" });
      const at = (n) => `calc(${-64 * n}px * var(--zoom, 1))`;
      tile.style.backgroundPosition = `${at(place % 64)} ${at(Math.floor(place / 64))}`;
      return tile;
    }
    if (cells.kind === "text") return element("span", { class: "text", title: cells.texts[place] }, cells.texts[place]);
    const own = Array.from(values.subarray(place * size, (place + 1) * size));
    return cells.kind === "vector" ? bars(own) : curves(own);
  };
  if (cells.kind === "text") document.body.classList.add("words");
  const fill = (place) => {
    seen.unobserve(place);
    place.replaceChildren(cellOf(Number(place.dataset.cell)));
  };
  const seen = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => fill(entry.target)),
    { rootMargin: "800px" },
  );
  document.querySelectorAll("[data-cell]").forEach((place) => seen.observe(place));
  addEventListener("beforeprint", () => document.querySelectorAll("[data-cell]:empty").forEach(fill));

  // Charts of lines.
  const ticks = (low, high, count, least = 0) => {
    const rough = Math.max(least, (high - low) / count || 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * ([1, 2, 5, 10].find((m) => m * power >= rough) ?? 10);
    const result = [];
    for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) result.push(Math.abs(v) < step * 1e-6 ? 0 : v);
    return result;
  };
  const drawChart = (figure, chart) => {
    const colours = chart.lines.map((line, n) => colour(payload.names ? payload.names.indexOf(line.name) : n));
    const width = Math.max(240, figure.clientWidth), height = 230;
    const left = 58, right = 10, top = 8, bottom = 40;
    const xs = chart.lines.flatMap((l) => l.x), ys = chart.lines.flatMap((l) => [...l.y, ...(l.low ?? []), ...(l.high ?? [])]);
    let [x0, x1] = [Math.min(...xs), Math.max(...xs)], [y0, y1] = [Math.min(...ys), Math.max(...ys)];
    if (y0 === y1) [y0, y1] = [y0 - (Math.abs(y0) * 0.1 || 1), y1 + (Math.abs(y1) * 0.1 || 1)];
    if (x0 === x1) [x0, x1] = chart.logX ? [x0 / 1.5, x1 * 1.5] : [x0 - 1, x1 + 1];
    const pad = (y1 - y0) * 0.06;
    [y0, y1] = [y0 >= 0 ? Math.max(0, y0 - pad) : y0 - pad, y1 + pad];
    const along = chart.logX ? Math.log : (v) => v;
    const px = (v) => left + ((along(v) - along(x0)) / (along(x1) - along(x0))) * (width - left - right);
    const py = (v) => height - bottom - ((v - y0) / (y1 - y0)) * (height - top - bottom);
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${chart.title}: ${chart.y} by ${chart.x}` });
    for (const v of ticks(y0, y1, 5)) {
      svg.append(element("line", { x1: left, x2: width - right, y1: py(v), y2: py(v), stroke: "var(--line)" }));
      svg.append(element("text", { x: left - 6, y: py(v) + 4, "text-anchor": "end" }, number(v)));
    }
    const places = chart.logX ? [...new Set(xs)].sort((a, b) => a - b) : ticks(x0, x1, 6, xs.every(Number.isInteger) ? 1 : 0);
    for (const v of places) svg.append(element("text", { x: px(v), y: height - bottom + 16, "text-anchor": "middle" }, number(v)));
    svg.append(element("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, chart.x));
    svg.append(element("text", { x: -(top + height - bottom) / 2, y: 12, transform: "rotate(-90)", "text-anchor": "middle" }, chart.y));
    chart.lines.forEach((line, n) => {
      if (line.low) {
        const around = [...line.x.map((x, i) => [x, line.high[i]]), ...line.x.map((x, i) => [x, line.low[i]]).reverse()];
        svg.append(element("polygon", { points: around.map(([x, y]) => `${px(x)},${py(y)}`).join(" "), fill: colours[n], opacity: 0.15 }));
      }
      svg.append(element("path", { d: line.x.map((x, i) => `${i ? "L" : "M"}${px(x)} ${py(line.y[i])}`).join(""), fill: "none", stroke: colours[n], "stroke-width": 2 }));
      if (line.x.length <= 12) line.x.forEach((x, i) => svg.append(element("circle", { cx: px(x), cy: py(line.y[i]), r: 3, fill: colours[n] })));
    });
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * width;
      const near = (line) => line.x.reduce((best, x, i) => (Math.abs(px(x) - at) < Math.abs(px(line.x[best]) - at) ? i : best), 0);
      const said = chart.lines.map((line) => {
        const i = near(line);
        const between = line.low ? ` (${number(line.low[i])} to ${number(line.high[i])})` : "";
        return element("div", {}, `${line.name} at ${number(line.x[i])}: ${number(line.y[i])}${between}`);
      });
      showTip(event.clientX, event.clientY, ...said);
    });
    svg.addEventListener("pointerleave", hideTip);
    const legend = element("div", { class: "legend" });
    chart.lines.forEach((line, n) => {
      const item = element("span");
      item.append(element("i", { style: `background:${colours[n]}` }), line.name);
      legend.append(item);
    });
    figure.querySelectorAll(":scope > svg, :scope > .legend").forEach((old) => old.remove());
    figure.querySelector("figcaption").after(svg, ...(chart.lines.length > 1 ? [legend] : []));
  };
  document.querySelectorAll("[data-chart]").forEach((figure) => {
    redraws.push(() => drawChart(figure, payload.charts[figure.dataset.chart]));
  });

  // Confusion: a label's row, shares from none to all.
  const fit = (canvas, width, height) => {
    const ratio = devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    return pen;
  };
  document.querySelectorAll(".matrix").forEach((canvas) => {
    const { classes, above, counts: packed } = payload.matrices[canvas.dataset.matrix];
    const counts = unpack(packed), c = classes.length;
    const sums = classes.map((_, i) => counts.subarray(i * c, (i + 1) * c).reduce((a, b) => a + b, 0));
    const named = c <= 30;
    let side = 1, left = 0;
    const plain = document.createElement("canvas").getContext("2d");
    plain.font = "11px system-ui, sans-serif";
    const longest = Math.max(...classes.map((name) => plain.measureText(name).width)) + 12;
    redraws.push(() => {
      const room = canvas.parentElement.clientWidth;
      left = named ? Math.min(longest, 120, room / 3) : 16;
      side = Math.max(1, Math.min(34, (room - left) / c));
      const width = left + side * c, height = side * c + (named ? left : 18);
      canvas.style.width = `${width}px`;
      const pen = fit(canvas, width, height);
      pen.font = `${Math.min(11, Math.max(7, side - 1))}px system-ui, sans-serif`;
      const [ink, soft, line] = [resolved("--ink"), resolved("--soft"), resolved("--line")];
      const base = isDark() ? "134, 176, 255" : "36, 87, 197";
      for (let i = 0; i < c; i++) {
        for (let j = 0; j < c; j++) {
          const share = sums[i] ? counts[i * c + j] / sums[i] : 0;
          pen.fillStyle = share ? `rgba(${base}, ${0.08 + 0.92 * share})` : "transparent";
          pen.fillRect(left + j * side, i * side, side, side);
          if (side >= 22 && counts[i * c + j]) {
            pen.fillStyle = share > 0.55 ? (isDark() ? "#10141a" : "#fff") : ink;
            pen.textAlign = "center";
            pen.fillText(counts[i * c + j], left + (j + 0.5) * side, (i + 0.5) * side + 4);
          }
        }
      }
      pen.strokeStyle = soft;
      const borders = above.flatMap((name, i) => (i && name !== above[i - 1] ? [i] : []));
      pen.globalAlpha = borders.length > 12 ? 0.25 : 1; // many lines would hide the cells
      for (const i of borders) {
        const at = Math.round(i * side) + 0.5;
        pen.beginPath();
        pen.moveTo(left, at);
        pen.lineTo(left + side * c, at);
        pen.moveTo(left + at, 0);
        pen.lineTo(left + at, side * c);
        pen.stroke();
      }
      pen.globalAlpha = 1;
      pen.strokeStyle = line;
      pen.strokeRect(left + 0.5, 0.5, side * c - 1, side * c - 1);
      pen.fillStyle = soft;
      if (named) {
        const clip = (name) => { while (name.length > 2 && pen.measureText(name).width > left - 10) name = `${name.slice(0, -2)}…`; return name; };
        classes.forEach((name, i) => {
          pen.textAlign = "right";
          pen.fillText(clip(name), left - 5, (i + 0.5) * side + 4);
          pen.save();
          pen.translate(left + (i + 0.5) * side + 4, side * c + 5);
          pen.rotate(-Math.PI / 2);
          pen.fillText(clip(name), 0, 0);
          pen.restore();
        });
      } else {
        pen.textAlign = "center";
        pen.font = "11px system-ui, sans-serif";
        pen.fillText("predicted", left + (side * c) / 2, side * c + 13);
        pen.save();
        pen.translate(11, (side * c) / 2);
        pen.rotate(-Math.PI / 2);
        pen.fillText("label", 0, 0);
        pen.restore();
      }
    });
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      const j = Math.floor((event.clientX - box.left - left) / side), i = Math.floor((event.clientY - box.top) / side);
      if (i < 0 || j < 0 || i >= c || j >= c) return hideTip();
      const count = counts[i * c + j];
      showTip(event.clientX, event.clientY, element("div", {}, `label ${classes[i]}, predicted ${classes[j]}`), element("div", {}, `${count} of ${sums[i]} (${((100 * count) / (sums[i] || 1)).toFixed(1)}%)`));
    });
    canvas.addEventListener("pointerleave", hideTip);
  });

  // The map.
  const canvas = document.getElementById("map-canvas");
  if (canvas && payload.map) {
    const map = payload.map, points = unpack(map.points), cellsAt = unpack(map.cells), count = map.ids.length;
    const levels = map.levels.map((level) => ({ ...level, codes: unpack(level.codes), means: unpack(level.means) }));
    const select = document.getElementById("map-level"), legend = document.getElementById("map-legend");
    levels.forEach((level, n) => select.append(element("option", { value: n }, level.name)));
    if (!levels.length) select.append(element("option", {}, "nothing: there are no labels"));
    const finest = Math.max(0, levels.findLastIndex((level) => !level.name.startsWith("subclass (")));
    if (levels.length) select.value = finest;
    const chosen = () => levels[Number(select.value)];
    let ends = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < count; i++) {
      const [x, y] = [points[2 * i], points[2 * i + 1]];
      ends = [Math.min(ends[0], x), Math.max(ends[1], x), Math.min(ends[2], y), Math.max(ends[3], y)];
    }
    let view = { zoom: 1, x: (ends[0] + ends[1]) / 2, y: (ends[2] + ends[3]) / 2 }, only = -1, scale = 1;
    const home = { ...view };
    const place = (x, y) => [(x - view.x) * scale + canvas.clientWidth / 2, canvas.clientHeight / 2 - (y - view.y) * scale];
    const mark = (pen, x, y, radius, star) => {
      pen.beginPath();
      if (star) {
        for (let k = 0; k < 10; k++) {
          const r = k % 2 ? radius * 0.45 : radius, a = (k * Math.PI) / 5;
          pen.lineTo(x + r * Math.sin(a), y - r * Math.cos(a));
        }
      } else {
        const [w, r] = [radius * 0.3, radius * 0.85];
        for (const [dx, dy] of [[-w, -r], [w, -r], [w, -w], [r, -w], [r, w], [w, w], [w, r], [-w, r], [-w, w], [-r, w], [-r, -w], [-w, -w]]) pen.lineTo(x + dx, y + dy);
      }
      pen.closePath();
      pen.fill();
      pen.stroke();
    };
    const draw = () => {
      const width = canvas.clientWidth, height = canvas.clientHeight, pen = fit(canvas, width, height);
      scale = view.zoom * 0.92 * Math.min(width / (ends[1] - ends[0] || 1), height / (ends[3] - ends[2] || 1));
      const level = chosen(), side = Math.min(6, (count > 20000 ? 1.6 : count > 4000 ? 2.4 : 4) * Math.sqrt(view.zoom));
      const grey = resolved("--soft"), groups = new Map();
      for (let i = 0; i < count; i++) {
        const code = level ? level.codes[i] : -1;
        if (!groups.has(code)) groups.set(code, []);
        groups.get(code).push(i);
      }
      for (const [code, own] of groups) {
        pen.fillStyle = code < 0 ? grey : colour(code);
        pen.globalAlpha = only >= 0 && code !== only ? 0.06 : code < 0 ? 0.35 : 0.75;
        for (const i of own) {
          const [x, y] = place(points[2 * i], points[2 * i + 1]);
          if (x > -9 && y > -9 && x < width + 9 && y < height + 9) pen.fillRect(x - side / 2, y - side / 2, side, side);
        }
      }
      pen.globalAlpha = 1;
      pen.lineWidth = 1.5;
      pen.strokeStyle = resolved("--card");
      const marked = (own, star) => {
        for (let c = 0; c < own.classes.length; c++) {
          if (Number.isNaN(own.means[2 * c])) continue;
          pen.fillStyle = own === level ? colour(c) : resolved("--ink");
          mark(pen, ...place(own.means[2 * c], own.means[2 * c + 1]), star ? 10 : own.classes.length > 30 ? 5 : 8, star);
        }
        if (!star || own.classes.length > 12) return;
        pen.font = "bold 12px system-ui, sans-serif";
        pen.textAlign = "center";
        pen.lineWidth = 4;
        pen.fillStyle = resolved("--ink");
        own.classes.forEach((name, c) => {
          const [x, y] = place(own.means[2 * c], own.means[2 * c + 1]);
          for (const write of ["strokeText", "fillText"]) pen[write](name.slice(0, 24), x, y - 14);
        });
      };
      if (levels.length) {
        if (level !== levels[0]) marked(level, false);
        marked(levels[0], true);
      }
      pen.fillStyle = grey;
      pen.font = "11px system-ui, sans-serif";
      pen.textAlign = "center";
      pen.fillText("t-SNE 1 (no unit)", width / 2, height - 6);
      pen.save();
      pen.translate(12, height / 2);
      pen.rotate(-Math.PI / 2);
      pen.fillText("t-SNE 2 (no unit)", 0, 0);
      pen.restore();
    };
    const relabel = () => {
      legend.replaceChildren();
      only = -1;
      const level = chosen();
      if (!level) return;
      const sizes = new Int32Array(level.classes.length);
      for (const code of level.codes) if (code >= 0) sizes[code]++;
      level.classes.forEach((name, c) => {
        if (!sizes[c]) return;
        const item = element("span", { title: "Show this class alone" });
        item.append(element("i", { style: `background:${colour(c)}` }), `${name} (${sizes[c]})`);
        item.addEventListener("click", () => {
          only = only === c ? -1 : c;
          for (const other of legend.children) other.classList.toggle("off", only >= 0 && other !== item);
          draw();
        });
        legend.append(item);
      });
    };
    select.addEventListener("change", () => { relabel(); draw(); });
    document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
      const factor = Number(button.dataset.zoom);
      view = factor ? { ...view, zoom: Math.max(0.5, view.zoom * factor) } : { ...home };
      draw();
    }));
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== canvas) return;
      event.preventDefault();
      view.zoom = Math.max(0.5, view.zoom * Math.exp(-event.deltaY / 400));
      draw();
    }, { passive: false });
    let drag = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "touch") drag = [event.clientX, event.clientY];
    });
    addEventListener("pointerup", () => (drag = null));
    canvas.addEventListener("pointermove", (event) => {
      if (drag) {
        view.x -= (event.clientX - drag[0]) / scale;
        view.y += (event.clientY - drag[1]) / scale;
        drag = [event.clientX, event.clientY];
        hideTip();
        return draw();
      }
      const box = canvas.getBoundingClientRect(), [mx, my] = [event.clientX - box.left, event.clientY - box.top];
      let best = -1, near = 144;
      for (let i = 0; i < count; i++) {
        const [x, y] = place(points[2 * i], points[2 * i + 1]), d = (x - mx) ** 2 + (y - my) ** 2;
        if (d < near) [best, near] = [i, d];
      }
      if (best < 0) return hideTip();
      const said = [element("div", { class: "soft" }, map.ids[best])];
      for (const level of levels) said.push(element("div", {}, `${level.name}: ${level.codes[best] < 0 ? "no label" : level.classes[level.codes[best]]}`));
      if (cellsAt[best] >= 0) said.unshift(cellOf(cellsAt[best]));
      showTip(event.clientX, event.clientY, ...said);
    });
    canvas.addEventListener("pointerleave", hideTip);
    relabel();
    redraws.push(draw);
  }

  const redraw = () => redraws.forEach((draw) => draw());
  document.getElementById("theme").addEventListener("click", () => {
    root.style.colorScheme = isDark() ? "light" : "dark";
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let waiting = 0;
  addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(redraw); });
  redraw();
  root.dataset.ready = "yes";
})();
