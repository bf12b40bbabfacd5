"""Compare how a network treats groups of faces: rates, the largest gap, and whether chance explains it.

Of N faces, labels and pred, int (N,), are true and predicted classes; is_correct, bool (N,), says where they
agree; groups, (N,), names the group of each. Faces of equal blocks, (N,), belong together: one face drawn in
every group, or those of a person. Photographs are grouped by what an image itself shows.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import cv2
import numpy as np
import pandas as pd

from fer_lib.evaluation.bootstrap import (
    ECE_BINS,
    Bootstrap,
    assign_bins,
    average,
    average_defined,
    summarise_draws,
    summarise_unsigned,
)
from fer_lib.intervals import Interval

MEASURES = ("accuracy", "macro_recall", "false_positive_rate", "ece")

NO_FACE = "no landmarks"
"""The group of images in which the detector found no landmarks, where the proxy rests on these."""

N_FIFTHS = 5
MAX_GROUPS = 10
"""A factor with more values is cut into fifths."""


def score_groups(
    labels: np.ndarray,
    pred: np.ndarray,
    confidence: np.ndarray,
    groups: np.ndarray,
    bootstrap: Bootstrap,
    min_faces: int = 1,
) -> pd.DataFrame:
    """Return one row per group of `min_faces` or more: n, and each of `MEASURES` as `Interval`.

    The false-positive rate is the mean over classes of how often a face of another class is predicted as it.
    confidence: float (N,), the probability of the predicted class.
    """
    sizes = {str(name): int(n) for name, n in pd.Series(groups).value_counts().items()}
    names = sorted((name for name in sizes if sizes[name] >= min_faces), key=lambda name: (len(name), name))
    if not names:
        return pd.DataFrame(columns=["n", *MEASURES])
    drawn = _score_groups(labels, pred, confidence, [groups == name for name in names], bootstrap)
    columns = {
        measure: [(summarise_unsigned if measure == "ece" else summarise_draws)(of) for of in drawn[..., i].T]
        for i, measure in enumerate(MEASURES)
    }
    index = pd.Index(names, name="group")
    return pd.DataFrame({"n": [sizes[name] for name in names]} | columns, index=index)


def tabulate_rates(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return accuracy, false-positive rate and ECE of `score_groups` as text, a row per group of a factor."""
    formats = {"accuracy": ".1%", "false_positive_rate": ".1%", "ece": ".3f"}
    titles = {"false_positive_rate": "false positive rate", "ece": "ECE"}
    rates = pd.concat(tables)
    rates = pd.DataFrame(
        {titles.get(key, key): rates[key].map(f"{{:{spec}}}".format) for key, spec in formats.items()}
    )
    names = [f"{factor} {group}".replace("_", " ") for factor, group in rates.index]
    return rates.set_axis(names).rename_axis("group")


def measure_gap(
    is_correct: np.ndarray,
    groups: np.ndarray,
    blocks: np.ndarray,
    n_permutations: int,
    seed: int,
    min_faces: int = 1,
) -> tuple[float, float]:
    """Return the largest difference in accuracy between two groups, and the p-value of a permutation test.

    Under the null hypothesis the group says nothing about being correct. Where most blocks hold several
    groups, groups are exchanged within blocks; else whole blocks exchange their groups. Groups of fewer faces
    do not count. p is (1 + as large) / (1 + drawn).
    """
    names, codes = np.unique(groups, return_inverse=True)
    members = np.unique(blocks, return_inverse=True)[1]
    counted = np.flatnonzero(np.bincount(codes) >= min_faces)
    if len(counted) < 2:
        return 0.0, 1.0

    def find_gap(assigned: np.ndarray) -> float:
        sizes = np.maximum(np.bincount(assigned, minlength=len(names)), 1)
        means = np.bincount(assigned, is_correct, len(names)) / sizes
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


def compute_ratio(labels: np.ndarray, pred: np.ndarray, groups: np.ndarray, bootstrap: Bootstrap) -> Interval:
    """Return the lowest macro recall of a group over the highest.

    The four-fifths rule (29 CFR 1607.4) asks for 0.8. A minimum over a maximum of noisy rates is biased down.
    """
    unsure = np.zeros(len(labels))  # the confidence does not enter the recall
    rates = _score_groups(labels, pred, unsure, [groups == name for name in np.unique(groups)], bootstrap)
    recalls = rates[..., MEASURES.index("macro_recall")]
    lowest, highest = np.nanmin(recalls, axis=1), np.nanmax(recalls, axis=1)
    # Where no group has anything correct, none is worse off.
    ratios = np.divide(lowest, highest, out=np.ones_like(lowest), where=highest > 0)
    return summarise_draws(ratios)


def compare_gaps(
    is_correct: np.ndarray, was_correct: np.ndarray, groups: np.ndarray, bootstrap: Bootstrap
) -> dict[str, Interval]:
    """Return what changes from another network's predictions, `was_correct`, on the same faces.

    `accuracy`: the gain.   `gap`: the growth of the largest difference in accuracy between two groups.
    """
    members = [groups == name for name in np.unique(groups)]

    def score(correct: np.ndarray, weights: np.ndarray) -> np.ndarray:
        by_group = np.stack([average(correct, weights * member) for member in members])
        gap = np.nanmax(by_group, axis=0) - np.nanmin(by_group, axis=0)
        return np.column_stack([average(correct, weights), gap])

    now, before = is_correct.astype(float), was_correct.astype(float)
    drawn = bootstrap.score(lambda weights: score(now, weights) - score(before, weights))
    return {"accuracy": summarise_draws(drawn[:, 0]), "gap": summarise_draws(drawn[:, 1])}


def tabulate_gaps(gaps: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """Return grouping by gap and p of `measure_gap`, valid although several were looked at (Holm 1979)."""
    table = pd.DataFrame.from_dict(dict(gaps), orient="index", columns=["gap", "p"]).rename_axis("grouping")
    ordered = table["p"].sort_values()
    return table.assign(p=(ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1))


def list_interactions(
    is_correct: np.ndarray,
    factors: Mapping[str, np.ndarray],
    blocks: np.ndarray,
    min_faces: int,
    n_permutations: int,
    seed: int,
) -> pd.DataFrame:
    """Return pairs of groups whose accuracy differs from what their two factors alone would give.

    The largest excess first: first, second, n, accuracy, expected (least squares of both factors' own
    effects), excess (points), p (that of the largest excess of all that are listed). Residuals are exchanged
    within blocks (Freedman and Lane 1983). Cells of fewer faces are left out.
    """
    correct, rows, makers, residuals = is_correct.astype(float), [], [], []
    for first, second in combinations(factors, 2):
        design = np.hstack([pd.get_dummies(factors[name]).to_numpy(float) for name in (first, second)])
        inverse = np.linalg.pinv(design, rcond=1e-9)  # both factors sum to one: a rank is missing
        fitted = design @ (inverse @ correct)
        pairs = pd.DataFrame({"a": factors[first], "b": factors[second]}).groupby(["a", "b"]).indices
        cells: dict[Any, Any] = {p: inside for p, inside in pairs.items() if len(inside) >= min_faces}
        means = np.zeros((len(cells), len(correct)))
        for row, ((a, b), inside) in zip(means, cells.items(), strict=True):
            row[inside] = 1 / len(inside)
            rates = correct[inside].mean(), fitted[inside].mean()
            rows.append((f"{first} {a}", f"{second} {b}", len(inside), *rates))
        makers.append(means - (means @ design) @ inverse)
        residuals.append(correct - fitted)
    table = pd.DataFrame(rows, columns=["first", "second", "n", "accuracy", "expected"])
    table["excess"] = 100 * (table["accuracy"] - table["expected"])
    rng, largest = np.random.default_rng(seed), np.zeros(n_permutations)
    for draw in range(n_permutations):
        order = _exchange_within(rng, blocks)
        excesses = [np.abs(make @ rest[order]) for make, rest in zip(makers, residuals, strict=True)]
        largest[draw] = 100 * np.concatenate(excesses).max(initial=0)
    sizes = table["excess"].abs()
    table["p"] = [(1 + (largest >= size - 1e-9).sum()) / (1 + n_permutations) for size in sizes]
    return table.reindex(sizes.sort_values(ascending=False, kind="stable").index)


def measure_proxies(faces: Sequence[np.ndarray], landmarks: np.ndarray, is_found: np.ndarray) -> pd.DataFrame:
    """Return what images show of themselves, one row per face; none of it says who or what a person is.

    luminance: mean grey level (0 to 255) about the nose, of skin and light together.   sharpness: variance
    of the Laplacian.   size: eye distance as a share of the side.   yaw: how far the nose's tip is off the
    middle of the eyes, in eye distances.   roll: tilt of the eyes, degrees. Size, yaw and roll are NaN where
    the landmarks were not found. faces: uint8 (H, W) or (H, W, 3); the others as `explain.locate_landmarks`.
    """
    rows = []
    for face, points, known in zip(faces, landmarks, is_found, strict=True):
        grey = face if face.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(face), cv2.COLOR_RGB2GRAY)
        side, middle = grey.shape[0], points[:2].mean(axis=0)
        across = points[1] - points[0]
        distance = max(float(np.hypot(*across)), 1e-3)
        reach = distance * side / 2
        x, y = points[2] * side
        rows_about = slice(max(0, int(y - reach / 2)), int(y + reach / 2) + 1)
        patch = grey[rows_about, max(0, int(x - reach)) : int(x + reach) + 1]
        rows.append(
            {
                "luminance": float(patch.mean()) if patch.size else float(grey.mean()),
                "sharpness": float(cv2.Laplacian(np.ascontiguousarray(grey), cv2.CV_64F).var()),
                "size": distance if known else np.nan,
                "yaw": abs(float((points[2] - middle) @ across)) / distance**2 if known else np.nan,
                "roll": abs(float(np.degrees(np.arctan2(across[1], across[0])))) if known else np.nan,
            }
        )
    return pd.DataFrame(rows)


def cut_quintiles(values: pd.Series, seed: int) -> np.ndarray:
    """Return the fifth of the known values in which each lies, "1" to "5", or `NO_FACE`, as text (N,).

    Equal values are put in an order drawn by the seed, since files come sorted by class.
    """
    known = np.flatnonzero(values.notna())
    shuffled = np.random.default_rng(seed).permutation(known)
    ordered = shuffled[np.argsort(values.to_numpy()[shuffled], kind="stable")]
    fifths = np.full(len(values), NO_FACE, dtype=object)
    fifths[ordered] = (1 + N_FIFTHS * np.arange(len(known)) // max(1, len(known))).astype(str)
    return fifths.astype(str)


def group_factors(factors: pd.DataFrame, seed: int) -> dict[str, np.ndarray]:
    """Return the groups, str (N,), by each factor that is known of drawn faces: its values, or fifths."""
    few = factors.columns[factors.nunique() <= MAX_GROUPS]
    return {
        str(name): values.astype(str).to_numpy() if name in few else cut_quintiles(values, seed)
        for name, values in factors.items()
    }


def _exchange_within(rng: np.random.Generator, blocks: np.ndarray) -> np.ndarray:
    """Return an order, int (N,), that exchanges at random what is in the same block."""
    order = np.empty(len(blocks), np.int64)
    order[np.argsort(blocks, kind="stable")] = np.lexsort((rng.random(len(blocks)), blocks))
    return order


def _score_groups(
    labels: np.ndarray,
    pred: np.ndarray,
    confidence: np.ndarray,
    members: Sequence[np.ndarray],
    bootstrap: Bootstrap,
) -> np.ndarray:
    """Return float (1 + R, G, 4): `MEASURES` of groups, bool (N,) each; NaN where none was drawn."""
    scorers = [_build_scorer(labels[member], pred[member], confidence[member]) for member in members]
    pairs = list(zip(scorers, members, strict=True))
    return bootstrap.score(lambda weights: np.stack([score(weights[:, m]) for score, m in pairs], axis=1))


def _build_scorer(
    labels: np.ndarray, pred: np.ndarray, confidence: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    n_classes = int(max(labels.max(), pred.max())) + 1
    is_correct = (pred == labels).astype(float)
    truth, predicted = np.eye(n_classes)[labels], np.eye(n_classes)[pred]
    present = truth.any(axis=0)
    gaps = np.eye(ECE_BINS)[assign_bins(confidence, ECE_BINS)] * (is_correct - confidence)[:, None]

    def score(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            total = weights.sum(axis=1)
            actual = weights @ truth
            recall = weights @ (truth * is_correct[:, None]) / actual
            false = weights @ (predicted * (1 - is_correct)[:, None]) / (total[:, None] - actual)
            ece = np.abs(weights @ gaps).sum(axis=1) / total
            accuracy = weights @ is_correct / total
        macros = [average_defined(rates[:, present]) for rates in (recall, false)]
        return np.column_stack([accuracy, *macros, ece])

    return score
