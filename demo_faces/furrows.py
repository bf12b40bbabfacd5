"""The furrows that action units and age bring out."""

import numpy as np

from demo_faces.anatomy import Anatomy
from demo_faces.canvas import FaceMap, shift, spline
from demo_faces.factors import Identity

Furrow = tuple[list[np.ndarray], float]
"""Lines (n, 2) in head coordinates, and their strength 0..1."""

_SHOWS_FROM = 0.04
_AGE_FREE = 0.35  # up to this age the skin at rest is smooth


def paint_furrows(face: FaceMap, identity: Identity, anatomy: Anatomy) -> None:
    """Carve the furrows: a groove that the light models, and the dark at its bottom."""
    age = max(0.0, identity.age - _AGE_FREE)
    furrows = _list_middle_furrows(anatomy, age)
    for sign, points, aus in anatomy.get_sides():
        furrows += _list_eye_furrows(sign, points, aus, age)
        furrows += _list_mouth_furrows(sign, points, aus, age)
    for lines, strength in furrows:
        if strength > _SHOWS_FROM:
            stamp = face.stroke(lines, width=0.014, soft=0.011)
            face.lift(stamp, -0.028 * strength)
            face.darken(stamp, min(0.7, 0.55 * strength))


def _list_middle_furrows(anatomy: Anatomy, age: float) -> list[Furrow]:
    """Return forehead lines, wrinkles of the nose and the crease above the chin."""
    aus = anatomy.aus
    raised = (aus["au01"] + aus["au02"]) / 2
    wave = 0.02 * (aus["au01"] - aus["au02"])
    forehead = [
        spline([(-0.4, y + 0.02), (0, y - 0.03 - wave), (0.4, y + 0.02)]) for y in (-0.68, -0.585, -0.5)
    ]
    nose = [spline([(-0.07, y + 0.03), (0, y), (0.07, y + 0.03)], 9) for y in (-0.06, 0.0, 0.06)]
    chin = [spline([(-0.13, 0.8), (0, 0.765), (0.13, 0.8)])]
    return [
        (forehead, 0.75 * raised + 0.35 * age),
        (nose, aus["au09"]),
        (chin, 0.15 + 0.8 * aus["au17"]),
    ]


def _list_eye_furrows(sign: float, points: dict, aus: dict, age: float) -> list[Furrow]:
    """Return one side's frown line between the brows, crow's feet and the line under the eye."""
    brow_y, outer = points["brow_inner"][1], points["eye_outer"]
    frown = [
        spline([(sign * 0.055, brow_y - 0.09), (sign * 0.04, brow_y - 0.01), (sign * 0.06, brow_y + 0.07)])
    ]
    crow = [
        spline(
            [
                shift(outer, sign * 0.04, dy),
                shift(outer, sign * 0.1, dy * 1.8),
                shift(outer, sign * 0.15, dy * 3),
            ]
        )
        for dy in (-0.025, 0.012, 0.045)
    ]
    bag_inner, bag_outer = shift(points["eye_inner"], 0, 0.07), shift(outer, -sign * 0.02, 0.09)
    bag = [spline([bag_inner, shift(points["lid_lower"], 0, 0.075), bag_outer])]
    return [
        (frown, aus["au04"] + 0.35 * aus["au09"] + 0.3 * age),
        (crow, 0.6 * aus["au06"] + 0.4 * age),
        (bag, 0.2 + 0.45 * aus["au06"] + 0.4 * aus["au07"] + 0.3 * age),
    ]


def _list_mouth_furrows(sign: float, points: dict, aus: dict, age: float) -> list[Furrow]:
    """Return one side's nasolabial fold, the line below the mouth's corner and the dimple beside it."""
    ala, corner = points["ala"], points["mouth_corner"]
    bend = shift((ala + corner) / 2, sign * 0.11, -0.03)
    fold = [spline([shift(ala, sign * 0.025, -0.05), bend, shift(corner, sign * 0.09, 0.02)])]

    def beside_corner(*offsets: tuple[float, float]) -> list[np.ndarray]:
        return [spline([shift(corner, sign * dx, dy) for dx, dy in offsets])]

    return [
        (fold, 0.12 + 0.65 * aus["au12"] + 0.75 * aus["au09"] + 0.25 * aus["au20"] + 0.5 * age),
        (beside_corner((0.015, 0.0), (0.035, 0.05), (0.03, 0.11)), 0.7 * aus["au15"] + 0.35 * age),
        (beside_corner((0.035, -0.035), (0.05, 0.0), (0.035, 0.035)), 0.5 * aus["au12"] + 0.3 * aus["au20"]),
    ]
