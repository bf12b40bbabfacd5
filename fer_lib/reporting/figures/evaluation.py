"""Draw the figures of training and evaluation; those of single emotions are in `classes`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fer_lib.evaluation.metrics import compute_wilson
from fer_lib.intervals import UNDEFINED, Interval
from fer_lib.reporting.figures.style import (
    FAINT,
    GREY,
    MAIN,
    PERCENT,
    SECOND,
    SOFT,
    STYLE,
    build_figure,
    draw_band,
    draw_heatmap,
    draw_interval,
    name_rows,
)

N_BAND_POINTS = 60


@mpl.rc_context(STYLE)
def plot_training_curves(history: pd.DataFrame, paper: pd.DataFrame | None = None) -> Figure:
    """Plot loss and validation accuracy per epoch, beside the paper's where that is given.

    Both frames have the columns epoch, train_loss, val_loss (nats) and val_accuracy (0 to 1).
    """
    figure, (left, right) = build_figure(9, 3.9, columns=2)
    curves = (
        (left, "train_loss", SECOND, "training"),
        (left, "val_loss", MAIN, "validation"),
        (right, "val_accuracy", MAIN, "validation"),
    )
    ours = {"marker": "o", "markersize": 4}
    theirs = {"marker": "D", "markerfacecolor": "white", "linestyle": (0, (2, 2)), "linewidth": 1.2}
    for axes, column, colour, name in curves:
        axes.plot(history["epoch"], history[column], color=colour, label=f"{name}, this run", **ours)
        if paper is not None:
            axes.plot(paper["epoch"], paper[column], color=colour, label=f"{name}, paper", **theirs)
    left.set(title="Loss", ylim=(0, None))
    right.set(title="Validation accuracy", ylim=(0, 1))
    right.yaxis.set_major_formatter(PERCENT)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y")
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


@mpl.rc_context(STYLE)
def plot_time(curves: Mapping[str, pd.DataFrame], dashed: Collection[str] = ()) -> Figure:
    """Plot validation accuracy against minutes of training; frames by network: seconds, val_accuracy."""
    lines = {name: curve.assign(minutes=curve["seconds"] / 60) for name, curve in curves.items()}
    figure, axes = _plot_lines(lines, "minutes", "val_accuracy", dashed, marker="o", markersize=4)
    axes.set(xlabel="minutes of training", ylabel="validation accuracy", xlim=(0, None))
    return figure


@mpl.rc_context(STYLE)
def plot_scores(scores: Mapping[str, Interval], xlabel: str) -> Figure:
    """Plot one row per network, from above: a share, 0 to 1, with its 95% interval."""
    figure, axes = build_figure(8, 1.0 + 0.36 * len(scores))
    for y, score in enumerate(scores.values()):
        draw_interval(axes, y, score, MAIN, f"{score.value:.1%}")
    name_rows([axes], scores)
    axes.set(xlabel=xlabel)
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))  # whole percents, no halves
    axes.xaxis.set_major_formatter(PERCENT)
    axes.grid(axis="x")
    return figure


@mpl.rc_context(STYLE)
def plot_disagreement(disagreement: pd.DataFrame) -> Figure:
    """Plot the share of test faces that two networks predict differently, a square of names by names."""
    n = len(disagreement)
    figure, axes = build_figure(max(6.2, 1.6 + 0.75 * n), max(4.6, 1.2 + 0.62 * n))
    # Below the diagonal every pair stands once.
    disagreement = disagreement.iloc[1:, :-1] if len(disagreement) > 1 else disagreement
    hidden = np.triu(np.ones(disagreement.shape, bool), k=1)
    draw_heatmap(axes, disagreement, mask=hidden, vmin=0, annot=True, fmt=".1%")
    if n > 5:
        axes.tick_params(axis="x", rotation=30)
    return figure


CONDITIONS = {
    "shifted": "shift",
    "darker": "underexposed",
    "flatter": "low contrast",
    "coarser": "low resolution",
}
"""Condition to the corruption of the same kind on page 08, where its own name is another one."""


@mpl.rc_context(STYLE)
def plot_conditions(accuracies: pd.DataFrame) -> Figure:
    """Plot accuracies (0 to 1) of networks (rows) under conditions (columns), coloured by what they lose.

    The first column is the accuracy without any change.
    """
    figure, axes = build_figure(9, 1.2 + 0.5 * len(accuracies))
    lost = accuracies.sub(accuracies.iloc[:, 0], axis=0)
    lost = lost.rename(columns=lambda name: CONDITIONS.get(str(name), str(name)).replace(" ", "\n"))
    lowest = min(-0.1, lost.min().min())
    draw_heatmap(axes, lost, annot=accuracies, fmt=".1%", cmap="Blues_r", vmin=lowest, vmax=0)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    return figure


@mpl.rc_context(STYLE)
def plot_split_comparison(
    scores: Mapping[str, Mapping[str, Interval]], panels: Sequence[Mapping[str, str]]
) -> Figure:
    """Plot scores of two splits with their 95% intervals: a row per name, which maps to its title.

    scores: name of a split, as the legend shows it, to `metrics.score_predictions`.   panels: the names of
    each; every panel has a scale of its own, so that it shows the intervals.
    """
    heights = [len(names) for names in panels]
    figure, rows = build_figure(
        9, 1.6 + 0.62 * sum(heights), rows=len(panels), height_ratios=heights, squeeze=False
    )
    for axes, names in zip(rows[:, 0], panels, strict=True):
        for (split, found), offset, colour in zip(scores.items(), (-0.15, 0.15), (MAIN, SECOND), strict=True):
            for y, name in enumerate(names):
                score = found.get(name, UNDEFINED)
                draw_interval(axes, y + offset, score, colour, f"{score.value:.3f}")
            axes.plot([], [], "o", color=colour, label=split)
        axes.grid(axis="x")
        axes.margins(x=0.05)
        name_rows([axes], names.values())
    figure.supxlabel("score (a scale for each panel)", fontsize=10.5)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, handletextpad=0.2)
    return figure


@mpl.rc_context(STYLE)
def plot_reliability(reliability: pd.DataFrame) -> Figure:
    """Plot accuracy against confidence from `metrics.compute_reliability`, over the images per bin.

    The bars are Wilson's 95% intervals.
    """
    figure, (top, bottom) = build_figure(6.5, 7, rows=2, sharex=True, height_ratios=(4, 1))
    filled = reliability[reliability["count"] > 0]
    top.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    bars = _reach(filled["accuracy"], filled["count"])
    top.errorbar(filled["confidence"], filled["accuracy"], bars, color=MAIN, marker="o", elinewidth=1.2)
    along = {"rotation": 45, "transform_rotates_text": True, "rotation_mode": "anchor"}
    top.text(0.03, 0.045, "ideal", color=SOFT, **along)
    top.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    top.grid()
    width = reliability["upper"] - reliability["lower"]
    bottom.bar(reliability["lower"], reliability["count"], width, align="edge", color=MAIN, edgecolor="white")
    bottom.set(xlabel="confidence", ylabel="images")
    return figure


@mpl.rc_context(STYLE)
def plot_risk_coverage(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Plot the accuracy of selective prediction by coverage; curves by name, of `compute_risk_coverage`.

    The first has a band, Wilson's 95% interval.
    """
    # Below 5% a handful of faces decides.
    lines = {name: curve[curve["coverage"] >= 0.05] for name, curve in curves.items()}
    figure, axes = _plot_lines(lines, "coverage", "accuracy")
    first = next(iter(lines.values()))
    first = first.iloc[np.linspace(0, len(first) - 1, N_BAND_POINTS).astype(int)]
    below, above = _reach(first["accuracy"], first.index + 1)
    curve = np.array([first["accuracy"], first["accuracy"] - below, first["accuracy"] + above])
    draw_band(axes, first["coverage"], curve, color=axes.lines[0].get_color(), linewidth=0)
    axes.set(xlabel="coverage: share of faces predicted, the surest first", ylabel="accuracy on these")
    axes.set(xlim=(0, 1))
    axes.xaxis.set_major_formatter(PERCENT)
    return figure


@mpl.rc_context(STYLE)
def plot_agreement(agreement: pd.DataFrame) -> Figure:
    """Plot `votes.measure_agreement`: accuracy by the number of annotators who agree.

    The network has Wilson's 95% intervals.
    """
    figure, axes = build_figure(8, 4.4)
    shown = {
        "annotators": ("the annotators' most frequent answer", GREY, "--"),
        "model": ("the network", MAIN, "-"),
        "voter": ("one annotator", SECOND, "--"),
    }
    for column, (name, colour, line) in shown.items():
        if column in agreement:
            axes.plot(agreement[column], line, marker="o", color=colour, label=name)
    bars = _reach(agreement["model"], agreement["n_images"])
    axes.errorbar(agreement.index, agreement["model"], bars, color=MAIN, fmt="none", elinewidth=1.2)
    ticks = [f"{n}\n{count:,}" for n, count in agreement["n_images"].items()]
    axes.set_xticks(agreement.index, [f"up to {ticks[0]}", *ticks[1:]])
    axes.set(xlabel="annotators who gave the most frequent answer / images", ylabel="accuracy", ylim=(0, 1))
    axes.yaxis.set_major_formatter(PERCENT)
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@mpl.rc_context(STYLE)
def plot_adjustment(tables: Mapping[str, pd.DataFrame], chosen: Mapping[str, float]) -> Figure:
    """Plot `votes.measure_adjustment` of each network: shares against tau, a panel for each network.

    chosen: each network's tau, marked.
    """
    figure, panels = build_figure(3.2 * len(tables) + 1, 4.2, columns=len(tables), sharey=True)
    for axes, (name, table) in zip(np.atleast_1d(panels), tables.items(), strict=True):
        for colour, (judge, lines) in zip((MAIN, SECOND), table.groupby("judge", sort=False), strict=False):
            for share, style in (("accuracy", "-"), ("macro_recall", "--")):
                label = f"{share.replace('_', ' ')}, by {judge}"
                axes.plot(lines["tau"], lines[share], style, color=colour, label=label)
        axes.axvline(chosen[name], color=GREY, linestyle=":", label="chosen")
        axes.set(title=name, xlabel="tau")
        axes.yaxis.set_major_formatter(PERCENT)
        axes.grid()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _plot_lines(
    lines: Mapping[str, pd.DataFrame], x: str, y: str, dashed: Collection[str] = (), **style: Any
) -> tuple[Figure, Axes]:
    """Draw column y, a share, against column x: one line per name."""
    figure, axes = build_figure(9, 4.2)
    for name, line in lines.items():
        axes.plot(line[x], line[y], "--" if name in dashed else "-", label=name, **style)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.grid()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure, axes


def _reach(shares: pd.Series, counts: Sequence[int] | pd.Series | pd.Index) -> np.ndarray:
    """Return how far Wilson's 95% intervals of shares of so many faces reach below and above, (2, N)."""
    bounds = [compute_wilson(share, int(n)) for share, n in zip(shares, counts, strict=True)]
    return np.array([(each.value - each.low, each.high - each.value) for each in bounds]).T
