"""Draw the figures of the data audit and of the augmentations.

Images are uint8 or float (H, W) grey or (H, W, 3) RGB with values from 0 to 255.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fer_lib.data.packed import SPLITS
from fer_lib.reporting.figures.style import (
    COLOURS,
    INK,
    MAIN,
    SECOND,
    STYLE,
    build_figure,
    clean_rows,
    draw_heatmap,
    show_image,
)

BOXES: dict[str, Any] = {"width": 0.55, "whis": (5, 95), "showfliers": False, "linewidth": 1.2}


@mpl.rc_context(STYLE)
def plot_class_counts(counts: pd.DataFrame) -> Figure:
    """Plot `audit.count_classes`: one panel per split, one bar per emotion with its number and share."""
    height = 1.1 + 0.36 * counts.shape[1]
    figure, panels = build_figure(9, height, columns=len(counts), sharey=True, squeeze=False)
    colours = [COLOURS[name] for name in counts.columns]
    for axes, (split, row) in zip(panels[0], counts.iterrows(), strict=True):
        total = max(row.sum(), 1)
        bars = axes.barh(counts.columns, row, color=colours, height=0.7)
        axes.bar_label(bars, [f"{n:,}  {n / total:.1%}" for n in row], padding=4, size=9.5)
        axes.set(title=f"{split}: {row.sum():,} images", xlim=(0, max(row.max(), 1) * 1.75), xticks=[])
        axes.spines["bottom"].set_visible(False)
    clean_rows(panels[0])
    panels[0, 0].invert_yaxis()
    return figure


@mpl.rc_context(STYLE)
def plot_mean_faces(mean_faces: np.ndarray, emotions: Sequence[str]) -> Figure:
    """Plot `audit.compute_mean_faces`, float (C, H, W[, 3]), in label order; an empty class is blank.

    Averages have little contrast, so all classes are stretched together and still differ in brightness.
    """
    low, high = np.nanmin(mean_faces), np.nanmax(mean_faces)
    stretched = (mean_faces - low) * (255 / max(high - low, 1))
    return plot_face_grid(stretched, emotions, len(emotions))


@mpl.rc_context(STYLE)
def plot_face_grid(faces: Sequence[np.ndarray], titles: Sequence[str], n_columns: int) -> Figure:
    """Plot images of one size in reading order, each under its title."""
    n_rows = -(-len(faces) // n_columns)
    height, width = faces[0].shape[:2]
    cell = 9 / n_columns * height / width
    figure, axes = build_figure(9, n_rows * (cell + 0.3), n_rows, n_columns, squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    for panel, face, title in zip(axes.flat, faces, titles, strict=False):
        show_image(panel, face, title)
    return figure


@mpl.rc_context(STYLE)
def plot_vote_entropy(entropy: np.ndarray, labels: np.ndarray, emotions: Sequence[str]) -> Figure:
    """Plot float (N,) vote entropies in bits per label, the most disputed emotion first.

    Boxes are quartiles, whiskers the 5th and 95th percentile.
    """
    frame = pd.DataFrame({"entropy": entropy, "emotion": np.asarray(emotions)[labels]}).dropna()
    means = frame.groupby("emotion")["entropy"].mean().sort_values(ascending=False)
    figure, axes = build_figure(9, 1.2 + 0.42 * len(means))
    colours = {"hue": "emotion", "palette": COLOURS, "saturation": 1, "linecolor": INK}
    sns.boxplot(frame, x="entropy", y="emotion", order=means.index, ax=axes, **colours, **BOXES)
    for y, mean in enumerate(means):
        axes.text(1.01, y, f"mean {mean:.2f}", transform=axes.get_yaxis_transform(), va="center", size=9.5)
    axes.set(title="Disagreement of the ten annotators, by label")
    axes.set(xlabel="entropy of the votes (bits)", ylabel="")
    axes.grid(axis="x")
    clean_rows([axes])
    return figure


@mpl.rc_context(STYLE)
def plot_duplicates(summary: pd.DataFrame) -> Figure:
    """Plot `audit.summarise_duplicates`: the share of a split (row) with a copy in another (column)."""
    names = [f"{split}\n{n:,} images" for split, n in summary["n_images"].items()]
    counts = summary[list(SPLITS)].set_axis(names)
    shares = counts.div(summary["n_images"].clip(lower=1).to_numpy(), axis=0)
    texts = shares.map("{:.1%}".format) + "\n" + counts.map("{:,} images".format)
    figure, axes = build_figure(7, 4)
    draw_heatmap(axes, shares, annot=texts, fmt="", vmin=0, vmax=max(0.1, shares.to_numpy().max()))
    axes.set(title="Images with an identical copy", xlabel="copy in", ylabel="images of")
    return figure


@mpl.rc_context(STYLE)
def plot_augmentations(
    originals: Sequence[np.ndarray], changed: Mapping[str, Sequence[np.ndarray]]
) -> Figure:
    """Plot the originals in the first row and, below each, its image under every named transform."""
    rows = {"original": originals, **changed}
    cell = 7.6 / len(originals)
    figure, axes = build_figure(9, len(rows) * (cell + 0.06), len(rows), len(originals), squeeze=False)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for panels, (name, images) in zip(axes, rows.items(), strict=True):
        for panel, image in zip(panels, images, strict=True):
            show_image(panel, image)
        panels[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8)
    return figure


@mpl.rc_context(STYLE)
def plot_pixel_statistics(stats: pd.DataFrame) -> Figure:
    """Plot how each transform shifts the mean and the contrast of the pixels.

    stats: one row per image and transform with the columns transform, mean and std (grey levels); the
    transform that comes first is the reference, drawn as a line through its median.
    """
    order = stats["transform"].unique()
    figure, panels = build_figure(9, 1.2 + 0.4 * len(order), columns=2, sharey=True)
    for axes, column, title in zip(panels, ("mean", "std"), ("Mean", "Standard deviation"), strict=True):
        reference = stats.loc[stats["transform"] == order[0], column].median()
        axes.axvline(reference, color=SECOND, linewidth=1.2)
        colours = {"color": "#BFD7EA", "linecolor": MAIN}
        sns.boxplot(stats, x=column, y="transform", order=order, ax=axes, **colours, **BOXES)
        axes.set(title=f"{title} of an image's pixels", xlabel="grey levels", ylabel="")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x")
    clean_rows(panels)
    return figure
