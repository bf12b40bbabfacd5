"""Validation accuracy of trained networks on faces of other sizes than their own.

    python benchmarks/sizes.py fer2013 [baseline b0 lite0 ...] [--every 4]

A network of stride 32 sees a face of 65 to 96 pixels as a last map of 3 x 3, of 97 to 128 as one of 4 x 4.
Between two sizes with the same map its accuracy moves little; at the border it falls.
"""

import argparse

import numpy as np

from fer_lib.data.packed import load_packed
from fer_lib.models.build import load_checkpoint
from fer_lib.models.checkpoints import CONFIG_NAME
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.paths import ROOT, get_output_dirs
from fer_lib.training.predict import Predictor

SIZES = range(48, 145, 8)
STRIDE = 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("networks", nargs="*", help="default: all that were trained")
    parser.add_argument("--every", type=int, default=4, help="score every n-th validation face")
    arguments = parser.parse_args()
    data, dirs = load_packed(arguments.dataset), get_output_dirs(arguments.dataset, ROOT)
    names = arguments.networks or sorted(path.parent.name for path in dirs.models.glob(f"*/{CONFIG_NAME}"))
    checkpoints = {name: load_checkpoint(dirs.models / name) for name in names}
    rows = data.get_rows("val")[:: arguments.every]
    own = {name: checkpoint.preprocessing.image_size for name, checkpoint in checkpoints.items()}
    print(f"{arguments.dataset}, {len(rows)} validation faces; own size: {own}")
    print(f"{'pixels':>6} {'map':>6}" + "".join(f"{name:>10}" for name in names))
    for size in SIZES:
        edge = -(-size // STRIDE)
        scores = [score(checkpoint, size, data, rows) for checkpoint in checkpoints.values()]
        print(
            f"{size:>6} {f'{edge} x {edge}':>6}" + "".join(f"{value:>10.3f}" for value in scores), flush=True
        )


def score(checkpoint, size: int, data, rows: np.ndarray) -> float:
    """Return the accuracy, 0 to 1, on faces enlarged to `size` pixels."""
    own = checkpoint.preprocessing
    predictor = Predictor(checkpoint.model, Preprocessing(size, own.mean, own.std), 128)
    logits = predictor.predict_logits(data.faces, rows)
    return float(np.mean(logits.argmax(axis=1) == data.labels[rows]))


if __name__ == "__main__":
    main()
