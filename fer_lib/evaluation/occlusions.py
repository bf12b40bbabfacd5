"""Draw what may cover a face where its landmarks are: glasses, a mask, a hand, blocks.

Each function is a perturbation, as those of `perturbations`, which say what a face and a `Sample` are.
"""

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from fer_lib.evaluation.perturbations import Sample

SMOOTHING = 4
"""Shapes are drawn at so many times the face's size, then averaged: with smooth edges, a small change of a
level changes a face little."""


def wear_glasses(face: np.ndarray, rim: float, sample: "Sample") -> np.ndarray:
    """Draw round spectacles; the rim is a share of the distance between the eyes."""
    cover = _Cover(face, sample)
    line = max(1, round(rim * cover.eye_distance * SMOOTHING))
    cover.draw_lenses(line)
    bridge_and_temples = [(-0.12, 0.0, 0.12, 0.0), (-0.9, 0.0, -1.3, -0.05), (0.9, 0.0, 1.3, -0.05)]
    for x0, y0, x1, y1 in bridge_and_temples:
        cv2.line(cover.canvas, _round(cover.place(x0, y0)), _round(cover.place(x1, y1)), 255, line)
    return cover.lay(face, 30)


def wear_sunglasses(face: np.ndarray, opacity: float, sample: "Sample") -> np.ndarray:
    """Put dark glass before the eyes; at 0 it is clear, at 1 opaque."""
    cover = _Cover(face, sample)
    cover.draw_lenses(cv2.FILLED)
    return cover.lay(face, 25, opacity)


def wear_mask(face: np.ndarray, share: float, sample: "Sample") -> np.ndarray:
    """Put on a surgical mask that covers this share of the way from the chin to the bridge of the nose."""
    cover = _Cover(face, sample)
    chin, bridge = cover.place(0, 1.7), cover.place(0, 0.35)
    top = chin + share * (bridge - chin)
    half = 1.25 * cover.eye_distance * cover.right
    slack = 0.35 * cover.eye_distance * cover.down
    below = chin + 0.3 * cover.eye_distance * cover.down  # under the chin, which most crops leave out
    corners = [top - half + slack, top, top + half + slack, below + 0.8 * half, below - 0.8 * half]
    cover.draw_polygon(np.array(corners))
    return cover.lay(face, (150, 190, 215))


def occlude_hand(face: np.ndarray, share: float, sample: "Sample") -> np.ndarray:
    """Lay a hand over one cheek, at random, and the mouth; it covers this share of the face's width."""
    cover = _Cover(face, sample)
    width, side = 2.4 * cover.eye_distance, sample.draw_sign("hand")
    radii = np.array([share * width / 2, 0.9 * cover.eye_distance])
    cover.draw_ellipse(cover.place(side * (1.2 - share * 1.2), 1.15), radii, cv2.FILLED)
    height, width = face.shape[:2]
    middle = face[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3]
    skin = np.median(middle.reshape(-1, *face.shape[2:]), axis=0)
    return cover.lay(face, 0.85 * skin)  # a little darker, or it could not be told from a cheek


def cutout(face: np.ndarray, side: float, sample: "Sample") -> np.ndarray:
    """Hide a square of mid-grey about a landmark drawn at random; its side is a share of the face's."""
    which = int(sample.build_generator("block").integers(len(sample.landmarks)))
    half = side * face.shape[0] / 2
    cover = _Cover(face, sample)
    cover.draw_polygon(sample.landmarks[which] + half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]))
    return cover.lay(face, 128)


class _Cover:
    """A canvas for what is to cover a face, and the face's own axes: to the right and down, and its scale.

    `canvas` is uint8, `SMOOTHING` times the face's size and 255 where the face is covered.
    """

    def __init__(self, face: np.ndarray, sample: "Sample"):
        height, width = face.shape[:2]
        self.canvas = np.zeros((height * SMOOTHING, width * SMOOTHING), np.uint8)
        self.eyes = sample.landmarks[:2].astype(float)
        across = self.eyes[1] - self.eyes[0]
        self.eye_distance = max(float(np.hypot(*across)), 1.0)
        self.right = across / self.eye_distance
        self.down = np.array([-self.right[1], self.right[0]])
        self.angle = float(np.degrees(np.arctan2(across[1], across[0])))

    def place(self, x: float, y: float) -> np.ndarray:
        """Return the pixel so many eye distances to the right of and below the middle of the eyes."""
        return (self.eyes[0] + self.eyes[1]) / 2 + self.eye_distance * (x * self.right + y * self.down)

    def draw_ellipse(self, centre: np.ndarray, radii: np.ndarray, line: int) -> None:
        axes = _round(np.maximum(radii, 0))
        cv2.ellipse(self.canvas, _round(centre), axes, self.angle, 0, 360, 255, line)

    def draw_polygon(self, corners: np.ndarray) -> None:
        cv2.fillPoly(self.canvas, [np.round(corners * SMOOTHING).astype(np.int32)], 255)

    def draw_lenses(self, line: int) -> None:
        for eye in self.eyes:
            centre = eye + 0.05 * self.eye_distance * self.down
            self.draw_ellipse(centre, self.eye_distance * np.array([0.4, 0.33]), line)

    def lay(self, face: np.ndarray, colour: float | tuple | np.ndarray, opacity: float = 1.0) -> np.ndarray:
        """Return the face under what was drawn, in a grey level or RGB."""
        height, width = face.shape[:2]
        smooth = cv2.resize(self.canvas, (width, height), interpolation=cv2.INTER_AREA)
        cover = opacity * (smooth.astype(np.float32) / 255)
        if face.ndim == 3:
            cover = cover[..., None]
        elif np.size(colour) == 3:
            colour = float(np.dot(colour, (0.299, 0.587, 0.114)))  # ITU-R BT.601
        return ((1 - cover) * face + cover * np.asarray(colour)).round().astype(np.uint8)


def _round(point: np.ndarray) -> tuple[int, int]:
    x, y = (point * SMOOTHING).tolist()
    return round(x), round(y)
