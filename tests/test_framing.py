from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo_faces.clips import draw_scene
from fer_lib.data import framing
from fer_lib.data.detector import Detector
from fer_lib.data.framing import FER2013_FRAMING, Framing, cut_face, estimate_similarity, measure_framing

POINTS = np.array([[30, 40], [70, 42], [50, 60], [36, 80], [66, 78]], float)
COLOUR = replace(FER2013_FRAMING, channels=3)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


def build_similarity(degrees, scale, x, y):
    cosine, sine = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([[cosine, -sine, x], [sine, cosine, y]])


def move(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


def draw_dot(centre, sigma, size):
    """Return a grey image with a soft dot; `centre` in pixels, 0 being the middle of the first one."""
    y, x = np.mgrid[:size, :size]
    squares = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
    return np.dstack([(255 * np.exp(-squares / (2 * sigma**2))).round().astype(np.uint8)] * 3)


def find_dot(crop):
    """Return the middle of the dot as fractions of the side."""
    weights = np.clip(crop[..., 0].astype(float) - 3, 0, None)
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]]
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum() / len(crop) + 0.5 / len(crop)


@settings(max_examples=80, deadline=None)
@given(
    degrees=st.floats(-180, 180),
    scale=st.floats(0.01, 50),
    x=st.floats(-1000, 1000),
    y=st.floats(-1000, 1000),
    seed=st.integers(0, 9),
)
def test_a_known_similarity_is_found_exactly(degrees, scale, x, y, seed):
    points = np.random.default_rng(seed).uniform(0, 100, (5, 2))
    known = build_similarity(degrees, scale, x, y)
    assert estimate_similarity(points, move(known, points)) == pytest.approx(known, rel=1e-6, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), step=st.integers(0, 3), sign=st.sampled_from([-1, 1]))
def test_no_other_similarity_comes_closer(seed, step, sign):
    # Least squares: every small change of turn, scale or shift makes the sum of squares larger.
    rng = np.random.default_rng(seed)
    targets = POINTS * 1.3 + rng.normal(0, 5, (5, 2))
    found = estimate_similarity(POINTS, targets)
    turn, shift = np.zeros((2, 3)), 0.01 * sign
    turn[(0, 1), (step % 2, 1 - step % 2)] = shift * np.array([1, 1 if step % 2 == 0 else -1])
    changed = found + (turn if step < 2 else 0)
    changed[:, 2] += shift if step == 2 else 0
    changed[0, 2] += shift if step == 3 else 0
    # A change of the turn alone must leave the middle where it is.
    changed[:, 2] += move(found, POINTS).mean(axis=0) - move(changed, POINTS).mean(axis=0) if step < 2 else 0
    costs = [((move(matrix, POINTS) - targets) ** 2).sum() for matrix in (found, changed)]
    assert costs[0] < costs[1]


def test_a_mirrored_face_is_not_mirrored_back():
    matrix = estimate_similarity(POINTS, POINTS * [-1, 1])
    assert np.linalg.det(matrix[:, :2]) > 0


def test_points_that_coincide_are_moved():
    matrix = estimate_similarity(np.full((5, 2), 7.0), POINTS)
    assert move(matrix, np.array([[7.0, 7.0]]))[0] == pytest.approx(POINTS.mean(axis=0))
    assert np.isfinite(cut_face(np.zeros((20, 20, 3), np.uint8), np.full((5, 2), 7.0), COLOUR)).all()


@pytest.mark.parametrize("degrees", [0, 33, -120])
@pytest.mark.parametrize("scale", [0.4, 1, 1.9, 2.1, 8])
def test_landmarks_lie_where_the_framing_says(scale, degrees):
    # scale: pixels of the image per pixel of the crop; from 2 on the image is made smaller first.
    size = round(48 * scale * 1.7) + 30
    place = build_similarity(degrees, 48 * scale, 0, 0)
    landmarks = move(place, np.array(COLOUR.landmarks) - 0.5) + size / 2
    for point, expected in zip(landmarks, COLOUR.landmarks, strict=True):
        crop = cut_face(draw_dot(point, max(1.0, 1.2 * scale), size), landmarks, COLOUR)
        assert find_dot(crop) * 48 == pytest.approx(np.array(expected) * 48, abs=0.08)  # pixels of the crop


def test_sizes_and_channels():
    image, _ = draw_scene(1, 200, 200)
    landmarks = np.array(FER2013_FRAMING.landmarks) * 100 + 50
    grey, colour = cut_face(image, landmarks, FER2013_FRAMING), cut_face(image, landmarks, COLOUR)
    assert grey.shape == (48, 48)
    assert colour.shape == (48, 48, 3)
    assert grey.dtype == colour.dtype == np.uint8
    # Grey is made before or after the warp: rounding apart the same.
    assert np.abs(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY).astype(int) - grey).max() <= 2
    assert cut_face(image, landmarks, replace(COLOUR, size=64)).shape == (64, 64, 3)


@pytest.mark.parametrize("degrees", [-60, -20, 45, 90, 180])
def test_crop_does_not_show_how_far_the_image_is_turned(degrees):
    image, _ = draw_scene(1, 400, 400, face_width=150, seed=1)
    landmarks = np.array(COLOUR.landmarks) * 160 + 120
    matrix = cv2.getRotationMatrix2D((199.5, 199.5), degrees, 1)
    turned = cv2.warpAffine(image, matrix, (400, 400), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    upright = cut_face(image, landmarks, COLOUR).astype(int)
    found = cut_face(turned, move(matrix, landmarks), COLOUR).astype(int)
    # One more interpolation, nothing else: shifted by one pixel the crop differs by 5 on average.
    assert np.abs(found - upright).mean() < 1


@pytest.mark.parametrize("factor", [0.5, 2, 5])
def test_large_image_and_its_copy_give_the_same_crop(factor):
    image, _ = draw_scene(1, 400, 400, face_width=150, seed=1)
    landmarks = np.array(COLOUR.landmarks) * 160 + 120
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    other = cv2.resize(image, None, fx=factor, fy=factor, interpolation=way)
    found = cut_face(other, (landmarks + 0.5) * factor - 0.5, COLOUR).astype(int)
    difference = np.abs(found - cut_face(image, landmarks, COLOUR)).mean()
    assert difference < 1


def test_fine_stripes_become_grey():
    # 20 stripes to a pixel of the crop: sampled instead of averaged they would stay black or white.
    image = np.zeros((1920, 1920, 3), np.uint8)
    image[:, ::2] = 255
    crop = cut_face(image, np.array(COLOUR.landmarks) * 1920, COLOUR)
    assert np.abs(crop.astype(int) - 128).max() <= 3


def test_outside_the_image_its_edge_is_repeated():
    image = np.full((48, 48, 3), 50, np.uint8)
    image[:, 0] = 200
    landmarks = np.array(COLOUR.landmarks) * 48 - [24, 0]  # the left half of the crop is outside
    crop = cut_face(image, landmarks, COLOUR)
    assert (crop[:, :23] == 200).all()
    assert (crop[:, 27:] == 50).all()


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(8, 300),
    height=st.integers(8, 300),
    x=st.floats(-400, 700),
    y=st.floats(-400, 700),
    degrees=st.floats(-180, 180),
    side=st.floats(0.5, 2000),
)
def test_any_landmarks_give_a_crop_of_the_images_own_levels(width, height, x, y, degrees, side):
    image = np.full((height, width, 3), 90, np.uint8)
    landmarks = move(build_similarity(degrees, side, x, y), np.array(COLOUR.landmarks))
    crop = cut_face(image, landmarks, COLOUR)
    assert crop.shape == (48, 48, 3)
    assert (crop == 90).all()


def test_image_is_left_alone():
    image, _ = draw_scene(1, 100, 100)
    before = image.copy()
    cut_face(image, np.array(COLOUR.landmarks) * 60 + 20, FER2013_FRAMING)
    assert (image == before).all()


@pytest.mark.parametrize("grey", [False, True])
def test_framing_of_faces_that_were_cut_alike_is_recovered(grey):
    points = (np.array(COLOUR.landmarks) - 0.5) * 0.7 + 0.5
    known, detector = Framing(96, 3, tuple(map(tuple, points))), Detector()
    images = [draw_scene(1, 240, 240, face_width=120, seed=seed)[0] for seed in range(6)]
    faces = np.stack([cut_face(each, detector.detect(each)[0].landmarks, known) for each in images])
    found = measure_framing(faces[..., 1] if grey else faces)
    assert found.size == 96
    assert found.channels == (1 if grey else 3)
    # YuNet sees the eyes of a close crop up to 0.03 further out and higher than in the whole image.
    assert np.array(found.landmarks) == pytest.approx(points, abs=0.05)


def test_framing_is_the_symmetric_median(monkeypatch):
    seen = np.array(COLOUR.landmarks)
    seen[:, 0] += [0.02, 0.02, 0.01, 0.0, 0.0]  # as when the faces look a little to one side
    outliers = iter([seen, seen + 0.2, None, seen, seen - 0.3])
    monkeypatch.setattr(framing, "find_landmarks", lambda face, detector: next(outliers))
    found = measure_framing(np.zeros((5, 48, 48), np.uint8))
    assert np.array(found.landmarks) == pytest.approx(np.array(COLOUR.landmarks))


@pytest.mark.parametrize(("n_found", "expected"), [(1, False), (2, True)])
def test_a_fifth_of_the_faces_must_be_found(monkeypatch, n_found, expected):
    found = iter([np.array(COLOUR.landmarks)] * n_found + [None] * (10 - n_found))
    monkeypatch.setattr(framing, "find_landmarks", lambda face, detector: next(found))
    assert (measure_framing(np.zeros((10, 48, 48), np.uint8)) is not None) == expected


def test_framing_needs_faces():
    noise = np.random.default_rng(0).integers(0, 256, (6, 48, 48), dtype=np.uint8)
    assert measure_framing(noise) is None
    assert measure_framing(noise[:0]) is None


def test_framing_survives_json():
    assert Framing.from_dict(FER2013_FRAMING.to_dict()) == FER2013_FRAMING
