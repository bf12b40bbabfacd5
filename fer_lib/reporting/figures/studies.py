"""Draw the figures of the ablations and of compression."""

from collections.abc import Mapping
from itertools import cycle

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, ScalarFormatter

from fer_lib.metrics_file import Interval
from fer_lib.reporting.figures.style import (
    AMBER,
    FAINT,
    GREEN,
    INK,
    LINES,
    MAIN,
    PERCENT,
    PURPLE,
    SECOND,
    STYLE,
    build_figure,
    draw_interval,
    name_rows,
)

LAYER_COLOURS = {"stem": SECOND, "depthwise": AMBER, "pointwise": MAIN, "conv": GREEN, "classifier": PURPLE}


def show_share(share: str) -> str:
    """Return the name of a share as a reader sees it: `recall disgust`."""
    return share.replace("_", " ").replace(".", " ")


@mpl.rc_context(STYLE)
def plot_differences(differences: pd.DataFrame) -> Figure:
    """Plot the gain of each arm, a panel per share; columns arm, share, gain, low, high (-1 to 1).

    Clear ones, whose interval leaves out 0, are filled.
    """
    arms, shares = list(differences["arm"].unique()), list(differences["share"].unique())
    size = {"columns": max(1, len(shares)), "sharey": True, "squeeze": False}
    figure, panels = build_figure(9, 1.1 + 0.34 * len(arms), **size)
    for axes, share in zip(panels[0], shares, strict=False):
        for row in differences[differences["share"] == share].to_dict("records"):
            gain = Interval(row["gain"], row["low"], row["high"]).to_points()
            is_clear = gain.low > 0 or gain.high < 0
            colour = FAINT if not is_clear else MAIN if gain.value > 0 else SECOND
            draw_interval(axes, arms.index(row["arm"]), gain, colour, is_filled=is_clear)
        axes.axvline(0, color=INK, linewidth=0.9)
        axes.set_title(show_share(share))
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
def plot_front(variants: pd.DataFrame, front: pd.Index) -> Figure:
    """Plot accuracy (0 to 1, with `low` and `high`) against milliseconds `ms`, and the front as a line.

    Columns network, variant, accuracy, low, high, ms, bytes; the area of a marker grows with the file.
    """
    figure, axes = build_figure(9, 5.2)
    line = variants.loc[front]
    axes.step(line["ms"], line["accuracy"], where="post", color=FAINT, linewidth=1.2, zorder=1)
    colours = dict(zip(variants["network"].unique(), cycle(LINES)))
    for row in variants.to_dict("records"):
        colour, ms, accuracy = colours[row["network"]], row["ms"], row["accuracy"]
        # On two sides: variants of a network may stand close together.
        marker, kind, shift, side = "o", "", 11, "left"
        if row["variant"] != "float32":
            marker, kind, shift, side = "s", ", int8", -11, "right"
        axes.vlines(ms, row["low"], row["high"], color=colour, linewidth=1, alpha=0.5)
        axes.scatter(ms, accuracy, s=30 + row["bytes"] / 8e4, color=colour, marker=marker, zorder=2)
        label = f"{row['network']}{kind}"
        axes.annotate(label, (ms, accuracy), (shift, -3), textcoords="offset points", size=9, ha=side)
    axes.set_xscale("log")
    axes.set_xlim(variants["ms"].min() / 1.6, variants["ms"].max() * 1.6)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PERCENT)
    axes.set(xlabel="milliseconds per face, one thread (log scale)", ylabel="test accuracy")
    axes.grid()
    return figure


@mpl.rc_context(STYLE)
def plot_sensitivity(networks: Mapping[str, pd.DataFrame], threshold: float) -> Figure:
    """Plot the error of the logits when one layer alone is int8: a panel per network, columns kind, error."""
    figure, panels = build_figure(9, 1.9 * len(networks), rows=len(networks), squeeze=False)
    for axes, (name, layers) in zip(panels[:, 0], networks.items(), strict=True):
        axes.bar(np.arange(len(layers)), layers["error"], color=layers["kind"].map(LAYER_COLOURS))
        axes.axhline(threshold, color=INK, linewidth=0.9, linestyle="--")
        axes.set(title=name, ylabel="error", xlim=(-0.7, len(layers) - 0.3))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(axis="y")
    panels[-1, 0].set_xlabel("layer, from the image to the emotion")
    kinds = set(pd.concat(networks.values())["kind"])
    handles = [Patch(color=colour, label=kind) for kind, colour in LAYER_COLOURS.items() if kind in kinds]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


@mpl.rc_context(STYLE)
def plot_pruning(rows: pd.DataFrame) -> Figure:
    """Plot accuracy and speed-up by the share of weights or multiply-adds that is left.

    Columns kind, left (0 to 1), accuracy (0 to 1) and speedup; one line per kind.
    """
    figure, (left, right) = build_figure(9, 3.9, columns=2)
    for kind, line in rows.sort_values("left").groupby("kind"):
        left.plot(line["left"], line["accuracy"], marker="o", markersize=5, label=kind)
        right.plot(line["left"], line["speedup"], marker="o", markersize=5)
    for axes in (left, right):
        axes.xaxis.set_major_formatter(PERCENT)
        axes.set(xlabel="left of the baseline", xlim=(1.03, 0))
        axes.grid()
    left.set(title="Test accuracy")
    left.yaxis.set_major_formatter(PERCENT)
    left.legend(loc="lower left")
    right.set(title="Times as fast as the baseline", ylim=(0, None))
    return figure
