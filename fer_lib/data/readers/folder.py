"""Read plain folders of images: `class/image.*`, or the same under `train/`, `val/` and `test/`."""

from collections.abc import Iterator
from pathlib import Path

from fer_lib.data.images import list_images
from fer_lib.data.packed import SPLITS
from fer_lib.data.readers.base import BadRow, Face, check_raw_dir, read_face
from fer_lib.errors import DataError
from fer_lib.labels import get_emotions, normalise_emotion


class FolderReader:
    """Images sorted into one folder per emotion, in the order of folder and file names.

    With split folders, a missing `val` or `test` is cut from `train` by `prepare`; with none, both are.
    Images are yielded as uint8 (H, W, 3) RGB. Raises DataError for a class folder that is empty or whose
    name is no emotion. Only file names are held in memory.
    """

    def __init__(self, raw_dir: Path, n_classes: int) -> None:
        self.emotions = get_emotions(n_classes)
        self._raw_dir = check_raw_dir(raw_dir, "one folder of images per emotion")
        given = [split for split in SPLITS if (raw_dir / split).is_dir()]
        if given and "train" not in given:
            raise DataError(f"{raw_dir}: expected a folder train/ beside {given[0]}/, found none; add it")
        self.layout = "split folders" if given else "folders"
        missing = [split for split in SPLITS if split not in given]
        self._images: list[tuple[Path, int, str]] = []
        for split in given or [""]:
            target = "|".join(["train", *missing]) if split == "train" else split
            self._images += [
                (path, label, target) for path, label in list_class_images(raw_dir / split, self.emotions)
            ]

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Face | BadRow]:
        for path, label, split in self._images:
            yield read_face(path, self._raw_dir, label, split)


def list_class_images(folder: Path, emotions: tuple[str, ...]) -> list[tuple[Path, int]]:
    """Return (image file, label) for `folder/<class>/<image>`, sorted by class folder, then file name.

    Raises DataError for a folder name that is none of `emotions` and for a folder without images.
    """
    images = []
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise DataError(f"{folder}: expected one folder per emotion ({', '.join(emotions)}), found none")
    for path in classes:
        label = _get_label(path, emotions)
        files = list_images(path)
        if not files:
            raise DataError(f"{path}: expected images, found none; fill the folder or remove it")
        images += [(file, label) for file in files]
    return images


def _get_label(folder: Path, emotions: tuple[str, ...]) -> int:
    try:
        return emotions.index(normalise_emotion(folder.name))
    except (KeyError, ValueError):
        raise DataError(
            f"{folder}: expected a folder named after one of the {len(emotions)} classes "
            f"({', '.join(emotions)}), found {folder.name!r}; rename or remove it"
        ) from None
