"""Draw what compressed networks score, weigh and take."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import altair as alt
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter, ScalarFormatter

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
)
from fer_lib.wording import PRECISIONS

LAYER_COLOURS = {"stem": SECOND, "depthwise": AMBER, "pointwise": MAIN, "conv": GREEN, "classifier": PURPLE}
MARKERS = {"float32": "o", "int8": "s"}
BYTES_PER_POINT = 8e4
"""A marker of the front grows by a square point for so many bytes."""


@mpl.rc_context(STYLE)
def plot_front(variants: pd.DataFrame, front: pd.Index) -> Figure:
    """Plot accuracy (0 to 1, with `low` and `high`) against milliseconds `ms`, and the front as a line.

    Columns network, variant (of `MARKERS`), accuracy, low, high, ms, bytes; the area of a marker grows with
    the file. Names stand in the legend alone: variants of one network may lie close together.
    """
    figure, axes = build_figure(9, 5.2)
    line = variants.loc[front]
    axes.step(line["ms"], line["accuracy"], where="post", color=FAINT, linewidth=1.2, zorder=1)
    colours = dict(zip(variants["network"].unique(), cycle(LINES)))
    for row in variants.to_dict("records"):
        colour, ms = colours[row["network"]], row["ms"]
        axes.vlines(ms, row["low"], row["high"], color=colour, linewidth=1.2, alpha=0.6)
        size, marker = 30 + row["bytes"] / BYTES_PER_POINT, MARKERS[row["variant"]]
        axes.scatter(ms, row["accuracy"], s=size, color=colour, marker=marker, zorder=2)
    axes.set_xscale("log")
    axes.set_xlim(variants["ms"].min() / 1.3, variants["ms"].max() * 1.3)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))  # whole percents, no halves
    axes.yaxis.set_major_formatter(PERCENT)
    axes.set(xlabel="milliseconds per face, one thread (log scale)", ylabel="test accuracy")
    axes.grid()
    kinds = [
        Line2D([], [], color=INK, marker=MARKERS[kind], lw=0, label=PRECISIONS[kind]) for kind in MARKERS
    ]
    names = [Patch(color=colour, label=name) for name, colour in colours.items()]
    handles = [*names, *kinds]
    if len(front) > 1:  # a front of one is a point
        handles.append(Line2D([], [], color=FAINT, linewidth=1.2, label="Pareto front"))
    figure.legend(handles=handles, loc="outside right center")
    return figure


def chart_front(variants: pd.DataFrame, front: pd.Index) -> dict[str, Any]:
    """Return `plot_front` as a chart; the name, the interval and the size of a variant show at its marker."""
    columns = ["network", "variant", "accuracy", "low", "high", "ms", "bytes"]
    table = variants[columns].assign(
        variant=variants["variant"].map(PRECISIONS), megabytes=variants["bytes"] / 1e6
    )
    table = table.drop(columns="bytes").round(4)
    networks = list(table["network"].unique())
    colours = alt.Scale(domain=networks, range=list(LINES[: len(networks)]))
    shapes = alt.Scale(domain=[PRECISIONS[kind] for kind in MARKERS], range=["circle", "square"])
    milliseconds = alt.Scale(type="log", nice=False, padding=24)
    picked = alt.selection_point(fields=["network"], bind="legend", name="picked")
    chart = alt.Chart(table).encode(
        x=alt.X("ms:Q", scale=milliseconds, title="milliseconds per face, one thread (log scale)"),
        color=alt.Color("network:N", scale=colours, sort=None),
        opacity=alt.when(picked).then(alt.value(1)).otherwise(alt.value(0.1)),
        tooltip=[
            "network",
            "variant",
            alt.Tooltip("accuracy", title="test accuracy", format=".1%"),
            alt.Tooltip("low", title="95% interval from", format=".1%"),
            alt.Tooltip("high", title="to", format=".1%"),
            alt.Tooltip("ms", title="ms per face", format=".2f"),
            alt.Tooltip("megabytes", title="MB", format=".2f"),
        ],
    )
    axis: Any = {"scale": alt.Scale(zero=False), "axis": alt.Axis(format=".0%"), "title": "test accuracy"}
    bars = chart.mark_rule().encode(y=alt.Y("low:Q", **axis), y2="high:Q")
    dots = chart.mark_point(filled=True).encode(
        y=alt.Y("accuracy:Q", **axis),
        shape=alt.Shape("variant:N", scale=shapes),
        size=alt.Size("megabytes:Q", legend=None),
    )
    line = alt.Chart(table.loc[front]).mark_line(interpolate="step-after", color=FAINT)
    line = line.encode(x=alt.X("ms:Q", scale=milliseconds), y=alt.Y("accuracy:Q", **axis))
    layers = alt.layer(line, bars, dots.add_params(picked))
    return layers.properties(width="container", height=400).to_dict()


@mpl.rc_context(STYLE)
def plot_sensitivity(networks: Mapping[str, pd.DataFrame], threshold: float) -> Figure:
    """Plot the error of the logits when one layer alone is INT8: a panel per network, columns kind, error."""
    size = {"rows": len(networks), "squeeze": False, "sharey": True}
    figure, panels = build_figure(9, 0.9 + 1.4 * len(networks), **size)
    for axes, (name, layers) in zip(panels[:, 0], networks.items(), strict=True):
        axes.bar(np.arange(len(layers)), layers["error"], color=layers["kind"].map(LAYER_COLOURS))
        axes.axhline(threshold, color=INK, linewidth=0.9, linestyle="--")
        axes.set(title=name, xlim=(-0.7, len(layers) - 0.3))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="y")
    figure.supylabel("error of the logits, share of their spread", fontsize=10.5)
    panels[-1, 0].set_xlabel("layer, from the image to the emotion")
    kinds = set(pd.concat(networks.values())["kind"])
    handles = [Patch(color=colour, label=kind) for kind, colour in LAYER_COLOURS.items() if kind in kinds]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


@mpl.rc_context(STYLE)
def plot_pruning(rows: pd.DataFrame) -> Figure:
    """Plot accuracy and speed-up by the share of weights or multiply-adds that is left, a line per kind.

    Columns kind, left (0 to 1), accuracy (0 to 1) and speedup, each of these two with its interval, as
    `accuracy_low` and `accuracy_high`.
    """
    figure, panels = build_figure(9, 4.1, columns=2)
    for kind, line in rows.sort_values("left").groupby("kind"):
        for axes, column in zip(panels, ("accuracy", "speedup"), strict=True):
            value = line[column]
            bars = (value - line[f"{column}_low"], line[f"{column}_high"] - value)
            axes.errorbar(line["left"], value, bars, marker="o", markersize=5, elinewidth=1.2, label=kind)
    left, right = panels
    for axes in panels:
        axes.xaxis.set_major_formatter(PERCENT)
        axes.set(xlabel="remaining share of the baseline", xlim=(1.03, 0))
        axes.grid()
    left.set(title="Test accuracy", ylim=(0, None))
    left.yaxis.set_major_formatter(PERCENT)
    right.set(title="Times as fast as the baseline", ylim=(0, None))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
