"""Define what raw data are, and read folders and CSV tables with errors a user can act on."""

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np

from fer_lib.data.image_files import SUFFIXES, PassedOver, is_hidden
from fer_lib.errors import DataError
from fer_lib.labels import normalise_emotion

Values = TypeVar("Values")


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


_BESIDE = re.compile(r"(readme|licen[cs]e)\b.*|.+\.(zip|tar|t?gz|bz2|xz|rar|7z|md|pdf|html?)", re.IGNORECASE)
"""What people leave beside a folder that they unpacked."""

Row = Face | BadRow | None
"""None: readable, but left out by the source's protocol, e.g. for having no majority."""


@dataclass(frozen=True)
class RawDataset:
    """A recognised source: its classes, its layout, and its rows in a fixed order, streamed once.

    n_rows: how many to expect; it only scales the progress bar.   passed_over: files that are no
    rows.   classes: the emotion that each of the source's class names was taken for, or None for none.
    """

    emotions: tuple[str, ...]
    layout: str
    n_rows: int
    rows: Iterable[Row]
    passed_over: PassedOver = field(default_factory=dict)
    classes: dict[str, str | None] = field(default_factory=dict)


def read_rows(
    rows: Iterable[tuple[str, Values]], read: Callable[[str, Values], Face | None]
) -> Iterator[Row]:
    """Yield what `read` makes of each (source, values); where it raises ValueError, a BadRow."""
    for source, values in rows:
        try:
            yield read(source, values)
        except ValueError as error:
            yield BadRow(source, str(error))


def find_root(raw_dir: Path, expected: str, known: Collection[str] = ()) -> Path:
    """Return the folder with the files: `raw_dir` or, where an archive brought a folder of its own, that.

    A folder is entered when there is nothing beside it but archives and readmes, it holds more than images,
    and its name is no emotion and none of `known`. Raises DataError, saying what is expected, when `raw_dir`
    is missing or empty.
    """
    if not raw_dir.is_dir():
        raise DataError(f"{raw_dir}: expected a folder with {expected}, found none; see data/README.md")
    entries = [path for path in raw_dir.iterdir() if not is_hidden(path.name)]
    if not entries:
        raise DataError(f"{raw_dir}: expected {expected}, found an empty folder; see data/README.md")
    inner = [path for path in entries if not _BESIDE.fullmatch(path.name)]
    if len(inner) != 1 or not inner[0].is_dir() or inner[0].name.lower() in {name.lower() for name in known}:
        return raw_dir
    try:
        normalise_emotion(inner[0].name)
    except KeyError:
        below = [path for path in inner[0].iterdir() if not is_hidden(path.name)]
        if any(path.is_dir() or path.suffix.lower() not in SUFFIXES for path in below):
            return find_root(inner[0], expected, known)
    return raw_dir


def build_layout_error(raw_dir: Path, expected: str) -> DataError:
    """Return the error of a folder whose files are in none of the known layouts."""
    found = ", ".join(sorted(path.name for path in raw_dir.iterdir())[:5])
    return DataError(f"{raw_dir}: expected {expected}, found {found}; see data/README.md")


class CsvFile:
    """A CSV file whose header must name `columns`; streams `(line number, fields)`, the header being line 1.

    `header` holds the names of all its columns.

    Raises DataError for an empty file or a missing column, and when iterating for a line that is not CSV.
    """

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        try:
            with self._open() as file:
                header = [name.strip() for name in next(csv.reader(file), [])]
        except csv.Error:
            header = []
        self.header = header
        missing = [name for name in columns if name not in header]
        if missing:
            found = ", ".join(header)[:200] or "none"
            raise DataError(
                f"{path}: expected column {missing[0]!r} in line 1, found {found}; "
                "download the file again or rename the column"
            )
        self._width = len(header)
        self._positions = [header.index(name) for name in columns]

    def count_rows(self) -> int:
        """Return the number of lines after the header."""
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

    def _open(self) -> TextIO:
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
