"""Register how each data set is opened; each recognises the layout of the files it is given.

A new data set takes a module in this folder with a function that returns a `RawDataset`, and an entry in
`READERS`.
"""

from collections.abc import Callable
from pathlib import Path

from fer_lib.data.readers.affectnet import open_affectnet
from fer_lib.data.readers.affectnet_repacks import open_repack
from fer_lib.data.readers.base import RawDataset
from fer_lib.data.readers.fer2013 import open_fer2013, open_ferplus
from fer_lib.data.readers.folders import open_folder
from fer_lib.data.readers.rafdb import open_rafdb
from fer_lib.errors import DataError, ParamsError
from fer_lib.labels import EMOTIONS_7
from fer_lib.param_sections import PrepareParams
from fer_lib.paths import get_raw_dir


def _open_demo(_: Path, params: PrepareParams) -> RawDataset:
    # Only the demo set draws faces: who reads files need not load the drawing code.
    from fer_lib.data.readers.demo import draw_faces

    faces = draw_faces(params.n_faces, params.size, params.seed)
    return RawDataset(EMOTIONS_7, "demo", params.n_faces, faces)


def _open_folder(raw_dir: Path, params: PrepareParams) -> RawDataset:
    return open_folder(raw_dir, params.n_classes, params.classes)


READERS: dict[str, Callable[[Path, PrepareParams], RawDataset]] = {
    "demo": _open_demo,
    "fer2013": lambda raw_dir, params: open_fer2013(raw_dir, params.classes),
    "ferplus": lambda raw_dir, _: open_ferplus(raw_dir),
    "affectnet": lambda raw_dir, params: (
        open_repack(raw_dir, params.n_classes, params.classes)
        or open_affectnet(raw_dir, params.n_classes, params.classes)
    ),
    "rafdb": lambda raw_dir, params: open_rafdb(raw_dir, params.classes),
}


def open_raw(dataset: str, params: PrepareParams, raw_dir: str | Path | None = None) -> RawDataset:
    """Return the raw data of a data set of `READERS`; of any other name, a plain folder of images.

    raw_dir: the folder with the raw files, by default `paths.get_raw_dir(dataset)`; `demo` reads none.

    Raises
    ------
    DataError
        When the files are missing or in no known layout, and for a name of `params.classes` that none has.
    ParamsError
        When the data set has another number of classes than `params.n_classes`.
    """
    folder = Path(raw_dir or get_raw_dir(dataset))
    raw = READERS.get(dataset, _open_folder)(folder, params)
    unused = [name for name in params.classes if name not in raw.classes]
    if unused:
        raise DataError(
            f"{folder}: expected a class {unused[0]!r} as prepare.classes in params.yaml says, found "
            f"{', '.join(raw.classes) or f'none in layout {raw.layout!r}'}; correct it"
        )
    if len(raw.emotions) != params.n_classes:
        raise ParamsError(
            f"prepare.n_classes: {dataset} has {len(raw.emotions)}, found {params.n_classes}; correct it"
        )
    return raw
