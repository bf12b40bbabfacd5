"""Draw a video's table: who showed what, and when."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fer_lib.inference.video import COLUMN_TYPES
from fer_lib.reporting.figures.style import COLOURS, FAINT, SOFT, STYLE, build_figure

MAX_TRACKS = 6

MAX_POINTS = 400
"""Moments per figure; a longer video is averaged into so many, more than a screen shows."""

MAX_GAP = 0.5
"""Seconds without the face, from which on its row shows a gap."""


@mpl.rc_context(STYLE)
def plot_timeline(table: pd.DataFrame) -> Figure:
    """Plot each person's emotions over time: a row per track, each emotion as high as its probability.

    table: as `video.analyse_video` returns it. Of more than six tracks those seen longest are shown, in order
    of appearance, and the rest are counted in a note. Readable from 390 pixels of width on.
    """
    emotions = [name for name in table.columns if name not in COLUMN_TYPES]
    lives = table.groupby("track")["time"].agg(["count", "min"])
    shown = lives.sort_values(["count", "min"], ascending=[False, True])[:MAX_TRACKS]
    shown = shown.sort_index().sort_values("min", kind="stable")
    n_rows = max(1, len(shown))
    height = 1.3 + 0.95 * n_rows
    figure, grid = build_figure(5.2, height, n_rows, sharex=True, sharey=True, squeeze=False)
    axes = grid[:, 0]
    if not len(shown):
        axes[0].text(0.5, 0.5, "no face was found", ha="center", va="center", transform=axes[0].transAxes)
    for axis, track in zip(axes, shown.index, strict=False):
        _draw_track(axis, table[table["track"] == track], emotions)
        axis.set_title(f"person #{track}", fontsize=10.5, pad=3)
    for axis in axes:
        axis.set(ylim=(0, 1), yticks=[])
        axis.spines["left"].set_visible(False)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _describe_time(seconds)))
    end = float(table["time"].max()) if len(table) else 1.0
    axes[-1].set(xlabel="time, min:s", xlim=(0, end or 1.0))
    handles = [Patch(color=COLOURS[name], label=name) for name in emotions]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, columnspacing=1.0, handlelength=1.0)
    n_left_out = len(lives) - len(shown)
    if n_left_out:
        people = "person is" if n_left_out == 1 else "people are"
        figure.text(0.99, 0.005, f"{n_left_out} more {people} not shown", ha="right", color=SOFT, fontsize=9)
    return figure


def _draw_track(axis: Axes, rows: pd.DataFrame, emotions: list[str]) -> None:
    """Draw one person's probabilities, stacked; grey where the person is out of sight."""
    axis.set_facecolor("#F2F2F2")
    span = max(float(rows["time"].max() - rows["time"].min()), 1e-9)
    moments = np.floor((rows["time"] - rows["time"].min()) / span * MAX_POINTS)
    means = rows[["time", *emotions]].groupby(moments.to_numpy()).mean()
    # A video with few frames a second has no gap between any two of them.
    usual = float(means["time"].diff().median()) if len(means) > 1 else 0.0
    visits = (means["time"].diff() > max(MAX_GAP, 3 * usual)).cumsum()
    for _, visit in means.groupby(visits.to_numpy()):
        times = visit["time"].to_numpy()
        values = visit[emotions].to_numpy().T
        if len(times) == 1:  # a single frame would have no width
            times, values = np.array([times[0], times[0] + 0.04]), np.repeat(values, 2, axis=1)
        axis.stackplot(times, values, colors=[COLOURS[name] for name in emotions], linewidth=0)
    axis.spines["bottom"].set_color(FAINT)


def _describe_time(seconds: float) -> str:
    """Return 1:05, or 0:00.5 on an axis so short that its ticks lie between seconds."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}:{rest:02.0f}" if rest == int(rest) else f"{minutes:.0f}:{rest:04.1f}"
