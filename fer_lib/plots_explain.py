"""A figure of where in each face the network found an emotion."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from fer_lib.plots import SOFT, STYLE, build_figure
from fer_lib.preprocessing import to_rgb
from fer_lib.recognizer import Face

FACES_PER_ROW = 4


@mpl.rc_context(STYLE)
def plot_explanations(
    faces: Sequence[Face], emotions: Sequence[str], overlays: Sequence[np.ndarray]
) -> Figure:
    """Plot each face as the model sees it and, below, under its heat map, with the emotion and its probability.

    faces: at least one, as many as `emotions`, what is explained of each, and `overlays`, uint8 (S, S, 3) as
    `explain.overlay_heatmap` gives them.
    """
    columns = min(FACES_PER_ROW, len(faces))
    bands = -(-len(faces) // columns)
    width = max(4.6, 1.9 * columns)  # room for the line below
    figure, grid = build_figure(width, 0.5 + 4.4 * bands, 2 * bands, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for index, (face, emotion, overlay) in enumerate(zip(faces, emotions, overlays, strict=True)):
        band, column = divmod(index, columns)
        name = "unsure" if face.abstained else f"{face.label} {100 * face.confidence:.0f} %"
        above, below = grid[2 * band, column], grid[2 * band + 1, column]
        above.imshow(to_rgb(face.crop))
        above.set_title(f"{index + 1}  {name}", size=11)
        below.imshow(overlay)
        below.set_title(f"{emotion} {100 * face.probabilities[emotion]:.0f} %", size=10.5, weight="normal")
    note = "Bright parts speak for the emotion (Grad-CAM).\nEach map is relative to its own brightest place."
    figure.supxlabel(note, size=9, color=SOFT)
    return figure
