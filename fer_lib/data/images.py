"""Read any image that a person may bring as uint8 pixels, or refuse it in a sentence."""

import io
import os
import warnings
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from fer_lib.data.image_files import show_name
from fer_lib.errors import MediaError

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", "HEIF")
"""What Pillow decodes in its own process; EPS, for one, would start another program."""

MAX_PIXELS = 65_000_000
"""What telephones make of 50 or 64 megapixels. Decoded it takes 195 MB; a bomb of kilobytes asks for more."""

MIN_SIDE = 8
MAX_SIDE = 32_000
"""Pixels: OpenCV turns nothing longer."""

ImageSource = str | Path | bytes | BinaryIO | np.ndarray | Image.Image

# Pillow warns of damaged metadata, which no reader can act on. (`catch_warnings` is not safe among threads.)
warnings.filterwarnings("ignore", module=r"PIL\.")


def _open_heif(file: IO[bytes], name: str | bytes) -> ImageFile.ImageFile:
    try:
        from pillow_heif import HeifImageFile  # the library takes 25 ms, which other files should not pay
    except ModuleNotFoundError:
        raise ImageError(
            "HEIC: expected what the extra `media` installs, found none; install fer-lib with it"
        ) from None

    return HeifImageFile(file, name)


Image.register_open("HEIF", _open_heif, lambda start: start[4:8] == b"ftyp")


class ImageError(ValueError):
    """Why an image cannot be used, in one phrase that does not name it."""


def read_image(source: ImageSource) -> np.ndarray:
    """Return an image as uint8 (H, W, 3) RGB, read as `decode_image` does.

    Raises MediaError, in one line that names the image if it has a name: none, damaged, too large or small.
    """
    try:
        return decode_image(source)
    except ImageError as error:
        reason = str(error)
    except MemoryError:
        reason = "there is too little memory to open the image; make it smaller first"
    name = _find_name(source)
    raise MediaError(f"{name}: {reason}" if name else reason)


def decode_image(source: ImageSource, grey: bool = False) -> np.ndarray:
    """Return an image as uint8 (H, W, 3) RGB, or (H, W) with `grey`, upright as its EXIF orientation says.

    Integers of 16 bits are scaled to 8. The range of floats, and of 16 bits in larger integers, is the least
    of 1, 255 and 65,535 that holds them. Transparent parts become white. CMYK
    and palettes are converted; of several frames the first counts.

    Parameters
    ----------
    source
        A file's path, its bytes, an open binary file, a PIL image, or an array (H, W), (H, W, 1), (H, W, 3)
        RGB or (H, W, 4) RGBA.
    grey
        Convert colours to grey with the weights of ITU-R BT.601.

    Raises
    ------
    ImageError
        Not an image, damaged, over `MAX_PIXELS` or `MAX_SIDE`, or under `MIN_SIDE`.
    """
    try:
        if isinstance(source, np.ndarray):
            return _convert_array(source, grey)
        if isinstance(source, Image.Image):
            return _convert(source, grey)
        with Image.open(_open(source), formats=FORMATS) as image:
            return _convert(image, grey)
    except (ImageError, MemoryError):  # too little memory says nothing about the file
        raise
    except UnidentifiedImageError:
        reason = "expected an image, found a file that is none; use JPEG, PNG, HEIC, WebP, TIFF or AVIF"
        if _is_tiff(source):
            reason = "expected a TIFF of 8 or 16 bits, found one of a kind that is not read; save it anew"
    except Image.DecompressionBombError:
        reason = "the image is far too large to open; make it smaller first"
    except PermissionError:
        reason = "the file may not be read; check its permissions"
    except Exception as error:  # on damaged files Pillow's decoders raise whatever they stumble over
        detail = " ".join(str(error).split()).split(" (")[0][:120] or type(error).__name__
        reason = f"the image is damaged ({detail}); save it again or use another"
    raise ImageError(reason)


def _find_name(source: ImageSource) -> str:
    """Return the image's name if it has one; it comes from anywhere, and an error is one short line."""
    name = source if isinstance(source, str | Path) else getattr(source, "name", None)
    return show_name(name or getattr(source, "filename", None) or "")


def _open(source: str | Path | bytes | BinaryIO) -> str | Path | BinaryIO:
    if isinstance(source, bytes):
        if not source:
            raise ImageError("expected an image, found no bytes at all; check where it comes from")
        return io.BytesIO(source)
    if isinstance(source, str | Path):
        if not os.path.isfile(source):
            raise ImageError("expected an image, found no file; check the path")
    elif not hasattr(source, "read"):
        raise ImageError(f"expected an image, its path or its bytes, found {type(source).__name__}; pass one")
    return source


def _is_tiff(source: ImageSource) -> bool:
    """Return whether a file that Pillow does not know begins as a TIFF, for one with colours in floats."""
    if isinstance(source, str | Path):
        with open(source, "rb") as file:
            start = file.read(4)
    elif isinstance(source, bytes):
        start = source[:4]
    else:
        return False
    return start in (b"II*\0", b"MM\0*")


def _convert(image: Image.Image, grey: bool) -> np.ndarray:
    _check_size(*image.size)
    is_16_bit = image.format == "PPM"  # which Pillow scales to 16 bits where it has more than 8
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        array = np.asarray(image)
        return _convert_array(array.astype(np.uint16) if is_16_bit else array, grey)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("L" if grey else "RGB"))


def _convert_array(array: np.ndarray, grey: bool) -> np.ndarray:
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (1, 3, 4)):
        raise ImageError(
            f"expected the shape (H, W), (H, W, 3) or (H, W, 4), found {array.shape}; reshape it"
        )
    _check_size(array.shape[1], array.shape[0])
    pixels = np.ascontiguousarray(_to_uint8(array))
    if pixels.ndim == 3 and pixels.shape[2] == 3 and not grey:
        return pixels  # as frames of a video are: no detour
    return _convert(Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels), grey)


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ImageError("expected finite pixels, found NaN or infinity; check what made it")
        # Pillow's float files keep the range of what they were made from.
        top = 1.0 if array.max() <= 1 else 255.0 if array.max() <= 255 else 65535.0
        return np.clip(array * (255 / top), 0, 255).round().astype(np.uint8)
    if np.issubdtype(array.dtype, np.integer):
        # 32-bit containers hold 16-bit images (Pillow's mode I), or 8-bit ones.
        is_16_bit = array.dtype.newbyteorder("=") == np.uint16
        top = 65535 if is_16_bit or array.max() > 255 else 255
        return np.clip(array.astype(np.float32) * (255 / top), 0, 255).round().astype(np.uint8)
    raise ImageError(f"expected numbers as pixels, found {array.dtype}; convert it to uint8")


def _check_size(width: int, height: int) -> None:
    """Raise ImageError for an image that is too small or too large, before it is decoded."""
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            f"the image is too small to hold a face ({width} x {height} pixels); "
            f"each side needs {MIN_SIDE} at least"
        )
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"the image is too large ({width * height / 1e6:,.0f} megapixels, {width:,} x {height:,}); "
            f"at most {MAX_PIXELS / 1e6:.0f} are read, so make it smaller, 2,000 pixels wide is plenty"
        )
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"the image has too long a side ({width:,} x {height:,} pixels); a side may have {MAX_SIDE:,} at "
            "most, so make it smaller, or cut it"
        )
