"""Show recognised faces as boxes and labels on an image, or as rows of a table. Needs no torch."""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from fer_lib.inference.recognizer import Face
from fer_lib.palette import EMOTION_COLOURS

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
    scene = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # a copy, in the order in which supervision draws
    if blur:
        for face in faces:
            _hide(scene, face.box)
    for face in reversed(faces):  # the largest comes first in the list, and should lie on top
        _draw_face(scene, face)
    return cv2.cvtColor(scene, cv2.COLOR_BGR2RGB, dst=scene)


def name_face(face: Face) -> str:
    """Return the label of a face in ASCII: `happy 84 %`, `unsure`, and `#3` before it for a followed one."""
    track = getattr(face, "track", None)
    number = "" if track is None else f"#{track} "
    return number + ("unsure" if face.abstained else f"{face.label} {100 * face.confidence:.0f} %")


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


def _draw_face(scene: np.ndarray, face: Face) -> None:
    """Draw the box, and the label above it, or where there is no room as near as it fits."""
    import supervision as sv  # takes a second, which those who draw nothing should not pay

    height, width = scene.shape[:2]
    left, top, box_width, box_height = face.box
    name, colour = name_face(face), UNSURE_COLOUR if face.abstained else EMOTION_COLOURS[face.label]
    box = np.array([[left, top, left + box_width - 1, top + box_height - 1]])
    detection = sv.Detections(box, class_id=np.zeros(1, int))
    line = max(1, min(round(min(height, width) / 240), box_width // 12))
    sv.BoxAnnotator(sv.Color.BLACK, line + 2).annotate(scene, detection)  # a dark edge, for light images
    sv.BoxAnnotator(colour, line).annotate(scene, detection)
    # In proportion to the image; in a crowd a long label is as wide as 1.3 faces, but readable.
    scale = max(SMALLEST_TEXT, min(min(width, height) / 900, 1.3 * box_width / LABEL_WIDTH))
    scale = min(scale, (width - 4) / (20 * len(name)), (height - 4) / (2 * TEXT_PIXELS))
    label = sv.LabelAnnotator(
        colour,
        text_color=choose_ink(colour),
        text_scale=scale,
        text_thickness=max(1, round(1.5 * scale)),
        text_padding=max(1, round(0.35 * TEXT_PIXELS * scale)),
        smart_position=True,
    )
    label.annotate(scene, detection, [name])


def _hide(scene: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """Replace a face and its margin, in place, by the averages of a few cells."""
    import supervision as sv

    left, top, width, height = box
    corners = np.array([[left, top, left + width, top + height]])
    region = sv.Detections((corners + HIDDEN_MARGIN * [width, height, width, height]).round())
    x, y = sv.clip_boxes(region.xyxy, scene.shape[1::-1]).reshape(2, 2).T
    cell = max(1, math.ceil(max(np.ptp(x), np.ptp(y)) / HIDDEN_CELLS))
    sv.BlurAnnotator(cell).annotate(scene, region)  # alone it could be undone
    sv.PixelateAnnotator(cell).annotate(scene, region)  # alone it would show single pixels
