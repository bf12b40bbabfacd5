"""Measure how a data set frames its faces, and cut a face out of an image in just that way."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from fer_lib.data.detector import CANDIDATE, Detector

SUPERSAMPLING = 2
"""Crops are warped at so many times their size, then averaged: at their own size they would alias or blur."""


@dataclass(frozen=True)
class Framing:
    """Where the landmarks of an upright face lie in a crop, and what the crop is; stored in a checkpoint.

    Parameters
    ----------
    size
        Side of the crop in pixels, that of the training faces.
    channels
        1 grey, 3 RGB.
    landmarks
        Five points (x, y) as fractions of the side, in the order of `detector.LANDMARKS`.
    """

    size: int
    channels: int
    landmarks: tuple[tuple[float, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        landmarks = [[round(float(value), 4) for value in point] for point in self.landmarks]
        return {"size": self.size, "channels": self.channels, "landmarks": landmarks}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Framing":
        """Return the object that `to_dict` described."""
        return cls(values["size"], values["channels"], tuple(tuple(point) for point in values["landmarks"]))


FER2013_FRAMING = Framing(
    48, 1, ((0.3077, 0.3791), (0.6923, 0.3791), (0.5, 0.5879), (0.3421, 0.7484), (0.6579, 0.7484))
)
"""As `measure_framing` finds it on FER2013; for checkpoints that do not say how their faces were framed."""


def measure_framing(faces: np.ndarray) -> Framing | None:
    """Return the typical framing of a data set's faces, or None where hardly a face is found in them.

    The landmarks are the medians over the faces, made symmetric: of the ways of cutting faces out that
    `benchmarks/framing.py` compares, the best on FER2013's validation split.

    faces: a sample, uint8 (N, S, S) grey or (N, S, S, 3) RGB; some hundreds are enough.
    """
    detector = Detector(min_score=CANDIDATE)
    landmarks = [found for face in faces if (found := find_landmarks(face, detector)) is not None]
    if len(landmarks) < max(1, 0.2 * len(faces)):
        return None
    median = np.median(landmarks, axis=0)
    mirrored = median[[1, 0, 2, 4, 3]] * [-1, 1] + [1, 0]
    points = (median + mirrored) / 2
    return Framing(faces.shape[1], 1 if faces.ndim == 3 else 3, tuple(map(tuple, points.tolist())))


def find_landmarks(face: np.ndarray, detector: Detector) -> np.ndarray | None:
    """Return the landmarks of a square cropped face, float (5, 2), fractions of the side; None: not found."""
    side = 288  # YuNet's landmarks are exact from faces of some 200 pixels on
    enlarged = cv2.resize(np.ascontiguousarray(face), (side, side), interpolation=cv2.INTER_LINEAR)
    if enlarged.ndim == 2:
        enlarged = cv2.cvtColor(enlarged, cv2.COLOR_GRAY2RGB)
    found = detector.search(enlarged, min_face=side / 4)
    return found[0].landmarks / side if found else None


def cut_face(image: np.ndarray, landmarks: np.ndarray, framing: Framing) -> np.ndarray:
    """Return the face as the training data frame it.

    The image is turned, scaled and shifted so that the landmarks come closest to the framing's; what lies
    outside the image repeats its edge.

    Parameters
    ----------
    image
        uint8 (H, W, 3) RGB.
    landmarks
        float (5, 2), pixels.

    Returns
    -------
    uint8 (size, size) grey or (size, size, 3) RGB
    """
    side = framing.size * SUPERSAMPLING
    # Fractions count from the crop's edge, pixels from the middle of the first one.
    matrix = estimate_similarity(landmarks, np.array(framing.landmarks) * side - 0.5)
    # Only the part of the image that is needed, made no larger than needed.
    back = cv2.invertAffineTransform(matrix)
    corners = np.array([[0, 0], [side, 0], [0, side], [side, side]]) @ back[:, :2].T + back[:, 2]
    height, width = image.shape[:2]
    low = np.clip(np.floor(corners.min(axis=0)) - 2, 0, [width - 1, height - 1]).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 2, low + 1, [width, height]).astype(int)
    region = image[low[1] : high[1], low[0] : high[0]]
    matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ low])
    shrink = float(np.hypot(*matrix[:, 0]))
    if shrink < 1:
        size = np.maximum(1, np.round((high - low) * shrink)).astype(int)
        region = cv2.resize(region, size.tolist(), interpolation=cv2.INTER_AREA)
        ratio = (high - low) / size
        matrix = np.column_stack([matrix[:, :2] * ratio, matrix[:, 2] + matrix[:, :2] @ (ratio / 2 - 0.5)])
    if framing.channels == 1:
        region = cv2.cvtColor(region, cv2.COLOR_RGB2GRAY)
    warped = cv2.warpAffine(
        region, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return cv2.resize(warped, (framing.size, framing.size), interpolation=cv2.INTER_AREA)


def estimate_similarity(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the float64 (2, 3) matrix that turns, scales and shifts points (N, 2) closest to targets (N, 2).

    Least squares: Umeyama 1991, in two dimensions and without reflection. Points that all coincide are moved
    and not scaled.
    """
    centre, target_centre = points.mean(axis=0), targets.mean(axis=0)
    moved, wanted = points - centre, targets - target_centre
    spread = max(float((moved**2).sum()), 1e-6)
    cosine = float((moved * wanted).sum()) / spread
    sine = float((moved[:, 0] * wanted[:, 1] - moved[:, 1] * wanted[:, 0]).sum()) / spread
    if np.hypot(cosine, sine) < 1e-6:
        cosine, sine = 1.0, 0.0
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, target_centre - turn @ centre])


def fit_image(image: np.ndarray, size: int, channels: int) -> np.ndarray:
    """Return an image, (H, W) or RGB (H, W, 3), as faces are packed: uint8 (size, size) or (size, size, 3).

    In this order: centre crop to a square; colour to grey by OpenCV's luma weights (ITU-R BT.601), or grey
    to three equal channels; resize with INTER_AREA when shrinking, INTER_CUBIC when enlarging.
    """
    image = _crop_square(image)
    if image.ndim == 3 and channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    elif image.ndim == 2 and channels == 3:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return _resize(image, size)


def fit_regions(regions: np.ndarray, size: int) -> np.ndarray:
    """Return a bool mask cropped and resized as its image is, as bool (size, size)."""
    return _resize(_crop_square(regions).astype(np.uint8) * 255, size) > 127


def _crop_square(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[0] == size:
        return image
    shrinking = image.shape[0] > size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)
