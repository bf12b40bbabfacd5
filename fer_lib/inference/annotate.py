"""Show recognised faces as boxes and labels on an image, or as rows of a table. Needs no torch."""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from fer_lib.inference.faces import Face
from fer_lib.palette import choose_colours

UNSURE_COLOUR = "#E1E1E1"
"""Of a face whose emotion the model will not name; no emotion's."""

COLUMNS = (
    *("source", "face", "left", "top", "width", "height"),
    *("detection_score", "turned", "label", "confidence", "group", "abstained"),
)
"""The first columns of every table of faces; one for each emotion follows, its probability."""

TEXT_PIXELS = 22
"""Height of a letter at scale 1."""

SMALLEST_TEXT = 0.38
"""Scale: letters of 8 pixels."""

LABEL_WIDTH = 220
"""Pixels, at scale 1, of a long label: those of equal faces are of equal size whatever they say."""

HIDDEN_CELLS = 5
"""Blurred, a face and its margin keep so many cells a side: three across the face show no features."""

HIDDEN_MARGIN = np.array([-0.3, -0.35, 0.3, 0.2])
"""Left, top, right and below, as shares of the box: hair, ears and chin give a person away too."""


def draw_faces(image: np.ndarray, faces: Sequence[Face], blur: bool = False) -> np.ndarray:
    """Return a copy of an image, uint8 (H, W, 3) RGB, with a box and the label of `name_face` on every face.

    `blur` makes every face unrecognisable, hair and chin included; boxes and labels stay.
    """
    scene = np.array(image, order="C")
    if blur:
        for face in faces:
            _hide(scene, face.box)
    for face in reversed(faces):  # the largest comes first in the list, and should lie on top
        _draw_box(scene, face)
    if faces:
        _draw_labels(scene, faces)
    return scene


def name_face(face: Face) -> str:
    """Return the label of a face in ASCII: `happy 84%`, `unsure 43%`, `#3 happy 84%` if followed."""
    track = getattr(face, "track", None)
    number = "" if track is None else f"#{track} "
    return f"{number}{'unsure' if face.abstained else face.label} {100 * face.confidence:.0f}%"


def choose_ink(colour: str) -> str:
    """Return black or white, whichever stands out more from a hex colour (WCAG 2.2, relative luminance)."""
    channels = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    linear = [((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else c / 255 / 12.92 for c in channels]
    luminance = float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#FFFFFF"


def build_rows(source: str, faces: Sequence[Face]) -> list[dict[str, Any]]:
    """Return a row of a table for each face, rounded as in `Face.to_dict`, and counted from 1."""
    rows = []
    for number, face in enumerate(faces, start=1):
        values = face.to_dict() | {"source": source, "face": number}
        values |= zip(("left", "top", "width", "height"), face.box, strict=True)
        rows.append({name: values[name] for name in COLUMNS} | values["probabilities"])
    return rows


def place_labels(sizes: np.ndarray, faces: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return where labels go: inside the image, on no other label, and on no face where it can be helped.

    sizes: int (N, 2), width and height of each label, no larger than the image.
    faces: int (N, 4), the box of its face as left, top, right, bottom; who comes first is served first.
    image_size: width and height.
    Returns int (N, 4), boxes. Labels overlap only when an image is too full for them.
    """
    placed = np.zeros((0, 4), int)
    for index, (size, face) in enumerate(zip(sizes, faces, strict=True)):
        others = np.delete(faces, index, axis=0)
        for list_places in (_list_near, _list_everywhere):
            corners, costs = list_places(size, face, image_size)
            corners = np.clip(corners, 0, np.array(image_size) - size)
            boxes = np.hstack([corners, corners + size])
            covered = _measure_covered(boxes, placed)
            costs = costs + 3 * _measure_covered(boxes, others) + 0.6 * _measure_covered(boxes, face[None])
            best = np.lexsort((costs, covered))[0]
            if not covered[best]:
                break
        placed = np.vstack([placed, boxes[best]])
    return placed


def _list_near(size: np.ndarray, face: np.ndarray, _: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of a label's places around its face, the best first, and what each costs."""
    (width, height), (left, top, right, bottom) = size, face
    above, end = top - height, right - width
    places = [
        *((left, above, 0.0), (end, above, 0.1), (left, bottom, 0.2), (end, bottom, 0.3)),
        *((right, top, 0.8), (left - width, top, 0.8), (left, top, 0.9), (left, bottom - height, 0.9)),
        *((left, above - height, 1.0), (left, bottom + height, 1.0)),
    ]
    table = np.array(places)
    return table[:, :2].astype(int), table[:, 2]


def _list_everywhere(
    size: np.ndarray, face: np.ndarray, image_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of places all over the image; the further from the face the dearer."""
    steps = [np.arange(0, limit, max(1, step // 4)) for limit, step in zip(image_size, size, strict=True)]
    corners = np.stack(np.meshgrid(*steps), axis=-1).reshape(-1, 2)
    return corners, np.linalg.norm(corners - face[:2], axis=1) / size[1]


def _measure_covered(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the share of each of (K, 4) boxes that lies under any of (M, 4) others, summed."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.prod(np.maximum(high - low, 0), axis=2).sum(axis=1) / areas


def _draw_box(scene: np.ndarray, face: Face) -> None:
    left, top, width, height = face.box
    line = max(1, min(round(min(scene.shape[:2]) / 240), width // 12))
    for colour, thickness in (
        ("#000000", line + 2),
        (_choose_colour(face), line),
    ):  # dark edges, for light images
        corner = (left + width - 1, top + height - 1)
        cv2.rectangle(scene, (left, top), corner, _to_rgb(colour), thickness)


def _draw_labels(scene: np.ndarray, faces: Sequence[Face]) -> None:
    """Draw the labels, each near its face and none on another."""
    height, width = scene.shape[:2]
    names = [name_face(face) for face in faces]
    styles = [
        _choose_style(name, face.box[2], width, height) for name, face in zip(names, faces, strict=True)
    ]
    sizes = [
        np.array(cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)[0]) + 2 * padding
        for name, (scale, thick, padding) in zip(names, styles, strict=True)
    ]
    boxes = np.array([face.box for face in faces])
    boxes[:, 2:] += boxes[:, :2]
    places = place_labels(np.minimum(sizes, (width, height)), boxes, (width, height))
    for face, name, (scale, thick, padding), place in zip(faces, names, styles, places, strict=True):
        colour = _choose_colour(face)
        cv2.rectangle(scene, place[:2], place[2:] - 1, _to_rgb(colour), -1)
        start = (int(place[0]) + padding, int(place[3]) - padding)
        ink = _to_rgb(choose_ink(colour))
        cv2.putText(scene, name, start, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thick, cv2.LINE_AA)


def _choose_style(name: str, face_width: int, width: int, height: int) -> tuple[float, int, int]:
    """Return scale, thickness and padding of a label, the latter two in pixels."""
    # In proportion to the image; in a crowd a long label is as wide as 1.3 faces, but readable.
    scale = max(SMALLEST_TEXT, min(min(width, height) / 900, 1.3 * face_width / LABEL_WIDTH))
    scale = min(scale, (width - 4) / (20 * len(name)), (height - 4) / (2 * TEXT_PIXELS))
    return scale, max(1, round(1.5 * scale)), max(1, round(0.35 * TEXT_PIXELS * scale))


def _choose_colour(face: Face) -> str:
    return UNSURE_COLOUR if face.abstained else choose_colours(face.probabilities)[face.label]


def _to_rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def _hide(scene: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """Replace a face and its margin, in place, by the averages of a few cells."""
    left, top, width, height = box
    corners = np.array([left, top, left + width, top + height]) + HIDDEN_MARGIN * [
        width,
        height,
        width,
        height,
    ]
    x0, y0, x1, y1 = np.clip(corners.round(), 0, (scene.shape[1::-1] * 2)).astype(int)
    region = scene[y0:y1, x0:x1]
    cell = math.ceil(max(region.shape[:2]) / HIDDEN_CELLS)
    size = (math.ceil(region.shape[1] / cell), math.ceil(region.shape[0] / cell))
    means = cv2.resize(region, size, interpolation=cv2.INTER_AREA)
    region[:] = cv2.resize(means, region.shape[1::-1], interpolation=cv2.INTER_NEAREST)
