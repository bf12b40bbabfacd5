// A face to the network's input and its output to probabilities, as fer_lib.models.preprocessing with OpenCV.

import { newImage, resize } from "./resampling.js";

/** Return the grey image of an RGB one, with OpenCV's weights in 15 bits. */
export function toGrey({ data, width, height }) {
  const out = newImage(width, height, 1);
  for (let i = 0, o = 0; o < out.data.length; i += 3, o++) {
    out.data[o] = (data[i] * 9798 + data[i + 1] * 19235 + data[i + 2] * 3735 + 16384) >> 15;
  }
  return out;
}

/** Return float32 (3 x size x size), normalised, all three channels from one grey face. */
export function prepare(face, { image_size: size, mean, std }) {
  const { data } = resize(face, size, size);
  const input = new Float32Array(3 * data.length);
  for (let channel = 0; channel < 3; channel++) {
    const shift = Math.fround(Math.fround(mean[channel]) * 255);
    const scale = Math.fround(Math.fround(std[channel]) * 255);
    for (let i = 0; i < data.length; i++) {
      input[channel * data.length + i] = Math.fround(data[i] - shift) / scale;
    }
  }
  return input;
}

/** Return probabilities of logits. */
export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((value) => value / sum);
}
