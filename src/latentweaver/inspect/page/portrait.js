// One token's path in its principal components, and beside it a random walk with the same step lengths in its own: the picture that
// chance would have drawn.

const FRAME = { size: 300, left: 52, top: 14, gap: 86, bottom: 46 };

function drawPortrait() {
  const plane = document.getElementById("plane"), part = document.getElementById("part"), strobe = document.getElementById("strobe"), others = document.getElementById("others");
  const planes = arrays.points ? Math.max(1, Math.floor(arrays.points.shape[2] / 2)) : 1;
  options(plane, Array.from({ length: planes }, (_, i) => [i, `components ${2 * i + 1} and ${2 * i + 2}`]));
  plane.addEventListener("change", () => choose({ plane: Number(plane.value) }));
  part.addEventListener("change", () => choose({ part: part.value }));
  strobe.addEventListener("input", () => choose({ strobe: Math.max(1, Math.round(Number(strobe.value)) || 1) }));
  others.addEventListener("change", () => choose({ others: others.checked }));
  others.closest("label").hidden = !arrays.others;
  if (!tokens.length) {
    document.getElementById("portrait-body").append(html("p", { class: "empty" }, "no tokens"));
    return;
  }
  onChoice(changed => {
    if (changed.has("token")) chosen.strobe = period(chosen.token);
    strobe.value = chosen.strobe;
    plane.value = chosen.plane;
    if (["token", "at", "plane", "part", "strobe", "others"].some(name => changed.has(name))) redrawPortrait();
  });
  chosen.strobe = period(chosen.token);
  strobe.value = chosen.strobe;
  redrawPortrait();
  darkGround.addEventListener("change", redrawPortrait);
  let stacked = null;
  new ResizeObserver(() => {
    const narrow = document.getElementById("portrait-body").clientWidth < 480;
    if (stacked !== null && narrow !== stacked) redrawPortrait();
    stacked = narrow;
  }).observe(document.getElementById("portrait-body"));
  exporting("portrait", portraitTable, () => document.querySelector("#portrait-body svg"));
}

/** A stroboscope at an orbit's period makes it stand still. */
function period(token) {
  const { label } = tokens[token];
  return label.name === "orbit" ? Math.round(label.period) : 1;
}

function redrawPortrait() {
  const { portrait, label } = tokens[chosen.token], body = document.getElementById("portrait-body"), note = document.getElementById("portrait-note");
  if (typeof portrait === "string") {
    body.replaceChildren(html("p", { class: "empty" }, portrait));
    note.textContent = "";
    return;
  }
  const own = path("points"), ghost = path("ghost"), { size, left, top, gap, bottom } = FRAME;
  const stacked = body.clientWidth < 480; // on a narrow screen the walk comes below
  const width = stacked ? size + left + 14 : 2 * size + left + gap + 14, height = (top + size + bottom) * (stacked ? 2 : 1);
  const starts = chosen.others && arrays.others && 2 * chosen.plane + 1 < arrays.others.shape[3] ? Array.from({ length: arrays.others.shape[1] }, (_, other) => path("others", other)) : [];
  const floor = label.evidence ? label.evidence.floor : 0;
  const share = (of, i) => percent(of[2 * chosen.plane + i]), axes = ["x", "y"];
  body.replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", id: "portrait-svg", role: "img", "aria-label": `Path of ${visible(tokens[chosen.token].text)} in two principal components, and a random walk` },
    scatter([left, top], own, starts, floor, axes.map((_, i) => `component ${2 * chosen.plane + i + 1}: ${share(portrait.explained, i)} of the variance`), "own"),
    scatter(stacked ? [left, 2 * top + size + bottom] : [left + size + gap, top], ghost, [], 0, axes.map((_, i) => `walk's: ${share(portrait.ghost_explained[1], i)}, of ${facts.ghosts} walks ${share(portrait.ghost_explained[0], i)} to ${share(portrait.ghost_explained[2], i)}`), "ghost")));
  const turns = portrait.turns[chosen.plane], walks = portrait.ghost_turns.map(one => one[chosen.plane]);
  note.replaceChildren(html("b", { class: portrait.like_a_walk ? "warn" : "" }, portrait.caption), `. In this plane it winds ${show(turns)} times round its mean, a random walk ${show(walks[0])} to ${show(walks[2])} times. Fitted ${steps[0] === 0 ? "from step 1 on" : "to all recorded steps"}. Left the path, right a random walk with the same step lengths. Square: first state shown; cross: end`,
    starts.length ? "; dashed: other starts" : "", floor > 0 ? `; grey disc: one rounding, ${show(floor)}.` : ".");
}

function path(name, ...place) {
  const array = arrays[name];
  return steps.map((_, index) => [0, 1].map(i => 2 * chosen.plane + i < array.shape.at(-1) ? array.at(chosen.token, ...place, index, 2 * chosen.plane + i) : 0));
}

function scatter([left, top], points, starts, floor, titles, name) {
  const { size } = FRAME, from = { all: 0, thinking: Math.min(1, steps.length - 1), tail: Math.floor((steps.length - 1) / 2) }[chosen.part];
  const seen = points.slice(from).filter(point => point.every(Number.isFinite));
  const middle = [0, 1].map(i => (Math.min(...seen.map(p => p[i])) + Math.max(...seen.map(p => p[i]))) / 2);
  const reach = 0.54 * Math.max(...[0, 1].map(i => Math.max(...seen.map(p => p[i])) - Math.min(...seen.map(p => p[i])))) || 1;
  const x = linear([middle[0] - reach, middle[0] + reach], [left, left + size]), y = linear([middle[1] - reach, middle[1] + reach], [top + size, top]);
  const put = ([a, b]) => [x(a), y(b)], clip = `clip-${name}`, last = steps.length - 1;
  const shade = index => lineColour(index / Math.max(1, last));
  const segments = [], dots = [];
  for (let index = from; index <= last; index++) {
    const [px, py] = put(points[index]);
    if (!Number.isFinite(px)) continue;
    const later = index > chosen.at ? "later" : "";
    if (index > from && points[index - 1].every(Number.isFinite)) {
      const [qx, qy] = put(points[index - 1]);
      segments.push(svg("line", { x1: qx, y1: qy, x2: px, y2: py, stroke: shade(index), class: `path ${later}` }));
    }
    if ((last - index) % chosen.strobe === 0) dots.push(svg("circle", { cx: px, cy: py, r: chosen.strobe > 1 ? 4 : 2.4, fill: shade(index), class: `dot ${later}`, "data-index": index }));
  }
  const ends = points.findLastIndex(point => point.every(Number.isFinite)), end = put(points[ends]), start = put(points.slice(from).find(point => point.every(Number.isFinite)) ?? [NaN, NaN]), now = put(points[chosen.at]);
  const disc = (floor / (2 * reach)) * size;
  return svg("g", { class: name },
    svg("clipPath", { id: clip }, svg("rect", { x: left, y: top, width: size, height: size })),
    svg("rect", { x: left, y: top, width: size, height: size, class: "field" }),
    axisOf(x, middle[0], reach, tick => svg("g", {}, svg("line", { x1: x(tick), x2: x(tick), y1: top, y2: top + size, class: "grid" }), svg("text", { x: x(tick), y: top + size + 14, class: "tick" }, show(tick)))),
    axisOf(y, middle[1], reach, tick => svg("g", {}, svg("line", { y1: y(tick), y2: y(tick), x1: left, x2: left + size, class: "grid" }), svg("text", { x: left - 5, y: y(tick), class: "tick y" }, show(tick)))),
    svg("g", { "clip-path": `url(#${clip})` },
      disc > 0.5 ? svg("circle", { cx: end[0], cy: end[1], r: disc, class: "floor" }) : null,
      starts.map(one => [svg("path", { d: polyline(one.map(put)), class: "other" }), ...[one.findLast(point => point.every(Number.isFinite))].filter(Boolean).map(put).map(([ox, oy]) => svg("path", { d: `M${ox} ${oy - 4}l4 7h-8z`, class: "other-end" }))]),
      segments, dots,
      !Number.isFinite(start[0]) ? null : svg("rect", { x: start[0] - 4, y: start[1] - 4, width: 8, height: 8, class: "start" }),
      svg("path", { d: `M${end[0] - 5} ${end[1] - 5}l10 10m0-10l-10 10`, class: "end" }),
      now.every(Number.isFinite) ? svg("circle", { cx: now[0], cy: now[1], r: 7, class: "here" }) : null),
    svg("text", { x: left + size / 2, y: top + size + 34, class: "axis-title", id: `${name}-x` }, titles[0]),
    svg("text", { transform: `translate(${left - 38} ${top + size / 2}) rotate(-90)`, class: "axis-title", id: `${name}-y` }, titles[1]),
    svg("text", { x: left + 8, y: top + 18, class: "corner" }, name === "own" ? short(visible(tokens[chosen.token].text), 24) : "random walk"));
}

function axisOf(scale, middle, reach, draw) {
  return ticks(middle - reach, middle + reach, 4).map(draw);
}

function portraitTable() {
  const count = arrays.points.shape[2], starts = arrays.others ? arrays.others.shape[1] : 0, shown = arrays.others ? arrays.others.shape[3] : 0;
  const range = (size, name) => Array.from({ length: size }, (_, i) => name(i));
  const columns = ["step", ...range(count, i => `component_${i + 1}`), ...range(count, i => `walk_${i + 1}`),
    ...range(starts, s => range(shown, i => `start_${s + 1}_component_${i + 1}`)).flat()];
  const { token } = chosen;
  const rows = steps.map((step, index) => [step, ...range(count, i => arrays.points.at(token, index, i)), ...range(count, i => arrays.ghost.at(token, index, i)),
    ...range(starts, s => range(shown, i => arrays.others.at(token, s, index, i))).flat()]);
  return { columns, rows };
}
