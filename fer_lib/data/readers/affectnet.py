"""Read AffectNet in the two layouts it is distributed in. The set is licensed: ask its authors for it.

Looked for in this order; the first one found is read and named in `layout`:

1. `lists`: `training.csv` and `validation.csv`, in the raw folder or in `Manually_Annotated_file_lists/`;
   the full images under `Manually_Annotated_Images/` (also inside `Manually_Annotated/`) or beside;
2. `annotations`: `train_set/` and `val_set/`, each with `images/<id>.jpg` and
   `annotations/<id>_exp.npy`, `_val.npy`, `_aro.npy`.

The official validation set is the test split, since the official test set was never published; a
validation split is cut from the training set by `prepare`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from fer_lib.data.images import decode_image, list_images
from fer_lib.data.readers.base import (
    BadRow,
    CsvFile,
    Excluded,
    Face,
    build_layout_error,
    check_raw_dir,
    parse_int,
)
from fer_lib.errors import DataError
from fer_lib.labels import get_emotions

EXPRESSIONS = (
    *("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt"),
    *("none", "uncertain", "no-face"),
)
"""AffectNet's expression codes, 0 to 10."""

_COLUMNS = (
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"),
    *("facial_landmarks", "expression", "valence", "arousal"),
)
_LISTS = (("training.csv", "train|val"), ("validation.csv", "test"))
_IMAGE_DIRS = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", ".")
_SETS = (("train_set", "train|val"), ("val_set", "test"))


class AffectNetReader:
    """AffectNet with 7 classes, or 8 with contempt; rows in the order of the lists, or of the image ids.

    Images are yielded as uint8 (side, side, 3) RGB: in layout `lists` cropped to the face box, made square
    about its centre, and repeating the frame's border where the square leaves the frame. Expressions
    none, uncertain and no-face, and contempt with 7 classes, are Excluded. Factors: valence, arousal
    (float in [-1, 1]). Raises DataError when no layout is recognised or a column is missing.
    """

    def __init__(self, raw_dir: Path, n_classes: int) -> None:
        self.emotions = get_emotions(n_classes)
        self._raw_dir = raw_dir
        expected = "training.csv and validation.csv, or train_set/ and val_set/"
        check_raw_dir(raw_dir, expected)
        lists_dir = raw_dir / "Manually_Annotated_file_lists"
        if not lists_dir.is_dir():
            lists_dir = raw_dir
        if all((lists_dir / name).is_file() for name, _ in _LISTS):
            self.layout = "lists"
            self._images_dir = next(raw_dir / name for name in _IMAGE_DIRS if (raw_dir / name).is_dir())
            self._lists = [(CsvFile(lists_dir / name, _COLUMNS), split) for name, split in _LISTS]
        elif all((raw_dir / name / "images").is_dir() for name, _ in _SETS):
            self.layout = "annotations"
            self._images = [item for name, split in _SETS for item in _list_set(raw_dir / name, split)]
        else:
            raise build_layout_error(raw_dir, expected)

    def __len__(self) -> int:
        if self.layout == "lists":
            return sum(len(table) for table, _ in self._lists)
        return len(self._images)

    def __iter__(self) -> Iterator[Face | BadRow | Excluded]:
        return self._read_lists() if self.layout == "lists" else self._read_sets()

    def _read_lists(self) -> Iterator[Face | BadRow | Excluded]:
        for table, split in self._lists:
            for line, fields in table:
                source = f"{table.path.relative_to(self._raw_dir).as_posix()}:{line}"
                try:
                    yield self._build_listed_face(source, split, table.pick(fields))
                except ValueError as error:
                    yield BadRow(source, str(error))

    def _build_listed_face(self, source: str, split: str, values: list[str]) -> Face | Excluded:
        path, *box, _, expression, valence, arousal = values
        label = self._get_label(expression)
        if label is None:
            return Excluded(source, f"expression {expression}")
        try:
            image = decode_image(self._images_dir / path)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        image = crop_square_box(image, *map(_parse_pixel, box))
        return Face(image, label, split, source, factors=_build_factors(valence, arousal))

    def _read_sets(self) -> Iterator[Face | BadRow | Excluded]:
        for path, split in self._images:
            source = path.relative_to(self._raw_dir).as_posix()
            try:
                yield self._build_annotated_face(source, split, path)
            except ValueError as error:
                yield BadRow(source, str(error))

    def _build_annotated_face(self, source: str, split: str, path: Path) -> Face | Excluded:
        expression = _read_annotation(path, "exp")
        label = self._get_label(expression)
        if label is None:
            return Excluded(source, f"expression {expression}")
        factors = _build_factors(_read_annotation(path, "val"), _read_annotation(path, "aro"))
        return Face(decode_image(path), label, split, source, factors=factors)

    def _get_label(self, expression: str) -> int | None:
        name = EXPRESSIONS[parse_int(expression, 0, len(EXPRESSIONS) - 1, "an expression code")]
        return self.emotions.index(name) if name in self.emotions else None


def crop_square_box(image: np.ndarray, x: int, y: int, width: int, height: int) -> np.ndarray:
    """Return the square of side max(width, height) about the box's centre, uint8 (side, side, 3).

    Where it leaves the frame, the frame's border pixels are repeated. Raises ValueError for a box that is
    empty or lies wholly outside the frame.
    """
    frame_height, frame_width = image.shape[:2]
    inside = x < frame_width and y < frame_height and x + width > 0 and y + height > 0
    if width <= 0 or height <= 0 or not inside:
        raise ValueError(
            f"expected a face box inside the {frame_width}x{frame_height} image, "
            f"found x={x} y={y} width={width} height={height}"
        )
    side = max(width, height)
    left, top = x + (width - side) // 2, y + (height - side) // 2
    right, bottom = left + side, top + side
    kept = image[max(top, 0) : min(bottom, frame_height), max(left, 0) : min(right, frame_width)]
    margins = (max(-top, 0), max(bottom - frame_height, 0), max(-left, 0), max(right - frame_width, 0))
    return cv2.copyMakeBorder(kept, *margins, cv2.BORDER_REPLICATE)


def _list_set(folder: Path, split: str) -> list[tuple[Path, str]]:
    images = list_images(folder / "images")
    if not images:
        raise DataError(f"{folder / 'images'}: expected images, found none; unpack the set again")
    # Ids are numbers without leading zeros: by value they are in the official order.
    images.sort(key=lambda path: (int(path.stem) if path.stem.isdecimal() else -1, path.name))
    return [(path, split) for path in images]


def _read_annotation(image: Path, kind: str) -> str:
    path = image.parent.parent / "annotations" / f"{image.stem}_{kind}.npy"
    try:
        return str(np.load(path, allow_pickle=False).item())
    except (OSError, ValueError, EOFError):
        raise ValueError(
            f"expected one value in annotations/{path.name}, found none that can be read"
        ) from None


def _build_factors(valence: str, arousal: str) -> dict[str, float]:
    return {"valence": _parse_float(valence, "valence"), "arousal": _parse_float(arousal, "arousal")}


def _parse_float(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected {what} as a number, found {text[:20]!r}") from None


def _parse_pixel(text: str) -> int:
    if not re.fullmatch(r"\s*-?\d+(\.\d*)?\s*", text):
        raise ValueError(f"expected a face box in pixels, found {text[:20]!r}")
    return round(float(text))
