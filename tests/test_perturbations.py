import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fer_lib.data.framing import FER2013_FRAMING
from fer_lib.evaluation.perturbations import (
    CONDITIONS,
    CORRUPTIONS,
    FAMILIES,
    SEVERITIES,
    Sample,
    displace,
    downsample,
    expose,
    perturb,
    relight,
    score_conditions,
    warp,
)

SIDE = 48
LANDMARKS = np.array(FER2013_FRAMING.landmarks) * SIDE


def draw(seed, channels=1):
    """Return a smooth random face-like image."""
    import cv2

    rng = np.random.default_rng(seed)
    shape = (12, 12) if channels == 1 else (12, 12, 3)
    return cv2.resize(
        rng.integers(40, 216, shape).astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC
    )


def measure_change(face, name, severity, sample):
    return np.abs(perturb(face, name, severity, sample).astype(float) - face).mean()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_keeps_shape_repeats_and_is_the_identity_at_severity_0(name, channels):
    face, sample = draw(0, channels), Sample(LANDMARKS, 3)
    before = face.copy()
    np.testing.assert_array_equal(perturb(face, name, 0, sample), face)
    for severity in SEVERITIES[1:]:
        first, second = (perturb(face, name, severity, sample) for _ in range(2))
        assert first.shape == face.shape
        assert first.dtype == np.uint8
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(first, face)
    np.testing.assert_array_equal(face, before)  # the face that was given is left as it was


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_next_severity_changes_more(name):
    # Averaged over faces: of one face a block may lie where it happens to look like what it hides.
    changes = [
        np.mean([measure_change(draw(i), name, severity, Sample(LANDMARKS, i)) for i in range(12)])
        for severity in SEVERITIES
    ]
    assert changes[0] == 0
    # Of a random texture, a shift beyond its grain changes no more than one just beyond it.
    assert all(later > 0.95 * earlier for earlier, later in pairwise(changes))
    assert changes[5] > 1.3 * changes[1]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_nothing_leaks_from_one_face_to_another(name):
    faces = [draw(i) for i in range(4)]
    samples = [Sample(LANDMARKS, i) for i in range(4)]
    forth = [perturb(face, name, 3, sample) for face, sample in zip(faces, samples, strict=True)]
    back = [perturb(faces[i], name, 3, samples[i]) for i in (3, 2, 1, 0)][::-1]
    for a, b in zip(forth, back, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["noise", "shift", "block"])
def test_faces_differ_in_what_is_random(name):
    face = draw(0)
    several = {perturb(face, name, 4, Sample(LANDMARKS, seed)).tobytes() for seed in range(20)}
    assert len(several) > 3


@pytest.mark.parametrize("name", ["side light", "hand", "yaw", "pitch", "rotation"])
def test_direction_is_drawn_for_a_face_and_kept_at_every_severity(name):
    x, y = np.meshgrid(*[np.arange(SIDE) - (SIDE - 1) / 2] * 2)
    # Alike on all sides, so that only the perturbation can favour one of them.
    face = (128 + 60 * np.cos(x / 6) * np.cos(y / 12)).round().astype(np.uint8)
    axis = {"pitch": y, "rotation": x * y}.get(name, x)
    signs = [
        {
            np.sign((perturb(face, name, severity, Sample(LANDMARKS, seed)) * axis).sum())
            for severity in (2, 3)
        }
        for seed in range(12)
    ]
    assert all(len(found) == 1 for found in signs)
    assert set.union(*signs) == {-1, 1}


def test_jpeg_keeps_colours_as_another_encoder_does():
    rng = np.random.default_rng(0)
    face = np.kron(rng.integers(0, 256, (6, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    coded = io.BytesIO()
    Image.fromarray(face).save(coded, "JPEG", quality=20, subsampling="4:2:0")
    ours = perturb(face, "JPEG", 3, Sample(LANDMARKS, 0)).astype(float)
    theirs = np.asarray(Image.open(coded)).astype(float)
    assert np.abs(ours - theirs).mean() < 2
    assert np.abs(ours - face).mean() > 4  # what both lose, and a swap of channels would add to


def test_families_are_all_used():
    assert {perturbation.family for perturbation in CORRUPTIONS.values()} == set(FAMILIES)
    assert all(len(set(perturbation.levels)) == 5 for perturbation in CORRUPTIONS.values())


@given(st.integers(1, 254))
def test_a_stop_doubles_linear_light(level):
    # By hand: 128 is 0.2159 of white in linear light; twice that is 0.4317, which sRGB codes as 176.
    face = np.full((4, 4), level, np.uint8)
    brighter = int(expose(face, 1.0, Sample(LANDMARKS, 0))[0, 0])
    coded = level / 255
    linear = coded / 12.92 if coded <= 0.04045 else ((coded + 0.055) / 1.055) ** 2.4
    doubled = min(1.0, 2 * linear)
    expected = 12.92 * doubled if doubled <= 0.0031308 else 1.055 * doubled ** (1 / 2.4) - 0.055
    assert abs(brighter - 255 * min(expected, 1.0)) <= 1
    if level == 128:
        assert brighter == 176


@pytest.mark.parametrize(("name", "axis"), [("yaw", 1), ("pitch", 0)])
def test_a_turned_square_shrinks_by_the_cosine(name, axis):
    face = np.zeros((SIDE, SIDE), np.uint8)
    face[12:36, 12:36] = 255
    degrees = CORRUPTIONS[name].levels[2]
    turned = perturb(face, name, 3, Sample(LANDMARKS, 0)) > 127
    lengths = turned.any(axis=1 - axis).sum()
    assert lengths == pytest.approx(24 * np.cos(np.radians(degrees)), abs=2)
    assert turned.any(axis=axis).sum() == pytest.approx(24, abs=4)  # nearer edges grow, farther ones shrink


def is_changed(name, severity, point, seed=0):
    face = np.full((SIDE, SIDE), 200, np.uint8)
    x, y = np.round(point).astype(int)
    return perturb(face, name, severity, Sample(LANDMARKS, seed))[y, x] != 200


def test_coverings_lie_where_they_are_worn():
    right_eye, left_eye, nose, mouth_right, _ = LANDMARKS
    assert is_changed("mask", 5, nose)
    assert is_changed("mask", 5, mouth_right)
    assert not is_changed("mask", 5, right_eye)
    assert not is_changed("mask", 1, mouth_right)
    assert is_changed("sunglasses", 1, left_eye)
    assert not is_changed("sunglasses", 5, mouth_right)
    assert not is_changed("glasses", 5, left_eye)  # the rim leaves the eye free
    assert is_changed("glasses", 5, (right_eye + left_eye) / 2)  # the bridge
    dark = perturb(np.full((SIDE, SIDE), 200, np.uint8), "sunglasses", 5, Sample(LANDMARKS, 0))
    assert dark[tuple(np.round(left_eye[::-1]).astype(int))] < 40


def test_coverings_turn_with_the_face():
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([SIDE / 2, SIDE / 2])
    tilted = (LANDMARKS - middle) @ turn.T + middle
    face = np.full((SIDE, SIDE), 200, np.uint8)
    masked = perturb(face, "mask", 5, Sample(tilted, 0))
    for point, covered in zip(tilted, (False, False, True, True, True), strict=True):
        x, y = np.round(point).astype(int)
        assert (masked[y, x] != 200) == covered


def test_strength_of_blur_and_resolution_does_not_depend_on_the_stores_size():
    import cv2

    small = draw(1)
    large = cv2.resize(small, (96, 96), interpolation=cv2.INTER_LINEAR)
    for name in ("blur", "low resolution"):
        a = perturb(small, name, 4, Sample(LANDMARKS, 0)).astype(float)
        b = perturb(large, name, 4, Sample(2 * LANDMARKS, 0))
        b = cv2.resize(b, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(float)
        assert np.abs(a - b).mean() < 3


@pytest.mark.parametrize("shape", [(48, 48), (96, 96, 3)])
@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition_keeps_shape_and_the_original(name, shape):
    face = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    before = face.copy()
    altered = CONDITIONS[name](face)
    assert altered.shape == shape
    assert altered.dtype == np.uint8
    assert (face == before).all()
    assert (altered != face).any()
    assert (CONDITIONS[name](face) == altered).all()  # nothing is drawn


def test_zoom_of_one_moves_nothing_and_a_displaced_face_moves_right_and_down():
    face = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    assert (warp(face, 1, 1) == face).all()
    moved = displace(face, 0.125 * np.sqrt(2), np.pi / 4)  # six pixels
    assert (moved[6:, 6:] == face[:-6, :-6]).all()
    assert (moved[:6, 6:] == face[0, :-6]).all()  # the border repeats


def test_zoom_enlarges_about_the_middle():
    disc = np.zeros((97, 97), np.uint8)
    disc[28:69, 28:69] = 255  # a square of 41 around the middle
    assert (warp(disc, 1.5, 1.5) > 127).sum() == pytest.approx((41 * 1.5) ** 2, rel=0.03)
    columns = np.flatnonzero((warp(disc, 0.5, 1.0) > 127).any(axis=0))
    assert columns.mean() == 48
    assert len(columns) == pytest.approx(20.5, abs=1)


def test_light_by_hand():
    grey = np.full((4, 5), 100, np.uint8)
    assert (relight(grey, 0.5, 30) == 80).all()
    assert relight(grey, 1.0, slope=0.5)[0].tolist() == [50, 75, 100, 125, 150]
    assert (CONDITIONS["side light"](grey)[0] == [50, 75, 100, 125, 150]).all()
    assert (CONDITIONS["darker"](grey) == 40).all()
    assert (CONDITIONS["flatter"](grey) == 130).all()
    assert (relight(np.full((2, 2), 200, np.uint8), 2.0) == 255).all()  # clipped


def test_downsampled_faces_lose_what_is_small():
    checks = (np.indices((48, 48)).sum(axis=0) % 2 * 255).astype(np.uint8)
    coarse = downsample(checks, 24)
    assert np.ptp(coarse) < 5
    assert coarse.mean() == pytest.approx(127.5, abs=1)


def test_accuracies_are_per_network_and_condition():
    labels = np.array([0, 1, 2, 3])
    predicted = {
        "b0": {"clean": labels, "darker": np.array([0, 1, 0, 0])},
        "lite0": {"clean": np.array([0, 1, 2, 0]), "darker": np.zeros(4, int)},
    }
    assert score_conditions(predicted, labels).to_dict("index") == {
        "b0": {"clean": 1.0, "darker": 0.5},
        "lite0": {"clean": 0.75, "darker": 0.25},
    }
