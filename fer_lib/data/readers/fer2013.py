"""Read FER2013 in the layouts it is passed around in, with FER+'s votes where they are at hand.

Looked for in this order; the first one found is read and named in `layout`:

1. `parquet`: one `*.parquet` file with columns emotion (integer), usage (string), image (binary: an encoded
   image), perhaps ferplus_* (integer);
2. `fer2013.csv`: columns emotion, pixels, Usage;
3. `icml_face_data.csv`: the same columns in another order, with leading spaces in the header;
4. `folders`: `train/<class>/*` and `test/<class>/*`, the latter's file names starting with `PublicTest_`
   or `PrivateTest_`; where no name does, test/ is the test split and val is cut from train.

A row's `source` is `file:row`: the line number in a CSV file (the header is line 1), the row number
counted from 0 in a parquet file.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_lib.data.images import decode_image
from fer_lib.data.readers.base import (
    BadRow,
    CsvFile,
    Face,
    build_layout_error,
    check_raw_dir,
    parse_int,
    read_face,
)
from fer_lib.data.readers.folder import list_class_images
from fer_lib.errors import DataError
from fer_lib.labels import EMOTIONS_7, VOTES

SIDE = 48
SPLIT_OF_USAGE = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
VOTES_FILE = "fer2013new.csv"
_CSV_COLUMNS = ("emotion", "pixels", "Usage")
_VOTES_COLUMNS = ("Usage", *VOTES[:-1], "NF")
_PARQUET_COLUMNS = {"emotion": "integer", "usage": "string", "image": "binary"}
_PARQUET_VOTES = tuple(f"ferplus_{vote}" for vote in VOTES)
_IS_OF_TYPE = {
    "integer": pa.types.is_integer,
    "string": lambda found: str(found) in ("string", "large_string", "string_view"),
    "binary": lambda found: str(found) in ("binary", "large_binary", "binary_view"),
}
# Small enough that a batch of decoded Python rows stays near 1 MB.
_PARQUET_BATCH = 512


class Fer2013Reader:
    """FER2013, 48x48 grey, in file order: Training is train, PublicTest is val, PrivateTest is test.

    FER+ votes, from the parquet file's own columns or from `fer2013new.csv` beside a CSV file (same row
    order), become factors `votes_neutral` ... `votes_nf`. Folders keep no row order, hence no votes.
    Raises DataError when no layout is recognised, a column is missing or of a wrong type, or the votes do
    not match.
    """

    emotions: tuple[str, ...] = EMOTIONS_7

    def __init__(self, raw_dir: Path) -> None:
        self.layout, self._path = _recognise_layout(raw_dir)
        self.has_votes = False
        if self.layout == "parquet":
            self._parquet_columns = _check_parquet(self._path)
            self.has_votes = len(self._parquet_columns) > len(_PARQUET_COLUMNS)
        elif self.layout == "folders":
            self._images = _list_images(raw_dir)
        else:
            votes_file = raw_dir / VOTES_FILE
            self._table = CsvFile(self._path, _CSV_COLUMNS)
            self._votes = CsvFile(votes_file, _VOTES_COLUMNS) if votes_file.is_file() else None
            self.has_votes = self._votes is not None

    def __len__(self) -> int:
        if self.layout == "parquet":
            return pq.read_metadata(self._path).num_rows
        return len(self._images) if self.layout == "folders" else len(self._table)

    def __iter__(self) -> Iterator[Face | BadRow]:
        if self.layout == "parquet":
            return _read_parquet(self._path, self._parquet_columns)
        if self.layout == "folders":
            return self._read_folders()
        return _read_csv(self._table, self._votes)

    def _read_folders(self) -> Iterator[Face | BadRow]:
        for path, label, split in self._images:
            if split:
                yield read_face(path, self._path, label, split, grey=True)
            else:
                source = path.relative_to(self._path).as_posix()
                yield BadRow(source, "expected the prefix PublicTest_ or PrivateTest_")


def find_layout(raw_dir: Path) -> tuple[str, Path] | None:
    """Return the layout in `raw_dir` and the file or folder it is in; None when there is none.

    Raises DataError for several parquet files: which of them to read, and in which order, is not known.
    """
    # The names with a leading dot are what macOS leaves beside files on foreign disks.
    tables = sorted(path for path in raw_dir.glob("*.parquet") if not path.name.startswith("."))
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables[:5])
        raise DataError(
            f"{raw_dir}: expected one *.parquet file, found {len(tables)} ({names}); join them into one, "
            "rows in their original order, or take the others away"
        )
    if tables:
        return "parquet", tables[0]
    for name in ("fer2013.csv", "icml_face_data.csv"):
        if (raw_dir / name).is_file():
            return name, raw_dir / name
    if (raw_dir / "train").is_dir() and (raw_dir / "test").is_dir():
        return "folders", raw_dir
    return None


def _recognise_layout(raw_dir: Path) -> tuple[str, Path]:
    expected = "a *.parquet file, fer2013.csv, icml_face_data.csv or train/<class>/ and test/<class>/"
    layout = find_layout(check_raw_dir(raw_dir, expected))
    if layout is None:
        raise build_layout_error(raw_dir, expected)
    return layout


def _check_parquet(path: Path) -> tuple[str, ...]:
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise _build_parquet_error(path, error) from None
    columns = dict(_PARQUET_COLUMNS)
    if set(_PARQUET_VOTES) <= set(schema.names):
        columns |= dict.fromkeys(_PARQUET_VOTES, "integer")
    for name, expected in columns.items():
        if name not in schema.names:
            found = ", ".join(schema.names)
            raise DataError(f"{path}: expected column {name!r}, found {found}; rename the column")
        found = schema.types[schema.names.index(name)]
        values = found.value_type if pa.types.is_dictionary(found) else found
        if not _IS_OF_TYPE[expected](values):
            raise DataError(
                f"{path}: expected column {name!r} of type {expected}, found {str(found)[:80]}; "
                "convert the column"
            )
    return tuple(columns)


def _build_parquet_error(path: Path, error: Exception) -> DataError:
    detail = " ".join(str(error).split())[:120]
    return DataError(
        f"{path}: expected a parquet file, found an unreadable one ({detail}); download it again"
    )


def _read_parquet(path: Path, columns: tuple[str, ...]) -> Iterator[Face | BadRow]:
    try:
        with pq.ParquetFile(path) as file:
            rows = (
                row
                for batch in file.iter_batches(_PARQUET_BATCH, columns=list(columns))
                for row in batch.to_pylist()
            )
            for number, row in enumerate(rows):
                yield _build_parquet_face(f"{path.name}:{number}", row)
    except (OSError, pa.ArrowException) as error:
        raise _build_parquet_error(path, error) from None


def _build_parquet_face(source: str, row: dict[str, Any]) -> Face | BadRow:
    try:
        return Face(
            image=decode_image(row["image"] or b"", grey=True),
            label=_parse_label(row["emotion"]),
            split=_parse_usage(row["usage"]),
            source=source,
            factors=_parse_votes([row[name] for name in _PARQUET_VOTES if name in row]),
        )
    except ValueError as error:
        return BadRow(source, str(error))


def _read_csv(table: CsvFile, votes: CsvFile | None) -> Iterator[Face | BadRow]:
    for line, fields, vote in _pair_rows(table, votes):
        source = f"{table.path.name}:{line}"
        try:
            label, pixels, usage = table.pick(fields)
            face = Face(_parse_pixels(pixels), _parse_label(label), _parse_usage(usage), source)
            if votes is not None and vote is not None:
                face = _add_votes(face, votes, *vote)
        except ValueError as error:
            yield BadRow(source, str(error))
        else:
            yield face


def _pair_rows(
    table: CsvFile, votes: CsvFile | None
) -> Iterator[tuple[int, list[str], tuple[int, list[str]] | None]]:
    """Yield each row's line and fields, and those of its votes; DataError when one file ends early."""
    if votes is None:
        yield from ((line, fields, None) for line, fields in table)
        return
    for count, (row, vote) in enumerate(zip_longest(table, votes)):
        if row is None or vote is None:
            more, fewer = (votes, table) if row is None else (table, votes)
            raise DataError(
                f"{fewer.path}: expected a row for every row of {more.path.name}, found only {count}; "
                "use the whole files, or take the votes file away"
            )
        yield *row, vote


def _add_votes(face: Face, votes: CsvFile, line: int, fields: list[str]) -> Face:
    try:
        usage, *counts = votes.pick(fields)
        factors = _parse_votes(counts)
    except ValueError as error:
        raise ValueError(f"{votes.path.name}:{line}: {error}") from None
    if SPLIT_OF_USAGE.get(usage.strip()) != face.split:
        raise DataError(
            f"{votes.path}:{line}: expected the Usage of {face.source}, found {usage.strip()[:20]!r}; "
            "the two files must list the same faces in the same order"
        )
    return replace(face, factors=factors)


def _parse_votes(counts: list) -> dict[str, int]:
    names = VOTES[: len(counts)]
    return {
        f"votes_{name}": parse_int(n, 0, 10, "a vote count") for name, n in zip(names, counts, strict=True)
    }


def _parse_label(value: Any) -> int:
    return parse_int(value, 0, len(EMOTIONS_7) - 1, "a label")


def _parse_usage(text: str | None) -> str:
    try:
        return SPLIT_OF_USAGE[(text or "").strip()]
    except KeyError:
        raise ValueError(f"expected Usage {', '.join(SPLIT_OF_USAGE)}, found {text!r:.30}") from None


def _parse_pixels(text: str) -> np.ndarray:
    values = text.split()
    try:
        # `bytes` and `int` refuse every wrong value; np.fromstring, though faster, reads `12 9.5` as 12 9.
        pixels = bytes(map(int, values))
    except ValueError:
        wrong = next(value for value in values if not (value.isdecimal() and int(value) < 256))
        raise ValueError(f"expected pixel values 0 to 255, found {wrong[:20]!r}") from None
    if len(pixels) != SIDE * SIDE:
        raise ValueError(
            f"expected {SIDE * SIDE} pixels, found {len(pixels)}"
            + (" (is the file cut off here?)" if len(pixels) < SIDE * SIDE else "")
        )
    return np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE)


def _list_images(raw_dir: Path) -> list[tuple[Path, int, str]]:
    """List the folder tree by the number in the file name, then by name: close to the original order.

    The split is empty where a test image lacks the prefix that the others have.
    """
    train = list_class_images(raw_dir / "train", EMOTIONS_7)
    test = list_class_images(raw_dir / "test", EMOTIONS_7)
    # Some copies have lost the prefixes: then test/ is the test split, and val is cut from train.
    prefixed = any(_get_prefix_split(path) in ("val", "test") for path, _ in test)
    items = [(path, label, "train" if prefixed else "train|val") for path, label in train]
    items += [(path, label, _get_prefix_split(path) if prefixed else "test") for path, label in test]
    return sorted(items, key=lambda item: (_get_number(item[0]), item[0].name, item[0]))


def _get_prefix_split(path: Path) -> str:
    return SPLIT_OF_USAGE.get(path.name.split("_")[0], "")


def _get_number(path: Path) -> int:
    digits = re.search(r"\d+", path.stem)
    return int(digits.group()) if digits else -1
