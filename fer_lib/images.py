"""Any picture a person may bring, as uint8 RGB; whatever cannot be one is refused in a sentence."""

import io
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
"""What today's telephones make at most. Decoded it takes 150 MB; a bomb of a few kilobytes could ask for more."""

MIN_SIDE = 8

ImageSource = str | Path | bytes | BinaryIO | np.ndarray | Image.Image


def read_image(source: ImageSource) -> np.ndarray:
    """Return a picture as uint8 (H, W, 3) RGB, upright as its EXIF orientation says.

    source: a file's path, its bytes, an open binary file, a PIL image, or an array (H, W), (H, W, 1), (H, W, 3)
    RGB or (H, W, 4) RGBA. Integers of 16 bits are scaled to 8; floats are taken to be in 0..1. Transparent
    parts become white. CMYK and palettes are converted; of several frames the first counts.
    Raises MediaError: no picture, damaged, over `MAX_PIXELS`, or under 8 pixels wide or high.
    """
    if isinstance(source, np.ndarray):
        return _check_side(_convert_array(source), "the array")
    name = str(source) if isinstance(source, str | Path) else getattr(source, "name", None) or "the picture"
    if isinstance(source, Image.Image):
        return _check_side(_convert(source, name), name)
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of bombs at sizes that are allowed here
            with Image.open(stream, formats=FORMATS) as image:
                return _check_side(_convert(image, name), name)
    except UnidentifiedImageError:
        raise MediaError(
            f"{name}: expected a picture, found a file that is none; use JPEG, PNG, WebP, TIFF, AVIF, BMP or GIF"
        ) from None
    except Image.DecompressionBombError:
        raise MediaError(f"{name}: the picture is far too large to open; make it smaller first") from None
    except (FileNotFoundError, IsADirectoryError):
        raise MediaError(f"{name}: expected a picture, found no file; check the path") from None
    except PermissionError:
        raise MediaError(f"{name}: the file may not be read; check its permissions") from None
    # Pillow's decoders raise these and others on damaged files; none of them is the caller's to handle.
    except (
        OSError,
        SyntaxError,
        ValueError,
        ArithmeticError,
        EOFError,
        LookupError,
        TypeError,
        MemoryError,
        AttributeError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise MediaError(f"{name}: the picture is damaged ({reason}); save it again or use another") from None


def _convert(image: Image.Image, name: str) -> np.ndarray:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{name}: the picture has {width * height / 1e6:,.0f} megapixels ({width:,} x {height:,}), at most "
            f"{MAX_PIXELS / 1e6:.0f} are read; make it smaller, 2,000 pixels wide is plenty"
        )
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _convert_array(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _convert_array(array: np.ndarray) -> np.ndarray:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        raise MediaError(
            f"expected a picture of shape (H, W), (H, W, 3) or (H, W, 4), found an array {array.shape}; reshape it"
        )
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise MediaError(
            f"the array has {array.shape[0] * array.shape[1] / 1e6:,.0f} megapixels, at most "
            f"{MAX_PIXELS / 1e6:.0f} are read; make it smaller"
        )
    pixels = _to_uint8(array)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    if pixels.shape[2] == 4:
        return _convert(Image.fromarray(np.ascontiguousarray(pixels), "RGBA"), "the array")
    return np.ascontiguousarray(pixels)


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise MediaError("expected finite pixels, found NaN or infinity; check what made the array")
        # Pillow's float files keep the range of what they were made from.
        top = 1.0 if array.max() <= 1 else 255.0 if array.max() <= 255 else 65535.0
        return np.clip(array * (255 / top), 0, 255).round().astype(np.uint8)
    if np.issubdtype(array.dtype, np.integer):
        # 32-bit containers hold 16-bit pictures (Pillow's mode I), or 8-bit ones.
        top = 65535 if array.dtype == np.uint16 or array.max() > 255 else 255
        return np.clip(array.astype(np.float32) * (255 / top), 0, 255).round().astype(np.uint8)
    raise MediaError(f"expected numbers as pixels, found an array of {array.dtype}; convert it to uint8")


def _check_side(pixels: np.ndarray, name: str) -> np.ndarray:
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise MediaError(
            f"{name}: the picture is {width} x {height} pixels, too small to hold a face; "
            f"each side needs {MIN_SIDE} at least"
        )
    return pixels
