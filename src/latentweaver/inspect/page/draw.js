// Small helpers: elements, numbers in words, scales.

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element; text children become text nodes, never markup. */
function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

/** An HTML element, likewise. */
function html(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined));
  return element;
}

/** Three digits, and NaN as NaN. */
function show(value) {
  value = number(value);
  if (value === null || value === undefined) return "–";
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "-∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return String(value);
  return size < 1e-3 || size >= 1e5 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
}

function percent(value) {
  value = 100 * number(value);
  if (!Number.isFinite(value)) return show(value);
  return value > 0 && value < 0.01 ? "< 0.01 %" : `${show(value)} %`;
}

function many(count, what) {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** A token to be read: line ends and blanks made visible. */
function visible(text) {
  const shown = text.replaceAll("\n", "↵").replaceAll("\t", "⇥");
  return shown.trim() ? shown : "␣".repeat(Math.max(1, shown.length));
}

function quoted(text) {
  return `“${visible(text)}”`;
}

function linear([low, high], [from, to]) {
  const span = high - low || 1;
  return value => from + ((value - low) / span) * (to - from);
}

/** Round places on an axis, about `count` of them. */
function ticks(low, high, count = 5) {
  if (!(high > low)) return [low];
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const by = [1, 2, 5, 10].find(factor => factor * power >= rough) * power;
  const out = [];
  for (let i = Math.ceil(low / by); i * by <= high + by / 1e6; i++) out.push(i * by);
  return out;
}

function labelGlyph(name, size = 16) {
  const { shape, colour, filled, title } = LABELS[name];
  return svg("svg", { viewBox: "0 0 16 16", width: size, height: size, class: "glyph", role: "img", "aria-label": title },
    svg("path", { d: shape, fill: filled ? colour : "none", stroke: colour, "stroke-width": 1.8, "stroke-linecap": "round", "stroke-linejoin": "round" }));
}

/** A line through points [x, y]; it breaks where a number is not finite. */
function polyline(points) {
  let path = "", pen = false;
  for (const [x, y] of points) {
    const there = Number.isFinite(x) && Number.isFinite(y);
    if (there) path += `${pen ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`;
    pen = there;
  }
  return path;
}

function options(select, entries) {
  select.replaceChildren(...entries.map(([value, text]) => html("option", { value }, text)));
}
