"""Draw the figures that compare networks and studies, and those of the claims ledger."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from fer_lib.evaluation.claims import BELOW, CONTAINED, REACHED, SUPPORTED, VERDICTS
from fer_lib.metrics_file import Interval
from fer_lib.reporting.figures.style import (
    AMBER,
    COLOURS,
    FAINT,
    GREEN,
    GRID,
    INK,
    MAIN,
    PURPLE,
    SECOND,
    SOFT,
    STYLE,
    build_figure,
)

LINES = (MAIN, SECOND, GREEN, PURPLE, COLOURS["neutral"])
VERDICT_COLOURS = dict(zip(VERDICTS, (GREEN, AMBER, SECOND, FAINT), strict=True))
POSITION_COLOURS = {REACHED: GREEN, CONTAINED: AMBER, BELOW: MAIN}


@mpl.rc_context(STYLE)
def plot_scores(scores: Mapping[str, Interval], xlabel: str) -> Figure:
    """Plot one row per network, from above: a share, 0 to 1, with its 95 % interval."""
    figure, axes = build_figure(8, 1.0 + 0.42 * len(scores))
    for y, (value, low, high) in enumerate(scores.values()):
        axes.hlines(y, low, high, color=MAIN, linewidth=1.6)
        axes.plot(value, y, "o", color=MAIN, markersize=6)
        axes.annotate(f"{value:.1%}", (value, y), (0, 7), textcoords="offset points", ha="center")
    axes.set_yticks(range(len(scores)), scores)
    axes.set(xlabel=xlabel, ylim=(len(scores) - 0.4, -0.75))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    return figure


@mpl.rc_context(STYLE)
def plot_risk_coverage(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Plot the accuracy of selective prediction by coverage; curves by name, of `compute_risk_coverage`."""
    # Below 5 % a handful of faces decides.
    lines = {name: curve[curve["coverage"] >= 0.05] for name, curve in curves.items()}
    figure, axes = _plot_lines(lines, "coverage", "accuracy")
    axes.set(
        xlabel="coverage: share of faces predicted, the surest first", ylabel="accuracy on these", xlim=(0, 1)
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


@mpl.rc_context(STYLE)
def plot_time(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Plot validation accuracy against minutes of training; frames by network: seconds, val_accuracy."""
    lines = {name: curve.assign(minutes=curve["seconds"] / 60) for name, curve in curves.items()}
    figure, axes = _plot_lines(lines, "minutes", "val_accuracy", marker="o", ms=4)
    axes.set(xlabel="minutes of training", ylabel="validation accuracy", xlim=(0, None))
    return figure


@mpl.rc_context(STYLE)
def plot_disagreement(disagreement: pd.DataFrame) -> Figure:
    """Plot the share of test faces that two networks predict differently, a square of names by names."""
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
def plot_differences(differences: pd.DataFrame, shares: Sequence[str]) -> Figure:
    """Plot the gain of each arm, a panel per share; columns arm, share, gain, low, high (-1 to 1).

    Clear ones, whose interval leaves out 0, are filled.
    """
    arms = list(dict.fromkeys(differences["arm"]))
    figure, panels = build_figure(9, 1.1 + 0.34 * len(arms), columns=len(shares), sharey=True)
    for axes, share in zip(np.atleast_1d(panels), shares, strict=True):
        rows = differences[differences["share"] == share].set_index("arm")[["gain", "low", "high"]]
        rows = 100 * rows.reindex(arms)
        for y, (gain, low, high) in enumerate(rows.to_numpy()):
            clear = low > 0 or high < 0
            colour = (MAIN if gain > 0 else SECOND) if clear else FAINT
            axes.plot([low, high], [y, y], color=colour)
            axes.plot(gain, y, "o", ms=6, color=colour, mfc=colour if clear else "white")
        axes.axvline(0, color=INK, lw=0.9)
        axes.set(title=share.replace("_", " ").replace(".", " "), ylim=(len(arms) - 0.4, -0.6))
        axes.set_yticks(range(len(arms)), arms)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    figure.supxlabel("points gained or lost", fontsize=10.5)
    return figure


def list_gains(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the differences that rules of kind `gains` have found: the claim's id and the check of each."""
    gains = [row for row in rows if row["rule"] == "gains"]
    return [(row["id"], check) for row in gains for check in row["checks"] if check["low"] is not None]


@mpl.rc_context(STYLE)
def plot_verdicts(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the rows of `claims.judge_claim`: a line per verdict, a tile per claim."""
    longest = max(12, max(sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS))
    figure, axes = build_figure(9, 2.6)
    for y, (verdict, colour) in enumerate(VERDICT_COLOURS.items()):
        names = [row["id"] for row in rows if row["verdict"] == verdict]
        axes.text(-0.03, y, verdict, ha="right", va="center", transform=axes.get_yaxis_transform())
        axes.text(0, y, len(names), ha="right", va="center", weight="bold", size=12)
        for x, name in enumerate(names, start=1):
            axes.add_patch(Rectangle((x - 0.45, y - 0.36), 0.9, 0.72, color=colour, linewidth=0))
            ink = INK if colour == AMBER else "white"
            axes.text(x, y, name, color=ink, weight="bold", size=9.5, ha="center", va="center")
    axes.set(xlim=(-0.4, longest + 0.5), ylim=(len(VERDICTS) - 0.6, -0.5), yticks=[], xticks=[])
    axes.spines[:].set_visible(False)
    return figure


@mpl.rc_context(STYLE)
def plot_gains(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the differences of `list_gains`, at least one, over the side of 0 that the claim expects."""
    gains = list_gains(rows)
    figure, axes = build_figure(9, 1.2 + 0.36 * len(gains))
    reach = 108 * max(abs(check[end]) for _, check in gains for end in ("value", "low", "high"))
    for y, (_, check) in enumerate(gains):
        is_clear = check["low"] > 0 or check["high"] < 0
        colour = GREEN if check["outcome"] == SUPPORTED else SECOND if is_clear else FAINT
        side = reach if check["expected"] == "above 0" else -reach
        axes.barh(y, side, height=0.8, color=GRID, alpha=0.6)
        axes.plot([100 * check["low"], 100 * check["high"]], [y, y], color=colour, linewidth=2)
        axes.plot(100 * check["value"], y, "o", ms=6, color=colour, mfc=colour if is_clear else "white")
    axes.axvline(0, color=INK, linewidth=0.9)
    names = [f"{name}   {_name_gain(check['key'])}" for name, check in gains]
    axes.set_yticks(range(len(gains)), names)
    axes.set(xlim=(-reach, reach), ylim=(len(gains) - 0.4, -0.6), xlabel="points of 100")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure


@mpl.rc_context(STYLE)
def plot_accuracies(accuracies: Sequence[Mapping[str, Any]], value: float) -> Figure:
    """Plot `collect_accuracies`, a row each under the name of its data set, and a line at `value`."""
    datasets = list(dict.fromkeys(row["dataset"] for row in accuracies))
    figure, axes = build_figure(9, 1.2 + 0.34 * (len(accuracies) + len(datasets)))
    beside = axes.get_yaxis_transform()
    y, ticks = 0, {}
    for dataset in datasets:
        axes.text(-0.01, y, dataset, ha="right", va="center", weight="bold", transform=beside)
        y += 1
        for row in (row for row in accuracies if row["dataset"] == dataset):
            colour = POSITION_COLOURS[row["reached"]]
            axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2)
            axes.plot(row["accuracy"], y, "o", ms=6, color=colour)
            axes.text(1.01, y, f"{row['accuracy']:.1%}", va="center", size=9.5, transform=beside)
            split = "" if row["split"] == "test" else f", {row['split']}"
            ticks[y] = f"{row['model']}, {row['classes']} {row['labels']}{split}"
            y += 1
    axes.axvline(value, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(value, -0.9, f"the paper's {value:.0%}", ha="center", va="bottom", color=SOFT)
    axes.set_yticks(list(ticks), ticks.values())
    axes.set(xlabel="accuracy", ylim=(y - 0.4, -0.8))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
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


def _name_gain(key: str) -> str:
    """Return `loss: focal 2, recall, fear` for `loss.focal_2.recall.gain.fear`."""
    study, *rest = [part.replace("_", " ") for part in key.split(".") if part != "gain"]
    return f"{study}: {', '.join(rest)}" if rest else study
