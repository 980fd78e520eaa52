// What is chosen. Every panel listens; nobody changes another panel. `at` counts kept steps, `steps[at]` is the step.

const chosen = { token: 0, at: 0, metric: "speed", words: false, tint: "settled", span: steps.length, plane: 0, part: "thinking", strobe: 1, others: true };
const listeners = [];

/** Call `listen(changed)` after every change; `changed.has("token")` says what. */
function onChoice(listen) {
  listeners.push(listen);
}

function choose(change) {
  change = inRange(change);
  const changed = new Set(Object.keys(change).filter(name => chosen[name] !== change[name]));
  if (!changed.size) return;
  Object.assign(chosen, change);
  for (const listen of listeners) listen(changed);
}

/** Token and step within what was recorded. */
function inRange(change) {
  const within = (value, count) => Math.max(0, Math.min(Math.round(value) || 0, count - 1));
  return { ...change, ...("token" in change && { token: within(change.token, tokens.length) }), ...("at" in change && { at: within(change.at, steps.length) }) };
}

// The choice can be in the address, as in report.html#token=4&step=17
function choiceFromAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const change = {};
  if (wanted.has("token")) change.token = Number(wanted.get("token"));
  if (wanted.has("step")) change.at = steps.filter(step => step < Number(wanted.get("step"))).length;
  if (METRICS.some(metric => metric.name === wanted.get("metric"))) change.metric = wanted.get("metric");
  if (SPANS.includes(Number(wanted.get("show")))) change.span = Number(wanted.get("show"));
  return inRange(change);
}

/** How many kept steps, from the first, heat map and lane can show: 17, 33, ... or all. */
const SPANS = [...[17, 33, 65, 129, 257].filter(count => count < steps.length), steps.length];
