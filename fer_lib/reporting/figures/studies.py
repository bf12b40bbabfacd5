"""Figures that compare networks: accuracies, refusal, people's agreement, time, ablations."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fer_lib.reporting.figures.style import FAINT, INK, MAIN, SECOND, SOFT, STYLE, build_figure

BOUNDS = {"value": "", "low": "_lo", "high": "_hi"}
"""Column of a plotted score to the ending of its key in the metrics."""

WHISKER = {"fmt": "o", "markersize": 6, "elinewidth": 1.6, "capsize": 0}
LINES = (MAIN, SECOND, "#009E73", "#AA4499", "#7A7A7A")


@mpl.rc_context(STYLE)
def plot_scores(scores: pd.DataFrame, xlabel: str) -> Figure:
    """Plot one row per network, from above: `value` with its interval, `low` to `high`, all 0 to 1."""
    figure, axes = build_figure(8, 1.0 + 0.42 * len(scores))
    y = np.arange(len(scores))
    spread = [scores["value"] - scores["low"], scores["high"] - scores["value"]]
    axes.errorbar(scores["value"], y, xerr=spread, color=MAIN, **WHISKER)
    for position, value in zip(y, scores["value"], strict=True):
        axes.annotate(f"{value:.1%}", (value, position), (0, 7), textcoords="offset points", ha="center")
    axes.set_yticks(y, scores.index)
    axes.set(xlabel=xlabel, ylim=(len(scores) - 0.4, -0.75))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    return figure


@mpl.rc_context(STYLE)
def plot_risk_coverage(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Plot accuracy against the share of faces answered; curves by name, as `refusal` computes them."""
    # Below 5 % a handful of faces decides.
    lines = {name: curve[curve["coverage"] >= 0.05] for name, curve in curves.items()}
    figure, axes = _plot_lines(lines, "coverage", "accuracy")
    axes.set(xlabel="faces answered, the surest first", ylabel="of these named rightly", xlim=(0, 1))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


@mpl.rc_context(STYLE)
def plot_agreement(agreement: pd.DataFrame) -> Figure:
    """Plot accuracy by the number of agreeing voters: the network and, where given, the crowd, one voter."""
    figure, axes = build_figure(8, 4.2)
    names = {"crowd": "the crowd's answer", "model": "the network", "voter": "one voter"}
    for (column, name), colour in zip(names.items(), (SOFT, MAIN, SECOND), strict=True):
        if column not in agreement:
            continue
        style = "-" if column == "model" else "--"
        axes.plot(agreement.index, agreement[column], style, marker="o", color=colour, label=name)
    ticks = [f"{'up to ' if n == agreement.index.min() else ''}{n}" for n in agreement.index]
    counted = [f"{tick}\n{count:,}" for tick, count in zip(ticks, agreement["n_images"], strict=True)]
    axes.set_xticks(agreement.index, counted)
    axes.set(
        xlabel="voters who gave the most frequent answer / images", ylabel="names the label", ylim=(0, 1)
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="y")
    axes.legend(loc="upper left")
    return figure


@mpl.rc_context(STYLE)
def plot_time(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Plot validation accuracy against minutes of training; frames by network: seconds, val_accuracy."""
    lines = {name: curve.assign(minutes=curve["seconds"] / 60) for name, curve in curves.items()}
    figure, axes = _plot_lines(lines, "minutes", "val_accuracy", marker="o", ms=4)
    axes.set(xlabel="minutes of training", ylabel="validation accuracy", xlim=(0, None))
    return figure


def _plot_lines(lines: Mapping[str, pd.DataFrame], x: str, y: str, **style: Any) -> tuple[Figure, Axes]:
    """Draw column y, a share, against column x: one line per name, in turn in the colours of `LINES`."""
    figure, axes = build_figure(8, 4.2)
    for (name, line), colour in zip(lines.items(), cycle(LINES)):
        axes.plot(line[x], line[y], color=colour, label=name, **style)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid()
    axes.legend(loc="best")
    return figure, axes


@mpl.rc_context(STYLE)
def plot_disagreement(disagreement: pd.DataFrame) -> Figure:
    """Plot the share of test faces that two networks name differently, a square of names by names."""
    figure, axes = build_figure(6.2, 4.6)
    # Below the diagonal every pair stands once.
    disagreement = disagreement.iloc[1:, :-1] if len(disagreement) > 1 else disagreement
    hidden = np.triu(np.ones(disagreement.shape, bool), k=1)
    sns.heatmap(
        disagreement,
        mask=hidden,
        vmin=0,
        cmap="Blues",
        annot=True,
        fmt=".1%",
        cbar=False,
        square=True,
        ax=axes,
    )
    axes.tick_params(length=0)
    axes.set_yticks(axes.get_yticks(), disagreement.index, rotation=0)
    return figure


@mpl.rc_context(STYLE)
def plot_conditions(accuracies: pd.DataFrame) -> Figure:
    """Plot accuracies (0 to 1) of networks (rows) under conditions (columns), coloured by what they lose.

    The first column is the accuracy without any change.
    """
    figure, axes = build_figure(9, 1.2 + 0.5 * len(accuracies))
    lost = accuracies.sub(accuracies.iloc[:, 0], axis=0)
    look = {
        "cmap": "Blues_r",
        "cbar": False,
        "linewidths": 1.5,
        "vmax": 0,
        "vmin": min(-0.1, lost.min().min()),
    }
    sns.heatmap(lost, annot=accuracies, fmt=".1%", ax=axes, **look)
    axes.xaxis.tick_top()
    axes.set_xticks(axes.get_xticks(), [name.replace(" ", "\n") for name in accuracies.columns], rotation=0)
    axes.set_yticks(axes.get_yticks(), accuracies.index, rotation=0)
    axes.set(xlabel="", ylabel="")
    axes.tick_params(length=0)
    return figure


@mpl.rc_context(STYLE)
def plot_differences(differences: pd.DataFrame, shares: Sequence[str]) -> Figure:
    """Plot the gain of each arm, a panel per share; columns arm, share, gain, low, high (-1 to 1).

    Clear ones, whose interval leaves out 0, are filled.
    """
    arms = list(dict.fromkeys(differences["arm"]))
    figure, panels = build_figure(9, 1.1 + 0.34 * len(arms), columns=len(shares), sharey=True)
    for axes, share in zip(np.atleast_1d(panels), shares, strict=True):
        rows = differences[differences["share"] == share].set_index("arm")[["gain", "low", "high"]]
        rows = 100 * rows.reindex(arms)
        for y, row in enumerate(rows.itertuples()):
            clear = row.low > 0 or row.high < 0
            colour = (MAIN if row.gain > 0 else SECOND) if clear else FAINT
            axes.plot([row.low, row.high], [y, y], color=colour)
            axes.plot(row.gain, y, "o", ms=6, color=colour, mfc=colour if clear else "white")
        axes.axvline(0, color=INK, lw=0.9)
        axes.set(title=share.replace("_", " "), ylim=(len(arms) - 0.4, -0.6))
        axes.set_yticks(range(len(arms)), arms)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    figure.supxlabel("points gained or lost", fontsize=10.5)
    return figure
