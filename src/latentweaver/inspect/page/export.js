// Every panel gives its numbers as CSV or JSON and, where it has a picture, the picture as SVG or PNG.

/**
 * Add the export menu to a panel.
 * `table()` returns { columns, rows }; `picture()` an <svg> that stands alone once its styles are written into it, or null.
 */
function exporting(panel, table, picture = null) {
  const kinds = picture ? ["csv", "json", "svg", "png"] : ["csv", "json"];
  const menu = html("span", { class: "export", role: "group", "aria-label": `Export ${panel}` },
    kinds.map(kind => html("button", { type: "button", "data-export": kind, title: `Save ${kind.toUpperCase()}`,
      onclick: () => save(panel, kind, table, picture) }, kind.toUpperCase())));
  document.querySelector(`#${panel} .bar`).append(menu);
}

async function save(panel, kind, table, picture) {
  const body = kind === "csv" ? asCsv(table()) : kind === "json" ? asJson(table())
    : kind === "svg" ? asSvg(picture()) : await asPng(picture());
  const type = { csv: "text/csv", json: "application/json", svg: "image/svg+xml", png: "image/png" }[kind];
  const address = URL.createObjectURL(new Blob([body], { type }));
  html("a", { href: address, download: `${panel}.${kind}` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/** Texts are written as JSON strings, so that blanks show and no spreadsheet takes one for a formula. */
function asCsv({ columns, rows }) {
  const cell = value => {
    if (value === null || value === undefined) return "";
    const text = typeof value === "string" ? JSON.stringify(value) : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns.join(","), ...rows.map(row => row.map(cell).join(","))].join("\n") + "\n";
}

function asJson({ columns, rows }) {
  const plain = value => typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
  return JSON.stringify(rows.map(row => Object.fromEntries(columns.map((column, i) => [column, plain(row[i])]))), null, 1) + "\n";
}

const STYLES = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "opacity", "fill-opacity",
  "stroke-opacity", "font-family", "font-size", "font-weight", "text-anchor", "dominant-baseline", "image-rendering", "display"];

function asSvg(drawn) {
  const copy = drawn.cloneNode(true);
  const there = [drawn, ...drawn.querySelectorAll("*")], here = [copy, ...copy.querySelectorAll("*")];
  there.forEach((element, i) => {
    const style = getComputedStyle(element);
    for (const name of STYLES) here[i].style.setProperty(name, style.getPropertyValue(name));
    here[i].removeAttribute("class");
  });
  const { width, height } = drawn.viewBox.baseVal;
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  const paper = getComputedStyle(document.getElementById("summary")).backgroundColor;
  copy.prepend(svg("rect", { width, height, fill: paper }));
  return new XMLSerializer().serializeToString(copy);
}

async function asPng(drawn) {
  const { width, height } = drawn.viewBox.baseVal, sharp = Math.min(2, 8000 / Math.max(width, height));
  const picture = new Image();
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(asSvg(drawn))}`;
  await picture.decode();
  const canvas = html("canvas", { width: Math.round(width * sharp), height: Math.round(height * sharp) });
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise(done => canvas.toBlob(done, "image/png"));
}
