from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import REPO

from demo_faces.clips import draw_scene
from fer_lib.analysis.explain import (
    ACTIVE_PARTS,
    BACKGROUND,
    METHOD,
    PARTS,
    REDUCTION,
    build_input,
    build_part_masks,
    compute_saliency,
    explain_face,
    find_stage,
    list_stages,
    overlay_saliency,
)
from fer_lib.data.framing import FER2013_FRAMING
from fer_lib.errors import ModelError
from fer_lib.inference.recognizer import Recognizer
from fer_lib.labels import EMOTIONS_7, EMOTIONS_8
from fer_lib.metrics_file import read_metrics
from fer_lib.models.build import Checkpoint, create_model
from fer_lib.paths import get_output_dirs
from fer_lib.reporting.figures.analysis import plot_explanations


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer(variant="float")


def test_shown_is_what_notebook_07_found_most_faithful_on_photographs():
    found = read_metrics(get_output_dirs("fer2013", REPO), "gradcam")
    assert (found["method"], found["reduction"]) == (METHOD, REDUCTION)


def build_checkpoint(architecture, size=64):
    preprocessing = {"image_size": size, "mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"architecture": architecture, "emotions": EMOTIONS_7, "preprocessing": preprocessing}
    return Checkpoint(create_model(architecture, 7).eval(), config)


@pytest.fixture(scope="module")
def faces(recognizer):
    return recognizer(draw_scene(2)[0])


def test_saliency_covers_the_input_and_repeats(recognizer, faces):
    checkpoint, crop = recognizer.checkpoint, faces[0].crop
    first, second = (explain_face(checkpoint, crop, faces[0].label) for _ in range(2))
    assert first.shape == (recognizer.checkpoint.preprocessing.image_size,) * 2
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() == pytest.approx(1, abs=1e-3)
    np.testing.assert_array_equal(first, second)


def weigh_by_hand(model, image, stage, emotion, weigh):
    """Return the map of one image, (h, w), from the stage's output and its gradient."""
    kept = {}
    handle = model.get_submodule(stage).register_forward_hook(
        lambda layer, inputs, output: kept.update(features=output)
    )
    logits = model(image)
    handle.remove()
    gradient = torch.autograd.grad(logits[0, emotion], kept["features"])[0][0]
    return weigh(gradient, kept["features"][0]).relu().detach().numpy()


@pytest.mark.parametrize(
    ("method", "weigh"),
    [
        # Selvaraju et al. 2017, eq. 1 and 2: channel means of the gradient weigh the map.
        ("Grad-CAM", lambda gradient, features: (gradient.mean((1, 2), keepdim=True) * features).sum(0)),
        # Draelos and Carin 2020, eq. 7: every cell is weighed by its own gradient.
        ("HiResCAM", lambda gradient, features: (gradient * features).sum(0)),
    ],
)
def test_saliency_is_that_of_the_formula(recognizer, faces, method, weigh):
    model, emotion = recognizer.checkpoint.model, recognizer.emotions.index("surprise")
    # Every map's side divides 112, so that enlarging one by hand is to repeat its cells.
    preprocessing = replace(recognizer.checkpoint.preprocessing, image_size=112)
    image = build_input([faces[0].crop], preprocessing)
    for stage in list_stages(model):
        expected = weigh_by_hand(model, image, stage, emotion, weigh)
        found = compute_saliency(model, image, np.array([emotion]), stage, method)[0]
        n_cells = len(expected)
        cells = found.reshape(n_cells, len(found) // n_cells, n_cells, -1).mean(axis=(1, 3))
        assert np.corrcoef(cells.ravel(), expected.ravel())[0, 1] > 0.9  # the map is enlarged smoothly


def test_maps_of_a_batch_are_those_of_its_faces(recognizer, faces):
    checkpoint = recognizer.checkpoint
    crops = [face.crop for face in faces[:2]]
    images = build_input(crops, checkpoint.preprocessing)
    targets = np.array([checkpoint.emotions.index(face.label) for face in faces[:2]])
    together = compute_saliency(checkpoint.model, images, targets, find_stage(checkpoint.model))
    for crop, face, found in zip(crops, faces, together, strict=False):
        np.testing.assert_allclose(found, explain_face(checkpoint, crop, face.label), atol=1e-3)


def test_emotions_differ_and_network_is_left_as_it_was(recognizer, faces):
    checkpoint = recognizer.checkpoint
    maps = [explain_face(checkpoint, faces[0].crop, name) for name in ("happy", "angry")]
    assert not np.array_equal(*maps)
    assert all(parameter.grad is None for parameter in checkpoint.model.parameters())
    assert not any(layer._forward_hooks for layer in checkpoint.model.modules())


def test_unknown_emotion_is_named_with_those_that_are_known(recognizer, faces):
    with pytest.raises(ModelError, match=r"angry, disgust.*'bored'"):
        explain_face(recognizer.checkpoint, faces[0].crop, "bored")


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenetv3_small_050", "face_resnet_tiny"])
def test_other_convolutional_networks_are_explained_at_cells_of_eight_pixels(architecture, faces):
    checkpoint = build_checkpoint(architecture)
    stages = list_stages(checkpoint.model)
    chosen = find_stage(checkpoint.model)
    assert stages[chosen] == max(found for found in stages.values() if found <= 8)
    assert explain_face(checkpoint, faces[0].crop, "happy").shape == (64, 64)


def test_transformer_is_refused_in_a_sentence(faces):
    with pytest.raises(ModelError, match="expected a convolutional network"):
        explain_face(build_checkpoint("vit_tiny_patch16_224", 224), faces[0].crop, "happy")


def test_threads_share_a_network(recognizer, faces):
    tasks = [(faces[index % 2].crop, name) for index in range(4) for name in ("happy", "sad")]
    expected = [explain_face(recognizer.checkpoint, *task) for task in tasks]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda task: explain_face(recognizer.checkpoint, *task), tasks))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_overlay_leaves_cold_parts_grey_and_colours_hot_ones(faces):
    saliency = np.zeros((112, 112), np.float32)
    saliency[:, 56:] = 1
    overlay = overlay_saliency(faces[0].crop, saliency).astype(int)
    assert overlay.shape == (112, 112, 3)
    assert np.ptp(overlay[:, :50], axis=2).max() == 0
    assert np.ptp(overlay[:, 60:], axis=2).min() > 30


def test_figure_has_a_row_for_each_face_and_names_the_emotion(recognizer, faces):
    axes = plot_explanations(recognizer.checkpoint, faces, "sad").axes
    assert len(axes) == 4
    assert axes[1].get_title() == f"sad: {faces[0].probabilities['sad']:.0%}"


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
        active = np.logical_or.reduce([masks[part] for part in ACTIVE_PARTS[emotion]])
        assert 0.02 < active.mean() < 0.5
