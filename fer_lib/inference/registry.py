"""Find the models at hand and the variants in which each can be run, without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_lib.errors import ModelError
from fer_lib.models.checkpoints import CONFIG_NAME, read_config
from fer_lib.paths import MODELS_DIR, PACKAGED_MODELS_DIR
from fer_lib.wording import spell_setting

ONNX_NAME = "model.onnx"
CARD_NAME = "README.md"

RELEASE_DIR = MODELS_DIR / "release"
DEFAULT_MODEL = "photographs"
"""The release that the app and the command line use unless told otherwise."""

FINETUNED = "finetuned"
"""The name, below that of the faces, of a network that learned from a user's own: `my_faces/finetuned`."""

TARGETS = {
    "label": "labels",
    "majority": "the majority of FER+'s votes",
    "votes": "FER+'s votes",
    "teacher": "other networks",
}
"""What a network is trained towards, in words."""

Config = dict[str, Any]


def read_model(folder: Path) -> Config:
    """Return the config of a model; of a release's variants, those whose networks are in the folder.

    An installed package brings the small ones. Raises ModelError as `read_config`, and for a release without
    any network.
    """
    config = read_config(folder)
    if "variants" not in config:
        return config
    every = config["variants"]
    missing = {name for name, one in every.items() if "file" in one and not (folder / one["file"]).is_file()}
    kept = {name: one for name, one in every.items() if not missing & {name, *one.get("members", [])}}
    if not kept:
        names = ", ".join(sorted(missing))
        raise ModelError(f"{folder}: expected the network of {names}, found none; copy its file there")
    default = config["default"] if config["default"] in kept else next(iter(kept))
    return config | {"variants": kept, "default": default}


def list_variants(config: Config) -> dict[str, Config]:
    """Return the variants in which a model can be run, by name, each as the config of that model alone.

    A trained network has one, `float`. A release has several: a variant is one network, with the ONNX `file`
    that holds it, or the soft vote of its `members`, which are variants themselves. Where they were measured,
    it says `bytes`, `milliseconds` per face on one thread of `machine`, and `metrics`.
    """
    if "variants" not in config:
        return {"float": config | {"file": ONNX_NAME}}
    # Each network has an architecture and pixels of its own, and a vote has none.
    of_network = ("architecture", "preprocessing", "default", "variants")
    shared = {key: value for key, value in config.items() if key not in of_network}
    return {name: shared | entry for name, entry in config["variants"].items()}


def list_exported(model: str | Path) -> tuple[Path, dict[str, Config]]:
    """Return a release's folder, and those of its variants that are one network, each with its ONNX `file`.

    Raises ModelError for a model that is missing or was not released.
    """
    folder = find_checkpoint(model)
    config = read_config(folder)
    if "variants" not in config:
        raise ModelError(f"{folder}: expected a release, found a checkpoint; run `fer release`")
    return folder, {name: one for name, one in list_variants(config).items() if "file" in one}


def find_variant(config: Config, variant: str | None, model: str) -> str:
    """Return `variant`, the model's default for None. Raises ModelError for one that `model` has not."""
    known = list_variants(config)
    variant = variant or config.get("default", next(iter(known)))
    if variant not in known:
        raise ModelError(f"variant: expected one of {', '.join(known)} of {model}, found {variant!r}")
    return variant


def describe_variant(variant: Mapping[str, Any]) -> str:
    """Return in one line what a variant is, what taught it, what it costs and what it scores."""
    parts = [name_network(variant)]
    if "targets" in variant:
        parts.append(f"taught by {' and '.join(TARGETS[target] for target in variant['targets'])}")
    if "bytes" in variant:
        parts.append(f"{variant['bytes'] / 1e6:.1f} MB")
    if "milliseconds" in variant:
        parts.append(f"{variant['milliseconds']:.1f} ms a face")
    metrics, judges = variant.get("metrics", {}), {"majority.": " by annotators", "": " by labels"}
    scores = {place: metrics.get(f"test.{key}accuracy") for key, place in judges.items()}
    known = [f"{score:.1%}{place}" for place, score in scores.items() if score is not None]
    if known:
        parts.append(f"accuracy {', '.join(known)}")
    return ", ".join(parts)


def name_network(variant: Mapping[str, Any]) -> str:
    """Return the architecture of a variant in words, such as `EfficientNet-Lite0 in int8`."""
    if "members" in variant:
        return f"soft vote of {', '.join(variant['members'])}"
    return f"{spell_setting(variant['architecture'])}{' in int8' if variant.get('quantized') else ''}"


def list_checkpoints() -> dict[str, Path]:
    """Return name to folder of every model at hand: releases by their name, others as `<dataset>/<name>`.

    Releases come first, the default one before all; those of the package only where the project has none of
    the name. The folders are listed anew at each call.
    """
    packaged = sorted(path.parent for path in PACKAGED_MODELS_DIR.glob(f"[!.]*/{CONFIG_NAME}"))
    found = sorted(path.parent for path in MODELS_DIR.glob(f"[!.]*/[!.]*/{CONFIG_NAME}"))
    trained = [folder for folder in found if folder.parent != RELEASE_DIR]
    released = [*packaged, *(folder for folder in found if folder.parent == RELEASE_DIR)]
    released.sort(key=lambda folder: folder.name != DEFAULT_MODEL)
    return {folder.name: folder for folder in released} | {
        f"{folder.parent.name}/{folder.name}": folder for folder in trained
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
