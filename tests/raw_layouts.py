"""Miniature raw data sets, written in the layouts that users download."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from fer_lib.data.readers.fer2013 import SPLIT_OF_USAGE, VOTES
from fer_lib.labels import EMOTIONS_7
from fer_lib.param_sections import PrepareParams
from fer_lib.params import load_params

USAGES = tuple(SPLIT_OF_USAGE)

AFFECTNET_COLUMNS = [
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"),
    *("facial_landmarks", "expression", "valence", "arousal"),
]


@dataclass
class Rows:
    """The rows of a miniature FER2013."""

    images: np.ndarray
    labels: list[int]
    usages: list[str]
    votes: np.ndarray

    @property
    def splits(self) -> list[str]:
        return [SPLIT_OF_USAGE[usage] for usage in self.usages]


def build_params(**changes) -> PrepareParams:
    """Return parameters for 48x48 grey faces without any cut split, with `changes`."""
    fixed = {"size": 48, "channels": 1, "n_classes": 7, "val_fraction": 0.0, "test_fraction": 0.0}
    return load_params("fer2013").prepare.model_copy(
        update={**fixed, "skip_bad": False, "seed": 0, **changes}
    )


def make_rows(n: int = 12, seed: int = 0) -> Rows:
    """Draw random faces: every class and split occurs, and no two faces are equal."""
    rng = np.random.default_rng(seed)
    votes = np.array([rng.multinomial(10, [0.6] + [0.4 / 9] * 9) for _ in range(n)])
    return Rows(
        images=rng.integers(0, 256, (n, 48, 48), np.uint8),
        labels=[i % 7 for i in range(n)],
        usages=[USAGES[i % 3] for i in range(n)],
        votes=votes,
    )


def write_csv(folder: Path, rows: Rows) -> Path:
    """Write `fer2013.csv`."""
    return _write_table(
        folder / "fer2013.csv",
        ["emotion", "pixels", "Usage"],
        zip(rows.labels, map(join_pixels, rows.images), rows.usages, strict=True),
    )


def write_icml(folder: Path, rows: Rows) -> Path:
    """Write `icml_face_data.csv`."""
    return _write_table(
        folder / "icml_face_data.csv",
        ["emotion", " Usage", " pixels"],
        zip(rows.labels, rows.usages, map(join_pixels, rows.images), strict=True),
    )


def write_votes(folder: Path, rows: Rows) -> Path:
    """Write `fer2013new.csv`."""
    return _write_table(
        folder / "fer2013new.csv",
        ["Usage", "Image name", *VOTES[:-1], "NF"],
        ([usage, "x.png", *votes] for usage, votes in zip(rows.usages, rows.votes, strict=True)),
    )


def write_parquet(folder: Path, rows: Rows, votes: bool = True) -> Path:
    """Write `fer2013.parquet` in two row groups."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "emotion": pa.array(rows.labels, pa.int8()),
        "usage": rows.usages,
        "image": [encode_image(image, "WEBP", lossless=True) for image in rows.images],
    }
    if votes:
        columns |= {f"ferplus_{name}": rows.votes[:, i].astype(np.int8) for i, name in enumerate(VOTES)}
    path = folder / "fer2013.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=max(1, len(rows.labels) // 2))
    return path


def write_folders(folder: Path, rows: Rows, prefixes: bool = True) -> Path:
    """Write `train/<class>/` and `test/<class>/`, as PNG so that no pixel changes."""
    for i, (image, label, usage) in enumerate(zip(rows.images, rows.labels, rows.usages, strict=True)):
        path = folder / ("train" if usage == "Training" else "test") / EMOTIONS_7[label]
        # Not zero-padded: the order must be that of the numbers, not of the names.
        write_image(path / (f"{usage}_{i}.png" if prefixes else f"{i}.png"), image)
    return folder


def write_affectnet_lists(folder: Path, lists: str = "", images: str = "Manually_Annotated_Images") -> None:
    """Write both lists, each with all eleven expression codes, and the images in their numbered folders."""
    rng = np.random.default_rng(0)
    for name in ("training.csv", "validation.csv"):
        rows = []
        for code in range(11):
            path = f"{code}/{name[:2]}{code}.png"
            write_image(folder / images / path, rng.integers(0, 256, (30, 40, 3), np.uint8))
            rows.append([path, 5, 6, 20, 16, "1;2;3;4", code, 0.5, -0.25])
        _write_table(folder / lists / name, AFFECTNET_COLUMNS, rows)


def write_affectnet_sets(folder: Path) -> None:
    """Write `train_set/` and `val_set/`, each with all eleven expression codes."""
    for name in ("train_set", "val_set"):
        (folder / name / "annotations").mkdir(parents=True)
        for code in range(11):
            write_image(folder / name / "images" / f"{code}.jpg", np.full((24, 24, 3), 20 * code, np.uint8))
            # The official files hold text; a number is read the same way.
            for kind, value in (("exp", str(code)), ("val", "0.5"), ("aro", -0.25), ("lnd", [0.0] * 136)):
                np.save(folder / name / "annotations" / f"{code}_{kind}.npy", np.array(value))


def write_affectnet_labels(
    folder: Path, labels: Sequence[str], images: str = ".", folders: Sequence[str] = ()
) -> Path:
    """Write `labels.csv` with one image for each label, in a folder of the same name or of `folders`."""
    rng = np.random.default_rng(0)
    rows = []
    for i, (label, name) in enumerate(zip(labels, folders or labels, strict=True)):
        path = f"{name}/image{i:07}.png"
        write_image(folder / images / path, rng.integers(0, 256, (20, 20, 3), np.uint8))
        rows.append([i, path, label, 0.5 + i / 100])
    return _write_table(folder / "labels.csv", ["", "pth", "label", "relFCs"], rows)


def write_yolo(folder: Path, form: str, lines: dict[str, Sequence[str]], names: object) -> None:
    """Write `data.yaml` and, for each split, one image and its label file for each text of `lines`.

    form: where a split's images lie, such as `{split}/images`; the labels lie in the same with `labels`.
    """
    rng = np.random.default_rng(0)
    for split, texts in lines.items():
        images = folder / form.format(split=split)
        labels = folder / form.format(split=split).replace("images", "labels")
        labels.mkdir(parents=True, exist_ok=True)
        for i, text in enumerate(texts):
            write_image(images / f"face_{i}.png", rng.integers(0, 256, (20, 40, 3), np.uint8))
            (labels / f"face_{i}.txt").write_text(text)
    (folder / "data.yaml").write_text(yaml.safe_dump({"nc": 8, "names": names}))


def write_rafdb(
    folder: Path,
    codes: Sequence[int],
    kinds: Sequence[str] = ("aligned", "original"),
    lists: str = "EmoLabel",
) -> Path:
    """Write the list with a training and a test image of each code, and the images of these kinds."""
    rng = np.random.default_rng(0)
    lines = []
    for part in ("train", "test"):
        for i, code in enumerate(codes):
            name = f"{part}_{i:05}"
            lines.append(f"{name}.jpg {code}\n")
            for kind in kinds:
                side = 16 if kind == "aligned" else 32
                file = f"{name}_aligned.jpg" if kind == "aligned" else f"{name}.jpg"
                write_image(folder / "Image" / kind / file, rng.integers(0, 256, (side, side, 3), np.uint8))
    path = folder / lists / "list_patition_label.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    return path


def write_image(path: Path, image: np.ndarray, image_format: str | None = None) -> Path:
    """Write one image file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, format=image_format)
    return path


def encode_image(image: np.ndarray, image_format: str, **options) -> bytes:
    """Return an image file's bytes."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, image_format, **options)
    return file.getvalue()


def join_pixels(image: np.ndarray) -> str:
    """Return an image as FER2013's space-separated text."""
    return " ".join(map(str, image.ravel()))


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return every file's bytes, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _write_table(path: Path, header: list[str], rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path
