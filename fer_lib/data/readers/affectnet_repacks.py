"""Read the re-packs of AffectNet that others made. `affectnet` reads the set as its authors give it.

Looked for in this order, after the official layouts; the first one found is read and named in `layout`:

1. `labels`: `labels.csv` with columns `pth`, `label` and `relFCs`, and one folder of images per class. The
   column counts, not the folder: the two may differ;
2. `yolo`: images, and for each a text file of boxes, in `<split>/images/` and `<split>/labels/`, in
   `images/<split>/` and `labels/<split>/`, or without split folders; `data.yaml` names the classes.

Which of the official images a re-pack holds, and in which of its splits, it does not say.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import yaml

from fer_lib.data.image_files import PassedOver, is_hidden, list_folders, list_images
from fer_lib.data.readers.affectnet import crop_square_box, find_affectnet, find_layout, parse_float
from fer_lib.data.readers.base import CsvFile, Face, RawDataset, read_rows
from fer_lib.data.readers.folders import SPLIT_OF_NAME, find_splits, name_target
from fer_lib.data.readers.listed import N_TRIED, find_images, pick_rows, read_listed
from fer_lib.errors import DataError, ParamsError
from fer_lib.labels import get_emotions, normalise_emotion, suggest_emotion

_LABELS = "labels.csv"


def open_repack(
    raw_dir: Path, n_classes: int, classes: Mapping[str, str | None] = MappingProxyType({})
) -> RawDataset | None:
    """Return a re-pack of AffectNet, or None for the official layouts and for no layout at all.

    Images are uint8 (H, W, 3) RGB, in the order of the list, whole, with the factor relFCs (float); or, in
    layout `yolo`, one for each box, square, in the order of the files. `prepare` cuts the splits that have no
    folder. Contempt is left out with 7 classes.

    Parameters
    ----------
    classes
        What a class name stands for where it does not say it itself; None: nothing.

    Raises
    ------
    DataError
        For missing images, labels or class names.
    ParamsError
        For 8 classes of a re-pack without contempt.
    """
    emotions = get_emotions(n_classes)
    raw_dir = find_affectnet(raw_dir)
    if find_layout(raw_dir):
        return None
    if (raw_dir / _LABELS).is_file():
        return _open_labels(raw_dir, emotions, classes)
    folders = _find_yolo(raw_dir)
    return _open_yolo(raw_dir, folders, emotions, classes) if folders else None


def _open_labels(raw_dir: Path, emotions: tuple[str, ...], classes: Mapping[str, str | None]) -> RawDataset:
    table = CsvFile(raw_dir / _LABELS, ("pth", "label", "relFCs"))
    listed = list(pick_rows(table))
    names = _match_classes(sorted({label for _, label, _ in listed}), emotions, classes, table.path)
    images_dir = find_images(raw_dir, [path for path, *_ in listed[:N_TRIED]], _LABELS)
    # Some copies hold the listed images in `Train/` and `Test/`.
    is_split = images_dir.name.lower() in SPLIT_OF_NAME
    folders = find_splits(images_dir.parent) if is_split else {"": images_dir}

    def read(source: str, fields: list[str]) -> Face | None:
        path, label, confidence = table.pick(fields)
        if label not in names:
            raise ValueError(
                f"expected an emotion as label, found {label[:20]!r}; name it under prepare.classes"
            )
        emotion = names[label]
        if emotion is None:
            return None
        factors = {"relFCs": parse_float(confidence, "relFCs")}
        holding = [name for name, folder in folders.items() if (folder / path).is_file()]
        if len(holding) > 1:
            raise ValueError(
                f"expected the image in one split folder, found it in {' and '.join(holding)} [{path}]"
            )
        split = holding[0] if holding else next(iter(folders))
        image, target = read_listed(folders[split], path), name_target(split, folders)
        return Face(image, emotions.index(emotion), target, source, factors=factors)

    rows = ((f"{_LABELS}:{line}", fields) for line, fields in table)
    return RawDataset(emotions, "labels", table.count_rows(), read_rows(rows, read), classes=names)


def _find_yolo(raw_dir: Path) -> dict[str, tuple[Path, Path]]:
    """Return the folders of images and of labels by split, by "" for no split folders; empty for no YOLO."""
    images, labels = raw_dir / "images", raw_dir / "labels"
    if images.is_dir() and labels.is_dir():
        splits = find_splits(images)
        return {split: (path, labels / path.name) for split, path in splits.items()} or {"": (images, labels)}
    named = [path for path in list_folders(raw_dir) if path.name.lower() in SPLIT_OF_NAME]
    if not any((path / "images").is_dir() and (path / "labels").is_dir() for path in named):
        return {}
    return {split: (path / "images", path / "labels") for split, path in find_splits(raw_dir).items()}


def _open_yolo(
    raw_dir: Path,
    folders: Mapping[str, tuple[Path, Path]],
    emotions: tuple[str, ...],
    classes: Mapping[str, str | None],
) -> RawDataset:
    if not {"", "train"} & set(folders):
        found = ", ".join(str(images.relative_to(raw_dir)) for images, _ in folders.values())
        raise DataError(f"{raw_dir}: expected images to train on beside {found}, found none; add them")
    file, ids = _read_names(raw_dir)
    names = _match_classes(ids.values(), emotions, classes, file)
    unknown = [name for name in ids.values() if name not in names]
    if unknown:
        near = suggest_emotion(unknown[0]) or "null"
        raise DataError(
            f"{file}: expected emotions under `names`, found {unknown[0]!r}; correct it, or say what it "
            f"shows in params.yaml, under prepare of the data set: `classes: {{{unknown[0]}: {near}}}`"
        )
    passed_over: PassedOver = {}
    rows = []
    for split, (images, labels) in folders.items():
        target = name_target(split, folders)
        for label_file, number, image, line in _list_lines(images, labels, passed_over):
            rows.append((f"{label_file.relative_to(raw_dir).as_posix()}:{number}", (image, line, target)))
    if not rows:
        n_images = [*passed_over.values()].count("image without a label")
        raise DataError(
            f"{raw_dir}: expected label files named as the images are, found none with a box for "
            f"{n_images:,} images; unpack images and labels of the same set"
        )
    decode = lru_cache(maxsize=1)(read_listed)  # the faces of one image follow each other

    def read(source: str, values: tuple[Path, str, str]) -> Face | None:
        path, line, target = values
        number, *box = _split_line(line)
        if number not in ids:
            raise ValueError(f"expected a class id of {file.name}, found {number[:20]!r}")
        emotion = names[ids[number]]
        if emotion is None:
            return None
        image = decode(raw_dir, path.relative_to(raw_dir).as_posix())
        height, width = image.shape[:2]
        x, y, w, h = map(_parse_fraction, box)
        corner = round((x - w / 2) * width), round((y - h / 2) * height)
        face = crop_square_box(image, *corner, round(w * width), round(h * height))
        return Face(face, emotions.index(emotion), target, source)

    return RawDataset(emotions, "yolo", len(rows), read_rows(rows, read), passed_over, names)


def _list_lines(images: Path, labels: Path, passed_over: PassedOver) -> Iterator[tuple[Path, int, Path, str]]:
    """Yield (label file, line number, image, line) for every box; count what has no counterpart."""
    files = list_images(images, passed_over)
    if not files:
        raise DataError(f"{images}: expected images, found none; fill the folder or remove it")
    if not labels.is_dir():
        raise DataError(f"{labels}: expected the labels of {images}, found no folder; unpack them there")
    unused = {path for path in labels.rglob("*.txt") if not is_hidden(path.name)} - {labels / "classes.txt"}
    for image in files:
        label_file = labels / image.relative_to(images).with_suffix(".txt")
        text = label_file.read_text("utf-8", errors="replace") if label_file in unused else ""
        unused.discard(label_file)
        if not text.strip():
            passed_over[image] = "image without a label"
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield label_file, number, image, line
    passed_over |= dict.fromkeys(sorted(unused), "label without an image")


def _split_line(line: str) -> list[str]:
    fields = line.split()
    if len(fields) != 5:
        raise ValueError(f"expected a class id and a box in 5 fields, found {len(fields)}")
    return fields


def _parse_fraction(text: str) -> float:
    value = parse_float(text, "a side of the box")
    if not 0 <= value <= 1:
        raise ValueError(f"expected a box in fractions of the image, found {text[:20]!r}")
    return value


def _read_names(raw_dir: Path) -> tuple[Path, dict[str, str]]:
    """Return the YAML file with `names`, `data.yaml` if there are several, and its class names by id."""
    files = [path for path in raw_dir.iterdir() if re.fullmatch(r"[^.].*\.ya?ml", path.name, re.IGNORECASE)]
    files.sort(key=lambda path: (path.stem != "data", path.name))
    for path in files:
        try:
            content = yaml.safe_load(path.read_text("utf-8", errors="replace"))
        except yaml.YAMLError as error:
            detail = " ".join(str(error).split())[:120]
            raise DataError(f"{path}: expected YAML, found an error ({detail}); correct it") from None
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, list | dict) and names:
            pairs = names.items() if isinstance(names, dict) else enumerate(names)
            return path, {str(number): str(name) for number, name in pairs}
    found = ", ".join(path.name for path in files)
    raise DataError(
        f"{raw_dir}: expected data.yaml with the class names in the order of their ids, as in "
        f"`names: [anger, contempt]`, found {f'no names in {found}' if found else 'no YAML file'}; add them"
    )


def _match_classes(
    names: Iterable[str], emotions: tuple[str, ...], classes: Mapping[str, str | None], where: Path
) -> dict[str, str | None]:
    """Return the emotion that each class name stands for, None to leave it out; unknown names are absent.

    Left out are what `classes` (of `prepare`) says, and contempt with seven classes. Raises ParamsError for
    eight classes without contempt.
    """
    found: dict[str, str | None] = {}
    for name in names:
        with suppress(KeyError):
            emotion = classes[name] if name in classes else normalise_emotion(name)
            found[name] = emotion if emotion in emotions else None
    if found and "contempt" in emotions and "contempt" not in found.values():
        raise ParamsError(
            f"{where}: expected contempt among 8 classes, found {', '.join(found)}; "
            "set `prepare.n_classes: 7` in params.yaml"
        )
    return found
