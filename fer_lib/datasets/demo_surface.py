"""Geometry and light: where each pixel's ray meets the head, and how bright the surface is there.

The head is a stack of horizontal ellipses whose half width and half depth change with y, plus a relief (nose,
brows, lips) along z. The camera is orthographic. Screen coordinates are head coordinates after rotation.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator

_TABLE_SIZE = 2048
_TABLE_MARGIN = 0.5
_SMALLEST_RADIUS = 0.02
_N_ITERATIONS = 5


def encode_colour(hex_rgb: str) -> np.ndarray:
    """Return a hex sRGB colour as linear float32 (3,). Gamma 2 stands in for sRGB's curve: it is a mere square."""
    rgb = np.frombuffer(bytes.fromhex(hex_rgb), np.uint8).astype(np.float32) / 255
    return rgb * rgb


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
        return (np.atleast_2d(points) @ self.rotation.T)[:, :2] * self.ppu + self.centre

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
    return tilt @ nod @ turn


@dataclass(frozen=True)
class Profile:
    """Lookup tables over y of 1 / half width², 1 / half depth², and their derivatives; float32 (n,)."""

    y_first: float
    y_step: float
    inverse_width: np.ndarray
    inverse_depth: np.ndarray
    d_inverse_width: np.ndarray
    d_inverse_depth: np.ndarray

    def index(self, y: np.ndarray) -> np.ndarray:
        """Return table positions of heights `y`."""
        return np.clip((y - self.y_first) / self.y_step, 0, _TABLE_SIZE - 1).astype(np.int32)


def build_profile(outline: np.ndarray, depth: np.ndarray, grow: float = 0.0) -> Profile:
    """Return the profile of a head from two curves (n, 2) of (radius, y), moved outwards by `grow`."""
    y = np.linspace(outline[0, 1] - _TABLE_MARGIN, outline[-1, 1] + _TABLE_MARGIN, _TABLE_SIZE)
    tables = []
    for curve in (outline, depth):
        radius, height = curve[:, 0] + grow, curve[:, 1]
        middle = (height[0] + height[-1]) / 2
        height = middle + (height - middle) * (1 + grow * 2 / (height[-1] - height[0]))
        # A curve through (radius, y) is vertical at its ends; radius² is not, and interpolates well.
        squared = PchipInterpolator(height, np.where(curve[:, 0] > 0, radius, 0) ** 2)
        inside = (y > height[0]) & (y < height[-1])
        tables.append(1 / np.maximum(np.where(inside, squared(y), 0), _SMALLEST_RADIUS**2))
    step = float(y[1] - y[0])
    slopes = [np.gradient(table, step) for table in tables]
    return Profile(float(y[0]), step, *(t.astype(np.float32) for t in (*tables, *slopes)))


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
    """Return the first hit of each pixel's ray with the head's surface.

    At fixed y and relief the surface is an ellipse and the hit a root of a quadratic; y and the relief at the
    hit follow by iterating. The grid is solved at half resolution, as the surface is smooth.
    """
    sx, sy = camera.make_grid(step=2)
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = camera.rotation.astype(np.float32)
    x0, y0, z0 = ax * sx + bx * sy, ay * sx + by * sy, az * sx + bz * sy
    t = np.full(x0.shape, 0.5, np.float32)
    height = np.float32(0)
    for _ in range(_N_ITERATIONS):
        row = profile.index(y0 + cy * t)
        iw, id_ = profile.inverse_width[row], profile.inverse_depth[row]
        if relief is not None:
            height = relief.sample(x0 + cx * t, y0 + cy * t)
        zr = z0 - height
        a = cx * cx * iw + cz * cz * id_
        b = (x0 * cx * iw + zr * cz * id_) / a
        radius2 = x0 * x0 * iw + zr * zr * id_ - a * b * b  # squared radius of the ray's deepest point
        # Averaging with the last estimate keeps steep places (chin, crown, nose) from oscillating.
        t = 0.5 * t + 0.5 * (np.sqrt(np.maximum(1 - radius2, 0) / a) - b)
    x, y, z = x0 + cx * t, y0 + cy * t, z0 + cz * t - height
    row = profile.index(y)
    gx, gz = x * profile.inverse_width[row], z * profile.inverse_depth[row]
    gy = 0.5 * (x * x * profile.d_inverse_width[row] + z * z * profile.d_inverse_depth[row])
    signed = (1 - np.sqrt(np.maximum(radius2, 0))) / np.sqrt(iw)  # distance inside the outline, in head units
    side = (camera.side, camera.side)
    first = cv2.resize(cv2.merge([x, y, z]), side)
    second = cv2.resize(cv2.merge([gx, gy, gz, signed]), side)
    alpha = np.clip(second[..., 3] * camera.ppu + 0.5, 0, 1)
    return Hits(*cv2.split(first), *cv2.split(second)[:3], alpha)


@dataclass(frozen=True)
class Relief:
    """Heights along z over the face, float32 (rows, columns), `ppu` pixels per head unit, `origin` at pixel 0."""

    height: np.ndarray
    ppu: float
    origin: tuple[float, float]

    def sample(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return heights at head coordinates, float32, 0 outside."""
        columns, rows = (x - self.origin[0]) * self.ppu - 0.5, (y - self.origin[1]) * self.ppu - 0.5
        return cv2.remap(self.height, columns, rows, cv2.INTER_LINEAR)


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
        turn = rotation.T.astype(np.float32)
        return Light(turn @ self.direction, turn @ self.fill, turn @ self.up, self.strength)


def build_light(azimuth: float, elevation: float, strength: float) -> Light:
    """Return a light in screen coordinates; degrees, positive from the right and from above."""

    def aim(az: float, el: float) -> np.ndarray:
        az, el = np.radians((az, el))
        return np.array((np.sin(az) * np.cos(el), -np.sin(el), np.cos(az) * np.cos(el)), np.float32)

    fill_azimuth = -60.0 if azimuth > 0 else 60.0
    return Light(aim(azimuth, elevation), aim(fill_azimuth, 0), np.array((0, -1, 0), np.float32), strength)


# Red light travels further inside skin, so it wraps further around the terminator.
SKIN_WRAP = np.array((0.45, 0.28, 0.2), np.float32)
MATTE_WRAP = np.array((0.15, 0.15, 0.15), np.float32)
_KEY, _FILL, _AMBIENT = 0.78, 0.14, 0.24
_SKY, _GROUND = np.array((0.95, 1.0, 1.08), np.float32), np.array((1.0, 0.88, 0.78), np.float32)
_VIEW = np.array((0, 0, 1), np.float32)


def shade(
    albedo: np.ndarray,
    normal: np.ndarray,
    light: Light,
    view: np.ndarray = _VIEW,
    wrap: np.ndarray = MATTE_WRAP,
    occlusion: np.ndarray | float = 1.0,
    gloss: np.ndarray | float = 0.0,
    shininess: int = 16,
) -> np.ndarray:
    """Return linear light (h, w, 3) leaving a surface: wrapped Lambert, hemisphere ambient, Blinn-Phong.

    albedo: linear (h, w, 3) or (3,).   normal: unit (h, w, 3).   occlusion, gloss: (h, w) or a number.
    `shininess` is a power of two.
    """
    occlusion = np.asarray(occlusion, np.float32)[..., None]
    gloss = np.asarray(gloss, np.float32)
    key = np.maximum(((normal @ light.direction)[..., None] + wrap) / (1 + wrap), 0)
    fill = np.maximum(normal @ light.fill, 0)[..., None]
    sky = (normal @ light.up * 0.5 + 0.5)[..., None]
    received = _KEY * key + _FILL * fill
    received = received + _AMBIENT * (_GROUND + (_SKY - _GROUND) * sky)
    half = light.direction + view
    highlight = np.maximum(normal @ (half / np.linalg.norm(half)), 0)
    for _ in range(int(shininess).bit_length() - 1):
        highlight = highlight * highlight
    return light.strength * (albedo * received * occlusion + (gloss * highlight)[..., None] * occlusion)


def normalise(gx: np.ndarray, gy: np.ndarray, gz: np.ndarray) -> np.ndarray:
    """Return unit vectors (h, w, 3) from three components (h, w)."""
    inverse = 1 / np.sqrt(gx * gx + gy * gy + gz * gz + 1e-12)
    return cv2.merge([gx * inverse, gy * inverse, gz * inverse])
