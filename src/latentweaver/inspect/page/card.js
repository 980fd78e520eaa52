// How the chosen token moved: its label, why, what the interventions said, and the numbers behind it.

const EVIDENCE = [
  ["speed", "speed", "median step of the second half over the median norm"],
  ["rate", "rate", "by how much steps shrink from one to the next"],
  ["remaining", "still to go", "if steps go on shrinking at this rate"],
  ["excursion", "way it came", "largest distance from the last state"],
  ["turning", "turning", "mean cosine between successive steps"],
  ["straightness", "straightness", "distance over length of the path"],
  ["drift_r2", "drift", "share of the variance on a straight line in time"],
  ["radius", "radius", "distance of the second half from that line"],
  ["theta", "angle a step", "radians, of the strongest rhythm"],
  ["theta_error", "its error", "standard error"],
  ["turns", "turns", "in the second half"],
  ["energy", "rhythm", "share of the energy in steady rhythms"],
  ["skill", "forecast skill", "of the rhythm over the best polynomial; 1 is perfect"],
  ["coherence", "phase jitter", "radians from window to window"],
  ["determinism", "determinism", "nearest-neighbour forecast: 1 follows a rule, 0 is noise"],
  ["norm", "norm", "of the states"],
  ["floor", "rounding", "one rounding of the states"],
];

function drawCard() {
  if (!tokens.length) {
    document.getElementById("card-body").append(html("p", { class: "empty" }, "no tokens"));
    return;
  }
  onChoice(changed => { if (changed.has("token")) redrawCard(); });
  redrawCard();
  exporting("card", cardTable, () => document.querySelector("#card-body svg.chart") ?? svg("svg", { viewBox: "0 0 1 1" }));
}

function redrawCard() {
  const { label, settled, examined, starts } = tokens[chosen.token], kind = LABELS[label.name];
  document.getElementById("card-body").replaceChildren(...[
    html("p", { class: "verdict" }, labelGlyph(label.name, 26), html("b", { id: "label" }, label.text.replaceAll("_", " ")),
      html("span", { class: `confidence ${label.confidence}` }, `${label.confidence} confidence`), ...label.flags.map(flag => html("span", { class: "flag" }, flag))),
    html("p", {}, `${kind.about}. `, label.flags.includes("not finite") ? "" : settled === null ? `After ${many(steps.at(-1), "step")} it still moves by more than ${percent(facts.settled_below)} of its norm a step.` : `Settled after ${many(settled, "step")}: every later one moves it by less than ${percent(facts.settled_below)} of its norm.`),
    section("Why", html("ul", {}, label.reasons.map(reason => html("li", {}, reason)), label.candidate && !label.flags.includes("not finite") ? html("li", {}, `in a longer record it may be: ${label.candidate.replaceAll("_", " ")}`) : null,
      label.period ? html("li", {}, `period ${show(label.period)} ± ${show(label.period_error)} steps`) : null)),
    examined ? section("On the bench", html("ul", {}, html("li", {}, html("b", {}, `verdict: ${examined.verdict.replaceAll("_", " ")}`)),
      html("li", {}, `replay: ${examined.replay.deterministic ? "the same state goes on to the same state" : `the same state goes on to states ${show(examined.replay.error)} apart`}${examined.replay.autonomous ? "" : "; what a step does depends on its number"}`),
      html("li", {}, `${show(examined.extension.times)} times as long: ${examined.extension.label.replaceAll("_", " ")}${examined.extension.holds ? "" : ", so the label is withdrawn"}`),
      examined.extension.refused ? html("li", {}, `it thinks no longer: ${examined.extension.refused}`) : null,
      html("li", {}, examined.kick.outcome === "not tried" ? "kick: not tried" : `kick of ${show(examined.kick.size)}: ${examined.kick.outcome}`))) : html("p", { class: "faint" }, "Labelled from the record alone; it was not put on the bench."),
    starts ? section(many(facts.starts.count, "other start"), html("ul", {}, html("li", {}, `path independence ${show(starts.independence)} (1: all end alike); ends ${show(starts.spread)} times as far apart as the starts`),
      html("li", {}, sameAnswer(starts, "it says")), html("li", {}, `their labels: ${starts.labels.map(name => name.replaceAll("_", " ")).join(", ")}`))) : null,
    label.recurrence?.filter(value => Number.isFinite(number(value))).length > 2 ? section("Return after k steps", recurrenceChart(label.recurrence.map(number))) : null,
  ].filter(Boolean));
  document.getElementById("numbers").hidden = !label.evidence;
  document.getElementById("numbers-body").replaceChildren(...EVIDENCE.filter(([name]) => name in (label.evidence ?? {})).map(([name, title, meaning]) =>
    html("div", { title: meaning }, html("dt", {}, title), html("dd", { "data-number": name }, Number.isNaN(number(label.evidence[name])) ? "not measured" : show(label.evidence[name])), html("dd", { class: "meaning" }, meaning))));
}

/** The numbers stand below the card, or, where that column would be longer than the other can grow, below both. */
function placeNumbers() {
  const numbers = document.getElementById("numbers"), main = document.getElementById("panels");
  document.getElementById("card").after(numbers);
  main.style.alignItems = "start"; // each column as high as what stands in it
  const [left, right] = [...document.querySelectorAll(".column")].map(column => column.offsetHeight);
  main.style.alignItems = "";
  if (right - left > roomToGrow()) document.getElementById("footer").before(numbers);
}

function section(title, ...content) {
  return html("div", { class: "part" }, html("h3", {}, title), ...content);
}

/** R(k): how far apart states k steps apart are, 1 for chance, 0 where it comes back. */
function recurrenceChart(values) {
  const width = 400, height = 96, x = k => 26 + (k - 0.5) * ((width - 34) / values.length), high = Math.max(1.2, ...values.filter(Number.isFinite)), y = linear([0, high], [height - 18, 6]);
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart recurrence", role: "img", "aria-label": "Distance between states k steps apart, over what chance gives" },
    [0, 1].map(level => svg("g", {}, svg("line", { x1: 26, x2: width - 8, y1: y(level), y2: y(level), class: level ? "grid strong" : "grid" }), svg("text", { x: 20, y: y(level), class: "tick y" }, level))),
    values.map((value, i) => Number.isFinite(value) ? svg("g", {}, svg("title", {}, `k = ${i + 1}: ${show(value)}`), svg("line", { x1: x(i + 1), x2: x(i + 1), y1: y(0), y2: y(value), class: "stem" }), svg("circle", { cx: x(i + 1), cy: y(value), r: 2.6, class: "stem-end" })) : null),
    [1, 8, 16, 24, 32].filter(k => k <= values.length).map(k => svg("text", { x: x(k), y: height - 4, class: "tick" }, k)));
}

function cardTable() {
  const { label, settled, examined, starts } = tokens[chosen.token];
  const rows = [["label", label.text], ["confidence", label.confidence], ["reasons", label.reasons.join("; ")], ["flags", label.flags.join(" ")], ["period", number(label.period)], ["period_error", number(label.period_error)], ["settled", settled]];
  for (const [name, value] of Object.entries(label.evidence ?? {})) rows.push([name, number(value)]);
  (label.recurrence ?? []).forEach((value, i) => rows.push([`recurrence_${i + 1}`, number(value)]));
  for (const name of ["independence", "spread", "same_answer"]) if (starts) rows.push([`starts_${name}`, number(starts[name])]);
  if (starts) rows.push(["starts_labels", starts.labels.join(" ")]);
  if (examined) rows.push(["verdict", examined.verdict], ["verdict_reasons", examined.reasons.join("; ")]);
  return { columns: ["what", "value"], rows };
}
