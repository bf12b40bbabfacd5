"""Draw hair: a shell around the head with a hairline and strands that catch the light; beard and brows."""

from dataclasses import dataclass

import numpy as np

from demo_faces import exact
from demo_faces.anatomy import Anatomy
from demo_faces.canvas import FaceMap, build_noise_field, sample_noise, spline
from demo_faces.factors import Identity
from demo_faces.rendering import (
    MONK_TONES,
    Camera,
    Hits,
    Light,
    build_profile,
    cast_rays,
    encode_colour,
    encode_palette,
    normalise,
    shade,
)

HAIR_PALETTE = {
    "black": encode_colour("1f1a19"),
    "dark brown": encode_colour("3a281f"),
    "brown": encode_colour("5c3d29"),
    "auburn": encode_colour("7d4226"),
    "dark blond": encode_colour("957248"),
    "blond": encode_colour("c9a267"),
    "grey": encode_colour("a9a6a2"),
}
_BROW_CONTRAST = 0.3  # brows are at most this bright beside the skin

# Longitude of the hairline's support points: 0 is the middle of the forehead, 90 the ear; degrees.
_LONGITUDES = (0, 25, 45, 58, 75, 95, 110, 180)
_NECK_FROM, _NAPE_BEHIND, _NECK_HALF = 0.55, -0.2, 0.35


@dataclass(frozen=True)
class HairStyle:
    """grow: thickness in head units.   hairline: height y of the lower edge at `_LONGITUDES`.

    bottom: y of the ends of hair that hangs, or None.   texture: a noise of `canvas`.
    raggedness: how far the edges stray, in head units.   opacity: of the cover over the skin.
    """

    grow: float
    hairline: tuple[float, ...]
    bottom: float | None = None
    texture: str = "strands"
    raggedness: float = 0.02
    sweep: float = 0.0
    opacity: float = 1.0


_SHORT = (-0.72, -0.70, -0.62, -0.40, 0.02, 0.0, 0.1, 0.5)
_OPEN = (-0.82, -0.66, -0.46, -0.12, 0.6, 1.2, 2.0, 2.0)
STYLES = {
    "buzz": HairStyle(0.015, _SHORT, texture="pores", raggedness=0.02, opacity=0.8),
    "short": HairStyle(0.09, _SHORT, sweep=0.16),
    "quiff": HairStyle(0.15, (-0.80, -0.76, -0.64, -0.36, 0.0, 0.0, 0.1, 0.5), raggedness=0.04),
    "curly": HairStyle(
        0.17, (-0.64, -0.62, -0.54, -0.28, 0.1, 0.1, 2.0, 0.6), texture="curls", raggedness=0.07
    ),
    "afro": HairStyle(
        0.34, (-0.70, -0.67, -0.58, -0.3, 0.0, 0.2, 2.0, 0.7), texture="curls", raggedness=0.045
    ),
    "fringe": HairStyle(0.10, (-0.44, -0.45, -0.40, -0.05, 0.55, 1.0, 2.0, 2.0), bottom=0.75),
    "bob": HairStyle(0.13, (-0.68, -0.62, -0.42, -0.05, 0.7, 1.2, 2.0, 2.0), bottom=0.9, sweep=-0.28),
    "long": HairStyle(0.12, _OPEN, bottom=1.7),
    "bun": HairStyle(0.045, (-0.70, -0.68, -0.62, -0.42, 0.02, 0.02, 0.1, 0.5)),
    "headscarf": HairStyle(
        0.09, (-0.66, -0.62, -0.48, -0.1, 1.3, 2.0, 2.0, 2.0), bottom=1.7, texture="skin", raggedness=0.0
    ),
}
_SCARF_COLOURS = encode_palette("31445e 6b3d4f 4c6657 8a7a66 2f2d33 7d5058")


@dataclass(frozen=True)
class Hair:
    """Hair as seen: linear RGB, and coverage (side, side) behind head and neck (`back`) and before them."""

    colour: np.ndarray
    back_colour: np.ndarray
    back: np.ndarray
    front: np.ndarray


def build_hair(identity: Identity, anatomy: Anatomy, camera: Camera, light: Light) -> Hair | None:
    """Return the hair of an identity seen by the camera, or None for a bald head."""
    if identity.hair_style == "bald":
        return None
    style = STYLES[identity.hair_style]
    outline, depth = anatomy.outline, anatomy.depth
    if style.bottom is not None:
        outline, depth = _hang(outline, style.bottom), _hang(depth, style.bottom)
    hits = cast_rays(camera, build_profile(outline, depth, style.grow))
    base = _choose_colour(identity)
    longitude = np.arctan2(np.abs(hits.x), hits.z, dtype=np.float64)
    seed = identity.texture_seed % 256
    around = np.arctan2(hits.x, hits.z + 0.25, dtype=np.float64)
    grain = sample_noise(style.texture, around * 95 + seed, hits.y * 45)
    line = np.interp(np.degrees(longitude), _LONGITUDES, style.hairline).astype(np.float32)
    line += (
        0.5 * style.raggedness * grain
        + style.sweep * hits.x * (hits.z > 0)
        + 0.3 * _recede(identity) * np.maximum(np.cos(longitude), 0)
    )
    front = np.clip((line - hits.y) * camera.ppu * 0.5 + 0.5, 0, 1)
    alpha = hits.alpha
    if style.texture == "curls":
        alpha = _roughen(alpha, camera, style.raggedness, seed)
    colour = _shade_hair(base, hits, grain, light, style)
    # Hair on the nape is behind the neck, however far the head leans back.
    front *= (hits.y < _NECK_FROM) | ((hits.z > _NAPE_BEHIND) & (np.abs(hits.x) > _NECK_HALF))
    nape = style.hairline[_LONGITUDES.index(110)]
    back = alpha * np.clip((nape - hits.y) * camera.ppu + 0.5, 0, 1)
    return Hair(colour, base * 0.18 * light.strength, back, alpha * front * style.opacity)


def _choose_colour(identity: Identity) -> np.ndarray:
    if identity.hair_style == "headscarf":
        return _SCARF_COLOURS[identity.texture_seed % len(_SCARF_COLOURS)]
    return HAIR_PALETTE[identity.hair_colour]


def _recede(identity: Identity) -> float:
    return -max(0.0, identity.age - 0.4) * identity.masculinity


def _hang(curve: np.ndarray, bottom: float) -> np.ndarray:
    """Return the curve without the jaw: below the cheekbones it keeps its radius down to `bottom`."""
    widest = curve[:, 0].max()
    upper = curve[curve[:, 1] < 0]
    ends = [
        (widest * 1.02, bottom * 0.4),
        (widest, bottom * 0.7),
        (widest * 0.75, bottom * 0.92),
        (0.0, bottom),
    ]
    return np.concatenate([upper, ends])


def _roughen(alpha: np.ndarray, camera: Camera, raggedness: float, seed: int) -> np.ndarray:
    """Give the silhouette curls: blur the coverage, then cut it at a level that a noise moves about."""
    sigma = raggedness * camera.ppu
    sx, sy = camera.make_grid()
    columns, rows = np.broadcast_arrays(sx * 95 + seed, sy * 95)
    noise = sample_noise("curls", columns, rows)
    wide = exact.blur(alpha, max(sigma, 0.5))
    return np.clip((wide - 0.5 + 0.13 * noise) * sigma * 1.2 + 0.5, 0, 1) * (wide > 0.02)


def _shade_hair(
    base: np.ndarray, hits: Hits, grain: np.ndarray, light: Light, style: HairStyle
) -> np.ndarray:
    bend = 0.16 if style.texture == "strands" else 0.5 if style.texture == "curls" else 0.1
    scale = 1 / np.sqrt(hits.gx**2 + hits.gy**2 + hits.gz**2 + 1e-12)
    normal = normalise(hits.gx * scale + bend * grain, hits.gy * scale, hits.gz * scale)
    contrast = 0.08 if style.texture == "skin" else 0.22
    texture = np.clip(1 + contrast * grain, 0.3, 2)
    gloss = 0.02 if style.texture != "strands" else 0.06
    return shade(
        [channel * texture for channel in base],
        normal,
        light,
        gloss=gloss * np.clip(1 + 0.6 * grain, 0, 3),
        shininess=8,
    )


def paint_beard(face: FaceMap, identity: Identity, anatomy: Anatomy) -> None:
    """Paint stubble, a moustache or a full beard onto the map."""
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


def paint_brow(face: FaceMap, identity: Identity, points: dict, sign: float) -> None:
    """Paint one side's brow onto the map: its body and single hairs."""
    spine = spline([points["brow_inner"], points["brow_mid"], points["brow_outer"]], 17)
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
