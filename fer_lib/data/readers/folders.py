"""Read images in class folders, with or without split folders above them, under the names that people use."""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from fer_lib.data.image_files import (
    PassedOver,
    describe_counts,
    list_folders,
    list_images,
    pass_loose_files,
)
from fer_lib.data.images import decode_image
from fer_lib.data.packed import SPLITS
from fer_lib.data.readers.base import Face, RawDataset, find_root, read_rows
from fer_lib.errors import DataError
from fer_lib.labels import get_emotions, normalise_emotion, suggest_emotion

SPLIT_OF_NAME = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What a folder holds, by its name in small letters."""

RAFDB_ORDER = "1: surprise, 2: fear, 3: disgust, 4: happy, 5: sad, 6: angry, 7: neutral"
"""What the numbers mean that RAF-DB has in place of names, as YAML."""


def open_folder(
    raw_dir: Path, n_classes: int, classes: Mapping[str, str | None] = MappingProxyType({})
) -> RawDataset:
    """Return the images of `<class>/...`, or of the same in folders named after splits, as RGB.

    They come in the order of folder and file names. With split folders, a missing `val` or `test` is cut
    from `train` by `prepare`; with none, both are.

    Parameters
    ----------
    classes
        What a class folder stands for, by its name, where the name alone does not say it; None: nothing.

    Raises
    ------
    DataError
        For a class folder that is empty or whose name is no emotion, and for a folder beside split folders
        that is none.
    """
    emotions = get_emotions(n_classes)
    given = raw_dir
    raw_dir = find_root(given, "one folder of images per emotion", {*SPLIT_OF_NAME, *classes})
    splits = find_splits(raw_dir)
    if splits and "train" not in splits:
        found = ", ".join(f"{folder.name}/" for folder in splits.values())
        raise DataError(f"{raw_dir}: expected a folder train/ beside {found}, found none; add it")
    images = ClassImages(emotions, classes)
    above = [given, *(path for path in raw_dir.parents if given in path.parents)] if raw_dir != given else []
    for folder in [*above, raw_dir] if splits else above:
        pass_loose_files(folder, images.passed_over)
    listed = []
    for split, folder in (splits or {"": raw_dir}).items():
        target = name_target(split, splits)
        for path, label in images.list(folder):
            listed.append((path.relative_to(raw_dir).as_posix(), (label, target)))

    def read(source: str, values: tuple[int, str]) -> Face:
        return Face(decode_image(raw_dir / source), *values, source)

    layout = "split folders" if splits else "folders"
    return RawDataset(
        emotions, layout, len(listed), read_rows(listed, read), images.passed_over, images.names
    )


def find_splits(raw_dir: Path) -> dict[str, Path]:
    """Return the folders named after splits, by split, in the order of `SPLITS`; empty when there is none.

    Raises DataError for two folders of one split, and for any other folder beside them.
    """
    found: dict[str, Path] = {}
    others = []
    for path in list_folders(raw_dir):
        split = SPLIT_OF_NAME.get(path.name.lower())
        if split is None:
            others.append(path)
        elif split in found:
            raise DataError(
                f"{raw_dir}: expected one folder for {split}, found {found[split].name}/ and {path.name}/; "
                "join them"
            )
        else:
            found[split] = path
    if found and others:
        names = ", ".join(f"{path.name}/" for path in found.values())
        raise DataError(
            f"{raw_dir}: expected split folders alone (train, val, test) or class folders alone, found "
            f"{names} and beside it {others[0].name}/; move or rename one of them"
        )
    return {split: found[split] for split in SPLITS if split in found}


def name_target(split: str, given: Collection[str]) -> str:
    """Return the `split` of a face in a split's folder: train is also cut into the splits not `given`."""
    return "|".join(["train", *(each for each in SPLITS if each not in given)]) if split == "train" else split


class ClassImages:
    """Lists the images of class folders; remembers what each name was taken for and what was passed over."""

    def __init__(self, emotions: tuple[str, ...], classes: Mapping[str, str | None]) -> None:
        self._emotions, self._classes = emotions, classes
        self.names: dict[str, str | None] = {}
        self.passed_over: PassedOver = {}

    def list(self, folder: Path) -> list[tuple[Path, int]]:
        """Return (image file, label) for all below `folder/<class>/`, in the order of their names.

        Raises DataError for a class folder whose name is no emotion, or that holds no images.
        """
        beside: PassedOver = {}
        folders = list_folders(folder)
        pass_loose_files(folder, beside)
        if not folders:
            emotions = ", ".join(self._emotions)
            raise DataError(
                f"{folder}: expected one folder per emotion ({emotions}), found none, and of files "
                f"{describe_counts(Counter(beside.values()))}; sort the images into such folders"
            )
        self.passed_over |= beside
        images = []
        for path in folders:
            emotion = self.names[path.name] = self._match(path)
            files = list_images(path, self.passed_over)
            if not files:
                raise DataError(f"{path}: expected images, found none; fill the folder or remove it")
            if emotion is None:
                self.passed_over |= dict.fromkeys(files, f"of class {path.name}")
            else:
                images += [(file, self._emotions.index(emotion)) for file in files]
        return images

    def _match(self, folder: Path) -> str | None:
        name, known = folder.name, f"{len(self._emotions)} classes ({', '.join(self._emotions)})"
        try:
            emotion = self._classes[name] if name in self._classes else normalise_emotion(name)
        except KeyError:
            near = suggest_emotion(name)
            hint = f", which is near {near!r}" if near else ""
            meant = f"{json.dumps(name)}: {near or 'null'}"
            advice = f"`classes: {{{meant}}}`{'' if near else ', where null leaves it out'}"
            if re.fullmatch("[1-7]", name):
                advice = f"RAF-DB's numbers, for one, are `classes: {{{RAFDB_ORDER}}}`"
            raise DataError(
                f"{folder}: expected a folder named after one of the {known}, found {name!r}{hint}; rename "
                f"it, or say what it shows in params.yaml, under prepare of the data set: {advice}"
            ) from None
        if emotion is not None and emotion not in self._emotions:
            raise DataError(
                f"{folder}: expected a folder named after one of the {known}, found {name!r}; in "
                "params.yaml, under prepare of the data set, set `n_classes: 8`, or to leave it out "
                f"`classes: {{{json.dumps(name)}: null}}`"
            )
        return emotion
