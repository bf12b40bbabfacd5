// From pixels to the network's input, as fer_lib.models.preprocessing does it with OpenCV, to the last bit.

/** Return grey levels (Uint8Array) of RGBA pixels, with OpenCV's weights in 15 bits. */
export function toGrey(rgba) {
  const grey = new Uint8Array(rgba.length / 4);
  for (let i = 0; i < grey.length; i++) {
    grey[i] = (rgba[4 * i] * 9798 + rgba[4 * i + 1] * 19235 + rgba[4 * i + 2] * 3735 + 16384) >> 15;
  }
  return grey;
}

/** Return the mean of each block of a square image, `factor` pixels a side: cv2.INTER_AREA. */
export function shrink(grey, side, factor) {
  const size = side / factor;
  const small = new Uint8Array(size * size);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      let sum = 0;
      for (let dy = 0; dy < factor; dy++) {
        for (let dx = 0; dx < factor; dx++) sum += grey[(y * factor + dy) * side + x * factor + dx];
      }
      small[y * size + x] = roundHalfEven(sum / (factor * factor));
    }
  }
  return small;
}

/** Return a square image enlarged to `size` pixels a side: cv2.INTER_LINEAR, in its 11-bit integers. */
export function enlarge(grey, side, size) {
  const clip = (place) => Math.min(Math.max(place, 0), side - 1);
  const taps = Array.from({ length: size }, (_, i) => {
    const place = ((i + 0.5) * side) / size - 0.5;
    const first = Math.floor(place);
    const second = roundHalfEven(Math.fround(place - first) * 2048);
    return { first, weights: [2048 - second, second] };
  });
  const large = new Uint8Array(size * size);
  taps.forEach((row, y) => {
    const lines = [clip(row.first), clip(row.first + 1)].map((line) => line * side);
    taps.forEach((column, x) => {
      // Beyond the edge the pixel at it counts alone; of rows the same one counts twice, and is cut off twice.
      const inside = column.first >= 0 && column.first < side - 1;
      const [left, right] = inside ? column.weights : [2048, 0];
      const across = lines.map(
        (line) => grey[line + clip(column.first)] * left + grey[line + clip(column.first + 1)] * right,
      );
      const [above, below] = across.map((value, i) => (row.weights[i] * (value >> 4)) >> 16);
      large[y * size + x] = (above + below + 2) >> 2;
    });
  });
  return large;
}

/** Return float32 (3 x size x size), normalised, all three channels from one grey image. */
export function normalise(grey, mean, std) {
  const input = new Float32Array(3 * grey.length);
  for (let channel = 0; channel < 3; channel++) {
    const shift = Math.fround(Math.fround(mean[channel]) * 255);
    const scale = Math.fround(Math.fround(std[channel]) * 255);
    for (let i = 0; i < grey.length; i++) {
      input[channel * grey.length + i] = Math.fround(grey[i] - shift) / scale;
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

function roundHalfEven(value) {
  const floor = Math.floor(value);
  const part = value - floor;
  if (part !== 0.5) return Math.round(value);
  return floor % 2 ? floor + 1 : floor;
}
