import numpy as np
import pytest

from fer_lib.analysis.explain import ACTIVE_PARTS, BACKGROUND, PARTS, build_active_mask, build_part_masks
from fer_lib.data.framing import FER2013_FRAMING
from fer_lib.labels import EMOTIONS_8

LANDMARKS = np.array(FER2013_FRAMING.landmarks)
SIDE = 64


def find_part(masks, point):
    x, y = np.floor(np.asarray(point) * SIDE).astype(int)
    return next(name for name, mask in masks.items() if mask[y, x])


def test_every_pixel_is_in_exactly_one_part():
    masks = build_part_masks(LANDMARKS, SIDE)
    assert (sum(mask.astype(int) for mask in masks.values()) == 1).all()
    assert all(masks[part].any() for part in PARTS)


@pytest.mark.parametrize("degrees", [0, 25, -40])
def test_landmarks_lie_in_the_parts_named_after_them(degrees):
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (LANDMARKS - 0.5) @ turn.T * 0.7 + 0.5
    masks = build_part_masks(points, SIDE)
    assert [find_part(masks, point) for point in points] == ["eyes", "eyes", "nose", "mouth", "mouth"]
    assert find_part(masks, (0.01, 0.01)) == BACKGROUND


def test_every_emotion_rests_on_some_parts_and_not_on_all():
    masks = build_part_masks(LANDMARKS, SIDE)
    assert set(ACTIVE_PARTS) == set(EMOTIONS_8)
    for emotion in EMOTIONS_8:
        assert 0.02 < build_active_mask(masks, emotion).mean() < 0.5
