// Faces and their landmarks by YuNet, as fer_lib.data.detector finds them; reasons for the numbers are there.
//
// A face is { box: [left, top, width, height], landmarks: five [x, y], score, turned, inDoubt }, in pixels.

import { resize, roundHalfEven, transform, turn, warp } from "./resampling.js";

const SMALLEST_FACE = 12;
const SMALLEST_SURE = 18;
const LARGEST_SEEN = 300;
const MAX_SEARCHED = 8_000_000;
const STRIDES = [8, 16, 32];
const OVERLAP = 0.3;
const MIN_SCORE = 0.7;
const CANDIDATE = 0.6;
const [PATCH_FACE, PATCH] = [210, 352];
const UPRIGHT_SCORE = 0.92;
const TURNED_SCORE = 0.8;
const TURN_MARGIN = 0.02;
const UPRIGHT = 8;

export class Detector {
  /**
   * `run` takes a Float32Array and the width and height of the image in it, and resolves to YuNet's outputs.
   * `maxSearched` are the pixels of the copy that is searched; larger images lose the smallest faces.
   */
  constructor(run, maxSearched = MAX_SEARCHED) {
    Object.assign(this, { run, maxSearched });
  }

  /** Return the faces of a photograph, the largest first. Without a surely upright one it is also turned. */
  async detect(image) {
    const faces = await this.searchUpright(image, SMALLEST_FACE);
    if (faces.some((face) => face.score >= UPRIGHT_SCORE && Math.abs(measureTilt(face.landmarks)) < 45))
      return faces;
    const turns = [faces];
    for (const quarters of [1, 2, 3]) {
      await new Promise((resolve) => setTimeout(resolve)); // the page answers in between
      const found = await this.searchUpright(turn(image, quarters), SMALLEST_FACE);
      turns.push(
        found.filter((face) => face.score >= TURNED_SCORE).map((face) => turnBack(face, quarters, image)),
      );
    }
    const totals = turns.map((found) => found.reduce((sum, face) => sum + face.score - MIN_SCORE, 0));
    const best = totals.indexOf(Math.max(...totals));
    const likely = [0, 1, 2, 3].filter((quarters) => totals[best] - totals[quarters] < TURN_MARGIN);
    const agreeing = likely.filter((quarters) => agree(turns[best], turns[quarters]));
    const inDoubt = agreeing.length < likely.length;
    return turns[agreeing[0]].map((face) => ({ ...face, turned: 90 * agreeing[0], inDoubt }));
  }

  /** Return the faces as YuNet alone finds them, the largest first: faster, with less exact landmarks. */
  async searchOnce(image, smallest) {
    return (await this.searchScales(image, smallest)).filter((face) => face.score >= MIN_SCORE);
  }

  /** Return the faces of an image that is not turned, the largest first, with exact landmarks. */
  async searchUpright(image, smallest) {
    const faces = [];
    for (const face of await this.searchScales(image, smallest)) faces.push(await this.refine(image, face));
    return faces.filter((face) => face.score >= MIN_SCORE);
  }

  async searchScales(image, smallest) {
    const { width, height } = image;
    const longest = Math.max(width, height);
    const scales = [Math.min(SMALLEST_SURE / smallest, Math.sqrt(this.maxSearched / (width * height)))];
    while (longest * scales.at(-1) > 2 * LARGEST_SEEN) {
      scales.push(Math.max(scales.at(-1) / 4, LARGEST_SEEN / longest));
    }
    const found = [];
    for (const scale of scales) found.push(...(await this.search(image, scale)));
    return dropRepeats(found).sort((one, other) => measureArea(other.box) - measureArea(one.box));
  }

  async search(image, scale) {
    const [width, height] = [image.width, image.height].map((side) =>
      Math.max(16, roundHalfEven(side * scale)),
    );
    const [across, down] = [image.width / width, image.height / height];
    return (await this.findFaces(resize(image, width, height))).map(({ box, landmarks, score }) => ({
      box: [box[0] * across, box[1] * down, box[2] * across, box[3] * down],
      landmarks: landmarks.map(([x, y]) => [x * across, y * down]),
      score,
      turned: 0,
      inDoubt: false,
    }));
  }

  /** Return the face with its landmarks found anew on an enlarged copy, turned upright step by step. */
  async refine(image, face) {
    const [left, top, width, height] = face.box;
    const [x, y] = [left + width / 2, top + height / 2];
    const scale = PATCH_FACE / Math.max(width, height);
    let { landmarks, score } = face;
    let angle = measureTilt(landmarks);
    for (let step = 0; step < 3; step++) {
      const [cosine, sine] = [Math.cos(angle * DEGREE) / scale, Math.sin(angle * DEGREE) / scale];
      const middle = PATCH / 2;
      // From the copy to the image, so that the middle of the copy is the middle of the face.
      const back = [cosine, -sine, x - (cosine - sine) * middle, sine, cosine, y - (sine + cosine) * middle];
      const found = await this.search(warp(image, back, PATCH), 1);
      if (!found.length) break;
      const distances = found.map((other) => {
        const [across, down] = findMean(other.landmarks);
        return Math.abs(across - middle) + Math.abs(down - middle);
      });
      const nearest = found[distances.indexOf(Math.min(...distances))];
      landmarks = nearest.landmarks.map((point) => transform(back, point));
      score = Math.max(score, nearest.score);
      const tilt = measureTilt(landmarks);
      if (Math.abs(tilt - angle) < UPRIGHT) break;
      angle = tilt;
    }
    return { ...face, landmarks, score };
  }

  /** Return what YuNet finds in an image as it is, best first, as cv2.FaceDetectorYN decodes it. */
  async findFaces(image) {
    const [width, height] = [image.width, image.height].map((side) => side + (-side & 31));
    const outputs = await this.run(fill(image, width, height), width, height);
    const faces = [];
    for (const stride of STRIDES) {
      const [seen, isFace, boxes, points] = ["cls", "obj", "bbox", "kps"].map(
        (kind) => outputs[`${kind}_${stride}`].data,
      );
      for (let cell = 0; cell < seen.length; cell++) {
        const score = Math.sqrt(seen[cell] * isFace[cell]);
        if (!(score >= CANDIDATE)) continue;
        const [row, column] = [Math.floor(cell / (width / stride)), cell % (width / stride)];
        const [x, y, w, h] = boxes.subarray(4 * cell, 4 * cell + 4);
        const size = [Math.exp(w) * stride, Math.exp(h) * stride];
        const corner = [(column + x) * stride - size[0] / 2, (row + y) * stride - size[1] / 2];
        const landmarks = [0, 1, 2, 3, 4].map((i) => [
          (column + points[10 * cell + 2 * i]) * stride,
          (row + points[10 * cell + 2 * i + 1]) * stride,
        ]);
        faces.push({ box: [...corner, ...size], landmarks, score });
      }
    }
    return suppress(faces);
  }
}

const DEGREE = Math.PI / 180;

/** Return YuNet's input: planes of blue, green and red, black on the right and below the image. */
function fill({ data, width, height }, across, down) {
  const input = new Float32Array(3 * across * down);
  for (let y = 0, i = 0; y < height; y++) {
    for (let o = y * across; o < y * across + width; o++, i += 3) {
      for (let plane = 0; plane < 3; plane++) input[o + plane * across * down] = data[i + 2 - plane];
    }
  }
  return input;
}

/** Return the angle of the line through the eyes in degrees: positive when the left eye is lower. */
export function measureTilt([right, left]) {
  return Math.atan2(left[1] - right[1], left[0] - right[0]) / DEGREE;
}

/** Return the best of each heap of boxes, as cv2.dnn.NMSBoxes, which cuts them to whole pixels. */
function suppress(faces) {
  const kept = [];
  for (const face of faces.sort((one, other) => other.score - one.score)) {
    const box = face.box.map(Math.trunc);
    const isNew = kept.every((other) => {
      const shared = measureOverlap(box, other.whole);
      return shared <= OVERLAP * (measureArea(box) + measureArea(other.whole) - shared);
    });
    if (isNew) kept.push({ ...face, whole: box });
  }
  return kept;
}

/** Return the best of each heap of boxes that lie mostly in each other. */
function dropRepeats(faces) {
  const kept = [];
  for (const face of faces.sort((one, other) => other.score - one.score)) {
    const isNew = kept.every(({ box }) => {
      return measureOverlap(face.box, box) <= 0.5 * Math.min(measureArea(face.box), measureArea(box));
    });
    if (isNew) kept.push(face);
  }
  return kept;
}

function measureArea([, , width, height]) {
  return width * height;
}

function measureOverlap([left, top, width, height], [otherLeft, otherTop, otherWidth, otherHeight]) {
  const across = Math.min(left + width, otherLeft + otherWidth) - Math.max(left, otherLeft);
  const down = Math.min(top + height, otherTop + otherHeight) - Math.max(top, otherTop);
  return Math.max(0, across) * Math.max(0, down);
}

/** Return a face of an image that was turned by quarters, in the pixels of the image. */
function turnBack(face, quarters, { width, height }) {
  let [left, top, across, down] = face.box;
  let { landmarks } = face;
  for (let step = quarters - 1; step >= 0; step--) {
    const side = step % 2 ? height : width;
    // A box lies on the edges of pixels, a landmark on their centres, which count from 0 to side - 1.
    [left, top, across, down] = [side - top - down, left, down, across];
    landmarks = landmarks.map(([x, y]) => [side - 1 - y, x]);
  }
  return { ...face, box: [left, top, across, down], landmarks };
}

/** Return whether the same faces were found, the same way up. */
function agree(faces, others) {
  return faces.length === others.length && faces.every((face) => others.some((other) => isSame(face, other)));
}

/** Return whether two detections are one face, the same way up. */
export function isSame(face, other) {
  const [one, two] = [findMean(face.landmarks), findMean(other.landmarks)];
  const apart = Math.max(Math.abs(one[0] - two[0]), Math.abs(one[1] - two[1]));
  const turned = measureTilt(face.landmarks) - measureTilt(other.landmarks);
  const tilt = Math.abs(turned - 360 * Math.round(turned / 360));
  return apart < Math.min(face.box[2], face.box[3]) / 3 && tilt < 45;
}

/** Return the mean of points. */
export function findMean(points) {
  return [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
}
