"""Drawing on pictures: a box and a label on every face, or every face hidden. Needs no torch."""

from collections.abc import Sequence

import cv2
import numpy as np

from fer_lib.inference.recognizer import Face

EMOTION_COLOURS = {
    "angry": (213, 94, 0),
    "disgust": (0, 158, 115),
    "fear": (170, 68, 153),
    "happy": (230, 159, 0),
    "sad": (0, 114, 178),
    "surprise": (86, 180, 233),
    "neutral": (122, 122, 122),
    "contempt": (136, 34, 85),
}
"""RGB by emotion, told apart by colour-blind readers: as `plots.COLOURS`, for pictures and web pages."""

UNSURE_COLOUR = (225, 225, 225)
"""RGB of a face whose emotion the model will not name; no emotion's."""

FONT = cv2.FONT_HERSHEY_DUPLEX
"""Has ASCII only."""

LONG_LABEL = cv2.getTextSize("surprise 99 %", FONT, 1.0, 1)[0][0]
"""Pixels, at scale 1: labels of equal faces are of equal size whatever they say."""

SMALLEST_TEXT = 0.38
"""OpenCV's scale: letters of 8 pixels."""

HIDDEN_CELLS = 5
"""Blurred, a face and its margin keep so many cells a side: three across the face show no features."""

HIDDEN_MARGIN = (0.3, 0.35, 0.3, 0.2)
"""Left, top, right and below, as shares of the box: hair, ears and chin give a person away too."""


def draw_faces(image: np.ndarray, faces: Sequence[Face], blur: bool = False) -> np.ndarray:
    """Return a copy of a picture with a box and a label on every face, such as `happy 84 %`.

    image: uint8 (H, W, 3) RGB.   faces: those whose emotion is not named are `unsure`; those followed through
    a video (they have a `track`) start with their number, `#3 happy 84 %`.   blur: make every face
    unrecognisable, hair and chin included; boxes and labels stay.
    """
    picture = image.copy()
    if blur:
        for face in faces:
            _hide(picture, face.box)
    for face in reversed(faces):  # the largest comes first in the list, and should lie on top
        _draw_face(picture, face)
    return picture


def name_face(face: Face) -> str:
    """Return the label of a face in ASCII: `happy 84 %`, `unsure`, and `#3` before it for a followed one."""
    track = getattr(face, "track", None)
    number = "" if track is None else f"#{track} "
    return number + ("unsure" if face.abstained else f"{face.label} {face.confidence:.0%}".replace("%", " %"))


def _draw_face(picture: np.ndarray, face: Face) -> None:
    height, width = picture.shape[:2]
    colour = UNSURE_COLOUR if face.abstained else EMOTION_COLOURS[face.label]
    left, top, box_width, box_height = face.box
    corners = (left, top), (left + box_width - 1, top + box_height - 1)
    line = max(1, min(round(min(height, width) / 240), box_width // 12))
    cv2.rectangle(picture, *corners, (0, 0, 0), line + 2)  # a dark edge, for light pictures
    cv2.rectangle(picture, *corners, colour, line)
    _draw_label(picture, name_face(face), face.box, colour)


def _draw_label(
    picture: np.ndarray, text: str, box: tuple[int, int, int, int], colour: tuple[int, int, int]
) -> None:
    """Write the label above the box, or below where there is no room, or else inside."""
    height, width = picture.shape[:2]
    left, top, box_width, box_height = box
    full_width, full_height = cv2.getTextSize(text, FONT, 1.0, 1)[0]
    # In proportion to the picture; in a crowd a long label is as wide as 1.3 faces, but readable.
    scale = max(SMALLEST_TEXT, min(min(width, height) / 900, 1.3 * box_width / LONG_LABEL))
    scale = min(scale, (width - 4) / (full_width * 1.1), (height - 4) / (full_height * 2.0))
    stroke = max(1, round(scale * 1.2))
    text_width, text_height = cv2.getTextSize(text, FONT, scale, stroke)[0]
    pad = max(1, round(0.35 * text_height))
    label_width, label_height = text_width + 2 * pad, text_height + 2 * pad
    x = max(0, min(left, width - label_width))
    y = top - label_height if top >= label_height else top + box_height
    if y + label_height > height:
        y = max(0, top)
    cv2.rectangle(picture, (x, y), (x + label_width - 1, y + label_height - 1), colour, cv2.FILLED)
    place = (x + pad, y + pad + text_height)
    cv2.putText(picture, text, place, FONT, scale, choose_ink(colour), stroke, cv2.LINE_AA)


def choose_ink(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return black or white, whichever stands out more from an RGB colour (WCAG 2.2, relative luminance)."""
    linear = [((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else c / 255 / 12.92 for c in colour]
    luminance = float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 1.05 * 0.05 else (255, 255, 255)


def _hide(picture: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """Replace a face and its margin, in place, by a few averages that run into each other."""
    left, top, width, height = box
    low_x = max(0, round(left - HIDDEN_MARGIN[0] * width))
    low_y = max(0, round(top - HIDDEN_MARGIN[1] * height))
    region = picture[
        low_y : round(top + height * (1 + HIDDEN_MARGIN[3])),
        low_x : round(left + width * (1 + HIDDEN_MARGIN[2])),
    ]
    cells = cv2.resize(region, (HIDDEN_CELLS, HIDDEN_CELLS), interpolation=cv2.INTER_AREA)
    region[:] = cv2.resize(cells, region.shape[1::-1], interpolation=cv2.INTER_LINEAR)
