// Where the report comes from, and what it does not show.

function drawFooter() {
  const { model, weights, dtype, steps: thought, every, seed, command, versions } = facts.provenance;
  const lines = [["model", model || "unknown"], ["weights", weights ? `SHA-256 ${weights}…` : "none, or not at hand"], ["dtype", dtype], ["steps", every > 1 ? `${thought}, every ${every}th kept` : thought], ["seed", seed ?? "unknown"],
    ...Object.entries(versions), ...(command ? [["command", command]] : [])];
  document.getElementById("footer-body").append(
    html("dl", {}, lines.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", { "data-fact": name }, String(value))))),
    html("div", {}, html("h3", {}, "What this does not show"), html("ul", { id: "not-shown" }, facts.not_shown.map(line => html("li", {}, line)))));
  exporting("footer", () => ({ columns: ["what", "value"], rows: [...lines, ...facts.not_shown.map(line => ["not_shown", line])] }));
}
