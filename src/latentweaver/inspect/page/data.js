// The facts and arrays of the report. Arrays come token first; `array("speed").at(token, index)` is one number, `index` counting
// kept steps. What was packed in 16 bits is unpacked here; NaN stays NaN.

const facts = JSON.parse(document.getElementById("facts").textContent);
const arrays = {};

/** A number that JSON cannot hold comes as a string. */
function number(value) {
  return typeof value === "string" ? Number(value) : value;
}

const ZERO = 0, NOT_A_NUMBER = 65535, INFINITE = 65534, LEVELS = 65532;
const BYTES = { f4: 4, u1: 1, u2: 2, u4: 4, linear: 2, log: 2 };
const VIEWS = { f4: Float32Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };

async function unpackArrays() {
  const packed = Uint8Array.from(atob(document.getElementById("blob").textContent), letter => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  for (const [name, place] of Object.entries(facts.arrays)) {
    if (place.kind === "json") facts[name] = JSON.parse(new TextDecoder().decode(bytes.subarray(place.offset, place.offset + place.shape[0])));
    else arrays[name] = unpackOne(bytes, place);
  }
  tokens = facts.tokens;
}

function unpackOne(bytes, { kind, shape, offset }) {
  const count = shape.reduce((product, size) => product * size, 1);
  const coded = kind === "linear" || kind === "log";
  const ranges = coded ? new Float32Array(bytes.slice(offset, offset + 8 * shape[0]).buffer) : null;
  const raw = unshuffled(bytes, offset + (coded ? 8 * shape[0] : 0), count, BYTES[kind]);
  let values = coded ? new Uint16Array(raw) : new VIEWS[kind](raw);
  if (coded) values = decoded(values, ranges, count / (shape[0] || 1), kind === "log");
  else if (kind !== "f4") values = Float64Array.from(values, code => code === 0 ? NaN : code - 1);
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1));
  return { shape, values, at: (...place) => values[place.reduce((sum, index, axis) => sum + index * strides[axis], 0)] };
}

/** All first bytes, then all second bytes, ... back into numbers. */
function unshuffled(bytes, offset, count, width) {
  const out = new Uint8Array(count * width);
  for (let byte = 0; byte < width; byte++)
    for (let i = 0; i < count; i++) out[i * width + byte] = bytes[offset + byte * count + i];
  return out.buffer;
}

function decoded(codes, ranges, perToken, logarithmic) {
  const out = new Float64Array(codes.length);
  for (let i = 0; i < codes.length; i++) {
    const token = Math.floor(i / perToken), low = ranges[2 * token], high = ranges[2 * token + 1], code = codes[i];
    const value = low + ((code - 1) / LEVELS) * (high - low);
    out[i] = code === NOT_A_NUMBER ? NaN : code === INFINITE ? Infinity
      : logarithmic ? (code === ZERO ? 0 : Math.exp(value)) : value;
  }
  return out;
}

const steps = facts.steps;
let tokens = []; // unpacked with the arrays

/** What a heat map can show: the arrays that are there, with their names in words. */
const METRICS = [
  { name: "speed", title: "speed", log: true, note: "length of the step over the length of the state, |x_t - x_(t-1)| / |x_t|" },
  { name: "distance", title: "distance to the end", log: true, note: `|x_t - x*| / |x*|, x* being ${facts.distance_to}` },
  { name: "answer_probability", title: "probability of its final answer", note: "what the model gives, after this step, to the token that it says in the end" },
  { name: "answer_rank", title: "rank of its final answer", rank: true, note: "0: it is already the likeliest token" },
  { name: "entropy", title: "entropy of what it would say", note: "nats" },
  { name: "kl_final", title: "divergence from its last word", log: true, note: "KL(last readout || readout after this step), nats" },
  { name: "control_rank", title: "rank of the control token", rank: true, note: `rank of ${JSON.stringify(facts.control)}, which has nothing to do with the answer` },
  { name: "pair_difference", title: "log-probability difference", note: facts.pair ? `log p(${JSON.stringify(facts.pair[0])}) - log p(${JSON.stringify(facts.pair[1])}), nats` : "" },
].filter(metric => metric.name in facts.arrays);

/** The vocabulary place of the likeliest token, -1 where the readout is not finite. */
function likeliest(token, index) {
  return Number.isNaN(arrays.top_logprobs.at(token, index, 0)) ? -1 : arrays.top.at(token, index, 0);
}

/** The place of the last step that was read: the last, or the last before every state was NaN. */
const readTo = steps.filter(step => step <= (facts.read_to ?? steps.at(-1))).length - 1;

/** After which kept steps the likeliest token was another than before; null where that was not read or is not finite. */
function flipsOf(token) {
  const ids = arrays.top ? steps.slice(0, readTo + 1).map((_, index) => likeliest(token, index)) : [-1];
  return ids.includes(-1) ? null : ids.map((_, index) => index).filter(index => index && ids[index] !== ids[index - 1]);
}

/** The step after which the answer last changed, 0 if it never did; null where that cannot be told. */
function lastFlip(token) {
  const flips = flipsOf(token);
  return flips && (flips.length ? steps[flips.at(-1)] : 0);
}

/** The likeliest tokens of one place, best first: {id, text, logprob}. */
function said(token, index) {
  if (!arrays.top) return [];
  return Array.from({ length: arrays.top.shape[2] }, (_, rank) => {
    const logprob = arrays.top_logprobs.at(token, index, rank);
    return Number.isNaN(logprob) ? { id: null, text: "NaN", logprob } : { ...facts.vocabulary[arrays.top.at(token, index, rank)], logprob };
  });
}
