"""Plot saliency maps: what they mark, how they were tested, and mean maps by emotion."""

from collections.abc import Mapping, Sequence

import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fer_lib.analysis.explain import METHOD, METHODS, explain_face, overlay_saliency
from fer_lib.analysis.explain_study import CHOSEN
from fer_lib.inference.recognizer import Face
from fer_lib.metrics_file import Interval
from fer_lib.models.build import Checkpoint
from fer_lib.models.preprocessing import to_rgb
from fer_lib.reporting.figures.style import INK, MAIN, SECOND, SOFT, STYLE, build_figure

_METHOD_COLOURS = dict(zip(METHODS, (MAIN, "#56B4E9", SECOND, "#009E73"), strict=True))


@mpl.rc_context(STYLE)
def plot_choice(choice: pd.DataFrame) -> Figure:
    """Plot insertion minus deletion by stage, a line per method, of `explain_scores.tabulate_choice`."""
    figure, axes = build_figure(8, 3.8)
    stages = list(dict.fromkeys(choice.sort_values("reduction", kind="stable")["stage"]))
    reductions = choice.drop_duplicates("stage").set_index("stage")["reduction"]
    for method, part in choice.groupby("method", sort=False):
        values = part.set_index("stage")["insertion minus deletion"].reindex(stages)
        axes.plot(range(len(stages)), values, marker="o", color=_METHOD_COLOURS[str(method)], label=method)
    axes.axhline(0, color=SOFT, lw=1)
    axes.set_xticks(range(len(stages)), [f"{name}\n1 cell = {reductions[name]} px" for name in stages])
    axes.set(ylabel="insertion minus deletion area")
    axes.grid(axis="y")
    axes.legend(ncols=2)
    return figure


@mpl.rc_context(STYLE)
def plot_measures(scores: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """Plot each measure of each map with its interval, of `SaliencyScores.score`."""
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
    """Plot deletion and insertion curves of `SaliencyScores.average_curves`, with their intervals."""
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
    axes[0].set_ylabel("probability of the predicted emotion")
    axes[0].legend()
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
    figure, axes = build_figure(9.5, 6.2, rows=2, columns=max(map(len, kinds)), squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for row, of_kind in zip(axes, kinds, strict=True):
        for place, key in zip(row, of_kind, strict=False):
            number, pred = int(examples[f"{key}/row"]), key.partition("/")[2]
            overlay = overlay_saliency(faces[number], examples[key])
            face = cv2.resize(to_rgb(faces[number]), overlay.shape[1::-1])
            place.imshow(np.vstack([face, overlay]))
            title = pred if pred == names[number] else f"{pred},\nis {names[number]}"
            place.set_title(title, fontsize=9, loc="center", pad=4)
    return figure


@mpl.rc_context(STYLE)
def plot_parts(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Plot emotion by part, one panel per title: how much denser the map is there than over the image."""
    shown = {title: table for title, table in tables.items() if len(table)}
    figure, axes = build_figure(10.5, 4.2, columns=len(shown), squeeze=False)
    top = max(float(table.to_numpy().max()) for table in shown.values())
    for place, (title, table) in zip(axes[0], shown.items(), strict=True):
        style = {"vmin": 0, "vmax": top, "center": 1, "cmap": "vlag", "linewidths": 1, "cbar": False}
        sns.heatmap(table, annot=True, fmt=".1f", annot_kws={"size": 9}, ax=place, **style)
        place.set(title=title, ylabel="")
        place.tick_params(axis="x", rotation=40)
        place.tick_params(axis="y", rotation=0)
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
    figure, axes = build_figure(10.5, 3.7, rows=2, columns=len(emotions))
    middle = {"ha": "center", "color": SOFT}
    for row, title in enumerate(("correct", "wrong")):
        for place, emotion in zip(axes[row], emotions, strict=True):
            place.set_axis_off()
            if row == 0:
                place.set_title(emotion, fontsize=10, loc="center")
            key, inside = f"{title}/{emotion}", place.transAxes
            if key not in maps:
                place.set_box_aspect(1)
                place.text(0.5, 0.5, "too few", va="center", transform=inside, **middle)
                continue
            saliency = maps[key]
            place.imshow(overlay_saliency(backdrop, saliency / max(float(saliency.max()), 1e-6)))
            place.text(0.5, -0.12, f"n = {int(maps[f'{key}/n'])}", size=9, transform=inside, **middle)
        first = axes[row][0]
        first.text(-0.15, 0.5, title, ha="right", va="center", color=INK, transform=first.transAxes)
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


def plot_explanations(checkpoint: Checkpoint, faces: Sequence[Face], emotion: str | None = None) -> Figure:
    """Plot a row per face of a user's image: what the network sees, and which parts speak for an emotion.

    emotion: one for all; None: each face's most likely one. Raises ModelError for one that the model does
    not know.
    """
    figure = Figure(figsize=(5.2, 2.7 * len(faces) + 0.5), layout="constrained")
    axes = figure.subplots(len(faces), 2, squeeze=False)
    for number, (face, (seen, explained)) in enumerate(zip(faces, axes, strict=True), start=1):
        name = emotion or face.label
        seen.imshow(face.crop, cmap="gray", vmin=0, vmax=255)
        explained.imshow(overlay_saliency(face.crop, explain_face(checkpoint, face.crop, name)))
        seen.set_title(f"face {number}, as the model sees it", fontsize=9)
        explained.set_title(f"{name}: {face.probabilities[name]:.0%}", fontsize=9)
        for axis in (seen, explained):
            axis.set_axis_off()
    figure.suptitle(f"Brighter parts speak more for the emotion ({METHOD})", fontsize=10)
    return figure
