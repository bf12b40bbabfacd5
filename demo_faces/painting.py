"""Paint skin, relief, nose, eyes, brows and beard of one face onto its map."""

import numpy as np

from demo_faces.anatomy import Anatomy
from demo_faces.canvas import FaceMap, build_noise_field, ellipse, shift, spline
from demo_faces.factors import FaceFactors, Identity
from demo_faces.furrows import paint_furrows
from demo_faces.rendering import encode_colour, encode_palette

# The ten steps of the Monk Skin Tone scale (Monk 2019), lightest first.
MONK_TONES = encode_palette("f6ede4 f3e7db f7ead0 eadaba d7bd96 a07e56 825c43 604134 3a312a 292420")
HAIR_PALETTE = {
    "black": encode_colour("1f1a19"),
    "dark brown": encode_colour("3a281f"),
    "brown": encode_colour("5c3d29"),
    "auburn": encode_colour("7d4226"),
    "dark blond": encode_colour("957248"),
    "blond": encode_colour("c9a267"),
    "grey": encode_colour("a9a6a2"),
}
IRIS_PALETTE = encode_palette("3b2314 5a3819 6e5a2c 5f7a58 5d86a8")
_SCLERA = encode_colour("f1ece8")
_PUPIL = encode_colour("0c0908")
_LASH = encode_colour("1c1310")
_BROW_CONTRAST = 0.3  # brows are at most this bright beside the skin
_BLOTCHES_PER_UNIT = 90
_BLOOD = np.array((1.0, 0.55, 0.5), np.float32)

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
    """Paint everything but the mouth."""
    identity = factors.identity
    _model_relief(face, identity, anatomy)
    _paint_complexion(face, identity, anatomy)
    paint_furrows(face, identity, anatomy)
    _paint_nose(face, anatomy)
    _paint_beard(face, identity, anatomy)
    for sign, points, aus in anatomy.get_sides():
        _paint_eye(face, factors, points, aus, sign)
        _paint_brow(face, identity, points, sign)


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
    for x in (-0.32, 0.32):
        face.occlusion *= 1 - 0.2 * face.make_bump(x, -0.14, 0.15, 0.065)
        face.occlusion *= 1 - 0.08 * face.make_bump(x * 0.95, 0.06, 0.12, 0.04)


def _paint_nose(face: FaceMap, anatomy: Anatomy) -> None:
    tip = anatomy.get_middle("nose_tip")
    shadow = face.fill([ellipse(tip[0], tip[1] + 0.095, 0.14, 0.03)], soft=0.03)
    face.darken(shadow, 0.5)
    for sign, points, aus in anatomy.get_sides():
        ala = points["ala"]
        nostril = face.fill(
            [ellipse(ala[0] * 0.5, ala[1] + 0.05, 0.048 + 0.01 * aus["au09"], 0.024, tilt=-sign * 15)],
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
    face.polish(face.fill([ellipse(tip[0], tip[1] - 0.04, 0.04, 0.05)], soft=0.03), 0.16)


def _paint_beard(face: FaceMap, identity: Identity, anatomy: Anatomy) -> None:
    if identity.beard == "none":
        return
    hair = HAIR_PALETTE[identity.hair_colour]
    top = anatomy.get_middle("lip_top")[1]
    corner = anatomy.right["mouth_corner"]
    chin = anatomy.get_middle("chin")[1]
    moustache = np.array(
        [
            (0, top - 0.085),
            (0.12, top - 0.07),
            (corner[0] + 0.02, corner[1] - 0.03),
            (corner[0] + 0.03, corner[1] + 0.03),
            (0.15, top - 0.0),
            (0, top - 0.005),
        ]
    )
    cheek_line = np.array(
        [
            (0.9, -0.05),
            (0.7, 0.1),
            (0.62, 0.42),
            (0.45, 0.53),
            (corner[0] + 0.06, corner[1] - 0.06),
            (corner[0] + 0.05, corner[1] + 0.08),
            (0.16, chin - 0.24),
            (0, chin - 0.23),
        ]
    )
    beard = np.concatenate([cheek_line, [(0, chin + 0.3), (0.9, chin + 0.3)]])
    halves = {"moustache": [moustache], "stubble": [moustache, beard], "full": [moustache, beard]}[
        identity.beard
    ]
    opacity = 0.38 if identity.beard == "stubble" else 0.9
    grain = build_noise_field("strands", face.shape, 260 / face.ppu, 70 / face.ppu)
    for half in halves:
        stamp = face.fill([half, half * (-1, 1)], soft=0.022)
        window_grain = 1 + 0.25 * grain[stamp.window][..., None]
        face.paint(stamp, hair * window_grain, opacity)
        face.polish(stamp, 0.03)
        face.height[stamp.window] += 0.004 * grain[stamp.window] * stamp.coverage * opacity


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
    face.paint(ball, _SCLERA * 0.9)
    face.polish(ball, 0.12)
    # The ball's own curvature: darker towards the corners and under the lid.
    face.darken(face.stroke([upper], 0.045, soft=0.022, within=ball), 0.55)
    face.darken(face.fill([ellipse(*inner, 0.05, 0.05), ellipse(*outer, 0.06, 0.05)], 0.02, ball), 0.4)
    centre = np.array(((inner[0] + outer[0]) / 2, (inner[1] + outer[1]) / 2 - 0.022))
    centre = shift(centre, factors.gaze_x * width * 0.25, factors.gaze_y * width * 0.15)
    radius = 0.27 * width
    iris = IRIS_PALETTE[identity.iris]
    face.paint(face.fill([ellipse(*centre, radius, radius)], 0.004, ball), iris * 0.35)
    face.paint(face.fill([ellipse(*centre, radius * 0.84, radius * 0.84)], 0.006, ball), iris)
    face.paint(
        face.fill([ellipse(centre[0], centre[1] + radius * 0.4, radius * 0.6, radius * 0.35)], 0.012, ball),
        iris * 1.7,
        0.7,
    )
    face.paint(face.fill([ellipse(*centre, radius * 0.46, radius * 0.46)], 0.0, ball), _PUPIL)
    side = 1 if factors.light_azimuth > 0 else -1
    catch = face.fill(
        [ellipse(centre[0] + side * radius * 0.35, centre[1] - radius * 0.38, radius * 0.25, radius * 0.25)],
        0.003,
        ball,
    )
    face.paint(catch, np.float32(1.6))
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


def _paint_brow(face: FaceMap, identity: Identity, p: dict, sign: float) -> None:
    spine = spline([p["brow_inner"], p["brow_mid"], p["brow_outer"]], 17)
    t = np.linspace(0, 1, 17)[:, None]
    half = 0.045 * identity.brow_thickness_scale * (1 - 0.75 * t**1.6) * (0.75 + 0.25 * np.minimum(t * 6, 1))
    down = np.array((0, 1.0))
    hair = HAIR_PALETTE[identity.hair_colour] * 0.7
    if identity.hair_colour != "grey":
        hair = np.minimum(hair, _BROW_CONTRAST * MONK_TONES[identity.skin_tone - 1])
    body = face.fill([np.concatenate([spine - half * down, (spine + half * down)[::-1]])], soft=0.012)
    face.paint(body, hair, 0.75)
    rng = np.random.default_rng(identity.texture_seed)
    at = rng.integers(0, 17, 26)
    start = spine[at] + half[at] * rng.uniform(-0.4, 1.0, (26, 1)) * down
    lean = np.stack(
        [sign * rng.uniform(0.02, 0.06, 26), -rng.uniform(0.25, 1.0, 26) * half[at, 0] * 1.6], axis=1
    )
    face.paint(
        face.stroke([np.stack(s) for s in zip(start, start + lean, strict=True)], 0.008), hair * 0.6, 0.6
    )
    face.lift(body, 0.008)
