"""How a network treats groups of faces: rates by group, the largest gap, and whether chance explains it.

Drawn faces know their factors, and are drawn again with one of them changed: the same faces in every group.
Photographs carry no such labels and none are guessed; `measure_proxies` says what a picture itself shows.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import pandas as pd

from fer_lib.resampling import ECE_BINS, assign_bins, compute_intervals, draw_weights

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

    Under the null hypothesis the group says nothing about being right. Where every block (N,), such as a face
    drawn in each tone, holds several groups, groups are exchanged within blocks; else whole blocks, such as
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
    is_within = pd.Series(codes).groupby(members).nunique().max() > 1
    first = np.unique(members, return_index=True)[1]
    as_large = 0
    for _ in range(n_permutations):
        if is_within:
            order = np.lexsort((rng.random(len(codes)), members))
            sorted_ = np.argsort(members, kind="stable")
            assigned = np.empty_like(codes)
            assigned[sorted_] = codes[order]
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


def list_interactions(
    labels: np.ndarray, said: np.ndarray, factors: Mapping[str, np.ndarray], min_faces: int
) -> pd.DataFrame:
    """Return pairs of groups whose accuracy differs most from what their two factors alone would give.

    Columns: first, second, n, accuracy, expected (the sum of both factors' own effects), excess (points);
    the largest excess first. Cells of fewer faces are left out.
    """
    right = (said == labels).astype(float)
    mean, rows = right.mean(), []
    names = list(factors)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            frame = pd.DataFrame({"a": factors[first], "b": factors[second], "right": right})
            alone = {key: frame.groupby(key)["right"].mean() - mean for key in ("a", "b")}
            for (a, b), cell in frame.groupby(["a", "b"])["right"]:
                if len(cell) >= min_faces:
                    expected = float(np.clip(mean + alone["a"][a] + alone["b"][b], 0, 1))
                    rows.append((f"{first} {a}", f"{second} {b}", len(cell), cell.mean(), expected))
    table = pd.DataFrame(rows, columns=["first", "second", "n", "accuracy", "expected"])
    table["excess"] = 100 * (table["accuracy"] - table["expected"])
    return table.reindex(table["excess"].abs().sort_values(ascending=False, kind="stable").index)


def measure_proxies(faces: Sequence[np.ndarray], landmarks: np.ndarray) -> pd.DataFrame:
    """Return what pictures show of themselves, one row per face; none of it says who or what a person is.

    luminance: mean grey level (0 to 255) of the nose and cheeks, of skin and light together.   sharpness:
    variance of the Laplacian.   size: eye distance as a share of the side.   yaw: how far the nose's tip is
    off the middle of the eyes, in eye distances.   roll: degrees.   landmarks: (N, 5, 2), shares of the side.
    """
    rows = []
    for face, points in zip(faces, landmarks, strict=True):
        grey = face if face.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(face), cv2.COLOR_RGB2GRAY)
        side, middle = grey.shape[0], points[:2].mean(axis=0)
        across = points[1] - points[0]
        distance = max(float(np.hypot(*across)), 1e-3)
        reach = distance * side / 2
        x, y = points[2] * side
        patch = grey[
            max(0, int(y - reach / 2)) : int(y + reach / 2) + 1, max(0, int(x - reach)) : int(x + reach) + 1
        ]
        rows.append(
            {
                "luminance": float(patch.mean()) if patch.size else float(grey.mean()),
                "sharpness": float(cv2.Laplacian(np.ascontiguousarray(grey), cv2.CV_64F).var()),
                "size": distance,
                "yaw": abs(float((points[2] - middle) @ across)) / distance**2,
                "roll": abs(float(np.degrees(np.arctan2(across[1], across[0])))),
            }
        )
    return pd.DataFrame(rows)


def cut_quintiles(values: pd.Series) -> np.ndarray:
    """Return int (N,) from 1 to 5: the fifth of the faces in which each value lies."""
    ranks = values.rank(method="first")
    return (np.ceil(5 * ranks / len(values))).astype(int).to_numpy()


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
