"""Figures of single faces. Only for pictures that a user brings, and drawn ones; no report shows them."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from fer_lib.analysis.explain import METHOD, explain_face, overlay_heatmap
from fer_lib.inference.recognizer import Face
from fer_lib.models.build import Checkpoint


def plot_explanations(checkpoint: Checkpoint, faces: Sequence[Face], emotion: str | None = None) -> Figure:
    """Return a row per face: what the network sees, and which parts of it speak for an emotion.

    emotion: one for all; None: each face's most likely one. Raises ModelError for one that the model does
    not know.
    """
    figure = Figure(figsize=(5.2, 2.7 * len(faces) + 0.5), layout="constrained")
    axes = figure.subplots(len(faces), 2, squeeze=False)
    for number, (face, (seen, explained)) in enumerate(zip(faces, axes, strict=True), start=1):
        name = emotion or face.label
        heatmap = explain_face(checkpoint, face.crop, name)
        seen.imshow(face.crop, cmap="gray", vmin=0, vmax=255)
        explained.imshow(overlay_heatmap(face.crop, heatmap))
        seen.set_title(f"face {number}, as the model sees it", fontsize=9)
        explained.set_title(f"{name}: {face.probabilities[name]:.0%}", fontsize=9)
        for axis in (seen, explained):
            axis.set_axis_off()
    figure.suptitle(f"Brighter parts speak more for the emotion ({METHOD})", fontsize=10)
    return figure
