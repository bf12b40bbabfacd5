"""Evaluate networks on counterfactual faces: drawn test faces with one factor changed."""

import os
from collections.abc import Mapping
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd

from demo_faces.counterfactuals import (
    FACTORS,
    PAIRS,
    draw_counterfactuals,
    list_counterfactuals,
    name_factors,
)
from fer_lib.analysis import fairness
from fer_lib.analysis.robustness import open_network
from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.errors import DataError
from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.evaluation.predictions import read_table, write_table
from fer_lib.intervals import Interval
from fer_lib.jobs import map_side_by_side
from fer_lib.metrics_file import Metrics
from fer_lib.params import load_params
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.study_sections import RobustnessParams

TONE, LIGHT = "skin_tone", "light_strength"
"""The factors whose gaps a mitigation is to close."""

MEASURES = ("accuracy", "false_positive_rate", "ece")
"""Those in the metrics; with as many faces of each class, macro recall is nearly the accuracy."""

_FEW = 16
"""Faces, up to which starting processes takes longer than drawing."""


def predict_counterfactuals(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Write the predictions of every network of `robustness.audited`; return the parquet file.

    Columns: row, label, person, factor, value (as text; of a pair, joined by + and by |), and per network
    `<network>/pred`, the predicted class, and `.../confidence`. Raises DataError for faces that were not
    drawn, and ModelError as `robustness.open_network`.
    """
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    settings = params.robustness
    rows = draw_evenly(data, settings.n_counterfactuals, settings.seed)
    workers = (os.cpu_count() or 1) if len(rows) > _FEW else 1
    try:
        draw, sources = partial(draw_counterfactuals, size=data.meta["size"]), data.index["source"].iloc[rows]
        flat = list(np.concatenate(list(map_side_by_side(draw, sources, workers))))
    except ValueError as error:
        raise DataError(f"{dataset}: {error}") from None
    changes, n = list_counterfactuals(), len(rows)
    table = {
        "row": np.repeat(rows, len(changes)),
        "label": np.repeat(data.labels[rows], len(changes)).astype(np.uint8),
        "person": np.repeat(data.persons[rows], len(changes)),
        "factor": [name_factors(change) for change in changes] * n,
        "value": ["|".join(map(str, change.values())) for change in changes] * n,
    }
    for name in settings.audited:
        probabilities = open_network(name, dirs, data)(flat)
        table[f"{name}/pred"] = probabilities.argmax(axis=1).astype(np.uint8)
        table[f"{name}/confidence"] = probabilities.max(axis=1).round(3).astype(np.float32)
    path = get_counterfactuals_path(dirs)
    write_table(path, pd.DataFrame(table), data)
    return path


def draw_evenly(data: PackedDataset, n: int, seed: int) -> np.ndarray:
    """Return at most `n` test rows in order, as many of each class as there are, drawn by the seed."""
    rows = np.random.default_rng(seed).permutation(data.get_rows("test"))
    place = pd.Series(data.labels[rows]).groupby(data.labels[rows]).cumcount().to_numpy()
    return np.sort(rows[place < n // len(data.emotions)])


def get_counterfactuals_path(dirs: OutputDirs) -> Path:
    """Return the file of the predictions."""
    return dirs.reports / "robustness" / "counterfactuals.parquet"


class CounterfactualScores:
    """The predictions of `predict_counterfactuals`, scored. Raises DataError where that stage has not run."""

    def __init__(self, dirs: OutputDirs, data: PackedDataset, settings: RobustnessParams) -> None:
        self._table = read_table(get_counterfactuals_path(dirs), data, "counterfactuals")
        self._settings = settings
        self._permutation = settings.model_dump(include={"n_permutations", "seed", "min_faces"})
        self.network = settings.audited[0]

    def read(self, network: str, factor: str) -> pd.DataFrame:
        """Return the rows of one factor.

        Columns: row, label, person, value, and the network's pred, confidence and is_correct.
        """
        part = self._table[self._table["factor"] == factor].reset_index(drop=True)
        kept = part[["row", "label", "person", "value"]].astype({"label": np.int64})
        kept["pred"] = part[f"{network}/pred"].astype(np.int64)
        kept["confidence"] = part[f"{network}/confidence"].astype(np.float64)
        return kept.assign(is_correct=kept["pred"] == kept["label"])

    def score_factors(self) -> dict[str, pd.DataFrame]:
        """Return factor to the rates of its groups, as `fairness.score_groups`, in order of their values."""
        found = {}
        for factor, (values, _) in FACTORS.items():
            part = self.read(self.network, factor)
            label, pred, confidence, value = _take(part, "label", "pred", "confidence", "value")
            table = fairness.score_groups(label, pred, confidence, value, self._draw(part))
            found[factor] = table.loc[list(map(str, values))]
        return found

    def find_gaps(self, groups: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """Return factor by gap (the largest difference in accuracy), p (Holm's) and the lowest group."""
        gaps = {factor: self._measure_gap(self.read(self.network, factor)) for factor in groups}
        lowest = {name: table["accuracy"].map(itemgetter(0)).idxmin() for name, table in groups.items()}
        return fairness.tabulate_gaps(gaps).rename_axis("factor").assign(lowest=pd.Series(lowest))

    def list_pairs(self) -> pd.DataFrame:
        """Return the cells of two factors that differ most from both alone; see `list_interactions`."""
        tables = []
        for first, _, second, _ in PAIRS:
            part = self.read(self.network, f"{first}+{second}")
            values = np.array([value.split("|") for value in part["value"]])
            pair = {first.replace("_", " "): values[:, 0], second.replace("_", " "): values[:, 1]}
            is_correct, row = _take(part, "is_correct", "row")
            tables.append(fairness.list_interactions(is_correct, pair, row, **self._permutation).head())
        return pd.concat(tables)

    def score_networks(self) -> pd.DataFrame:
        """Return network by accuracy, gap among tones, p, and the ratio of recalls as text."""
        rows = {}
        for name in self._settings.audited:
            part = self.read(name, TONE)
            gap, p_value = self._measure_gap(part)
            rows[name] = {
                "accuracy": part["is_correct"].mean(),
                "gap among tones": gap,
                "p": p_value,
                "recall ratio": f"{self.compute_ratio(name):.1%}",
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("network")

    def compute_ratio(self, network: str) -> Interval:
        """Return the lowest macro recall of a tone over the highest; see `fairness.compute_ratio`."""
        part = self.read(network, TONE)
        label, pred, value = _take(part, "label", "pred", "value")
        return fairness.compute_ratio(label, pred, value, self._draw(part))

    def compare_mitigations(self) -> dict[tuple[str, str], dict[str, Interval]]:
        """Return (mitigation, factor) to what it changes on the same faces, as `fairness.compare_gaps`."""
        found = {}
        for name, baseline in self._settings.mitigations.items():
            for factor in (TONE, LIGHT):
                part = self.read(name, factor)
                is_correct, value = _take(part, "is_correct", "value")
                was_correct = self.read(baseline, factor)["is_correct"].to_numpy()
                found[name, factor] = fairness.compare_gaps(is_correct, was_correct, value, self._draw(part))
        return found

    def _draw(self, part: pd.DataFrame) -> Bootstrap:
        settings = self._settings
        return Bootstrap(len(part), settings.n_resamples, settings.seed, part["person"].to_numpy())

    def _measure_gap(self, part: pd.DataFrame) -> tuple[float, float]:
        is_correct, value, row = _take(part, "is_correct", "value", "row")
        return fairness.measure_gap(is_correct, value, row, **self._permutation)


def _take(part: pd.DataFrame, *columns: str) -> list[np.ndarray]:
    return [part[column].to_numpy() for column in columns]


def add_groups(metrics: Metrics, groups: Mapping[str, pd.DataFrame], gaps: pd.DataFrame) -> None:
    """Add `group.<factor>.gap` and `.p_value`, and `group.<factor>.<value>.<measure>`."""
    for factor, row in gaps.iterrows():
        metrics.add("gap", row["gap"], split=f"group.{factor}")
        metrics.add("p_value", row["p"], split=f"group.{factor}")
    for factor, table in groups.items():
        for value, row in table.iterrows():
            for measure in MEASURES:
                metrics.add(measure, row[measure], split=f"group.{factor}.{value}", n=row["n"])


def tabulate_changes(
    changes: Mapping[tuple[str, str], Mapping[str, Interval]], mitigations: Mapping[str, str]
) -> pd.DataFrame:
    """Return what `compare_mitigations` found as text, one row per mitigation and factor."""
    names = [f"{name} – {mitigations[name]}, {factor.replace('_', ' ')}" for name, factor in changes]
    table = pd.DataFrame(list(changes.values()), index=names).map(lambda change: f"{change.to_points():+.1f}")
    titles = {"accuracy": "accuracy gained", "gap": "change of the gap"}
    return table.rename(columns=titles).rename_axis("networks, groups")
