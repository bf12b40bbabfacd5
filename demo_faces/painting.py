"""Paint one face onto its map: relief, skin, the furrows of action units and age, nose, eyes and mouth."""

from typing import NamedTuple

import numpy as np

from demo_faces.anatomy import Anatomy
from demo_faces.canvas import FaceMap, build_noise_field, ellipse, shift, spline
from demo_faces.factors import FaceFactors, Identity
from demo_faces.hair import paint_beard, paint_brow
from demo_faces.rendering import MONK_TONES, encode_colour, encode_palette

_IRIS_PALETTE = encode_palette("3b2314 5a3819 6e5a2c 5f7a58 5d86a8")
_SCLERA = encode_colour("f1ece8")
_PUPIL = encode_colour("0c0908")
_LASH = encode_colour("1c1310")
_CAVITY = encode_colour("2a0f0e")
_TEETH = encode_colour("fdf7ec")
_TONGUE = encode_colour("a84f4c")
_LIPSTICK = encode_colour("b4343f")
_LIP_TINT = np.array((0.64, 0.24, 0.26), np.float32)
_LIP_TINT_DARK = np.array((0.9, 0.5, 0.52), np.float32)
_DIMMING = 0.35
_N_POINTS = 33
_UPPER_TEETH_HEIGHT = 0.085
_OPEN_FROM, _TONGUE_FROM = 0.02, 0.12  # gap between the lips, head units
_BLOTCHES_PER_UNIT = 90
_BLOOD = np.array((1.0, 0.55, 0.5), np.float32)

_SHOWS_FROM = 0.04  # strength of a furrow
_AGE_FREE = 0.35  # up to this age the skin at rest is smooth

# Resting relief, as Gaussians (x, y, sigma x, sigma y, height) in head units; mirrored where x is not 0.
_RELIEF = (
    (0.0, 0.02, 0.075, 0.17, 0.09),  # nose bridge
    (0.0, 0.21, 0.09, 0.14, 0.13),  # nose back
    (0.36, -0.27, 0.2, 0.085, 0.05),  # brow ridge
    (0.32, -0.1, 0.155, 0.095, -0.085),  # eye socket
    (0.31, -0.07, 0.1, 0.085, 0.05),  # eyeball
    (0.0, 0.62, 0.2, 0.15, 0.05),  # dental arch
    (0.0, 0.79, 0.18, 0.05, -0.045),  # hollow above the chin
    (0.0, 0.91, 0.15, 0.09, 0.05),  # chin
    (0.58, 0.5, 0.14, 0.2, -0.03),  # hollow of the cheek
)


def paint_face(face: FaceMap, factors: FaceFactors, anatomy: Anatomy) -> None:
    """Paint all that the map shows of a face; what is worn comes on top."""
    identity = factors.identity
    _model_relief(face, identity, anatomy)
    _paint_complexion(face, identity, anatomy)
    _paint_furrows(face, identity, anatomy)
    _paint_nose(face, anatomy)
    paint_beard(face, identity, anatomy)
    for sign, points, aus in anatomy.get_sides():
        _paint_eye(face, factors, points, aus, sign)
        paint_brow(face, identity, points, sign)
    _paint_mouth(face, identity, anatomy)


def _model_relief(face: FaceMap, identity: Identity, anatomy: Anatomy) -> None:
    for x, y, sx, sy, height in _RELIEF:
        for signed in {x, -x}:
            face.height += height * face.make_bump(signed, y, sx, sy)
    tip = anatomy.get_middle("nose_tip")
    width = identity.nose_width_scale
    face.height += 0.17 * face.make_bump(tip[0], tip[1], 0.085 * width, 0.07)
    for sign, points, aus in anatomy.get_sides():
        ala, cheek = points["ala"], points["cheek"]
        face.height += 0.085 * face.make_bump(ala[0] * 0.78, ala[1], 0.055 * width, 0.05)
        fullness = 0.035 + 0.04 * aus["au06"] + 0.04 * aus["au12"] + 0.015 * aus["au09"]
        face.height += fullness * face.make_bump(cheek[0], cheek[1], 0.17, 0.13)
        lid = points["lid_lower"]
        pouch = 0.012 * aus["au06"] + 0.012 * aus["au07"] + 0.012 * identity.age
        face.height += pouch * face.make_bump(lid[0], lid[1] + 0.045, 0.12, 0.03)
        # The corrugator bunches up between the brows.
        face.height += 0.03 * aus["au04"] * face.make_bump(sign * 0.09, -0.24, 0.06, 0.07)
    face.height += 0.03 * anatomy.aus["au17"] * face.make_bump(0, 0.87, 0.13, 0.07)


def _paint_complexion(face: FaceMap, identity: Identity, anatomy: Anatomy) -> None:
    """Blush the cheeks and nose, shade the sockets, and break up the even tone."""
    tint = np.zeros(face.shape, np.float32)
    for _, points, aus in anatomy.get_sides():
        tint += (0.3 + 0.15 * aus["au12"]) * face.make_bump(
            points["cheek"][0], points["cheek"][1], 0.17, 0.13
        )
    tint += 0.25 * face.make_bump(0, 0.34, 0.12, 0.09) + 0.15 * face.make_bump(0, 0.9, 0.15, 0.1)
    step = _BLOTCHES_PER_UNIT / face.ppu
    # Each person's blotches are the same field, shifted.
    skin = np.roll(build_noise_field("skin", face.shape, step, step), identity.texture_seed % 251, axis=1)
    pores = build_noise_field("pores", face.shape, 0.6 * step, 0.6 * step)
    tint += 0.05 * skin
    face.albedo *= 1 - tint[..., None] * (1 - _BLOOD)
    mottle = 1 - 0.015 * skin
    if identity.freckles:
        zone = face.make_bump(0, 0.15, 0.42, 0.17) * identity.freckles
        mottle -= 0.35 * zone * np.clip(pores - 1.1, 0, 1)
    face.albedo *= mottle[..., None]
    # Dark skin darkens further around the eyes than light skin does.
    socket = np.float32(1.1 - 0.9 * _compute_dimming(face))
    for x in (-0.32, 0.32):
        face.occlusion *= 1 - socket * face.make_bump(x, -0.14, 0.15, 0.065)
        face.occlusion *= 1 - 0.08 * face.make_bump(x * 0.95, 0.06, 0.12, 0.04)


def _compute_dimming(face: FaceMap) -> float:
    """Return by what to multiply bright colours: 1 on the lightest skin, less on dark.

    Otherwise eyes, teeth and lipstick glow in a dark face, and the eyes as a whole are hardly darker than its
    skin, which photographs do not show (`benchmarks/tone_contrast.py`).
    """
    return (float(face.skin.sum()) / float(MONK_TONES[0].sum())) ** _DIMMING


Furrow = tuple[list[np.ndarray], float]
"""Lines (n, 2) in head coordinates, and their strength 0..1."""


def _paint_furrows(face: FaceMap, identity: Identity, anatomy: Anatomy) -> None:
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


def _paint_nose(face: FaceMap, anatomy: Anatomy) -> None:
    tip = anatomy.get_middle("nose_tip")
    shadow = face.fill([ellipse((tip[0], tip[1] + 0.095), 0.14, 0.03)], soft=0.03)
    face.darken(shadow, 0.5)
    for sign, points, aus in anatomy.get_sides():
        ala = points["ala"]
        nostril = face.fill(
            [ellipse((ala[0] * 0.5, ala[1] + 0.05), 0.048 + 0.01 * aus["au09"], 0.024, tilt=-sign * 15)],
            soft=0.008,
        )
        face.darken(nostril, 0.85)
        wing = face.stroke(
            [
                spline(
                    [
                        shift(ala, -sign * 0.01, -0.06),
                        shift(ala, sign * 0.022, 0.0),
                        shift(ala, -sign * 0.03, 0.05),
                    ],
                    9,
                )
            ],
            width=0.012,
            soft=0.01,
        )
        face.darken(wing, 0.5)
    face.polish(face.fill([ellipse((tip[0], tip[1] - 0.04), 0.04, 0.05)], soft=0.03), 0.16)


def _trace_lid(inner: np.ndarray, outer: np.ndarray, apex: np.ndarray, n: int = 21) -> np.ndarray:
    """Return a lid's edge (n, 2) from inner to outer corner, highest above the iris."""
    t = np.linspace(0, 1, n)[:, None]
    line = inner + (outer - inner) * t
    rise = apex[1] - (inner[1] + outer[1]) / 2
    return line + np.array((0, rise)) * np.sin(np.pi * t) ** 0.75


def _paint_eye(face: FaceMap, factors: FaceFactors, p: dict, aus: dict, sign: float) -> None:
    identity = factors.identity
    inner, outer = p["eye_inner"], p["eye_outer"]
    upper, lower = _trace_lid(inner, outer, p["lid_upper"]), _trace_lid(inner, outer, p["lid_lower"])
    width = abs(outer[0] - inner[0])
    ball = face.fill([np.concatenate([upper, lower[::-1]])])
    face.paint(ball, _SCLERA * np.float32(0.8 * _compute_dimming(face)))
    face.polish(ball, 0.12)
    # The ball's own curvature: darker towards the corners and under the lid.
    face.darken(face.stroke([upper], 0.045, soft=0.022, within=ball), 0.55)
    face.darken(face.fill([ellipse(inner, 0.05, 0.05), ellipse(outer, 0.06, 0.05)], 0.02, ball), 0.4)
    centre = np.array(((inner[0] + outer[0]) / 2, (inner[1] + outer[1]) / 2 - 0.022))
    centre = shift(centre, factors.gaze_x * width * 0.25, factors.gaze_y * width * 0.15)
    radius = 0.27 * width
    iris = _IRIS_PALETTE[identity.iris]
    face.paint(face.fill([ellipse(centre, radius, radius)], 0.004, ball), iris * 0.35)
    face.paint(face.fill([ellipse(centre, radius * 0.84, radius * 0.84)], 0.006, ball), iris)
    face.paint(
        face.fill([ellipse((centre[0], centre[1] + radius * 0.4), radius * 0.6, radius * 0.35)], 0.012, ball),
        iris * 1.7,
        0.7,
    )
    face.paint(face.fill([ellipse(centre, radius * 0.46, radius * 0.46)], 0.0, ball), _PUPIL)
    side = 1 if factors.light_azimuth > 0 else -1
    highlight = shift(centre, side * radius * 0.35, -radius * 0.38)
    catch = face.fill([ellipse(highlight, radius * 0.25, radius * 0.25)], 0.003, ball)
    face.paint(catch, np.float32(1.6 * _compute_dimming(face)))
    face.occlusion[catch.window] = np.maximum(face.occlusion[catch.window], catch.coverage)
    _paint_lids(face, identity, p, aus, sign, upper, lower)


def _paint_lids(
    face: FaceMap, identity: Identity, p: dict, aus: dict, sign: float, upper: np.ndarray, lower: np.ndarray
) -> None:
    """Paint lash lines, the fold above the upper lid, and the thickness of the lower lid."""
    lash = 0.024 - 0.008 * identity.masculinity
    wing = shift(p["eye_outer"], sign * 0.03 * (1 - identity.masculinity), -0.02 * (1 - identity.masculinity))
    upper_edge = np.concatenate([upper, wing[None]])
    face.paint(face.fill([np.concatenate([upper_edge, (upper_edge - (0, lash))[::-1]])], 0.004), _LASH, 0.95)
    face.darken(face.stroke([lower], 0.010, soft=0.006), 0.35)
    face.lift(face.stroke([shift(lower, 0, 0.02)], 0.014, soft=0.01), 0.008)
    # The fold hides when the lid is raised or the brow sinks onto it.
    gap = 0.05 + 0.02 * (aus["au01"] + aus["au02"]) / 2 - 0.03 * aus["au04"] + 0.01 * aus["au05"]
    fold = upper[2:] - (0, max(gap, 0.02))
    face.darken(face.stroke([fold], 0.012, soft=0.009), 0.5)


class _Lips(NamedTuple):
    """Lines (33, 2) from the mouth's left to its right corner, and the opening's height in the middle.

    top, bottom: outer edges.   upper, lower: edges of the opening.
    """

    top: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    bottom: np.ndarray
    gap: float


def _paint_mouth(face: FaceMap, identity: Identity, anatomy: Anatomy) -> None:
    """Paint lips and the mouth's inside."""
    lips = _trace_lips(anatomy)
    _paint_lips(face, identity, lips)
    if lips.gap > _OPEN_FROM:
        _paint_inside(face, anatomy.aus, lips)
    else:
        face.darken(face.stroke([(lips.upper + lips.lower) / 2], 0.018, soft=0.007), 0.85)


def _trace_lips(anatomy: Anatomy) -> _Lips:
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
    return _Lips(top, upper, lower, bottom, gap)


def _paint_lips(face: FaceMap, identity: Identity, lips: _Lips) -> None:
    skin = face.albedo[0, 0]
    tint = _LIP_TINT if identity.skin_tone <= 6 else _LIP_TINT_DARK
    colour = skin * tint
    wears_lipstick = identity.masculinity < 0.35 and identity.texture_seed % 3 == 0
    if wears_lipstick:
        colour = colour + (_LIPSTICK * np.float32(_compute_dimming(face)) - colour) * 0.55
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


def _paint_inside(face: FaceMap, aus: dict[str, float], lips: _Lips) -> None:
    inside = face.fill([np.concatenate([lips.upper, lips.lower[::-1]])])
    face.paint(inside, _CAVITY)
    face.lift(inside, -0.03)
    face.polish(inside, 0.0)
    teeth = _TEETH * np.float32(_compute_dimming(face))
    if lips.gap > _TONGUE_FROM:
        tongue = _make_band(lips.lower[8:-8], -0.25 * lips.gap, 0.05)
        face.paint(face.fill([tongue], 0.015, inside), _TONGUE, 0.8)
    # A smile or a stretched mouth bares the upper teeth; a lowered lip alone bares the lower ones.
    upper_teeth = _UPPER_TEETH_HEIGHT * min(1.0, 0.25 + aus["au12"] + 0.4 * aus["au20"] + 0.3 * aus["au09"])
    face.paint(face.fill([_make_band(lips.upper[3:-3], -0.02, upper_teeth)], 0.006, inside), teeth, 0.95)
    lower_teeth = 0.05 * aus["au16"] + 0.03 * aus["au20"]
    if lower_teeth > 0.02:
        face.paint(face.fill([_make_band(lips.lower[5:-5], -lower_teeth, 0.02)], 0.006, inside), teeth * 0.8)
    face.darken(face.stroke([lips.upper], 0.03, soft=0.014, within=inside), 0.3)
    face.darken(face.stroke([lips.lower], 0.02, soft=0.01, within=inside), 0.25)
    face.darken(face.fill([lips.upper[:6], lips.upper[-6:]], 0.03, inside), 0.5)


def _make_band(line: np.ndarray, above: float, below: float) -> np.ndarray:
    """Return the polygon between a line (n, 2) moved to two heights."""
    return np.concatenate([shift(line, 0, above), shift(line, 0, below)[::-1]])
