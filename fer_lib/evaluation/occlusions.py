"""Draw what may cover a face where its landmarks are: glasses, a mask, a hand, blocks.

All functions take a face, uint8 (H, W) grey or (H, W, 3) RGB, and its landmarks, float (5, 2), pixels, in
the order of `detector.LANDMARKS`; they return a new face. Edges are smooth, so a small change of a level
changes a face little.
"""

from collections.abc import Callable

import cv2
import numpy as np

SMOOTHING = 4
"""Shapes are drawn at so many times the face's size, then averaged."""

_FRAME, _LENS, _FABRIC = 30, 25, (150, 190, 215)
"""Grey levels of a frame and of dark glass; RGB of a surgical mask."""


def wear_glasses(face: np.ndarray, landmarks: np.ndarray, thickness: float) -> np.ndarray:
    """Draw round spectacles. thickness: of the rim, as a share of the distance between the eyes."""
    axes = _Axes(landmarks)

    def draw(canvas: np.ndarray, scale: float) -> None:
        line = max(1, round(thickness * axes.eye_distance * scale))
        for centre, radii in axes.lenses():
            _ellipse(canvas, centre * scale, radii * scale, axes.angle, line)
        for start, end in axes.bridge_and_temples():
            _line(canvas, start * scale, end * scale, line)

    return _blend(face, _draw_mask(face, draw), _FRAME)


def wear_sunglasses(face: np.ndarray, landmarks: np.ndarray, opacity: float) -> np.ndarray:
    """Put dark glass before the eyes. opacity: 0 is clear, 1 is opaque."""
    axes = _Axes(landmarks)

    def draw(canvas: np.ndarray, scale: float) -> None:
        for centre, radii in axes.lenses():
            _ellipse(canvas, centre * scale, radii * scale, axes.angle, -1)

    return _blend(face, opacity * _draw_mask(face, draw), _LENS)


def wear_mask(face: np.ndarray, landmarks: np.ndarray, share: float) -> np.ndarray:
    """Cover the face from the chin up. share: of the way from the chin to the bridge of the nose."""
    axes = _Axes(landmarks)
    chin, bridge = axes.place(0, 1.7), axes.place(0, 0.35)
    top = chin + share * (bridge - chin)
    half = 1.25 * axes.eye_distance * axes.right
    slack = 0.35 * axes.eye_distance * axes.down
    below = chin + 0.3 * axes.eye_distance * axes.down  # under the chin, which most crops leave out
    corners = [top - half + slack, top, top + half + slack, below + 0.8 * half, below - 0.8 * half]

    def draw(canvas: np.ndarray, scale: float) -> None:
        _polygon(canvas, np.array(corners) * scale)

    return _blend(face, _draw_mask(face, draw), _FABRIC)


def occlude_hand(face: np.ndarray, landmarks: np.ndarray, share: float, side: int) -> np.ndarray:
    """Lay a hand over a cheek and the mouth. share: of the face's width that it covers; side: -1 or 1.

    Its colour is the median of the face's middle.
    """
    axes = _Axes(landmarks)
    width = 2.4 * axes.eye_distance
    radii = np.array([share * width / 2, 0.9 * axes.eye_distance])
    centre = axes.place(side * (1.2 - share * 1.2), 1.15)
    height, width = face.shape[:2]
    middle = face[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3]
    colour = np.median(middle.reshape(-1, *face.shape[2:]), axis=0)

    def draw(canvas: np.ndarray, scale: float) -> None:
        _ellipse(canvas, centre * scale, radii * scale, axes.angle, -1)

    # A little darker than the skin behind it, or it could not be told from a cheek.
    return _blend(face, _draw_mask(face, draw), 0.85 * colour)


def cutout(face: np.ndarray, landmarks: np.ndarray, side: float, which: int) -> np.ndarray:
    """Hide a square of mid-grey about landmark `which`. side: as a share of the face's side."""
    half = side * face.shape[0] / 2
    corners = landmarks[which] + half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])

    def draw(canvas: np.ndarray, scale: float) -> None:
        _polygon(canvas, corners * scale)

    return _blend(face, _draw_mask(face, draw), 128)


class _Axes:
    """The face's own axes: the middle of the eyes, the unit vectors to the right and down, and its scale."""

    def __init__(self, landmarks: np.ndarray):
        left, right = landmarks[:2].astype(float)
        self.origin = (left + right) / 2
        self.eyes = (left, right)
        across = right - left
        self.eye_distance = max(float(np.hypot(*across)), 1.0)
        self.right = across / self.eye_distance
        self.down = np.array([-self.right[1], self.right[0]])
        self.angle = float(np.degrees(np.arctan2(across[1], across[0])))

    def place(self, x: float, y: float) -> np.ndarray:
        """Return the pixel so many eye distances to the right of and below the middle of the eyes."""
        return self.origin + self.eye_distance * (x * self.right + y * self.down)

    def lenses(self) -> list[tuple[np.ndarray, np.ndarray]]:
        radii = self.eye_distance * np.array([0.4, 0.33])
        return [(eye + 0.05 * self.eye_distance * self.down, radii) for eye in self.eyes]

    def bridge_and_temples(self) -> list[tuple[np.ndarray, np.ndarray]]:
        ends = [(-0.12, 0.0, 0.12, 0.0), (-0.9, 0.0, -1.3, -0.05), (0.9, 0.0, 1.3, -0.05)]
        return [(self.place(x0, y0), self.place(x1, y1)) for x0, y0, x1, y1 in ends]


def _draw_mask(face: np.ndarray, draw: Callable[[np.ndarray, float], None]) -> np.ndarray:
    """Return float32 (H, W) in 0..1: how much of each pixel a shape covers."""
    height, width = face.shape[:2]
    canvas = np.zeros((height * SMOOTHING, width * SMOOTHING), np.uint8)
    draw(canvas, SMOOTHING)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _blend(face: np.ndarray, cover: np.ndarray, colour: float | tuple | np.ndarray) -> np.ndarray:
    if face.ndim == 3:
        cover = cover[..., None]
    elif np.size(colour) == 3:
        colour = float(np.dot(colour, (0.299, 0.587, 0.114)))  # ITU-R BT.601
    return ((1 - cover) * face + cover * np.asarray(colour)).round().astype(np.uint8)


def _ellipse(canvas: np.ndarray, centre: np.ndarray, radii: np.ndarray, angle: float, line: int) -> None:
    cv2.ellipse(canvas, _round(centre), _round(np.maximum(radii, 0)), angle, 0, 360, 255, line)


def _line(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, line: int) -> None:
    cv2.line(canvas, _round(start), _round(end), 255, line)


def _polygon(canvas: np.ndarray, corners: np.ndarray) -> None:
    cv2.fillPoly(canvas, [np.round(corners).astype(np.int32)], 255)


def _round(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))
