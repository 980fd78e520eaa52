// Colours that colour-blind eyes tell apart, and never colour alone: labels have shapes, missing numbers are hatched.

// viridis at nine places
const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"]
  .map(hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16)));

/** Red, green and blue at `place` between 0 and 1. */
function ramp(place) {
  const x = Math.min(Math.max(place, 0), 1) * (VIRIDIS.length - 1), low = Math.min(Math.floor(x), VIRIDIS.length - 2);
  return VIRIDIS[low].map((value, channel) => Math.round(value + (x - low) * (VIRIDIS[low + 1][channel] - value)));
}

function colour(place) {
  return `rgb(${ramp(place).join(" ")})`;
}

/** Black or white, whichever can be read on that place of the ramp. */
function ink(place) {
  const [r, g, b] = ramp(place);
  return 0.299 * r + 0.587 * g + 0.114 * b > 120 ? "#000" : "#fff";
}

// A line has to stand out from the ground: leave out the dark end on a dark one, the bright end on a bright one.
const darkGround = matchMedia("(prefers-color-scheme: dark)");

function lineColour(place) {
  return colour(darkGround.matches ? 0.3 + 0.7 * place : 0.88 * place);
}

// Okabe and Ito's colours, and a shape of 16 x 16 for each label
const LABELS = {
  fixed_point: { title: "fixed point", colour: "#0072b2", about: "it has stopped", shape: "M8 3.5a4.5 4.5 0 1 0 .01 0z", filled: true },
  converging: { title: "converging", colour: "#56b4e9", about: "its steps shrink", shape: "M2 3l6 4 6-4M4 8l4 3 4-3M8 13.2v.3" },
  slider: { title: "slider", colour: "#009e73", about: "it moves on steadily in one direction", shape: "M2 8h11M9 4l4 4-4 4" },
  orbit: { title: "orbit", colour: "#d55e00", about: "it goes round, with a whole number of steps as its period", shape: "M8 2.5a5.5 5.5 0 1 0 .01 0z" },
  quasi_orbit: { title: "quasi-orbit", colour: "#cc79a7", about: "it goes round, with no whole period of up to 32 steps", shape: "M8 2a6 6 0 1 0 .01 0zM8 5.5a2.5 2.5 0 1 0 .01 0z" },
  helix: { title: "helix", colour: "#e69f00", about: "it goes round and slides at once", shape: "M1.5 9c2-7 4-7 4.5 0s3 7 4 0 2.500-7 4.500-1" },
  wander: { title: "wander", colour: "#9467bd", about: "none of these: chaos, noise, or unclear", shape: "M2 12l3-8 3 9 2-7 2 4 2-7" },
  undetermined: { title: "undetermined", colour: "#8a8a8a", about: "it cannot be told", shape: "M5 5.500c0-4 6.500-3.500 6 0-.3 2-3 2-3 4.500M8 13v.5" },
};
