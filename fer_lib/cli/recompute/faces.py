"""Recompute `data_audit` and `augmentation` from the packed faces."""

import numpy as np
from scipy.spatial.distance import cdist

from fer_lib.cli.recompute.written import Numbers, Written
from fer_lib.data.packed import PackedDataset
from fer_lib.labels import VOTE_OF_LABEL, VOTES
from fer_lib.training.targets import VOTE_COLUMNS, has_votes

CHUNK = 1000
"""Faces that are in memory as floats at once."""


def recompute_data_audit(stage: Written) -> Numbers:
    """Yield counts, copies, suspects and votes; pairs of near copies would take too long."""
    data = stage.faces
    assert data is not None
    # The pixels themselves, not the hashes in the index.
    faces = data.index[["split", "label"]].assign(pixels=[face.tobytes() for face in data.faces])
    yield "n_images", len(faces)
    for split, part in faces.groupby("split"):
        counts = np.bincount(part["label"], minlength=len(data.emotions))
        yield f"{split}.n_images", len(part)
        yield from ((f"{split}.n.{emotion}", n) for emotion, n in zip(data.emotions, counts, strict=True))
        if split == "train":
            yield "train.imbalance", counts.max() / counts[counts > 0].min()
    groups = faces.groupby("pixels").agg(
        n=("split", "size"), splits=("split", "nunique"), labels=("label", "nunique")
    )
    repeated = groups[groups["n"] > 1]
    yield "exact.groups", len(repeated)
    yield "exact.groups_crossing_splits", (repeated["splits"] > 1).sum()
    yield "exact.groups_conflicting_labels", (repeated["labels"] > 1).sum()
    train, test = (faces[faces["split"] == split] for split in ("train", "test"))
    is_copy = test["pixels"].isin(train["pixels"])
    yield "exact.test_images_in_train", is_copy.sum()
    yield "exact.test_share_in_train", is_copy.mean()
    for label, emotion in enumerate(data.emotions):
        yield f"test.exact.share_in_train.{emotion}", is_copy[test["label"] == label].mean()
    if stage.params:
        settings, mean_face = stage.params.data_audit, data.faces[train.index].mean(axis=0, keepdims=True)
        spreads, likenesses = [], []
        for start in range(0, len(faces), CHUNK):
            chunk = data.faces[start : start + CHUNK].astype(float)
            spreads.append(chunk.reshape(len(chunk), -1).std(axis=1))
            likenesses.append(1 - cdist(_flatten_grey(chunk), _flatten_grey(mean_face), "correlation")[:, 0])
        is_blank = np.concatenate(spreads) < settings.blank_std
        # A constant image is like none: 0.
        is_suspect = np.nan_to_num(np.concatenate(likenesses)) < settings.mean_face_similarity
        yield "n_blank", is_blank.sum()
        yield "n_suspect", is_suspect.sum()
        if has_votes(data.index):
            is_no_face = data.index[VOTE_COLUMNS].to_numpy().argmax(axis=1) == VOTES.index("nf")
            yield "n_voted_no_face", is_no_face.sum()
            yield "n_voted_no_face_found", (is_no_face & (is_blank | is_suspect)).sum()
    if has_votes(data.index):
        yield from _count_agreement(data)


def _flatten_grey(faces: np.ndarray) -> np.ndarray:
    return (faces.mean(axis=3) if faces.ndim == 4 else faces).reshape(len(faces), -1)


def _count_agreement(data: PackedDataset) -> Numbers:
    votes = data.index[VOTE_COLUMNS].to_numpy(np.int64)
    judged = votes.sum(axis=1) > 1
    votes, shares = votes[judged], votes[judged] / votes[judged].sum(axis=1, keepdims=True)
    # For each answer: the votes without one for it, and its part in the lead among them.
    others = votes[:, None] - np.eye(len(VOTES), dtype=int)
    leads = others == others.max(axis=2, keepdims=True)
    parts = np.diagonal(leads, axis1=1, axis2=2) / leads.sum(axis=2)
    yield "humans.n_images", len(votes)
    yield "humans.voter_vs_others", (shares * parts).sum(axis=1).mean()
    if data.soft_labels is None:
        of_label = np.arange(len(votes)), np.asarray(VOTE_OF_LABEL)[data.labels[judged]]
        leads = votes == votes.max(axis=1, keepdims=True)
        yield "humans.voter_vs_label", shares[of_label].mean()
        yield "humans.majority_vs_label", (leads / leads.sum(axis=1, keepdims=True))[of_label].mean()


def recompute_augmentation(stage: Written) -> Numbers:
    """Yield what each transform changes of the same faces, drawn with the same seeds."""
    from fer_lib.models.preprocessing import Preprocessing  # here: torch takes seconds
    from fer_lib.training.transforms import ORIGINAL, apply_each, choose_sample

    assert stage.faces is not None
    sample = choose_sample(stage.faces.get_rows("train"))
    yield "n_images", len(sample)
    if stage.params:
        unscaled = Preprocessing(stage.params.training.image_size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        images = apply_each(stage.faces.faces[sample], stage.params.augmentation, unscaled)
        before = np.stack(images.pop(ORIGINAL)).astype(np.float32)
        for name, changed in images.items():
            after, model = np.stack(changed).astype(np.float32), name.replace(" ", "_")
            yield f"{model}.change", np.abs(after - before).mean(dtype=float)
            (means, stds), (old_means, old_stds) = map(_measure_pixels, (after, before))
            yield f"{model}.mean_shift", np.abs(means - old_means).mean()
            yield f"{model}.std_shift", np.abs(stds - old_stds).mean()


def _measure_pixels(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    axes = (1, 2, 3)
    return images.mean(axes, dtype=float), images.std(axes, dtype=float)
