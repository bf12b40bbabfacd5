"""What the ablation studies came to: every arm against the reference, as a table and as metrics."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fer_lib.ablations import ENSEMBLE, REFERENCE, VOTE, get_predictions_path, read_predictions
from fer_lib.comparisons import compare_arms, compute_p_value, compute_shares
from fer_lib.labels import RARE_EMOTIONS, get_group_indices
from fer_lib.packed import PackedDataset
from fer_lib.params import AblationsParams
from fer_lib.paths import OutputDirs
from fer_lib.plots_study import plot_differences
from fer_lib.reporting import Stage

SHARES = ("accuracy", "macro_recall", *(f"recall_{name}" for name in RARE_EMOTIONS))
"""What arms are compared by; the rare emotions have columns of their own."""

DUPLICATES, DUPLICATES_UNSEEN, VOTE_OVER = "duplicates", "duplicates_unseen", "vote_over"
"""A study, and two that `compare_studies` makes."""


def compare_studies(dirs: OutputDirs, settings: AblationsParams, data: PackedDataset) -> pd.DataFrame:
    """Return one row per study, arm and share, for the studies that have run.

    Columns: study, arm, share, value (mean over seeds), gain (arm minus reference) with its interval low to
    high and its p_value, effect (Cohen's h), and mcnemar, the p-value of McNemar's test of the accuracy, for
    which each face is another person's. A study that has a reference of its own is compared with that. Two
    studies are made from others: `vote_over`, the soft vote minus each other arm of `ensemble`, with that
    arm's value; `duplicates_unseen`, the arms of `duplicates` on the test faces without a copy in training.
    Raises FerError when the reference has not run, or a study was run on other faces.
    """
    rows = data.get_rows("test")
    every_face = np.full(len(rows), fill_value=True)
    reference = _read_arms(dirs, REFERENCE, data)[REFERENCE]
    pairs = []  # study, arm, its predictions, those that it is compared with, the faces that count
    for study in settings.studies:
        if study == REFERENCE or not get_predictions_path(dirs, study).is_file():
            continue
        arms = _read_arms(dirs, study, data)
        own = arms.pop(REFERENCE, reference)
        pairs += [(study, arm, said, own, every_face) for arm, said in arms.items()]
        if study == DUPLICATES:
            unseen = np.isin(rows, data.get_rows("test", drop_duplicates_of="train"))
            pairs += [(DUPLICATES_UNSEEN, arm, said, own, unseen) for arm, said in arms.items()]
        if study == ENSEMBLE:
            vote = arms.pop(VOTE)
            pairs += [(VOTE_OVER, arm, vote, said, every_face) for arm, said in arms.items()]
    found = []
    for study, arm, a, b, faces in pairs:
        labels, a, b = data.labels[rows[faces]], a[:, faces], b[:, faces]
        values = compute_shares(labels, b if study == VOTE_OVER else a, data.emotions)
        persons = data.persons[rows[faces]]
        gains = compare_arms(labels, a, b, data.emotions, settings.n_resamples, 0, persons)
        mcnemar = compute_p_value(labels, a, b)
        for share in [share for share in SHARES if share in values]:
            gain = gains[share]
            bounds = gain.value, gain.low, gain.high
            found.append((study, arm, share, values[share], *bounds, gain.p_value, gain.effect, mcnemar))
    columns = ["study", "arm", "share", "value", "gain", "low", "high", "p_value", "effect", "mcnemar"]
    return pd.DataFrame(found, columns=columns)


def _read_arms(dirs: OutputDirs, study: str, data: PackedDataset) -> dict[str, np.ndarray]:
    return {arm: emotions for arm, emotions, _ in read_predictions(dirs, study, data)}


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
            f"{key}.p_value": row.p_value,
            f"{key}.effect": row.effect,
            f"{row.study}.{row.arm}.mcnemar": row.mcnemar,
        }
    return metrics


def score_reference(labels: np.ndarray, predictions: np.ndarray, emotions: Sequence[str]) -> pd.DataFrame:
    """Return the shares of one arm, as a reader sees them: `mean` over seeds, then one column per seed.

    labels: int (N,).   predictions: int (S, N).
    """
    scored = {"mean": predictions} | dict(enumerate(predictions[:, None]))
    shares = pd.DataFrame({name: compute_shares(labels, said, emotions) for name, said in scored.items()})
    shares = shares.loc[[share for share in SHARES if share in shares.index]]
    return shares.rename(index=lambda share: share.replace("_", " ")).rename_axis("reference")


def select_studies(table: pd.DataFrame, *studies: str) -> pd.DataFrame:
    """Return the rows of these studies, with `arm` as a reader sees it; of several, `<study>: <arm>`."""
    rows = table[table["study"].isin(studies)]
    names = rows["study"] + ": " + rows["arm"] if len(studies) > 1 else rows["arm"]
    return rows.assign(arm=names.str.replace("_", " "))


def show_studies(
    stage: Stage, table: pd.DataFrame, *studies: str, name: str, caption: str, against: str = "the reference"
) -> None:
    """Show the arms of these studies as figure `name` and as a table, or say that there are none.

    table: of `compare_studies`.
    """
    rows = select_studies(table, *studies)
    if rows.empty:
        stage.show_text("None of these arms was trained on this data set.")
        return
    title = f"{caption}, against {against}"
    figure = plot_differences(rows, SHARES)
    stage.show_figure(figure, name, f"{title}: gains in points with 95 % intervals, clear ones filled.")
    formats = {"h": "+.2f", "p": ".2g", "McNemar": ".2g"}
    stage.show_table(build_study_table(rows), f"{title}; in parentheses the gain in points.", formats)


def build_study_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm: accuracy, its gain in points with interval, p and h, McNemar's p; recalls.

    rows: of `compare_studies`.
    """
    cells: dict[str, dict[str, object]] = {}
    for row in rows.itertuples():
        arm = cells.setdefault(row.arm, {})
        gain = f"{100 * row.gain:+.1f}"
        if row.share == "accuracy":
            interval = f"{gain} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
            arm |= {
                "accuracy": f"{row.value:.3f}",
                "points": interval,
                "p": row.p_value,
                "h": row.effect,
                "McNemar": row.mcnemar,
            }
        else:
            arm[row.share.replace("_", " ")] = f"{row.value:.3f} ({gain})"
    recalls = [share.replace("_", " ") for share in SHARES[1:] if share in set(rows["share"])]
    columns = ["accuracy", "points", "p", "h", "McNemar", *recalls]
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
        "inherited": float((~right_group & ~right).sum() / max(1, (~right).sum())),
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
