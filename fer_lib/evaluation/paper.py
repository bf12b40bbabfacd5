"""Set what the paper says of its training run beside our runs, and its accuracy beside every one of ours."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fer_lib.evaluation.claim_rules import BELOW, CONTAINED, REACHED, Records, judge_threshold
from fer_lib.intervals import Interval
from fer_lib.labels import EMOTIONS_8, GROUPS
from fer_lib.metrics_file import Metrics, build_key
from fer_lib.param_sections import TrainingParams
from fer_lib.wording import spell_network, spell_setting

EPOCHS = pd.DataFrame(
    {
        "epoch": [1, 3, 5],
        "train_loss": [0.48, 0.30, 0.18],
        "val_loss": [0.52, 0.35, 0.22],
        "val_accuracy": [0.68, 0.81, 0.89],
    }
)
"""The three epochs that the paper reports. It names neither data set, split nor kind of loss for them."""

SILENT = "not stated"

WAYS = {
    "tta": "{}, twelve views",
    "ensemble": "ensemble",
    "ensemble_tta": "ensemble, twelve views",
    "annotators": "{}",
    "annotators_ensemble_tta": "ensemble, twelve views",
}
"""Ways to predict and to judge among the models of stage `evaluation`, besides the single networks."""

SPLITS = ("test", "test.group", "val", "val.group")


def compare_recipe(config: dict[str, Any]) -> pd.DataFrame:
    """Return one row per setting, from a checkpoint's config: what the paper says, and what this run did."""
    training, source = TrainingParams(**config["params"]["training"]), config["initial_weights"]
    schedule = f"{training.lr:g}, {training.schedule} after {training.warmup_steps} steps of warm-up"
    loss = training.loss.replace("cross_entropy", "cross-entropy").replace("_", " ")
    if training.loss == "focal":
        loss += f", gamma {training.focal_gamma:g}"
    average = f"exponential, decay {training.ema_decay:g}" if training.ema_decay else "none"
    rows = [
        ("architecture", "EfficientNet-B0", spell_setting(training.architecture)),
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
    """Return a row for every accuracy on test or validation that has an interval.

    They are of stages `evaluation` and `compression`. Single networks come first, then other ways to predict
    and compressed variants; then the annotators as judges, groups, and validation.

    Returns
    -------
    list
        dataset, split, labels (`emotions`; the `groups` positive, negative, neutral; or the `annotators`'
        majority), classes, model, accuracy, its interval low and high, reached (where that lies:
        `claim_rules.judge_threshold`), data_hash, commit.
    """
    stages = records.metrics.get(records.dataset, {})
    metrics = stages.get("evaluation")
    if metrics is None:
        return []
    precisions = set(metrics.select(split="test", metric="precision")["class"])
    n_emotions, selected = len(precisions & set(EMOTIONS_8)), metrics.get("selected")
    found = [(metrics, *place, _name_model(place[0], selected)) for place in _order_accuracies(metrics)]
    if compressed := stages.get("compression"):
        # One without a dot is another one under what it was chosen for. Stage `evaluation` has scored the
        # float network of its own names already, but for those that it scored with other weights.
        read_back = metrics.get("read_back", "").split(", ")
        listed = {model for model, _ in _find_accuracies(metrics)}.difference(read_back)
        places = sorted(
            (model, split)
            for model, split in _find_accuracies(compressed)
            if "." in model and model.removesuffix(".float32") not in listed
        )
        found += [(compressed, *place, spell_network(place[0])) for place in places]
    found.sort(key=lambda each: (SPLITS.index(each[2]), each[1].startswith("annotators")))
    rows = []
    for source, model, split, name in found:
        place, _, groups = split.partition(".")
        kind = "annotators" if model.startswith("annotators") else "emotions"
        accuracy, low, high = source.interval(build_key("accuracy", model, split))
        rows.append(
            {
                "dataset": records.dataset,
                "split": "validation" if place == "val" else "test",
                "labels": "groups" if groups else kind,
                "classes": len(GROUPS) if groups else n_emotions,
                "model": name,
                "accuracy": accuracy,
                "low": low,
                "high": high,
                "reached": judge_threshold(low, high, value),
                "data_hash": source.provenance.get("data"),
                "commit": source.provenance.get("commit"),
            }
        )
    return rows


def _order_accuracies(metrics: Metrics) -> list[tuple[str, str]]:
    """Return model and split of the accuracies with an interval: test before validation, groups last."""
    places = _find_accuracies(metrics)
    # The selected network's numbers stand in the table twice: under its name, and without one.
    selected = metrics.get("selected")
    for nameless, named in (("", selected), ("annotators", f"annotators.{selected}")):
        places -= {(nameless, split) for split in SPLITS if (named, split) in places}
    networks = sorted({model for model, _ in places} - WAYS.keys())
    order = ["", "baseline", *networks, *WAYS]
    return sorted(places, key=lambda place: (SPLITS.index(place[1]), order.index(place[0])))


def _find_accuracies(metrics: Metrics) -> set[tuple[str, str]]:
    """Return model and split of every accuracy with an interval on one of `SPLITS`."""
    found = metrics.select(metric="accuracy").dropna(subset="lo")
    places = zip(found["model"], found["split"], strict=True)
    return {(model, split) for model, split in places if split in SPLITS}


def _name_model(model: str, selected: str | None) -> str:
    chosen = selected or "the network"
    if model in WAYS:
        return WAYS[model].format(chosen)
    name = model.removeprefix("annotators.") or chosen
    marks = {"the paper's recipe": name == "baseline", "selected": name == selected}
    listed = ", ".join(mark for mark, applies in marks.items() if applies)
    return f"{name} ({listed})" if listed else name


def describe_accuracies(accuracies: Sequence[Mapping[str, Any]], value: float) -> tuple[str, dict[str, str]]:
    """Return a sentence on the highest accuracy beside the paper's `value`, and rows of a table.

    It is that for all emotions by the labels, on test; the table has the highest of all, where it is another.
    """
    if not accuracies:
        return f"No accuracy has been measured yet to compare with the paper's {value:.0%}.", {}
    by_labels = [row for row in accuracies if row["labels"] == "emotions"]
    on_test = [row for row in by_labels if row["split"] == "test"]
    best, highest = (_find_highest(rows) for rows in (on_test or by_labels or accuracies, accuracies))
    sentence = (
        f"The highest {best['split']} accuracy for the {describe_labels(best)} of the labels is "
        f"{_show(best)} ({_mark(best['model'])}), {_place(best, value)}."
    )
    table = {f"highest {best['split']} accuracy for the {describe_labels(best)} of the labels": _show(best)}
    if highest is not best:
        place = f"{highest['split']}, {describe_labels(highest)}: {highest['model']}"
        table[f"highest of all accuracies ({place})"] = _show(highest)
    n_reached = sum(row["reached"] == REACHED for row in accuracies)
    table[f"accuracies whose whole interval reaches {value:.0%}"] = f"{n_reached} of {len(accuracies)}"
    return sentence, table


def _find_highest(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return max(rows, key=lambda row: row["accuracy"])


def _show(row: Mapping[str, Any]) -> str:
    return f"{Interval(row['accuracy'], row['low'], row['high']):.1%}"


def _mark(model: str) -> str:
    return re.sub(r"^\w+", r"`\g<0>`", model)


def _place(row: Mapping[str, Any], value: float) -> str:
    return {
        REACHED: f"which reaches the paper's {value:.0%}",
        CONTAINED: f"whose interval contains the paper's {value:.0%}",
        BELOW: f"below the paper's {value:.0%}",
    }[row["reached"]]


def describe_labels(row: Mapping[str, Any]) -> str:
    """Return the labels of a row of `collect_accuracies` in words: `7 emotions judged by annotators`."""
    judged = "emotions judged by annotators" if row["labels"] == "annotators" else row["labels"]
    return f"{row['classes']} {judged}"
