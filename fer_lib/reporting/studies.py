"""Show the ablation studies: figures, tables and sentences about arms against the reference.

`table` and `rows` are of `ablation_results.compare_studies`.
"""

import pandas as pd

from fer_lib.evaluation.ablation_results import SHARES
from fer_lib.metrics_file import Interval
from fer_lib.reporting.figures.studies import plot_differences
from fer_lib.reporting.stage import Stage

N_NAMED = 4
"""So many arms a sentence names for each direction; the tables have them all."""


def show_share(share: str) -> str:
    """Return a share of `SHARES` as a reader sees it: `recall disgust`."""
    return share.replace("_", " ").replace(".", " ")


def select_studies(table: pd.DataFrame, *studies: str) -> pd.DataFrame:
    """Return the rows of these studies, with `arm` as a reader sees it; of several, `<study>: <arm>`."""
    rows = table[table["study"].isin(studies)]
    names = rows["study"] + ": " + rows["arm"] if len(studies) > 1 else rows["arm"]
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
    figure = plot_differences(rows, SHARES)
    stage.show_figure(figure, name, f"{title}: gains in points with 95 % intervals, clear ones filled.")
    formats = {"h": "+.2f", "p": ".2g", "McNemar": ".2g"}
    stage.show_table(build_study_table(rows), f"{title}; in parentheses the gain in points.", formats)


def build_study_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm: accuracy, its gain in points with interval, p and h, McNemar's p; recalls."""
    cells: dict[str, dict[str, object]] = {}
    for row in rows.to_dict("records"):
        arm = cells.setdefault(row["arm"], {})
        points = Interval(*(100 * row[end] for end in ("gain", "low", "high")))
        if row["share"] == "accuracy":
            arm["accuracy"], arm["points"] = f"{row['value']:.3f}", f"{points:+.1f}"
            arm["p"], arm["h"], arm["McNemar"] = row["p_value"], row["effect"], row["mcnemar"]
        else:
            arm[show_share(row["share"])] = f"{row['value']:.3f}\N{NO-BREAK SPACE}({points.value:+.1f})"
    recalls = [show_share(share) for share in SHARES[1:] if share in set(rows["share"])]
    columns = ["accuracy", "points", "p", "h", "McNemar", *recalls]
    return pd.DataFrame.from_dict(cells, orient="index", columns=columns).rename_axis("arm")


def describe_clear(rows: pd.DataFrame, share: str) -> str:
    """Return a sentence that lists the arms whose gain in `share` is clear: its interval leaves out 0.

    The largest come first; only so many are named that the sentence can be read.   rows: of `select_studies`.
    """
    rows = rows[rows["share"] == share].sort_values("gain", key=abs, ascending=False)
    subject, parts = show_share(share), []
    for verb, clear in (("raised", rows[rows["low"] > 0]), ("lowered", rows[rows["high"] < 0])):
        named = clear.head(N_NAMED)
        arms = [
            f"{arm} ({100 * gain:+.1f} points)" for arm, gain in zip(named["arm"], named["gain"], strict=True)
        ]
        more = f" and {len(clear) - N_NAMED} more" if len(clear) > N_NAMED else ""
        if arms:
            parts.append(f"clearly {verb} by {', '.join(arms)}{more}")
    if not parts:
        return f"No arm changes {subject} clearly."
    return f"{subject.capitalize()} is {', and '.join(parts)}."
