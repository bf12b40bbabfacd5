"""Read the config of a checkpoint folder, without torch."""

import json
from pathlib import Path
from typing import Any

from fer_lib.errors import ModelError

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config of a checkpoint folder. Raises ModelError when it lacks what every model needs."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise ModelError(f"{folder}: expected a checkpoint folder, {CONFIG_NAME} is missing; train one first")
    try:
        config = json.loads(path.read_text())
        missing = {"architecture", "emotions", "preprocessing"} - config.keys()
        missing = missing or {"image_size", "mean", "std"} - config["preprocessing"].keys()
        named = not missing and all(isinstance(name, str) for name in config["emotions"])
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"{path}: not a checkpoint's config: {error!r}; train or release it again") from None
    if not named:
        found = f"{', '.join(sorted(missing))} missing" if missing else "emotions that are no names"
        raise ModelError(f"{path}: not a checkpoint's config: {found}; train or release it again")
    return config


def read_variant(path: Path) -> dict[str, Any]:
    """Return what a release says of its float file `path`. Raises ModelError for any other file."""
    variants = read_config(path.parent).get("variants", {}).values()
    variant = next((one for one in variants if one.get("file") == path.name), None)
    if variant is None or variant["quantized"]:
        found = "one in int8, whose batch norms are gone" if variant else "one that the release does not name"
        raise ModelError(f"{path}: expected the float .onnx file of a release, found {found}")
    return variant
