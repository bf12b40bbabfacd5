"""Analyse many images at once, from files and ZIP archives: in memory, within bounds, one image at a time."""

import io
import logging
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

import pandas as pd

from app.image_analysis import analyse, encode_jpeg
from app.image_source import MAX_MEGABYTES
from fer_lib.data.image_files import SUFFIXES, describe_counts, is_hidden, show_name
from fer_lib.data.images import read_image
from fer_lib.errors import FerError, MediaError
from fer_lib.inference.annotate import build_rows, draw_faces
from fer_lib.inference.faces import Face
from fer_lib.inference.recognizer import Recognizer

LOG = logging.getLogger("fer_lib.app")

MAX_IMAGES = 500
MAX_UPLOADED = 500
"""MB of all files that are brought at once, which stay in memory."""

MAX_FILE = 200
"""MB of one file, which may be an archive; what Streamlit's server takes at most."""

MAX_UNPACKED = 1_000_000_000
"""Bytes that an archive may say it unpacks to; its images are unpacked one at a time."""

MAX_DIRECTORY = 4_000_000
"""Bytes of an archive's list of files, which Python reads as a whole: some 40,000 files."""

THUMBNAIL_SIDE, DOWNLOAD_SIDE = 320, 1600
"""Pixels a side at most: of what is kept of every image, and of those in the archive that is handed out."""

UNSURE, NO_FACE = "unsure", "no face"

UNEXPECTED = "an error that this app did not expect; the terminal where it was started has the details"

_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, NotImplementedError)
"""What `zipfile` raises on archives that are damaged or packed in a way it does not know."""


class Upload(Protocol):
    """A file that was brought, as Streamlit hands it out."""

    name: str
    size: int
    """Bytes."""

    def getvalue(self) -> bytes:
        """Return its content."""
        ...


@dataclass(frozen=True)
class Entry:
    """An image that was brought, as a file or in an archive."""

    name: str
    content: bytes = field(repr=False)
    """Of the file: an image, or the archive that holds it."""
    member: zipfile.ZipInfo | None = None
    """Which of the archive."""

    def read(self) -> bytes:
        """Return the image's bytes. Raises MediaError when they are too many or cannot be unpacked."""
        if (self.member.file_size if self.member else len(self.content)) > MAX_MEGABYTES * 1e6:
            raise MediaError(f"expected at most {MAX_MEGABYTES} MB, found more; make the image smaller")
        if self.member is None:
            return self.content
        if self.member.flag_bits & 1:
            raise MediaError("expected an open archive, found one with a password; unpack it first")
        try:
            with zipfile.ZipFile(io.BytesIO(self.content)) as archive, archive.open(self.member) as unpacked:
                return unpacked.read()  # no more than the size that was checked above
        except _DAMAGED:
            raise MediaError("the image cannot be unpacked; make the archive anew") from None


@dataclass(frozen=True)
class Problem:
    """A file that gave no result, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Result:
    """What is kept of an image: its faces and a small JPEG with their labels."""

    entry: Entry
    faces: list[Face]
    thumbnail: bytes = field(repr=False)

    @property
    def answers(self) -> list[str]:
        """What the image shows, face by face: emotions and `UNSURE`, or `NO_FACE` alone."""
        return [UNSURE if face.abstained else face.label for face in self.faces] or [NO_FACE]


@dataclass
class Batch:
    """Images on their way through a model; it can stop after any of them and go on later."""

    entries: list[Entry]
    problems: list[Problem]
    results: list[Result] = field(default_factory=list)
    n_done: int = 0
    is_stopped: bool = False

    @property
    def is_done(self) -> bool:
        """Whether every image was looked at."""
        return self.n_done == len(self.entries)

    def analyse_next(self, recognizer: Recognizer) -> None:
        """Analyse one more image, into a result or a problem."""
        entry = self.entries[self.n_done]
        try:
            found = analyse(entry.read(), recognizer)
            thumbnail = encode_jpeg(draw_faces(found.pixels, found.faces), THUMBNAIL_SIDE)
            self.results.append(Result(entry, found.faces, thumbnail))
        except FerError as error:
            self.problems.append(Problem(entry.name, str(error)))
        except Exception:  # a bug; it must not keep the other images from their turn
            LOG.exception("unexpected error in one of many images")
            self.problems.append(Problem(entry.name, UNEXPECTED))
        self.n_done += 1


def limit_files(files: Sequence[Upload]) -> tuple[list[Upload], list[Problem]]:
    """Return the files to keep, at most `MAX_IMAGES` of `MAX_UPLOADED` in all, and a line for each other."""
    kept: list[Upload] = []
    problems, n_bytes = [], 0
    for file in files:
        if len(kept) == MAX_IMAGES or n_bytes + file.size > MAX_UPLOADED * 1e6:
            reason = f"over {MAX_IMAGES} files or {MAX_UPLOADED} MB in all; bring it later"
            problems.append(Problem(show_name(file.name), reason))
        else:
            kept.append(file)
            n_bytes += file.size
    return kept, problems


def list_entries(files: Sequence[Upload]) -> tuple[list[Entry], list[Problem]]:
    """Return the images among uploaded files and in the archives among them, and what gives none.

    Nothing is unpacked yet, and names in archives are only shown: no path is ever written.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    for file in files:
        name, content = show_name(file.name), file.getvalue()
        if not name.lower().endswith(".zip"):
            entries.append(Entry(name, content))
            continue
        try:
            found, n_others = _list_archive(content)
        except MediaError as error:
            problems.append(Problem(name, str(error)))
            continue
        entries += found
        if n_others:
            problems.append(Problem(name, f"no images by their names: {describe_counts(n_others)}"))
    if len(entries) > MAX_IMAGES:
        rest = f"{len(entries) - MAX_IMAGES:,} images more"
        problems.append(Problem(rest, f"at most {MAX_IMAGES} images are analysed at once; bring these later"))
    return entries[:MAX_IMAGES], problems


def _list_archive(content: bytes) -> tuple[list[Entry], Counter[str]]:
    """Return the images in an archive, and how many files of which suffix are none.

    Raises MediaError for what is no archive, or one that is over a bound.
    """
    try:
        _check_directory(content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except _DAMAGED:
        raise MediaError("expected a ZIP archive, found a file that is none or is damaged") from None
    members = [one for one in members if not any(map(is_hidden, _split_path(one.filename)))]
    n_bytes = sum(member.file_size for member in members)
    if n_bytes > MAX_UNPACKED:
        raise MediaError(
            f"unpacks to {n_bytes / 1e9:.1f} GB, at most {MAX_UNPACKED / 1e9:.0f} GB is allowed; split it"
        )
    suffixes = {one: PurePosixPath(one.filename).suffix.lower() for one in members}
    entries = [Entry(show_name(one.filename), content, one) for one in members if suffixes[one] in SUFFIXES]
    others = Counter(suffix or "without a suffix" for suffix in suffixes.values() if suffix not in SUFFIXES)
    return entries, others


def _split_path(name: str) -> list[str]:
    return [part for part in PurePosixPath(name).parts if part != ".."]


def _check_directory(content: bytes) -> None:
    """See that an archive's list of files is small: `zipfile` reads all of it, whatever it is asked.

    Raises MediaError, or what is in `_DAMAGED`.
    """
    end = content[-(2**16) - 22 :]
    start = end.rfind(b"PK\5\6")  # the end record; PKWARE's APPNOTE 4.3.16
    if start < 0:
        raise zipfile.BadZipFile
    (size,) = struct.unpack_from("<I", end, start + 12)
    has_long_form = end[max(0, start - 20) : start].startswith(b"PK\6\7")  # with sizes of its own
    if size > MAX_DIRECTORY or has_long_form:
        raise MediaError("lists too many files; split the archive")


def build_table(results: Sequence[Result]) -> pd.DataFrame:
    """Return a row for each face of all images."""
    return pd.DataFrame([row for one in results for row in build_rows(one.entry.name, one.faces)])


def build_archive(results: Sequence[Result], blur: bool) -> bytes:
    """Return a ZIP of the images with their faces marked; each is read, drawn and forgotten in turn."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, result in enumerate(results, start=1):
            pixels = draw_faces(read_image(result.entry.read()), result.faces, blur)
            stem = re.sub(r"[^\w.-]+", "_", PurePosixPath(result.entry.name).stem)  # a path nowhere
            name = f"{number:03d}_{stem}_emotions.jpg"
            archive.writestr(name, encode_jpeg(pixels, DOWNLOAD_SIDE))
    return out.getvalue()
