// A face as the network's training faces are framed: fer_lib.data.framing.

import { findMean } from "./detector.js";
import { newImage, resize, roundHalfEven, transform, warp } from "./resampling.js";
import { toGrey } from "./preprocessing.js";

const SUPERSAMPLING = 2;

/** Return a face of an RGB image in grey, turned and scaled so that its landmarks lie as framed. */
export function cutFace(image, landmarks, { size, landmarks: targets }) {
  const side = size * SUPERSAMPLING;
  // Fractions count from the crop's edge, pixels from the middle of the first one.
  const wanted = targets.map(([x, y]) => [x * side - 0.5, y * side - 0.5]);
  const matrix = estimateSimilarity(landmarks, wanted);
  let back = invert(matrix);
  // Only the part of the image that is needed, made no larger than needed.
  const corners = [
    [0, 0],
    [side, 0],
    [0, side],
    [side, side],
  ].map((corner) => transform(back, corner));
  const [[left, right], [top, bottom]] = [image.width, image.height].map((length, axis) => {
    const places = corners.map((corner) => corner[axis]);
    const clip = (value, low, high) => Math.min(Math.max(value, low), high);
    const low = clip(Math.floor(Math.min(...places)) - 2, 0, length - 1);
    return [low, clip(Math.ceil(Math.max(...places)) + 2, low + 1, length)];
  });
  let region = cut(image, left, top, right - left, bottom - top);
  const shrink = Math.min(1, Math.hypot(matrix[0], matrix[3]));
  const shrunk = [region.width, region.height].map((length) => Math.max(1, roundHalfEven(length * shrink)));
  const ratio = [region.width / shrunk[0], region.height / shrunk[1]];
  region = toGrey(resize(region, ...shrunk));
  // A pixel of the shrunk region is larger: its middle lies further in.
  back = [
    ...[back[0], back[1], back[2] - left - (ratio[0] / 2 - 0.5)].map((value) => value / ratio[0]),
    ...[back[3], back[4], back[5] - top - (ratio[1] / 2 - 0.5)].map((value) => value / ratio[1]),
  ];
  return resize(warp(region, back, side, { cubic: true }), size, size);
}

/** Return the 2 x 3 matrix that turns, scales and shifts points closest to targets: Umeyama 1991. */
function estimateSimilarity(points, targets) {
  const [centre, targetCentre] = [findMean(points), findMean(targets)];
  let [cosine, sine, spread] = [0, 0, 0];
  points.forEach(([px, py], i) => {
    const [x, y] = [px - centre[0], py - centre[1]];
    const [wantedX, wantedY] = [targets[i][0] - targetCentre[0], targets[i][1] - targetCentre[1]];
    cosine += x * wantedX + y * wantedY;
    sine += x * wantedY - y * wantedX;
    spread += x * x + y * y;
  });
  [cosine, sine] = [cosine, sine].map((value) => value / Math.max(spread, 1e-6));
  if (Math.hypot(cosine, sine) < 1e-6) [cosine, sine] = [1, 0];
  const [x, y] = centre;
  return [
    ...[cosine, -sine, targetCentre[0] - cosine * x + sine * y],
    ...[sine, cosine, targetCentre[1] - sine * x - cosine * y],
  ];
}

/** Return the inverse of a 2 x 3 matrix. */
function invert([a, b, c, d, e, f]) {
  const size = a * e - b * d;
  return [e, -b, b * f - e * c, -d, a, d * c - a * f].map((value) => value / size);
}

function cut(image, left, top, width, height) {
  const out = newImage(width, height, image.channels);
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * image.width + left) * image.channels;
    out.data.set(image.data.subarray(start, start + width * image.channels), y * width * image.channels);
  }
  return out;
}
