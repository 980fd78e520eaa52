// What is chosen. Every panel listens; nobody changes another panel. `at` counts kept steps, `steps[at]` is the step.

const chosen = { token: 0, at: 0, metric: "speed", words: false, tint: "settled", plane: 0, part: "all", strobe: 1, others: true };
const listeners = [];

/** Call `listen(changed)` after every change; `changed.has("token")` says what. */
function onChoice(listen) {
  listeners.push(listen);
}

function choose(change) {
  if ("token" in change) change.token = Math.min(Math.max(change.token, 0), tokens.length - 1);
  if ("at" in change) change.at = Math.min(Math.max(change.at, 0), steps.length - 1);
  const changed = new Set(Object.keys(change).filter(name => chosen[name] !== change[name]));
  if (!changed.size) return;
  Object.assign(chosen, change);
  for (const listen of listeners) listen(changed);
}

// The choice can be in the address, as in report.html#token=4&step=17
function choiceFromAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const change = {};
  if (wanted.has("token")) change.token = Number(wanted.get("token")) || 0;
  if (wanted.has("step")) change.at = Math.max(0, steps.findIndex(step => step >= Number(wanted.get("step"))));
  if (METRICS.some(metric => metric.name === wanted.get("metric"))) change.metric = wanted.get("metric");
  return change;
}
