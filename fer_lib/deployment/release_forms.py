"""The small forms of a released model, put beside it: what notebook 06 found best."""

import json
import shutil

import onnx
import onnxruntime

from fer_lib.data.packed import load_packed
from fer_lib.deployment.card import build_card
from fer_lib.deployment.compression import get_forms_dir
from fer_lib.deployment.export import OPSET
from fer_lib.deployment.release import score_release
from fer_lib.errors import ModelError
from fer_lib.inference.recognizer import Recognizer
from fer_lib.metrics_file import read_metrics
from fer_lib.models.build import load_checkpoint
from fer_lib.models.checkpoints import CARD_NAME, CONFIG_NAME, ONNX_NAME, RELEASE_DIR, read_config
from fer_lib.paths import ROOT, get_output_dirs

SOURCES = {"int8": "int8.form", "tiny": "device.smallest"}
"""Form to the metric of stage `compression` that names its network."""


def add_forms(dataset: str, name: str) -> list[str]:
    """Put `model.int8.onnx` and `model.tiny.onnx` into `models/release/<name>`, scored as users run them.

    The config gets an entry per form with all that `checkpoints.list_forms` tells, the card a table.
    Raises FerError when the release or the networks are missing, or are of other data.
    """
    folder, dirs, data = RELEASE_DIR / name, get_output_dirs(dataset, ROOT), load_packed(dataset)
    config, found = read_config(folder), read_metrics(dirs, "compression")
    if config.get("data_hash") != data.data_hash:
        raise ModelError(f"{folder}: made of other data than those of {dataset}; release it again")
    if config.get("recipe") != found["parent"]:
        raise ModelError(
            f"{folder}: expected a release of {found['parent']!r}, which the small forms learned from"
        )
    missing = [source for source in SOURCES.values() if source not in found]
    if missing:
        raise ModelError(
            f"{dirs.metrics / 'compression.json'}: names no form for {missing[0]!r}; allow it more"
        )
    # In a folder of its own: an interruption leaves the release as it was.
    partial = folder.with_name(f".{name}.forms")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial)
    config["forms"] = {}
    for form, source in SOURCES.items():
        network, kind = found[source].split(".")
        checkpoint = load_checkpoint(dirs.models / network)
        file = f"model.{form}.onnx"
        shutil.copy(get_forms_dir(dirs, network) / f"{kind}.onnx", partial / file)
        config["forms"][form] = {
            "file": file,
            "network": network,
            "architecture": checkpoint.config["architecture"],
            "preprocessing": checkpoint.config["preprocessing"],
            "git_commit": checkpoint.config["git_commit"],
            "training": checkpoint.config["params"]["training"],
            "device": checkpoint.config["device"],
            "onnx": {"opset": OPSET, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
            "metrics": {},
            **_measure_cost(found, f"{network}.{kind}", (partial / file).stat().st_size),
        }
    parent = f"{found['parent']}.float32"
    config["cost"] = _measure_cost(found, parent, (folder / ONNX_NAME).stat().st_size)
    (partial / CONFIG_NAME).write_bytes(_to_json(config))  # which the recognizers below read
    for form, entry in config["forms"].items():
        entry["metrics"] = score_release(Recognizer(partial, form=form), data)
    (partial / CONFIG_NAME).write_bytes(_to_json(config))
    (partial / CARD_NAME).write_text(build_card(name, config))
    shutil.rmtree(folder)
    partial.replace(folder)
    return list(config["forms"])


def _measure_cost(found: dict, name: str, n_bytes: int) -> dict[str, object]:
    milliseconds = found[f"time.{name}.ms_1_1"]
    return {"bytes": n_bytes, "milliseconds": milliseconds, "machine": found["machine"]}


def _to_json(config: dict) -> bytes:
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
