"""Read AffectNet as its authors give it, or sorted into folders. It is licensed: ask its authors for it.

Looked for in this order; the first one found is read and named in `layout`:

1. `lists`: `training.csv` and `validation.csv`, in the raw folder or up to two folders down, mostly in
   `Manually_Annotated_file_lists/`; the full images wherever they lie, up to three folders down, mostly in
   `Manually_Annotated_compressed/Manually_Annotated_Images/`;
2. `annotations`: `train_set/` and `val_set/`, each with `images/<id>.jpg` and
   `annotations/<id>_exp.npy`, `_val.npy`, `_aro.npy`;
3. split folders of class folders, as `folders.open_folder` reads them: copies that others sorted.

The official validation set is the test split, since the official test set was never published; a
validation split is cut from the training set by `prepare`. `affectnet_repacks` reads what others made of it.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

from fer_lib.data.image_files import PassedOver, list_folders, list_images
from fer_lib.data.images import decode_image
from fer_lib.data.readers.base import (
    CsvFile,
    Face,
    RawDataset,
    build_layout_error,
    find_root,
    parse_int,
    read_rows,
)
from fer_lib.data.readers.folders import SPLIT_OF_NAME, open_folder
from fer_lib.data.readers.listed import N_TRIED, find_file, find_images, pick_rows, read_listed
from fer_lib.errors import DataError
from fer_lib.labels import get_emotions

EXPRESSIONS = (
    *("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt"),
    *("none", "uncertain", "no-face"),
)
"""AffectNet's expression codes, 0 to 10."""

_COLUMNS = (
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"),
    *("expression", "valence", "arousal"),
)
_LISTS = (("training.csv", "train|val"), ("validation.csv", "test"))
_SETS = (("train_set", "train|val"), ("val_set", "test"))
_EXPECTED = "training.csv and validation.csv, train_set/ and val_set/, labels.csv, or images/ beside labels/"


def open_affectnet(
    raw_dir: Path, n_classes: int, classes: Mapping[str, str | None] = MappingProxyType({})
) -> RawDataset:
    """Return AffectNet with 7 classes, or 8 with contempt, in the order of the lists, or of the image ids.

    Images are uint8 (side, side, 3) RGB: in layout `lists` cropped to the face box, made square about its
    centre, and repeating the frame's border where the square leaves the frame. Expressions none, uncertain
    and no-face, and contempt with 7 classes, are left out. Factors: valence, arousal (float in [-1, 1]).
    Raises DataError when no layout is recognised, a column is missing, or the listed images are nowhere.
    """
    emotions = get_emotions(n_classes)
    raw_dir = find_affectnet(raw_dir)
    layout, lists_dir = find_layout(raw_dir) or ("", raw_dir)
    if layout == "lists":
        return _open_lists(raw_dir, lists_dir, emotions)
    if layout == "annotations":
        return _open_sets(raw_dir, emotions)
    if any(path.name.lower() in SPLIT_OF_NAME for path in list_folders(raw_dir)):
        return open_folder(raw_dir, n_classes, classes)
    raise build_layout_error(raw_dir, _EXPECTED)


def find_affectnet(raw_dir: Path) -> Path:
    """Return the folder with the files of AffectNet or a re-pack. Raises DataError as `find_root` does."""
    # Those that may stand alone while the images are still missing: the search begins beside, not in them.
    parts = {"Manually_Annotated_file_lists", "images", *(name for name, _ in _SETS), *SPLIT_OF_NAME}
    return find_root(raw_dir, _EXPECTED, parts)


def find_layout(raw_dir: Path) -> tuple[str, Path] | None:
    """Return the official layout of a folder and where its lists or sets are, or None."""
    lists_dir = find_file(raw_dir, *(name for name, _ in _LISTS))
    if lists_dir:
        return "lists", lists_dir
    return ("annotations", raw_dir) if all((raw_dir / n / "images").is_dir() for n, _ in _SETS) else None


def _open_lists(raw_dir: Path, lists_dir: Path, emotions: tuple[str, ...]) -> RawDataset:
    tables = [(CsvFile(lists_dir / name, _COLUMNS), split) for name, split in _LISTS]
    first = [path for table, _ in tables for path, *_ in islice(pick_rows(table), N_TRIED)]
    images_dir = find_images(raw_dir, first, " and ".join(name for name, _ in _LISTS))

    def list_rows() -> Iterator[tuple[str, Any]]:
        for table, split in tables:
            name = table.path.relative_to(raw_dir).as_posix()
            for line, fields in table:
                yield f"{name}:{line}", (table, fields, split)

    def read(source: str, values: tuple[CsvFile, list[str], str]) -> Face | None:
        table, fields, split = values
        path, *box, expression, valence, arousal = table.pick(fields)
        label = _get_label(expression, emotions)
        if label is None:
            return None
        image = crop_square_box(read_listed(images_dir, path), *map(_parse_pixel, box))
        return Face(image, label, split, source, factors=_build_factors(valence, arousal))

    n_rows = sum(table.count_rows() for table, _ in tables)
    return RawDataset(emotions, "lists", n_rows, read_rows(list_rows(), read))


def _open_sets(raw_dir: Path, emotions: tuple[str, ...]) -> RawDataset:
    images: list[tuple[str, str]] = []
    passed_over: PassedOver = {}
    for name, split in _SETS:
        paths = list_images(raw_dir / name / "images", passed_over)
        if not paths:
            raise DataError(f"{raw_dir / name / 'images'}: expected images, found none; unpack the set again")
        # Ids are numbers without leading zeros: by value they are in the official order.
        paths.sort(key=lambda path: (int(path.stem) if path.stem.isdecimal() else -1, path.name))
        images += [(path.relative_to(raw_dir).as_posix(), split) for path in paths]

    def read(source: str, split: str) -> Face | None:
        path = raw_dir / source
        expression = _read_annotation(path, "exp")
        label = _get_label(expression, emotions)
        if label is None:
            return None
        factors = _build_factors(_read_annotation(path, "val"), _read_annotation(path, "aro"))
        return Face(decode_image(path), label, split, source, factors=factors)

    return RawDataset(emotions, "annotations", len(images), read_rows(images, read), passed_over)


def _get_label(expression: str, emotions: tuple[str, ...]) -> int | None:
    name = EXPRESSIONS[parse_int(expression, 0, len(EXPRESSIONS) - 1, "an expression code")]
    return emotions.index(name) if name in emotions else None


def crop_square_box(image: np.ndarray, x: int, y: int, width: int, height: int) -> np.ndarray:
    """Return the square of side max(width, height) about the box's centre, uint8 (side, side, 3).

    Where it leaves the frame, the frame's border pixels are repeated. Raises ValueError for a box that is
    empty or lies wholly outside the frame.
    """
    frame_height, frame_width = image.shape[:2]
    inside = x < frame_width and y < frame_height and x + width > 0 and y + height > 0
    if width <= 0 or height <= 0 or not inside:
        raise ValueError(
            f"expected a face box inside the image ({frame_width}x{frame_height}), "
            f"found x={x} y={y} width={width} height={height}"
        )
    side = max(width, height)
    left, top = x + (width - side) // 2, y + (height - side) // 2
    right, bottom = left + side, top + side
    kept = image[max(top, 0) : min(bottom, frame_height), max(left, 0) : min(right, frame_width)]
    margins = (max(-top, 0), max(bottom - frame_height, 0), max(-left, 0), max(right - frame_width, 0))
    return cv2.copyMakeBorder(kept, *margins, cv2.BORDER_REPLICATE)


def _read_annotation(image: Path, kind: str) -> str:
    path = image.parent.parent / "annotations" / f"{image.stem}_{kind}.npy"
    try:
        return str(np.load(path, allow_pickle=False).item())
    except (OSError, ValueError, EOFError):
        raise ValueError(
            f"expected an annotation that can be read, found none; check annotations/{path.name}"
        ) from None


def _build_factors(valence: str, arousal: str) -> dict[str, float]:
    return {"valence": parse_float(valence, "valence"), "arousal": parse_float(arousal, "arousal")}


def parse_float(text: str, what: str) -> float:
    """Return `text` as a number. Raises ValueError naming `what`."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected {what} as a number, found {text[:20]!r}") from None


def _parse_pixel(text: str) -> int:
    if not re.fullmatch(r"\s*-?\d+(\.\d*)?\s*", text):
        raise ValueError(f"expected a face box in pixels, found {text[:20]!r}")
    return round(float(text))
