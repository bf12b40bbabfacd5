"""Cast rays and light: where each pixel's ray meets the head, and how bright the surface is there.

The head is a stack of horizontal ellipses whose half width and half depth change with y, plus a relief (nose,
brows, lips) along z. The camera is orthographic. Screen coordinates are head coordinates after rotation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from demo_faces import exact

Planes = Sequence | np.ndarray
"""Three arrays (h, w), or numbers: colours, or the components of a vector."""
_TABLE_SIZE = 2048
_TABLE_MARGIN = 0.5
_POLE_MARGIN = 0.01
_TOLERANCE = 0.02
_N_ITERATIONS = 7


def encode_colour(hex_rgb: str) -> np.ndarray:
    """Return a hex sRGB colour as linear float32 (3,). Gamma 2 stands in for sRGB's curve: a mere square."""
    rgb = np.frombuffer(bytes.fromhex(hex_rgb), np.uint8).astype(np.float32) / 255
    return rgb * rgb


def encode_palette(hex_rgbs: str) -> tuple[np.ndarray, ...]:
    """Return the linear colours of hex values separated by blanks."""
    return tuple(encode_colour(value) for value in hex_rgbs.split())


# The ten steps of the Monk Skin Tone scale (Monk 2019), lightest first.
MONK_TONES = encode_palette("f6ede4 f3e7db f7ead0 eadaba d7bd96 a07e56 825c43 604134 3a312a 292420")


@dataclass(frozen=True)
class Camera:
    """An orthographic view of the head.

    rotation: float64 (3, 3), head to screen.   centre: the head's origin in canvas pixels.
    ppu: canvas pixels per head unit.   side: canvas side in pixels, even.
    """

    rotation: np.ndarray
    centre: tuple[float, float]
    ppu: float
    side: int

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return canvas pixels (n, 2) of head points (n, 3)."""
        return exact.turn(np.atleast_2d(points), self.rotation[:2]) * self.ppu + self.centre

    def make_grid(self, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return screen x as (1, n) and y as (n, 1) of every `step`-th pixel block's centre, float32."""
        pixels = (np.arange(self.side // step, dtype=np.float32) + 0.5) * step - 0.5
        return ((pixels - self.centre[0]) / self.ppu)[None, :], ((pixels - self.centre[1]) / self.ppu)[
            :, None
        ]


def build_rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the rotation head -> screen, float64 (3, 3): yaw first, then pitch, then roll; degrees."""
    (sy, sp, sr), (cy, cp, cr) = (f(np.radians((yaw, pitch, roll))) for f in (np.sin, np.cos))
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return exact.turn(tilt, exact.turn(nod, turn.T).T)


@dataclass(frozen=True)
class Profile:
    """Lookup tables over y, float32 (n,): half width², (half width / half depth)², and their derivatives.

    The squared width passes through 0 at crown and chin and goes on below 0, so that it has no kink there.
    """

    y_first: float
    y_step: float
    width2: np.ndarray
    ratio2: np.ndarray
    d_width2: np.ndarray
    d_ratio2: np.ndarray

    def index(self, y: np.ndarray) -> np.ndarray:
        """Return table positions of heights `y`."""
        return np.clip((y - self.y_first) / self.y_step, 0, _TABLE_SIZE - 1).astype(np.int32)


def build_profile(outline: np.ndarray, depth: np.ndarray, grow: float = 0.0) -> Profile:
    """Return the profile of a head from two curves (n, 2) of (radius, y), moved outwards by `grow`."""
    top, bottom = outline[0, 1] - grow, outline[-1, 1] + grow
    y = np.linspace(top - _TABLE_MARGIN, bottom + _TABLE_MARGIN, _TABLE_SIZE)
    width2, depth2 = (_square_radius(curve, y, grow) for curve in (outline, depth))
    inside = np.clip(y, top + _POLE_MARGIN, bottom - _POLE_MARGIN)
    ratio2 = np.interp(inside, y, np.maximum(width2, 1e-6) / np.maximum(depth2, 1e-6))
    step = float(y[1] - y[0])
    slopes = np.gradient(width2, step), np.gradient(ratio2, step)
    return Profile(float(y[0]), step, *(t.astype(np.float32) for t in (width2, ratio2, *slopes)))


def _square_radius(curve: np.ndarray, y: np.ndarray, grow: float) -> np.ndarray:
    """Return radius² at heights `y`; unlike the radius it meets the poles at a finite slope."""
    radius, height = curve.T
    middle, half = (height[0] + height[-1]) / 2, (height[-1] - height[0]) / 2
    height = middle + (height - middle) * (1 + grow / half)
    squared = np.where(radius > 0, radius + grow, 0) ** 2
    slopes = np.gradient(squared, height)
    inner = _interpolate_cubic(np.clip(y, height[0], height[-1]), height, squared, slopes)
    beyond = slopes[0] * np.minimum(y - height[0], 0) + slopes[-1] * np.maximum(y - height[-1], 0)
    return inner + beyond


def _interpolate_cubic(
    x: np.ndarray, knots: np.ndarray, values: np.ndarray, slopes: np.ndarray
) -> np.ndarray:
    """Return the piecewise cubic (Hermite) with these values and slopes at the knots."""
    i = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)
    width = knots[i + 1] - knots[i]
    t = (x - knots[i]) / width
    rise = values[i + 1] - values[i]
    bend_start, bend_end = slopes[i] * width - rise, rise - slopes[i + 1] * width
    return values[i] + t * rise + t * (1 - t) * ((1 - t) * bend_start + t * bend_end)


@dataclass(frozen=True)
class Hits:
    """Where rays meet a surface; float32 (side, side) each.

    x, y, z: head coordinates.   gx, gy, gz: outward gradient, not normalised.   alpha: coverage 0..1.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    gx: np.ndarray
    gy: np.ndarray
    gz: np.ndarray
    alpha: np.ndarray


def cast_rays(camera: Camera, profile: Profile, relief: "Relief | None" = None) -> Hits:
    """Return the first hit of each pixel's ray with the surface x² + ratio²(y) z² = width²(y).

    With ratio² held and width² linear in y, the hit is the root of a quadratic in the ray's parameter t; both
    are taken anew at each estimate. The grid is solved at half resolution, as the surface is smooth.
    """
    sx, sy = camera.make_grid(step=2)
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = camera.rotation.astype(np.float32)
    x0, y0, z0 = ax * sx + bx * sy, ay * sx + by * sy, az * sx + bz * sy
    t = np.full(x0.shape, 0.5, np.float32)
    height = np.zeros_like(t)
    for _ in range(_N_ITERATIONS):
        y = y0 + cy * t
        row = profile.index(y)
        ratio2, slope = profile.ratio2[row], profile.d_width2[row]
        if relief is not None:
            # Averaging with the last estimate keeps steep places (the nose) from oscillating.
            height = 0.5 * (height + relief.sample(x0 + cx * t, y))
        zr = z0 - height
        a = cx * cx + ratio2 * (cz * cz)
        b = (x0 * cx + ratio2 * zr * cz - 0.5 * cy * slope) / a
        c = x0 * x0 + ratio2 * zr * zr - profile.width2[row] + slope * cy * t
        excess = c - a * b * b  # at the ray's deepest point; negative inside
        t = np.sqrt(np.maximum(-excess, 0) / a) - b
    x, y, z = x0 + cx * t, y0 + cy * t, z0 + cz * t - height
    row = profile.index(y)
    gx, gz = x, profile.ratio2[row] * z
    gy = 0.5 * (z * z * profile.d_ratio2[row] - profile.d_width2[row])
    steepness = 2 * np.sqrt(gx * gx + gy * gy + gz * gz + 1e-6)
    inside = -excess / steepness  # distance from the outline, head units
    # A ray that passes below the chin may still meet the linear width²; its end is then far from the surface.
    residual = np.abs(x * gx + z * gz - profile.width2[row]) / steepness
    inside = np.minimum(inside, 2 * _TOLERANCE - residual)
    inside, x, y, z, gx, gy, gz = (exact.double(plane) for plane in (inside, x, y, z, gx, gy, gz))
    alpha = np.clip(inside * camera.ppu + 0.5, 0, 1)
    return Hits(x, y, z, gx, gy, gz, alpha)


@dataclass(frozen=True)
class Relief:
    """Heights along z over the face, float32 (h, w): `ppu` pixels per head unit, `origin` at pixel 0."""

    height: np.ndarray
    ppu: float
    origin: tuple[float, float]

    def sample(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return heights at head coordinates, float32, 0 outside."""
        columns, rows = (x - self.origin[0]) * self.ppu - 0.5, (y - self.origin[1]) * self.ppu - 0.5
        return exact.resample(self.height, columns, rows)


@dataclass(frozen=True)
class Light:
    """A key light, a weak fill from the other side, and light from all around.

    direction, fill: unit vectors towards the light in the coordinates of the surface, float32 (3,).
    up: the screen's upward direction in the same coordinates.
    """

    direction: np.ndarray
    fill: np.ndarray
    up: np.ndarray
    strength: float

    def rotate(self, rotation: np.ndarray) -> "Light":
        """Return the light in the coordinates of a head with this rotation (head -> screen)."""
        to_head = rotation.T.astype(np.float32)
        direction, fill, up = (exact.turn(one, to_head) for one in (self.direction, self.fill, self.up))
        return Light(direction, fill, up, self.strength)


def build_light(azimuth: float, elevation: float, strength: float) -> Light:
    """Return a light in screen coordinates; degrees, positive from the right and from above."""

    def aim(az: float, el: float) -> np.ndarray:
        az, el = np.radians((az, el))
        return np.array((np.sin(az) * np.cos(el), -np.sin(el), np.cos(az) * np.cos(el)), np.float32)

    fill_azimuth = -60.0 if azimuth > 0 else 60.0
    return Light(aim(azimuth, elevation), aim(fill_azimuth, 0), np.array((0, -1, 0), np.float32), strength)


# Red light travels further inside skin, so it wraps further around the terminator.
SKIN_WRAP = (0.4, 0.24, 0.17)
MATTE_WRAP = (0.15, 0.15, 0.15)
_KEY, _FILL, _AMBIENT = 0.74, 0.1, 0.2
_SKY, _GROUND = (1.15, 1.2, 1.28), (0.8, 0.7, 0.62)
_VIEW = np.array((0, 0, 1), np.float32)


def shade(
    albedo: Planes,
    normal: Planes,
    light: Light,
    view: np.ndarray = _VIEW,
    wrap: tuple[float, float, float] = MATTE_WRAP,
    occlusion: np.ndarray | float = 1.0,
    gloss: np.ndarray | float = 0.0,
    shininess: int = 16,
) -> np.ndarray:
    """Return linear light (h, w, 3) leaving a surface: wrapped Lambert, hemisphere ambient, Blinn-Phong.

    albedo: three planes (h, w) or numbers, linear.   normal: unit, three planes.   occlusion, gloss: (h, w)
    or a number.   view: unit vector towards the camera.   wrap: per colour.   `shininess` is a power of two.
    """

    def dot(direction: np.ndarray) -> np.ndarray:
        return normal[0] * direction[0] + normal[1] * direction[1] + normal[2] * direction[2]

    key, fill, up = dot(light.direction), np.maximum(dot(light.fill), 0), dot(light.up)
    half = light.direction + view
    length = np.sqrt(half[0] * half[0] + half[1] * half[1] + half[2] * half[2])
    highlight = np.maximum(dot(half / length), 0)
    for _ in range(shininess.bit_length() - 1):
        highlight = highlight * highlight
    highlight = highlight * gloss
    received = light.strength * occlusion
    planes = []
    for c in range(3):
        around = _AMBIENT * 0.5 * ((_SKY[c] + _GROUND[c]) + (_SKY[c] - _GROUND[c]) * up)
        diffuse = np.maximum(key + wrap[c], 0) * (_KEY / (1 + wrap[c])) + _FILL * fill + around
        planes.append((albedo[c] * diffuse + highlight) * received)
    return cv2.merge(planes)


def normalise(gx: np.ndarray, gy: np.ndarray, gz: np.ndarray) -> Planes:
    """Return unit vectors as three planes (h, w)."""
    inverse = 1 / np.sqrt(gx * gx + gy * gy + gz * gz + 1e-12)
    return gx * inverse, gy * inverse, gz * inverse


def blend(canvas: np.ndarray, colour: np.ndarray | np.floating, coverage: np.ndarray) -> None:
    """Blend a colour, (3,) or (h, w, 3), over the canvas (h, w, 3) where coverage (h, w) says."""
    x, y, width, height = cv2.boundingRect((coverage > 0).view(np.uint8))
    if width == 0:
        return
    window = (slice(y, y + height), slice(x, x + width))
    area = canvas[window]
    source = np.asarray(colour)[window] if np.ndim(colour) == 3 else colour
    area += (source - area) * cv2.merge([coverage[window]] * 3)


def rasterise(
    shape: tuple[int, int], polygons: list[np.ndarray], thickness: int = 0, closed: bool = True
) -> np.ndarray:
    """Return the coverage, float32 `shape`, of polygons (n, 2) in pixels: filled, or as lines if thick."""
    mask = np.zeros(shape, np.uint8)
    fixed = [exact.fix(points, 4) for points in polygons]
    if thickness:
        cv2.polylines(mask, fixed, closed, 255, thickness, cv2.LINE_AA, 4)
    else:
        cv2.fillPoly(mask, fixed, 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) * np.float32(1 / 255)
