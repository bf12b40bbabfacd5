"""Draw the figures of compression: accuracy against time, what int8 costs by layer, what pruning buys."""

from collections.abc import Mapping
from itertools import cycle

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, ScalarFormatter

from fer_lib.reporting.figures.style import FAINT, INK, MAIN, SECOND, STYLE, build_figure

NETWORK_COLOURS = (MAIN, "#009E73", SECOND, "#AA4499", "#E69F00", "#7A7A7A", "#56B4E9", "#882255")
KIND_COLOURS = {
    "stem": SECOND,
    "depthwise": "#E69F00",
    "pointwise": MAIN,
    "conv": "#009E73",
    "classifier": "#AA4499",
}


@mpl.rc_context(STYLE)
def plot_front(variants: pd.DataFrame, front: pd.Index) -> Figure:
    """Plot accuracy (0 to 1, with `low` and `high`) against milliseconds `ms`, and the front as a line.

    Columns network, variant, accuracy, low, high, ms, bytes; the area of a marker grows with the file.
    """
    figure, axes = build_figure(9, 5.2)
    line = variants.loc[front]
    axes.step(line["ms"], line["accuracy"], where="post", color=FAINT, lw=1.2, zorder=1)
    colours = dict(zip(variants["network"].unique(), cycle(NETWORK_COLOURS)))
    for _, row in variants.iterrows():
        colour, is_int8 = colours[row["network"]], row["variant"] != "float32"
        axes.plot([row["ms"]] * 2, [row["low"], row["high"]], color=colour, lw=1, alpha=0.5)
        axes.scatter(
            row["ms"],
            row["accuracy"],
            s=30 + row["bytes"] / 8e4,
            color=colour,
            marker="s" if is_int8 else "o",
            zorder=2,
        )
        label = f"{row['network']}{', int8' if is_int8 else ''}"
        axes.annotate(
            label,
            (row["ms"], row["accuracy"]),
            (-11 if is_int8 else 11, -3),  # on two sides: variants of a network may stand close together
            textcoords="offset points",
            size=9,
            ha="right" if is_int8 else "left",
        )
    axes.set_xscale("log")
    axes.set_xlim(variants["ms"].min() / 1.6, variants["ms"].max() * 1.6)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(xlabel="milliseconds per face, one thread (log scale)", ylabel="test accuracy")
    axes.grid()
    return figure


@mpl.rc_context(STYLE)
def plot_sensitivity(networks: Mapping[str, pd.DataFrame], threshold: float) -> Figure:
    """Plot the error of the logits when one layer alone is int8: a panel per network, columns kind, error."""
    figure, panels = build_figure(9, 1.9 * len(networks), rows=len(networks), squeeze=False)
    for axes, (name, layers) in zip(panels[:, 0], networks.items(), strict=True):
        axes.bar(np.arange(len(layers)), layers["error"], color=layers["kind"].map(KIND_COLOURS), width=0.8)
        axes.axhline(threshold, color=INK, lw=0.9, ls="--")
        axes.set(title=name, ylabel="error", xlim=(-0.7, len(layers) - 0.3))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(axis="y")
    panels[-1, 0].set_xlabel("layer, from the image to the emotion")
    seen = [
        kind for kind in KIND_COLOURS if any((layers["kind"] == kind).any() for layers in networks.values())
    ]
    handles = [mpl.patches.Patch(color=KIND_COLOURS[kind], label=kind) for kind in seen]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


@mpl.rc_context(STYLE)
def plot_pruning(rows: pd.DataFrame) -> Figure:
    """Plot accuracy and speed-up by the share of weights or multiply-adds that is left.

    Columns kind, left (0 to 1), accuracy (0 to 1) and speedup; one line per kind.
    """
    figure, panels = build_figure(9, 3.9, columns=2)
    for (kind, line), colour in zip(rows.groupby("kind", sort=False), (MAIN, SECOND), strict=False):
        line = line.sort_values("left")
        for axes, column in zip(panels, ("accuracy", "speedup"), strict=True):
            axes.plot(line["left"], line[column], marker="o", ms=5, color=colour, label=kind)
    for axes in panels:
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set(xlabel="left of the baseline", xlim=(1.03, 0))
        axes.grid()
    panels[0].set(title="Test accuracy")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panels[1].set(title="Times as fast as the baseline", ylim=(0, None))
    panels[0].legend(loc="lower left")
    return figure
