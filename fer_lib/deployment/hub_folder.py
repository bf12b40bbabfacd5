"""Write a model as a folder that can be uploaded to the Hugging Face Hub as it is."""

import shutil
from pathlib import Path

from fer_lib.errors import ModelError
from fer_lib.inference.hub import WANTED
from fer_lib.inference.registry import CARD_NAME, RELEASE_DIR
from fer_lib.models.checkpoints import read_config
from fer_lib.paths import ROOT


def write_hub_folder(dataset: str, name: str, folder: str | Path) -> Path:
    """Copy the release `name` of `dataset`, with its card and the licence; return `folder`.

    `Recognizer.from_pretrained` runs what is uploaded from there. Raises ModelError for a release that is
    missing or of another data set, for a folder that is not empty, and outside a clone of the repository.
    """
    folder, model = Path(folder), RELEASE_DIR / name
    if not (model / CARD_NAME).is_file():
        raise ModelError(
            f"{model}: expected a release with its card, found none; `fer models` lists releases"
        )
    if (found := read_config(model)["dataset"]) != dataset:
        raise ModelError(f"{name}: expected a release of {dataset}, found one of {found}; name that data set")
    if folder.exists() and any(folder.iterdir()):
        raise ModelError(f"{folder}: expected an empty folder or none, found files; name another")
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in (CARD_NAME, *WANTED):
        for path in model.glob(pattern):
            shutil.copy(path, folder)
    shutil.copy(ROOT / "LICENSE", folder)
    return folder
