"""Figures of heat maps: what they mark, how they were tested, and mean maps by emotion."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from fer_lib.explain import METHODS, overlay_heatmap
from fer_lib.explain_study import CHOSEN
from fer_lib.plots import INK, MAIN, SECOND, SOFT, STYLE, build_figure

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
def plot_mean_maps(
    maps: Mapping[str, np.ndarray], emotions: Sequence[str], backdrop: np.ndarray, min_faces: int
) -> Figure:
    """Plot mean maps over a mean face, named rightly above, wrongly below; of `min_faces` or more alone.

    maps: as `explain_study.average_maps` returns them.   backdrop: uint8 (S, S), the mean face.
    """
    figure, axes = build_figure(10.5, 3.7, rows=2, columns=len(emotions))
    for row, title in enumerate(("right", "wrong")):
        for place, emotion in zip(axes[row], emotions, strict=True):
            n = int(maps[f"{title}/{emotion}/n"])
            place.set_axis_off()
            if row == 0:
                place.set_title(emotion, fontsize=10, loc="center")
            if n < min_faces:
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
