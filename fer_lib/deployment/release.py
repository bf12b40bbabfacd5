"""Release a trained network: calibrated, exported to ONNX, with smaller variants and a card."""

import json
import re
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jinja2 import StrictUndefined, Template

from fer_lib.data.framing import FER2013_FRAMING
from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.deployment.compression import get_variants_dir
from fer_lib.deployment.export import describe_export, export_onnx, round_weights, scale_logits
from fer_lib.deployment.latency import name_run
from fer_lib.errors import ModelError
from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.evaluation.metrics import fit_temperature, group_labels, group_probabilities, score_predictions
from fer_lib.evaluation.predictions import get_predictions_path, hash_weights, read_predictions
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.registry import CARD_NAME, ONNX_NAME, RELEASE_DIR, list_variants
from fer_lib.labels import GROUP_OF, GROUPS
from fer_lib.metrics_file import HEADLINES, Interval, Metrics, build_key, read_metrics
from fer_lib.models.build import load_checkpoint, save_checkpoint
from fer_lib.models.checkpoints import CONFIG_NAME, read_config
from fer_lib.models.networks import get_classifier
from fer_lib.params import load_params
from fer_lib.paths import ROOT, get_output_dirs
from fer_lib.training.recipes import check_match, get_metrics_name, list_training_seconds

ABSTAIN_BELOW = 0.5
"""Calibrated confidence under which the likeliest emotion is more likely wrong than right."""

SOURCES = {"int8": "int8.variant", "tiny": "device.smallest"}
"""Variant of a release to what stage `compression` says of it: the network and variant to take."""


def release_model(dataset: str, name: str) -> Path:
    """Make `models/release/<name>` from the network that stage `evaluation` selected; return its folder.

    The temperature that fits the validation split is divided into the last layer, so that every softmax of
    the released network is calibrated. Its matrices are rounded to half precision, which halves both files;
    PyTorch and ONNX Runtime compute with the same rounded values, in single precision. The variants of an
    older release of the name go with it: `release-variants` puts them back. Raises FerError when the name is
    none, the pipeline has not run for the data set, or the export is not faithful.
    """
    # A folder of this name is replaced as a whole: `..` would be all models.
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ModelError(f"{name!r}: expected a name of letters, digits, dots and hyphens; choose another")
    dirs = get_output_dirs(dataset, ROOT)
    selected = read_metrics(dirs, "evaluation")["selected"]
    checkpoint, data = load_checkpoint(dirs.models / selected), load_packed(dataset)
    check_match(checkpoint, data)
    if not isinstance(get_classifier(checkpoint.model), torch.nn.Linear):
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
            f"{path}: made by other weights than those of {dirs.models / selected}; run `make results`"
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
        "onnx": describe_export(),
        "temperature": temperature,
    }
    partial = RELEASE_DIR / f".{name}.new"
    save_checkpoint(partial, checkpoint.model, config)
    config["onnx"]["max_logit_difference"] = export_onnx(load_checkpoint(partial), partial / ONNX_NAME)
    config["metrics"] = score_release(Recognizer(partial), data)
    return _replace_release(name, partial, config)


def add_variants(dataset: str, name: str) -> list[str]:
    """Put `model.int8.onnx` and `model.tiny.onnx` into `models/release/<name>`, scored as users run them.

    They are those that notebook 06 found best. The config gets an entry per variant with all that
    `registry.list_variants` tells, the card a table. Returns the names of the variants. Raises FerError
    when the release or the networks are missing, or are of other data.
    """
    folder, dirs, data = RELEASE_DIR / name, get_output_dirs(dataset, ROOT), load_packed(dataset)
    config, found = read_config(folder), read_metrics(dirs, "compression")
    latency, baseline = read_metrics(dirs, "latency"), found["baseline"]
    if config.get("data_hash") != data.data_hash:
        raise ModelError(f"{folder}: made of other data than those of {dataset}; release it again")
    if config.get("recipe") != baseline:
        raise ModelError(f"{folder}: expected a release of {baseline!r}, which the variants learned from")
    for source in SOURCES.values():
        if source not in found:
            table = dirs.get_table("compression")
            raise ModelError(f"{table}: names no variant for {source!r}; allow it more")
    # In a folder of its own: an interruption leaves the release as it was.
    partial = folder.with_name(f".{name}.variants")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial)
    config["variants"] = {}
    for variant, source in SOURCES.items():
        network, kind = found[source].split(".")
        trained = load_checkpoint(dirs.models / network).config
        file = f"model.{variant}.onnx"
        shutil.copy(get_variants_dir(dirs, network) / f"{kind}.onnx", partial / file)
        config["variants"][variant] = {
            "file": file,
            "network": network,
            **{key: trained[key] for key in ("architecture", "preprocessing", "git_commit", "device")},
            "training": trained["params"]["training"],
            "onnx": describe_export(),
            "metrics": {},
            **_measure_cost(latency, found[source], partial / file),
        }
    config["cost"] = _measure_cost(latency, f"{baseline}.float32", partial / ONNX_NAME)
    _write_config(partial, config)  # which the recognizers below read
    for variant, entry in config["variants"].items():
        entry["metrics"] = score_release(Recognizer(partial, variant=variant), data)
    _replace_release(name, partial, config)
    return list(config["variants"])


def score_release(recognizer: Recognizer, data: PackedDataset) -> dict[str, float]:
    """Return the metrics of a released model as its users run it, on the packed faces.

    Keys: `test.*` and `test_dedup.*` as in `metrics.score_predictions`, of the emotions and, under `.group.`,
    of their groups, with 95 % intervals `_lo` to `_hi`; on validation, `val.accuracy`, `val.coverage`
    (share not abstained), `val.accuracy_answered` and `val.accuracy_abstained`.
    """
    metrics, rows = Metrics("release"), data.get_rows("val")
    probabilities = recognizer.compute_probabilities(data.faces[rows])
    correct = probabilities.argmax(axis=1) == data.labels[rows]
    sure = probabilities.max(axis=1) >= recognizer.abstain_below
    metrics.add("accuracy", correct.mean(), split="val")
    metrics.add("coverage", sure.mean(), split="val")
    for title, chosen in {"answered": sure, "abstained": ~sure}.items():
        if chosen.any():
            metrics.add(f"accuracy_{title}", correct[chosen].mean(), split="val")
    splits = {"test": data.get_rows("test"), "test_dedup": data.get_rows("test", drop_duplicates_of="train")}
    for split, rows in splits.items():
        labels, probabilities = data.labels[rows], recognizer.compute_probabilities(data.faces[rows])
        bootstrap = Bootstrap(len(rows), n_resamples=1000, seed=0, clusters=data.persons[rows])
        groups = group_labels(labels, data.emotions), group_probabilities(probabilities, data.emotions)
        metrics.add_scores(score_predictions(labels, probabilities, data.emotions, bootstrap), split=split)
        metrics.add_scores(score_predictions(*groups, GROUPS, bootstrap), split=f"{split}.group")
        metrics.describe(f"{split}.n_images", len(rows))
    return {key: round(value, 6) for key, value in metrics.flatten().items()}


def build_card(name: str, config: dict[str, Any]) -> str:
    """Return the card of a release as Markdown; every number comes from its config."""
    text = Path(__file__).with_name("card.md.j2").read_text()
    card = Template(text, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).render(
        name=name,
        config=config,
        variants=list_variants(config),
        groups=GROUPS,
        group_of=GROUP_OF,
        headlines=HEADLINES,
        show=_show,
    )
    # Prose is filled, whatever the length of its numbers; headings, tables and code stay.
    blocks = [
        block
        if block.startswith(("#", "|")) or "```" in block
        else textwrap.fill(block, 110, break_long_words=False, break_on_hyphens=False)
        for block in card.strip().split("\n\n")
    ]
    # The spaces in an interval do not break; in the file they are found by who searches for the numbers.
    return "\n\n".join(blocks).replace("\N{NO-BREAK SPACE}", " ") + "\n"


def _show(metrics: Mapping[str, float], key: str, spec: str = ".1%") -> str:
    """Return a value with its 95 % interval; a dash when it was not measured."""
    if key not in metrics:
        return "–"
    return f"{Interval(*(metrics[f'{key}{end}'] for end in ('', '_lo', '_hi'))):{spec}}"


def _measure_cost(latency: Metrics, name: str, file: Path) -> dict[str, object]:
    milliseconds = latency[build_key("time.ms", name, name_run(1, 1))]
    return {"bytes": file.stat().st_size, "milliseconds": milliseconds, "machine": latency["machine"]}


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _replace_release(name: str, partial: Path, config: dict[str, Any]) -> Path:
    """Finish the folder `partial` and put it in place of the release; return the release's folder."""
    _write_config(partial, config)
    (partial / CARD_NAME).write_text(build_card(name, config))
    folder = RELEASE_DIR / name
    shutil.rmtree(folder, ignore_errors=True)
    return partial.replace(folder)
