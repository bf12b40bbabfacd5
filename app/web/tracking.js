// The faces in the camera's frames, one after the other: in short what fer_lib.inference.tracking does.

import { isSame } from "./detector.js";

const REFINE_AFTER = 1000; // milliseconds that exact landmarks of a face are used, moved along with its box
const [SMALLEST_SHARE, SMALLEST] = [0.075, 24];

export class Tracker {
  constructor(detector) {
    [this.detector, this.faces] = [detector, []];
  }

  /** Return the faces of the next frame, the largest first; the landmarks of one of them are found anew. */
  async follow(frame) {
    const smallest = Math.max(SMALLEST, SMALLEST_SHARE * Math.min(frame.width, frame.height));
    const found = await this.detector.searchOnce(frame, smallest);
    const now = performance.now();
    const faces = found.map((face) => {
      const { refined = -Infinity, shares } = this.faces.find((other) => isSame(face, other)) ?? {};
      return { ...face, refined, shares };
    });
    const due = faces.toSorted((one, other) => one.refined - other.refined)[0];
    if (due && now - due.refined >= REFINE_AFTER) {
      const [left, top, width, height] = due.box;
      const { landmarks } = await this.detector.refine(frame, due);
      due.shares = landmarks.map(([x, y]) => [(x - left) / width, (y - top) / height]);
      due.refined = now;
    }
    for (const face of faces) {
      const [left, top, width, height] = face.box;
      if (face.shares) face.landmarks = face.shares.map(([x, y]) => [left + x * width, top + y * height]);
    }
    return (this.faces = faces);
  }
}
