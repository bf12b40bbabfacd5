"""Draw the figures of notebook 08: common corruptions, and the accuracy of subgroups."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_lib.analysis.severity_curves import Curves, list_family
from fer_lib.evaluation.perturbations import CORRUPTIONS, FAMILIES, SEVERITIES, Sample, perturb
from fer_lib.intervals import Interval
from fer_lib.reporting.figures.data import plot_face_grid
from fer_lib.reporting.figures.style import (
    LINES,
    MAIN,
    PERCENT,
    SOFT,
    STYLE,
    build_figure,
    draw_interval,
    name_rows,
)
from fer_lib.wording import spell_group

PROXY_AXES = {
    "luminance": "grey level at the nose: dark to bright",
    "sharpness": "sharpness: blurred to sharp",
    "size": "eye distance: short to long",
    "yaw": "nose off the midline: little to much",
    "roll": "tilt of the eyes: little to much",
}
"""What the fifths of each proxy of `fairness.measure_proxies` run along."""

FACTOR_AXES = {
    "skin_tone": "Monk scale, 1 is the lightest",
    "age": "0 is young, 1 is old",
    "masculinity": "0 is feminine, 1 is masculine",
    "glasses": "worn",
    "mask": "worn",
    "yaw": "degrees",
    "pitch": "degrees",
    "light_azimuth": "degrees to the side",
    "light_strength": "1 is well exposed",
}
"""What the values of each counterfactual factor are."""


@mpl.rc_context(STYLE)
def plot_perturbed(face: np.ndarray, sample: Sample) -> Figure:
    """Plot one face under every corruption, severity 0 to 5 in a strip. Drawn or averaged faces only."""
    gap = ((0, 0), (0, face.shape[1] // 12), (0, 0))[: face.ndim]
    strips = []
    for name in CORRUPTIONS:
        changed = [perturb(face, name, severity, sample) for severity in SEVERITIES]
        strips.append(np.hstack([np.pad(each, gap, constant_values=255) for each in changed]))
    return plot_face_grid(strips, list(CORRUPTIONS), 2)


@mpl.rc_context(STYLE)
def plot_curves(curves: Curves) -> Figure:
    """Plot accuracy by severity: a panel per family of corruptions, a line per corruption."""
    figure, panels = _draw_families(lambda name: curves.trace(name), SEVERITIES)
    for axes in panels:
        axes.set(ylim=(0, 1))
        axes.yaxis.set_major_formatter(PERCENT)
    _label_left(panels, "accuracy")
    return figure


@mpl.rc_context(STYLE)
def plot_following(followed: Mapping[str, Interval]) -> Figure:
    """Plot `severity_curves.score_following`: a panel per family, a line per corruption."""
    steps = SEVERITIES[1:]
    figure, panels = _draw_families(lambda name: [followed[f"{name}/{step}"] for step in steps], steps)
    for axes in panels:
        axes.axhline(0, color=SOFT, linewidth=1)
        axes.set(ylim=(-0.3, 1))
    _label_left(panels, "rank correlation")
    return figure


def _draw_families(
    read: Callable[[str], Sequence[Interval]], severities: Sequence[int]
) -> tuple[Figure, list[Axes]]:
    """Draw what `read` returns of a corruption at the severities, in a panel per family with its legend."""
    figure, panels = build_figure(9, 8.6, rows=3, columns=2, sharex=True, sharey=True)
    *used, spare = panels.flat
    spare.set_axis_off()
    for axes, family in zip(used, FAMILIES, strict=True):
        names = list_family(family)
        for number, (name, colour) in enumerate(zip(names, LINES, strict=False)):
            value, low, high = np.transpose(read(name))
            # Side by side, so that whiskers at one severity can be told apart.
            x = np.array(severities) + 0.09 * (number - (len(names) - 1) / 2)
            axes.vlines(x, low, high, color=colour, linewidth=1.1, alpha=0.55)
            axes.plot(x, value, "o-", color=colour, markersize=3.5, linewidth=1.6, label=name)
        axes.set(title=family, xlabel="severity", xticks=severities)
        axes.grid(axis="y")
        axes.tick_params(labelbottom=True)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure, used


def _label_left(panels: Sequence[Axes], title: str) -> None:
    for axes in panels[::2]:
        axes.set_ylabel(title)


def chart_curves(curves: Curves) -> dict[str, Any]:
    """Return `plot_curves` as a chart: one family at a time; the level and the interval show on hover."""
    values = []
    for name, corruption in CORRUPTIONS.items():
        levels = ["clean", *(f"{level:g} ({corruption.unit})" for level in corruption.levels)]
        for severity, score, level in zip(SEVERITIES, curves.trace(name), levels, strict=True):
            row = {"family": corruption.family, "corruption": name, "severity": severity, "level": level}
            row |= dict(zip(("accuracy", "low", "high"), (round(end, 3) for end in score), strict=True))
            values.append(row | {"shown": f"{score:.1%}"})
    options = alt.binding_select(options=list(FAMILIES), name="Family of corruptions: ")
    family = alt.param(name="family", value=FAMILIES[0], bind=options)
    picked = alt.selection_point(fields=["corruption"], bind="legend", name="picked")
    legend = alt.Legend(orient="bottom", columns=3, symbolOpacity=1, title=None)
    chart = alt.Chart(pd.DataFrame(values)).transform_filter("datum.family === family")
    chart = chart.encode(
        x=alt.X("severity:Q", axis=alt.Axis(tickCount=5, grid=False)),
        color=alt.Color("corruption:N", scale=alt.Scale(range=list(LINES)), sort=None, legend=legend),
    )
    axis: Any = {"scale": alt.Scale(domain=[0, 1]), "axis": alt.Axis(format=".0%"), "title": "accuracy"}
    bands = chart.mark_area().encode(
        y=alt.Y("low:Q", **axis),
        y2="high:Q",
        opacity=alt.when(picked).then(alt.value(0.12)).otherwise(alt.value(0)),
    )
    lines = chart.mark_line(point={"size": 50}).encode(
        y=alt.Y("accuracy:Q", **axis),
        opacity=alt.when(picked).then(alt.value(1)).otherwise(alt.value(0.12)),
        tooltip=["corruption", "severity", "level", alt.Tooltip("shown:N", title="accuracy, 95% interval")],
    )
    layers = alt.layer(bands, lines.add_params(picked)).add_params(family)
    return layers.properties(width="container", height=320).to_dict()


@mpl.rc_context(STYLE)
def plot_areas(areas: pd.DataFrame, title: str) -> Figure:
    """Plot relative areas under accuracy curves, of `tabulate_areas`, the lowest of the first network above.

    areas: corruption by network.   title: of the axis. The other networks are small open markers.
    """
    main, *others = areas.columns
    ordered = areas.loc[areas[main].map(lambda area: area.value).sort_values().index]
    figure, axes = build_figure(9, 1.4 + 0.3 * len(ordered))
    for y, (_, row) in enumerate(ordered.iterrows()):
        draw_interval(axes, y, row[main], MAIN, f"{row[main]:.1%}")
        for name, colour, marker in zip(others, LINES[1:], "s^Dvp<>", strict=False):
            axes.plot(row[name].value, y, marker, color=colour, markerfacecolor="none", markersize=5)
    handles = [axes.plot([], [], "o-", color=MAIN, label=f"{main}, 95% interval")[0]]
    for name, colour, marker in zip(others, LINES[1:], "s^Dvp<>", strict=False):
        handles += axes.plot([], [], marker, color=colour, markerfacecolor="none", label=name)
    if others:
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    name_rows([axes], [f"{name} ({CORRUPTIONS[name].family})" for name in ordered.index])
    axes.axvline(1, color=SOFT, linewidth=1)
    axes.set_xlabel(title)
    axes.xaxis.set_major_formatter(PERCENT)
    axes.grid(axis="x")
    return figure


@mpl.rc_context(STYLE)
def plot_groups(tables: Mapping[str, pd.DataFrame], titles: Mapping[str, str]) -> Figure:
    """Plot a panel per factor: each group's accuracy with its interval, of `fairness.score_groups`.

    titles: of each factor's axis.
    """
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    figure, panels = build_figure(9, 2.5 * rows, rows=rows, columns=columns, sharey=True, squeeze=False)
    for axes in panels.flat[len(tables) :]:
        axes.set_axis_off()
    for axes, (factor, table) in zip(panels.flat, tables.items(), strict=False):
        places = range(len(table))
        middle, low, high = np.transpose(table["accuracy"].tolist())
        axes.vlines(places, low, high, color=MAIN, linewidth=1.5)
        axes.plot(places, middle, "o", color=MAIN, markersize=5)
        words = {"False": "no", "True": "yes", "no landmarks": "not\nfound"}
        axes.set_xticks(places, [words.get(str(name), str(name)) for name in table.index], fontsize=9.5)
        axes.set_title(spell_group(factor), fontsize=10.5)
        axes.set_xlabel(titles[factor], fontsize=9.5)
        axes.set_xlim(-0.6, len(table) - 0.4)
        axes.yaxis.set_major_formatter(PERCENT)
        axes.grid(axis="y")
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy")
    return figure
