"""Plot robustness: severity curves as one page of small multiples, and rates by group."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fer_lib.analysis.severity_curves import Curves, list_family
from fer_lib.evaluation.perturbations import CORRUPTIONS, FAMILIES, SEVERITIES, Sample, perturb
from fer_lib.metrics_file import Interval
from fer_lib.reporting.figures.style import MAIN, SECOND, SOFT, STYLE, build_figure

_COLOURS = (MAIN, "#56B4E9", "#009E73", "#E69F00", SECOND, "#AA4499", "#7A7A7A", "#332288", "#882255")


@mpl.rc_context(STYLE)
def plot_curves(curves: Mapping[str, Curves], measure: str = "accuracy") -> Figure:
    """Plot a panel per corruption, a row per family, a line per network; a band is the first's interval."""
    families = {family: list_family(family) for family in FAMILIES}
    columns = max(map(len, families.values()))
    figure, axes = build_figure(
        12, 1.95 * len(families) + 0.6, rows=len(families), columns=columns, sharey=True
    )
    for row, (family, names) in zip(axes, families.items(), strict=True):
        row[0].set_ylabel(family, fontweight="bold")
        for place in row[len(names) :]:
            place.set_axis_off()
        for place, name in zip(row, names, strict=False):
            _draw_curves(place, name, curves, measure)
    if len(curves) > 1:
        handles, names = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _draw_curves(place: Axes, name: str, curves: Mapping[str, Curves], measure: str) -> None:
    perturbation = CORRUPTIONS[name]
    for colour, (network, found) in zip(_COLOURS, curves.items(), strict=False):
        if colour == _COLOURS[0]:
            _, low, high = np.transpose(found.trace(name, measure))
            place.fill_between(SEVERITIES, low, high, color=colour, alpha=0.2, lw=0)
        place.plot(SEVERITIES, found.get_values(name, measure), color=colour, lw=1.5, label=network)
    ticks = ["–", *(f"{level:g}" for level in perturbation.levels)]
    place.set_xticks(list(SEVERITIES), ticks, fontsize=7)
    place.set_title(name, fontsize=10)
    place.set_xlabel(perturbation.unit, fontsize=8, labelpad=1)
    place.set_ylim(0, 1 if measure != "ece" else 0.5)
    place.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    place.grid(axis="y")


@mpl.rc_context(STYLE)
def plot_perturbed(face: np.ndarray, sample: Sample) -> Figure:
    """Plot one face under every corruption, severity 0 to 5 in a strip. Drawn or averaged faces only."""
    rows = -(-len(CORRUPTIONS) // 2)
    figure, axes = build_figure(9.5, 0.95 * rows, rows=rows, columns=2)
    edges = ((0, 0), (0, face.shape[1] // 12)) + ((0, 0),) * (face.ndim - 2)
    for place in axes.flat:
        place.set_axis_off()
    for place, name in zip(axes.flat, CORRUPTIONS, strict=False):
        strip = [
            np.pad(perturb(face, name, severity, sample), edges, constant_values=255)
            for severity in SEVERITIES
        ]
        place.imshow(np.hstack(strip), cmap="gray", vmin=0, vmax=255)
        place.set_title(name, fontsize=9, pad=3)
    return figure


@mpl.rc_context(STYLE)
def plot_groups(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Plot a panel per factor: each group's accuracy with its interval, of `fairness.score_groups`."""
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    figure, axes = build_figure(10, 2.6 * rows, rows=rows, columns=columns, sharey=True, squeeze=False)
    for place, (factor, table) in zip(axes.flat, tables.items(), strict=False):
        places = np.arange(len(table))
        middle, low, high = np.transpose(table["accuracy"].tolist())
        spread = np.stack([middle - low, high - middle])
        place.errorbar(places, middle, np.clip(spread, 0, None), fmt="o", color=MAIN, lw=1.5)
        place.set_xticks(places, [str(name) for name in table.index], fontsize=8)
        place.set_title(factor.replace("_", " "), fontsize=10)
        place.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        place.grid(axis="y")
    for place in axes.flat[len(tables) :]:
        place.set_axis_off()
    return figure


@mpl.rc_context(STYLE)
def plot_following(followed: Mapping[str, Interval]) -> Figure:
    """Plot `severity_curves.score_following`: a panel per family, a line per corruption, with intervals."""
    figure, axes = build_figure(12, 3.1, columns=len(FAMILIES), sharey=True)
    for place, family in zip(axes, FAMILIES, strict=True):
        for colour, name in zip(_COLOURS, list_family(family), strict=False):
            steps = np.array([followed[f"{name}/{severity}"] for severity in SEVERITIES[1:]]).T
            place.fill_between(SEVERITIES[1:], steps[1], steps[2], color=colour, alpha=0.12, lw=0)
            place.plot(SEVERITIES[1:], steps[0], color=colour, lw=1.5, label=name)
        place.set(title=family, xlabel="severity", ylim=(-0.2, 1))
        place.axhline(0, color=SOFT, lw=1)
        place.grid(axis="y")
        place.legend(fontsize=7.5, loc="lower left")
    axes[0].set_ylabel("rank correlation")
    return figure
