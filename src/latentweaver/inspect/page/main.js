// Start, play and scrub, and the keys.

const PER_SECOND = 12;
let playing = null;

function drawTimeline() {
  const slider = document.getElementById("step");
  slider.max = Math.max(0, steps.length - 1);
  slider.addEventListener("input", () => choose({ at: Number(slider.value) }));
  document.getElementById("play").addEventListener("click", play);
  document.getElementById("token-before").addEventListener("click", () => choose({ token: chosen.token - 1 }));
  document.getElementById("token-after").addEventListener("click", () => choose({ token: chosen.token + 1 }));
  document.getElementById("keys").addEventListener("click", () => document.getElementById("help").showModal());
  const span = document.getElementById("span");
  options(span, SPANS.map(count => [count, count === steps.length ? "all steps" : `to step ${steps[count - 1]}`]));
  span.closest("label").hidden = SPANS.length < 2;
  span.addEventListener("change", () => choose({ span: Number(span.value) }));
  const update = () => {
    span.value = chosen.span;
    slider.value = chosen.at;
    document.getElementById("step-now").textContent = steps.length ? `${steps[chosen.at]} of ${steps.at(-1)}` : "";
    document.getElementById("token-now").textContent = tokens.length ? `${visible(tokens[chosen.token].text)} (${chosen.token + 1} of ${tokens.length})` : "no tokens";
  };
  onChoice(update);
  update();
}

function play() {
  if (playing) return pause();
  if (chosen.at >= steps.length - 1) choose({ at: 0 });
  showPlaying(true);
  playing = setInterval(() => {
    choose({ at: chosen.at + 1 });
    if (chosen.at >= steps.length - 1) pause();
  }, 1000 / PER_SECOND);
}

function pause() {
  clearInterval(playing);
  playing = null;
  showPlaying(false);
}

function showPlaying(on) {
  const button = document.getElementById("play");
  button.setAttribute("aria-label", on ? "Pause" : "Play");
  button.querySelector("path").setAttribute("d", on ? "M4 2h3v12H4zM9 2h3v12H9z" : "M4 2l10 6-10 6z");
}

function next(list, now) {
  return list[(list.indexOf(now) + 1) % list.length];
}

const KEYS = {
  ArrowLeft: event => choose({ at: chosen.at - (event.shiftKey ? 10 : 1) }),
  ArrowRight: event => choose({ at: chosen.at + (event.shiftKey ? 10 : 1) }),
  ArrowUp: () => choose({ token: chosen.token - 1 }),
  ArrowDown: () => choose({ token: chosen.token + 1 }),
  Home: () => choose({ at: 0 }),
  End: () => choose({ at: steps.length - 1 }),
  " ": play,
  m: () => choose({ metric: next(METRICS.map(metric => metric.name), chosen.metric) }),
  w: () => choose({ words: Boolean(arrays.top) && !chosen.words }),
  p: () => choose({ plane: (chosen.plane + 1) % Math.max(1, Math.floor(arrays.points.shape[2] / 2)) }),
  f: () => { const last = flipsOf(chosen.token)?.at(-1); if (last !== undefined) choose({ at: last }); },
  "?": () => document.getElementById("help").showModal(),
};

function onKey(event) {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || !(key in KEYS) || document.getElementById("help").open) return;
  if (target.matches("select, input[type=number]")) return;
  if (key === " " && target.matches("button, input, summary")) return;
  event.preventDefault();
  KEYS[key](event);
}

async function start() {
  document.title = `${visible(facts.title)} – latentweaver`;
  document.getElementById("title").textContent = visible(facts.title);
  await unpackArrays();
  const { model, dtype } = facts.provenance;
  document.getElementById("subtitle").textContent = [model, `${many(tokens.length, "token")} over ${many(facts.provenance.steps, "step")}`, dtype].filter(Boolean).join(", ");
  document.getElementById("panels").hidden = false;
  Object.assign(chosen, { token: tokens.length - 1, at: readTo }, choiceFromAddress());
  for (const draw of [drawSummary, drawTimeline, drawStrip, drawHeatmap, drawPortrait, drawDecode, drawCard, drawFooter, placeNumbers, growDecode]) draw();
  if (tokens.length) document.addEventListener("keydown", onKey);
  document.documentElement.dataset.ready = "yes";
}

start().catch(error => {
  const place = document.getElementById("failure");
  place.hidden = false;
  place.textContent = `This report cannot be shown: ${error.message}`;
  throw error;
});
