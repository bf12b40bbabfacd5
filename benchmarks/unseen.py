"""Measure the accuracy of networks on the drawn faces of `demo`, which none of them was trained on.

    python benchmarks/unseen.py fer2013 [baseline b0 student ...]

No other set of photographs comes with the project. The drawn faces are grey here, as FER2013's are, and
framed in three ways. They are no photographs: what counts is which network loses least, not the accuracy.
"""

import argparse
from functools import partial

import cv2
import numpy as np

from fer_lib.data.packed import load_packed
from fer_lib.evaluation.metrics import compute_metrics
from fer_lib.evaluation.perturbations import warp
from fer_lib.labels import EMOTIONS_7
from fer_lib.models.build import load_checkpoint
from fer_lib.models.checkpoints import CONFIG_NAME
from fer_lib.paths import ROOT, get_output_dirs
from fer_lib.training.predict import Predictor

FRAMES = {
    "as drawn": np.copy,
    "tighter": partial(warp, zoom_x=1.2, zoom_y=1.2),
    "wider": partial(warp, zoom_x=0.85, zoom_y=0.85),
}


def main() -> None:
    """Print one row per network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="whose networks, such as fer2013")
    parser.add_argument("networks", nargs="*", help="default: all that were trained")
    parser.add_argument("--every", type=int, default=4, help="score every n-th drawn face")
    options = parser.parse_args()
    dirs, drawn = get_output_dirs(options.dataset, ROOT), load_packed("demo")
    names = options.networks or sorted(path.parent.name for path in dirs.models.glob(f"*/{CONFIG_NAME}"))
    rows = np.arange(0, len(drawn.faces), options.every)
    grey = [cv2.cvtColor(face, cv2.COLOR_RGB2GRAY) for face in drawn.faces[rows]]
    print(f"{len(rows):,} drawn faces; accuracy, and in parentheses macro recall")
    print(f"{'network':12s}" + "".join(f"{name:>18s}" for name in FRAMES))
    for name in names:
        checkpoint = load_checkpoint(dirs.models / name)
        if checkpoint.emotions != EMOTIONS_7:
            print(f"{name:12s}  names other emotions")
            continue
        predictor, cells = Predictor(checkpoint.model, checkpoint.preprocessing, 128), []
        for alter in FRAMES.values():
            probabilities = predictor.predict([alter(face) for face in grey])
            scores = compute_metrics(drawn.labels[rows], probabilities, EMOTIONS_7)
            cells.append(f"{scores['accuracy']:9.3f} ({scores['macro.recall']:.3f})")
        print(f"{name:12s}" + "".join(f"{cell:>18s}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
