"""Follow faces through the frames of a video, with numbers that stay and emotions that do not flicker.

`benchmarks/video.py` compares the smoothing with other time constants.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fer_lib.data.detector import CANDIDATE, Detection, Detector
from fer_lib.inference.baseline import Baseline, find_neutral
from fer_lib.inference.faces import Face, clip_box
from fer_lib.inference.numbering import LOST_SECONDS, Numbering, describe_looks
from fer_lib.inference.recognizer import Recognizer

SMOOTHING_SECONDS = 0.2
"""Time constant of the average over each face's past probabilities; see `benchmarks/video.py`."""

REFINE_SECONDS = 1.0
"""How long a face's landmarks are used before they are found anew; that costs as much as a frame's search."""

CLASSIFY_SECONDS = 0.1
"""How long a face's prediction is used; the labels flicker and lag no more than with one for every frame."""

MAX_STEP = 1.0
"""Seconds from one frame to the next, at most: nobody is known to have left while nothing was seen."""

HIDDEN_SECONDS = 0.5
"""How long a hidden face stays hidden where it was last seen, for frames in which it is not found."""

SMALLEST_SHARE, SMALLEST = 0.075, 24
"""Width of the smallest face looked for, as a share of the frame's shorter side, and in pixels at least."""


@dataclass(frozen=True)
class TrackedFace(Face):
    """A face in a frame of a video; its probabilities, and what follows from them, are smoothed over time."""

    track: int
    """The same number in every frame for the same person, from 1."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the crop."""
        return {"track": self.track, **super().to_dict()}


class FrameAnalyser:
    """Finds, follows and classifies the faces of one video, frame by frame.

    It remembers the frames before, so each video needs its own, used by one thread at a time; the recognizer
    may be shared. Memory does not grow with the length of the video.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        fps: float = 30.0,
        smoothing_seconds: float = SMOOTHING_SECONDS,
        *,
        baseline: Baseline | None = None,
        neutral_seconds: float = 0.0,
    ):
        """Take the rate, frames per second, roughly; `smoothing_seconds` 0 switches smoothing off.

        Every face is seen against `baseline`; without one, against its own first `neutral_seconds`, in which
        its predictions stay as they are. Raises ModelError for these when the model does not know neutral.
        """
        if neutral_seconds > 0:
            find_neutral(recognizer.emotions)
        self.recognizer = recognizer
        self._baseline, self._neutral_seconds = baseline, neutral_seconds
        self._frame_seconds = 1 / fps if math.isfinite(fps) and fps > 0 else 1 / 30
        self._smoothing_seconds = smoothing_seconds
        self._detector = Detector(min_score=CANDIDATE)
        self._numbering = Numbering()
        self._memory: dict[int, _Memory] = {}
        self._clock = 0.0
        self._last_time = math.nan

    def __call__(self, frame: np.ndarray, time_seconds: float) -> list[TrackedFace]:
        """Return the faces of the next frame, uint8 (H, W, 3) RGB, the largest first.

        A time that does not rise, as when a stream starts anew, counts as one frame later than the last.
        """
        seconds = self._advance(time_seconds)
        smallest = max(SMALLEST, SMALLEST_SHARE * min(frame.shape[:2]))
        found = self._detector.search(frame, smallest)
        numbers = self._numbering.assign(found, describe_looks(frame, found), self._clock, frame.shape[1])
        tracked = {number: face for number, face in zip(numbers, found, strict=True) if number is not None}
        aligned = self._align(frame, tracked)
        due = {number: face for number, face in aligned.items() if self._is_due(number, seconds)}
        # `recognize` leaves out what lies wholly outside the frame, so faces are told by their landmarks.
        number_of = {id(face.landmarks): number for number, face in due.items()}
        for face in self.recognizer.recognize(frame, list(due.values())):
            number = number_of[id(face.landmarks)]
            self._memory[number].face = self._smooth(face, number)
        shown = [self._move(number, face, frame.shape) for number, face in aligned.items()]
        return [face for face in shown if face is not None]

    def _advance(self, time: float) -> float:
        """Return the seconds since the last frame; forget who has been gone for long."""
        step = time - self._last_time  # before the first frame this is no number
        step = min(step, MAX_STEP) if step > 0 else self._frame_seconds
        self._clock += step
        self._last_time = time
        self._memory = {
            number: memory
            for number, memory in self._memory.items()
            if self._clock - memory.seen <= 1.1 * LOST_SECONDS  # a little longer than the number
        }
        return step

    def _align(self, frame: np.ndarray, tracked: dict[int, Detection]) -> dict[int, Detection]:
        """Return the faces with landmarks that follow their tilt: one found anew, the others as remembered.

        YuNet's own, on the small copy that is searched, hardly follow it. In between, a face's landmarks keep
        their places in its box.
        """
        for number in tracked:
            self._memory.setdefault(number, _Memory()).seen = self._clock
        due = min(tracked, key=lambda number: self._memory[number].refined, default=None)
        if due is not None and self._clock - self._memory[due].refined >= REFINE_SECONDS:
            refined = self._detector.refine(frame, tracked[due])
            corner, size = np.split(np.array(refined.box), 2)
            self._memory[due].landmarks = (refined.landmarks - corner) / size
            self._memory[due].refined = self._clock
        aligned = dict(tracked)
        for number, face in tracked.items():
            places = self._memory[number].landmarks
            if places is not None:
                corner, size = np.split(np.array(face.box), 2)
                aligned[number] = replace(face, landmarks=(places * size + corner).astype(np.float32))
        return aligned

    def _is_due(self, number: int, seconds: float) -> bool:
        """Return whether a face is classified in this frame, the nearest to the time when it should be."""
        return self._clock - self._memory[number].classified >= CLASSIFY_SECONDS - seconds / 2

    def _move(self, number: int, found: Detection, shape: tuple[int, ...]) -> TrackedFace | None:
        """Return the face's last prediction where it is now; None when nothing of it is in the frame."""
        face, box = self._memory[number].face, clip_box(found.box, shape[1], shape[0])
        if face is None or box is None:
            return None
        return replace(face, box=box, landmarks=found.landmarks, detection_score=found.score)

    def _smooth(self, face: Face, number: int) -> TrackedFace:
        """Return the face with an exponential moving average of its probabilities.

        A new face's average starts at its first frame and is not pulled towards it later: the weights of all
        frames so far are made to sum to 1, as Adam does (Kingma and Ba 2015).
        """
        memory = self._memory[number]
        row = np.array([face.probabilities[name] for name in self.recognizer.emotions])
        baseline = self._baseline or self._observe_rest(memory, row)
        if self._smoothing_seconds > 0:
            usual = max(self._frame_seconds, CLASSIFY_SECONDS)
            step = self._clock - memory.classified if memory.face else usual
            share = -math.expm1(-step / self._smoothing_seconds)
            memory.total = (1 - share) * memory.total + share * row
            memory.weight = (1 - share) * memory.weight + share
            row = memory.total / memory.weight
        memory.classified = self._clock
        return TrackedFace(**vars(face) | vars(self.recognizer.describe(row, baseline)), track=number)

    def _observe_rest(self, memory: "_Memory", row: np.ndarray) -> Baseline | None:
        """Return the baseline of a face whose first seconds are over; until then, add the row to them."""
        if memory.baseline is None and self._neutral_seconds > 0:
            memory.started = min(memory.started, self._clock)
            if self._clock - memory.started < self._neutral_seconds:
                memory.rest.append(row)
            else:
                memory.baseline = Baseline.from_probabilities(np.array(memory.rest), self.recognizer.emotions)
                memory.rest.clear()
        return memory.baseline


@dataclass
class _Memory:
    """Of one track: landmarks as shares of the box, the last prediction, sums, and when they were made; the
    probabilities of its first seconds, until they are its baseline.
    """

    face: TrackedFace | None = None
    landmarks: np.ndarray | None = None
    refined: float = -math.inf
    total: np.ndarray | float = 0.0
    weight: float = 0.0
    classified: float = -math.inf
    seen: float = 0.0
    started: float = math.inf
    rest: list[np.ndarray] = field(default_factory=list)
    baseline: Baseline | None = None


class FaceHider:
    """Remembers where faces were: one that is missed in a frame would show in it."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[float, TrackedFace]] = {}

    def add_lost(self, faces: list[TrackedFace], time: float) -> list[TrackedFace]:
        """Return the faces, and those that were there shortly before and are not found now."""
        self._last = {
            number: (when, face)
            for number, (when, face) in self._last.items()
            if time - when <= HIDDEN_SECONDS
        }
        self._last |= {face.track: (time, face) for face in faces}
        return [face for _, face in self._last.values()]
