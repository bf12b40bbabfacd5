import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lib.params import AugmentationParams
from fer_lib.training.transforms import (
    AUGMENTATIONS,
    Preprocessing,
    build_eval_transform,
    build_train_transform,
    isolate_augmentation,
)

PREPROCESSING = Preprocessing(64, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))
RANGES = AugmentationParams(
    rotation_degrees=15,
    scale=0.1,
    shift=0.05,
    aspect=0.2,
    flip_probability=0.5,
    brightness=0.2,
    contrast=0.2,
    gamma=0.5,
    lighting=0.2,
    downscale=0.5,
    erasing_probability=0.5,
    seed=0,
)


@pytest.fixture
def face() -> np.ndarray:
    # Smooth, so that resizing and warping it keep its values, and asymmetric, so that a flip shows.
    y, x = np.mgrid[:48, :48]
    return (40 + 2 * x + y).astype(np.uint8)


def test_eval_transform_normalises_each_channel(face):
    tensor = build_eval_transform(PREPROCESSING)(np.full((48, 48, 3), 51, np.uint8))
    assert tensor.shape == (3, 64, 64)
    # 51 / 255 = 0.2, then (0.2 - mean) / std by hand.
    assert tensor[:, 0, 0].tolist() == pytest.approx([-0.6, -0.8, -0.5])


def test_grey_and_rgb_of_the_same_face_give_the_same_input(face):
    transform = build_eval_transform(PREPROCESSING)
    assert transform(face).equal(transform(np.dstack([face] * 3)))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), others=st.lists(st.integers(0, 2**31 - 1), max_size=3))
def test_a_seed_decides_the_augmentation_whatever_came_before(seed, others):
    face = np.random.default_rng(1).integers(0, 256, (48, 48), dtype=np.uint8)
    fresh, used = (build_train_transform(PREPROCESSING, RANGES) for _ in range(2))
    for other in others:
        used(face, other)
    assert used(face, seed).equal(fresh(face, seed))


def test_seeds_differ(face):
    transform = build_train_transform(PREPROCESSING, RANGES)
    assert len({transform.augment(face, seed).tobytes() for seed in range(20)}) == 20


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_transform_alone_changes_what_it_names(face, name):
    alone = build_train_transform(PREPROCESSING, isolate_augmentation(RANGES, name))
    plain = build_eval_transform(PREPROCESSING).augment(face)
    changed = [alone.augment(face, seed) for seed in range(12)]
    assert any((image != plain).any() for image in changed)
    if name == "flip":
        assert all((image == plain).all() or (image == plain[:, ::-1]).all() for image in changed)
    if name == "aspect":  # rows keep their place: only what changes along them moves
        assert all((np.diff(image[:, 20:-20, 0].astype(int), axis=0) >= 0).all() for image in changed)
    if name == "erasing":
        share = [(image != plain).any(axis=2).mean() for image in changed]
        assert max(share) < 0.16  # of the area, with a pixel's rounding
    if name in ("brightness", "contrast"):  # a line from old to new grey level: no pixel moves
        for image in changed:
            old, new = plain[..., 0].ravel().astype(float), image[..., 0].ravel().astype(float)
            whole = (new > 0) & (new < 255)  # what was not clipped
            line = np.polyfit(old[whole], new[whole], 1)
            assert np.abs(np.polyval(line, old[whole]) - new[whole]).max() < 1  # rounding


def test_transforms_draw_independently():
    # A dot at the centre shows the shift; a bright left half shows the flip; its grey level, the light.
    face = np.zeros((64, 64), np.uint8)
    face[:, :32] = 100
    face[30:34, 30:34] = 200
    only = isolate_augmentation(RANGES, "none of them").model_copy(
        update={"shift": 0.05, "flip_probability": 0.5, "brightness": 0.2}
    )
    transform = build_train_transform(PREPROCESSING, only)
    n, drawn = 400, []
    for seed in range(n):
        image = transform.augment(face, seed)[..., 0].astype(float)
        flipped = image[:8, 56:].mean() > image[:8, :8].mean()
        _, x = np.nonzero(image > image.max() - 20)
        shift = (x.mean() - 31.5) * (-1 if flipped else 1)  # as it was before the flip
        drawn.append((flipped, shift, max(image[:8, 56:].mean(), image[:8, :8].mean())))
    correlations = np.corrcoef(np.array(drawn, dtype=float).T)[np.triu_indices(3, 1)]
    # The standard error of a correlation of 400 pairs is 0.05; four of them.
    assert np.abs(correlations).max() < 0.2


def test_rotation_stays_within_its_range():
    # A bright bar through the centre: its angle is the rotation.
    face = np.zeros((64, 64), np.uint8)
    face[31:33, :] = 255
    alone = build_train_transform(PREPROCESSING, isolate_augmentation(RANGES, "rotation"))
    angles = []
    for seed in range(40):
        y, x = np.nonzero(alone.augment(face, seed)[..., 0] > 100)
        angles.append(np.degrees(np.arctan(np.polyfit(x, y, 1)[0])))
    assert 8 < np.abs(angles).max() < 15.5  # half a degree of slack for the drawn bar's width


def test_all_ranges_zero_is_the_eval_transform(face):
    off = isolate_augmentation(RANGES, "none of them")
    transform = build_train_transform(PREPROCESSING, off)
    assert transform(face, 3).equal(build_eval_transform(PREPROCESSING)(face))


def test_preprocessing_survives_json():
    assert Preprocessing.from_dict(PREPROCESSING.to_dict()) == PREPROCESSING
