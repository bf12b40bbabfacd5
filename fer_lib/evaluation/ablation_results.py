"""What the ablation studies came to: every arm against the reference, as a table and as metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fer_lib.data.packed import PackedDataset
from fer_lib.evaluation.ablations import ENSEMBLE, REFERENCE, VOTE, get_predictions_path, read_predictions
from fer_lib.evaluation.comparisons import compare_arms, compute_p_value, compute_shares
from fer_lib.evaluation.votes import NO_LABEL, label_by_majority
from fer_lib.labels import RARE_EMOTIONS, get_group_indices
from fer_lib.params import AblationsParams
from fer_lib.paths import OutputDirs
from fer_lib.reporting.figures.studies import plot_differences
from fer_lib.reporting.stage import Stage
from fer_lib.training.targets import has_votes

SHARES = ("accuracy", "macro_recall", *(f"recall_{name}" for name in RARE_EMOTIONS))
"""What arms are compared by; the rare emotions have columns of their own."""

DUPLICATES, TARGETS, LOSS = "duplicates", "targets", "loss"
DUPLICATES_UNSEEN, TARGETS_CROWD, STACKED, VOTE_OVER = (
    "duplicates_unseen",
    "targets_crowd",
    "stacked",
    "vote_over",
)
"""Studies, and those that `compare_studies` makes of them."""

N_NAMED = 4
"""So many arms a sentence names for each direction; the tables have them all."""

SAMPLER, BOTH = "cross_entropy_sampler", "_sampler"
"""The arm of study `loss` with the weighted sampler alone; how the arms of that and another loss end."""


@dataclass(frozen=True)
class _Pair:
    """What is compared: predictions (S, N) of an arm, and those against it, by labels (N,) or `NO_LABEL`."""

    study: str
    arm: str
    said: np.ndarray
    against: np.ndarray
    labels: np.ndarray


def compare_studies(dirs: OutputDirs, settings: AblationsParams, data: PackedDataset) -> pd.DataFrame:
    """Return one row per study, arm and share, for the studies that have run.

    Columns: study, arm, share, value (mean over seeds), gain (arm minus reference) with its interval low to
    high and its p_value, effect (Cohen's h), and mcnemar, the p-value of McNemar's test of the accuracy, for
    which each face is another person's. A study that has a reference of its own is compared with that.
    Studies are made from others: `vote_over`, the soft vote minus each other arm of `ensemble`, with that
    arm's value; `duplicates_unseen`, the arms of `duplicates` on the test faces without a copy in training;
    `targets_crowd`, those of `targets` judged by the majority of FER+'s votes; `stacked`, each loss with the
    weighted sampler minus the same loss without it, and minus the sampler alone.
    Raises FerError when the reference has not run, or a study was run on other faces.
    """
    rows = data.get_rows("test")
    labels, persons = data.labels[rows], data.persons[rows]
    reference = _read_arms(dirs, REFERENCE, data)[REFERENCE]
    pairs: list[_Pair] = []
    for study in settings.studies:
        if study == REFERENCE or not get_predictions_path(dirs, study).is_file():
            continue
        arms = _read_arms(dirs, study, data)
        own = arms.pop(REFERENCE, reference)
        pairs += [_Pair(study, arm, said, own, labels) for arm, said in arms.items()]
        if study == DUPLICATES:
            unseen = np.isin(rows, data.get_rows("test", drop_duplicates_of="train"))
            judged = np.where(unseen, labels, NO_LABEL)
            pairs += [_Pair(DUPLICATES_UNSEEN, arm, said, own, judged) for arm, said in arms.items()]
        if study == TARGETS and has_votes(data.index):
            crowd = label_by_majority(data.take(rows).index, len(data.emotions))
            pairs += [_Pair(TARGETS_CROWD, arm, said, own, crowd) for arm, said in arms.items()]
        if study == LOSS:
            pairs += _stack(arms, labels)
        if study == ENSEMBLE:
            vote = arms.pop(VOTE)
            pairs += [_Pair(VOTE_OVER, arm, vote, said, labels) for arm, said in arms.items()]
    found = []
    for pair in pairs:
        faces = pair.labels != NO_LABEL
        judged, a, b = pair.labels[faces], pair.said[:, faces], pair.against[:, faces]
        values = compute_shares(judged, b if pair.study == VOTE_OVER else a, data.emotions)
        gains = compare_arms(judged, a, b, data.emotions, settings.n_resamples, 0, persons[faces])
        mcnemar = compute_p_value(judged, a, b)
        for share in [share for share in SHARES if share in values]:
            gain = gains[share]
            numbers = values[share], gain.value, gain.low, gain.high, gain.p_value, gain.effect, mcnemar
            found.append((pair.study, pair.arm, share, *numbers))
    columns = ["study", "arm", "share", "value", "gain", "low", "high", "p_value", "effect", "mcnemar"]
    return pd.DataFrame(found, columns=columns)


def _stack(arms: dict[str, np.ndarray], labels: np.ndarray) -> list[_Pair]:
    """Return each loss with the weighted sampler against either of the two alone."""
    stacked = [arm for arm in arms if arm.endswith(BOTH) and arm != SAMPLER]
    return [
        _Pair(STACKED, f"{arm}_over_{alone}", arms[arm], arms[alone], labels)
        for arm in stacked
        for alone in (arm.removesuffix(BOTH), SAMPLER)
        if alone in arms
    ]


def tabulate_rare(dirs: OutputDirs, data: PackedDataset) -> pd.DataFrame:
    """Return `measure_rare`, a row each, of the reference and of the arms of study `loss` once it has run."""
    arms = _read_arms(dirs, REFERENCE, data)
    if get_predictions_path(dirs, LOSS).is_file():
        arms |= _read_arms(dirs, LOSS, data)
    labels = data.labels[data.get_rows("test")]
    measured = {arm: measure_rare(labels, said, data.emotions) for arm, said in arms.items()}
    return pd.DataFrame.from_dict(measured, orient="index").rename_axis("arm")


def measure_rare(labels: np.ndarray, predictions: np.ndarray, emotions: Sequence[str]) -> dict[str, float]:
    """Return for each rare emotion that occurs how often it is named, per face of it, and its precision.

    labels: int (N,).   predictions: int (S, N); both measures are over seeds and faces together. 1 face named
    per face is as often as it occurs; a network that over-corrects names it more often and is right less.
    """
    measured = {}
    for emotion in RARE_EMOTIONS:
        index = emotions.index(emotion)
        n_faces, named = np.sum(labels == index) * len(predictions), predictions == index
        if n_faces:
            right = (named & (labels == index)).sum()
            measured[f"{emotion}_named"] = float(named.sum() / n_faces)
            measured[f"{emotion}_precision"] = float(right / named.sum()) if named.any() else 0.0
    return measured


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
        stage.show_text(f"{caption}: none of these arms was trained on this data set.")
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
    table = pd.DataFrame.from_dict(cells, orient="index", columns=columns).rename_axis("arm")
    # A number and its interval stay on one line.
    return table.replace(" ", "\N{NO-BREAK SPACE}", regex=True)


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

    The largest come first; only so many are named that the sentence can be read.   rows: of `select_studies`.
    """
    rows = rows[rows["share"] == share].sort_values("gain", key=abs, ascending=False)
    subject, parts = share.replace("_", " "), []
    for verb, clear in (("raised", rows[rows["low"] > 0]), ("lowered", rows[rows["high"] < 0])):
        arms = [f"{row.arm} ({100 * row.gain:+.1f} points)" for row in clear.head(N_NAMED).itertuples()]
        more = f" and {len(clear) - N_NAMED} more" if len(clear) > N_NAMED else ""
        if arms:
            parts.append(f"clearly {verb} by {', '.join(arms)}{more}")
    if not parts:
        return f"No arm changes {subject} clearly."
    return f"{subject.capitalize()} is {', and '.join(parts)}."
