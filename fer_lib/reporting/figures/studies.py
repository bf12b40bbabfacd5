"""Draw the figures of the ablations."""

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_lib.intervals import Interval
from fer_lib.reporting.figures.style import (
    FAINT,
    INK,
    MAIN,
    PERCENT,
    SECOND,
    STYLE,
    build_figure,
    draw_interval,
    name_rows,
)


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
