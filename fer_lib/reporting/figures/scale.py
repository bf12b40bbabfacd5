"""Draw the figures of notebook 10: throughput, where the time goes, waiting times, and larger machines."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from fer_lib.reporting.figures.style import FAINT, LINES, MAIN, STYLE, build_figure, name_rows


@mpl.rc_context(STYLE)
def plot_throughput(rates: pd.DataFrame) -> Figure:
    """Plot images per second against workers, a panel per kind of image, a dot per run.

    rates: columns work, workers, per_second. The dashed line is the mean of one worker times the workers.
    """
    works = list(rates["work"].unique())
    figure, panels = build_figure(8, 3.5, columns=len(works), squeeze=False)
    for axes, work in zip(panels[0], works, strict=True):
        group = rates[rates["work"] == work]
        workers = np.array(sorted(group["workers"].unique()))
        one = group.loc[group["workers"] == 1, "per_second"].mean()
        axes.plot(
            workers, one * workers, "--", color=FAINT, linewidth=1.2, label="one worker times the workers"
        )
        axes.plot(
            group["workers"], group["per_second"], "o", color=MAIN, label="measured, each run", clip_on=False
        )
        axes.set(title=work, xlabel="workers", xticks=workers, ylim=(0, None))
        axes.set_xlim(workers[0] - 0.3, workers[-1] + 0.3)
    panels[0][0].set_ylabel("images per second")
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure


@mpl.rc_context(STYLE)
def plot_parts(parts: Mapping[str, Mapping[str, float]]) -> Figure:
    """Plot the milliseconds of an image in each part of the work, a bar per kind of image."""
    figure, axes = build_figure(8, 0.8 + 0.6 * len(parts))
    left = np.zeros(len(parts))
    for part, colour in zip(next(iter(parts.values())), LINES, strict=False):
        widths = np.array([times[part] for times in parts.values()])
        axes.barh(range(len(parts)), widths, 0.55, left=left, color=colour, label=part)
        left += widths
    name_rows([axes], parts)
    axes.set(xlabel="milliseconds per image on one thread", xlim=(0, None))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(LINES))
    return figure


@mpl.rc_context(STYLE)
def plot_waiting(p99_ms: Sequence[float]) -> Figure:
    """Plot the 99th percentile of waiting times, in milliseconds, by minute."""
    figure, axes = build_figure(8, 2.8)
    minutes = np.arange(1, len(p99_ms) + 1)
    axes.plot(minutes, p99_ms, "o-", color=MAIN, clip_on=False)
    axes.set(xlabel="minute of the overload", ylabel="99th percentile, ms", xticks=minutes)
    axes.set_ylim(0, 1.1 * max(p99_ms))
    axes.grid(axis="y")
    return figure


@mpl.rc_context(STYLE)
def plot_steps(measured: np.ndarray, predicted: np.ndarray, processes: np.ndarray) -> Figure:
    """Plot steps predicted from the others against those measured, float (n,) seconds, log axes."""
    figure, axes = build_figure(6.6, 4.2)
    ends = [0.9 * min(measured.min(), predicted.min()), 1.1 * max(measured.max(), predicted.max())]
    axes.plot(ends, ends, "--", color=FAINT, linewidth=1.2, label="equal")
    for n, colour in zip(sorted(set(processes)), LINES, strict=False):
        chosen, plural = processes == n, "es" if n > 1 else ""
        axes.plot(measured[chosen], predicted[chosen], "o", color=colour, label=f"{n} process{plural}")
    axes.set(xscale="log", yscale="log", xlabel="measured, seconds", ylabel="predicted, seconds")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FormatStrFormatter("%g"))
        axis.set_minor_formatter(NullFormatter())
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
