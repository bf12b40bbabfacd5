"""Read a user's own faces, and pack them in the framing of the network that is to learn from them."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

from fer_lib.data.detector import CANDIDATE, Detector
from fer_lib.data.image_files import PassedOver, list_folders, list_images, pass_loose_files
from fer_lib.data.images import read_image
from fer_lib.data.packed import SPLITS, PackedDataset, load_packed
from fer_lib.data.prepare import pack
from fer_lib.data.readers.base import Face, RawDataset, find_root
from fer_lib.data.readers.folders import SPLIT_OF_NAME, find_splits
from fer_lib.errors import DataError, MediaError
from fer_lib.inference.annotate import COLUMNS
from fer_lib.inference.crops import cut_largest
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.video import COLUMN_TYPES
from fer_lib.labels import EMOTIONS_8, normalise_emotion
from fer_lib.param_sections import FinetuningParams
from fer_lib.params import Params

LAYOUT = "own faces"


class Example(NamedTuple):
    """An image and what a person said of its largest face; `person` and `split` are empty where unknown."""

    path: Path
    label: str
    person: str = ""
    split: str = ""


@dataclass(frozen=True)
class OwnFaces:
    """The packed faces, and what became of the other images.

    problems: a line for each image that could not be read.   no_face: images of each class in which no face
    was found.   passed_over: files that are no images of a class.
    """

    data: PackedDataset
    problems: list[str] = field(default_factory=list)
    no_face: Counter[str] = field(default_factory=Counter)
    passed_over: PassedOver = field(default_factory=dict)


def pack_own_faces(source: Path, name: str, recognizer: Recognizer, params: Params) -> OwnFaces:
    """Pack the faces of `source` as the data set `name`, cut as the training faces of `recognizer` were.

    source: a folder with one folder of images per class, or a CSV with the columns `path` (relative to the
    CSV) and `label` and, if you like, `person` and `split`. A class is named as its folder is, or as the
    emotion of which that is another spelling. In each image the largest face counts; an image of at most 64
    pixels is a face as it is.

    Without a column `split`, faces are divided so that each class has its share in every part; equal images,
    and those of one `person`, stay together.

    Raises DataError, in one line, for a source in neither form, fewer than two classes, or a class with fewer
    faces than `finetuning.folds`.
    """
    settings = params.finetuning
    passed_over: PassedOver = {}
    examples = _read_list(source) if source.is_file() else _list_folder(source, passed_over)
    classes = _order_classes({example.label for example in examples}, source)
    kept, crops, problems, no_face = _cut_faces(examples, recognizer)
    _check_counts(source, classes, Counter(example.label for example in kept), settings.folds, problems)
    splits = _assign_splits(kept, crops, settings)
    has_persons = any(example.person for example in kept)
    faces = [
        Face(
            crop,
            classes.index(example.label),
            split,
            str(example.path),
            # An image of nobody in particular is a person of its own.
            factors={"identity": example.person or str(example.path)} if has_persons else {},
        )
        for example, crop, split in zip(kept, crops, splits, strict=True)
    ]
    framing = recognizer.framing
    prepare = params.prepare.model_copy(update={"size": framing.size, "channels": framing.channels})
    raw = RawDataset(classes, LAYOUT, len(faces), faces, passed_over)
    pack(name, raw, prepare, framing=framing, progress=False)
    return OwnFaces(load_packed(name), problems, no_face, passed_over)


def _list_folder(source: Path, passed_over: PassedOver) -> list[Example]:
    root = find_root(source, "one folder of images per class", SPLIT_OF_NAME)
    if splits := find_splits(root):
        raise DataError(
            f"{root}: expected one folder of images per class, found "
            f"{', '.join(f'{folder.name}/' for folder in splits.values())}; give a CSV with a column split"
        )
    pass_loose_files(root, passed_over)
    return [
        Example(path, _name_class(folder.name))
        for folder in list_folders(root)
        for path in list_images(folder, passed_over)
    ]


def _read_list(source: Path) -> list[Example]:
    try:
        table = pd.read_csv(source, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise DataError(f"{source}: expected a CSV, found {' '.join(str(error).split())[:160]}") from None
    lacking = [name for name in ("path", "label") if name not in table]
    if lacking:
        found = ", ".join(map(str, table))[:160]
        raise DataError(f"{source}: expected a column {lacking[0]!r}, found {found}; rename the column")
    splits = set(table.get("split", [])) - {*SPLITS}
    if splits:
        raise DataError(
            f"{source}: expected train, val or test in the column split, found {min(splits)!r}; correct it, "
            "or leave the column out"
        )
    optional = {name: table.get(name, pd.Series("", table.index)) for name in ("person", "split")}
    return [
        Example(source.parent / path, _name_class(label), person, split)
        for path, label, person, split in zip(table["path"], table["label"], *optional.values(), strict=True)
    ]


def _name_class(name: str) -> str:
    """Return an emotion under its own name, whatever the spelling, and any other class as it is."""
    try:
        return normalise_emotion(name)
    except KeyError:
        return name.strip()


def _order_classes(names: set[str], source: Path) -> tuple[str, ...]:
    """Return emotions in label order, then other classes by name."""
    taken = names & {*COLUMNS, *COLUMN_TYPES, ""}
    if taken:
        raise DataError(f"{source}: a class cannot be called {min(taken)!r}, as a column is; rename it")
    if len(names) < 2:
        raise DataError(
            f"{source}: expected at least two classes, found {', '.join(names) or 'none'}; sort the images "
            "into one folder per class"
        )
    known = [name for name in EMOTIONS_8 if name in names]
    return (*known, *sorted(names - set(known)))


def _cut_faces(
    examples: Sequence[Example], recognizer: Recognizer
) -> tuple[list[Example], list[np.ndarray], list[str], Counter[str]]:
    """Return the examples with a face, these faces, a line for each unreadable image, and counts without."""
    kept, crops, problems, no_face = [], [], [], Counter[str]()
    detector = Detector(min_score=CANDIDATE)
    for example in tqdm(examples, desc="faces", unit="face", disable=None, leave=False):
        try:
            crop = cut_largest(recognizer, read_image(example.path), detector)
        except MediaError as error:
            problems.append(str(error))
            continue
        if crop is None:
            no_face[example.label] += 1
        else:
            kept.append(example)
            crops.append(crop)
    return kept, crops, problems, no_face


def _check_counts(
    source: Path, classes: Sequence[str], counts: Counter[str], folds: int, problems: Sequence[str]
) -> None:
    few = [name for name in classes if counts[name] < folds]
    if few:
        first = f"; the first problem: {problems[0]}" if problems else ""
        raise DataError(
            f"{source}: expected at least {folds} faces in every class, found {counts[few[0]]} of "
            f"{few[0]!r}{first}; add some, or leave the class out"
        )


def _assign_splits(
    examples: Sequence[Example], crops: Sequence[np.ndarray], settings: FinetuningParams
) -> list[str]:
    if all(example.split for example in examples):
        return [example.split for example in examples]
    groups = [
        example.person or hashlib.sha1(crop.tobytes()).hexdigest()
        for example, crop in zip(examples, crops, strict=True)
    ]
    labels = [example.label for example in examples]
    folds = StratifiedGroupKFold(settings.folds, shuffle=True, random_state=settings.seed)
    splits = np.full(len(examples), "train", dtype="<U5")
    for split, (_, rows) in zip(("test", "val"), folds.split(crops, labels, groups), strict=False):
        splits[rows] = split
    return [str(split) for split in splits]
