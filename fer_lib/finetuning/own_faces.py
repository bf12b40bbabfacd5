"""Read a user's own faces, and pack them in the framing of the network that is to learn from them."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

from fer_lib.data.detector import CANDIDATE, Detector
from fer_lib.data.image_files import PassedOver, list_folders, list_images, pass_loose_files
from fer_lib.data.images import read_image
from fer_lib.data.packed import SPLITS, PackedDataset, load_packed
from fer_lib.data.prepare import pack
from fer_lib.data.readers.base import CsvFile, Face, RawDataset, find_root
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

MAX_CLASSES = 100
LONGEST_NAME = 40

TAKEN_NAMES = {
    *(*COLUMNS, *COLUMN_TYPES, "row", "error", "model"),
    *("face", "from", "to", "seconds", "mostly", "unsure"),
}
"""Columns, in small letters, of the tables in which each class has one as well."""


class Example(NamedTuple):
    """An image and the label of its largest face; `person` and `split` are empty where unknown."""

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

    Raises DataError, in one line, for a source in neither form, for fewer than two classes, and where not
    every class can be in every split, or a person or an image would be in two.
    """
    passed_over: PassedOver = {}
    examples = _read_list(source) if source.is_file() else _list_folder(source, passed_over)
    classes = _order_classes({example.label for example in examples}, source)
    kept, crops, problems, no_face = _cut_faces(examples, recognizer)
    groups = _group_faces(kept, crops)
    splits = [example.split for example in kept]
    if not any(splits):
        splits = _divide(source, [example.label for example in kept], groups, problems, params.finetuning)
    _check_splits(source, classes, kept, groups, splits, problems)
    has_persons = any(example.person for example in kept)
    faces = [
        Face(
            crop,
            classes.index(example.label),
            split,
            str(example.path),
            # A face whose person is not known counts as a person of its own.
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
    header = CsvFile(source, ("path", "label")).header
    columns = ("path", "label", *(name for name in ("person", "split") if name in header))
    table, examples = CsvFile(source, columns), []
    for line, fields in table:
        try:
            values = dict(zip(columns, (value.strip() for value in table.pick(fields)), strict=True))
            lacking = [name for name in columns if not values[name] and name != "person"]
            if lacking:
                raise ValueError(f"expected a value in the column {lacking[0]}, found none")
            if values.get("split", SPLITS[0]) not in SPLITS:
                raise ValueError(
                    f"expected train, val or test in the column split, found {values['split']!r}"
                )
        except ValueError as error:
            raise DataError(f"{source}:{line}: {error}; correct the line") from None
        label, path = _name_class(values.pop("label")), source.parent / values.pop("path")
        examples.append(Example(path, label, **values))
    return examples


def _name_class(name: str) -> str:
    """Return an emotion under its own name, whatever the spelling, and any other class as it is."""
    try:
        return normalise_emotion(name)
    except KeyError:
        return name.strip()


def _order_classes(names: set[str], source: Path) -> tuple[str, ...]:
    """Return emotions in label order, then other classes by name."""
    for name in sorted(names):
        if name.lower() in TAKEN_NAMES:
            raise DataError(
                f"{source}: a class cannot be called {name!r}, as a column of tables is; rename it"
            )
        if len(name) > LONGEST_NAME or "$" in name or not name.isprintable():
            raise DataError(
                f"{source}: expected names of classes of at most {LONGEST_NAME} printable characters but $, "
                f"found {name[:60]!r}; rename it"
            )
    if not 2 <= len(names) <= MAX_CLASSES:
        found = ", ".join(names) if len(names) < 2 else f"{len(names)}"
        raise DataError(
            f"{source}: expected 2 to {MAX_CLASSES} classes, found {found or 'none'}; give each image one of "
            "a few classes"
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


def _group_faces(examples: Sequence[Example], crops: Sequence[np.ndarray]) -> list[str]:
    """Return for each face what may not be divided: its person or, where none is named, its pixels.

    Raises DataError for equal images with different labels.
    """
    first: dict[str, Example] = {}
    groups = []
    for example, crop in zip(examples, crops, strict=True):
        digest = hashlib.sha1(crop.tobytes()).hexdigest()
        equal = first.setdefault(digest, example)
        if equal.label != example.label:
            raise DataError(
                f"{example.path}: expected the label {equal.label!r} of {equal.path}, which shows the same, "
                f"found {example.label!r}; correct one of them"
            )
        groups.append(example.person or digest)
    return groups


def _divide(
    source: Path,
    labels: Sequence[str],
    groups: Sequence[str],
    problems: Sequence[str],
    settings: FinetuningParams,
) -> list[str]:
    """Return the split of each face, by stratified folds of whole groups."""
    rarest = min(Counter(labels).values(), default=0)
    if rarest < settings.folds or len(set(groups)) < settings.folds:
        first = f"; the first problem: {problems[0]}" if problems else ""
        raise DataError(
            f"{source}: expected at least {settings.folds} faces in every class, of as many persons or "
            f"images, found {rarest} faces in the smallest class and {len(set(groups))} persons or images"
            f"{first}; add some"
        )
    folds = StratifiedGroupKFold(settings.folds, shuffle=True, random_state=settings.seed)
    splits = np.full(len(labels), "train", dtype="<U5")
    for split, (_, rows) in zip(("test", "val"), folds.split(labels, labels, groups), strict=False):
        splits[rows] = split
    return [str(split) for split in splits]


def _check_splits(
    source: Path,
    classes: Sequence[str],
    examples: Sequence[Example],
    groups: Sequence[str],
    splits: Sequence[str],
    problems: Sequence[str],
) -> None:
    """Raise DataError unless every class is in every split, and no person or image is in two."""
    counts = Counter((example.label, split) for example, split in zip(examples, splits, strict=True))
    for name in classes:
        empty = [split for split in SPLITS if not counts[name, split]]
        if empty:
            first = f"; the first problem: {problems[0]}" if problems else ""
            raise DataError(
                f"{source}: expected faces of {name!r} in train, val and test, found none in "
                f"{' and '.join(empty)}{first}; add faces, or persons who show this class, or leave it out"
            )
    found: defaultdict[str, set[str]] = defaultdict(set)
    for example, group, split in zip(examples, groups, splits, strict=True):
        found[group].add(split)
        if len(found[group]) > 1:
            what = f"the person {group!r}" if example.person else f"what {example.path} shows"
            raise DataError(
                f"{source}: expected {what} in one split, found it in {' and '.join(sorted(found[group]))}; "
                "correct the column split"
            )
