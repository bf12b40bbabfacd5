"""What is predicted for a face: plain values, without a network."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Emotion:
    """The network's prediction for one crop."""

    probabilities: dict[str, float]
    """By emotion, calibrated, summing to 1."""
    label: str
    """The most likely emotion."""
    confidence: float
    """Its probability."""
    group: str
    """That of the label: positive, negative, neutral or, where the label is no emotion, other."""
    abstained: bool
    """Whether the label should not be relied on: the confidence is under the model's threshold or, in an
    image, which way up the face is stays in doubt."""


@dataclass(frozen=True)
class Face(Emotion):
    """One face in an image, and the network's prediction for it."""

    box: tuple[int, int, int, int]
    """Left, top, width, height in whole pixels, inside the image."""
    landmarks: np.ndarray = field(repr=False, compare=False)
    """float32 (5, 2), x and y in pixels, in the order of `detector.LANDMARKS`."""
    detection_score: float
    """From 0 to 1."""
    turned: int
    """Degrees, anticlockwise, by which the image was turned to find the face: 0, 90, 180 or 270."""
    crop: np.ndarray = field(repr=False, compare=False)
    """What the network saw, uint8 (S, S) or (S, S, 3)."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the crop."""
        return {
            "box": list(self.box),
            "landmarks": [[round(float(value), 1) for value in point] for point in self.landmarks],
            "detection_score": round(self.detection_score, 4),
            "turned": self.turned,
            "label": self.label,
            "confidence": round(self.confidence, 4),
            "group": self.group,
            "abstained": self.abstained,
            "probabilities": {name: round(value, 4) for name, value in self.probabilities.items()},
        }


def clip_box(box: tuple[float, ...], width: int, height: int) -> tuple[int, int, int, int] | None:
    """Return the box in whole pixels inside the image; None when nothing of it is."""
    left, top = max(0, round(box[0])), max(0, round(box[1]))
    right, bottom = min(width, round(box[0] + box[2])), min(height, round(box[1] + box[3]))
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None
