"""Draw the figures of saliency maps."""

from collections.abc import Mapping, Sequence

import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fer_lib.analysis.explain import METHOD, explain_face, overlay_saliency
from fer_lib.analysis.explain_study import CENTRE, CHOSEN, LAST, RANDOM
from fer_lib.inference.faces import Face
from fer_lib.intervals import Interval
from fer_lib.models.build import Checkpoint
from fer_lib.models.preprocessing import to_rgb
from fer_lib.reporting.figures.style import (
    INK,
    MAIN,
    PERCENT,
    SECOND,
    SOFT,
    STYLE,
    build_figure,
    draw_band,
    draw_heatmap,
    draw_interval,
    name_rows,
    show_image,
)

MAPS = {CHOSEN: "chosen map", LAST: "Grad-CAM, last stage", RANDOM: "random cells", CENTRE: "centred blob"}
"""How the maps that are compared are called on the page."""

MEASURES = {
    "deletion": ("deletion area", "smaller is better"),
    "insertion": ("insertion area", "larger is better"),
    "energy": ("energy", "share, larger is better"),
    "pointing": ("pointing game", "share, larger is better"),
}
"""Of maps: their titles, and what is better."""


@mpl.rc_context(STYLE)
def plot_choice(choice: pd.DataFrame) -> Figure:
    """Plot insertion minus deletion by stage, a line per method, of `explain_scores.tabulate_choice`."""
    figure, axes = build_figure(8, 3.8)
    stages = choice.sort_values("reduction", kind="stable").drop_duplicates("stage")
    for method, part in choice.groupby("method", sort=False):
        values = part.set_index("stage")["insertion minus deletion"].reindex(stages["stage"])
        axes.plot(range(len(stages)), values, marker="o", label=method)
    axes.axhline(0, color=SOFT, linewidth=1)
    axes.set_xticks(range(len(stages)), [f"{size} px" for size in stages["reduction"]])
    axes.set(xlabel="size of a cell, from the first stage to the last")
    axes.set(ylabel="insertion minus deletion area")
    axes.grid(axis="y")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@mpl.rc_context(STYLE)
def plot_measures(scores: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """Plot each measure of each map with its interval, of `SaliencyScores.score`."""
    measures = list(next(iter(scores.values())))
    figure, panels = build_figure(9, 2.8, columns=len(measures), sharey=True)
    for axes, measure in zip(panels, measures, strict=True):
        for y, (name, score) in enumerate(scores.items()):
            draw_interval(axes, y, score[measure], MAIN if name == CHOSEN else SOFT)
        title, better = MEASURES[measure]
        axes.set_title(title, fontsize=10.5)
        axes.set_xlabel(better)
        axes.grid(axis="x")
    name_rows(panels, [MAPS[name] for name in scores])
    return figure


@mpl.rc_context(STYLE)
def plot_hiding(curves: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Plot deletion and insertion curves of `SaliencyScores.average_curves`, with their intervals."""
    figure, panels = build_figure(9, 3.9, columns=len(curves), sharey=True)
    for axes, (title, of_maps) in zip(panels, curves.items(), strict=True):
        # The maps that mark no part for what the network saw there are grey.
        for colour, (name, curve) in zip((MAIN, SECOND, SOFT, INK), of_maps.items(), strict=True):
            draw_band(axes, np.linspace(0, 1, curve.shape[1]), curve, color=colour, label=MAPS[name])
        what = "hidden" if title == "deletion" else "shown"
        axes.set(title=title.capitalize(), xlabel=f"share of the face {what}, the most marked first")
        axes.set(ylim=(0, 1))
        axes.xaxis.set_major_formatter(PERCENT)
        axes.grid(axis="y")
    panels[0].set_ylabel("probability of the predicted emotion")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


@mpl.rc_context(STYLE)
def plot_examples(
    examples: Mapping[str, np.ndarray], faces: Mapping[int, np.ndarray], names: Mapping[int, str]
) -> Figure:
    """Plot drawn faces and, below each, its saliency map; correct ones above wrong ones.

    Parameters
    ----------
    examples
        Of `explain_study.pick_examples`.
    faces
        Row to uint8 face.
    names
        Row to its label.
    """
    keys = [key for key in examples if not key.endswith("/row")]
    kinds = [[key for key in keys if key.startswith(kind)] for kind in ("correct", "wrong")]
    figure, panels = build_figure(9, 6, rows=2, columns=max(map(len, kinds)), squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for row, of_kind in zip(panels, kinds, strict=True):
        for axes, key in zip(row, of_kind, strict=False):
            number, pred = int(examples[f"{key}/row"]), key.partition("/")[2]
            overlay = overlay_saliency(faces[number], examples[key])
            face = cv2.resize(to_rgb(faces[number]), overlay.shape[1::-1])
            title = pred if pred == names[number] else f"{pred},\nis {names[number]}"
            show_image(axes, np.vstack([face, overlay]), title)
    return figure


@mpl.rc_context(STYLE)
def plot_parts(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Plot emotion by part, one panel per title: how much denser the map is there than over the image."""
    shown = {title: table for title, table in tables.items() if len(table)}
    figure, panels = build_figure(9, 3.9, columns=len(shown), squeeze=False)
    top = max(float(table.to_numpy().max()) for table in shown.values())
    for axes, (title, table) in zip(panels[0], shown.items(), strict=True):
        draw_heatmap(axes, table, annot=True, fmt=".1f", cmap="vlag", vmin=0, vmax=top, center=1)
        axes.set(title=title)
        axes.tick_params(axis="x", rotation=40)
    return figure


@mpl.rc_context(STYLE)
def plot_mean_maps(maps: Mapping[str, np.ndarray], emotions: Sequence[str], backdrop: np.ndarray) -> Figure:
    """Plot mean maps over a mean face, correct predictions above, wrong ones below.

    Parameters
    ----------
    maps
        As `explain_study.average_maps` returns them.
    backdrop
        uint8 (S, S), the mean face.
    """
    figure, panels = build_figure(9, 3.4, rows=2, columns=len(emotions))
    for row, kind in zip(panels, ("correct", "wrong"), strict=True):
        row[0].set_ylabel(kind, rotation=0, ha="right", va="center", labelpad=8)
        for axes, emotion in zip(row, emotions, strict=True):
            key, title = f"{kind}/{emotion}", emotion if kind == "correct" else ""
            if key in maps:
                brightest = max(float(maps[key].max()), 1e-6)
                show_image(axes, overlay_saliency(backdrop, maps[key] / brightest), title)
                axes.set_xlabel(f"n = {int(maps[f'{key}/n'])}", size=9, color=SOFT)
            else:
                show_image(axes, np.full((1, 1), np.nan), title)
                axes.text(0, 0, "too few", ha="center", va="center", color=SOFT)
    return figure


@mpl.rc_context(STYLE)
def plot_sanity(randomised: pd.DataFrame, stability: pd.DataFrame) -> Figure:
    """Plot rank correlations, medians and quartiles: as weights are randomised, and as the face is moved.

    Columns: blocks from the classifier down; shifts in pixels. Rows: faces.
    """
    figure, (left, right) = build_figure(9, 3.9, columns=2, width_ratios=(2.4, 1), sharey=True)
    for axes, table in ((left, randomised), (right, stability)):
        places = range(table.shape[1])
        draw_band(axes, places, table.quantile([0.5, 0.25, 0.75]).to_numpy(), marker="o")
        axes.axhline(0, color=SOFT, linewidth=1)
        axes.set_xticks(places, [str(name).replace("_", " ").replace(".", " ") for name in table.columns])
        axes.grid(axis="y")
    left.tick_params(axis="x", rotation=60)
    left.set(title="Weights permuted", xlabel="down to this block of layers, from the classifier")
    left.set(ylabel="rank correlation", ylim=(-0.5, 1.05))
    right.set(title="Face moved", xlabel="pixels")
    return figure


@mpl.rc_context(STYLE)
def plot_explanations(checkpoint: Checkpoint, faces: Sequence[Face], emotion: str | None = None) -> Figure:
    """Plot a row per face of a user's image: what the network sees, and which parts speak for an emotion.

    emotion: one for all; None: each face's most likely one. Raises ModelError for one that the model does
    not know.
    """
    figure, panels = build_figure(5.2, 2.7 * len(faces) + 0.5, len(faces), 2, squeeze=False)
    for number, (face, (seen, explained)) in enumerate(zip(faces, panels, strict=True), start=1):
        name = emotion or face.label
        overlay = overlay_saliency(face.crop, explain_face(checkpoint, face.crop, name))
        show_image(seen, face.crop, f"face {number}, as the model sees it")
        show_image(explained, overlay, f"{name}: {face.probabilities[name]:.0%}")
    figure.suptitle(f"Brighter parts speak more for the emotion ({METHOD})", fontsize=10)
    return figure
