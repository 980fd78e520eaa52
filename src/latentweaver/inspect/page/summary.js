// The questions that a report answers, in sentences.

function drawSummary() {
  const place = document.getElementById("answers");
  if (!tokens.length) {
    place.append(html("p", { class: "empty" }, "No tokens were recorded: there is nothing to show."));
    return;
  }
  place.append(
    answer("Which tokens took long?", slowest()),
    answer("How did they move?", kinds()),
    ...(arrays.top ? [answer("What would it have said?", lastWord()), answer("When did its answer last change?", lastChange())] : []),
    answer("How sure is this?", sureness()),
  );
  exporting("summary", stripTable);
}

function answer(question, lines) {
  return html("article", {}, html("h3", {}, question), lines.map(line => html("p", {}, line)));
}

/** A token's name that chooses it when clicked. */
function mention(token) {
  return html("button", { type: "button", class: "mention", title: `token ${token + 1} of ${tokens.length}: ${visible(tokens[token].text)}`, onclick: () => choose({ token }) }, short(visible(tokens[token].text), 24));
}

function listed(chips) {
  return chips.flatMap((chip, i) => i ? [" ", chip] : [chip]);
}

function slowest() {
  const last = steps.at(-1), below = percent(facts.settled_below);
  const never = tokens.map((_, i) => i).filter(i => tokens[i].settled === null && !tokens[i].label.flags.includes("not finite"));
  const done = tokens.map((_, i) => i).filter(i => tokens[i].settled !== null).sort((a, b) => tokens[b].settled - tokens[a].settled);
  const lines = [];
  if (never.length) lines.push([`Still moving by more than ${below} a step after ${last}: `, ...listed(never.slice(0, 8).map(mention)), never.length > 8 ? ` and ${never.length - 8} more` : ""]);
  if (done.length) {
    const slow = done.slice(0, 5);
    lines.push(["Slowest to settle: ", ...slow.flatMap((i, n) => [n ? ", " : "", mention(i), ` ${tokens[i].settled}`]), ` steps; the median token took ${show(tokens[done[Math.floor(done.length / 2)]].settled)}.`]);
  }
  if (!lines.length) lines.push("It cannot be told: their states are not finite.");
  return lines;
}

function kinds() {
  const counts = new Map();
  for (const { label } of tokens) counts.set(label.name, (counts.get(label.name) ?? 0) + 1);
  const chips = [...counts].sort((a, b) => b[1] - a[1])
    .flatMap(([name, count]) => [html("span", { class: "kind-count" }, labelGlyph(name, 14), ` ${count} ${LABELS[name].title}`), " "]);
  const broken = tokens.filter(({ label }) => label.flags.includes("not finite"));
  const growing = tokens.map((_, i) => i).filter(i => tokens[i].label.flags.includes("growing"));
  const still = tokens.filter(({ label }) => label.flags.includes("still")).length;
  return [chips,
    ...(growing.length ? [["Growing without end: ", ...listed(growing.slice(0, 8).map(mention)), growing.length > 8 ? ` and ${growing.length - 8} more.` : "."]] : []),
    ...(broken.length ? [`${broken.length} of ${tokens.length} paths run into NaN or infinity${broken.length === tokens.length && readTo < steps.length - 1 ? `, the last of them after step ${steps[readTo]}` : ""}.`] : []),
    ...(still === tokens.length ? ["No state ever moved: think returns its input, so this model has no recurrence to look at."] : [])];
}

function lastWord() {
  const token = tokens.length - 1, best = said(token, readTo)[0];
  const when = readTo < steps.length - 1 ? `step ${steps[readTo]}, the last with finite states` : many(steps.at(-1), "step");
  if (best.id === null) return [["After ", mention(token), `, the last token, its readout is NaN after ${many(steps.at(-1), "step")}.`]];
  return [["After ", mention(token), `, the last token${facts.lens ? `, read through ${facts.lens}` : ""}: ${quoted(best.text)} with probability ${show(Math.exp(best.logprob))} after ${when}.`]];
}

function lastChange() {
  const end = steps[readTo], late = token => lastFlip(token) > Math.ceil(0.75 * end), restless = tokens.filter((_, i) => late(i)).length;
  const token = tokens.length - 1, step = lastFlip(token);
  const own = step === null ? "It cannot be told: a readout is not finite."
    : step === 0 ? "Never: it says the same after every step."
    : `After step ${step}, ${many(end - step, "step")} before ${readTo < steps.length - 1 ? "the last that can be read" : "the end"}${late(token) ? ": in the last quarter, so it may change again." : "."}`;
  return [own, ...(restless ? [`${restless} of ${tokens.length} tokens changed theirs in the last quarter of the steps.`] : [])];
}

function sureness() {
  const low = tokens.filter(({ label }) => label.confidence === "low").length, walks = tokens.filter(({ portrait }) => portrait.like_a_walk).length;
  const lines = [`${tokens.length - low} of ${tokens.length} labels with high confidence; ${walks} of ${tokens.length} portraits look like a random walk's.`];
  const last = tokens.at(-1);
  if (facts.starts) lines.push(`From ${many(facts.starts.count, "other start")}${facts.starts.kind === "perturbed" ? " beside its own" : ""}, ${sameAnswer(last.starts, "the last token says")}; path independence ${show(last.starts.independence)}.`);
  if (last.examined) lines.push(`Put on the bench, the last token is: ${last.examined.verdict.replaceAll("_", " ")}.`);
  return lines;
}

function sameAnswer(starts, who) {
  return Number.isNaN(number(starts.same_answer)) ? `whether ${who} the same cannot be told: a readout is NaN` : `${who} the same in ${percent(starts.same_answer)} of the runs`;
}
