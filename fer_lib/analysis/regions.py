"""Where the parts of a face lie: soft masks around landmarks, and which of them an emotion rests on.

Drawn faces know the regions that their action units deform; photographs have landmarks only. Both are looked
at through the same five parts, so that a map of attention can be read as a table.
"""

from collections.abc import Mapping

import numpy as np

from fer_lib.data.detector import Detector
from fer_lib.data.framing import FER2013_FRAMING, find_landmarks
from fer_lib.data.packed import PackedDataset

PARTS: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "brows": ((-0.5, -0.38, 0.42, 0.2), (0.5, -0.38, 0.42, 0.2)),
    "eyes": ((-0.5, 0.0, 0.36, 0.2), (0.5, 0.0, 0.36, 0.2)),
    "nose": ((0.0, 0.5, 0.3, 0.42),),
    "cheeks": ((-0.72, 0.62, 0.3, 0.36), (0.72, 0.62, 0.3, 0.36)),
    "mouth": ((0.0, 1.1, 0.52, 0.3),),
    "chin": ((0.0, 1.55, 0.5, 0.22),),
}
"""Ellipses: middle x, y and half axes, in eye distances from the middle of the eyes, y down the face."""

BACKGROUND, REST = "background", "rest of the face"
FACE = (0.0, 0.55, 1.12, 1.42)
"""The whole face as an ellipse in the same units; outside it is background."""

ACTIVE_PARTS: Mapping[str, tuple[str, ...]] = {
    "angry": ("brows", "eyes", "mouth"),
    "disgust": ("brows", "eyes", "nose", "mouth", "chin"),
    "fear": ("brows", "eyes", "mouth", "chin"),
    "happy": ("eyes", "cheeks", "mouth"),
    "sad": ("brows", "mouth"),
    "surprise": ("brows", "eyes", "mouth", "chin"),
    "neutral": ("brows", "eyes", "mouth"),
    "contempt": ("cheeks", "mouth"),
}
"""Parts that the action units of an emotion's prototype move (EMFACS); neutral's: where others show."""


def locate_landmarks(data: PackedDataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return landmarks, float64 (N, 5, 2) as fractions of the side, and bool (N,): whether YuNet found them.

    Where it finds no face, the landmarks are the medians of the faces in which it does; where it finds
    none at all, those of FER2013.
    """
    detector = Detector(min_score=0.6)
    found = [find_landmarks(data.faces[row], detector) for row in rows]
    is_found = np.array([points is not None for points in found], dtype=bool)
    known = [points for points in found if points is not None]
    typical = np.median(known, axis=0) if known else np.array(FER2013_FRAMING.landmarks)
    return np.array([typical if points is None else points for points in found], np.float64), is_found


def build_part_masks(landmarks: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Return part to bool (size, size); every pixel is in exactly one: a part, `REST` or `BACKGROUND`.

    landmarks: float (5, 2), fractions of the side. A pixel in two parts is given to the one listed first.
    """
    grid = (np.indices((size, size))[::-1].transpose(1, 2, 0) + 0.5) / size
    left, right = landmarks[:2]
    across = right - left
    distance = max(float(np.hypot(*across)), 1e-3)
    axes = np.array([across / distance, [-across[1] / distance, across[0] / distance]])
    points = (grid - (left + right) / 2) @ axes.T / distance
    taken = np.zeros((size, size), bool)
    masks = {}
    for part, ellipses in PARTS.items():
        inside = np.logical_or.reduce([_fill(points, ellipse) for ellipse in ellipses])
        masks[part] = inside & ~taken
        taken |= inside
    face = _fill(points, FACE)
    masks[REST] = face & ~taken
    masks[BACKGROUND] = ~face & ~taken
    return masks


def build_active_mask(masks: Mapping[str, np.ndarray], emotion: str) -> np.ndarray:
    """Return bool (size, size): the parts that an emotion rests on, of `build_part_masks`."""
    return np.logical_or.reduce([masks[part] for part in ACTIVE_PARTS[emotion]])


def _fill(points: np.ndarray, ellipse: tuple[float, float, float, float]) -> np.ndarray:
    x, y, half_width, half_height = ellipse
    return ((points[..., 0] - x) / half_width) ** 2 + ((points[..., 1] - y) / half_height) ** 2 <= 1
