"""Define the one style that all figures share, and the parts that several of them draw.

Every `plot_*` of this folder returns a matplotlib Figure that pyplot no longer knows: nothing is shown,
nothing stays open, and no global setting changes. `emotions` gives the label order.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.rcsetup import cycler
from numpy.typing import ArrayLike

from fer_lib.intervals import Interval
from fer_lib.palette import EMOTION_COLOURS

COLOURS = {
    **EMOTION_COLOURS,
    "positive": EMOTION_COLOURS["happy"],
    "negative": EMOTION_COLOURS["sad"],
}
"""One colour per emotion and group; a neutral face and the neutral group share theirs."""

MAIN, SECOND, GREEN, PURPLE, GREY, AMBER, SKY, WINE = (
    COLOURS[name] for name in ("sad", "angry", "disgust", "fear", "neutral", "happy", "surprise", "contempt")
)
LINES = (MAIN, SECOND, GREEN, PURPLE, GREY, AMBER, SKY, WINE, "#332288", "#000000")
"""The lines of a plot take these in turn."""

INK = "#222222"
SOFT = "#666666"
FAINT = "#8A8A8A"
GRID = "#E4E4E4"

STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
    "font.size": 10.5,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=LINES),
    "grid.color": GRID,
    "text.color": INK,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
}

PERCENT = "{x:.0%}"
"""Format of the ticks of an axis of shares."""


def build_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple:
    """Return (figure, axes) in inches, already detached from pyplot. `options` go to `plt.subplots`."""
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), **options)
    plt.close(figure)
    return figure, axes


def clean_rows(panels: Sequence[Axes]) -> None:
    """Leave out the line and ticks of the vertical axis: names of rows need none."""
    for axes in panels:
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)


def name_rows(panels: Sequence[Axes], names: Iterable[str]) -> None:
    """Name the rows of panels side by side, from above: the first one is at y = 0, the next at 1."""
    names = list(names)
    for axes in panels:
        axes.set_ylim(len(names) - 0.4, -0.6)
    panels[0].set_yticks(range(len(names)), names)
    clean_rows(panels)


def draw_interval(
    axes: Axes,
    y: float,
    interval: Interval,
    colour: str,
    text: str = "",
    is_filled: bool = True,
    size: float = 6,
) -> None:
    """Draw a dot, its 95% whisker, and a text to the right; nothing for an undefined score.

    size: of the dot, in points; it may not hide a short whisker.
    """
    if not interval.is_defined:
        return
    axes.hlines(y, interval.low, interval.high, color=colour, linewidth=2)
    inside = colour if is_filled else "white"
    axes.plot(interval.value, y, "o", color=colour, markerfacecolor=inside, markersize=size, clip_on=False)
    axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center", size=9.5)


def draw_band(axes: Axes, x: ArrayLike, curve: np.ndarray, **style: Any) -> None:
    """Draw a line and its 95% band; curve: float (3, N), value, low and high."""
    (line,) = axes.plot(x, curve[0], **style)
    axes.fill_between(x, curve[1], curve[2], color=line.get_color(), alpha=0.15, linewidth=0)


def draw_heatmap(axes: Axes, table: pd.DataFrame, **options: Any) -> None:
    """Draw a table of numbers as tiles, its names level beside them. `options` go to `seaborn.heatmap`."""
    sns.heatmap(table, ax=axes, **{"cmap": "Blues", "cbar": False, "linewidths": 1.5} | options)
    axes.tick_params(length=0, rotation=0)
    axes.set(xlabel="", ylabel="")


def show_image(axes: Axes, image: np.ndarray, title: str = "") -> None:
    """Show grey levels or RGB from 0 to 255 as they are, without stretching; NaN leaves the place blank."""
    if image.ndim == 3:
        image = np.nan_to_num(image, nan=255).clip(0, 255).astype(np.uint8)
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, size=10, weight="normal", loc="center", pad=4)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
