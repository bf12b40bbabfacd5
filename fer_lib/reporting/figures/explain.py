"""Figures of heat maps: what they mark, how they were tested, and mean maps by emotion."""

from collections.abc import Mapping, Sequence

import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fer_lib.analysis.explain import METHODS, overlay_heatmap
from fer_lib.analysis.explain_study import CHOSEN
from fer_lib.models.preprocessing import to_rgb
from fer_lib.reporting.figures.style import INK, MAIN, SECOND, SOFT, STYLE, build_figure

_METHOD_COLOURS = dict(zip(METHODS, (MAIN, "#56B4E9", SECOND, "#009E73"), strict=True))


@mpl.rc_context(STYLE)
def plot_choice(choice: pd.DataFrame) -> Figure:
    """Plot insertion minus deletion by stage, a line per method, from `explain_scores.tabulate_choice`."""
    figure, axes = build_figure(8, 3.8)
    stages = list(dict.fromkeys(choice.sort_values("reduction", kind="stable")["stage"]))
    reductions = choice.drop_duplicates("stage").set_index("stage")["reduction"]
    for method, part in choice.groupby("method", sort=False):
        values = part.set_index("stage")["insertion minus deletion"].reindex(stages)
        axes.plot(range(len(stages)), values, marker="o", color=_METHOD_COLOURS[method], label=method)
    axes.axhline(0, color=SOFT, lw=1)
    axes.set_xticks(range(len(stages)), [f"{name}\n1 cell = {reductions[name]} px" for name in stages])
    axes.set(ylabel="insertion minus deletion area")
    axes.grid(axis="y")
    axes.legend(ncols=2)
    return figure


@mpl.rc_context(STYLE)
def plot_measures(scores: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """Plot each measure of each map with its interval, as `explain_scores.score_maps` returns them."""
    measures = list(next(iter(scores.values())))
    figure, axes = build_figure(9.5, 2.8, columns=len(measures), sharey=True)
    names = list(scores)
    for place, measure in zip(axes, measures, strict=True):
        for row, name in enumerate(names):
            value, low, high = scores[name][measure]
            colour = MAIN if name == CHOSEN else SOFT
            place.plot([low, high], [row, row], color=colour, lw=2.5, solid_capstyle="round")
            place.plot(value, row, "o", color=colour)
        better = "smaller is better" if measure == "deletion" else "larger is better"
        place.set(title=measure, xlabel=better, ylim=(len(names) - 0.5, -0.5))
        place.grid(axis="x")
    axes[0].set_yticks(range(len(names)), names)
    return figure


@mpl.rc_context(STYLE)
def plot_hiding(curves: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Plot deletion and insertion curves of `explain_scores.average_curves`, with 95 % intervals."""
    figure, axes = build_figure(9.5, 3.6, columns=len(curves), sharey=True)
    for place, (title, of_maps) in zip(axes, curves.items(), strict=True):
        for colour, (name, (mean, low, high)) in zip((MAIN, SECOND, SOFT, INK), of_maps.items(), strict=True):
            cells = np.linspace(0, 1, len(mean))
            place.fill_between(cells, low, high, color=colour, alpha=0.15, lw=0)
            place.plot(cells, mean, color=colour, label=name)
        what = "hidden, the most marked first" if title == "deletion" else "shown, the most marked first"
        place.set(title=title.capitalize(), xlabel=f"share of the face {what}", ylim=(0, 1))
        place.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        place.grid(axis="y")
    axes[0].set_ylabel("probability of the emotion named")
    axes[0].legend()
    return figure


@mpl.rc_context(STYLE)
def plot_examples(
    examples: Mapping[str, np.ndarray], faces: Mapping[int, np.ndarray], names: Mapping[int, str]
) -> Figure:
    """Plot drawn faces and, below each, its heat map; those named rightly above those named wrongly.

    examples: of `explain_study.pick_examples`.   faces: row to uint8 face.   names: row to its label.
    """
    keys = [key for key in examples if not key.endswith("/row")]
    kinds = [[key for key in keys if key.startswith(kind)] for kind in ("right", "wrong")]
    figure, axes = build_figure(9.5, 6.2, rows=2, columns=max(map(len, kinds)), squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for row, of_kind in zip(axes, kinds, strict=True):
        for place, key in zip(row, of_kind, strict=False):
            number, said = int(examples[f"{key}/row"]), key.partition("/")[2]
            heatmap = overlay_heatmap(faces[number], examples[key])
            face = cv2.resize(to_rgb(faces[number]), heatmap.shape[1::-1])
            place.imshow(np.vstack([face, heatmap]))
            is_right = said == names[number]
            place.set_title(
                said if is_right else f"{said},\nis {names[number]}", fontsize=9, loc="center", pad=4
            )
    return figure


@mpl.rc_context(STYLE)
def plot_parts(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Plot emotion by part, one panel per title: how much denser the map is there than over the picture."""
    shown = {title: table for title, table in tables.items() if len(table)}
    figure, axes = build_figure(10.5, 4.2, columns=len(shown), squeeze=False)
    top = max(float(table.to_numpy().max()) for table in shown.values())
    for place, (title, table) in zip(axes[0], shown.items(), strict=True):
        sns.heatmap(
            table,
            vmin=0,
            vmax=top,
            center=1,
            cmap="vlag",
            annot=True,
            fmt=".1f",
            cbar=False,
            ax=place,
            annot_kws={"size": 9},
            linewidths=1,
        )
        place.set(title=title, ylabel="")
        place.tick_params(axis="x", rotation=40)
        place.tick_params(axis="y", rotation=0)
    return figure


@mpl.rc_context(STYLE)
def plot_mean_maps(maps: Mapping[str, np.ndarray], emotions: Sequence[str], backdrop: np.ndarray) -> Figure:
    """Plot mean maps over a mean face, named rightly above, wrongly below.

    maps: as `explain_study.average_maps` returns them.   backdrop: uint8 (S, S), the mean face.
    """
    figure, axes = build_figure(10.5, 3.7, rows=2, columns=len(emotions))
    for row, title in enumerate(("right", "wrong")):
        for place, emotion in zip(axes[row], emotions, strict=True):
            n = int(maps[f"{title}/{emotion}/n"])
            place.set_axis_off()
            if row == 0:
                place.set_title(emotion, fontsize=10, loc="center")
            if f"{title}/{emotion}" not in maps:
                place.set_box_aspect(1)
                place.text(
                    0.5, 0.5, "too few", ha="center", va="center", color=SOFT, transform=place.transAxes
                )
                continue
            heat = maps[f"{title}/{emotion}"]
            place.imshow(overlay_heatmap(backdrop, heat / max(float(heat.max()), 1e-6)))
            place.text(0.5, -0.12, f"n = {n}", ha="center", size=9, color=SOFT, transform=place.transAxes)
        axes[row][0].text(
            -0.15,
            0.5,
            f"named\n{title}ly",
            ha="right",
            va="center",
            color=INK,
            transform=axes[row][0].transAxes,
        )
    return figure


@mpl.rc_context(STYLE)
def plot_sanity(randomised: pd.DataFrame, stability: pd.DataFrame) -> Figure:
    """Plot rank correlations, medians and quartiles: as weights are randomised, and as the face is moved.

    Columns: blocks from the classifier down; shifts in pixels. Rows: faces.
    """
    figure, (left, right) = build_figure(
        10, 3.6, columns=2, gridspec_kw={"width_ratios": [2.4, 1]}, sharey=True
    )
    for place, table in ((left, randomised), (right, stability)):
        quartiles = table.quantile([0.25, 0.5, 0.75])
        places = range(table.shape[1])
        place.fill_between(places, quartiles.loc[0.25], quartiles.loc[0.75], color=MAIN, alpha=0.2, lw=0)
        place.plot(places, quartiles.loc[0.5], marker="o", color=MAIN)
        place.axhline(0, color=SOFT, lw=1)
        place.set_xticks(places, list(table.columns))
        place.grid(axis="y")
    left.tick_params(axis="x", rotation=60)
    left.set(title="Weights randomised, from the top down", ylabel="rank correlation", ylim=(-0.5, 1.05))
    right.set(title="Face moved", xlabel="pixels")
    return figure
