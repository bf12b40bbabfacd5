"""Give the faces of a video numbers that stay with the person, at 2 frames a second and at 60.

A live image on a small computer has 3 to 5 frames a second; boxes that overlap at 30 are then apart, and with
them fail the trackers that match boxes alone. `benchmarks/video.py` compares those of the package `trackers`.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from fer_lib.data.detector import Detection

SURE = 0.8
"""Detection score from which a face gets a new number; one that is less sure may keep one."""

LOST_SECONDS = 2.0
"""How long a face may be out of sight and keep its number."""

REACH, SPEED, MAX_REACH = 1.25, 5.0, 2.5
"""A face is looked for so many of its widths around its place, so many more a second, and no further."""

FORESIGHT_SECONDS = 0.3
"""How long a face that is out of sight is thought to go on as it went; heads turn back soon."""

VELOCITY_SECONDS = 0.15
"""Time constant of the average over a face's past velocities."""

LOOK_SIDE, LOOK_SHARE = 8, 0.3
"""Pixels a side of what is remembered of a face's looks, and the weight of a new frame in it."""


class Numbering:
    """Numbers the faces of one video, frame by frame. All its bounds are in seconds, none is in frames."""

    def __init__(self) -> None:
        self._counter = itertools.count(1)
        self._people: dict[int, _Person] = {}

    def assign(
        self, faces: Sequence[Detection], looks: np.ndarray, time: float, width: int
    ) -> list[int | None]:
        """Return each face's number, or None for one that is neither known nor sure enough to begin.

        looks: float32 (N, 8, 8, 3), as `describe_looks` returns them.
        time: of the frame, in seconds; rising.
        width: of the frame, in pixels; browsers change it while a camera runs.
        """
        self._people = {
            number: person
            for number, person in self._people.items()
            if time - person.seen <= LOST_SECONDS + 1e-6  # sums of frame times are not exact
        }
        boxes = np.array([face.box for face in faces], float).reshape(-1, 4) / width
        centres, sizes = boxes[:, :2] + boxes[:, 2:] / 2, np.sqrt(boxes[:, 2] * boxes[:, 3])
        numbers: list[int | None] = [None] * len(faces)
        for number, row in self._match(centres, sizes, looks, time):
            self._people[number].move(centres[row], sizes[row], looks[row], time)
            numbers[row] = number
        for row, face in enumerate(faces):
            if numbers[row] is None and face.score >= SURE:
                numbers[row] = number = next(self._counter)
                self._people[number] = _Person(centres[row], sizes[row], looks[row], time)
        return numbers

    def _match(
        self, centres: np.ndarray, sizes: np.ndarray, looks: np.ndarray, time: float
    ) -> list[tuple[int, int]]:
        """Return pairs of a person's number and a face's row: the most pairs, and of those the likest."""
        from scipy.optimize import linear_sum_assignment  # slow to import, and images do not need it

        if not self._people or not len(centres):
            return []
        people = self._people.values()
        distances = np.array([person.measure_distances(centres, sizes, time) for person in people])
        reach = [[min(MAX_REACH, REACH + SPEED * (time - person.seen))] for person in people]
        unlike = np.abs(np.array([person.look for person in people])[:, None] - looks).mean(axis=(2, 3, 4))
        # Two pairs, however far, cost less than one: else who is lost could take the face of who is there.
        costs = np.where(distances < reach, distances + unlike - 4 * MAX_REACH, 0)
        numbers = list(self._people)
        pairs = zip(*linear_sum_assignment(costs), strict=True)
        return [(numbers[person], int(face)) for person, face in pairs if costs[person, face] < 0]


def describe_looks(frame: np.ndarray, faces: Sequence[Detection]) -> np.ndarray:
    """Return what tells two faces apart at a glance: tiny images, of mean 0 and deviation 1 in any light.

    frame: uint8 (H, W, 3).
    Returns float32 (N, 8, 8, 3), zeros for a face outside the frame.
    """
    looks = np.zeros((len(faces), LOOK_SIDE, LOOK_SIDE, 3), np.float32)
    for look, face in zip(looks, faces, strict=True):
        left, top, width, height = (round(value) for value in face.box)
        crop = frame[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
        if crop.size:
            small = cv2.resize(crop, (LOOK_SIDE, LOOK_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
            look[:] = (small - small.mean()) / (small.std() + 1)
    return looks


@dataclass
class _Person:
    """Who has a number: centre, size (root of the area), looks, when last seen, speed; in frame widths."""

    centre: np.ndarray
    size: float
    look: np.ndarray
    seen: float
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))

    def measure_distances(self, centres: np.ndarray, sizes: np.ndarray, time: float) -> np.ndarray:
        """Return how far each face is from this person, in widths of the larger of both.

        Near is who is where they were, as after turning back, or where they were going; the latter counts a
        little more, which tells two who cross. Another size counts as much as a step to the side.
        """
        ahead = self.centre + self.velocity * min(time - self.seen, FORESIGHT_SECONDS)
        stay, go = (np.linalg.norm(centres - place, axis=1) for place in (self.centre, ahead))
        larger = np.maximum(sizes, self.size)
        return np.minimum(stay / larger + 0.1, go / larger) + np.abs(np.log(sizes / self.size))

    def move(self, centre: np.ndarray, size: float, look: np.ndarray, time: float) -> None:
        """Take the face that this person has now."""
        step = time - self.seen
        share = -math.expm1(-step / VELOCITY_SECONDS)
        self.velocity = self.velocity + share * ((centre - self.centre) / step - self.velocity)
        self.look = self.look + LOOK_SHARE * (look - self.look)
        self.centre, self.size, self.seen = centre, size, time
