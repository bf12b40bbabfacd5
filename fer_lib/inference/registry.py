"""Find the models at hand and the variants in which each can be run, without torch."""

from pathlib import Path
from typing import Any

from fer_lib.errors import ModelError
from fer_lib.models.checkpoints import CONFIG_NAME
from fer_lib.paths import MODELS_DIR

ONNX_NAME = "model.onnx"
CARD_NAME = "README.md"

FLOAT_VARIANT = "float"
"""The variant of a model that is as it was trained; see `list_variants`."""

RELEASE_DIR = MODELS_DIR / "release"
DEFAULT_MODEL = "fer2013-b0"
"""The release that the app and the command line use unless told otherwise."""


def list_variants(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the variants in which a model can be run, by name, the first as it was trained: `float`.

    Each holds `file`, the ONNX file in the model's folder, `architecture` and `preprocessing`, and, where
    they were measured, `bytes`, `milliseconds` per face on one thread, `machine` and `metrics`. Others, such
    as `int8` and `tiny`, are what `release-variants` put beside it.
    """
    own = {key: config[key] for key in ("architecture", "preprocessing")}
    own |= config.get("cost", {}) | {"file": ONNX_NAME, "metrics": config.get("metrics", {})}
    return {FLOAT_VARIANT: own} | config.get("variants", {})


def describe_variant(variant: dict[str, Any]) -> str:
    """Return in a few words what a variant costs and scores; "" when nothing was measured."""
    parts = []
    if "bytes" in variant:
        parts.append(f"{variant['bytes'] / 1e6:.1f} MB")
    if "milliseconds" in variant:
        parts.append(f"{variant['milliseconds']:.1f} ms a face")
    if "test.accuracy" in variant["metrics"]:
        parts.append(f"accuracy {variant['metrics']['test.accuracy']:.1%}")
    return ", ".join(parts)


def list_checkpoints() -> dict[str, Path]:
    """Return name to folder of every model at hand: releases by their name, others as `<dataset>/<name>`.

    Releases come first, the default one before all. The folders are listed anew at each call.
    """
    found = sorted(path.parent for path in MODELS_DIR.glob(f"[!.]*/[!.]*/{CONFIG_NAME}"))
    found.sort(key=lambda folder: (folder.parent != RELEASE_DIR, folder != RELEASE_DIR / DEFAULT_MODEL))
    return {
        folder.name if folder.parent == RELEASE_DIR else f"{folder.parent.name}/{folder.name}": folder
        for folder in found
    }


def find_checkpoint(model: str | Path) -> Path:
    """Return the folder of a model: a name as `list_checkpoints` gives it, or the path of a folder.

    Raises ModelError when it is neither, with the names there are.
    """
    known = list_checkpoints()
    if str(model) in known:
        return known[str(model)]
    if Path(model).is_dir():
        return Path(model)
    raise ModelError(
        f"{model}: expected the folder of a checkpoint or one of {', '.join(known) or 'no models'}; "
        "`python -m fer_lib models` lists them"
    )
