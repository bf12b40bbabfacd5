"""One reader per source; each recognises the layout of the files it is given."""

from pathlib import Path

from fer_lib.data.readers.affectnet import AffectNetReader
from fer_lib.data.readers.base import Reader
from fer_lib.data.readers.fer2013 import Fer2013Reader
from fer_lib.data.readers.ferplus import FerPlusReader
from fer_lib.data.readers.folder import FolderReader
from fer_lib.errors import ParamsError
from fer_lib.params import PrepareParams
from fer_lib.paths import get_raw_dir

_CLASSES_OF = {"demo": 7, "fer2013": 7, "ferplus": 8}
"""Where a source fixes the number of classes; the others have 7 or 8."""


def open_reader(dataset: str, params: PrepareParams, raw_dir: str | Path | None = None) -> Reader:
    """Return the reader of `dataset` on `raw_dir` (default: `paths.get_raw_dir(dataset)`).

    `demo` is drawn and reads nothing; a name other than demo, fer2013, ferplus and affectnet is a plain
    folder of images. Raises DataError when the files are missing or in no known layout, ParamsError when
    the data set has another number of classes than `params.n_classes`.
    """
    expected = _CLASSES_OF.get(dataset, params.n_classes)
    if params.n_classes != expected:
        raise ParamsError(
            f"prepare.n_classes: {dataset} has {expected}, found {params.n_classes}; correct it"
        )
    raw_dir = Path(raw_dir or get_raw_dir(dataset))
    if dataset == "demo":
        # Only the demo set draws faces: who reads files need not load the drawing code.
        from fer_lib.data.readers.demo import DemoReader

        return DemoReader(n_faces=params.n_faces, size=params.size, seed=params.seed)
    if dataset == "fer2013":
        return Fer2013Reader(raw_dir)
    if dataset == "ferplus":
        return FerPlusReader(raw_dir)
    if dataset == "affectnet":
        return AffectNetReader(raw_dir, params.n_classes)
    return FolderReader(raw_dir, params.n_classes)
