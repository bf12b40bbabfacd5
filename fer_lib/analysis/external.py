"""Load external faces, from which a model was not made: a folder sorted by emotion, or a packed data set."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from demo_faces.counterfactuals import FACTORS
from fer_lib.data.detector import CANDIDATE, Detector
from fer_lib.data.image_files import PassedOver, list_folders, list_images, pass_loose_files
from fer_lib.data.images import read_image
from fer_lib.data.packed import META_FILE, PackedDataset, load_packed
from fer_lib.data.readers.base import find_root
from fer_lib.data.readers.folders import SPLIT_OF_NAME, find_splits
from fer_lib.errors import DataError, MediaError
from fer_lib.inference.crops import cut_largest
from fer_lib.inference.recognizer import Recognizer
from fer_lib.labels import normalise_emotion, suggest_emotion
from fer_lib.models.checkpoints import read_config
from fer_lib.params_file import read_params_file
from fer_lib.paths import get_packed_dir

LEFT_OUT = "left out"


@dataclass(frozen=True)
class ExternalFaces:
    """Faces in a model's framing.

    crops: uint8 each, as `Face.crop`.   labels: int (N,), indices into the model's emotions.   persons: (N,),
    equal for faces of one person, where that is known.   factors: one row per face: what is known of drawn
    ones; no columns for others.   mapping: of `map_classes`, and of each class the images with `no face` and
    the `unreadable` ones.   data_hash: of packed data, else of the crops and labels.   problems: a line for
    each image that could not be read.   passed_over: files that are no images of a class.
    """

    name: str
    crops: list[np.ndarray]
    labels: np.ndarray
    persons: np.ndarray
    factors: pd.DataFrame
    mapping: pd.DataFrame
    data_hash: str
    problems: list[str] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=dict)


def load_external(recognizer: Recognizer, data: str, min_faces: int = 1) -> ExternalFaces:
    """Return the faces of `data`: a packed data set's test split, by name or folder, or class folders.

    In an image the largest face is cut out as the model's training faces were; one that is a crop already is
    taken whole. An image that cannot be read, or in which no face is found, is left out and counted. Raises
    DataError when there is nothing that the model could name, or fewer than `min_faces`.
    """
    datasets = read_params_file()["datasets"]
    if data in datasets and not (get_packed_dir(data) / META_FILE).is_file():
        raise DataError(
            f"{data}: expected it packed, found none; run `python -m fer_lib prepare --dataset {data}` "
            "or give a folder with one folder per class"
        )
    if data in datasets:
        faces = _load_packed_faces(recognizer, load_packed(data))
    elif (Path(data) / META_FILE).is_file():
        faces = _load_packed_faces(recognizer, load_packed(Path(data).name, data))
    elif Path(data).is_dir():
        faces = _load_folder(recognizer, Path(data))
    else:
        raise DataError(
            f"{data}: expected a packed data set ({', '.join(datasets)}, or its folder) or a folder with one "
            "folder per class, found neither; check the path"
        )
    if len(faces.labels) < min_faces:
        raise DataError(
            f"{faces.name}: expected at least {min_faces} faces to audit a model, found {len(faces.labels)}; "
            "give more, or score them with `evaluate`"
        )
    return faces


def _load_packed_faces(recognizer: Recognizer, data: PackedDataset) -> ExternalFaces:
    rows, name = data.get_rows("test"), f"the test split of {data.meta['dataset']}"
    given = [data.emotions[label] for label in data.labels[rows]]
    is_own = read_config(recognizer.folder).get("data_hash") == data.data_hash
    # Its own faces are in the model's framing already; to cut them again would only move them.
    cut = None if is_own else Detector(min_score=CANDIDATE)
    images = [np.asarray(data.faces[row]) for row in rows]
    kept, crops, labels, mapping, _ = _cut_all(recognizer, images, given, data.emotions, cut, name)
    if is_own:
        mapping["no face"] = "not searched"
    rows = rows[kept]
    factors = data.index.iloc[rows].filter(list(FACTORS)).reset_index(drop=True)
    return ExternalFaces(name, crops, labels, data.persons[rows], factors, mapping, data.data_hash)


def _load_folder(recognizer: Recognizer, folder: Path) -> ExternalFaces:
    passed_over: PassedOver = {}
    folder = find_root(folder, "one folder of images per emotion", SPLIT_OF_NAME)
    splits = find_splits(folder)
    if splits:
        raise DataError(
            f"{folder}: expected one folder of images per emotion, found split folders "
            f"({', '.join(path.name for path in splits.values())}); give one of them, such as "
            f"{[*splits.values()][-1]}"
        )
    pass_loose_files(folder, passed_over)
    classes = list_folders(folder)
    images = [(path, child.name) for child in classes for path in list_images(child, passed_over)]
    paths, given = [path for path, _ in images], [name for _, name in images]
    names, detector = [path.name for path in classes], Detector(min_score=CANDIDATE)
    _, crops, labels, mapping, problems = _cut_all(recognizer, paths, given, names, detector, str(folder))
    digest = hashlib.sha256(labels.tobytes())
    for crop in crops:
        digest.update(crop.tobytes())
    apart, unknown = np.arange(len(labels)), pd.DataFrame(index=range(len(labels)))
    data_hash = digest.hexdigest()
    return ExternalFaces(
        str(folder), crops, labels, apart, unknown, mapping, data_hash, problems, passed_over
    )


def _cut_all(
    recognizer: Recognizer,
    images: Sequence[np.ndarray | Path],
    given: Sequence[str],
    classes: Sequence[str],
    detector: Detector | None,
    name: str,
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray, pd.DataFrame, list[str]]:
    """Return which images hold a face that can be named, these faces, their labels, mapping and problems."""
    mapping = map_classes(classes, recognizer.emotions, given)
    known = dict(zip(mapping["class"], mapping["model's emotion"], strict=True))
    kept, crops, labels, problems = [], [], [], []
    empty, unreadable = Counter[str](), Counter[str]()
    named = [i for i, title in enumerate(given) if known[title] != LEFT_OUT]
    for i in tqdm(named, desc="faces", unit="face", disable=None, leave=False):
        image = images[i]
        try:
            pixels = read_image(image) if isinstance(image, Path) else image
        except MediaError as error:
            problems.append(str(error))
            unreadable[given[i]] += 1
            continue
        crop = pixels if detector is None else cut_largest(recognizer, pixels, detector)
        if crop is None:
            empty[given[i]] += 1
            continue
        kept.append(i)
        crops.append(crop)
        labels.append(recognizer.emotions.index(known[given[i]]))
    if not any(emotion != LEFT_OUT for emotion in known.values()):
        raise DataError(
            f"{name}: expected folders of images named {', '.join(recognizer.emotions)}, found "
            f"{', '.join(map(str, known)) or 'none'}; give the folder that holds the classes"
        )
    if not crops:
        first = f", the first of which says: {problems[0]}" if problems else ""
        raise DataError(
            f"{name}: expected faces, found none in {len(named):,} images; {empty.total():,} show none and "
            f"{len(problems):,} cannot be read{first}"
        )
    counts = {"no face": empty, "unreadable": unreadable}
    counted = mapping.assign(
        **{name: mapping["class"].map(found).fillna(0).astype(int) for name, found in counts.items()}
    )
    return np.array(kept), crops, np.array(labels), counted, problems


def map_classes(classes: Sequence[str], emotions: Sequence[str], given: Sequence[str]) -> pd.DataFrame:
    """Return how the classes of a source are read: class, model's emotion, how, images; in their order.

    given: the class of every image. A class that the model cannot name is left out.
    """
    counts, rows = pd.Series(list(given), dtype=object).value_counts(), []
    for name in classes:
        try:
            emotion = name if name in emotions else normalise_emotion(name)
        except KeyError:
            near = suggest_emotion(name)
            emotion, how = LEFT_OUT, f"near {near}: rename it" if near else "no emotion known here"
        else:
            how = "same name" if emotion == name else f"other spelling of {emotion}"
            if emotion not in emotions:
                emotion, how = LEFT_OUT, "the model has no such class"
        rows.append((name, emotion, how, int(counts.get(name, 0))))
    return pd.DataFrame(rows, columns=["class", "model's emotion", "how", "images"])
