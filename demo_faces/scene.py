"""Draw a whole image: the painted face posed and lit, with neck, clothes, hair, glasses and mask."""

import cv2
import numpy as np

from demo_faces import exact
from demo_faces.anatomy import REGIONS, Anatomy, build_anatomy, get_active_regions
from demo_faces.canvas import MAP_ORIGIN, FaceMap, shift, spline
from demo_faces.factors import FaceFactors
from demo_faces.hair import build_hair
from demo_faces.painting import paint_face
from demo_faces.rendering import (
    MATTE_WRAP,
    MONK_TONES,
    SKIN_WRAP,
    Camera,
    Hits,
    Light,
    Relief,
    blend,
    build_light,
    build_profile,
    build_rotation,
    cast_rays,
    encode_colour,
    encode_palette,
    normalise,
    rasterise,
    shade,
)

_SUPERSAMPLING = 2
_HEAD_UNITS_ACROSS = 2.62  # how much of the head plane the image's side spans
_EXPOSURE = 0.9
_ADAPTATION = 0.5
_NECK_ROOT = np.array((0, 0.75, -0.3))
_SHOULDER_Y, _SHOULDER_HALF = 1.12, 1.5
_SKIN_GLOSS = 0.05
_MAP_DETAIL = 1.15  # map pixels per canvas pixel

_FRAME_COLOURS = encode_palette("1a1718 4a2e20 6e6e74 3d1f2b 24344f")
_MASK_COLOUR = encode_colour("a9cfe0")
_LENSES = {"glasses": (0.45, 0.04), "sunglasses": (0.012, 0.94)}  # grey level and opacity of the glass
_LENS_FRONT = 0.97  # distance of the bridge from the head's axis
_LENS_CURVE = 0.65
_LENS_HALF = (0.255, 0.19)
_LENS_EXPONENTS = (0.5, 1.0)
_ARM_HIDDEN = 0.1  # sine of the yaw from which the far arm is behind the head
_FRAME_WIDTH = 0.026


def draw_face(factors: FaceFactors, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one face; the same factors give the same bytes.

    Parameters
    ----------
    factors
        All that the image shows.
    size
        Its side in pixels.

    Returns
    -------
    uint8 RGB (size, size, 3)
        The image.
    bool (size, size)
        The regions that the emotion's prototype deforms.
    """
    side = size * _SUPERSAMPLING
    camera = _build_camera(factors, side)
    skin = _expose(factors.identity.skin_tone)
    anatomy = build_anatomy(factors.identity, factors.aus, factors.asymmetry)
    face = FaceMap(side / _HEAD_UNITS_ACROSS * _MAP_DETAIL, skin, _SKIN_GLOSS)
    paint_face(face, factors, anatomy)
    if factors.mask:
        _paint_medical_mask(face, anatomy)
    relief = Relief(exact.blur(face.height, 0.03 * face.ppu), face.ppu, MAP_ORIGIN)
    head = cast_rays(camera, build_profile(anatomy.outline, anatomy.depth), relief)
    strength = factors.light_strength * _EXPOSURE
    light = build_light(factors.light_azimuth, factors.light_elevation, strength)
    canvas = _compose(factors, camera, anatomy, face, head, light)
    image = _develop(canvas, factors, size)
    regions = _project_regions(factors.emotion, face, head, size)
    return image, regions


def _expose(tone: int) -> np.ndarray:
    """Return a tone of the Monk scale as a camera that exposes for the face shows it, linear (3,)."""
    skin, lightest = MONK_TONES[tone - 1], MONK_TONES[0]
    return skin * np.float32((float(lightest.sum()) / float(skin.sum())) ** _ADAPTATION)


def _build_camera(factors: FaceFactors, side: int) -> Camera:
    rotation = build_rotation(factors.yaw, factors.pitch, factors.roll)
    ppu = side / _HEAD_UNITS_ACROSS * factors.scale
    centre = (side * (0.5 + factors.shift_x) - 0.5, side * (0.505 + factors.shift_y) - 0.5)
    return Camera(rotation, centre, ppu, side)


def _compose(
    factors: FaceFactors, camera: Camera, anatomy: Anatomy, face: FaceMap, head: Hits, light: Light
) -> np.ndarray:
    """Return linear RGB float32 (side, side, 3), painted from back to front."""
    rng = np.random.default_rng(factors.scene_seed)
    skin = _expose(factors.identity.skin_tone)
    head_light = light.rotate(camera.rotation)
    hair = build_hair(factors.identity, anatomy, camera, head_light)
    canvas = _draw_backdrop(camera.side, rng)
    if hair is not None:
        blend(canvas, hair.back_colour, hair.back)
    _draw_body(canvas, factors, camera, anatomy, light, skin, rng)
    far, near = (-1, 1) if factors.yaw < 0 else (1, -1)
    _draw_ear(canvas, far, camera, anatomy, light, skin)
    blend(canvas, _shade_head(face, head, camera, head_light), head.alpha)
    if abs(factors.yaw) > 4:
        _draw_ear(canvas, near, camera, anatomy, light, skin)
    if factors.glasses != "none":
        _draw_glasses(canvas, factors, camera, anatomy)
    if hair is not None:
        blend(canvas, hair.colour, hair.front)
    return canvas


def _shade_head(face: FaceMap, head: Hits, camera: Camera, light: Light) -> np.ndarray:
    height = face.height.astype(np.float64)
    slope_x = cv2.Sobel(height, cv2.CV_64F, 1, 0, scale=face.ppu / 8)
    slope_y = cv2.Sobel(height, cv2.CV_64F, 0, 1, scale=face.ppu / 8)
    columns, rows = _map_pixels(face, head)
    layers = np.dstack([face.albedo, face.occlusion])
    *albedo, occlusion = cv2.split(exact.resample(layers, columns, rows, cv2.BORDER_REPLICATE))
    layers = np.dstack([slope_x, slope_y, face.gloss])
    slope_x, slope_y, gloss = cv2.split(exact.resample(layers, columns, rows))
    front = np.maximum(head.gz, 0)
    normal = normalise(head.gx - front * slope_x, head.gy - front * slope_y, head.gz)
    view = camera.rotation[2].astype(np.float32)
    return shade(albedo, normal, light, view, SKIN_WRAP, occlusion, gloss)


def _map_pixels(face: FaceMap, head: Hits) -> tuple[np.ndarray, np.ndarray]:
    """Return the map's column and row under each canvas pixel, float32."""
    return (head.x - MAP_ORIGIN[0]) * face.ppu - 0.5, (head.y - MAP_ORIGIN[1]) * face.ppu - 0.5


def _draw_backdrop(side: int, rng: np.random.Generator) -> np.ndarray:
    """Return a blurred wall: a muted colour that fades along a random direction, with a soft glow."""
    hue = rng.uniform(0, 2 * np.pi)
    value, chroma = rng.uniform(0.06, 0.45), rng.uniform(0.0, 0.3)
    tint = 1 + chroma * np.cos(hue - np.array((0, 2.1, 4.2)))
    ramp = np.linspace(-1, 1, side)
    angle = rng.uniform(0, 2 * np.pi)
    slope_x, slope_y = 0.3 * float(np.cos(angle)), 0.3 * float(np.sin(angle))
    fade = 1 + slope_x * ramp[None, :] + slope_y * ramp[:, None]
    gx, gy = rng.uniform(-0.8, 0.8, 2).tolist()
    glow = np.outer(np.exp(-((ramp - gy) ** 2) * 2), np.exp(-((ramp - gx) ** 2) * 2))
    return ((fade + 0.35 * glow)[..., None] * (value * tint)).astype(np.float32)


def _draw_body(
    canvas: np.ndarray,
    factors: FaceFactors,
    camera: Camera,
    anatomy: Anatomy,
    light: Light,
    skin: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Draw neck and shoulders as upright cylinders; they do not follow the head in yaw and pitch."""
    sx, sy = camera.make_grid()
    # Plain floats from here on: a NumPy double would turn every float32 array into a double one.
    root_x, root_y = ((camera.project(_NECK_ROOT) - camera.centre) / camera.ppu)[0].tolist()
    under_chin = np.array((0, anatomy.outline[-1, 1], 0.3))
    jaw_y = ((camera.project(under_chin) - camera.centre) / camera.ppu)[0].tolist()[1]
    half = 0.29 + 0.1 * factors.identity.masculinity
    from_axis = sx - root_x * np.clip(1 - (sy - root_y) * 0.6, 0, 1)

    across = from_axis / (half + 0.35 * np.clip(sy - root_y - 0.3, 0, 1) ** 2)
    coverage = np.clip((1 - np.abs(across)) * (half * camera.ppu) + 0.5, 0, 1) * (sy > root_y - 0.3)
    shadow = 0.45 + 0.55 * np.clip((sy - jaw_y) / 0.4 + 0.25 * across * across, 0, 1)
    blend(canvas, _shade_cylinder(skin, across, light, shadow, SKIN_WRAP), coverage)

    beside_neck = np.abs(from_axis) - half
    collar = 0.2 * np.sqrt(np.clip(1 - (from_axis / (half + 0.08)) ** 2, 0, 1))
    below_edge = sy - (_SHOULDER_Y + 0.25 * np.maximum(beside_neck, 0)) - collar
    cloth = (rng.uniform(0.1, 0.7) + rng.uniform(-0.12, 0.12, 3)).astype(np.float32) ** 2
    coverage = np.clip(below_edge * camera.ppu + 0.5, 0, 1)
    across = np.broadcast_to(sx / _SHOULDER_HALF, coverage.shape)
    blend(canvas, _shade_cylinder(cloth, across, light, 0.85, MATTE_WRAP), coverage)


def _shade_cylinder(
    albedo: np.ndarray,
    across: np.ndarray,
    light: Light,
    occlusion: np.ndarray | float,
    wrap: tuple[float, float, float],
) -> np.ndarray:
    """Shade an upright cylinder; `across` runs from -1 at its left edge to 1 at its right."""
    nx = np.clip(across, -0.98, 0.98).astype(np.float32)
    normal = (nx, np.float32(0), np.sqrt(1 - nx * nx))
    return shade(albedo, normal, light, wrap=wrap, occlusion=occlusion)


def _draw_ear(
    canvas: np.ndarray, sign: float, camera: Camera, anatomy: Anatomy, light: Light, skin: np.ndarray
) -> None:
    """Draw an ear as a shaded flap that turns with the head."""
    half_width = np.interp(0.05, anatomy.outline[:, 1], anatomy.outline[:, 0])
    centre = np.array((sign * (half_width + 0.035), 0.06, -0.12))
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    rim = np.stack([sign * 0.05 * np.cos(angle), 0.21 * np.sin(angle), -0.11 * np.cos(angle)], axis=1)
    rim[:, :] *= (1 - 0.22 * np.sin(angle))[:, None]
    normal = exact.turn(np.array((sign * 0.6, 0, 0.8)), camera.rotation)
    lit = shade(
        skin * np.array((0.86, 0.72, 0.68), np.float32),
        normal.astype(np.float32).reshape(3, 1, 1),
        light,
        wrap=SKIN_WRAP,
    )
    for scale, tone in ((1.0, 1.0), (0.62, 0.62)):
        coverage = rasterise(canvas.shape[:2], [camera.project(centre + rim * scale)])
        blend(canvas, lit[0, 0] * np.float32(tone), coverage)


def _draw_glasses(canvas: np.ndarray, factors: FaceFactors, camera: Camera, anatomy: Anatomy) -> None:
    """Draw spectacles before the eyes, with the arms that the head does not hide."""
    identity = factors.identity
    frame = _FRAME_COLOURS[identity.texture_seed % len(_FRAME_COLOURS)]
    exponent = _LENS_EXPONENTS[identity.texture_seed // 7 % len(_LENS_EXPONENTS)]
    thickness = max(1, round(_FRAME_WIDTH * camera.ppu))
    lenses, lines = [], []
    for sign, points, _ in anatomy.get_sides():
        centre = (points["eye_inner"] + points["eye_outer"]) / 2 + (sign * 0.015, 0.02)
        lenses.append(_trace_lens(centre, exponent))
        lines.append(_trace_bridge(centre, sign))
        if sign * camera.rotation[0, 2] < _ARM_HIDDEN:
            lines.append(_trace_arm(centre, sign))
    shape = canvas.shape[:2]
    lenses = [camera.project(lens) for lens in lenses]
    colour, opacity = _LENSES[factors.glasses]
    blend(canvas, np.float32(colour), rasterise(shape, lenses) * np.float32(opacity))
    blend(canvas, frame, rasterise(shape, lenses, thickness))
    blend(canvas, frame, rasterise(shape, [camera.project(line) for line in lines], thickness, closed=False))


def _wrap_around(points: np.ndarray) -> np.ndarray:
    """Lift front-view points (n, 2) onto the curved plane of the spectacles, (n, 3)."""
    return np.column_stack([points, _LENS_FRONT - _LENS_CURVE * points[:, 0] ** 2])


def _trace_lens(centre: np.ndarray, exponent: float) -> np.ndarray:
    """Return a superellipse, (40, 3); a low exponent is boxy, 1 an ellipse."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _wrap_around(centre + _LENS_HALF * np.sign(unit) * np.abs(unit) ** exponent)


def _trace_bridge(centre: np.ndarray, sign: float) -> np.ndarray:
    start = centre - (sign * _LENS_HALF[0], 0.04)
    return _wrap_around(spline([start, (start[0] / 2, centre[1] - 0.065), (0, centre[1] - 0.075)], 7))


def _trace_arm(centre: np.ndarray, sign: float) -> np.ndarray:
    hinge = _wrap_around((shift(centre, sign * _LENS_HALF[0], -0.06))[None])[0]
    ear = np.array((sign * 0.78, -0.08, -0.05))
    return np.stack([hinge, (hinge + ear) / 2 + (sign * 0.05, 0, 0), ear])


def _paint_medical_mask(face: FaceMap, anatomy: Anatomy) -> None:
    """Paint a pleated mask from the nose to below the chin, over whatever the face shows there."""
    chin = anatomy.get_middle("chin")[1]
    edge = np.array(
        [(0, 0.08), (0.2, 0.16), (0.5, 0.3), (0.72, 0.36), (0.66, 0.7), (0.4, chin), (0, chin + 0.25)]
    )
    outline = np.concatenate([edge, (edge * (-1, 1))[::-1]])
    stamp = face.fill([outline], soft=0.006)
    face.paint(stamp, _MASK_COLOUR)
    face.occlusion[stamp.window] += (1 - face.occlusion[stamp.window]) * stamp.coverage
    face.polish(stamp, 0.0)
    smooth = exact.blur(face.height, 0.08 * face.ppu)
    face.height[stamp.window] += (smooth - face.height)[stamp.window] * stamp.coverage
    for y in (0.45, 0.58, 0.71):
        pleat = face.stroke([spline([(-0.62, y - 0.03), (0, y + 0.02), (0.62, y - 0.03)])], 0.014, soft=0.01)
        face.lift(pleat, -0.012)
        face.darken(pleat, 0.25)


def _develop(canvas: np.ndarray, factors: FaceFactors, size: int) -> np.ndarray:
    """Scale down, blur, apply the display curve and add the sensor's noise."""
    image = exact.halve(canvas)
    if factors.blur_sigma > 0:
        image = exact.blur(image, factors.blur_sigma)
    image = np.sqrt(np.maximum(image, 0))
    image = image / (1 + np.maximum(image - 0.8, 0))  # a shoulder instead of hard white
    if factors.noise_sigma > 0:
        rng = np.random.default_rng([factors.scene_seed, 1])
        image = image + factors.noise_sigma * rng.standard_normal(image.shape, np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _project_regions(emotion: str, face: FaceMap, head: Hits, size: int) -> np.ndarray:
    mask = np.zeros(face.shape, np.uint8)
    for name in get_active_regions(emotion):
        x, y, rx, ry = REGIONS[name]
        for sign in {1, -1 if x else 1}:
            centre = (np.array((sign * x, y)) - MAP_ORIGIN) * face.ppu
            axes = (round(rx * face.ppu), round(ry * face.ppu))
            cv2.ellipse(mask, np.round(centre).astype(int).tolist(), axes, 0, 0, 360, 255, -1)
    columns, rows = _map_pixels(face, head)
    posed = cv2.remap(mask, columns, rows, cv2.INTER_LINEAR)
    posed = posed * ((head.alpha > 0.5) & (head.z > 0))
    return cv2.resize(posed, (size, size), interpolation=cv2.INTER_AREA) > 127
