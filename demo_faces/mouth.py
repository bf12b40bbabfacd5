"""Paint the mouth: lips, and between them teeth, tongue and dark."""

from typing import NamedTuple

import numpy as np

from demo_faces.anatomy import Anatomy
from demo_faces.canvas import FaceMap, shift
from demo_faces.factors import Identity
from demo_faces.rendering import encode_colour

_CAVITY = encode_colour("2a0f0e")
_TEETH = encode_colour("fdf7ec")
_TONGUE = encode_colour("a84f4c")
_LIPSTICK = encode_colour("b4343f")
_LIP_TINT = np.array((0.64, 0.24, 0.26), np.float32)
_LIP_TINT_DARK = np.array((0.9, 0.5, 0.52), np.float32)
_N_POINTS = 33
_UPPER_TEETH_HEIGHT = 0.085
_OPEN_FROM, _TONGUE_FROM = 0.02, 0.12  # gap between the lips, head units


class Lips(NamedTuple):
    """Lines (33, 2) from the mouth's left to its right corner, and the opening's height in the middle.

    top, bottom: outer edges.   upper, lower: edges of the opening.
    """

    top: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    bottom: np.ndarray
    gap: float


def paint_mouth(face: FaceMap, identity: Identity, anatomy: Anatomy) -> None:
    """Paint lips and the mouth's inside."""
    lips = _trace_lips(anatomy)
    _paint_lips(face, identity, lips)
    if lips.gap > _OPEN_FROM:
        _paint_inside(face, anatomy.aus, lips)
    else:
        face.darken(face.stroke([(lips.upper + lips.lower) / 2], 0.018, soft=0.007), 0.85)


def _trace_lips(anatomy: Anatomy) -> Lips:
    s = np.linspace(-1, 1, _N_POINTS)
    left, right = anatomy.left["mouth_corner"], anatomy.right["mouth_corner"]
    x = np.where(s < 0, -s * left[0], s * right[0])
    corner_y = left[1] + (right[1] - left[1]) * (s + 1) / 2
    # Stretched lips pull the opening square, a dropped jaw makes it round.
    squareness = 2.0 + 2.0 * anatomy.aus["au20"] + 0.6 * anatomy.aus["au12"] + 1.2 * anatomy.aus["au16"]

    def trace(name: str, power: float, dip: float = 0.0) -> np.ndarray:
        middle = anatomy.get_middle(name)[1]
        y = corner_y + (middle - corner_y) * (1 - np.abs(s) ** power) + dip * np.exp(-((x / 0.04) ** 2))
        return np.stack([x, y], axis=1)

    upper = trace("seam_upper", squareness)
    lower = trace("seam_lower", squareness)
    top = trace("lip_top", min(1.7, squareness), dip=0.018)
    bottom = trace("lip_bottom", squareness)
    top[:, 1] = np.minimum(top[:, 1], upper[:, 1])
    bottom[:, 1] = np.maximum(bottom[:, 1], lower[:, 1])
    gap = float(anatomy.get_middle("seam_lower")[1] - anatomy.get_middle("seam_upper")[1])
    return Lips(top, upper, lower, bottom, gap)


def _paint_lips(face: FaceMap, identity: Identity, lips: Lips) -> None:
    skin = face.albedo[0, 0]
    tint = _LIP_TINT if identity.skin_tone <= 6 else _LIP_TINT_DARK
    colour = skin * tint
    wears_lipstick = identity.masculinity < 0.35 and identity.texture_seed % 3 == 0
    if wears_lipstick:
        colour = colour + (_LIPSTICK - colour) * 0.55
    upper_lip = face.fill([np.concatenate([lips.top, lips.upper[::-1]])], soft=0.006)
    lower_lip = face.fill([np.concatenate([lips.lower, lips.bottom[::-1]])], soft=0.006)
    face.paint(upper_lip, colour * 0.78, 0.9)
    face.paint(lower_lip, colour, 0.9)
    face.lift(upper_lip, 0.012)
    face.lift(lower_lip, 0.022)
    face.darken(upper_lip, 0.12)
    middle = (lips.lower + lips.bottom) / 2
    face.polish(face.stroke([middle[10:-10]], 0.02, soft=0.012), 0.25)
    # The shadow that the lower lip throws; it is what shows a full lip from the front.
    face.darken(face.stroke([shift(lips.bottom[9:-9], 0, 0.028)], 0.02, soft=0.018), 0.35)


def _paint_inside(face: FaceMap, aus: dict[str, float], lips: Lips) -> None:
    inside = face.fill([np.concatenate([lips.upper, lips.lower[::-1]])])
    face.paint(inside, _CAVITY)
    face.lift(inside, -0.03)
    face.polish(inside, 0.0)
    if lips.gap > _TONGUE_FROM:
        tongue = _make_band(lips.lower[8:-8], -0.25 * lips.gap, 0.05)
        face.paint(face.fill([tongue], 0.015, inside), _TONGUE, 0.8)
    # A smile or a stretched mouth bares the upper teeth; a lowered lip alone bares the lower ones.
    upper_teeth = _UPPER_TEETH_HEIGHT * min(1.0, 0.25 + aus["au12"] + 0.4 * aus["au20"] + 0.3 * aus["au09"])
    face.paint(face.fill([_make_band(lips.upper[3:-3], -0.02, upper_teeth)], 0.006, inside), _TEETH, 0.95)
    lower_teeth = 0.05 * aus["au16"] + 0.03 * aus["au20"]
    if lower_teeth > 0.02:
        face.paint(face.fill([_make_band(lips.lower[5:-5], -lower_teeth, 0.02)], 0.006, inside), _TEETH * 0.8)
    face.darken(face.stroke([lips.upper], 0.03, soft=0.014, within=inside), 0.3)
    face.darken(face.stroke([lips.lower], 0.02, soft=0.01, within=inside), 0.25)
    face.darken(face.fill([lips.upper[:6], lips.upper[-6:]], 0.03, inside), 0.5)


def _make_band(line: np.ndarray, above: float, below: float) -> np.ndarray:
    """Return the polygon between a line (n, 2) moved to two heights."""
    return np.concatenate([shift(line, 0, above), shift(line, 0, below)[::-1]])
