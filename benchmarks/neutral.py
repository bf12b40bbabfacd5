"""Does a photograph of the person at rest help to read their other faces? Drawn people, known by identity.

    python benchmarks/neutral.py [demo/student photographs:float ...] > benchmarks/results/neutral.txt

New images are drawn of every person of the demo's validation and test splits: some faces of the demo's own
distribution, and photographs at rest, which are other images of the same person. Faces are found and cut out
as `fer predict` does. Validation chooses how the photograph changes the predictions: by the log loss,
averaged over networks and photographs at rest. Subtracting the mean of all people is shown for comparison
alone: no model stores that constant, and drawn people's is none of photographs. Test says what the library's
way brings (`fer_lib/inference/baseline.py`, `1 of lead + log 2`); its 95 % intervals are of a bootstrap that
draws people. `another person` is a control: what that gains has nothing to do with whose face it is. Smiles
are photographs not at rest.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from typing import NamedTuple

import numpy as np

from demo_faces.factors import (
    SPLIT_IDENTITIES,
    FaceFactors,
    Identity,
    build_prototype,
    sample_factors,
    sample_identity,
)
from demo_faces.scene import draw_face
from fer_lib.data.detector import Detector
from fer_lib.data.framing import cut_face
from fer_lib.evaluation.bootstrap import Bootstrap, Scorer, summarise_draws
from fer_lib.inference.baseline import MIN_PROBABILITY, Baseline, find_neutral
from fer_lib.inference.recognizer import Recognizer
from fer_lib.jobs import map_side_by_side
from fer_lib.labels import EMOTIONS_7
from fer_lib.machine import describe_machine
from fer_lib.params import load_params
from fer_lib.provenance import get_commit

NETWORKS = (
    *(f"demo/{name}" for name in ("baseline", "b0", "unaugmented", "student")),
    *(f"photographs:{name}" for name in ("accurate", "float", "balanced", "tiny")),
    "fer2013-labels",
)
SIZE, RESAMPLES = 128, 2000
NEUTRAL = find_neutral(EMOTIONS_7)
MEASURES = {
    "accuracy": "accuracy",
    "macro recall": "macro.recall",
    "neutral recall": "recall.neutral",
    "calibration error": "ece",
    "log loss": "nll",
}

Shift = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Log-probabilities (N, C), those of each person at rest (N, C), and their mean over all people (C,)."""


class Drawing(NamedTuple):
    """An image of one person: a `face`, to be predicted, or a kind of photograph."""

    kind: str
    factors: FaceFactors


REST = {
    "another photograph": ["another photograph"],
    "facing the camera": ["facing"],
    "light from the side": ["side light"],
    "head turned by 25 degrees": ["turned"],
    "five photographs": [f"extra {i}" for i in range(5)],
}
MISUSE = {
    "slight smile": ["slight smile"],
    "broad smile": ["broad smile"],
    "another person": ["another photograph"],
}
"""What a baseline is made of: kinds of drawings."""


def list_drawings(people: range, n_faces: int, seed: int, first: int) -> list[Drawing]:
    """Return `n_faces` faces of each person, numbers from `first` on, and their photographs."""
    found: dict[int, list[Drawing]] = {person: [] for person in people}
    for number in count(first):
        factors = sample_factors(seed, number)
        own = found.get(factors.identity.id, [])
        if factors.identity.id in found and len(own) < n_faces:
            own.append(Drawing("face", factors))
        if all(len(own) == n_faces for own in found.values()):
            break
    # Nothing but the action units depends on the emotion, so any neutral face lends its light and pose.
    others = (one for i in count() if (one := sample_factors(seed + 1, i)).emotion == "neutral")
    for person, own in found.items():
        identity = sample_identity(seed, person)
        own += [Drawing(kind, factors) for kind, factors in photograph(identity).items()]
        for kind in ("another photograph", *REST["five photographs"]):
            own.append(Drawing(kind, replace(next(others), identity=identity)))
    return [drawing for own in found.values() for drawing in own]


def photograph(identity: Identity) -> dict[str, FaceFactors]:
    facing = FaceFactors(identity, "neutral", {}, scene_seed=identity.id)
    return {
        "facing": facing,
        "side light": replace(facing, light_azimuth=65.0, light_elevation=10.0, light_strength=0.65),
        "turned": replace(facing, yaw=25.0),
        "slight smile": replace(facing, aus=build_prototype("happy", 0.3)),
        "broad smile": replace(facing, aus=build_prototype("happy", 0.9)),
    }


def draw(drawing: Drawing) -> np.ndarray:
    return draw_face(drawing.factors, SIZE)[0]


def subtract_lead(share: float, margin: float, z: np.ndarray, rest: np.ndarray, _: np.ndarray) -> np.ndarray:
    lead = np.maximum(0, rest - rest[:, [NEUTRAL]] + margin)
    lead[:, NEUTRAL] = 0
    return z - share * lead


def subtract_rest(share: float, z: np.ndarray, rest: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return z - share * (rest - mean)


WAYS: dict[str, Shift] = {
    "none": lambda z, rest, mean: z,
    **{f"{share:g} of the lead": partial(subtract_lead, share, 0.0) for share in (0.25, 0.5, 1.0)},
    **{f"{share:g} of lead + log 2": partial(subtract_lead, share, float(np.log(2))) for share in (0.5, 1.0)},
    **{f"{share:g} of rest - mean": partial(subtract_rest, share) for share in (0.25, 0.5, 1.0)},
}
"""The lead is that of an emotion over neutral at rest, the mean that of all people's `another photograph`."""


class Predictions:
    """A network's predictions for the drawings of one split."""

    def __init__(self, probabilities: np.ndarray, drawings: list[Drawing]) -> None:
        self._rows = {key: [] for key in {(one.factors.identity.id, one.kind) for one in drawings}}
        for row, one in zip(probabilities, drawings, strict=True):
            self._rows[one.factors.identity.id, one.kind].append(row)
        is_face = np.array([one.kind == "face" for one in drawings])
        faces = [one.factors for one in drawings if one.kind == "face"]
        self.rows = probabilities[is_face]
        self.labels = np.array([EMOTIONS_7.index(one.emotion) for one in faces])
        self.persons = np.array([one.identity.id for one in faces])
        self._people = sorted(set(self.persons.tolist()))

    def take_rest(self, person: int, name: str) -> np.ndarray:
        """Return the rows (M, C) of a baseline of `REST` or `MISUSE`."""
        if name == "another person":
            person = self._people[self._people.index(person) - 1]
        kinds = (REST | MISUSE)[name]
        return np.array([row for kind in kinds for row in self._rows.get((person, kind), [])])

    def list_rest(self, name: str) -> np.ndarray:
        """Return each face's mean log-probabilities (N, C) of its person at rest."""
        means = {one: to_logs(self.take_rest(one, name)).mean(axis=0) for one in self._people}
        return np.array([means[person] for person in self.persons])

    def calibrate(self, name: str) -> np.ndarray:
        """Return the rows against the library's baseline."""
        baselines = {
            one: Baseline.from_probabilities(self.take_rest(one, name), EMOTIONS_7) for one in self._people
        }
        return np.array(
            [baselines[person].apply(row) for person, row in zip(self.persons, self.rows, strict=True)]
        )


def to_logs(rows: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(rows, MIN_PROBABILITY))


def measure_loss(way: Shift, split: Predictions) -> list[float]:
    """Return the log loss for each baseline of `REST`."""
    logs, losses = to_logs(split.rows), []
    mean = split.list_rest("another photograph").mean(axis=0)
    for name in REST:
        shifted = way(logs, split.list_rest(name), mean)
        of_label = shifted[np.arange(len(logs)), split.labels]
        losses.append(float((np.logaddexp.reduce(shifted, axis=1) - of_label).mean()))
    return losses


def print_choice(splits: dict[str, Predictions]) -> None:
    table = {
        name: np.array([measure_loss(way, one) for one in splits.values()]) for name, way in WAYS.items()
    }
    print(f"{'validation: log loss':<29}{'mean':>7}" + "".join(f"{name:>27}" for name in REST))
    for name, losses in sorted(table.items(), key=lambda item: item[1].mean()):
        print(f"{name:<29}{losses.mean():>7.4f}" + "".join(f"{x:>27.4f}" for x in losses.mean(axis=0)))


def print_test(network: str, split: Predictions) -> None:
    bootstrap = Bootstrap(len(split.rows), RESAMPLES, 0, split.persons)

    def score(rows: np.ndarray) -> np.ndarray:
        scorer = Scorer(split.labels, rows, EMOTIONS_7)
        return bootstrap.score(scorer.score)[:, [scorer.names.index(name) for name in MEASURES.values()]]

    before = score(split.rows)
    print(f"{network:<29}" + "".join(f"{value:<33.3f}" for value in before[0]))
    for name in REST | MISUSE:
        after = score(split.calibrate(name))
        cells = []
        for value, gains in zip(after[0], (after - before).T, strict=True):
            gain = summarise_draws(gains)
            cells.append(f"{value:.3f}  {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
        print(f"  {name:<27}" + "".join(f"{cell:<33}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="MODEL or MODEL:VARIANT")
    parser.add_argument("--faces", type=int, default=40, help="of each person")
    parser.add_argument("--people", type=int, default=50, help="of each split")
    options = parser.parse_args()
    splits: dict[str, dict[str, Predictions]] = {"val": {}, "test": {}}
    params, detector = load_params("demo").prepare, Detector()
    for split, predictions in splits.items():
        people = SPLIT_IDENTITIES[split][: options.people]
        drawings = list_drawings(people, options.faces, params.seed, params.n_faces)
        images = map_side_by_side(draw, drawings, os.cpu_count() or 1)
        seen = [(one, image, detector.detect(image)) for one, image in zip(drawings, images, strict=True)]
        drawings = [one for one, _, faces in seen if faces]
        for network in options.networks:
            model, _, variant = network.partition(":")
            recognizer = Recognizer(model, variant=variant or None)
            cut = [
                cut_face(image, faces[0].landmarks, recognizer.framing) for _, image, faces in seen if faces
            ]
            predictions[network] = Predictions(recognizer.compute_probabilities(cut), drawings)
        n_faces, n_lost = len(predictions[network].rows), len(seen) - len(drawings)
        print(f"{split}: {n_faces:,} faces of {len(people)} people; in {n_lost} drawings no face is found")
    print(f"{describe_machine()}, commit {get_commit()[:7]}\n")
    print_choice(splits["val"])
    print("\ntest: without a baseline, and by what the baseline shows with it: value, difference [interval]")
    print(f"{'':<29}" + "".join(f"{name:<33}" for name in MEASURES))
    for network, predictions in splits["test"].items():
        print_test(network, predictions)


if __name__ == "__main__":
    main()
