"""What a trained network gives away about its training faces: two attacks, measured."""

import time
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_curve
from torch import nn

from fer_lib.inference import compute_softmax, predict_logits
from fer_lib.metrics_file import write_metrics
from fer_lib.models import load_checkpoint
from fer_lib.packed import PackedDataset, load_packed
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.preprocessing import Preprocessing, preprocess
from fer_lib.recipes import check_match
from fer_lib.resampling import compute_intervals, draw_weights

STEPS, RATE, SMOOTHNESS = 150, 0.05, 2.0
"""Of the inversion: steps of Adam, its rate in units of normalised pixels, weight of the total variation."""


def measure_privacy(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Attack the network `robustness.explained`; write `metrics/privacy.json` and return it.

    Keys: `membership.auroc` and `.advantage`; `inversion.train` and `.unseen`, the mean over classes of the
    highest correlation of an inverted picture with a face of that class, among as many training faces as test
    faces, and `inversion.gain`, their difference. Intervals are 95 %; that of the inversion is over classes.
    """
    start = time.monotonic()
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    settings = params.robustness
    checkpoint = load_checkpoint(dirs.models / settings.explained)
    check_match(checkpoint, data)
    # Copies of training faces in test would make members of non-members.
    rows = {"train": data.get_rows("train"), "unseen": data.get_rows("test", drop_duplicates_of="train")}
    n = min(settings.n_members, *map(len, rows.values()))
    rng = np.random.default_rng(settings.seed)
    rows = {split: np.sort(rng.choice(found, n, replace=False)) for split, found in rows.items()}
    losses = {}
    for split, chosen in rows.items():
        asked = (checkpoint.preprocessing, params.evaluation.batch_size)
        probabilities = compute_softmax(predict_logits(checkpoint.model, data, chosen, *asked))
        losses[split] = -np.log(np.maximum(probabilities[np.arange(n), data.labels[chosen]], 1e-12))
    found = attack_membership(losses["train"], losses["unseen"], settings.n_resamples, settings.seed)
    metrics = {f"membership.{name}": values for name, values in found.items()}
    pictures = invert_classes(checkpoint.model, checkpoint.preprocessing, len(data.emotions))
    likeness = {
        split: find_likeness(pictures, data, chosen, checkpoint.preprocessing)
        for split, chosen in rows.items()
    }
    draws = np.random.default_rng(settings.seed).integers(
        len(data.emotions), size=(settings.n_resamples, len(data.emotions))
    )
    likeness["gain"] = likeness["train"] - likeness["unseen"]
    for name, values in likeness.items():
        ends = np.quantile(np.nanmean(values[draws], axis=1), [0.025, 0.975])
        metrics[f"inversion.{name}"] = (float(np.nanmean(values)), *map(float, ends))
    flat = {
        f"{key}{end}": value
        for key, values in metrics.items()
        for end, value in zip(("", "_lo", "_hi"), values, strict=True)
    }
    flat |= {"n_members": n, "network": settings.explained}
    write_metrics(dirs, "privacy", flat, data.meta, params, settings.seed, time.monotonic() - start)
    return dirs.metrics / "privacy.json"


def attack_membership(
    members: np.ndarray, others: np.ndarray, n_resamples: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """Return how well a threshold on the loss tells training faces from others, with 95 % intervals.

    members, others: float (N,), (M,), the loss of training faces and of faces never seen (Yeom et al. 2018).
    `auroc`: 0.5 is guessing.   `advantage`: the largest true-positive minus false-positive rate, 0 is
    guessing; chosen in hindsight, it is biased upwards.
    """
    scores = -np.concatenate([members, others])
    truth = np.repeat([1, 0], [len(members), len(others)])

    def attack(weights: np.ndarray) -> tuple[float, float]:
        kept = weights > 0
        false, true, _ = roc_curve(truth[kept], scores[kept], sample_weight=weights[kept])
        return float(np.trapezoid(true, false)), float((true - false).max())

    drawn = np.array([attack(row) for chunk in draw_weights(len(scores), n_resamples, seed) for row in chunk])
    names = ["auroc", "advantage"]
    intervals = compute_intervals(names, drawn, 0.95)
    values = attack(np.ones(len(scores)))
    return {name: (value, *intervals[name]) for name, value in zip(names, values, strict=True)}


def invert_classes(model: nn.Module, preprocessing: Preprocessing, n_classes: int) -> np.ndarray:
    """Return float32 (C, S, S): of each class the picture the network is surest of (Fredrikson et al. 2015).

    Found by gradient steps from grey, kept smooth by the total variation; it starts from no face.
    """
    side = preprocessing.image_size
    pictures = torch.zeros(n_classes, 1, side, side, requires_grad=True)
    optimizer = torch.optim.Adam([pictures], lr=RATE)
    targets = torch.arange(n_classes)
    with torch.enable_grad():
        for _ in range(STEPS):
            optimizer.zero_grad()
            logits = model(pictures.expand(-1, 3, -1, -1))
            steps = [pictures.diff(dim=axis).abs().mean(dim=(1, 2, 3)) for axis in (2, 3)]
            loss = (
                nn.functional.cross_entropy(logits, targets, reduction="sum") + SMOOTHNESS * sum(steps).sum()
            )
            loss.backward()
            optimizer.step()
    model.zero_grad(set_to_none=True)
    return pictures.detach().numpy()[:, 0]


def find_likeness(
    pictures: np.ndarray, data: PackedDataset, rows: np.ndarray, preprocessing: Preprocessing
) -> np.ndarray:
    """Return float (C,): each inverted picture's highest correlation with a face of its class in `rows`."""
    found = []
    for label, picture in enumerate(pictures):
        chosen = rows[data.labels[rows] == label]
        if not len(chosen):
            found.append(np.nan)
            continue
        faces = preprocess([data.faces[row] for row in chosen], preprocessing).mean(axis=1)
        flat = _standardise(faces.reshape(len(faces), -1))
        found.append(float((flat @ _standardise(picture.reshape(1, -1))[0]).max()))
    return np.array(found)


def _standardise(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
