import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lib.models.preprocessing import Preprocessing, normalise, preprocess, resize_face, to_rgb

PREPROCESSING = Preprocessing(32, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))


def draw_ramp(size):
    y, x = np.mgrid[:size, :size] * (200 / size)
    return (x * 0.7 + y * 0.3 + 20).astype(np.uint8)


def test_values_are_normalised_by_channel():
    face = np.zeros((32, 32, 3), np.uint8)
    face[...] = (51, 102, 153)
    found = preprocess([face], PREPROCESSING)
    assert found.shape == (1, 3, 32, 32)
    assert found.dtype == np.float32
    # 51 / 255 = 0.2, 102 / 255 = 0.4, 153 / 255 = 0.6; then (value - mean) / std by hand.
    assert found[0, :, 0, 0].tolist() == pytest.approx([-0.6, 0.0, 1.5], abs=1e-6)


def test_faces_of_any_sizes_and_channels_make_one_batch():
    grey = draw_ramp(48)
    faces = [grey, np.dstack([grey] * 3), draw_ramp(32), np.dstack([draw_ramp(200)] * 3)]
    found = preprocess(faces, PREPROCESSING)
    assert found.shape == (4, 3, 32, 32)
    assert (found[0] == found[1]).all()
    # The same ramp at other sizes is the same face: a grey level or two of rounding, over a std of 0.2.
    assert np.abs(found - found[:1]).max() < 4 / 255 / 0.2


def test_no_faces_make_an_empty_batch():
    assert preprocess([], PREPROCESSING).shape == (0, 3, 32, 32)


def test_order_is_kept():
    faces = [np.full((8, 8), level, np.uint8) for level in (10, 200, 90)]
    assert np.argsort(preprocess(faces, PREPROCESSING).mean(axis=(1, 2, 3))).tolist() == [0, 2, 1]


def test_large_faces_are_averaged_not_sampled():
    # Stripes of one pixel: averaged they are grey, sampled they would be black or white.
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize_face(stripes, 32).astype(int) - 128).max() <= 1


def test_face_of_the_right_size_is_not_touched():
    face = draw_ramp(32)
    assert resize_face(face, 32) is face
    assert to_rgb(np.dstack([face] * 3)).shape == (32, 32, 3)


@settings(max_examples=30, deadline=None)
@given(level=st.integers(0, 255), n=st.integers(1, 3), size=st.integers(1, 9))
def test_normalise_takes_one_face_or_many(level, n, size):
    faces = np.full((n, size, size, 3), level, np.uint8)
    many, one = normalise(faces, PREPROCESSING), normalise(faces[0], PREPROCESSING)
    assert many.shape == (n, 3, size, size)
    assert (many == one).all()
    expected = (level / 255 - np.array(PREPROCESSING.mean)) / PREPROCESSING.std
    assert one[:, 0, 0] == pytest.approx(expected, abs=1e-5)


def test_input_is_left_alone():
    face = draw_ramp(32)
    before = face.copy()
    preprocess([face, np.dstack([face] * 3)], PREPROCESSING)
    assert (face == before).all()
