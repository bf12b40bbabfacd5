"""Every accuracy of a data set on faces not trained on, and which of them reach the paper's."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fer_lib.evaluation.claims import CONTAINED, REACHED, Records, judge_threshold
from fer_lib.labels import EMOTIONS_8, GROUPS

ACCURACY = re.compile(r"(?:(?P<part>.+)\.)?(?P<split>test|val)\.(?P<groups>group\.)?accuracy")
PARTS = {
    "tta": "{}, more views",
    "ensemble": "ensemble",
    "ensemble_tta": "ensemble, more views",
    "crowd": "{}",
    "crowd_ensemble_tta": "ensemble, more views",
}
"""Parts of the metrics of stage `evaluation` besides those of the single networks, `models.<name>`."""


def collect_accuracies(records: Records, value: float) -> list[dict[str, Any]]:
    """Return a row for every accuracy on test or validation that stage `evaluation` has an interval of.

    dataset, split, labels (`emotions`; the `groups` positive, negative, neutral; or the `crowd`'s majority),
    classes, model, accuracy, its interval low and high, reached (where that lies:
    `claims.judge_threshold`), data_hash, git_commit.
    """
    found = records.metrics.get(records.dataset, {}).get("evaluation", {})
    emotions = [name for name in EMOTIONS_8 if any(key.endswith(f"test.precision.{name}") for key in found)]
    rows = []
    for match in _find_accuracies(found):
        key, part, groups = match[0], match["part"] or "", match["groups"]
        low, high = found[f"{key}_lo"], found[f"{key}_hi"]
        rows.append(
            {
                "dataset": records.dataset,
                "split": "validation" if match["split"] == "val" else "test",
                "labels": "groups" if groups else "crowd" if part.startswith("crowd") else "emotions",
                "classes": len(GROUPS if groups else emotions),
                "model": _name_model(part, found.get("selected")),
                "accuracy": found[key],
                "low": low,
                "high": high,
                "reached": judge_threshold(low, high, value),
                "data_hash": found.get("data_hash"),
                "git_commit": found.get("git_commit"),
            }
        )
    return rows


def _find_accuracies(found: Mapping[str, Any]) -> list[re.Match[str]]:
    """Return the keys of accuracies with an interval: test first; single networks first, groups last."""
    keys = [match for match in map(ACCURACY.fullmatch, found) if match and f"{match[0]}_lo" in found]
    # The selected network's numbers stand in the file twice: under its name, and without one.
    keys = [m for m in keys if m["part"] or f"models.{found.get('selected')}.{m[0]}" not in found]
    order = ["", "models.baseline", *sorted({m["part"] or "" for m in keys} - PARTS.keys()), *PARTS]
    return sorted(keys, key=lambda m: (m["split"], bool(m["groups"]), order.index(m["part"] or "")))


def _name_model(part: str, selected: str | None) -> str:
    chosen = selected or "the network"
    if part in PARTS:
        return PARTS[part].format(chosen)
    name = part.removeprefix("models.") if part else chosen
    marks = {"the paper's recipe": name == "baseline", "selected": name == selected}
    listed = ", ".join(mark for mark, applies in marks.items() if applies)
    return f"{name} ({listed})" if listed else name


def describe_accuracies(accuracies: Sequence[Mapping[str, Any]], value: float) -> str:
    """Return in words where `value` is reached, or else what comes nearest to it."""
    if not accuracies:
        return f"No accuracy has been measured yet to set beside {value:.0%}."
    best = max(accuracies, key=lambda row: row["accuracy"])
    reached = [row for row in accuracies if row["reached"] == REACHED]
    contained = [row for row in accuracies if row["reached"] == CONTAINED]
    n_sets = len({row["dataset"] for row in accuracies})
    counted = f"{len(accuracies)} accuracies on {n_sets} data set{'s' if n_sets > 1 else ''}"
    if reached:
        named = "; ".join(map(_describe, reached))
        return f"{value:.0%} is reached by {len(reached)} of {counted}: {named}."
    if contained:
        named = "; ".join(map(_describe, contained))
        return f"{value:.0%} is reached by none of {counted}; it lies within the interval of {named}."
    return f"{value:.0%} is reached by none of {counted}; the highest is {_describe(best)}."


def _describe(row: Mapping[str, Any]) -> str:
    interval = f"{row['accuracy']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"
    return f"{interval} ({row['dataset']} {row['split']}, {row['classes']} {row['labels']}, {row['model']})"
