// Images at other sizes and angles, as OpenCV makes them.
//
// An image is { data, width, height, channels }, its data a Uint8Array of grey levels or of RGB.

/** Return an image of another size, as cv2.resize: the mean of an area when it shrinks, else linear. */
export function resize(image, width, height) {
  if (width === image.width && height === image.height) return image;
  const shrinks = image.width >= width && image.height >= height;
  return shrinks ? average(image, width, height) : interpolate(image, width, height);
}

/** Return a smaller image: cv2.INTER_AREA, which rounds a half up where it halves the image, else to even. */
function average(image, width, height) {
  const { data, channels } = image;
  const columns = findShares(image.width, width);
  const rows = findShares(image.height, height);
  const round = image.width === 2 * width && image.height === 2 * height ? Math.round : roundHalfEven;
  const out = newImage(width, height, channels);
  const across = width * channels;
  const line = new Float32Array(across);
  for (let y = 0; y < height; y++) {
    const sums = new Float32Array(across);
    for (const [row, rowShare] of rows[y]) {
      const start = row * image.width * channels;
      for (let x = 0, i = 0; x < width; x++) {
        for (let c = 0; c < channels; c++, i++) {
          let sum = 0;
          for (const [column, share] of columns[x]) sum += data[start + column * channels + c] * share;
          line[i] = sum;
        }
      }
      for (let i = 0; i < across; i++) sums[i] += line[i] * rowShare;
    }
    for (let i = 0; i < across; i++) out.data[y * across + i] = round(sums[i]);
  }
  return out;
}

/** Return, for each of `to` places, the pixels of `from` that it covers, and their shares of it. */
function findShares(from, to) {
  const scale = from / to;
  return Array.from({ length: to }, (_, place) => {
    const [start, end] = [place * scale, Math.min((place + 1) * scale, from)];
    const shares = [];
    for (let pixel = Math.floor(start); pixel < end; pixel++) {
      const part = Math.min(pixel + 1, end) - Math.max(pixel, start);
      if (part > 1e-3) shares.push([pixel, Math.fround(part / (end - start))]);
    }
    return shares;
  });
}

/** Return a larger image: cv2.INTER_LINEAR, in its 11-bit integers. */
function interpolate(image, width, height) {
  const { data, channels } = image;
  const columns = findTaps(image.width, width);
  const rows = findTaps(image.height, height);
  const out = newImage(width, height, channels);
  const stretch = (row) => {
    const line = new Int32Array(width * channels);
    for (let x = 0, i = 0; x < width; x++) {
      const { first, second, weight } = columns[x];
      // Beyond the edge the pixel at it counts alone; a row there counts twice, and is cut off twice.
      const right = first === second ? 0 : weight;
      const [a, b] = [(row * image.width + first) * channels, (row * image.width + second) * channels];
      for (let c = 0; c < channels; c++, i++)
        line[i] = (data[a + c] * (2048 - right) + data[b + c] * right) >> 4;
    }
    return line;
  };
  const lines = new Map(); // the last two rows, each of which serves several
  const get = (row) => {
    if (!lines.has(row)) {
      if (lines.size > 1) lines.delete(lines.keys().next().value);
      lines.set(row, stretch(row));
    }
    return lines.get(row);
  };
  rows.forEach(({ first, second, weight }, y) => {
    const [above, below] = [get(first), get(second)];
    for (let i = 0, o = y * above.length; i < above.length; i++, o++) {
      out.data[o] = (((above[i] * (2048 - weight)) >> 16) + ((below[i] * weight) >> 16) + 2) >> 2;
    }
  });
  return out;
}

/** Return, for each of `to` places, the two pixels of `from` around it and the second's weight in 2048ths. */
function findTaps(from, to) {
  const clip = (pixel) => Math.min(Math.max(pixel, 0), from - 1);
  return Array.from({ length: to }, (_, i) => {
    const place = Math.fround(((i + 0.5) * from) / to - 0.5);
    const first = Math.floor(place);
    return {
      first: clip(first),
      second: clip(first + 1),
      weight: roundHalfEven(Math.fround(place - first) * 2048),
    };
  });
}

/** Return a square image whose pixels are the image's at the places to which a 2 x 3 matrix takes theirs. */
export function warp(image, back, side, { cubic = false } = {}) {
  const { data, width, height, channels } = image;
  const [a, b, c, d, e, f] = back;
  const out = newImage(side, side, channels);
  const weigh = cubic ? weighCubic : weighLinear;
  const reach = cubic ? 1 : 0; // pixels before and after the two around the place
  const taps = 2 + 2 * reach;
  const columns = new Int32Array(taps);
  for (let y = 0, o = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const [u, v] = [locate(a * x, b * y + c), locate(d * x, e * y + f)];
      const [left, top] = [Math.floor(u), Math.floor(v)];
      const [across, down] = [weigh(u - left), weigh(v - top)];
      for (let i = 0; i < taps; i++)
        columns[i] = Math.min(Math.max(left + i - reach, 0), width - 1) * channels;
      for (let channel = 0; channel < channels; channel++, o++) {
        let sum = 0;
        for (let j = 0; j < taps; j++) {
          const row = Math.min(Math.max(top + j - reach, 0), height - 1) * width * channels + channel;
          let line = 0;
          for (let i = 0; i < taps; i++) line += data[row + columns[i]] * across[i];
          sum += line * down[j];
        }
        out.data[o] = Math.min(Math.max(Math.round(sum), 0), 255);
      }
    }
  }
  return out;
}

/** Return a sum of two to a 32nd of a pixel, as cv2.warpAffine does: each is rounded to a 1024th first. */
function locate(along, start) {
  return ((Math.round(along * 1024) + Math.round(start * 1024) + 16) >> 5) / 32;
}

function weighLinear(part) {
  return [1 - part, part];
}

function weighCubic(part) {
  const near = (x) => (1.25 * x - 2.25) * x * x + 1;
  const far = (x) => ((-0.75 * x + 3.75) * x - 6) * x + 3;
  return [far(part + 1), near(part), near(1 - part), far(2 - part)];
}

/** Return an image turned by so many quarters, anticlockwise, as numpy.rot90. */
export function turn(image, quarters) {
  const { data, width, height, channels } = image;
  const out = quarters % 2 ? newImage(height, width, channels) : newImage(width, height, channels);
  const [right, bottom] = [width - 1, height - 1];
  const find = [
    (x, y) => [x, y],
    (x, y) => [right - y, x],
    (x, y) => [right - x, bottom - y],
    (x, y) => [y, bottom - x],
  ];
  for (let y = 0, o = 0; y < out.height; y++) {
    for (let x = 0; x < out.width; x++) {
      const [column, row] = find[quarters](x, y);
      for (let c = 0; c < channels; c++, o++) out.data[o] = data[(row * width + column) * channels + c];
    }
  }
  return out;
}

/** Return the point that a 2 x 3 matrix takes a point to. */
export function transform([a, b, c, d, e, f], [x, y]) {
  return [a * x + b * y + c, d * x + e * y + f];
}

/** Return a black image. */
export function newImage(width, height, channels) {
  return { data: new Uint8Array(width * height * channels), width, height, channels };
}

/** Return a number rounded as Python and OpenCV do. */
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor & 1) : Math.round(value);
}
