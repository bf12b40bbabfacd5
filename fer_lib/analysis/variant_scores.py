"""What answers to faces drawn again come to: groups, gaps between them, and what remedies change."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from demo_faces.counterfactuals import FACTORS, PAIRS
from fer_lib.analysis.fairness import (
    adjust_for_many,
    compare_gaps,
    compute_ratio,
    list_interactions,
    measure_gap,
    score_groups,
)
from fer_lib.analysis.variants import read_variants
from fer_lib.data.packed import PackedDataset
from fer_lib.metrics_file import flatten_interval, show_interval
from fer_lib.params import RobustnessParams
from fer_lib.paths import OutputDirs

TONE, LIGHT = "skin_tone", "light_strength"
"""The factors whose gaps a remedy is to close."""

MEASURES = ("accuracy", "false_positive_rate", "ece")
"""Those in the metrics; with as many faces of each class, macro recall is nearly the accuracy."""


class VariantScores:
    """The answers of `robustness.audited` to faces of `variants.predict_variants`, scored.

    Raises DataError, when first asked, where that stage has not run.
    """

    def __init__(self, dirs: OutputDirs, data: PackedDataset, settings: RobustnessParams) -> None:
        self._dirs, self._data, self._settings = dirs, data, settings
        self._bootstrap = {"n_resamples": settings.n_resamples, "seed": settings.seed}
        self._permutation = {
            "n_permutations": settings.n_permutations,
            "seed": settings.seed,
            "min_faces": settings.min_faces,
        }
        self.network = settings.audited[0]

    def score_factors(self) -> dict[str, pd.DataFrame]:
        """Return factor to the rates of its groups, as `fairness.score_groups`, in order of their values."""
        found = {}
        for factor, (values, _) in FACTORS.items():
            part = self._read(self.network, factor)
            columns = (part[name].to_numpy() for name in ("label", "said", "confidence", "value", "person"))
            found[factor] = score_groups(*columns, **self._bootstrap).loc[list(map(str, values))]
        return found

    def find_gaps(self, groups: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """Return factor by gap (the largest difference in accuracy), p (Holm's) and the lowest group."""
        rows = {}
        for factor, table in groups.items():
            gap, p_value = self._measure_gap(self._read(self.network, factor))
            rows[factor] = {"gap": gap, "p": p_value, "lowest": table["accuracy"].idxmin()}
        found = pd.DataFrame.from_dict(rows, orient="index").rename_axis("factor")
        return found.assign(p=adjust_for_many(found["p"]))

    def list_pairs(self) -> pd.DataFrame:
        """Return the cells of two factors that differ most from both alone; see `list_interactions`."""
        tables = []
        for first, _, second, _ in PAIRS:
            part = self._read(self.network, f"{first}+{second}")
            values = np.array([value.split("|") for value in part["value"]])
            pair = {first.replace("_", " "): values[:, 0], second.replace("_", " "): values[:, 1]}
            answers = (part["label"].to_numpy(), part["said"].to_numpy())
            found = list_interactions(*answers, pair, part["row"].to_numpy(), **self._permutation)
            tables.append(found.head())
        return pd.concat(tables)

    def score_networks(self) -> pd.DataFrame:
        """Return network by accuracy, gap among tones, p, and the ratio of recalls as text."""
        rows = {}
        for name in self._settings.audited:
            part = self._read(name, TONE)
            gap, p_value = self._measure_gap(part)
            rows[name] = {
                "accuracy": float((part["said"] == part["label"]).mean()),
                "gap among tones": gap,
                "p": p_value,
                "recall ratio": show_interval(self.compute_ratio(name), ".2f"),
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("network")

    def compute_ratio(self, network: str) -> tuple[float, float, float]:
        """Return the lowest macro recall of a tone over the highest; see `fairness.compute_ratio`."""
        part = self._read(network, TONE)
        columns = (part[name].to_numpy() for name in ("label", "said", "value", "person"))
        return compute_ratio(*columns, **self._bootstrap)

    def compare_remedies(self) -> dict[tuple[str, str], dict[str, tuple[float, float, float]]]:
        """Return (remedy, factor) to what it changes in what it is to mend, as `fairness.compare_gaps`."""
        found = {}
        for name, before in self._settings.mitigations.items():
            for factor in (TONE, LIGHT):
                after, earlier = self._read(name, factor), self._read(before, factor)
                columns = (after[column].to_numpy() for column in ("value", "person"))
                answers = (table["said"].to_numpy() for table in (after, earlier))
                found[name, factor] = compare_gaps(
                    after["label"].to_numpy(), *answers, *columns, **self._bootstrap
                )
        return found

    def _read(self, network: str, factor: str) -> pd.DataFrame:
        return read_variants(self._dirs, self._data, network, factor)

    def _measure_gap(self, part: pd.DataFrame) -> tuple[float, float]:
        columns = (part[name].to_numpy() for name in ("label", "said", "value", "row"))
        return measure_gap(*columns, **self._permutation)


def flatten_groups(groups: Mapping[str, pd.DataFrame], gaps: pd.DataFrame) -> dict[str, float]:
    """Return `group.<factor>.gap` and `.p_value`, and `group.<factor>.<value>.<measure>` with intervals."""
    flat: dict[str, float] = {}
    for factor, row in gaps.iterrows():
        flat |= {f"group.{factor}.gap": row["gap"], f"group.{factor}.p_value": row["p"]}
    for factor, table in groups.items():
        for value, row in table.iterrows():
            for measure in MEASURES:
                interval = tuple(row[f"{measure}{end}"] for end in ("", "_lo", "_hi"))
                flat |= flatten_interval(f"group.{factor}.{value}.{measure}", interval)
    return flat


def tabulate_changes(
    changes: Mapping[tuple[str, str], Mapping[str, tuple[float, float, float]]],
    mitigations: Mapping[str, str],
) -> pd.DataFrame:
    """Return what `VariantScores.compare_remedies` found as text, one row per remedy and factor."""
    rows = {
        f"{name} – {mitigations[name]}, {factor.replace('_', ' ')}": {
            "accuracy gained": show_interval(change["accuracy"], "+.3f"),
            "gap grown by": show_interval(change["gap"], "+.3f"),
        }
        for (name, factor), change in changes.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("networks, groups")
