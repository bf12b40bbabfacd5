"""Draw the figures of training and evaluation."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.metrics import roc_auc_score, roc_curve

from fer_lib.metrics_file import UNDEFINED, Interval
from fer_lib.reporting.figures.style import (
    COLOURS,
    FAINT,
    GRID,
    INK,
    MAIN,
    SECOND,
    SOFT,
    STYLE,
    build_figure,
    clean_rows,
)


@mpl.rc_context(STYLE)
def plot_training_curves(history: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """Plot loss and validation accuracy per epoch beside the paper's.

    Both frames have the columns epoch, train_loss, val_loss (nats) and val_accuracy (0 to 1).
    """
    figure, (left, right) = build_figure(9, 3.9, columns=2)
    for column, colour, name in (("train_loss", SECOND, "training"), ("val_loss", MAIN, "validation")):
        _draw_curve(left, history, paper, column, colour, name)
    _draw_curve(right, history, paper, "val_accuracy", MAIN, "validation")
    left.set(title="Loss", ylim=(0, None))
    right.set(title="Validation accuracy", ylim=(0, 1))
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y")
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


@mpl.rc_context(STYLE)
def plot_confusion(confusion: np.ndarray, emotions: Sequence[str]) -> Figure:
    """Plot int (C, C) counts, rows = labels: colour and percentage per row, counts in small print."""
    totals = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    figure, axes = build_figure(8, 7)
    sns.heatmap(shares, vmin=0, vmax=1, cmap="Blues", cbar=False, square=True, linewidths=1.5, ax=axes)
    for (row, column), count in np.ndenumerate(confusion):
        colour = "white" if shares[row, column] > 0.5 else INK
        place = {"ha": "center", "color": colour}
        axes.text(column + 0.5, row + 0.5, f"{shares[row, column]:.0%}", va="bottom", size=11, **place)
        axes.text(column + 0.5, row + 0.56, f"{count:,}", va="top", size=9, alpha=0.8, **place)
    names = [f"{name}  ({total:,})" for name, total in zip(emotions, totals[:, 0], strict=True)]
    axes.set_yticks(axes.get_yticks(), names, rotation=0)
    axes.set_xticks(axes.get_xticks(), emotions, rotation=0)
    axes.tick_params(length=0)
    axes.set(title="Confusion matrix: share and number of each label's images")
    axes.set(xlabel="predicted", ylabel="label (images)")
    return figure


@mpl.rc_context(STYLE)
def plot_class_scores(
    scores: Mapping[str, Interval], names: Mapping[str, str], emotions: Sequence[str]
) -> Figure:
    """Plot scores of each class with their 95 % intervals: a panel per name, which maps to its title.

    scores: of `metrics.score_predictions`. The last row is the macro average; undefined ones are left empty.
    """
    rows = [*emotions, "macro average"]
    figure, panels = build_figure(9, 0.9 + 0.42 * len(rows), columns=len(names), sharey=True, squeeze=False)
    for axes, (name, title) in zip(panels[0], names.items(), strict=True):
        for y, emotion in enumerate(emotions):
            _draw_interval(axes, scores.get(f"{name}.{emotion}", UNDEFINED), y, COLOURS[emotion])
        _draw_interval(axes, scores.get(f"macro.{name}", UNDEFINED), len(emotions), INK)
        axes.axhline(len(emotions) - 0.5, color=GRID, linewidth=1)
        axes.set(title=title, xlim=(0, 1), xticks=(0, 0.5, 1), xticklabels=("0", "0.5", "1"))
        axes.grid(axis="x")
    panels[0, 0].set_yticks(range(len(rows)), rows)
    clean_rows(panels[0])
    return figure


@mpl.rc_context(STYLE)
def plot_reliability(reliability: pd.DataFrame) -> Figure:
    """Plot accuracy against confidence from `metrics.compute_reliability`, over the images per bin."""
    figure, (top, bottom) = build_figure(6.5, 7, rows=2, sharex=True, height_ratios=(4, 1))
    filled = reliability[reliability["count"] > 0]
    top.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    top.vlines(
        filled["confidence"], filled["confidence"], filled["accuracy"], color=SECOND, linewidth=2, alpha=0.6
    )
    top.plot(filled["confidence"], filled["accuracy"], color=MAIN, marker="o", clip_on=False)
    top.text(
        0.03, 0.045, "ideal", rotation=45, transform_rotates_text=True, rotation_mode="anchor", color=SOFT
    )
    top.set(title="Reliability: accuracy of predictions by their confidence", ylabel="accuracy")
    top.set(xlim=(0, 1), ylim=(0, 1))
    top.grid()
    width = reliability["upper"] - reliability["lower"]
    bottom.bar(reliability["lower"], reliability["count"], width, align="edge", color=MAIN, edgecolor="white")
    bottom.set(xlabel="confidence", ylabel="images")
    for axes in (top, bottom):
        axes.label_outer()
    return figure


@mpl.rc_context(STYLE)
def plot_roc(labels: np.ndarray, probabilities: np.ndarray, emotions: Sequence[str]) -> Figure:
    """Plot one ROC curve per class against the rest; classes without images are left out."""
    figure, axes = build_figure(6.5, 6.6)
    curves = []
    for c, emotion in enumerate(emotions):
        positive = np.asarray(labels) == c
        if 0 < positive.sum() < len(positive):
            scores = probabilities[:, c]
            curves.append((roc_auc_score(positive, scores), emotion, roc_curve(positive, scores)[:2]))
    for auroc, emotion, (fall_out, recall) in sorted(curves, key=lambda curve: -curve[0]):
        axes.plot(fall_out, recall, color=COLOURS[emotion], label=f"{auroc:.3f}  {emotion}")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(0.43, 0.36, "chance", rotation=45, rotation_mode="anchor", color=SOFT)
    axes.set(title="ROC, each emotion against the rest", xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
    axes.set(xlabel="false positive rate (1 − specificity)", ylabel="true positive rate (recall)")
    axes.grid()
    axes.legend(loc="lower right", title="AUROC", alignment="left", borderaxespad=1)
    return figure


@mpl.rc_context(STYLE)
def plot_split_comparison(scores: Mapping[str, Mapping[str, Interval]], names: Mapping[str, str]) -> Figure:
    """Plot scores of two splits with their 95 % intervals: a row per name, which maps to its title.

    scores: name of a split, as the legend shows it, to `metrics.score_predictions`.
    """
    figure, axes = build_figure(9, 1.2 + 0.62 * len(names))
    for (split, found), offset, colour in zip(scores.items(), (-0.15, 0.15), (MAIN, SECOND), strict=True):
        for y, name in enumerate(names):
            _draw_interval(axes, found.get(name, UNDEFINED), y + offset, colour)
        axes.plot([], [], "o", color=colour, label=split)
    axes.set_yticks(range(len(names)), names.values())
    axes.set_title("All test images against those without a copy in training", pad=30)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, handletextpad=0.2)
    axes.grid(axis="x")
    axes.margins(x=0.05)
    clean_rows([axes])
    return figure


@mpl.rc_context(STYLE)
def plot_agreement(agreement: pd.DataFrame) -> Figure:
    """Plot `votes.measure_agreement`: accuracy by the number of annotators who agree."""
    figure, axes = build_figure(8, 4.2)
    names = {"annotators": "the annotators' answer", "model": "the network", "voter": "one annotator"}
    for (column, name), colour in zip(names.items(), (SOFT, MAIN, SECOND), strict=True):
        if column not in agreement:
            continue
        style = "-" if column == "model" else "--"
        axes.plot(agreement.index, agreement[column], style, marker="o", color=colour, label=name)
    ticks = [f"{'up to ' if n == agreement.index.min() else ''}{n}" for n in agreement.index]
    counted = [f"{tick}\n{count:,}" for tick, count in zip(ticks, agreement["n_images"], strict=True)]
    axes.set_xticks(agreement.index, counted)
    axes.set(xlabel="annotators who gave the most frequent answer / images", ylabel="accuracy", ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="y")
    axes.legend(loc="upper left")
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


def _draw_curve(
    axes: Axes, history: pd.DataFrame, paper: pd.DataFrame, column: str, colour: str, name: str
) -> None:
    axes.plot(
        history["epoch"], history[column], color=colour, marker="o", markersize=4, label=f"{name}, this run"
    )
    axes.plot(
        paper["epoch"],
        paper[column],
        color=colour,
        linestyle=(0, (2, 2)),
        linewidth=1.2,
        marker="D",
        markerfacecolor="white",
        label=f"{name}, paper",
    )


def _draw_interval(axes: Axes, interval: Interval, y: float, colour: str) -> None:
    """Draw a dot, its 95 % whisker and its value; nothing when the data do not define the score."""
    if not interval.is_defined:
        return
    axes.hlines(y, interval.low, interval.high, color=colour, linewidth=2)
    axes.plot(interval.value, y, "o", color=colour, markersize=5.5, clip_on=False)
    axes.text(1.02, y, f"{interval.value:.3f}", transform=axes.get_yaxis_transform(), va="center", size=9.5)
