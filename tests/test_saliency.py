"""Hold the two promises of notebook 07 in small: on drawn faces, with the released network, in seconds."""

import cv2
import numpy as np
import pytest

from fer_lib.analysis import faithfulness
from fer_lib.analysis.explain import FACE, build_input, compute_saliency, find_stage
from fer_lib.data.framing import cut_face
from fer_lib.data.readers.demo import make_face
from fer_lib.inference.recognizer import Recognizer

NEUTRAL = 6
"""No action unit makes it, so no region is active."""


@pytest.fixture(scope="module")
def correct():
    """Return the network, and the drawn faces that it predicts correctly: input, label and active region."""
    recognizer = Recognizer(variant="float")
    crops, labels, regions = [], [], []
    for face in (make_face(i, 160, 0) for i in range(100)):
        found = recognizer.detector.detect(face.image)
        if face.label == NEUTRAL or not found:
            continue
        painted = np.repeat((255 * face.regions).astype(np.uint8)[..., None], 3, axis=2)
        cut = [cut_face(image, found[0].landmarks, recognizer.framing) for image in (face.image, painted)]
        crops.append(cut[0])
        regions.append(cut[1] / 255)
        labels.append(face.label)
    labels = np.array(labels)
    right = np.flatnonzero(recognizer.compute_probabilities(crops).argmax(axis=1) == labels)
    images = build_input([crops[i] for i in right], recognizer.checkpoint.preprocessing)
    side = images.shape[-1]
    masks = np.stack([cv2.resize(regions[i].astype(np.float32), (side, side)) for i in right])
    return recognizer, images, labels[right], masks


def bound(values):
    """Return the ends of a 95 % bootstrap interval of the mean."""
    drawn = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
    return np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])


def test_energy_in_the_active_regions_beats_random_maps_and_the_centre_of_the_face(correct):
    recognizer, images, labels, masks = correct
    assert len(labels) > 15
    model, side = recognizer.checkpoint.model, images.shape[-1]
    stage = find_stage(model)
    maps = compute_saliency(model, images, labels, stage)
    eyes = np.array(recognizer.framing.landmarks[:2])  # crops are cut so that the eyes lie there
    distance = eyes[1, 0] - eyes[0, 0]
    centre = eyes.mean(axis=0) + np.array([0, FACE[1] * distance])
    blob = faithfulness.build_centre_maps(
        np.tile(centre, (len(labels), 1)), np.full(len(labels), distance * (FACE[2] + FACE[3]) / 4), side
    )
    random = faithfulness.build_random_maps(len(labels), side, side // 8, seed=0)
    low, _ = bound(faithfulness.compute_energy(maps, masks))
    for baseline in (random, blob):
        _, high = bound(faithfulness.compute_energy(baseline, masks))
        assert low > high


def test_random_weights_destroy_the_map(correct):
    recognizer, images, labels, _ = correct
    model = recognizer.checkpoint.model
    found = faithfulness.randomise_layers(model, images[:8], labels[:8], find_stage(model), seed=0)
    last = list(found.values())[-1]
    assert not np.isnan(last).all()
    assert np.nanmean(last) < 0.3
