// Tokens down, steps across, one metric in colour. The map is an image of one pixel a cell; axes, labels and marks lie over it and
// stay in sight while it scrolls. With "words" the cells are wide enough for the likeliest token.

const HEAT = { left: 118, top: 46, right: 12, bottom: 6 };
let heat = null; // what is drawn now: sizes, scale, elements

function drawHeatmap() {
  const select = document.getElementById("metric"), words = document.getElementById("words");
  options(select, METRICS.map(({ name, title }) => [name, title]));
  select.addEventListener("change", () => choose({ metric: select.value }));
  words.addEventListener("change", () => choose({ words: words.checked }));
  words.closest("label").hidden = !arrays.top;
  const scroll = document.getElementById("heatmap-scroll");
  if (!tokens.length || !steps.length) {
    scroll.append(html("p", { class: "empty" }, "no tokens"));
    return;
  }
  onChoice(changed => {
    if (["metric", "words", "span"].some(name => changed.has(name))) rebuild();
    else markCell();
  });
  scroll.addEventListener("scroll", () => { keepInSight(); drawWords(); });
  scroll.addEventListener("click", event => { const cell = cellAt(event); if (cell) choose(cell); });
  scroll.addEventListener("pointermove", event => tipFor(cellAt(event), event));
  scroll.addEventListener("pointerleave", () => tipFor(null));
  new ResizeObserver(() => { if (scroll.clientWidth !== heat.client) rebuild(); }).observe(scroll);
  rebuild();
  exporting("heatmap", heatTable, () => { keepInSight(0, 0); setTimeout(keepInSight, 0); return heat.drawn; });
}

function heatValue(token, index, metric = chosen.metric) {
  return arrays[metric].at(token, index);
}

/** Where a value lies between the smallest and the largest, 0 to 1; NaN where there is none. */
function heatScale(metric) {
  const { log, rank } = METRICS.find(one => one.name === metric);
  const bend = rank ? Math.log1p : log ? Math.log : value => value, unbend = rank ? Math.expm1 : log ? Math.exp : value => value;
  let low = Infinity, high = -Infinity;
  for (const value of arrays[metric].values) {
    const bent = bend(value);
    if (Number.isFinite(bent)) { low = Math.min(low, bent); high = Math.max(high, bent); }
  }
  if (!(high >= low)) return { place: value => value === 0 ? 0 : NaN, low: 0, high: 0, zeros: false };
  if (log && high - low < 1e-3) high = low; // alike but for rounding: no contrast
  if (metric === "answer_probability") [low, high] = [0, 1];
  const place = value => {
    const bent = bend(value);
    return Number.isNaN(bent) ? NaN : bent === -Infinity ? 0 : high > low ? Math.min(1, (bent - low) / (high - low)) : 0.5;
  };
  return { place, low: unbend(low), high: unbend(high), zeros: Boolean(log) && arrays[metric].values.includes(0) };
}

function rebuild() {
  const scroll = document.getElementById("heatmap-scroll"), count = tokens.length, kept = chosen.span;
  const client = scroll.clientWidth, room = Math.max(200, client - HEAT.left - HEAT.right);
  const cell = { width: chosen.words ? Math.max(56, room / kept) : room / kept, height: chosen.words ? 20 : Math.max(13, Math.min(26, 340 / count)) };
  const width = HEAT.left + cell.width * kept + HEAT.right, height = HEAT.top + cell.height * count + HEAT.bottom;
  const scale = heatScale(chosen.metric), metric = METRICS.find(one => one.name === chosen.metric);
  document.getElementById("metric").value = chosen.metric;
  document.getElementById("words").checked = chosen.words;
  document.getElementById("metric-note").textContent = metric.note;
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "chart", id: "heatmap-svg" },
    svg("defs", {}, svg("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("rect", { width: 6, height: 6, class: "paper" }), svg("rect", { width: 2, height: 6, class: "hatch" }))),
    svg("image", { x: HEAT.left, y: HEAT.top, width: cell.width * kept, height: cell.height * count, preserveAspectRatio: "none", class: "pixels", href: heatPixels(scale) }),
    ...missing(cell));
  heat = { drawn, cell, width, height, scale, metric, client, view: [0, 0], words: svg("g", { class: "words" }), cross: svg("g", { class: "cross" }), side: heatSide(cell, height), head: heatHead(cell, width, scale, metric) };
  drawn.append(heat.words, heat.cross, heat.side, heat.head);
  scroll.replaceChildren(drawn);
  markCell();
  keepInSight();
  drawWords();
}

function heatPixels(scale) {
  const canvas = html("canvas", { width: chosen.span, height: tokens.length });
  const context = canvas.getContext("2d"), pixels = context.createImageData(chosen.span, tokens.length);
  for (let token = 0, i = 0; token < tokens.length; token++)
    for (let index = 0; index < chosen.span; index++, i += 4) {
      const place = scale.place(heatValue(token, index));
      if (!Number.isNaN(place)) pixels.data.set([...ramp(place), 255], i);
    }
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL();
}

/** NaN is hatched. The first column of speed is left empty instead: no step came before it. */
function missing(cell) {
  const out = [];
  for (let token = 0; token < tokens.length; token++)
    for (let index = chosen.metric === "speed" ? 1 : 0; index < chosen.span; index++) {
      if (!Number.isNaN(heatValue(token, index))) continue;
      const from = index;
      while (index + 1 < chosen.span && Number.isNaN(heatValue(token, index + 1))) index++;
      out.push(svg("rect", { x: HEAT.left + from * cell.width, y: HEAT.top + token * cell.height, width: (index - from + 1) * cell.width, height: cell.height, fill: "url(#hatch)", class: "missing" }));
    }
  return out;
}

function heatSide(cell, height) {
  const size = Math.min(13, cell.height - 1);
  return svg("g", { class: "side" }, svg("rect", { x: 0, y: 0, width: HEAT.left - 2, height, class: "paper" }),
    tokens.map((token, i) => svg("text", { x: HEAT.left - 8, y: HEAT.top + (i + 0.5) * cell.height, "font-size": size, class: "token-name", "data-row": i }, short(visible(token.text), 15))));
}

function heatHead(cell, width, scale, metric) {
  const every = ticks(0, chosen.span - 1, Math.max(2, Math.min(chosen.span - 1, Math.floor((cell.width * chosen.span) / 70)))).filter(Number.isInteger);
  const bar = Array.from({ length: 60 }, (_, i) => svg("rect", { x: HEAT.left + i * 2, y: 5, width: 2.2, height: 9, fill: colour(i / 59) }));
  const broken = arrays[metric.name].values.some((value, i) => Number.isNaN(value) && !(metric.name === "speed" && i % steps.length === 0));
  return svg("g", { class: "head" }, svg("rect", { x: 0, y: 0, width, height: HEAT.top - 2, class: "paper" }),
    svg("text", { x: HEAT.left - 8, y: 13, class: "legend-low" }, `${scale.zeros ? "0, " : ""}${show(scale.low)}`), bar,
    svg("text", { x: HEAT.left + 126, y: 13, class: "legend-high" }, `${show(scale.high)}   ${metric.title}`),
    broken ? svg("g", {}, svg("rect", { x: width - 66, y: 4, width: 16, height: 11, fill: "url(#hatch)" }), svg("text", { x: width - 46, y: 13, class: "legend-high" }, "NaN")) : null,
    svg("text", { x: HEAT.left - 8, y: HEAT.top - 9, class: "legend-low" }, "step"),
    every.map(index => svg("g", {}, svg("text", { x: HEAT.left + (index + 0.5) * cell.width, y: HEAT.top - 9, class: "tick" }, steps[index]),
      svg("line", { x1: HEAT.left + (index + 0.5) * cell.width, x2: HEAT.left + (index + 0.5) * cell.width, y1: HEAT.top - 6, y2: HEAT.top - 2, class: "axis" }))));
}

/** Token names and steps follow the scrolled view. */
function keepInSight(left, top) {
  const scroll = document.getElementById("heatmap-scroll");
  if (typeof left !== "number") [left, top] = [scroll.scrollLeft, scroll.scrollTop];
  heat.side.setAttribute("transform", `translate(${left} 0)`);
  heat.head.setAttribute("transform", `translate(0 ${top})`);
}

/** Mark the chosen cell and scroll to it. */
function markCell() {
  const { cell, cross, side } = heat, x = HEAT.left + chosen.at * cell.width, y = HEAT.top + chosen.token * cell.height;
  cross.replaceChildren(
    svg("rect", { x: HEAT.left, y, width: cell.width * chosen.span, height: cell.height, class: "band" }),
    ...(chosen.at < chosen.span ? [svg("rect", { x, y: HEAT.top, width: cell.width, height: cell.height * tokens.length, class: "band" }),
      svg("rect", { x, y, width: cell.width, height: cell.height, class: "cell" })] : []));
  for (const name of side.querySelectorAll(".token-name")) name.classList.toggle("now", Number(name.dataset.row) === chosen.token);
  const scroll = document.getElementById("heatmap-scroll");
  if (y < scroll.scrollTop + HEAT.top) scroll.scrollTop = y - HEAT.top;
  else if (y + cell.height > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = y + cell.height - scroll.clientHeight + 4;
  if (chosen.at >= chosen.span) return;
  if (x < scroll.scrollLeft + HEAT.left) scroll.scrollLeft = x - HEAT.left;
  else if (x + cell.width > scroll.scrollLeft + scroll.clientWidth) scroll.scrollLeft = x + cell.width - scroll.clientWidth + 4;
}

/** The likeliest token in each cell that is in view. */
function drawWords() {
  if (!chosen.words) return;
  const scroll = document.getElementById("heatmap-scroll"), { cell, words, scale } = heat, out = [];
  const first = { token: Math.max(0, Math.floor((scroll.scrollTop) / cell.height) - 2), index: Math.max(0, Math.floor(scroll.scrollLeft / cell.width) - 2) };
  const last = { token: Math.min(tokens.length, first.token + Math.ceil(scroll.clientHeight / cell.height) + 4), index: Math.min(chosen.span, first.index + Math.ceil(scroll.clientWidth / cell.width) + 4) };
  for (let token = first.token; token < last.token; token++)
    for (let index = first.index; index < last.index; index++) {
      const place = scale.place(heatValue(token, index));
      const word = svg("text", { x: HEAT.left + (index + 0.5) * cell.width, y: HEAT.top + (token + 0.5) * cell.height },
        short(visible(said(token, index)[0].text), Math.floor(cell.width / 7)));
      if (!Number.isNaN(place)) word.style.fill = ink(place);
      out.push(word);
    }
  words.replaceChildren(...out);
}

function short(text, most) {
  const letters = Array.from(text);
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : text;
}

function cellAt(event) {
  const frame = heat.drawn.getBoundingClientRect(), { cell } = heat;
  const at = Math.floor((event.clientX - frame.left - HEAT.left) / cell.width), token = Math.floor((event.clientY - frame.top - HEAT.top) / cell.height);
  return at >= 0 && at < chosen.span && token >= 0 && token < tokens.length ? { token, at } : null;
}

function tipFor(place, event) {
  const tip = document.getElementById("tip");
  tip.hidden = !place;
  if (!place) return;
  const value = heatValue(place.token, place.at), best = said(place.token, place.at)[0];
  const what = chosen.metric === "speed" && place.at === 0 ? "no step before it" : show(value);
  tip.replaceChildren(html("b", {}, visible(tokens[place.token].text)), ` after step ${steps[place.at]}`, html("br"), `${heat.metric.title} ${what}`,
    ...(best ? [html("br"), `would say ${quoted(best.text)}, ${show(Math.exp(best.logprob))}`] : []));
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
}

function heatTable() {
  const names = METRICS.map(metric => metric.name), rows = [];
  for (let token = 0; token < tokens.length; token++)
    for (let index = 0; index < steps.length; index++)
      rows.push([token, tokens[token].position, tokens[token].text, steps[index], ...names.map(name => heatValue(token, index, name))]);
  return { columns: ["token", "position", "text", "step", ...names], rows };
}
