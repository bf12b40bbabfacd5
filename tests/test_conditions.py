import numpy as np
import pandas as pd
import pytest

from fer_lib.data.packed import PackedDataset
from fer_lib.evaluation.conditions import CONDITIONS, alter, coarsen, frame, relight, score_conditions

FACE = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(48, 48), (96, 96, 3)])
@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition_keeps_shape_and_the_original(name, shape):
    face = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    before = face.copy()
    altered = CONDITIONS[name](face)
    assert altered.shape == shape
    assert altered.dtype == np.uint8
    assert (face == before).all()
    assert (altered == face).all() == (name == "unchanged")
    assert (CONDITIONS[name](face) == altered).all()  # nothing is drawn


def test_zoom_of_one_moves_nothing_and_a_shift_moves_by_its_share():
    assert (frame(FACE, 1, 1) == FACE).all()
    moved = frame(FACE, 1, 1, shift=0.125)  # six pixels
    assert (moved[6:, 6:] == FACE[:-6, :-6]).all()
    assert (moved[:6, 6:] == FACE[0, :-6]).all()  # the border repeats


def test_zoom_enlarges_about_the_middle():
    disc = np.zeros((97, 97), np.uint8)
    disc[28:69, 28:69] = 255  # a square of 41 around the middle
    assert (frame(disc, 1.5, 1.5) > 127).sum() == pytest.approx((41 * 1.5) ** 2, rel=0.03)
    columns = np.flatnonzero((frame(disc, 0.5, 1.0) > 127).any(axis=0))
    assert columns.mean() == 48
    assert len(columns) == pytest.approx(20.5, abs=1)


def test_light_by_hand():
    grey = np.full((4, 5), 100, np.uint8)
    assert (relight(grey, 0.5, 30) == 80).all()
    assert relight(grey, 1.0, slope=0.5)[0].tolist() == [50, 75, 100, 125, 150]
    assert (relight(np.full((2, 2), 200, np.uint8), 2.0) == 255).all()  # clipped


def test_coarse_faces_lose_what_is_small():
    checks = (np.indices((48, 48)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.ptp(coarsen(checks, 0.5)) < 5
    assert coarsen(checks, 0.5).mean() == pytest.approx(127.5, abs=1)


def test_altered_store_keeps_labels_in_the_order_of_rows():
    index = pd.DataFrame({"label": np.arange(6), "split": "val"})
    data = PackedDataset(np.stack([FACE + i for i in range(6)]).astype(np.uint8), index, {})
    altered = alter(data, np.array([4, 1]), "darker")
    assert altered.labels.tolist() == [4, 1]
    assert (altered.faces[1] == relight(data.faces[1], 0.4)).all()


def test_accuracies_are_per_network_and_condition():
    labels = np.array([0, 1, 2, 3])
    named = {
        "b0": {"unchanged": labels, "darker": np.array([0, 1, 0, 0])},
        "lite0": {"unchanged": np.array([0, 1, 2, 0]), "darker": np.zeros(4, int)},
    }
    assert score_conditions(named, labels).to_dict("index") == {
        "b0": {"unchanged": 1.0, "darker": 0.5},
        "lite0": {"unchanged": 0.75, "darker": 0.25},
    }
