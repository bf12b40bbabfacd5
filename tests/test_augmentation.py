import numpy as np
import pytest

from fer_lib.evaluation.augmentation import (
    ORIGINAL,
    SAMPLE_FACES,
    TOGETHER,
    apply_each,
    choose_sample,
    measure_statistics,
    summarise_statistics,
)
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.params import load_params
from fer_lib.training.transforms import list_active

PREPROCESSING = Preprocessing(32, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module")
def summary():
    faces = np.random.default_rng(0).integers(60, 180, (60, 32, 32), dtype=np.uint8)
    augmentation = load_params("demo").augmentation
    variants = apply_each(faces, augmentation, PREPROCESSING)
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
