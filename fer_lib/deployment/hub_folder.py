"""Write a model as a folder that can be uploaded to the Hugging Face Hub as it is."""

import shutil
from pathlib import Path

from fer_lib.errors import ModelError
from fer_lib.inference.hub import WANTED
from fer_lib.inference.registry import CARD_NAME, find_checkpoint
from fer_lib.paths import ROOT


def write_hub_folder(dataset: str, name: str, folder: str | Path) -> Path:
    """Copy the release `name`, or the model `<dataset>/<name>`, its card and the licence; return `folder`.

    `Recognizer.from_pretrained` runs what is uploaded from there. Raises ModelError for a model that is
    missing or has no card, and for a folder that is not empty.
    """
    folder = Path(folder)
    try:
        model = find_checkpoint(f"{dataset}/{name}")
    except ModelError:
        model = find_checkpoint(name)
    if not (model / CARD_NAME).is_file():
        raise ModelError(f"{model}: expected a card, {CARD_NAME}, found none; write what the model is for")
    if folder.exists() and any(folder.iterdir()):
        raise ModelError(f"{folder}: expected an empty folder or none, found files; name another")
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in (CARD_NAME, *WANTED):
        for path in model.glob(pattern):
            shutil.copy(path, folder)
    shutil.copy(ROOT / "LICENSE", folder)
    return folder
