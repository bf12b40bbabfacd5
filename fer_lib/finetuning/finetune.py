"""Let a released network go on learning from a user's own faces, with classes of their own."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_lib.data.packed import PackedDataset
from fer_lib.deployment.export import describe_export, export_onnx, scale_logits
from fer_lib.deployment.release_scores import choose_threshold, measure_abstention
from fer_lib.errors import ModelError
from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.evaluation.metrics import fit_temperature, score_predictions, summarise_gain
from fer_lib.files import hold_lock
from fer_lib.finetuning.own_faces import OwnFaces, pack_own_faces
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.registry import FINETUNED, ONNX_NAME, find_checkpoint, list_variants, read_model
from fer_lib.intervals import Interval
from fer_lib.models.build import Checkpoint, save_checkpoint
from fer_lib.models.checkpoints import CONFIG_NAME, WEIGHTS_NAME
from fer_lib.params import Params, apply_recipe, load_params
from fer_lib.params_file import read_params_file
from fer_lib.paths import MODELS_DIR
from fer_lib.training.fit import fit
from fer_lib.training.predict import Predictor

BATCH_SIZE = 64


@dataclass(frozen=True)
class Finetuned:
    """A network that has learned from a user's faces, and what it scores on those held back.

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


def finetune(source: Path, model: str, name: str | None = None) -> Finetuned:
    """Train a network on the faces of `source`, from what `model` knows, in `models/<name>/finetuned`.

    Called again with the same faces and settings, it trains nothing. The settings are the section
    `finetuning` of `params.yaml`. The epoch of best validation accuracy counts; training stops once
    `patience` epochs were no better. The network is calibrated on validation, and abstains below the
    confidence that separates correct from wrong answers best there.

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
        For faces that cannot be read or are too few.
    ModelError
        For a model that cannot go on learning, and a name that is taken or none.
    FerError
        While another run trains on the same faces.
    """
    name = _check_name(name or source.stem)
    start, weights_file = _find_start(model)
    params = _build_params(start, weights_file)
    faces = pack_own_faces(source, name, start, params)
    data, folder = faces.data, MODELS_DIR / name / FINETUNED
    state = MODELS_DIR / ".state" / name / FINETUNED
    with hold_lock(state / "lock"):
        result = fit(data, params, state, keeps_classes=True)
        checkpoint = Checkpoint(result.model.eval().cpu(), dict(result.config))
        rows = data.get_rows("val")
        predictor = Predictor(checkpoint.model, checkpoint.preprocessing, BATCH_SIZE)
        temperature = fit_temperature(predictor.predict_logits(data.faces, rows), data.labels[rows])
        scale_logits(checkpoint.model, temperature)
        checkpoint.config.update(
            temperature=temperature,
            finetuned_from=start.folder.name,
            onnx=describe_export(),
            targets={"label": 1.0},
        )
        # The file's name says which; where it lay on this machine is nobody's business.
        checkpoint.config["params"]["training"]["weights_file"] = weights_file.name
        save_checkpoint(folder, checkpoint.model, checkpoint.config)
        export_onnx(checkpoint, folder / ONNX_NAME)
    _add(folder, abstain_below=choose_threshold(Recognizer(folder), data, "label"))
    recognizer = Recognizer(folder)
    labels, probabilities, bootstrap = _predict_test(recognizer, data, params)
    scores = score_predictions(labels, probabilities, data.emotions, bootstrap)
    metrics = {f"test.{key}{end}": value for key, score in scores.items() for end, value in _name_ends(score)}
    config = _add(
        folder,
        abstention=measure_abstention(recognizer, data, "label"),
        metrics=checkpoint.config["metrics"] | {key: round(value, 6) for key, value in metrics.items()},
    )
    commonest = np.bincount(data.labels[data.get_rows("train")]).argmax()
    before = None
    if set(data.emotions) <= set(start.emotions):
        _, known, _ = _predict_test(start, data, params)
        known = known[:, [start.emotions.index(emotion) for emotion in data.emotions]]
        known /= known.sum(axis=1, keepdims=True)
        accuracy = score_predictions(labels, known, data.emotions, bootstrap)["accuracy"]
        before = accuracy, summarise_gain(labels, probabilities, known, bootstrap)[0]
    majority = float(np.mean(labels == commonest))
    return Finetuned(
        *(folder, start.folder.name, start.emotions, faces, config, result.history),
        *(labels, probabilities, scores, majority, before),
    )


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or name in {"release", "compressed"}:
        raise ModelError(
            f"{name!r}: expected a name of letters, digits, dots and hyphens; give another one with --name"
        )
    if name in read_params_file()["datasets"]:
        raise ModelError(f"{name}: expected a name that no data set has; give another one with --name")
    return name


def _find_start(model: str) -> tuple[Recognizer, Path]:
    """Return a network in float that can go on learning, ready to be compared with, and its weights."""
    folder = find_checkpoint(model)
    if (folder / WEIGHTS_NAME).is_file():
        return Recognizer(folder), folder / WEIGHTS_NAME
    floats = [
        variant
        for variant, one in list_variants(read_model(folder)).items()
        if "file" in one and not one.get("quantized")
    ]
    if not floats:
        raise ModelError(
            f"{folder}: expected a network in float, found int8 alone, which cannot go on learning; use a "
            "clone of the repository"
        )
    recognizer = Recognizer(folder, variant=floats[0])
    return recognizer, folder / list_variants(recognizer.config)[floats[0]]["file"]


def _build_params(start: Recognizer, weights_file: Path) -> Params:
    """Return the settings of a training that goes on from a network."""
    params, network = load_params(None), list_variants(start.config)[start.variant]
    changes = params.finetuning
    given = {
        "architecture": network["architecture"],
        "image_size": network["preprocessing"]["image_size"],
        "weights": "file",
        "weights_file": weights_file.parent if weights_file.name == WEIGHTS_NAME else weights_file,
    }
    changes = changes.model_copy(update={"training": given | changes.training})
    return apply_recipe(params, changes, "finetuning")


def _predict_test(
    recognizer: Recognizer, data: PackedDataset, params: Params
) -> tuple[np.ndarray, np.ndarray, Bootstrap]:
    """Return labels (N,) and probabilities (N, C) of the test faces, and resamples of them by person."""
    rows, settings = data.get_rows("test"), params.finetuning
    bootstrap = Bootstrap(len(rows), settings.n_resamples, settings.seed, clusters=data.persons[rows])
    return data.labels[rows], recognizer.compute_probabilities(data.faces[rows]), bootstrap


def _name_ends(score: Interval) -> list[tuple[str, float]]:
    return list(zip(("", "_lo", "_hi"), score, strict=True))


def _add(folder: Path, **values: Any) -> dict[str, Any]:
    """Add values to a checkpoint's config; return it."""
    path = folder / CONFIG_NAME
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return config
