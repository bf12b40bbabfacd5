"""Define the one style that all figures share.

Every `plot_*` of this folder returns a matplotlib Figure that pyplot no longer knows: nothing is shown,
nothing stays open, and no global setting changes. `emotions` gives the label order.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from fer_lib.palette import EMOTION_COLOURS

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

COLOURS = {
    **EMOTION_COLOURS,
    "positive": EMOTION_COLOURS["happy"],
    "negative": EMOTION_COLOURS["sad"],
}
"""One colour per emotion and group; a neutral face and the neutral group share theirs."""

MAIN, SECOND, GREEN, AMBER, PURPLE = (COLOURS[name] for name in ("sad", "angry", "disgust", "happy", "fear"))


def build_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple:
    """Return (figure, axes) in inches, already detached from pyplot. `options` go to `plt.subplots`."""
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), **options)
    plt.close(figure)
    return figure, axes


def clean_rows(panels: Sequence[Axes]) -> None:
    """Read the rows from the top; their names need no axis line."""
    panels[0].invert_yaxis()
    for axes in panels:
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
