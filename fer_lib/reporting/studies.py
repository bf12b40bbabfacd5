"""Show the ablation studies: figures, tables and sentences about arms against the reference.

`table` and `rows` are of `ablation_results.compare_studies`.
"""

import pandas as pd

from fer_lib.evaluation.ablation_results import SHARES
from fer_lib.evaluation.ablations import find_arms
from fer_lib.intervals import Interval
from fer_lib.params import Params
from fer_lib.reporting.figures.studies import plot_differences, plot_vote_shares, show_share
from fer_lib.reporting.stage import Stage
from fer_lib.reporting.study_names import name_arm, name_baseline
from fer_lib.wording import spell_difference

N_NAMED = 4
"""So many arms `build_clear_table` names for each direction."""

MISSED = {1: "1 in 20", 2: "1 in 7"}
"""By number of seeds: how often an interval excludes 0 although there is no difference; of more as of one."""


def select_studies(table: pd.DataFrame, *studies: str) -> pd.DataFrame:
    """Return the rows of these studies, with `arm` as a reader sees it."""
    rows = table[table["study"].isin(studies)]
    return rows.assign(arm=list(map(name_arm, rows["study"], rows["arm"])))


def show_studies(stage: Stage, table: pd.DataFrame, *studies: str, name: str, caption: str) -> None:
    """Show the arms of these studies, which share a baseline, as figure `name` and as a table.

    Where none was trained, a sentence says so.
    """
    rows = select_studies(table, *studies)
    if rows.empty:
        stage.show_text(f"{caption}: none of these arms was trained on this data set.")
        return
    title = f"{caption}, compared with {name_baseline(studies[0])}"
    stage.show_figure(
        plot_differences(rows),
        name,
        f"{title}: gains in points on the test split, mean over seeds. Bars are 95% intervals; filled dots "
        "are clear gains (blue) and losses (orange), whose interval excludes 0.",
    )
    study_table = build_study_table(rows)
    recalls = study_table.columns.drop(["accuracy", "gain", "p", "h", "McNemar p"])
    formats = {"h": "+.2f", "p": ".2g", "McNemar p": ".2g"} | dict.fromkeys(recalls, "+.1f")
    stage.show_table(
        study_table,
        f"{title}: test accuracy and its gain in points with the 95% interval, the gain's p and Cohen's h, "
        "McNemar's p; then the gains, in points too, in macro recall and in the recall of rare emotions.",
        formats,
    )


def show_reference(stage: Stage, shares: pd.DataFrame, caption: str) -> None:
    """Show a table of `ablation_results.score_reference`."""
    seeds = {i: f"seed {seed}" for i, seed in enumerate(stage.params.ablations.seeds)}
    shown = shares.rename(index=show_share, columns=seeds)
    stage.show_table(shown, caption, dict.fromkeys(shown.columns, ".1%"))


def show_vote_shares(stage: Stage, table: pd.DataFrame) -> None:
    """Show as figure `votes` how accuracy goes with the share of votes, where arms have learned from some."""
    points = trace_vote_shares(table, stage.params)
    if not points.empty:
        stage.show_figure(
            plot_vote_shares(points),
            "votes",
            "Accuracy by the share of the annotators' votes in the training targets; the rest is the label. "
            "Bars are the 95% intervals of the difference from labels alone.",
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
            arm["accuracy"], arm["gain"] = f"{row['value']:.1%}", f"{points:+.1f}"
            arm["p"], arm["h"], arm["McNemar p"] = row["p_value"], row["effect"], row["mcnemar"]
        else:
            arm[show_share(row["share"])] = points.value
    recalls = [show_share(share) for share in SHARES[1:] if share in set(rows["share"])]
    columns = ["accuracy", "gain", "p", "h", "McNemar p", *recalls]
    return pd.DataFrame.from_dict(cells, orient="index", columns=columns).rename_axis("arm")


def describe_gain(gain: Interval) -> str:
    """Return a difference of shares in words: `1.4 points higher [-0.2, 2.9]`."""
    return " ".join(spell_difference(*gain))


def describe_clear(rows: pd.DataFrame, what: str) -> str:
    """Return in a sentence how many arms clearly change accuracy, and which of them changes it most.

    An arm is clear where its interval excludes 0.   rows: of `select_studies`.   what: the arms change, such
    as `the paper's recipe`.
    """
    rows = rows[rows["share"] == "accuracy"]
    parts: list[str] = []
    for verb, clear in (("raise", rows[rows["low"] > 0]), ("lower", rows[rows["high"] < 0])):
        if clear.empty:
            continue
        most = clear.sort_values("gain", key=abs).iloc[-1]
        points = Interval(most["gain"], most["low"], most["high"]).to_points()
        ending, others = ("s", "") if len(clear) == 1 else ("", "most of all ")
        changed = "it" if parts else "test accuracy"
        named = f"{others}{most['arm']}, {points:+.1f} points"
        parts.append(f"{len(clear)} clearly {verb}{ending} {changed} ({named})")
    found = " and ".join(parts) or "none makes a clear difference to test accuracy"
    return f"Of {len(rows)} change{'s' * (len(rows) > 1)} to {what}, {found}."


def build_clear_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the arms that clearly change accuracy, the largest gains and losses, and their baselines.

    rows: of `select_studies`.
    """
    rows = rows[rows["share"] == "accuracy"].sort_values("gain", ascending=False)
    clear = pd.concat([rows[rows["low"] > 0].head(N_NAMED), rows[rows["high"] < 0].tail(N_NAMED)])
    gains = map(Interval, clear["gain"], clear["low"], clear["high"])
    return pd.DataFrame(
        {
            "compared with": list(map(name_baseline, clear["study"])),
            "gain in points": [f"{gain.to_points():+.1f}" for gain in gains],
        },
        index=pd.Index(clear["arm"], name="arm"),
    )


def describe_chance(n_arms: int, n_seeds: int) -> str:
    """Return what so many comparisons find by chance."""
    missed = MISSED.get(n_seeds, MISSED[1])
    return (
        f"{n_arms} arms are compared here. If none of them made any difference, about {missed} would still "
        "look clear in each measure, by chance: a single clear arm among many is weak evidence."
    )
