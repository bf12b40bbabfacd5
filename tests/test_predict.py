import numpy as np
import pandas as pd
import pytest
import torch

from fer_lib.data.packed import PackedDataset
from fer_lib.models.build import create_model
from fer_lib.models.preprocessing import Preprocessing, preprocess
from fer_lib.training.predict import ALL, FLIP, Predictor, View
from fer_lib.training.voting import compute_softmax

PREPROCESSING = Preprocessing(36, (0.5, 0.4, 0.3), (0.5,) * 3)
FACE = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)


def test_whole_is_the_preprocessing_of_everywhere_else():
    assert View(PREPROCESSING)(FACE).equal(torch.from_numpy(preprocess([FACE], PREPROCESSING)[0]))


def test_a_flipped_view_is_the_mirror_image():
    for name in ALL:
        if not name.endswith("flipped"):
            view, mirrored = (View(PREPROCESSING, n)(FACE) for n in (name, f"{name} flipped"))
            assert mirrored.equal(view.flip(2))


def test_five_crops_are_the_corners_and_the_middle():
    # 36 / 0.9 = 40 pixels, the face's own side: no crop resizes anything.
    whole = torch.from_numpy(FACE).float() / 255
    for name, (top, left) in {
        "top left": (0, 0),
        "top right": (0, 4),
        "bottom left": (4, 0),
        "bottom right": (4, 4),
        "middle": (2, 2),
    }.items():
        expected = (whole[top : top + 36, left : left + 36] - 0.5) / 0.5
        assert torch.allclose(View(PREPROCESSING, name)(FACE)[0], expected, atol=1e-5)


@pytest.fixture(scope="module")
def store():
    faces = np.random.default_rng(1).integers(0, 256, (6, 48, 48), dtype=np.uint8)
    index = pd.DataFrame({"split": ["test"] * 6, "label": [0, 1, 0, 1, 0, 1]})
    return PackedDataset(faces, index, {"emotions": ["happy", "sad"]})


def test_one_plain_view_is_the_ordinary_prediction(store):
    model, rows = create_model("test_efficientnet", 2).eval(), np.array([4, 1, 2])
    predictor = Predictor(model, PREPROCESSING, 2)
    logits = predictor.predict_logits(store.faces, rows)
    with torch.inference_mode():
        alone = [model(View(PREPROCESSING)(store.faces[row])[None]).numpy() for row in rows]
    assert np.allclose(logits, np.concatenate(alone), atol=1e-5)
    assert np.allclose(predictor.predict(store.faces, rows), compute_softmax(logits))


def test_a_face_and_its_mirror_image_get_the_same_probabilities(store):
    model, rows = create_model("test_efficientnet", 2).eval(), np.arange(6)
    mirrored = PackedDataset(np.ascontiguousarray(store.faces[:, :, ::-1]), store.index, store.meta)
    of_face, of_mirror = (
        Predictor(model, PREPROCESSING, 4).predict(s.faces, rows, FLIP) for s in (store, mirrored)
    )
    assert np.allclose(of_face, of_mirror, atol=1e-5)
    assert np.allclose(of_face.sum(axis=1), 1)
