// The input as text: each token tinted by how long it took, with the shape of its label.

const TINTS = {
  settled: { title: "steps until it settled", value: token => tokens[token].settled, none: "never within the run" },
  flip: { title: "step of its last change of answer", value: lastFlip, none: "cannot be told" },
  label: { title: "label", value: () => null, none: "" },
};

function drawStrip() {
  const place = document.getElementById("strip-body"), tint = document.getElementById("tint");
  options(tint, Object.entries(TINTS).filter(([name]) => name !== "flip" || arrays.top).map(([name, { title }]) => [name, title]));
  tint.addEventListener("change", () => choose({ tint: tint.value }));
  if (!tokens.length) place.append(html("p", { class: "empty" }, "no tokens"));
  const chips = tokens.map((token, i) => {
    const chip = html("button", { type: "button", class: token.generated ? "token generated" : "token", "data-token": i,
      title: describe(i), onclick: () => choose({ token: i }) },
      html("span", { class: "text" }, visible(token.text)), labelGlyph(token.label.name, 12));
    return chip;
  });
  for (const [i, chip] of chips.entries()) {
    place.append(chip);
    if (tokens[i].text.includes("\n")) place.append(html("span", { class: "break" }));
  }
  const update = changed => {
    if (changed.has("tint")) {
      tint.value = chosen.tint;
      chips.forEach((chip, i) => paint(chip, i));
      drawStripLegend();
    }
    if (changed.has("token")) chips.forEach((chip, i) => chip.setAttribute("aria-pressed", i === chosen.token));
  };
  onChoice(update);
  update(new Set(["tint", "token"]));
  exporting("strip", stripTable, stripPicture);
}

function paint(chip, i) {
  const value = TINTS[chosen.tint].value(i), text = chip.querySelector(".text"), [low, high] = tintRange();
  const place = value === null ? null : high > low ? (value - low) / (high - low) : 0;
  text.classList.toggle("none", chosen.tint !== "label" && value === null);
  text.style.background = place === null ? "" : colour(place);
  text.style.color = place === null ? "" : ink(place);
}

/** The fewest and the most steps that a token has: the ends of the scale. */
function tintRange() {
  const values = tokens.map((_, i) => TINTS[chosen.tint].value(i)).filter(value => value !== null);
  return values.length ? [Math.min(...values), Math.max(...values)] : [0, 0];
}

function drawStripLegend() {
  const names = Object.keys(LABELS).filter(name => tokens.some(token => token.label.name === name));
  const shapes = names.map(name => html("span", { title: LABELS[name].about }, labelGlyph(name, 13), ` ${LABELS[name].title}`));
  const some = tokens.some((_, i) => TINTS[chosen.tint].value(i) !== null);
  const scale = chosen.tint === "label" ? [] : [
    some && html("span", { class: "scale" }, `${tintRange()[0]} `, html("span", { class: "gradient" }), ` ${tintRange()[1]} steps`),
    ...(tokens.some((_, i) => TINTS[chosen.tint].value(i) === null) ? [html("span", {}, html("span", { class: "text none" }, " x "), ` ${TINTS[chosen.tint].none}`)] : [])];
  const written = tokens.some(token => token.generated) ? [html("span", { class: "generated" }, html("span", { class: "text" }, "underlined"), " written by the model")] : [];
  document.getElementById("strip-legend").replaceChildren(...scale.filter(Boolean), ...shapes, ...written);
}

function describe(i) {
  const { text, position, label, settled } = tokens[i];
  return `${visible(text)} at position ${position}: ${label.text}, ${settled === null ? "not settled" : `settled after ${settled} steps`}`;
}

function stripTable() {
  return {
    columns: ["token", "position", "id", "text", "generated", "label", "confidence", "period", "settled", "answer", "last_flip", "path_independence", "same_answer"],
    rows: tokens.map((token, i) => [i, token.position, token.id, token.text, token.generated, token.label.text, token.label.confidence, number(token.label.period),
      token.settled, token.answer?.text ?? null, lastFlip(i), number(token.starts?.independence) ?? null, number(token.starts?.same_answer) ?? null]),
  };
}

/** The strip as it stands on the page, as a picture. */
function stripPicture() {
  const body = document.getElementById("strip-body"), frame = body.getBoundingClientRect();
  const drawn = svg("svg", { viewBox: `0 0 ${Math.ceil(frame.width)} ${Math.ceil(frame.height)}` });
  for (const chip of body.querySelectorAll(".token")) {
    const text = chip.querySelector(".text"), box = text.getBoundingClientRect(), style = getComputedStyle(text);
    const x = box.x - frame.x, y = box.y - frame.y;
    drawn.append(svg("rect", { x, y, width: box.width, height: box.height, rx: 3, fill: style.backgroundColor }),
      svg("text", { x: x + 4, y: y + box.height / 2 + 5, fill: style.color, "font-size": style.fontSize, "font-family": style.fontFamily }, text.textContent));
    const glyph = labelGlyph(tokens[chip.dataset.token].label.name, 12), under = chip.querySelector(".glyph").getBoundingClientRect();
    glyph.setAttribute("x", under.x - frame.x);
    glyph.setAttribute("y", under.y - frame.y);
    drawn.append(glyph);
  }
  document.body.append(drawn); // its styles are only computed in the document
  setTimeout(() => drawn.remove(), 0);
  return drawn;
}
