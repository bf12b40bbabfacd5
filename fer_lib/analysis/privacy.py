"""What a trained network gives away about its training faces: two attacks, measured."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_curve
from torch import nn

from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.evaluation.bootstrap import compute_intervals, draw_weights
from fer_lib.metrics_file import flatten_interval, write_metrics
from fer_lib.models.build import load_checkpoint
from fer_lib.models.preprocessing import Preprocessing, preprocess
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.training.predict import compute_softmax, predict_logits
from fer_lib.training.recipes import check_match

MEASURES = {
    "membership.auroc": "AUROC of the loss as a test of membership; 0.5 is guessing",
    "membership.advantage": "its largest true minus false positive rate; 0 is guessing",
    "inversion.train": "highest correlation of an inverted picture with a training face",
    "inversion.unseen": "with a face never seen, among as many",
    "inversion.gain": "the difference",
    "inversion.mean_face": "what the mean training face of the emotion reaches with a face never seen",
}
"""What is measured, in words; on average over the emotions."""

STEPS, RATE, SMOOTHNESS = 150, 0.05, 2.0
"""Of the inversion: steps of Adam, its rate in units of normalised pixels, weight of the total variation."""


def measure_privacy(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Attack the network `robustness.explained`; write `metrics/privacy.json` and return it.

    Keys: `membership.auroc` and `.advantage`; `inversion.train` and `.unseen`, the mean over classes of the
    highest correlation of an inverted picture with a face of that class, among training faces and as many
    that the network never saw; `inversion.gain`, their difference; `inversion.mean_face`, what the mean
    training face of the class reaches with faces never seen. Intervals are 95 %, here over classes.
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
    persons = np.concatenate([data.persons[rows[split]] for split in rows])
    found = attack_membership(*losses.values(), persons, settings.n_resamples, settings.seed)
    metrics = {f"membership.{name}": values for name, values in found.items()}
    pictures = invert_classes(checkpoint.model, checkpoint.preprocessing, len(data.emotions))
    faces = match_classes(data, rows)
    likeness = {
        split: find_likeness(pictures, data, chosen, checkpoint.preprocessing)
        for split, chosen in faces.items()
    }
    likeness["gain"] = likeness["train"] - likeness["unseen"]
    means = average_classes(data, faces["train"], checkpoint.preprocessing)
    likeness["mean_face"] = find_likeness(means, data, faces["unseen"], checkpoint.preprocessing)
    draws = np.random.default_rng(settings.seed).integers(
        len(data.emotions), size=(settings.n_resamples, len(data.emotions))
    )
    for name, values in likeness.items():
        ends = np.quantile(np.nanmean(values[draws], axis=1), [0.025, 0.975])
        metrics[f"inversion.{name}"] = (float(np.nanmean(values)), *map(float, ends))
    flat: dict[str, float | str] = {"n_members": n, "network": settings.explained}
    for key, values in metrics.items():
        flat |= flatten_interval(key, values)
    write_metrics(dirs, "privacy", flat, data.meta, params, settings.seed, time.monotonic() - start)
    return dirs.metrics / "privacy.json"


def attack_membership(
    members: np.ndarray, others: np.ndarray, persons: np.ndarray, n_resamples: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """Return how well a threshold on the loss tells training faces from others, with 95 % intervals.

    members, others: float (N,), (M,), the loss of training faces and of faces never seen (Yeom et al. 2018).
    persons: (N + M,), equal for faces of one person, which are resampled together.
    `auroc`: 0.5 is guessing.   `advantage`: the largest true-positive minus false-positive rate, 0 is
    guessing; chosen in hindsight, it is biased upwards.
    """
    scores = -np.concatenate([members, others])
    truth = np.repeat([1, 0], [len(members), len(others)])

    def attack(weights: np.ndarray) -> tuple[float, float]:
        kept = weights > 0
        false, true, _ = roc_curve(truth[kept], scores[kept], sample_weight=weights[kept])
        return float(np.trapezoid(true, false)), float((true - false).max())

    drawn = np.array(
        [attack(row) for chunk in draw_weights(len(scores), n_resamples, seed, persons) for row in chunk]
    )
    names = ["auroc", "advantage"]
    intervals = compute_intervals(names, drawn, 0.95)
    values = attack(np.ones(len(scores)))
    return {name: (value, *intervals[name]) for name, value in zip(names, values, strict=True)}


def invert_classes(model: nn.Module, preprocessing: Preprocessing, n_classes: int) -> np.ndarray:
    """Return float32 (C, S, S): of each class the picture the network is surest of (Fredrikson et al. 2015).

    Found by gradient steps from grey, kept smooth by the total variation and within what a picture can hold;
    it starts from no face.
    """
    side = preprocessing.image_size
    mean, std = (np.array(values, np.float32) for values in (preprocessing.mean, preprocessing.std))
    darkest, brightest = float((-mean / std).max()), float(((1 - mean) / std).min())
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
            with torch.no_grad():
                pictures.clamp_(darkest, brightest)
    model.zero_grad(set_to_none=True)
    return pictures.detach().numpy()[:, 0]


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
