import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_lib.analysis import proxies

LANDMARKS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.4, 0.8], [0.6, 0.8]])


def test_proxies_follow_the_picture():
    face = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (48, 1))
    landmarks = np.stack([LANDMARKS, LANDMARKS])
    landmarks[1, 2, 0] = 0.6  # the nose is off the middle
    is_found = np.array([True, True])
    table = proxies.measure_proxies([face, face], landmarks, is_found)
    darker = proxies.measure_proxies([face // 2, face // 2], landmarks, is_found)
    np.testing.assert_allclose(table["luminance"], 2 * darker["luminance"], rtol=0.05)
    assert (table["sharpness"] > darker["sharpness"]).all()
    assert table["size"][0] == pytest.approx(0.4)
    assert table["yaw"].tolist() == pytest.approx([0, 0.25])
    assert table["roll"][0] == 0


def test_what_rests_on_landmarks_is_unknown_without_them():
    face = np.zeros((48, 48, 3), np.uint8)
    row = proxies.measure_proxies([face], LANDMARKS[None], np.array([False])).iloc[0]
    assert row[["size", "yaw", "roll"]].isna().all()
    assert row[["luminance", "sharpness"]].notna().all()


@given(n=st.integers(5, 200), missing=st.integers(0, 4), seed=st.integers(0, 9))
def test_fifths_are_even_and_in_order(n, missing, seed):
    values = pd.Series(np.random.default_rng(seed).random(n))
    values[:missing] = np.nan
    fifths = proxies.cut_quintiles(values, seed)
    assert (fifths[:missing] == proxies.NO_FACE).all()
    known, of_known = values[missing:].to_numpy(), fifths[missing:].astype(int)
    sizes = np.bincount(of_known, minlength=6)[1:]
    assert sizes.max() - sizes.min() <= 1
    assert (np.diff(of_known[np.argsort(known)]) >= 0).all()


def test_equal_values_are_not_cut_in_the_order_of_the_files():
    fifths = proxies.cut_quintiles(pd.Series(np.zeros(500)), 0)
    assert len(set(fifths[:100])) == 5  # a class folder's worth
