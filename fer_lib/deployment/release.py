"""Release trained networks: adjusted, calibrated, exported to ONNX, scored as users run them, with a card."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fer_lib.data.framing import FER2013_FRAMING
from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.deployment.card import build_card
from fer_lib.deployment.compression import FLOAT, INT8, choose_calibration, load_images, write_int8
from fer_lib.deployment.export import (
    adjust_logits,
    describe_export,
    divide_logits,
    export_onnx,
    round_weights,
    scale_logits,
)
from fer_lib.deployment.latency import BENCH_ROUNDS, measure_times
from fer_lib.deployment.memory import Network
from fer_lib.deployment.release_scores import (
    choose_threshold,
    fit_vote_temperature,
    measure_abstention,
    score_release,
    select_judged,
)
from fer_lib.errors import ModelError
from fer_lib.evaluation.metrics import fit_temperature
from fer_lib.evaluation.votes import TAUS, choose_tau, measure_adjustment
from fer_lib.inference.recognizer import Recognizer, run_session
from fer_lib.inference.registry import CARD_NAME, RELEASE_DIR
from fer_lib.machine import describe_machine
from fer_lib.metrics_file import read_metrics
from fer_lib.models.build import Checkpoint, load_checkpoint
from fer_lib.models.checkpoints import CONFIG_NAME
from fer_lib.models.networks import get_classifier
from fer_lib.onnx_session import open_session
from fer_lib.param_sections import TrainingParams
from fer_lib.params import Params, load_params
from fer_lib.paths import ROOT, OutputDirs, get_output_dirs
from fer_lib.study_sections import ReleaseParams
from fer_lib.training.predict import Predictor
from fer_lib.training.recipes import check_match, get_metrics_name, list_trainings
from fer_lib.training.targets import share_classes

BATCH_SIZE = 64


@dataclass(frozen=True)
class _Source:
    """Where the networks of a release come from, and what is to become of them."""

    plan: ReleaseParams
    params: Params
    dirs: OutputDirs
    data: PackedDataset


def release_model(dataset: str, name: str) -> Path:
    """Make `models/release/<name>` as `releases.<name>` of the parameters says; return its folder.

    Without such an entry it is the network that stage `evaluation` selected, in float and in int8. An older
    release of the name is replaced as a whole. Raises FerError when the name is none, a network is missing
    or of other data, or an export is not faithful.
    """
    # A folder of this name is replaced as a whole: `..` would be all models.
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ModelError(f"{name!r}: expected a name of letters, digits, dots and hyphens; choose another")
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, ROOT), load_packed(dataset)
    plan = params.releases.get(name) or _plan_selected(dirs)
    partial = RELEASE_DIR / f".{name}.new"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        config = _write_variants(partial, _Source(plan, params, dirs, data))
        (partial / CARD_NAME).write_text(build_card(name, config))
    except BaseException:
        shutil.rmtree(partial)
        raise
    folder = RELEASE_DIR / name
    shutil.rmtree(folder, ignore_errors=True)
    return partial.replace(folder)


def _write_variants(folder: Path, source: _Source) -> dict[str, Any]:
    """Write every network and the config into `folder`; return the config."""
    plan, data = source.plan, source.data
    variant_of = {voters[0]: variant for variant, voters in plan.variants.items() if len(voters) == 1}
    variants: dict[str, dict[str, Any]] = {
        variant: {"members": [variant_of[network] for network in voters]}
        if len(voters) > 1
        else _write_network(folder / f"model.{variant}.onnx", voters[0], source)
        for variant, voters in plan.variants.items()
    }
    shown = variants[variant_of[plan.variants[plan.default][0]]]
    config = {
        "architecture": shown["architecture"],
        "preprocessing": shown["preprocessing"],
        "dataset": source.dirs.reports.name,
        "data_hash": data.data_hash,
        "default": plan.default,
        "emotions": list(data.emotions),
        "framing": data.meta.get("framing") or FER2013_FRAMING.to_dict(),
        "judged_by": plan.judged_by,
        "machine": describe_machine(),
        "onnx": describe_export(),
        "adjustment_cost": plan.adjustment_cost,
        "variants": variants,
    }
    _measure_costs(folder, variants)
    for variant, entry in variants.items():
        _write_config(folder, config)  # which each recognizer reads anew
        if "members" in entry:
            voted = Recognizer(folder, variant=variant)
            entry["vote_temperature"] = fit_vote_temperature(voted, data, plan.judged_by)
            _write_config(folder, config)
        sure = Recognizer(folder, variant=variant)
        entry["abstain_below"] = choose_threshold(sure, data, plan.judged_by)
        _write_config(folder, config)
        scored = Recognizer(folder, variant=variant)
        entry["abstention"] = measure_abstention(scored, data, plan.judged_by)
        entry["metrics"] = score_release(scored, data, plan.judged_by)
    _write_config(folder, config)
    return config


def _plan_selected(dirs: OutputDirs) -> ReleaseParams:
    selected = read_metrics(dirs, "evaluation")["selected"]
    variants: dict[str, tuple[str, ...]] = {
        "float": (f"{selected}.{FLOAT}",),
        "int8": (f"{selected}.{INT8}",),
    }
    return ReleaseParams(judged_by="label", adjustment_cost=0.0, default="float", variants=variants)


def _write_network(path: Path, network: str, source: _Source) -> dict[str, Any]:
    """Write `<recipe>.<float32 or int8>` to `path`, adjusted and calibrated; return what is known of it."""
    recipe, _, kind = network.partition(".")
    folder = source.dirs.models / recipe
    checkpoint = load_checkpoint(folder)
    check_match(checkpoint, source.data)
    if not isinstance(get_classifier(checkpoint.model), torch.nn.Linear):
        raise ModelError(f"{folder}: expected a flat head, which alone can be calibrated")
    trained_at = read_metrics(source.dirs, get_metrics_name(recipe))["trained_at_commit"]
    if trained_at != checkpoint.config["git_commit"]:
        raise ModelError(f"{folder}: its metrics are of a training at {trained_at}; run the stage again")
    training = TrainingParams(**checkpoint.config["params"]["training"])
    tau = _adjust(checkpoint, training, source) if source.plan.adjustment_cost else 0.0
    write = _write_int8 if kind == INT8 else _write_float
    return {
        "file": path.name,
        "network": network,
        "quantized": kind == INT8,
        "tau": tau,
        "temperature": write(path, checkpoint, source),
        "targets": training.targets.model_dump(exclude_defaults=True),
        "start": training.weights_file.name if training.weights_file else None,
        "teachers": [teacher.stem for teacher in training.teachers],
        "epochs": [checkpoint.config["best_epoch"], training.epochs],
        "trainings": list_trainings(recipe, source.params, source.dirs),
        **{key: checkpoint.config[key] for key in ("architecture", "preprocessing", "git_commit", "device")},
    }


def _adjust(checkpoint: Checkpoint, training: TrainingParams, source: _Source) -> float:
    """Adjust the logits, in the last layer, as far as the plan lets it cost on validation; return the tau."""
    data, plan = source.data, source.plan
    shares = share_classes(data, training)
    rows, labels = select_judged(data, "val", plan.judged_by)
    predictor = Predictor(checkpoint.model, checkpoint.preprocessing, BATCH_SIZE)
    logits = predictor.predict_logits(data.faces, rows)
    measured = measure_adjustment(logits, {plan.judged_by: labels}, shares, TAUS)
    tau = choose_tau(measured.set_index("tau")["accuracy"], plan.adjustment_cost)
    adjust_logits(checkpoint.model, tau, shares)
    return tau


def _write_float(path: Path, checkpoint: Checkpoint, source: _Source) -> float:
    """Write the network with matrices in half precision, which halves the file; return its temperature.

    The temperature is divided into the last layer. ONNX Runtime and PyTorch compute with the same rounded
    values, in single precision.
    """
    rows, labels = select_judged(source.data, "val", source.plan.judged_by)
    predictor = Predictor(checkpoint.model, checkpoint.preprocessing, BATCH_SIZE)
    temperature = fit_temperature(predictor.predict_logits(source.data.faces, rows), labels)
    scale_logits(checkpoint.model, temperature)
    round_weights(checkpoint.model)
    checkpoint.model.float()
    export_onnx(checkpoint, path)
    return temperature


def _write_int8(path: Path, checkpoint: Checkpoint, source: _Source) -> float:
    """Write the network in int8, as stage `compression` does; return the temperature of the int8 network."""
    data, preprocessing, settings = source.data, checkpoint.preprocessing, source.params.compression
    rows, labels = select_judged(data, "val", source.plan.judged_by)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_onnx(checkpoint, folder / f"{FLOAT}.onnx", half=False)
        write_int8(folder, choose_calibration(data, preprocessing, settings), settings)
        shutil.copy(folder / f"{INT8}.onnx", path)
    logits = run_session(open_session(path), load_images(data, rows, preprocessing), BATCH_SIZE)
    temperature = fit_temperature(logits, labels)
    divide_logits(path, temperature)
    return temperature


def _measure_costs(folder: Path, variants: dict[str, dict[str, Any]]) -> None:
    """Add `bytes` and `milliseconds`, of one face on one thread, to every variant; a vote costs their sum."""
    networks = {
        variant: Network(folder / entry["file"], entry["preprocessing"]["image_size"])
        for variant, entry in variants.items()
        if "file" in entry
    }
    times = measure_times(networks, [1], BENCH_ROUNDS)
    milliseconds = 1e3 * times[times["batch"] == 1][list(networks)].median()
    for variant, entry in variants.items():
        parts = entry.get("members", [variant])
        entry["bytes"] = sum(networks[part].path.stat().st_size for part in parts)
        entry["milliseconds"] = round(sum(milliseconds[part] for part in parts), 4)


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n")
