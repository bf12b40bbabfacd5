"""Any picture a person may bring, as uint8 RGB; whatever cannot be one is refused in a sentence."""

import io
import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_lib.errors import MediaError

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow decodes in its own process; EPS, for one, would start another program."""

SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

MAX_PIXELS = 50_000_000
"""What today's telephones make at most. Decoded it takes 150 MB; a bomb of a few kilobytes asks for more."""

MIN_SIDE = 8
MAX_SIDE = 32_000
"""Pixels: OpenCV turns nothing longer."""

ImageSource = str | Path | bytes | BinaryIO | np.ndarray | Image.Image

# Pillow warns of damaged metadata, which no reader can act on. (`catch_warnings` is not safe among threads.)
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image(source: ImageSource) -> np.ndarray:
    """Return a picture as uint8 (H, W, 3) RGB, upright as its EXIF orientation says.

    source: a file's path, its bytes, an open binary file, a PIL image, or an array (H, W), (H, W, 1),
    (H, W, 3) RGB or (H, W, 4) RGBA. Integers of 16 bits are scaled to 8; floats are taken to be in 0..1.
    Transparent parts become white. CMYK and palettes are converted; of several frames the first counts.
    Raises MediaError: no picture, damaged, over `MAX_PIXELS` or `MAX_SIDE`, or under `MIN_SIDE`.
    """
    if isinstance(source, np.ndarray):
        return _convert_array(source, "the array")
    name = _find_name(source)
    try:
        if isinstance(source, Image.Image):
            return _convert(source, name)
        with Image.open(_open(source, name), formats=FORMATS) as image:
            return _convert(image, name)
    except MediaError:
        raise
    except UnidentifiedImageError:
        raise MediaError(
            f"{name}: expected a picture, found a file that is none; "
            "use JPEG, PNG, WebP, TIFF, AVIF, BMP or GIF"
        ) from None
    except Image.DecompressionBombError:
        raise MediaError(f"{name}: the picture is far too large to open; make it smaller first") from None
    except PermissionError:
        raise MediaError(f"{name}: the file may not be read; check its permissions") from None
    except Exception as error:  # on damaged files Pillow's decoders raise whatever they stumble over
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise MediaError(f"{name}: the picture is damaged ({reason}); save it again or use another") from None


def _find_name(source: ImageSource) -> str:
    """Return what to call the picture: a file's name comes from anywhere, and an error is one short line."""
    name = source if isinstance(source, str | Path) else getattr(source, "name", None)
    name = name or getattr(source, "filename", None) or "the picture"
    shown = "".join(letter if letter.isprintable() else "?" for letter in str(name))
    return shown if len(shown) <= 200 else f"{shown[:100]}...{shown[-97:]}"


def _open(source: str | Path | bytes | BinaryIO, name: str) -> str | Path | BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, str | Path):
        if not os.path.isfile(source):
            raise MediaError(f"{name}: expected a picture, found no file; check the path")
    elif not hasattr(source, "read"):
        raise MediaError(
            f"expected a picture, its path or its bytes, found {type(source).__name__}; pass one"
        )
    return source


def _convert(image: Image.Image, name: str) -> np.ndarray:
    _check_size(*image.size, name)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _convert_array(np.asarray(image), name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _convert_array(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise MediaError(
            f"{name}: expected the shape (H, W), (H, W, 3) or (H, W, 4), found {array.shape}; reshape it"
        )
    _check_size(array.shape[1], array.shape[0], name)
    pixels = _to_uint8(array, name)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    if pixels.shape[2] == 4:
        return _convert(Image.fromarray(np.ascontiguousarray(pixels), "RGBA"), name)
    return np.ascontiguousarray(pixels)


def _to_uint8(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise MediaError(f"{name}: expected finite pixels, found NaN or infinity; check what made it")
        # Pillow's float files keep the range of what they were made from.
        top = 1.0 if array.max() <= 1 else 255.0 if array.max() <= 255 else 65535.0
        return np.clip(array * (255 / top), 0, 255).round().astype(np.uint8)
    if np.issubdtype(array.dtype, np.integer):
        # 32-bit containers hold 16-bit pictures (Pillow's mode I), or 8-bit ones.
        top = 65535 if array.dtype == np.uint16 or array.max() > 255 else 255
        return np.clip(array.astype(np.float32) * (255 / top), 0, 255).round().astype(np.uint8)
    raise MediaError(f"{name}: expected numbers as pixels, found {array.dtype}; convert it to uint8")


def _check_size(width: int, height: int, name: str) -> None:
    """Raise MediaError for a picture that is too small or too large, before it is decoded."""
    if min(height, width) < MIN_SIDE:
        raise MediaError(
            f"{name}: the picture is {width} x {height} pixels, too small to hold a face; "
            f"each side needs {MIN_SIDE} at least"
        )
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{name}: the picture has {width * height / 1e6:,.0f} megapixels ({width:,} x {height:,}), "
            f"at most {MAX_PIXELS / 1e6:.0f} are read; make it smaller, 2,000 pixels wide is plenty"
        )
    if max(width, height) > MAX_SIDE:
        raise MediaError(
            f"{name}: the picture is {width:,} x {height:,} pixels, a side may have {MAX_SIDE:,} at most; "
            "make it smaller, or cut it"
        )
