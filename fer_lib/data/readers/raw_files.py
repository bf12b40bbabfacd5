"""Reading raw files: folders, CSV tables and image bytes, with errors a user can act on."""

import csv
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fer_lib.errors import DataError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

# Pillow documents no set: what its parsers raise on damaged bytes depends on the format, and a cut EXIF block
# alone gives struct.error or SyntaxError. MemoryError is not among them: it says nothing about the file.
_DECODING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    Image.DecompressionBombError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def check_raw_dir(raw_dir: Path, expected: str) -> Path:
    """Return `raw_dir`; raise DataError, saying what is expected in it, when it is missing or empty."""
    if not raw_dir.is_dir():
        raise DataError(f"{raw_dir}: expected a folder with {expected}, found none; see data/README.md")
    if not any(raw_dir.iterdir()):
        raise DataError(f"{raw_dir}: expected {expected}, found an empty folder; see data/README.md")
    return raw_dir


def count_lines(path: Path) -> int:
    """Return the number of newlines in a file, reading it in blocks."""
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def list_images(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, sorted by name. Other files are ignored."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def decode_image(data: bytes, grey: bool = False) -> np.ndarray:
    """Decode an image file's bytes to uint8 (H, W, 3) RGB, or (H, W) with `grey`, upright by its EXIF tag.

    Pillow, since it refuses a truncated JPEG, which OpenCV would fill with grey. Raises ValueError.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("L" if grey else "RGB"))
    except _DECODING_ERRORS:
        raise ValueError(f"expected an image, found {len(data)} bytes that do not decode to one") from None


def read_image(path: Path, grey: bool = False) -> np.ndarray:
    """Read and decode an image file; see `decode_image`. Raises ValueError, also when the file is missing."""
    try:
        data = path.read_bytes()
    except OSError:
        raise ValueError("expected an image file, found none that can be read") from None
    return decode_image(data, grey)


class CsvFile:
    """A CSV file whose header must name `columns`; streams `(line number, fields)`, the header being line 1.

    Raises DataError for an empty file or a missing column, and when iterating for a line that is not CSV.
    """

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        try:
            with self._open() as file:
                header = [name.strip() for name in next(csv.reader(file), [])]
        except csv.Error as error:
            raise DataError(
                f"{path}: expected the header {','.join(columns)}, found no CSV row ({error}); "
                "download it again"
            ) from None
        if not header:
            raise DataError(
                f"{path}: expected the header {','.join(columns)}, found an empty file; download it again"
            )
        missing = [name for name in columns if name not in header]
        if missing:
            raise DataError(
                f"{path}: expected column {missing[0]!r} in line 1, found {', '.join(header)[:200]}; "
                "download the file again or rename the column"
            )
        self._width = len(header)
        self._positions = [header.index(name) for name in columns]

    def __len__(self) -> int:
        # A file cut off inside its header has no line end at all.
        return max(0, count_lines(self.path) - 1)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        with self._open() as file:
            rows = csv.reader(file)
            try:
                next(rows)
                for fields in rows:
                    if fields:
                        yield rows.line_num, fields
            except csv.Error as error:
                raise DataError(
                    f"{self.path}:{rows.line_num}: expected a CSV row, found none ({error}); "
                    "download the file again"
                ) from None

    def pick(self, fields: list[str]) -> list[str]:
        """Return the values of the named columns. Raises ValueError when the row is short or long."""
        if len(fields) != self._width:
            raise ValueError(
                f"expected {self._width} fields, found {len(fields)} (is the file cut off here?)"
            )
        return [fields[position] for position in self._positions]

    def _open(self) -> io.TextIOWrapper:
        # Undecodable bytes become characters that no field accepts: a bad row rather than a crash.
        return open(self.path, encoding="utf-8-sig", errors="replace", newline="")


def parse_int(text: str, low: int, high: int, what: str) -> int:
    """Return `text` as an integer in [low, high]. Raises ValueError naming `what`."""
    try:
        value = int(text)
    except (TypeError, ValueError):
        value = low - 1
    if not low <= value <= high:
        raise ValueError(f"expected {what} {low} to {high}, found {str(text)[:20]!r}")
    return value
