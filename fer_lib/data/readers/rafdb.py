"""Read RAF-DB (the basic emotions) as its authors give it, or the copy in class folders.

Looked for in this order; the first one found is read and named in `layout`:

1. `list`: `list_patition_label.txt`, spelled like that or correctly, here or up to two folders down, mostly
   in `EmoLabel/`; lines such as `train_00001.jpg 5`. The images lie up to three folders down, mostly in
   `Image/aligned/` as `train_00001_aligned.jpg`; where there are none of these, in `Image/original/`;
2. `split folders`: `train/1/` to `train/7/` and `test/` with the same, mostly in `DATASET/`.

The official test set is the test split; a validation split is cut from the training set by `prepare`.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import yaml

from fer_lib.data.image_files import list_folders
from fer_lib.data.readers.base import Face, RawDataset, build_layout_error, find_root, read_rows
from fer_lib.data.readers.folders import RAFDB_ORDER, SPLIT_OF_NAME, open_folder
from fer_lib.data.readers.listed import (
    N_TRIED,
    find_file,
    find_images,
    read_listed,
    search_images,
    walk_folders,
)
from fer_lib.labels import EMOTIONS_7

CODES: dict[str, str] = {str(code): emotion for code, emotion in yaml.safe_load(f"{{{RAFDB_ORDER}}}").items()}
"""RAF-DB's expression codes, 1 to 7."""

_LISTS = ("list_patition_label.txt", "list_partition_label.txt")
_ALIGNED = "_aligned"


def open_rafdb(raw_dir: Path, classes: Mapping[str, str | None] = MappingProxyType({})) -> RawDataset:
    """Return RAF-DB's seven classes as RGB, in the order of the list, or of folder and file names.

    Aligned images show the face alone; original ones are whole photographs and are not cropped here.

    Parameters
    ----------
    classes
        What a code stands for, where it is not RAF-DB's own order; None: nothing.

    Raises
    ------
    DataError
        When no layout is recognised or the listed images are nowhere, and what `open_folder` raises.
    """
    expected = f"{_LISTS[0]} and the images, or train/1/ to train/7/ and test/"
    raw_dir = find_root(raw_dir, expected, {*SPLIT_OF_NAME, *CODES, *classes, "EmoLabel"})
    for name in _LISTS:
        folder = find_file(raw_dir, name)
        if folder:
            return _open_list(raw_dir, folder / name, {**CODES, **classes})
    for folder in walk_folders(raw_dir, 2):
        splits = [path for path in list_folders(folder) if path.name.lower() in SPLIT_OF_NAME]
        found = {path.name for split in splits for path in list_folders(split)}
        if found:
            # A copy may have names instead of numbers.
            order = {code: emotion for code, emotion in CODES.items() if code in found}
            return open_folder(folder, len(EMOTIONS_7), {**order, **classes})
    raise build_layout_error(raw_dir, expected)


def _open_list(raw_dir: Path, path: Path, names: dict[str, str | None]) -> RawDataset:
    lines = path.read_text("utf-8-sig", errors="replace").splitlines()
    listed = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    originals = [fields[0] for _, fields in listed[:N_TRIED]]
    aligned = [_insert(name, _ALIGNED) for name in originals]
    images_dir = search_images(raw_dir, aligned)
    suffix = _ALIGNED if images_dir else ""
    images_dir = images_dir or find_images(raw_dir, originals, f"{path.name}, aligned or original,")

    def read(source: str, fields: list[str]) -> Face | None:
        if len(fields) != 2:
            raise ValueError(f"expected an image and its code, found {' '.join(fields)[:40]!r}")
        name, code = fields
        if code not in names:
            raise ValueError(f"expected an expression code 1 to 7, found {code[:20]!r}")
        part = name.split("_")[0]
        if part not in ("train", "test"):
            raise ValueError(f"expected an image named train_ or test_, found {name[:40]!r}")
        emotion = names[code]
        if emotion not in EMOTIONS_7:
            return None
        image = read_listed(images_dir, _insert(name, suffix))
        return Face(image, EMOTIONS_7.index(emotion), "test" if part == "test" else "train|val", source)

    where = path.relative_to(raw_dir).as_posix()
    rows = ((f"{where}:{number}", fields) for number, fields in listed)
    occurring = {fields[1] for _, fields in listed if len(fields) == 2} & set(names)
    read_as = {code: names[code] for code in sorted(occurring)}
    return RawDataset(EMOTIONS_7, "list", len(listed), read_rows(rows, read), classes=read_as)


def _insert(name: str, suffix: str) -> str:
    """Return an image's name with `suffix` before its ending."""
    path = Path(name)
    return f"{path.stem}{suffix}{path.suffix}"
