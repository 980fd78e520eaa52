// Ask, and show each token as it comes, tinted by the steps it took. Everything from the server enters as text, never as HTML.
"use strict";

const at = (id) => document.getElementById(id);
let model = null;
let asked = null;

const dial = () => 2 ** Number(at("steps").value);
const tint = (steps) => "t" + Math.min(6, Math.max(0, Math.ceil(Math.log2(steps))));

function headers() {
  const key = at("key").value;
  return { "content-type": "application/json", ...(key ? { authorization: "Bearer " + key } : {}) };
}

async function meet() {
  const reply = await fetch("/v1/models", { headers: headers() });
  if (!reply.ok) return;
  model = (await reply.json()).data[0];
  at("model").textContent = model.id;
  if (model.example && !at("question").value) at("question").value = model.example;
  at("steps").max = String(Math.min(6, Math.floor(Math.log2(model.max_steps))));
  document.querySelectorAll(".legend span").forEach((mark, place) => mark.classList.toggle("beyond", place > Number(at("steps").max)));
  at("steps").dispatchEvent(new Event("input"));
}

function show(text, steps) {
  const piece = document.createElement("span");
  const most = Math.max(1, ...steps);
  piece.className = tint(most);
  piece.title = steps.join(", ") + (most === 1 ? " step" : " steps");
  piece.textContent = text;
  at("answer").append(piece);
}

async function* events(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
  }
}

async function ask() {
  if (model === null) await meet();
  const wanted = {
    model: model === null ? "" : model.id,
    messages: [{ role: "user", content: at("question").value }],
    max_tokens: Number(at("tokens").value),
    temperature: Number(at("temperature").value),
    num_steps: dial(),
    stream: true,
    stream_options: { include_usage: true },
    ...(at("auto").checked ? { halting: "auto" } : {}),
  };
  asked = new AbortController();
  const began = performance.now();
  const reply = await fetch("/v1/chat/completions", {
    method: "POST", headers: headers(), body: JSON.stringify(wanted), signal: asked.signal,
  });
  if (!reply.ok) throw new Error((await reply.json()).error.message);
  for await (const event of events(reply)) {
    if (event.error) throw new Error(event.error.message);
    for (const choice of event.choices) if (choice.delta.content) show(choice.delta.content, choice.steps);
    if (event.usage) {
      const { completion_tokens: tokens, thinking_steps: steps } = event.usage;
      const mean = (steps / Math.max(1, tokens)).toFixed(1), seconds = ((performance.now() - began) / 1000).toFixed(1);
      at("account").textContent = `${tokens} tokens, ${steps} steps, ${mean} a token, ${seconds} s`;
    }
  }
}

function busy(yes) {
  at("go").disabled = yes;
  at("halt").disabled = !yes;
}

at("steps").addEventListener("input", () => { at("shown").textContent = String(dial()); });
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !at("go").disabled) at("form").requestSubmit();
});
at("halt").addEventListener("click", () => asked && asked.abort());
at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  busy(true);
  at("answer").replaceChildren();
  at("account").textContent = "";
  try {
    await ask();
  } catch (error) {
    if (error.name !== "AbortError") at("account").textContent = error.message;
  } finally {
    busy(false);
  }
});
meet();
