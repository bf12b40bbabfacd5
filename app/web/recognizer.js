// An image in, its faces and their emotions out: what fer_lib.inference.recognizer does, without a server.

import * as ort from "./ort.wasm.min.mjs";
import { cutFace } from "./alignment.js";
import { Detector } from "./detector.js";
import { prepare, softmax } from "./preprocessing.js";
import { roundHalfEven } from "./resampling.js";

ort.env.wasm.wasmPaths = new URL(".", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more would need headers that a plain folder on a web server does not send

const SEARCHED_ON_PHONES = 2_000_000; // pixels; they take 0.2 GB, Python's 8 million 0.6

export class Recognizer {
  /** Return one that can find faces; `use` chooses the network that names their emotions. */
  static async load() {
    const recognizer = new Recognizer();
    recognizer.model = await (await fetch("model.json")).json();
    recognizer.sessions = {};
    const yunet = await ort.InferenceSession.create("yunet.onnx", { enableCpuMemArena: false });
    const run = (planes, width, height) =>
      yunet.run({ input: new ort.Tensor("float32", planes, [1, 3, height, width]) });
    const isPhone = matchMedia("(pointer: coarse)").matches;
    recognizer.detector = new Detector(run, isPhone ? SEARCHED_ON_PHONES : undefined);
    return recognizer;
  }

  /** Take a variant of the model from now on. */
  async use(name) {
    this.wanted = name;
    const variant = this.model.variants[name];
    const session = (this.sessions[name] ??= await ort.InferenceSession.create(variant.file));
    if (this.wanted !== name) return; // another was chosen meanwhile
    [this.name, this.variant, this.session] = [name, variant, session]; // at once: the camera may be running
  }

  /** Return the faces of an RGB image with their emotions, given what the detector found. */
  async recognize(image, detections) {
    const faces = [];
    for (const face of detections) {
      const box = clipBox(face.box, image);
      if (!box) continue;
      const crop = cutFace(image, face.landmarks, this.model.framing);
      faces.push({ ...face, box, crop, ...(await this.classify(crop, face.inDoubt)) });
    }
    return faces;
  }

  async classify(crop, inDoubt) {
    const { session, variant } = this;
    const shape = [1, 3, variant.image_size, variant.image_size];
    const { logits } = await session.run({ image: new ort.Tensor("float32", prepare(crop, variant), shape) });
    const probabilities = softmax(logits.data);
    const confidence = Math.max(...probabilities);
    const label = this.model.emotions[probabilities.indexOf(confidence)];
    return { probabilities, confidence, label, abstained: inDoubt || confidence < variant.abstain_below };
  }
}

/** Return the box in whole pixels inside the image; undefined when nothing of it is. */
function clipBox([x, y, w, h], { width, height }) {
  const [left, top] = [Math.max(0, roundHalfEven(x)), Math.max(0, roundHalfEven(y))];
  const [right, bottom] = [Math.min(width, roundHalfEven(x + w)), Math.min(height, roundHalfEven(y + h))];
  return right > left && bottom > top ? [left, top, right - left, bottom - top] : undefined;
}
