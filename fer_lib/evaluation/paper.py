"""Set what the paper says of its training run beside our runs, and its accuracy beside every one of ours."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fer_lib.evaluation.claim_rules import BELOW, CONTAINED, REACHED, Records, judge_threshold
from fer_lib.labels import EMOTIONS_8, GROUPS
from fer_lib.metrics_file import Interval, Metrics, build_key
from fer_lib.param_sections import TrainingParams

EPOCHS = pd.DataFrame(
    {
        "epoch": [1, 3, 5],
        "train_loss": [0.48, 0.30, 0.18],
        "val_loss": [0.52, 0.35, 0.22],
        "val_accuracy": [0.68, 0.81, 0.89],
    }
)
"""The three epochs that the paper reports. It names neither data set, split nor kind of loss for them."""

SILENT = "not said"

WAYS = {
    "tta": "{}, more views",
    "ensemble": "ensemble",
    "ensemble_tta": "ensemble, more views",
    "annotators": "{}",
    "annotators_ensemble_tta": "ensemble, more views",
}
"""Ways to predict and to judge among the models of stage `evaluation`, besides the single networks."""


def compare_recipe(config: dict[str, Any]) -> pd.DataFrame:
    """Return one row per setting, from a checkpoint's config: what the paper says, and what this run did."""
    training, source = TrainingParams(**config["params"]["training"]), config["initial_weights"]
    schedule = f"{training.lr:g}, {training.schedule} after {training.warmup_steps} steps of warm-up"
    loss = training.loss.replace("cross_entropy", "cross-entropy").replace("_", " ")
    if training.loss == "focal":
        loss += f", gamma {training.focal_gamma:g}"
    average = f"exponential, decay {training.ema_decay:g}" if training.ema_decay else "none"
    rows = [
        ("architecture", "EfficientNet-B0", training.architecture),
        ("initial weights", "ImageNet", f"{source['source']}: {source['name']}"),
        ("image size", "224 px", f"{training.image_size} px"),
        ("epochs", "5", f"at most {training.epochs}"),
        ("optimiser", "AdamW", f"AdamW, weight decay {training.weight_decay:g}"),
        ("learning rate", "0.001, constant", schedule),
        ("loss", "focal", loss),
        ("class imbalance", "weighted random sampler and focal loss", f"{training.sampler} sampler, {loss}"),
        ("dropout", "dropout layers", f"{training.dropout:g} before the classifier"),
        ("early stopping", "yes", f"after {training.patience} epochs without a better validation accuracy"),
        ("batch size", SILENT, str(training.batch_size)),
        ("label smoothing", SILENT, f"{training.label_smoothing:g}"),
        ("weight average", SILENT, average),
        ("device", SILENT, config["device"]),
    ]
    return pd.DataFrame(rows, columns=["setting", "paper", "this run"])


def collect_accuracies(records: Records, value: float) -> list[dict[str, Any]]:
    """Return a row for every accuracy on test or validation that stage `evaluation` has an interval of.

    Single networks come first, then other ways to predict; groups and validation come last.

    Returns
    -------
    list
        dataset, split, labels (`emotions`; the `groups` positive, negative, neutral; or the `annotators`'
        majority), classes, model, accuracy, its interval low and high, reached (where that lies:
        `claim_rules.judge_threshold`), data_hash, commit.
    """
    metrics = records.metrics.get(records.dataset, {}).get("evaluation")
    if metrics is None:
        return []
    precisions = set(metrics.select(split="test", metric="precision")["class"])
    n_emotions, selected = len(precisions & set(EMOTIONS_8)), metrics.get("selected")
    rows = []
    for model, split in _order_accuracies(metrics):
        place, _, groups = split.partition(".")
        kind = "annotators" if model.startswith("annotators") else "emotions"
        accuracy, low, high = metrics.interval(build_key("accuracy", model, split))
        rows.append(
            {
                "dataset": records.dataset,
                "split": "validation" if place == "val" else "test",
                "labels": "groups" if groups else kind,
                "classes": len(GROUPS) if groups else n_emotions,
                "model": _name_model(model, selected),
                "accuracy": accuracy,
                "low": low,
                "high": high,
                "reached": judge_threshold(low, high, value),
                "data_hash": metrics.provenance.get("data"),
                "commit": metrics.provenance.get("commit"),
            }
        )
    return rows


def _order_accuracies(metrics: Metrics) -> list[tuple[str, str]]:
    """Return model and split of the accuracies with an interval: test before validation, groups last."""
    found = metrics.select(metric="accuracy").dropna(subset="lo")
    splits = ["test", "test.group", "val", "val.group"]
    places = {place for place in zip(found["model"], found["split"], strict=True) if place[1] in splits}
    # The selected network's numbers stand in the table twice: under its name, and without one.
    selected = metrics.get("selected")
    for nameless, named in (("", selected), ("annotators", f"annotators.{selected}")):
        places -= {(nameless, split) for split in splits if (named, split) in places}
    networks = sorted({model for model, _ in places} - WAYS.keys())
    order = ["", "baseline", *networks, *WAYS]
    return sorted(places, key=lambda place: (splits.index(place[1]), order.index(place[0])))


def _name_model(model: str, selected: str | None) -> str:
    chosen = selected or "the network"
    if model in WAYS:
        return WAYS[model].format(chosen)
    name = model.removeprefix("annotators.") or chosen
    marks = {"the paper's recipe": name == "baseline", "selected": name == selected}
    listed = ", ".join(mark for mark, applies in marks.items() if applies)
    return f"{name} ({listed})" if listed else name


def describe_accuracies(accuracies: Sequence[Mapping[str, Any]], value: float) -> tuple[str, dict[str, str]]:
    """Return a sentence on the highest accuracy beside the paper's `value`, and rows of a table."""
    if not accuracies:
        return f"No accuracy has been measured yet to compare with the paper's {value:.0%}.", {}
    highest = max(accuracies, key=lambda row: row["accuracy"])
    n_reached = sum(row["reached"] == REACHED for row in accuracies)
    place = {
        REACHED: f"which reaches the paper's {value:.0%}",
        CONTAINED: f"whose interval contains the paper's {value:.0%}",
        BELOW: f"below the paper's {value:.0%}",
    }[highest["reached"]]
    interval = Interval(highest["accuracy"], highest["low"], highest["high"])
    what = f"{highest['split']}, {describe_labels(highest)}: {highest['model']}"
    sentence = f"The highest of the {len(accuracies)} accuracies is {interval:.1%} ({what}), {place}."
    by_labels = [row for row in accuracies if row["labels"] == "emotions" and row["split"] == "test"]
    table = {}
    if by_labels:
        best = max(by_labels, key=lambda row: row["accuracy"])
        score = Interval(best["accuracy"], best["low"], best["high"])
        table[f"highest test accuracy for the {describe_labels(best)} of the labels"] = f"{score:.1%}"
    return sentence, table | {
        f"accuracies whose whole interval reaches {value:.0%}": f"{n_reached} of {len(accuracies)}",
    }


def describe_labels(row: Mapping[str, Any]) -> str:
    """Return the labels of a row of `collect_accuracies` in words: `7 emotions judged by annotators`."""
    judged = "emotions judged by annotators" if row["labels"] == "annotators" else row["labels"]
    return f"{row['classes']} {judged}"
