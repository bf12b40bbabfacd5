// The page: an image or the camera in, probabilities out, at the device's own speed.

import * as ort from "./ort.wasm.min.mjs";
import { enlarge, normalise, shrink, softmax, toGrey } from "./preprocessing.js";

const SPEED_OVER = 20; // runs that the frames per second are the mean of
const $ = (id) => document.getElementById(id);

ort.env.wasm.wasmPaths = new URL(".", location.href).href;
ort.env.wasm.numThreads = 1; // more would need headers that a plain folder on a web server does not send

const context = $("face").getContext("2d", { willReadFrequently: true });
const model = await (await fetch("model.json")).json();
let session, variant, source, times, camera;
let updates = 0;

for (const [name, { megabytes, accuracy }] of Object.entries(model.variants)) {
  $("variant").add(new Option(`${name}: ${megabytes} MB, ${accuracy} by annotators`, name));
}

async function open(name) {
  if (!session) $("answer").textContent = "Loading the network …";
  const opened = await ort.InferenceSession.create(model.variants[name].file);
  if ($("variant").value !== name) return; // another was chosen meanwhile
  [session, variant, times] = [opened, model.variants[name], []]; // at once: the camera may be running
}

function draw() {
  const width = source.videoWidth || source.naturalWidth;
  const height = source.videoHeight || source.naturalHeight;
  const side = Math.min(width, height) * $("side").value;
  const left = (width - side) * $("x").value;
  const top = (height - side) * $("y").value;
  context.imageSmoothingQuality = "high";
  context.drawImage(source, left, top, side, side, 0, 0, context.canvas.width, context.canvas.height);
}

async function classify() {
  draw();
  const [run, shape] = [session, variant];
  const { width, height } = context.canvas;
  const start = performance.now();
  const grey = toGrey(context.getImageData(0, 0, width, height).data);
  const face = shrink(grey, width, width / model.framing);
  const input = normalise(enlarge(face, model.framing, shape.image_size), shape.mean, shape.std);
  const image = new ort.Tensor("float32", input, [1, 3, shape.image_size, shape.image_size]);
  const { logits } = await run.run({ image });
  times.push(performance.now() - start);
  return softmax(logits.data);
}

function show(probabilities) {
  const ranked = model.emotions
    .map((emotion, i) => ({ emotion, p: probabilities[i] }))
    .sort((a, b) => b.p - a.p);
  const percent = (p) => `${(100 * p).toFixed(0)} %`;
  const [best] = ranked;
  $("answer").textContent =
    best.p < variant.abstain_below ? `unsure (${best.emotion} ${percent(best.p)})` : `${best.emotion} ${percent(best.p)}`;
  $("bars").replaceChildren(
    ...ranked.map(({ emotion, p }) => {
      const row = document.createElement("li");
      const meter = Object.assign(document.createElement("meter"), { value: p });
      meter.ariaHidden = "true";
      const [name, value] = [emotion, percent(p)].map((textContent) =>
        Object.assign(document.createElement("span"), { textContent }),
      );
      row.append(name, meter, value);
      return row;
    }),
  );
  const mean = times.reduce((a, b) => a + b, 0) / times.length;
  $("speed").textContent =
    `${(1000 / mean).toFixed(0)} frames per second on this device: ${mean.toFixed(1)} ms a face, one thread.`;
  document.body.dataset.probabilities = JSON.stringify(Array.from(probabilities)); // for whoever automates the page
}

async function update() {
  const mine = ++updates;
  let probabilities = await classify();
  times = []; // the first run of a network warms it up
  for (let i = 0; i < SPEED_OVER && mine === updates; i++) probabilities = await classify();
  if (mine === updates) show(probabilities); // else a later one does
}

async function follow() {
  while (camera) {
    const probabilities = await classify();
    times = times.slice(-SPEED_OVER);
    show(probabilities);
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = undefined;
  $("camera").textContent = "Use the camera";
}

async function showImage(url, hint) {
  stopCamera();
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    $("answer").textContent = "This file is no image that the browser can read. Try another.";
    return;
  }
  source = image;
  $("hint").textContent = hint;
  await update();
}

$("variant").onchange = async () => {
  await open($("variant").value);
  if (!camera) await update();
};
$("file").onchange = () => {
  const [file] = $("file").files;
  if (file) showImage(URL.createObjectURL(file), file.name);
};
$("example").onclick = () => showImage("example.png", "the drawn example");
for (const id of ["x", "y", "side"]) $(id).oninput = () => !camera && update();
$("camera").onclick = async () => {
  if (camera) return stopCamera();
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  } catch {
    $("answer").textContent = "The browser gives no camera. Allow it for this page, or open an image.";
    return;
  }
  $("video").srcObject = camera;
  await $("video").play();
  source = $("video");
  $("hint").textContent = "the camera";
  $("camera").textContent = "Stop the camera";
  follow();
};

await open($("variant").value);
await showImage("example.png", "the drawn example");
