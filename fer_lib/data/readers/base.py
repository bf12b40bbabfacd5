"""Define what a reader yields, and read folders, CSV tables and image files with errors a user can act on."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fer_lib.data.images import decode_image
from fer_lib.errors import DataError


@dataclass(frozen=True)
class Face:
    """One face as its source gives it.

    Parameters
    ----------
    image
        uint8, (H, W) grey or (H, W, 3) RGB.
    label
        Index into the source's `emotions`.
    split
        `train`, `val` or `test` as the source gives it; several joined by `|` where the source leaves it
        open, e.g. `train|val`; empty for any of the three. `prepare` then assigns one.
    source
        Where it came from, relative to the raw folder, e.g. `fer2013.csv:17` or `train/sad/x.jpg`.
    soft_label
        float32 (n_classes,), sums to 1, or None.
    factors
        Further index columns; the same names and types in every face of a source.
    regions
        bool (H, W), the active facial regions, or None.
    """

    image: np.ndarray
    label: int
    split: str
    source: str
    soft_label: np.ndarray | None = None
    factors: dict[str, Any] = field(default_factory=dict)
    regions: np.ndarray | None = None


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read: where it stands and one line saying what is wrong with it."""

    source: str
    reason: str


@dataclass(frozen=True)
class Excluded:
    """A readable row that the source's protocol leaves out, e.g. for having no majority. Only counted."""

    source: str
    reason: str


class Reader(Protocol):
    """A recognised source: its classes, and its rows in a fixed order, streamed.

    `len(reader)`, where a reader has it, is the number of rows to expect; it only scales the progress bar.
    """

    emotions: tuple[str, ...]
    layout: str

    def __iter__(self) -> Iterator[Face | BadRow | Excluded]: ...


def check_raw_dir(raw_dir: Path, expected: str) -> Path:
    """Return `raw_dir`; raise DataError, saying what is expected in it, when it is missing or empty."""
    if not raw_dir.is_dir():
        raise DataError(f"{raw_dir}: expected a folder with {expected}, found none; see data/README.md")
    if not any(raw_dir.iterdir()):
        raise DataError(f"{raw_dir}: expected {expected}, found an empty folder; see data/README.md")
    return raw_dir


def build_layout_error(raw_dir: Path, expected: str) -> DataError:
    """Return the error of a folder whose files are in none of the known layouts."""
    found = ", ".join(sorted(path.name for path in raw_dir.iterdir())[:5])
    return DataError(f"{raw_dir}: expected {expected}, found {found}; see data/README.md")


def read_face(path: Path, raw_dir: Path, label: int, split: str, grey: bool = False) -> Face | BadRow:
    """Return the face in an image file, or the BadRow saying why there is none."""
    source = path.relative_to(raw_dir).as_posix()
    try:
        return Face(decode_image(path, grey), label, split, source)
    except ValueError as error:
        return BadRow(source, str(error))


class CsvFile:
    """A CSV file whose header must name `columns`; streams `(line number, fields)`, the header being line 1.

    Raises DataError for an empty file or a missing column, and when iterating for a line that is not CSV.
    """

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        try:
            with self._open() as file:
                header = [name.strip() for name in next(csv.reader(file), [])]
        except csv.Error:
            header = []
        missing = [name for name in columns if name not in header]
        if missing:
            found = ", ".join(header)[:200] or "none"
            raise DataError(
                f"{path}: expected column {missing[0]!r} in line 1, found {found}; "
                "download the file again or rename the column"
            )
        self._width = len(header)
        self._positions = [header.index(name) for name in columns]

    def __len__(self) -> int:
        with open(self.path, "rb") as file:
            n_lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        return max(0, n_lines - 1)  # a file cut off inside its header has no line end at all

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
