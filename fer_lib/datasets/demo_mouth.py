"""Paint the mouth: lips, and between them teeth, tongue and dark."""

import numpy as np

from fer_lib.datasets.demo_anatomy import Anatomy
from fer_lib.datasets.demo_canvas import FaceMap, Stamp
from fer_lib.datasets.demo_factors import Identity
from fer_lib.datasets.demo_surface import encode_colour

_CAVITY = encode_colour("2a0f0e")
_TEETH = encode_colour("f2ece0")
_TONGUE = encode_colour("a84f4c")
_LIPSTICK = encode_colour("b4343f")
_LIP_TINT = np.array((0.82, 0.42, 0.42), np.float32)
_LIP_TINT_DARK = np.array((0.95, 0.62, 0.62), np.float32)
_N_POINTS = 33
_UPPER_TEETH_HEIGHT = 0.085


def paint_mouth(face: FaceMap, identity: Identity, anatomy: Anatomy) -> None:
    """Paint lips and the mouth's inside."""
    top, seam_upper, seam_lower, bottom = _trace_contours(anatomy)
    is_open = anatomy.get_middle("seam_lower")[1] - anatomy.get_middle("seam_upper")[1] > 0.02
    _paint_lips(face, identity, anatomy, top, seam_upper, seam_lower, bottom)
    if is_open:
        inside = face.fill([np.concatenate([seam_upper, seam_lower[::-1]])])
        _paint_inside(face, anatomy, inside, seam_upper, seam_lower)
    else:
        face.darken(face.stroke([(seam_upper + seam_lower) / 2], 0.018, soft=0.007), 0.85)


def _trace_contours(anatomy: Anatomy) -> tuple[np.ndarray, ...]:
    """Return four lines (33, 2) from the left to the right corner: top, both edges of the opening, bottom."""
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
    return top, upper, lower, bottom


def _paint_lips(face, identity, anatomy, top, seam_upper, seam_lower, bottom) -> None:
    skin = face.albedo[0, 0]
    tint = _LIP_TINT if identity.skin_tone <= 6 else _LIP_TINT_DARK
    colour = skin * tint
    wears_lipstick = identity.masculinity < 0.35 and identity.texture_seed % 3 == 0
    if wears_lipstick:
        colour = colour + (_LIPSTICK - colour) * 0.55
    upper_lip = face.fill([np.concatenate([top, seam_upper[::-1]])], soft=0.006)
    lower_lip = face.fill([np.concatenate([seam_lower, bottom[::-1]])], soft=0.006)
    face.paint(upper_lip, colour * 0.78, 0.9)
    face.paint(lower_lip, colour, 0.9)
    face.lift(upper_lip, 0.012)
    face.lift(lower_lip, 0.022)
    face.darken(upper_lip, 0.12)
    middle = (seam_lower + bottom) / 2
    face.polish(face.stroke([middle[10:-10]], 0.02, soft=0.012), 0.25)
    # The shadow that the lower lip throws; it is what shows a full lip from the front.
    face.darken(face.stroke([bottom[9:-9] + (0, 0.028)], 0.02, soft=0.018), 0.35)


def _paint_inside(face: FaceMap, anatomy: Anatomy, inside: Stamp, seam_upper, seam_lower) -> None:
    face.paint(inside, _CAVITY)
    face.lift(inside, -0.03)
    face.polish(inside, 0.0)
    gap = anatomy.get_middle("seam_lower")[1] - anatomy.get_middle("seam_upper")[1]
    if gap > 0.12:
        x, y = anatomy.get_middle("seam_lower")
        tongue = np.stack([seam_lower[8:-8, 0], seam_lower[8:-8, 1] - 0.25 * gap], axis=1)
        face.paint(face.fill([np.concatenate([tongue, seam_lower[8:-8][::-1] + (0, 0.05)])], 0.015, inside), _TONGUE, 0.8)
    smile = anatomy.aus["au12"]
    height = _UPPER_TEETH_HEIGHT * (0.75 + 0.45 * smile)
    teeth = np.concatenate([seam_upper[3:-3] - (0, 0.02), (seam_upper[3:-3] + (0, height))[::-1]])
    face.paint(face.fill([teeth], 0.006, inside), _TEETH, 0.95)
    lower_teeth = 0.06 * anatomy.aus["au16"] + 0.035 * anatomy.aus["au20"]
    if lower_teeth > 0.02:
        teeth = np.concatenate([seam_lower[5:-5] + (0, 0.02), (seam_lower[5:-5] - (0, lower_teeth))[::-1]])
        face.paint(face.fill([teeth], 0.006, inside), _TEETH * 0.85, 0.95)
    face.darken(face.stroke([seam_upper], 0.03, soft=0.014, within=inside), 0.5)
    face.darken(face.fill([seam_upper[:6], seam_upper[-6:]], 0.03, inside), 0.5)
