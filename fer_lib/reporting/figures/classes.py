"""Draw what a network scores emotion by emotion, as figures and as charts that a browser shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from fer_lib.intervals import UNDEFINED, Interval
from fer_lib.reporting.figures.style import (
    COLOURS,
    FAINT,
    GRID,
    INK,
    SOFT,
    STYLE,
    build_figure,
    draw_heatmap,
    draw_interval,
    name_rows,
)

N_CHART_POINTS = 60
"""So many points of a ROC curve a chart keeps."""


@mpl.rc_context(STYLE)
def plot_class_scores(
    scores: Mapping[str, Interval], names: Mapping[str, str], emotions: Sequence[str]
) -> Figure:
    """Plot scores of each class with their 95% intervals: a panel per name, which maps to its title.

    scores: of `metrics.score_predictions`. The last row is the macro average; undefined ones are left empty.
    names: one, or an even number. Panels share a scale, but for specificity, near 1 for most classifiers.
    """
    rows, columns = [*emotions, "macro average"], min(2, len(names))
    n_rows = len(names) // columns
    height = n_rows * (0.9 + 0.34 * len(rows))
    figure, grid = build_figure(9, height, rows=n_rows, columns=columns, sharey=True, squeeze=False)
    first = grid[0, 0]
    for axes, (name, title) in zip(grid.flat, names.items(), strict=True):
        has_own_scale = name == "specificity" and axes is not first
        if axes is not first and not has_own_scale:
            axes.sharex(first)
        keys = [*(f"{name}.{emotion}" for emotion in emotions), f"macro.{name}"]
        for y, (row, key) in enumerate(zip(rows, keys, strict=True)):
            score = scores.get(key, UNDEFINED)
            draw_interval(axes, y, score, COLOURS.get(row, INK), f"{score.value:.3f}", size=4.5)
        axes.axhline(len(emotions) - 0.5, color=GRID, linewidth=1)
        axes.set_title(f"{title} (a scale of its own)" if has_own_scale else title)
        axes.grid(axis="x")
    left, right = first.get_xlim()
    first.set_xlim(max(0, left), min(1, right))
    for panels in grid:
        name_rows(panels, rows)
    return figure


@mpl.rc_context(STYLE)
def plot_confusion(confusion: np.ndarray, emotions: Sequence[str]) -> Figure:
    """Plot int (C, C) counts, rows = labels: colour and percentage per row, and the counts."""
    totals = confusion.sum(axis=1)
    names = [f"{name}  ({total:,})" for name, total in zip(emotions, totals, strict=True)]
    counts = pd.DataFrame(confusion, names, list(emotions))
    shares = counts.div(np.maximum(totals, 1), axis=0)
    texts = shares.map("{:.0%}".format) + "\n" + counts.map("{:,}".format)
    figure, axes = build_figure(8, 1.2 + 0.8 * len(emotions))
    draw_heatmap(axes, shares, annot=texts, fmt="", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="label (images)")
    return figure


def chart_confusion(confusion: np.ndarray, emotions: Sequence[str]) -> dict[str, Any]:
    """Return `plot_confusion` as a chart: shares of a label's images or, by choice, of a prediction's."""
    table = pd.DataFrame(confusion, list(emotions), list(emotions)).rename_axis(
        index="label", columns="predicted"
    )
    cells = table.reset_index().melt("label", value_name="images")
    for column, key in (("recalled", "label"), ("precise", "predicted")):
        cells[column] = (cells["images"] / cells.groupby(key)["images"].transform("sum")).round(4).fillna(0)
    names = {"each label (recall)": "recalled", "each prediction (precision)": "precise"}
    choice = alt.binding_radio(options=list(names.values()), labels=list(names), name="Shares of ")
    share_of = alt.param(name="share_of", value="recalled", bind=choice)
    order = list(emotions)
    tiles = (
        alt.Chart(cells)
        .transform_calculate(share="datum[share_of]")
        .encode(
            x=alt.X("predicted:N", sort=order, title="predicted", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("label:N", sort=order, title="label"),
            tooltip=[
                "label",
                "predicted",
                alt.Tooltip("images", format=","),
                alt.Tooltip("recalled", title="of the label's images", format=".1%"),
                alt.Tooltip("precise", title="of the predictions", format=".1%"),
            ],
        )
    )
    colour = alt.Color("share:Q", legend=None, scale=alt.Scale(scheme="blues", domain=[0, 1]))
    ink = alt.when("datum.share > 0.5").then(alt.value("white")).otherwise(alt.value(INK))
    text = tiles.mark_text().encode(text=alt.Text("share:Q", format=".0%"), color=ink)
    chart = alt.layer(tiles.mark_rect().encode(color=colour), text).add_params(share_of)
    return chart.properties(width="container", height=48 * len(order)).to_dict()


@mpl.rc_context(STYLE)
def plot_roc(labels: np.ndarray, probabilities: np.ndarray, emotions: Sequence[str]) -> Figure:
    """Plot one ROC curve per class against the rest; classes without images are left out."""
    figure, axes = build_figure(8.2, 6)
    curves = _trace_roc(labels, probabilities, emotions)
    for (emotion, auroc), curve in curves.groupby(["emotion", "AUROC"], sort=False):
        axes.plot(curve["fpr"], curve["tpr"], color=COLOURS[str(emotion)], label=f"{auroc:.3f}  {emotion}")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(0.43, 0.36, "chance", rotation=45, rotation_mode="anchor", color=SOFT)
    axes.set(xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
    axes.set(xlabel="false positive rate (1 − specificity)", ylabel="true positive rate (recall)")
    axes.grid()
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), title="AUROC", alignment="left")
    return figure


def chart_roc(labels: np.ndarray, probabilities: np.ndarray, emotions: Sequence[str]) -> dict[str, Any]:
    """Return `plot_roc` as a chart, each curve thinned, with the threshold of each of its points."""
    curves = _trace_roc(labels, probabilities, emotions)
    kept = [
        curve.iloc[np.unique(np.linspace(0, len(curve) - 1, N_CHART_POINTS).astype(int))]
        for _, curve in curves.groupby("emotion", sort=False)
    ]
    points = pd.concat(kept).round(4)
    names = points["emotion"].unique()
    colours = alt.Scale(domain=list(names), range=[COLOURS[name] for name in names])
    picked = alt.selection_point(fields=["emotion"], bind="legend", name="picked")
    chart = alt.Chart(points).encode(
        x=alt.X("fpr:Q", title="false positive rate (1 − specificity)", axis=alt.Axis(tickCount=5)),
        y=alt.Y("tpr:Q", title="true positive rate (recall)", axis=alt.Axis(tickCount=5)),
        order="row:Q",
        color=alt.Color("emotion:N", scale=colours, sort=None),
        tooltip=[
            "emotion",
            alt.Tooltip("AUROC", format=".3f"),
            alt.Tooltip("threshold", title="predicted from a probability of", format=".3f"),
            alt.Tooltip("tpr", title="recall", format=".1%"),
            alt.Tooltip("fpr", title="false positive rate", format=".1%"),
        ],
    )
    shown = alt.when(picked).then(alt.value(1)).otherwise(alt.value(0.1))
    lines = chart.mark_line().encode(opacity=shown).add_params(picked)
    # What the mouse meets; a line alone has no points. Not the nearest: Vega-Lite then loses the emotion.
    dots = chart.mark_point(filled=True, size=90, opacity=0)
    return alt.layer(lines, dots).properties(width="container", height=440).to_dict()


def tabulate_roc(labels: np.ndarray, probabilities: np.ndarray, emotions: Sequence[str]) -> pd.DataFrame:
    """Return recall by false positive rate, 0 to 1 in hundredths, for `dvc plots`.

    Columns false_positive_rate, macro_average and each emotion that occurs.
    """
    rates = np.linspace(0, 1, 101)
    curves = _trace_roc(labels, probabilities, emotions).groupby("emotion", sort=False)
    # The highest recall at each rate: a curve is vertical at some.
    recalls = pd.DataFrame(
        {
            name: curve["tpr"].to_numpy()[curve["fpr"].searchsorted(rates, "right") - 1]
            for name, curve in curves
        }
    )
    recalls.insert(0, "macro_average", recalls.mean(axis=1))
    recalls.insert(0, "false_positive_rate", rates)
    return recalls


def _trace_roc(labels: np.ndarray, probabilities: np.ndarray, emotions: Sequence[str]) -> pd.DataFrame:
    """Return the points of each ROC curve, the largest area first.

    Columns emotion, AUROC, fpr, tpr, threshold (the probability from which the emotion counts as predicted)
    and row, which orders the points.
    """
    curves, areas = [], []
    for c, emotion in enumerate(emotions):
        positive = np.asarray(labels) == c
        if 0 < positive.sum() < len(positive):
            scores = probabilities[:, c]
            fpr, tpr, threshold = roc_curve(positive, scores)
            area = roc_auc_score(positive, scores)
            curve = pd.DataFrame({"fpr": fpr, "tpr": tpr, "threshold": np.minimum(threshold, 1)})
            curves.append(curve.rename_axis("row").reset_index().assign(emotion=emotion, AUROC=area))
            areas.append(area)
    return pd.concat([curves[i] for i in np.argsort(areas)[::-1]], ignore_index=True)
