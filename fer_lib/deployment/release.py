"""A trained checkpoint made ready for use: calibrated, exported to ONNX, with a card that describes it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from fer_lib.data.framing import FER2013_FRAMING
from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.deployment.card import build_card
from fer_lib.deployment.export import OPSET, export_onnx, round_weights, scale_logits
from fer_lib.errors import ModelError
from fer_lib.evaluation.metrics import fit_temperature, group_labels, group_probabilities, summarise
from fer_lib.evaluation.predictions import get_predictions_path, hash_weights, read_predictions
from fer_lib.files import write_atomically
from fer_lib.inference.recognizer import Recognizer
from fer_lib.labels import GROUPS
from fer_lib.metrics_file import read_metrics
from fer_lib.models.build import load_checkpoint, save_checkpoint
from fer_lib.models.checkpoints import CARD_NAME, CONFIG_NAME, ONNX_NAME, RELEASE_DIR
from fer_lib.params import load_params
from fer_lib.paths import ROOT, get_output_dirs
from fer_lib.training.recipes import check_match, get_metrics_name, list_training_seconds

ABSTAIN_BELOW = 0.5
"""Calibrated confidence under which the likeliest emotion is more likely wrong than right."""


def release_model(dataset: str, name: str) -> Path:
    """Make `models/release/<name>` from the network that stage `evaluation` selected; return its folder.

    The temperature that fits the validation split is divided into the last layer, so that every softmax of
    the released network is calibrated. Its matrices are rounded to half precision, which halves both files;
    PyTorch and ONNX Runtime compute with the same rounded values, in single precision.
    Raises FerError when the name is none, the pipeline has not run for the data set, or the export is not
    faithful. The small forms of an older release of the name go with it: `release-forms` puts them back.
    """
    # A folder of this name is replaced as a whole: `..` would be all models.
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ModelError(f"{name!r}: expected a name of letters, digits, dots and hyphens; choose another")
    dirs = get_output_dirs(dataset, ROOT)
    selected = read_metrics(dirs, "evaluation")["selected"]
    checkpoint, data = load_checkpoint(dirs.models / selected), load_packed(dataset)
    check_match(checkpoint, data)
    if not isinstance(checkpoint.model.get_classifier(), torch.nn.Linear):
        raise ModelError(f"{dirs.models / selected}: expected a flat head, which alone can be calibrated")
    trained_at = read_metrics(dirs, get_metrics_name(selected))["trained_at_commit"]
    if trained_at != checkpoint.config["git_commit"]:
        raise ModelError(
            f"{dirs.models / selected}: its metrics are of a training at {trained_at}; run the stage again"
        )
    path = get_predictions_path(dirs, selected)
    predictions = read_predictions(path, data)
    if predictions.source["weights_sha256"] != hash_weights(dirs.models / selected):
        raise ModelError(
            f"{path}: made by other weights than those of {dirs.models / selected}; run `make repro`"
        )
    temperature = fit_temperature(predictions.logits["val"], data.labels[data.get_rows("val")])
    scale_logits(checkpoint.model, temperature)
    round_weights(checkpoint.model)
    config = {
        **checkpoint.config,
        "abstain_below": ABSTAIN_BELOW,
        "recipe": selected,
        "training_seconds": list_training_seconds(selected, load_params(dataset), dirs),
        "framing": data.meta.get("framing") or FER2013_FRAMING.to_dict(),
        "onnx": {"opset": OPSET, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
        "temperature": temperature,
    }
    partial, folder = RELEASE_DIR / f".{name}.new", RELEASE_DIR / name
    save_checkpoint(partial, checkpoint.model, config)
    config["onnx"]["max_logit_difference"] = export_onnx(load_checkpoint(partial), partial / ONNX_NAME)
    config["metrics"] = score_release(Recognizer(partial), data)
    write_atomically(partial / CONFIG_NAME, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
    (partial / CARD_NAME).write_text(build_card(name, config))
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return folder


def score_release(recognizer: Recognizer, data: PackedDataset) -> dict[str, float]:
    """Return the metrics of a released model as its users run it, on the packed faces, with 95 % intervals.

    Keys: `test.*` and `test_dedup.*` as in `evaluation.summarise`, of the emotions and, under `.group.`, of
    their groups; on validation, `val.accuracy`,
    `val.coverage` (share not abstained), `val.accuracy_answered` and `val.accuracy_abstained`.
    """
    metrics: dict[str, float] = {}
    splits = {split: data.get_rows(split) for split in ("val", "test")}
    splits["test_dedup"] = data.get_rows("test", drop_duplicates_of="train")
    for split, rows in splits.items():
        labels = data.labels[rows]
        batches = np.array_split(rows, max(1, len(rows) // 128))
        probabilities = np.concatenate(
            [recognizer.compute_probabilities(data.faces[part]) for part in batches]
        )
        right = probabilities.argmax(axis=1) == labels
        if split == "val":
            sure = probabilities.max(axis=1) >= recognizer.abstain_below
            metrics |= {"val.accuracy": float(right.mean()), "val.coverage": float(sure.mean())}
            for key, chosen in (("answered", sure), ("abstained", ~sure)):
                if chosen.any():
                    metrics[f"val.accuracy_{key}"] = float(right[chosen].mean())
            continue
        bootstrap = {"n_resamples": 1000, "seed": 0, "clusters": data.persons[rows]}
        metrics |= summarise(split, labels, probabilities, data.emotions, **bootstrap)
        groups = group_labels(labels, data.emotions), group_probabilities(probabilities, data.emotions)
        metrics |= summarise(f"{split}.group", *groups, GROUPS, **bootstrap)
    return {key: round(value, 6) for key, value in metrics.items()}
