"""Vote: the weighted mean of several networks' probabilities, which may also teach a student."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import softmax

from fer_lib.data.packed import load_packed
from fer_lib.files import write_atomically
from fer_lib.models.build import load_checkpoint
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.training.predict import FLIP, PLAIN, Predictor
from fer_lib.training.recipes import TEACHER_NAME, check_match

MIN_PROBABILITY = 1e-12


def fit_weights(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return float64 (M,) weights, summing to 1, whose soft vote has the least NLL.

    The problem is convex in the weights, so the optimum does not depend on where the search starts.

    Parameters
    ----------
    probabilities
        Float (M, N, C) of M networks on a validation split.
    labels
        Int (N,).
    """
    of_label = probabilities[:, np.arange(len(labels)), labels].astype(np.float64)

    def compute_nll(scores: np.ndarray) -> tuple[float, np.ndarray]:
        weights = softmax(scores)
        mixed = np.maximum(weights @ of_label, MIN_PROBABILITY)
        slope = -(of_label / mixed).mean(axis=1)
        return float(-np.log(mixed).mean()), weights * (slope - weights @ slope)

    return softmax(minimize(compute_nll, np.zeros(len(probabilities)), jac=True, method="L-BFGS-B").x)


def vote(probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return float64 (N, C), the weighted mean of (M, N, C) probabilities."""
    return np.tensordot(weights, probabilities.astype(np.float64), axes=1)


def write_teacher(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Write `models/<dataset>/teacher.parquet`: row, and `probability_<emotion>` of every training face.

    The members' soft vote with the weights that fit validation best, each seeing a face and its mirror image.

    Raises
    ------
    ModelError
        When a member has not been trained, or was trained on other data.
    """
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    train, val = data.get_rows("train"), data.get_rows("val")
    of_train, of_val = [], []
    for name in params.ensemble.members:
        checkpoint = load_checkpoint(dirs.models / name)
        check_match(checkpoint, data)
        predictor = Predictor(checkpoint.model, checkpoint.preprocessing, params.evaluation.batch_size)
        of_train.append(predictor.predict(data.faces, train, FLIP))
        of_val.append(predictor.predict(data.faces, val, PLAIN))
    weights = fit_weights(np.stack(of_val), data.labels[val])
    columns = [f"probability_{name}" for name in data.emotions]
    table = pd.DataFrame(vote(np.stack(of_train), weights).astype(np.float32), columns=columns)
    table.insert(0, "row", train)
    path = dirs.models / TEACHER_NAME
    write_atomically(path, table.to_parquet(index=False))
    return path
