"""How a network treats groups of faces: rates by group, the largest gap, and whether chance explains it.

Drawn faces know their factors, and are drawn again with one of them changed: the same faces in every group.
Photographs carry no such labels and none are guessed; `proxies` says what a picture itself shows.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fer_lib.evaluation.bootstrap import ECE_BINS, assign_bins, compute_intervals, draw_weights
from fer_lib.metrics_file import show_interval

MEASURES = ("accuracy", "macro_recall", "false_positive_rate", "ece")


def score_groups(
    labels: np.ndarray,
    said: np.ndarray,
    confidence: np.ndarray,
    groups: np.ndarray,
    clusters: np.ndarray,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return one row per group: n, and each of `MEASURES` with `_lo` and `_hi`, 95 % intervals.

    labels, said: int (N,), the right class and the one named.   confidence: float (N,), its probability.
    groups: (N,) any values.   clusters: (N,), faces with equal values, as of one person, are resampled
    together. The false-positive rate is the mean over classes of how often a face of another is given this.
    """
    names = np.unique(groups)
    weights = np.concatenate(list(draw_weights(len(labels), n_resamples, seed, clusters)))
    rows = []
    for name in names:
        chosen = groups == name
        parts = labels[chosen], said[chosen], confidence[chosen]
        values = _score(*parts, np.ones((1, chosen.sum())))[0]
        intervals = compute_intervals(list(MEASURES), _score(*parts, weights[:, chosen]), 0.95)
        row = {"group": name, "n": int(chosen.sum())}
        for measure, value in zip(MEASURES, values, strict=True):
            low, high = intervals.get(measure, (np.nan, np.nan))
            row |= {measure: value, f"{measure}_lo": low, f"{measure}_hi": high}
        rows.append(row)
    return pd.DataFrame(rows).set_index("group")


def tabulate_rates(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return accuracy, false-positive rate and ECE of `score_groups` as text, a row per group of a factor."""
    rows = {}
    for factor, table in tables.items():
        for group, row in table.iterrows():
            cells = {
                measure.replace("_", " ").replace("ece", "ECE"): show_interval(
                    (row[measure], row[f"{measure}_lo"], row[f"{measure}_hi"]), ".2f"
                )
                for measure in MEASURES
                if measure != "macro_recall"
            }
            rows[f"{factor} {group}".replace("_", " ")] = cells
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("group")


def measure_gap(
    labels: np.ndarray,
    said: np.ndarray,
    groups: np.ndarray,
    blocks: np.ndarray,
    n_permutations: int,
    seed: int,
    min_faces: int = 1,
) -> tuple[float, float]:
    """Return the largest difference in accuracy between two groups, and the p-value of a permutation test.

    Under the null hypothesis the group says nothing about being right. Where most blocks (N,), such as a face
    drawn in each tone, hold several groups, groups are exchanged within blocks; else whole blocks, such as
    persons, exchange their groups. Groups of fewer faces do not count. p is (1 + as large) / (1 + drawn).
    """
    right = (said == labels).astype(float)
    names, codes = np.unique(groups, return_inverse=True)
    members = np.unique(blocks, return_inverse=True)[1]
    counted = np.flatnonzero(np.bincount(codes) >= min_faces)
    if len(counted) < 2:
        return 0.0, 1.0

    def find_gap(assigned: np.ndarray) -> float:
        means = np.bincount(assigned, right, len(names)) / np.maximum(
            np.bincount(assigned, minlength=len(names)), 1
        )
        return float(np.ptp(means[counted]))

    rng, observed = np.random.default_rng(seed), find_gap(codes)
    n_in_block = np.bincount(np.unique(members * len(names) + codes) // len(names))
    is_within = np.mean(n_in_block > 1) > 0.5
    first = np.unique(members, return_index=True)[1]
    as_large = 0
    for _ in range(n_permutations):
        if is_within:
            assigned = codes[_exchange_within(rng, members)]
        else:
            assigned = rng.permutation(codes[first])[members]
        as_large += find_gap(assigned) >= observed - 1e-12
    return observed, (1 + as_large) / (1 + n_permutations)


def compute_ratio(
    labels: np.ndarray,
    said: np.ndarray,
    groups: np.ndarray,
    clusters: np.ndarray,
    n_resamples: int,
    seed: int,
) -> tuple[float, float, float]:
    """Return the lowest macro recall of a group over the highest, with its 95 % interval.

    The four-fifths rule (29 CFR 1607.4) asks for 0.8. A minimum over a maximum of noisy rates is biased down.
    """
    names = np.unique(groups)
    weights = np.concatenate(list(draw_weights(len(labels), n_resamples, seed, clusters)))
    place = MEASURES.index("macro_recall")
    once = np.ones((1, len(labels)))
    unsure = np.zeros(len(labels))  # the confidence says nothing of the recall
    found = {
        is_drawn: np.stack(
            [
                _score(labels[chosen], said[chosen], unsure[chosen], w[:, chosen])[:, place]
                for chosen in (groups == name for name in names)
            ]
        )
        for is_drawn, w in {False: once, True: weights}.items()
    }
    ratios = {}
    for key, values in found.items():
        lowest, highest = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        # Where no group has anything right, none is worse off.
        ratios[key] = np.divide(lowest, highest, out=np.ones_like(lowest), where=highest > 0)
    low, high = np.nanquantile(ratios[True], [0.025, 0.975])
    return float(ratios[False][0]), float(low), float(high)


def compare_gaps(
    labels: np.ndarray,
    said: np.ndarray,
    before: np.ndarray,
    groups: np.ndarray,
    clusters: np.ndarray,
    n_resamples: int,
    seed: int,
) -> dict[str, tuple[float, float, float]]:
    """Return what changes from the answers `before` to `said` on the same faces, with 95 % intervals.

    `accuracy`: the gain.   `gap`: the growth of the largest difference in accuracy between two groups.
    """
    names, codes = np.unique(groups, return_inverse=True)
    member = np.eye(len(names))[codes]
    drawn = np.concatenate(list(draw_weights(len(labels), n_resamples, seed, clusters)))
    weights = np.concatenate([np.ones((1, len(labels))), drawn])
    found = []
    for named in (said, before):
        right = (named == labels).astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            by_group = weights @ (member * right[:, None]) / (weights @ member)
        gap = np.nanmax(by_group, axis=1) - np.nanmin(by_group, axis=1)
        found.append({"accuracy": weights @ right / weights.sum(axis=1), "gap": gap})
    return {
        name: (float(change[0]), *map(float, np.quantile(change[1:], [0.025, 0.975])))
        for name, change in ((name, found[0][name] - found[1][name]) for name in found[0])
    }


def adjust_for_many(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values that stay valid although several were looked at (Holm 1979)."""
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def list_interactions(
    labels: np.ndarray,
    said: np.ndarray,
    factors: Mapping[str, np.ndarray],
    blocks: np.ndarray,
    min_faces: int,
    n_permutations: int,
    seed: int,
) -> pd.DataFrame:
    """Return pairs of groups whose accuracy differs from what their two factors alone would give.

    Columns: first, second, n, accuracy, expected (least squares of both factors' own effects), excess
    (points), p; the largest excess first. p is that of the largest excess of all that are listed; for it
    residuals are exchanged within blocks, int (N,), such as a face's variants (Freedman and Lane 1983). Cells
    of fewer faces are left out.
    """
    right, rows, makers, residuals = (said == labels).astype(float), [], [], []
    names = list(factors)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            design = np.hstack([pd.get_dummies(factors[name]).to_numpy(float) for name in (first, second)])
            inverse = np.linalg.pinv(design, rcond=1e-9)  # both factors sum to one: a rank is missing
            fitted = design @ (inverse @ right)
            cells = pd.DataFrame({"a": factors[first], "b": factors[second]}).groupby(["a", "b"]).indices
            cells = {pair: inside for pair, inside in cells.items() if len(inside) >= min_faces}
            means = np.zeros((len(cells), len(right)))
            for row, ((a, b), inside) in zip(means, cells.items(), strict=True):
                row[inside] = 1 / len(inside)
                rows.append(
                    (
                        f"{first} {a}",
                        f"{second} {b}",
                        len(inside),
                        right[inside].mean(),
                        fitted[inside].mean(),
                    )
                )
            makers.append(means - (means @ design) @ inverse)
            residuals.append(right - fitted)
    table = pd.DataFrame(rows, columns=["first", "second", "n", "accuracy", "expected"])
    table["excess"] = 100 * (table["accuracy"] - table["expected"])
    rng, largest = np.random.default_rng(seed), np.zeros(n_permutations)
    for draw in range(n_permutations):
        order = _exchange_within(rng, blocks)
        excesses = [np.abs(make @ rest[order]) for make, rest in zip(makers, residuals, strict=True)]
        largest[draw] = 100 * np.concatenate(excesses).max(initial=0)
    sizes = table["excess"].abs().to_numpy()
    table["p"] = [(1 + (largest >= size - 1e-9).sum()) / (1 + n_permutations) for size in sizes]
    return table.reindex(table["excess"].abs().sort_values(ascending=False, kind="stable").index)


def _exchange_within(rng: np.random.Generator, blocks: np.ndarray) -> np.ndarray:
    """Return an order, int (N,), that exchanges at random what is in the same block."""
    order = np.empty(len(blocks), np.int64)
    order[np.argsort(blocks, kind="stable")] = np.lexsort((rng.random(len(blocks)), blocks))
    return order


def _score(labels: np.ndarray, said: np.ndarray, confidence: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return float (R, 4) of `MEASURES` for weights (R, N); NaN where a resample drew no face."""
    n_classes = int(max(labels.max(), said.max())) + 1
    right = (said == labels).astype(float)
    truth, named = np.eye(n_classes)[labels], np.eye(n_classes)[said]
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weights.sum(axis=1)
        actual, hits = weights @ truth, weights @ (truth * right[:, None])
        recall = hits / actual
        false = weights @ (named * (1 - right)[:, None]) / (total[:, None] - actual)
        bins = np.eye(ECE_BINS)[assign_bins(confidence, ECE_BINS)]
        ece = np.abs(weights @ (bins * (right - confidence)[:, None])).sum(axis=1) / total
        present = (actual > 0).any(axis=0)
        return np.column_stack(
            [weights @ right / total, _mean(recall[:, present]), _mean(false[:, present]), ece]
        )


def _mean(values: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0).sum(axis=1)
    return np.divide(total, defined.sum(axis=1), out=np.full(len(values), np.nan), where=defined.any(axis=1))
