// The page: an image or the camera in, boxes and answers out.

import { decode, paint, readPixels } from "./images.js";
import { Recognizer } from "./recognizer.js";
import { Tracker } from "./tracking.js";
import { count, drawBoxes, listFaces, summarise } from "./view.js";

const FRAMES_COUNTED = 20; // that the frames per second are the mean of
const NO_FACE =
  "No face was found. Try an image with faces turned to the camera, well lit, and at least 12 pixels wide.";
const NOT_LOADED =
  "The networks could not be loaded. Check that the page's whole folder is served, and reload.";
const LOADING = "Loading the network …";
const NO_EXAMPLE = "The sample could not be loaded. Check that the page's whole folder is served.";
const FAILED =
  "This device could not search the image; its memory may be full. Make the image smaller, or reload the page.";
const EXAMPLES = {
  photograph: ["photograph.jpg", "Photograph: US Navy, public domain."],
  drawing: [
    "drawing.jpg",
    "The networks were not made for drawn faces: this shows how the page works, not how well.",
  ],
};

const $ = (id) => document.getElementById(id);
const frame = document.createElement("canvas"); // of the camera, not mirrored
let recognizer, camera, note, early; // the last is a file from before the networks are loaded
export let shown = { faces: [], mirrored: false }; // for whoever automates the page, too
let task = 0; // a number for whatever was started last; what was started before is dropped

function show(faces, { width, height } = {}) {
  shown = { faces, width, height, mirrored: Boolean(camera) };
  drawBoxes($("boxes"), shown, recognizer.model.colours);
  listFaces($("faces"), shown, recognizer.model);
  $("result").classList.toggle("many", faces.length > 2);
}

function tell(status, isError = false, isBusy = false) {
  $("result").ariaBusy = String(isBusy);
  $("status").classList.toggle("error", isError);
  if ($("status").textContent !== status) $("status").textContent = status; // the same is not read out again
}

/** Take away image and answers, and say what happens now or what went wrong. */
function clear(status, isError, isBusy) {
  $("stage").hidden = true;
  show([]);
  for (const id of ["note", "speed"]) $(id).textContent = "";
  tell(status, isError, isBusy);
}

/** Show the image in a file, given by a function that resolves to it, and then its faces. */
async function showImage(getFile, about = "") {
  stopCamera();
  const mine = ++task;
  clear("Looking for faces …", false, true);
  let bitmap;
  try {
    bitmap = await decode(await getFile());
  } catch (error) {
    return mine === task && clear(error.message, true);
  }
  if (mine !== task) return;
  paint(bitmap, $("image"));
  bitmap.close();
  [$("stage").hidden, note] = [false, about];
  await nameFaces(mine);
}

async function nameFaces(mine) {
  await new Promise((resolve) => setTimeout(resolve, 30)); // the image is painted before the search
  const start = performance.now();
  const pixels = readPixels($("image"));
  let faces;
  try {
    faces = await recognizer.recognize(pixels, await recognizer.detector.detect(pixels));
  } catch {
    return mine === task && clear(FAILED, true);
  }
  if (mine !== task) return;
  show(faces, pixels);
  tell(faces.length ? summarise(faces) : NO_FACE, !faces.length);
  const turned = faces[0]?.turned
    ? `Found after the image was turned by ${faces[0].turned} degrees, anticlockwise.`
    : "";
  $("note").textContent = `${turned} ${note}`.trim();
  $("speed").textContent = `${(performance.now() - start).toFixed(0)} ms on this device.`;
}

async function startCamera() {
  const mine = ++task;
  clear("Waiting for the camera …", false, true);
  let stream;
  try {
    const video = { facingMode: "user", width: { ideal: 640 }, height: { ideal: 480 } };
    stream = await navigator.mediaDevices.getUserMedia({ video });
  } catch {
    const why = window.isSecureContext ? "Allow it for this page" : "It is only given to pages with https";
    return mine === task && clear(`The browser gives no camera. ${why}, or open an image.`, true);
  }
  if (mine !== task) return end(stream);
  camera = stream;
  stream.getVideoTracks()[0].onended = () => camera === stream && stopCamera("The camera was disconnected.");
  $("video").srcObject = stream;
  [$("video").hidden, $("image").hidden, $("stage").hidden] = [false, true, false];
  $("camera").textContent = "Stop camera";
  try {
    await $("video").play();
    await follow(stream);
  } catch {
    if (camera === stream) stopCamera(FAILED, true);
  }
}

async function follow(stream) {
  const times = [];
  const tracker = new Tracker(recognizer.detector);
  while (camera === stream) {
    paint($("video"), frame);
    const pixels = readPixels(frame);
    const faces = await recognizer.recognize(pixels, await tracker.follow(pixels));
    if (camera !== stream) return; // stopped meanwhile
    faces.sort((one, other) => other.box[0] - one.box[0]); // from left to right in the mirror
    show(faces, pixels);
    tell(faces.length ? count(faces) : "No face in view."); // not each change of a face is read out
    times.push(performance.now());
    if (times.length > FRAMES_COUNTED) times.shift();
    const rate = (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
    if (times.length > 1) $("speed").textContent = `${rate.toFixed(0)} frames per second on this device.`;
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera(status = "The camera is off.", isError = false) {
  task++;
  if (!camera) return;
  end(camera);
  camera = undefined;
  $("video").srcObject = null;
  [$("video").hidden, $("image").hidden] = [true, false];
  $("camera").textContent = "Use camera";
  clear(status, isError);
}

function end(stream) {
  for (const track of stream.getTracks()) track.stop();
}

function openFile(file) {
  if (!file) return;
  if (recognizer?.session) showImage(() => file);
  else early = file;
}

function openExample(name) {
  const [address, about] = EXAMPLES[name];
  return showImage(() => download(address), about);
}

async function download(address) {
  const response = await fetch(address).catch(() => undefined);
  if (!response?.ok) throw new Error(NO_EXAMPLE);
  return response.blob();
}

async function useNetwork(name) {
  await recognizer.use(name);
  const { model, variant } = recognizer;
  const [share, low, high] = ["accuracy", "accuracy_lo", "accuracy_hi"].map((key) => {
    return (100 * variant[key]).toFixed(1);
  });
  $("accuracy").textContent =
    `On the test images of ${model.dataset}, this network agrees with the majority of ten annotators in ` +
    `${share}% [${low}%, ${high}%] of the cases. Expect less on other photographs, ` +
    "above all where a face is small, blurred, covered or turned away. " +
    'Below the network\'s confidence threshold the answer is "unsure".';
}

async function chooseNetwork() {
  const name = $("variant").value;
  if ($("result").ariaBusy !== "true") tell(LOADING, false, true); // a search tells of itself
  try {
    await useNetwork(name);
  } catch {
    if (recognizer.wanted !== name) return;
    $("variant").value = recognizer.name; // which still answers
    stopCamera();
    return clear(NOT_LOADED, true);
  }
  if (recognizer.wanted !== name || camera) return; // another was chosen meanwhile, or the next frame shows it
  if (!$("stage").hidden) await nameFaces(++task);
  else if ($("status").textContent === LOADING) tell("");
}

$("file").onchange = () => {
  openFile($("file").files[0]);
  $("file").value = ""; // so that the same file can be opened again
};
$("camera").onclick = () => (camera ? stopCamera() : startCamera());
$("variant").onchange = chooseNetwork;
for (const name of Object.keys(EXAMPLES)) $(name).onclick = () => openExample(name);
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  openFile(event.dataTransfer.files[0]);
};
document.onpaste = (event) => openFile(event.clipboardData.files[0]);
const redraw = () => recognizer && drawBoxes($("boxes"), shown, recognizer.model.colours);
new ResizeObserver(redraw).observe($("boxes"));

try {
  recognizer = await Recognizer.load();
  const { variants, default: usual } = recognizer.model;
  for (const [name, { bytes }] of Object.entries(variants)) {
    $("variant").add(new Option(`${name}, ${(bytes / 1e6).toFixed(1)} MB`, name));
  }
  $("variant").value = usual;
  await useNetwork(usual);
  for (const control of document.querySelectorAll(":disabled")) control.disabled = false;
  await (early ? showImage(() => early) : openExample("photograph"));
} catch {
  tell(NOT_LOADED, true);
}
