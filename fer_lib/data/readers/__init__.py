"""Register one reader per data set; each recognises the layout of the files it is given.

A new data set takes a module with a `Reader` in this folder and an entry in `READERS`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fer_lib.data.readers.affectnet import AffectNetReader
from fer_lib.data.readers.base import Reader
from fer_lib.data.readers.fer2013 import Fer2013Reader
from fer_lib.data.readers.ferplus import FerPlusReader
from fer_lib.data.readers.folder import FolderReader
from fer_lib.errors import ParamsError
from fer_lib.params import PrepareParams
from fer_lib.paths import get_raw_dir


class Source(NamedTuple):
    """How a data set is opened, given its raw folder and `prepare`'s parameters.

    n_classes: the number of classes that the data set fixes; None: 7 or 8, as the parameters say.
    """

    open: Callable[[Path, PrepareParams], Reader]
    n_classes: int | None = None


def _open_demo(_: Path, params: PrepareParams) -> Reader:
    # Only the demo set draws faces: who reads files need not load the drawing code.
    from fer_lib.data.readers.demo import DemoReader

    return DemoReader(n_faces=params.n_faces, size=params.size, seed=params.seed)


FOLDER = Source(lambda raw_dir, params: FolderReader(raw_dir, params.n_classes))
"""Of every name that is not registered: a plain folder of images."""

READERS = {
    "demo": Source(_open_demo, n_classes=7),
    "fer2013": Source(lambda raw_dir, _: Fer2013Reader(raw_dir), n_classes=7),
    "ferplus": Source(lambda raw_dir, _: FerPlusReader(raw_dir), n_classes=8),
    "affectnet": Source(lambda raw_dir, params: AffectNetReader(raw_dir, params.n_classes)),
}


def open_reader(dataset: str, params: PrepareParams, raw_dir: str | Path | None = None) -> Reader:
    """Return the reader of a data set: that of `READERS`, else one of a plain folder of images.

    Parameters
    ----------
    dataset
        Its name.
    params
        With the number of classes; for drawn faces also how many, their size and seed.
    raw_dir
        The folder with the raw files, by default `paths.get_raw_dir(dataset)`; `demo` reads none.

    Raises
    ------
    DataError
        When the files are missing or in no known layout.
    ParamsError
        When the data set has another number of classes than `params.n_classes`.
    """
    source = READERS.get(dataset, FOLDER)
    if source.n_classes not in (None, params.n_classes):
        raise ParamsError(
            f"prepare.n_classes: {dataset} has {source.n_classes}, found {params.n_classes}; correct it"
        )
    return source.open(Path(raw_dir or get_raw_dir(dataset)), params)
