"""Show the ablation studies: figures, tables and sentences about arms against the reference.

`table` and `rows` are of `ablation_results.compare_studies`.
"""

import pandas as pd

from fer_lib.evaluation.ablation_results import SHARES
from fer_lib.evaluation.ablations import find_arms
from fer_lib.metrics_file import Interval
from fer_lib.params import Params
from fer_lib.reporting.figures.studies import plot_differences, plot_vote_shares, show_share
from fer_lib.reporting.stage import Stage

ARMS = {
    "b0": "B0",
    "blend": "50 % votes",
    "cosine": "cosine rate",
    "lite0": "Lite0",
    "neither": "neither sampler nor focal loss",
    "px_32": "32 px",
    "px_64": "64 px",
    "resnet18": "ResNet-18 from random weights",
    "soft_vote": "soft vote of the three networks",
    "three_times": "three times the epochs",
    "votes_25": "25 % votes",
    "votes_75": "75 % votes",
}
"""Arms whose names in `params.yaml` say too little to a reader."""

N_NAMED = 4
"""So many arms the table of a finding names for each direction."""


def select_studies(table: pd.DataFrame, *studies: str, say_study: bool = True) -> pd.DataFrame:
    """Return the rows of these studies, with `arm` as a reader sees it: `<study>: <arm>` of several."""
    rows = table[table["study"].isin(studies)]
    names = rows["arm"].replace(ARMS)
    if say_study and len(studies) > 1:
        names = rows["study"] + ": " + names
    return rows.assign(arm=names.str.replace("_", " "))


def show_studies(
    stage: Stage, table: pd.DataFrame, *studies: str, name: str, caption: str, against: str = "the reference"
) -> None:
    """Show the arms of these studies as figure `name` and as a table, or say that there are none."""
    rows = select_studies(table, *studies)
    if rows.empty:
        stage.show_text(f"{caption}: none of these arms was trained on this data set.")
        return
    title = f"{caption}, against {against}"
    figure = plot_differences(rows)
    stage.show_figure(figure, name, f"{title}: gains in points with 95 % intervals, clear ones filled.")
    formats = {"h": "+.2f", "p": ".2g", "McNemar": ".2g"}
    stage.show_table(build_study_table(rows), f"{title}; in parentheses the gain in points.", formats)


def show_reference(stage: Stage, shares: pd.DataFrame, caption: str) -> None:
    """Show a table of `ablation_results.score_reference`."""
    seeds = {i: f"seed {seed}" for i, seed in enumerate(stage.params.ablations.seeds)}
    stage.show_table(shares.rename(index=show_share, columns=seeds), caption)


def show_vote_shares(stage: Stage, table: pd.DataFrame) -> None:
    """Show as figure `votes` how accuracy goes with the share of votes, where arms have learned from some."""
    points = trace_vote_shares(table, stage.params)
    if not points.empty:
        stage.show_figure(
            plot_vote_shares(points),
            "votes",
            "Accuracy by the share of the annotators' votes in the training targets; the rest is the label. "
            "Bars are the 95 % intervals of the difference from labels alone.",
        )


def trace_vote_shares(table: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Return the accuracy of the arms of `targets` that mix labels with votes, and of labels alone.

    Columns judge, share (of votes), accuracy, low and high; the interval is that of the gain.
    """
    targets = {arm: own.training.targets for arm, own in find_arms(params, "targets").items()}
    shares = {arm: mix.votes for arm, mix in targets.items() if mix.votes and not mix.majority + mix.teacher}
    points = []
    for study, judge in (("targets", "labels"), ("targets_annotators", "the annotators' majority")):
        rows = table[table["study"].eq(study) & table["share"].eq("accuracy") & table["arm"].isin(shares)]
        rows = rows.assign(votes=rows["arm"].map(shares)).sort_values("votes")
        plain = rows["value"] - rows["gain"]  # in every row that of labels alone
        places = {"judge": judge, "share": 0.0, "accuracy": plain, "low": plain, "high": plain}
        points.append(pd.DataFrame(places).head(1))
        ends = {"low": plain + rows["low"], "high": plain + rows["high"]}
        points.append(
            pd.DataFrame({"judge": judge, "share": rows["votes"], "accuracy": rows["value"]} | ends)
        )
    return pd.concat(points, ignore_index=True)


def build_study_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm: accuracy, its gain in points with interval, p and h, McNemar's p; recalls."""
    cells: dict[str, dict[str, object]] = {}
    for row in rows.to_dict("records"):
        arm = cells.setdefault(row["arm"], {})
        points = Interval(row["gain"], row["low"], row["high"]).to_points()
        if row["share"] == "accuracy":
            arm["accuracy"], arm["points"] = f"{row['value']:.3f}", f"{points:+.1f}"
            arm["p"], arm["h"], arm["McNemar"] = row["p_value"], row["effect"], row["mcnemar"]
        else:
            arm[show_share(row["share"])] = f"{row['value']:.3f}\N{NO-BREAK SPACE}({points.value:+.1f})"
    recalls = [show_share(share) for share in SHARES[1:] if share in set(rows["share"])]
    columns = ["accuracy", "points", "p", "h", "McNemar", *recalls]
    return pd.DataFrame.from_dict(cells, orient="index", columns=columns).rename_axis("arm")


def describe_gain(gain: Interval) -> str:
    """Return a difference of shares in words: `1.4 points higher [-0.2, +2.9]`."""
    points = gain.to_points()
    side = "lower" if points.value < 0 else "higher"
    interval = f"{points:+.1f}".partition("[")[2]
    return f"{abs(points.value):.1f} points {side} [{interval}"


def describe_clear(rows: pd.DataFrame, share: str) -> tuple[str, dict[str, str]]:
    """Return which arms change `share` clearly, so that the interval leaves out 0: in a sentence and a table.

    The largest come first; the table names only so many that it can be read.   rows: of `select_studies`.
    """
    rows = rows[rows["share"] == share].sort_values("gain", key=abs, ascending=False)
    subject, parts, table = show_share(share), [], {}
    for verb, clear in (("raised", rows[rows["low"] > 0]), ("lowered", rows[rows["high"] < 0])):
        named = [f"{row['arm']} ({100 * row['gain']:+.1f} points)" for row in clear.to_dict("records")]
        more = [f"{len(clear) - N_NAMED} more"] if len(clear) > N_NAMED else []
        table[f"{subject} clearly {verb} by"] = ", ".join([*named[:N_NAMED], *more]) or "none"
        if named:
            parts.append(f"clearly {verb} by {len(clear)} of {len(rows)} arms, most by {named[0]}")
    if not parts:
        return f"No arm changes {subject} clearly.", table
    return f"{subject.capitalize()} is {'; it is '.join(parts)}.", table
