"""Figures of robustness: severity curves as one page of small multiples, and rates by group."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fer_lib.perturbations import FAMILIES, PERTURBATIONS, SEVERITIES, Sample, perturb
from fer_lib.plots import INK, MAIN, SECOND, STYLE, build_figure
from fer_lib.robustness_scores import Curves, list_family

_COLOURS = (MAIN, "#56B4E9", "#009E73", "#E69F00", SECOND, "#AA4499", "#7A7A7A")


@mpl.rc_context(STYLE)
def plot_curves(curves: Mapping[str, Curves], measure: str = "accuracy") -> Figure:
    """Plot a panel per perturbation, a row per family, a line per network; a band is the first's interval."""
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
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _draw_curves(place: Axes, name: str, curves: Mapping[str, Curves], measure: str) -> None:
    perturbation = PERTURBATIONS[name]
    for colour, (network, found) in zip(_COLOURS, curves.items(), strict=False):
        curve = found.trace(name, measure)
        if colour == _COLOURS[0]:
            place.fill_between(curve["severity"], curve["low"], curve["high"], color=colour, alpha=0.2, lw=0)
        place.plot(curve["severity"], curve["value"], color=colour, lw=1.5, label=network)
    ticks = ["–", *(f"{level:g}" for level in perturbation.levels)]
    place.set_xticks(list(SEVERITIES), ticks, fontsize=7)
    place.set_title(name, fontsize=10)
    place.set_xlabel(perturbation.unit, fontsize=8, labelpad=1)
    place.set_ylim(0, 1)
    place.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    place.grid(axis="y")


@mpl.rc_context(STYLE)
def plot_perturbed(face: np.ndarray, sample: Sample) -> Figure:
    """Plot one face under every perturbation: a row each, severity 0 to 5. Drawn or averaged faces only."""
    figure, axes = build_figure(
        8.6,
        0.62 * len(PERTURBATIONS) / 2 + 1,
        rows=-(-len(PERTURBATIONS) // 2),
        columns=2 * len(SEVERITIES) + 1,
        gridspec_kw={"wspace": 0.02, "hspace": 0.02},
    )
    for place in axes.flat:
        place.set_axis_off()
    for number, name in enumerate(PERTURBATIONS):
        row, half = number // 2, number % 2
        for severity in SEVERITIES:
            place = axes[row, half * (len(SEVERITIES) + 1) + severity]
            place.imshow(perturb(face, name, severity, sample), cmap="gray", vmin=0, vmax=255)
        first = axes[row, half * (len(SEVERITIES) + 1)]
        first.set_title(name, fontsize=7, loc="left", pad=2, fontweight="normal")
    return figure


@mpl.rc_context(STYLE)
def plot_groups(tables: Mapping[str, pd.DataFrame], measure: str = "accuracy") -> Figure:
    """Plot a panel per factor: each group's measure with its interval, from `fairness.score_groups`."""
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    figure, axes = build_figure(10, 2.6 * rows, rows=rows, columns=columns, sharey=True, squeeze=False)
    for place, (factor, table) in zip(axes.flat, tables.items(), strict=False):
        places = np.arange(len(table))
        spread = np.stack([table[measure] - table[f"{measure}_lo"], table[f"{measure}_hi"] - table[measure]])
        place.errorbar(places, table[measure], np.clip(spread, 0, None), fmt="o", color=MAIN, lw=1.5)
        place.set_xticks(places, [str(name) for name in table.index], fontsize=8)
        place.set_title(factor.replace("_", " "), fontsize=10)
        place.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        place.grid(axis="y")
    for place in axes.flat[len(tables) :]:
        place.set_axis_off()
    return figure


@mpl.rc_context(STYLE)
def plot_following(correlations: pd.DataFrame) -> Figure:
    """Plot how far heat maps follow: perturbation by severity, the median rank correlation."""
    figure, axes = build_figure(6.5, 0.34 * len(correlations) + 1)
    axes.imshow(correlations, vmin=-1, vmax=1, cmap="RdBu", aspect="auto")
    for (row, column), value in np.ndenumerate(correlations.to_numpy()):
        axes.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            size=9,
            color="white" if abs(value) > 0.5 else INK,
        )
    axes.set_xticks(range(correlations.shape[1]), list(correlations.columns))
    axes.set_yticks(range(len(correlations)), list(correlations.index))
    axes.set_xlabel("severity")
    return figure
