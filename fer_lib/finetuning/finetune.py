"""Fine-tune a released network on a user's own faces, with classes of their own."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fer_lib.data.packed import PackedDataset
from fer_lib.deployment.export import describe_export, export_onnx, scale_logits
from fer_lib.deployment.release_scores import choose_threshold, measure_abstention
from fer_lib.errors import ModelError
from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.evaluation.metrics import fit_temperature, score_predictions, summarise_gain
from fer_lib.files import hold_lock, write_atomically
from fer_lib.finetuning.own_faces import OwnFaces, pack_own_faces
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.registry import (
    FINETUNED,
    ONNX_NAME,
    find_checkpoint,
    list_checkpoints,
    list_variants,
    read_model,
)
from fer_lib.intervals import Interval
from fer_lib.models.build import Checkpoint, save_checkpoint
from fer_lib.models.checkpoints import CONFIG_NAME, WEIGHTS_NAME
from fer_lib.params import Params, apply_recipe, load_params
from fer_lib.params_file import read_params_file
from fer_lib.paths import MODELS_DIR
from fer_lib.training.fit import FitResult, fit
from fer_lib.training.predict import Predictor

BATCH_SIZE = 64

LONGEST_NAME = 60


@dataclass(frozen=True)
class Finetuned:
    """A network that was fine-tuned on a user's faces, and what it scores on those held back.

    start, known: the model that it started from, and the classes of that.
    scores: of `metrics.score_predictions`, on test.   probabilities: float (N, C), of test.   majority: the
    accuracy of always naming the commonest training class.   before: accuracy of the network it started from,
    and what was gained, where that knows every class; else None.   history: as of `fit.FitResult`.
    """

    folder: Path
    start: str
    known: tuple[str, ...]
    faces: OwnFaces
    config: dict[str, Any]
    history: pd.DataFrame
    labels: np.ndarray
    probabilities: np.ndarray
    scores: dict[str, Interval]
    majority: float
    before: tuple[Interval, Interval] | None


class _Start(NamedTuple):
    """The network that is fine-tuned: its name, the network ready to run, and its weights' file or folder."""

    name: str
    recognizer: Recognizer
    weights: Path


def finetune(source: Path, model: str, name: str | None = None) -> Finetuned:
    """Fine-tune a network on the faces of `source`; write it to `models/<name>/finetuned`.

    Called again with the same faces and settings, it trains nothing; with others, it replaces what was there
    under this name. The settings are the section `finetuning` of `params.yaml`. The epoch of best validation
    accuracy counts; training stops once `patience` epochs were no better. The network is calibrated on
    validation, unless it is right about every face there, and abstains below the confidence that separates
    correct from wrong answers best.

    Parameters
    ----------
    source
        See `own_faces.pack_own_faces`.
    model
        A release with a float network, or a checkpoint; by name or folder.
    name
        Of the faces; None: that of `source`.

    Raises
    ------
    DataError
        For faces that cannot be read, or that cannot be divided.
    ModelError
        For a model that cannot be fine-tuned, and for a name that is none or a data set's.
    FerError
        While another run has the same name.
    """
    source = source.resolve()
    name = _check_name(name or (source.stem if source.is_file() else source.name))
    start = _find_start(model)
    params, state = _build_params(start), MODELS_DIR / ".state" / name / FINETUNED
    with hold_lock(state / "lock"):
        faces = pack_own_faces(source, name, start.recognizer, params)
        folder = MODELS_DIR / name / FINETUNED
        result = fit(faces.data, params, state, keeps_classes=True)
        config = _write_network(folder, result, faces.data, start)
        return _score(folder, config, result, faces, start, params)


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or len(name) > LONGEST_NAME:
        raise ModelError(
            f"{name[:LONGEST_NAME]!r}: expected a name of at most {LONGEST_NAME} letters, digits, dots and "
            "hyphens; give another one with --name"
        )
    if name in {"release", "compressed", *read_params_file()["datasets"]}:
        raise ModelError(f"{name}: expected a name that no data set has; give another one with --name")
    return name


def _find_start(model: str) -> _Start:
    folder = find_checkpoint(model)
    name = next((name for name, path in list_checkpoints().items() if path == folder), folder.name)
    config = read_model(folder)
    if config.get("head", "flat") != "flat":
        raise ModelError(
            f"{folder}: expected a flat head, which alone can be calibrated; choose another model"
        )
    if (folder / WEIGHTS_NAME).is_file():
        return _Start(name, Recognizer(folder), folder)
    networks = {variant: one for variant, one in list_variants(config).items() if "file" in one}
    floats = [variant for variant, one in networks.items() if not one.get("quantized")]
    if not floats:
        raise ModelError(
            f"{folder}: expected a network in float, found int8 alone, which cannot be fine-tuned; use a "
            "clone of the repository"
        )
    return _Start(name, Recognizer(folder, variant=floats[0]), folder / networks[floats[0]]["file"])


def _build_params(start: _Start) -> Params:
    """Return the settings of a training that starts from a network."""
    params, network = load_params(None), list_variants(start.recognizer.config)[start.recognizer.variant]
    given = {
        "architecture": network["architecture"],
        "image_size": network["preprocessing"]["image_size"],
        "weights": "file",
        "weights_file": start.weights,
    }
    changes = params.finetuning.model_copy(update={"training": given | params.finetuning.training})
    return apply_recipe(params, changes, "finetuning")


def _write_network(folder: Path, result: FitResult, data: PackedDataset, start: _Start) -> dict[str, Any]:
    """Write the calibrated network as a checkpoint and as ONNX; return its config."""
    checkpoint = Checkpoint(result.model.eval().cpu(), result.config)
    rows, predictor = data.get_rows("val"), Predictor(result.model, checkpoint.preprocessing, BATCH_SIZE)
    logits, labels = predictor.predict_logits(data.faces, rows), data.labels[rows]
    # Where every face is named correctly, no confidence is too high, and the fit ends at its bound.
    is_perfect = (logits.argmax(axis=1) == labels).all()
    temperature = 1.0 if is_perfect else fit_temperature(logits, labels)
    scale_logits(checkpoint.model, temperature)
    checkpoint.config.update(
        temperature=temperature, finetuned_from=start.name, onnx=describe_export(), targets={"label": 1.0}
    )
    # The path of the file is this machine's.
    checkpoint.config["params"]["training"]["weights_file"] = start.weights.name
    save_checkpoint(folder, checkpoint.model, checkpoint.config)
    export_onnx(checkpoint, folder / ONNX_NAME)
    return _extend_config(folder, abstain_below=choose_threshold(Recognizer(folder), data, "label"))


def _score(
    folder: Path,
    config: Mapping[str, Any],
    result: FitResult,
    faces: OwnFaces,
    start: _Start,
    params: Params,
) -> Finetuned:
    """Score the network, and the one it started from, on the test faces; write the scores into the config."""
    data, recognizer, settings = faces.data, Recognizer(folder), params.finetuning
    rows = data.get_rows("test")
    labels, probabilities = data.labels[rows], recognizer.compute_probabilities(data.faces[rows])
    bootstrap = Bootstrap(len(rows), settings.n_resamples, settings.seed, clusters=data.persons[rows])
    scores = score_predictions(labels, probabilities, data.emotions, bootstrap)
    metrics = {
        f"test.{key}{end}": round(value, 6)
        for key, score in scores.items()
        for end, value in zip(("", "_lo", "_hi"), score, strict=True)
    }
    config = _extend_config(
        folder,
        abstention=measure_abstention(recognizer, data, "label"),
        metrics=config["metrics"] | metrics,
    )
    before = None
    if set(data.emotions) <= set(start.recognizer.emotions):
        known = start.recognizer.compute_probabilities(data.faces[rows])
        known = known[:, [start.recognizer.emotions.index(emotion) for emotion in data.emotions]]
        known /= known.sum(axis=1, keepdims=True)
        accuracy = score_predictions(labels, known, data.emotions, bootstrap)["accuracy"]
        before = accuracy, summarise_gain(labels, probabilities, known, bootstrap)[0]
    commonest = np.bincount(data.labels[data.get_rows("train")]).argmax()
    return Finetuned(
        *(folder, start.name, start.recognizer.emotions, faces, config, result.history),
        *(labels, probabilities, scores, float(np.mean(labels == commonest)), before),
    )


def _extend_config(folder: Path, **values: Any) -> dict[str, Any]:
    """Add values to the config of a checkpoint; return it."""
    path = folder / CONFIG_NAME
    config = json.loads(path.read_text()) | values
    write_atomically(path, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
    return config
