import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lib.models.preprocessing import Preprocessing
from fer_lib.param_sections import AugmentationParams
from fer_lib.params import load_params
from fer_lib.training.predict import View
from fer_lib.training.transforms import (
    AUGMENTATIONS,
    ORIGINAL,
    SAMPLE_FACES,
    TOGETHER,
    TRANSFORMS,
    TrainTransform,
    apply_each,
    choose_sample,
    isolate_augmentation,
    list_active,
    measure_statistics,
    summarise_statistics,
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
    tensor = View(PREPROCESSING)(np.full((48, 48, 3), 51, np.uint8))
    assert tensor.shape == (3, 64, 64)
    # 51 / 255 = 0.2, then (0.2 - mean) / std by hand.
    assert tensor[:, 0, 0].tolist() == pytest.approx([-0.6, -0.8, -0.5])


def test_grey_and_rgb_of_the_same_face_give_the_same_input(face):
    transform = View(PREPROCESSING)
    assert transform(face).equal(transform(np.dstack([face] * 3)))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), others=st.lists(st.integers(0, 2**31 - 1), max_size=3))
def test_a_seed_decides_the_augmentation_whatever_came_before(seed, others):
    face = np.random.default_rng(1).integers(0, 256, (48, 48), dtype=np.uint8)
    fresh, used = (TrainTransform(PREPROCESSING, RANGES) for _ in range(2))
    for other in others:
        used(face, other)
    assert used(face, seed).equal(fresh(face, seed))


def test_seeds_differ(face):
    transform = TrainTransform(PREPROCESSING, RANGES)
    assert len({transform.augment(face, seed).tobytes() for seed in range(20)}) == 20


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_transform_alone_changes_what_it_names(face, name):
    alone = TrainTransform(PREPROCESSING, isolate_augmentation(RANGES, name))
    plain = TrainTransform(PREPROCESSING, isolate_augmentation(RANGES, None)).augment(face)
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
    only = isolate_augmentation(RANGES, None).model_copy(
        update={"shift": 0.05, "flip_probability": 0.5, "brightness": 0.2}
    )
    transform = TrainTransform(PREPROCESSING, only)
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
    alone = TrainTransform(PREPROCESSING, isolate_augmentation(RANGES, "rotation"))
    angles = []
    for seed in range(40):
        y, x = np.nonzero(alone.augment(face, seed)[..., 0] > 100)
        angles.append(np.degrees(np.arctan(np.polyfit(x, y, 1)[0])))
    assert 8 < np.abs(angles).max() < 15.5  # half a degree of slack for the drawn bar's width


def test_all_ranges_zero_is_the_eval_transform(face):
    off = isolate_augmentation(RANGES, None)
    transform = TrainTransform(PREPROCESSING, off)
    assert transform(face, 3).equal(View(PREPROCESSING)(face))


def test_every_augmentation_of_the_parameters_is_in_the_registry_once():
    registered = [parameter for parameters in TRANSFORMS for parameter in parameters]
    assert sorted(registered) == sorted(AugmentationParams.model_fields.keys() - {"seed"})


def test_preprocessing_survives_json():
    assert Preprocessing.from_dict(PREPROCESSING.to_dict()) == PREPROCESSING


@pytest.fixture(scope="module")
def summary():
    faces = np.random.default_rng(0).integers(60, 180, (60, 32, 32), dtype=np.uint8)
    augmentation = load_params("demo").augmentation
    variants = apply_each(faces, augmentation, Preprocessing(32, (0.5,) * 3, (0.5,) * 3))
    assert list(variants) == [ORIGINAL, *list_active(augmentation), TOGETHER]
    assert "erasing" not in variants  # the paper's recipe has none
    return summarise_statistics(measure_statistics(variants))


def test_a_flip_changes_pixels_but_no_statistic(summary):
    assert summary.loc["flip", ["mean_shift", "std_shift"]].max() < 1e-3
    assert summary.loc["flip", "change"] > 5


def test_brightness_moves_the_mean_by_half_its_range(summary):
    # Uniform in +-20 % of 255 grey levels: 25.5 on average, without its sign. Nothing is clipped here.
    # 60 draws of a uniform's size: standard error 1.9; three of them.
    assert summary.loc["brightness", "mean_shift"] == pytest.approx(25.5, abs=5.7)
    assert summary.loc["brightness", "std_shift"] < 1


def test_contrast_moves_mean_and_spread_alike(summary):
    shifts = summary.loc["contrast"]
    assert shifts["mean_shift"] / 120 == pytest.approx(shifts["std_shift"] / 34.6, rel=0.15)


def test_sample_is_spread_and_of_the_size_asked_for():
    rows = np.arange(10, 30_000)
    sample = choose_sample(rows)
    assert SAMPLE_FACES <= len(sample) < 1.1 * SAMPLE_FACES
    assert set(np.diff(sample)) == {len(rows) // SAMPLE_FACES}
    assert choose_sample(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
