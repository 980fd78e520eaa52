// What the model would have said after each step about the chosen token's successor: runs of the likeliest token, the probability and
// rank of its final answer, and the likeliest few at the chosen step.

const LANE = { left: 118, right: 12, ribbon: 26, probability: 84, rank: 84, gap: 24, most: 300 };

function drawDecode() {
  const body = document.getElementById("decode-body");
  if (!arrays.top || !tokens.length) {
    body.append(html("p", { class: "empty" }, tokens.length ? "Nothing was read: this report was made from a recording without readouts." : "no tokens"));
    return;
  }
  onChoice(changed => { if (["token", "at", "span"].some(name => changed.has(name))) redrawDecode(); });
  new ResizeObserver(() => { if (Math.abs(body.clientWidth - laneWidth) > 1) redrawDecode(); }).observe(body);
  body.addEventListener("click", event => {
    const frame = body.querySelector("svg").getBoundingClientRect(), inside = event.clientX - frame.left - LANE.left, room = frame.width - LANE.left - LANE.right;
    if (inside >= 0 && inside < room) choose({ at: Math.floor((inside / room) * chosen.span) });
  });
  redrawDecode();
  exporting("decode", decodeTable, () => body.querySelector("svg"));
}

let laneWidth = 0;

function lanes() {
  return !arrays.top || !tokens.length ? 0 : arrays.answer_rank ? 2 : 1;
}

function roomToGrow() {
  return lanes() * (LANE.most - LANE.probability);
}

/** Where the panel is taller than what stands in it, the curves take the room. */
function growDecode() {
  const panel = document.getElementById("decode"), room = panel.getBoundingClientRect().bottom - panel.lastElementChild.getBoundingClientRect().bottom - 14;
  if (!lanes() || room < 4) return;
  LANE.probability = LANE.rank = Math.min(LANE.most, LANE.probability + room / lanes());
  redrawDecode();
}

function redrawDecode() {
  const body = document.getElementById("decode-body"), width = laneWidth = Math.max(360, body.clientWidth), { token } = chosen, kept = chosen.span, within = steps.slice(0, kept);
  const column = (width - LANE.left - LANE.right) / kept, x = index => LANE.left + (index + 0.5) * column;
  const line = (name, scale, kind) => name in arrays ? svg("path", { d: polyline(within.map((_, index) => [x(index), scale(arrays[name].at(token, index))])), class: `line ${kind}` }) : null;
  let y = 8;
  const parts = [ribbon(token, y, column), svg("text", { x: LANE.left - 8, y: y + LANE.ribbon / 2, class: "lane" }, "likeliest")];
  y += LANE.ribbon + LANE.gap;
  const best = svg("path", { d: polyline(within.map((_, index) => [x(index), linear([0, 1], [y + LANE.probability, y])(Math.exp(arrays.top_logprobs.at(token, index, 0)))])), class: "line best" });
  parts.push(frame(y, LANE.probability, width, [0, 0.5, 1], linear([0, 1], [y + LANE.probability, y]), "probability"), best,
    line("answer_probability", linear([0, 1], [y + LANE.probability, y]), "answer"));
  if (arrays.answer_rank) {
    y += LANE.probability + LANE.gap;
    const high = Math.max(9, ...steps.flatMap((_, index) => ["answer_rank", "control_rank"].filter(name => name in arrays).map(name => arrays[name].at(token, index) || 0)));
    const bent = linear([0, Math.log1p(high)], [y, y + LANE.rank]), scale = rank => bent(Math.log1p(rank));
    parts.push(frame(y, LANE.rank, width, [0, ...[9, 99, 999, 9999, 99999].filter(rank => rank <= high)], scale, "rank"), line("control_rank", scale, "control"), line("answer_rank", scale, "answer"));
    y += LANE.rank;
  } else y += LANE.probability;
  const flips = flipsOf(token);
  parts.push((flips ?? []).filter(index => index < kept).map(index => svg("path", { d: `M${LANE.left + index * column} 2v${y}`, class: "flip" })),
    chosen.at < kept ? svg("rect", { x: LANE.left + chosen.at * column, y: 4, width: column, height: y, class: "cell" }) : "", xAxis(y, x, column));
  body.replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${y + 26}`, width, height: y + 26, class: "chart", id: "decode-svg", role: "img", "aria-label": "Likeliest token after each step, with probability and rank of the final answer" }, ...parts));
  drawTop();
  drawDecodeNote(flips);
}

function ribbon(token, y, column) {
  const out = [], ids = steps.map((_, index) => likeliest(token, index)), order = [...new Set(ids)];
  for (let index = 0; index < chosen.span; index++) {
    const from = index;
    while (index + 1 < chosen.span && ids[index + 1] === ids[from]) index++;
    const width = (index - from + 1) * column, best = said(token, from)[0];
    out.push(svg("g", {}, svg("title", {}, `steps ${steps[from]} to ${steps[index]}: ${visible(best.text)}`),
      svg("rect", { x: LANE.left + from * column, y, width: Math.max(0.5, width - 1), height: LANE.ribbon, rx: 3, class: ids[from] === ids[readTo] ? "run final" : `run odd${order.indexOf(ids[from]) % 2}` }),
      width > 18 ? svg("text", { x: LANE.left + from * column + width / 2, y: y + LANE.ribbon / 2, class: ids[from] === ids[readTo] ? "run-text final" : "run-text" }, short(visible(best.text), Math.floor(width / 8))) : null));
  }
  return out;
}

function frame(y, height, width, places, scale, title) {
  return svg("g", {}, svg("rect", { x: LANE.left, y, width: width - LANE.left - LANE.right, height, class: "field" }),
    places.map(place => svg("g", {}, svg("line", { x1: LANE.left, x2: width - LANE.right, y1: scale(place), y2: scale(place), class: "grid" }), svg("text", { x: LANE.left - 6, y: scale(place), class: "tick y" }, show(place)))),
    svg("text", { x: 4, y: y + height / 2, class: "lane-title" }, title));
}

function xAxis(y, x, column) {
  const every = ticks(0, chosen.span - 1, Math.max(2, Math.min(chosen.span - 1, Math.floor((column * chosen.span) / 70)))).filter(Number.isInteger);
  return svg("g", {}, every.map(index => svg("text", { x: x(index), y: y + 18, class: "tick" }, steps[index])), svg("text", { x: LANE.left - 8, y: y + 18, class: "lane" }, "step"));
}

function drawTop() {
  const best = said(chosen.token, chosen.at), place = document.getElementById("decode-top");
  place.replaceChildren(html("h3", {}, `After step ${steps[chosen.at]}`), html("ol", {}, best.map(({ id, text, logprob }) => {
    const probability = Math.exp(logprob), fill = html("span", { class: "fill" });
    fill.style.width = `${Number.isFinite(probability) ? 100 * probability : 0}%`;
    return html("li", { title: id === null ? "the readout is not finite" : `token ${id}` }, html("span", { class: "word" }, visible(text)), html("span", { class: "meter" }, fill), html("span", { class: "p" }, show(probability)));
  })));
}

function drawDecodeNote(flips) {
  const token = tokens[chosen.token], next = tokens[chosen.token + 1], follows = next && next.position === token.position + 1 ? next : null;
  const place = document.getElementById("decode-note"), key = kind => html("span", { class: `key ${kind}` });
  const changes = !flips ? "Its readout is not finite, so changes of its answer cannot be told. "
    : flips.length ? `Its answer changed ${many(flips.length, "time")}, the last time after step ${steps[flips.at(-1)]}. ` : "Its answer never changed. ";
  place.replaceChildren(facts.lens ? `Read through ${facts.lens}. ` : "", token.answer.id === null ? "In the end its readout is NaN. " : `${readTo < steps.length - 1 ? `After step ${steps[readTo]}, the last that can be read,` : "In the end"} it says ${quoted(token.answer.text)}. `, changes, follows ? `The input goes on with ${quoted(follows.text)}. ` : "",
    key("best"), "the likeliest token ", ...("answer_probability" in arrays ? [key("answer"), "its final answer "] : []),
    ...(facts.control !== null ? [key("control"), `${quoted(facts.control)}, the control `] : []), key("flip"), "the answer changes");
}

function decodeTable() {
  const { token } = chosen, names = ["answer_probability", "answer_rank", "control_rank", "entropy", "kl_final", "pair_difference"].filter(name => name in arrays);
  const count = arrays.top.shape[2], range = Array.from({ length: count }, (_, i) => i + 1);
  return {
    columns: ["step", ...range.flatMap(i => [`id_${i}`, `text_${i}`, `logprob_${i}`]), ...names],
    rows: steps.map((step, index) => [step, ...said(token, index).flatMap(({ id, text, logprob }) => [id, text, logprob]), ...names.map(name => arrays[name].at(token, index))]),
  };
}
