"""Draw the figures of the ablations and of the claims ledger."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fer_lib.evaluation.claim_rules import BELOW, CONTAINED, REACHED, SUPPORTED
from fer_lib.evaluation.claims import group_verdicts
from fer_lib.evaluation.paper import describe_labels
from fer_lib.metrics_file import Interval
from fer_lib.reporting.figures.style import (
    AMBER,
    FAINT,
    GREEN,
    GRID,
    INK,
    MAIN,
    PERCENT,
    SECOND,
    SKY,
    STYLE,
    build_figure,
    draw_interval,
    name_rows,
)

VERDICT_COLOURS = {"partly": AMBER, "inconclusive": SKY, "not tested": FAINT}
VERDICT_COLOURS |= {"reproduced": GREEN, "implemented": GREEN}
VERDICT_COLOURS |= {"not reproduced": SECOND, "not implemented": SECOND}
POSITION_COLOURS = {REACHED: GREEN, CONTAINED: AMBER, BELOW: MAIN}


def show_share(share: str) -> str:
    """Return the name of a share as a reader sees it: `recall of disgust`."""
    return share.replace("_", " ").replace(".", " of ")


@mpl.rc_context(STYLE)
def plot_differences(differences: pd.DataFrame) -> Figure:
    """Plot the gain of each arm, a panel per share; columns arm, share, gain, low, high (-1 to 1).

    Clear ones, whose interval excludes 0, are filled. Accuracy and macro recall have one scale, and so have
    the recalls of single emotions, of which there are few faces.
    """
    arms, shares = list(differences["arm"].unique()), list(differences["share"].unique())
    size = {"columns": max(1, len(shares)), "sharey": True, "squeeze": False}
    figure, panels = build_figure(9, 1.3 + 0.34 * len(arms), **size)
    first_of_scale: dict[bool, Axes] = {}
    for axes, share in zip(panels[0], shares, strict=False):
        first = first_of_scale.setdefault(share.startswith("recall."), axes)
        if first is not axes:
            axes.sharex(first)
        for row in differences[differences["share"] == share].to_dict("records"):
            gain = Interval(row["gain"], row["low"], row["high"]).to_points()
            is_clear = gain.low > 0 or gain.high < 0
            colour = FAINT if not is_clear else MAIN if gain.value > 0 else SECOND
            draw_interval(axes, arms.index(row["arm"]), gain, colour, is_filled=is_clear, size=5)
        axes.axvline(0, color=INK, linewidth=0.9)
        axes.set_title(show_share(share).replace(" of ", " of\n"), size=11)
        axes.grid(axis="x")
    name_rows(panels[0], arms)
    figure.supxlabel("points gained or lost", fontsize=10.5)
    return figure


@mpl.rc_context(STYLE)
def plot_vote_shares(points: pd.DataFrame) -> Figure:
    """Plot accuracy by the share of votes in the training labels, a line per judge.

    Columns judge, share, accuracy, low and high (0 to 1).
    """
    figure, axes = build_figure(9, 4.2)
    for judge, line in points.groupby("judge", sort=False):
        ends = (line["accuracy"] - line["low"], line["high"] - line["accuracy"])
        axes.errorbar(line["share"], line["accuracy"], ends, marker="o", markersize=5, label=judge)
    axes.xaxis.set_major_formatter(PERCENT)
    axes.yaxis.set_major_formatter("{x:.1%}")
    axes.set(xlabel="share of the annotators' votes", ylabel="test accuracy", xticks=points["share"].unique())
    axes.grid()
    figure.legend(loc="outside lower center", ncols=2, title="judged by")
    return figure


@mpl.rc_context(STYLE)
def plot_verdicts(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the rows of `claims.judge_claim`: a panel for each basis, a line per verdict, a tile per claim."""
    groups = group_verdicts(rows)
    heights = [len(verdicts) for verdicts in groups.values()]
    figure, panels = build_figure(9, 5.6, rows=len(groups), height_ratios=heights)
    longest = max(len(names) for verdicts in groups.values() for names in verdicts.values())
    for axes, (basis, verdicts) in zip(panels, groups.items(), strict=True):
        for y, (verdict, names) in enumerate(verdicts.items()):
            colour = VERDICT_COLOURS[verdict]
            axes.text(0, y, len(names), ha="right", va="center", weight="bold", size=12)
            for x, name in enumerate(names, start=1):
                axes.add_patch(Rectangle((x - 0.45, y - 0.36), 0.9, 0.72, color=colour, linewidth=0))
                ink = INK if colour in (AMBER, SKY) else "white"
                axes.text(x, y, name, color=ink, weight="bold", size=9.5, ha="center", va="center")
        name_rows([axes], list(verdicts))
        axes.tick_params(axis="y", pad=16)
        axes.set(title=basis.capitalize(), xlim=(-0.4, max(12, longest) + 0.5), xticks=[])
        axes.spines[:].set_visible(False)
    return figure


def list_gains(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the differences that rules of kind `gains` have found: the claim's id and the check of each."""
    gains = [row for row in rows if row["rule"] == "gains"]
    return [(row["id"], check) for row in gains for check in row["checks"] if check["low"] is not None]


@mpl.rc_context(STYLE)
def plot_gains(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the differences of `list_gains`, at least one, over the side of 0 that the claim expects."""
    names, shown = [], []
    for name, check in list_gains(rows):
        names.append(f"{name}   {check['name']}")
        shown.append((check, Interval(*(100 * check[end] for end in ("value", "low", "high")))))
    figure, axes = build_figure(9, 1.2 + 0.36 * len(names))
    reach = 1.08 * max(abs(end) for _, gain in shown for end in gain)
    for y, (check, gain) in enumerate(shown):
        is_clear = gain.low > 0 or gain.high < 0
        colour = GREEN if check["outcome"] == SUPPORTED else SECOND if is_clear else FAINT
        side = reach if check["expected"] == "above 0" else -reach
        axes.barh(y, side, height=0.8, color=GRID, alpha=0.6)
        draw_interval(axes, y, gain, colour, is_filled=is_clear)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set(xlim=(-reach, reach), xlabel="points of 100")
    name_rows([axes], names)
    return figure


@mpl.rc_context(STYLE)
def plot_accuracies(accuracies: Sequence[Mapping[str, Any]], value: float) -> Figure:
    """Plot the rows of `paper.collect_accuracies`: a row per model, a panel per split and labels.

    A dashed line in each panel marks `value`. An accuracy below half the median is written at the left edge,
    so that the scale shows the intervals of the others.
    """
    models = list(dict.fromkeys(row["model"] for row in accuracies))
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in accuracies:
        groups.setdefault(f"{row['split']},\n{describe_labels(row)}", []).append(row)
    half = np.median([row["accuracy"] for row in accuracies]) / 2
    bounds = [row[end] for row in accuracies if row["accuracy"] >= half for end in ("low", "high")]
    left, right = min(bounds) - 0.02, max(*bounds, value) + 0.02
    size = {"columns": len(groups), "sharey": True, "squeeze": False}
    figure, panels = build_figure(9, 1.3 + 0.25 * len(models), **size)
    for axes, (title, rows) in zip(panels[0], groups.items(), strict=True):
        for row in rows:
            y, accuracy = models.index(row["model"]), Interval(row["accuracy"], row["low"], row["high"])
            if accuracy.value < half:
                axes.text(left, y, f"\N{LEFTWARDS ARROW} {accuracy.value:.1%}", va="center", size=9)
            else:
                draw_interval(axes, y, accuracy, POSITION_COLOURS[row["reached"]], size=3.5)
        axes.axvline(value, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_title(title.replace(" by ", "\nby "), size=10)
        axes.set_xlim(left, right)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(PERCENT)
        axes.grid()
    name_rows(panels[0], models)
    figure.supxlabel(f"accuracy; dashed: the paper's {value:.0%}", fontsize=10.5)
    return figure
