"""Measure the privacy leakage of a trained network: membership inference and model inversion."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_curve
from torch import nn

from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.evaluation.bootstrap import Bootstrap, summarise_draws
from fer_lib.intervals import Interval
from fer_lib.metrics_file import Metrics, write_metrics
from fer_lib.models.build import load_checkpoint
from fer_lib.models.preprocessing import Preprocessing, preprocess
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.training.predict import Predictor
from fer_lib.training.recipes import check_match

MEASURES = {
    "membership.auroc": "AUROC of membership inference by the loss (0.5 is guessing)",
    "membership.advantage": "membership advantage: largest true minus false positive rate (0 is guessing)",
    "inversion.train": "highest correlation of an inverted image with a training face",
    "inversion.unseen": "highest correlation of an inverted image with one of as many unseen faces",
    "inversion.gain": "difference of these two correlations",
    "inversion.mean_face": "highest correlation of the mean training face of the emotion with an unseen face",
}
"""What is measured, in words; of the inversion on average over the emotions, with intervals over these."""

STEPS, RATE, SMOOTHNESS = 150, 0.05, 2.0
"""Of the inversion: steps of Adam, its rate in units of normalised pixels, weight of the total variation."""


def measure_privacy(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Attack the network `robustness.explained`, write the metrics `privacy`, and return their table."""
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
    predictor = Predictor(checkpoint.model, checkpoint.preprocessing, params.evaluation.batch_size)
    losses = {}
    for split, chosen in rows.items():
        probabilities = predictor.predict(data.faces, chosen)
        losses[split] = -np.log(np.maximum(probabilities[np.arange(n), data.labels[chosen]], 1e-12))
    persons = np.concatenate([data.persons[rows[split]] for split in rows])
    bootstrap = Bootstrap(2 * n, settings.n_resamples, settings.seed, persons)
    metrics = Metrics("privacy", facts={"n_members": n, "network": settings.explained})
    for name, found in infer_membership(losses["train"], losses["unseen"], bootstrap).items():
        metrics.add(f"membership.{name}", found, n=2 * n)
    images = invert_classes(checkpoint.model, checkpoint.preprocessing, len(data.emotions))
    faces = match_classes(data, rows)
    matches = {
        split: find_best_match(images, data, chosen, checkpoint.preprocessing)
        for split, chosen in faces.items()
    }
    matches["gain"] = matches["train"] - matches["unseen"]
    means = average_classes(data, faces["train"], checkpoint.preprocessing)
    matches["mean_face"] = find_best_match(means, data, faces["unseen"], checkpoint.preprocessing)
    draws = np.random.default_rng(settings.seed).integers(
        len(data.emotions), size=(settings.n_resamples, len(data.emotions))
    )
    for name, values in matches.items():
        drawn = np.nanmean(values[draws], axis=1)
        metrics.add(f"inversion.{name}", summarise_draws(np.append(np.nanmean(values), drawn)))
    write_metrics(dirs, metrics, data.meta, params, settings.seed, time.monotonic() - start)
    return dirs.get_table("privacy")


def infer_membership(members: np.ndarray, others: np.ndarray, bootstrap: Bootstrap) -> dict[str, Interval]:
    """Return how well a threshold on the loss tells training faces from others (Yeom et al. 2018).

    `auroc`: 0.5 is guessing.   `advantage`: the largest true-positive minus false-positive rate, 0 is
    guessing; chosen in hindsight, it is biased upwards. members, others: float (N,), (M,), the losses of
    training faces and of faces never seen; bootstrap: of all N + M.
    """
    scores = -np.concatenate([members, others])
    truth = np.repeat([1, 0], [len(members), len(others)])

    def attack(weights: np.ndarray) -> tuple[float, float]:
        kept = weights > 0
        false, true, _ = roc_curve(truth[kept], scores[kept], sample_weight=weights[kept])
        return float(np.trapezoid(true, false)), float((true - false).max())

    drawn = bootstrap.score(lambda weights: np.array([attack(row) for row in weights]))
    return {"auroc": summarise_draws(drawn[:, 0]), "advantage": summarise_draws(drawn[:, 1])}


def invert_classes(model: nn.Module, preprocessing: Preprocessing, n_classes: int) -> np.ndarray:
    """Return float32 (C, S, S): of each class the image the network is surest of (Fredrikson et al. 2015).

    Found by gradient steps from grey, kept smooth by the total variation and within what an image can hold;
    it starts from no face.
    """
    side = preprocessing.image_size
    mean, std = (np.array(values, np.float32) for values in (preprocessing.mean, preprocessing.std))
    darkest, brightest = float((-mean / std).max()), float(((1 - mean) / std).min())
    images = torch.zeros(n_classes, 1, side, side, requires_grad=True)
    optimizer = torch.optim.Adam([images], lr=RATE)
    targets = torch.arange(n_classes)
    with torch.enable_grad():
        for _ in range(STEPS):
            optimizer.zero_grad()
            logits = model(images.expand(-1, 3, -1, -1))
            steps = [images.diff(dim=axis).abs().mean(dim=(1, 2, 3)) for axis in (2, 3)]
            roughness = SMOOTHNESS * (steps[0] + steps[1]).sum()
            (nn.functional.cross_entropy(logits, targets, reduction="sum") + roughness).backward()
            optimizer.step()
            with torch.no_grad():
                images.clamp_(darkest, brightest)
    model.zero_grad(set_to_none=True)
    return images.detach().numpy()[:, 0]


def match_classes(data: PackedDataset, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return, of each split, the first rows of each class, as many as every split has: a fair search."""
    found: dict[str, list[np.ndarray]] = {split: [] for split in rows}
    for label in range(len(data.emotions)):
        of_class = {split: chosen[data.labels[chosen] == label] for split, chosen in rows.items()}
        n = min(map(len, of_class.values()))
        for split, chosen in of_class.items():
            found[split].append(chosen[:n])
    return {split: np.concatenate(parts) for split, parts in found.items()}


def average_classes(data: PackedDataset, rows: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Return float32 (C, S, S): the mean face of each class among `rows`; zeros for a class without any."""
    side = preprocessing.image_size
    means = np.zeros((len(data.emotions), side, side), np.float32)
    for label in np.unique(data.labels[rows]):
        chosen = rows[data.labels[rows] == label]
        means[label] = preprocess([data.faces[row] for row in chosen], preprocessing).mean(axis=(0, 1))
    return means


def find_best_match(
    images: np.ndarray, data: PackedDataset, rows: np.ndarray, preprocessing: Preprocessing
) -> np.ndarray:
    """Return float (C,): each image's highest correlation with a face of its class; NaN without any."""
    found = np.full(len(images), np.nan)
    for label in np.unique(data.labels[rows]):
        chosen = rows[data.labels[rows] == label]
        faces = preprocess([data.faces[row] for row in chosen], preprocessing).mean(axis=1)
        flat = _standardise(faces.reshape(len(faces), -1))
        found[label] = (flat @ _standardise(images[label].reshape(1, -1))[0]).max()
    return found


def _standardise(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
