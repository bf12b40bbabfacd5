"""What the ablation studies came to: every arm against the reference, as a table and as metrics."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fer_lib.ablations import REFERENCE, get_predictions_path, read_predictions
from fer_lib.comparisons import compare_arms, compute_p_value, compute_shares
from fer_lib.labels import RARE_EMOTIONS, get_group_indices
from fer_lib.params import AblationsParams
from fer_lib.paths import OutputDirs

SHARES = ("accuracy", "macro_recall", *(f"recall_{name}" for name in RARE_EMOTIONS))
"""What arms are compared by; the rare emotions have columns of their own."""


def compare_studies(
    dirs: OutputDirs, settings: AblationsParams, labels: np.ndarray, emotions: Sequence[str]
) -> pd.DataFrame:
    """Return one row per study, arm and share, for the studies that have run.

    Columns: study, arm, share, value (mean over seeds), gain (arm minus reference) with its interval low to
    high, effect (Cohen's h) and p_value (of the arm's accuracy). All but the last two are 0 to 1.
    labels: int (N,) of the test faces in row order. Raises FerError when the reference has not run.
    """
    ((_, reference, _),) = read_predictions(dirs, REFERENCE)
    rows = []
    for study in settings.studies:
        if study == REFERENCE or not get_predictions_path(dirs, study).is_file():
            continue
        for arm, predictions, _ in read_predictions(dirs, study):
            values = compute_shares(labels, predictions, emotions)
            gains = compare_arms(labels, predictions, reference, emotions, settings.n_resamples, 0)
            p_value = compute_p_value(labels, predictions, reference)
            rows += [
                {
                    "study": study,
                    "arm": arm,
                    "share": share,
                    "value": values[share],
                    "gain": gains[share].value,
                    "low": gains[share].low,
                    "high": gains[share].high,
                    "effect": gains[share].effect,
                    "p_value": p_value,
                }
                for share in SHARES
                if share in values
            ]
    columns = ["study", "arm", "share", "value", "gain", "low", "high", "effect", "p_value"]
    return pd.DataFrame(rows, columns=columns)


def list_metrics(table: pd.DataFrame) -> dict[str, float]:
    """Return the table of `compare_studies` under flat keys, `<study>.<arm>.<share>.gain` and so on."""
    metrics: dict[str, float] = {}
    for row in table.itertuples():
        key = f"{row.study}.{row.arm}.{row.share}"
        metrics |= {
            key: row.value,
            f"{key}.gain": row.gain,
            f"{key}.gain_lo": row.low,
            f"{key}.gain_hi": row.high,
            f"{key}.effect": row.effect,
            f"{row.study}.{row.arm}.p_value": row.p_value,
        }
    return metrics


def select_studies(table: pd.DataFrame, *studies: str) -> pd.DataFrame:
    """Return the rows of these studies, with `arm` as a reader sees it; of several, `<study>: <arm>`."""
    rows = table[table["study"].isin(studies)]
    names = rows["study"] + ": " + rows["arm"] if len(studies) > 1 else rows["arm"]
    return rows.assign(arm=names.str.replace("_", " "))


def build_study_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm: accuracy, its gain in points with interval, h, p; then the recalls with theirs.

    rows: of `compare_studies`.
    """
    cells: dict[str, dict[str, object]] = {}
    for row in rows.itertuples():
        arm = cells.setdefault(row.arm, {})
        gain = f"{100 * row.gain:+.1f}"
        if row.share == "accuracy":
            interval = f"{gain} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
            arm |= {"accuracy": f"{row.value:.3f}", "points": interval, "h": row.effect, "p": row.p_value}
        else:
            arm[row.share.replace("_", " ")] = f"{row.value:.3f} ({gain})"
    recalls = [share.replace("_", " ") for share in SHARES[1:] if share in set(rows["share"])]
    columns = ["accuracy", "points", "h", "p", *recalls]
    return pd.DataFrame.from_dict(cells, orient="index", columns=columns).rename_axis("arm")


def measure_propagation(
    labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray, emotions: Sequence[str]
) -> dict[str, float]:
    """Return how errors of the coarse decision (positive / negative / neutral) reach the fine one.

    labels: int (N,).   predictions, groups: int (S, N), emotion and group, one row per seed.
    coarse_accuracy; fine_given_coarse, the accuracy where the group is right; inherited, the share of all
    wrong emotions whose group was wrong already; all over seeds and faces together.
    """
    right_group = groups == np.asarray(get_group_indices(list(emotions)))[labels]
    right = predictions == labels
    return {
        "coarse_accuracy": float(right_group.mean()),
        "fine_given_coarse": float(right[right_group].mean()),
        "inherited": float((~right_group[~right]).mean()),
    }


def describe_clear(rows: pd.DataFrame, share: str) -> str:
    """Return a sentence that lists the arms whose gain in `share` is clear: its interval leaves out 0.

    The largest come first. rows: of `select_studies`.
    """
    rows = rows[rows["share"] == share].sort_values("gain", key=abs, ascending=False)
    subject, parts = share.replace("_", " "), []
    for verb, clear in (("raised", rows[rows["low"] > 0]), ("lowered", rows[rows["high"] < 0])):
        arms = [f"{row.arm} ({100 * row.gain:+.1f} points)" for row in clear.itertuples()]
        if arms:
            parts.append(f"clearly {verb} by {', '.join(arms)}")
    if not parts:
        return f"No arm changes {subject} clearly."
    return f"{subject.capitalize()} is {', and '.join(parts)}."
