"""List images anywhere, and read them a block at a time: files, and tables with images or their addresses."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from math import ceil
from pathlib import PurePosixPath
from typing import NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.utils import glob_translate
from pyarrow import fs

from fer_lib.data.image_files import HIDDEN, SUFFIXES, is_hidden
from fer_lib.errors import DataError

BLOCK = 4000
"""Images that are read, scored and written together, at most: what a killed worker loses."""

FILES, FEWEST, BLOCK_BYTES = 250, 32, 4_000_000
"""Images of a block that are files, whose size is not known; in a table, as many as have some 4 MB, but not
fewer than 32. A block takes seconds then: Ray's own work for each, a seventh of a second, matters little.
"""

ID = "source"
"""The column that names an image: its address, or `<address>:<row>` in a table."""

TABLE = ".parquet"

SCHEMA = pa.schema({ID: pa.string(), "image": pa.binary(), "path": pa.string()})
"""Of a block: each image by its bytes, where a table holds them, else by its address."""

_ADDRESS = re.compile(r"(\w[\w+.-]*://[^/?]*)/?(.*?)(\?\w+=[^/]*)?", re.DOTALL)


class Place(NamedTuple):
    """A file or folder: `root` is "" on this machine, else an address such as `s3://bucket?region=x`.

    The path is as the store has it, so that no character of it has a meaning of its own.
    """

    root: str
    path: str

    @classmethod
    def parse(cls, address: str) -> "Place":
        """Return the place of a local path, or of an address that Arrow or fsspec knows."""
        found = _ADDRESS.fullmatch(address)
        if address.startswith(("http://", "https://")):  # whose query is a part of the file's name
            server, _, path = address.partition("://")[2].partition("/")
            return cls(f"{address.partition('://')[0]}://{server}", path)
        if found is None:
            return cls("", os.path.abspath(address))
        server, path, query = found.groups()
        return cls(f"{server}{query or ''}", path.rstrip("/"))

    @property
    def address(self) -> str:
        """What `parse` makes the place of."""
        server, mark, query = self.root.partition("?")
        return f"{server}/{self.path}{mark}{query}" if self.root else self.path

    def __str__(self) -> str:
        return f"{self.root.partition('?')[0]}/{self.path}" if self.root else self.path

    def is_below(self, folder: "Place | None") -> bool:
        """Return whether a folder or one in it holds this file."""
        return folder is not None and self.root == folder.root and self.path.startswith(f"{folder.path}/")

    def open(self) -> tuple[fs.FileSystem, str]:
        """Return the file system and the path there. Raises DataError for one that cannot be reached."""
        system, base = _open_root(self.root)
        return system, f"{base.rstrip('/')}/{self.path}".rstrip("/") if self.root else self.path


@lru_cache(maxsize=64)
def _open_root(root: str) -> tuple[fs.FileSystem, str]:
    if not root:
        return fs.LocalFileSystem(), ""
    if root.startswith("file://"):
        return fs.LocalFileSystem(), "/"
    try:
        return fs.FileSystem.from_uri(root)
    except pa.ArrowInvalid:
        pass
    try:
        system, path = fsspec.core.url_to_fs(root)
    except (ImportError, ValueError) as error:
        raise DataError(f"{root}: expected an address that can be opened, found: {error}") from None
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path


@dataclass(frozen=True)
class Images:
    """At most `FILES` image files; the id of each is its address."""

    places: tuple[Place, ...]

    @property
    def n_images(self) -> int:
        """How many there are."""
        return len(self.places)

    def read(self) -> Iterator[pa.Table]:
        """Yield one block of SCHEMA. The files themselves are opened where they are scored."""
        yield _build_block(list(map(str, self.places)), path=[place.address for place in self.places])


@dataclass(frozen=True)
class Rows:
    """At most `BLOCK` rows of a parquet file; the id of each is `<address>:<row>`, counted from 0.

    The rows before them in their row group are read once more: groups of some thousand rows are fastest.
    """

    place: Place
    group: int  # the row group that they are in
    block: int  # rows read at a time
    skipped: int  # blocks of the row group before them
    first: int
    n_images: int
    column: str

    def read(self) -> Iterator[pa.Table]:
        """Yield one block of SCHEMA."""
        system, path = self.place.open()
        # Not the whole row group at once: one may be as large as the table.
        with pq.ParquetFile(path, filesystem=system, pre_buffer=False, buffer_size=2**20) as file:
            batches = file.iter_batches(self.block, row_groups=[self.group], columns=[self.column])
            values = next(islice(batches, self.skipped, None)).column(0)
        if len(values) != self.n_images:
            raise DataError(f"{self.place}: expected {self.n_images} rows in a block, found {len(values)}")
        ids = [f"{self.place}:{row}" for row in range(self.first, self.first + self.n_images)]
        if pa.types.is_struct(values.type):
            fields = {field.name: values.field(field.name) for field in values.type}
            image = fields["bytes"].cast(pa.binary())
            path = fields.get("path", pa.nulls(len(ids))).cast(pa.string())
            path = pc.if_else(image.is_null(), path, None)  # beside bytes it is only a name
            yield _build_block(ids, image=image, path=path)
        elif _holds_bytes(values.type):
            yield _build_block(ids, image=values.cast(pa.binary()))
        else:
            yield _build_block(ids, path=values.cast(pa.string()))


Part = Images | Rows


def list_parts(
    inputs: Sequence[str], column: str, skipped: Counter[str], leave_out: Place | None = None
) -> Iterator[Part]:
    """Yield what `inputs` stand for, in order: in parts of at most `BLOCK` images.

    Parameters
    ----------
    inputs
        Files, folders (with all below them) and globs, here or at addresses.
    column
        Of parquet files: images in bytes, also as Hugging Face keeps them, or their paths or addresses.
    skipped
        Counts what is neither image nor table, by kind.
    leave_out
        A folder that is no input, although it may lie in one.

    Raises
    ------
    DataError
        For an input that stands for nothing, and for a table that cannot be read or lacks the column.
    """
    seen, images = set[Place](), list[Place]()
    for item in inputs:
        found = list(_expand(item, skipped))
        if not found:
            raise DataError(f"{item}: expected images or parquet files, found none; check the address")
        new = [place for place in found if place not in seen and not place.is_below(leave_out)]
        seen.update(new)
        for place in new:
            if PurePosixPath(place.path).suffix.lower() == TABLE:
                yield from _list_rows(place, column)
            else:
                images.append(place)
    block = min(FILES, BLOCK)
    for start in range(0, len(images), block):
        yield Images(tuple(images[start : start + block]))


def _expand(item: str, skipped: Counter[str]) -> Iterator[Place]:
    """Yield the images and tables that one input stands for, sorted."""
    place, pattern = Place.parse(item), ""
    system, path = place.open()
    info = system.get_file_info(path)
    if info.is_file:
        yield place
        return
    if info.type == fs.FileType.NotFound:
        steps = place.path.split("/")
        n_fixed = next((n for n, step in enumerate(steps) if set(step) & set("*?[")), len(steps))
        place, pattern = place._replace(path="/".join(steps[:n_fixed])), "/".join(steps[n_fixed:])
        if not pattern:
            return
    is_meant = re.compile(glob_translate(pattern) if pattern else ".*", re.DOTALL)
    for name in sorted(_walk(place)):
        if not is_meant.fullmatch(name):
            continue
        kind = PurePosixPath(name).suffix.lower()
        if any(map(is_hidden, name.split("/"))):
            skipped[HIDDEN] += 1
        elif kind in (*SUFFIXES, TABLE):
            yield place._replace(
                path=f"{place.path}/{name}".lstrip("/") if place.root else f"{place.path}/{name}"
            )
        else:
            skipped[kind or "without a suffix"] += 1


def _walk(folder: Place) -> Iterator[str]:
    """Yield the files below a folder, by their paths in it. Here, links to folders are not followed."""
    if not folder.root:
        for where, _, names in os.walk(folder.path or "/", onerror=_refuse_unreadable):
            yield from (os.path.relpath(os.path.join(where, name), folder.path or "/") for name in names)
        return
    system, path = folder.open()
    selector = fs.FileSelector(path, allow_not_found=True, recursive=True)
    entries = system.get_file_info(selector)
    yield from (entry.path.removeprefix(path).lstrip("/") for entry in entries if entry.is_file)


def _refuse_unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename}: expected a folder that may be read: {error.strerror}")


def _list_rows(place: Place, column: str) -> Iterator[Rows]:
    system, path = place.open()
    try:
        with pq.ParquetFile(path, filesystem=system) as file:
            schema, metadata = file.schema_arrow, file.metadata
    except (OSError, pa.ArrowException) as error:
        detail = " ".join(str(error).split())[:120]
        raise DataError(f"{place}: expected a parquet file, found an unreadable one ({detail})") from None
    if column not in schema.names:
        raise DataError(
            f"{place}: expected column {column!r}, found {', '.join(schema.names)}; name that of the images"
        )
    kind = schema.field(column).type
    if not (_holds_bytes(kind) or _holds_text(kind) or _is_of_hugging_face(kind)):
        raise DataError(
            f"{place}: expected images or addresses in {column!r}, found {kind}; convert the column"
        )
    first = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group)
        chunks = [rows.column(number) for number in range(rows.num_columns)]
        n_bytes = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] == column)
        fitting = FILES if _holds_text(kind) else BLOCK_BYTES * rows.num_rows // max(1, n_bytes)
        n_blocks = ceil(rows.num_rows / min(BLOCK, max(FEWEST, fitting)))
        block = ceil(rows.num_rows / max(1, n_blocks))  # of one size
        for skipped, start in enumerate(range(0, rows.num_rows, block)):
            yield Rows(place, group, block, skipped, first + start, min(block, rows.num_rows - start), column)
        first += rows.num_rows


def _holds_bytes(kind: pa.DataType) -> bool:
    return str(kind) in ("binary", "large_binary", "binary_view")


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return str(kind) in ("string", "large_string", "string_view")


def _is_of_hugging_face(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(f.name == "bytes" and _holds_bytes(f.type) for f in kind)


def _build_block(ids: Sequence[str], **columns: pa.Array | Sequence[str]) -> pa.Table:
    empty = {name: pa.nulls(len(ids), SCHEMA.field(name).type) for name in ("image", "path")}
    return pa.table({ID: ids, **empty, **columns}, schema=SCHEMA)
