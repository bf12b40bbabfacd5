"""Analyse the camera's frames for the page Live and draw on them, never late."""

import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import pandas as pd

from app.common import Identity, identify
from app.live_recording import Recording
from fer_lib.inference.annotate import draw_faces
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.tracking import FaceHider, FrameAnalyser, TrackedFace
from fer_lib.inference.video import list_rows, tabulate

if TYPE_CHECKING:
    from aiortc.contrib.media import MediaRelay

CAMERA_FPS = 30
"""What is asked of the camera; frames that come faster than they are analysed are skipped."""

FPS_SECONDS = 2.0
"""The frames per second shown are those of so many seconds: steady, and soon right again after a stall."""

HISTORY_SECONDS, HISTORY_STEP = 60.0, 0.2
"""How far back emotions are remembered, and the seconds between those that are."""

PIXELATED = 16
"""Pixels: width of what is left of a frame that could not be analysed while faces are to be blurred."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiveStatus:
    """What is going on in a stream."""

    fps: float = 0.0
    """Frames analysed per second, 0 before the second one."""
    milliseconds: float = 0.0
    """That the newest frame took."""
    n_faces: int = 0
    """In the newest frame."""
    n_frames: int = 0
    n_skipped: int = 0
    failing: bool = False
    """Whether the newest frame could not be analysed."""


def keep_newest_frames_only(relay: "MediaRelay") -> None:
    """See that the queues of a stream hold one frame; else they grow when the browser is not served in time.

    The camera's frames and the drawn ones each pass a queue of aiortc's relay that has no bounds. On a busy
    computer both memory and delay would grow.
    """
    relay.subscribe = partial(type(relay).subscribe, relay, buffered=False)  # type: ignore[method-assign]


class LiveStream:
    """What streamlit-webrtc calls a video processor, for one camera. It keeps no frame, and no recording.

    `recv` and `recv_queued` are called from one thread of streamlit-webrtc's; all else may be used from any
    other.
    """

    def __init__(self, recognizer: Recognizer, blur: bool = False, mirror: bool = False):
        """Take the model, and how the image is shown: faces unrecognisable, left and right exchanged."""
        self.configure(recognizer, blur, mirror)
        self._get_recording: Callable[[], Recording | None] = lambda: None
        self._history: tuple[Sequence[str], deque[tuple]] = ((), deque())  # emotions, rows of a video's table
        self._remembered = 0.0
        self._model: Identity | None = None
        self._analyser: FrameAnalyser | None = None
        self._hider = FaceHider()
        self._moments: deque[float] = deque(maxlen=256)  # when the newest frames were done
        self.status = LiveStatus()  # replaced as a whole after each frame, so it may be read at any time

    def configure(self, recognizer: Recognizer, blur: bool, mirror: bool) -> None:
        """Use another model or show the image otherwise, from the next frame on."""
        self._wanted = (recognizer, identify(recognizer), blur, mirror)

    def record(self) -> Recording:
        """Return a recording of what is shown from now on, until it is stopped, full, or no longer kept."""
        recording = Recording(self._wanted[0].emotions)
        self._get_recording = weakref.ref(recording)  # removed from the page, it is out of memory
        return recording

    def build_history(self) -> pd.DataFrame:
        """Return the faces of the last minute as a video's table; its times are negative, and end now."""
        emotions, rows = self._history
        table = tabulate(list(rows.copy()), emotions)
        return table.assign(time=table["time"] - time.monotonic())

    async def recv_queued(self, frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
        """Return the newest frame, drawn on. The others came while the last one was analysed: showing them
        too would make the image late, and later with every frame.
        """
        return [self.recv(frames[-1], n_skipped=len(frames) - 1)]

    def recv(self, frame: av.VideoFrame, n_skipped: int = 0) -> av.VideoFrame:
        """Return a frame with faces and speed drawn on it. Never raises: that would end the stream."""
        started = time.monotonic()
        recognizer, model, blur, mirror = self._wanted
        faces: list[TrackedFace] = []
        failing = False
        try:
            image = _turn(frame.to_ndarray(format="rgb24"), mirror)  # before anything is written on it
            faces = self._analyse(recognizer, model, image, started)
            shown = self._hider.add_lost(faces, started) if blur else faces
            image = draw_faces(image, shown, blur=blur)
        except Exception:
            if not self.status.failing:  # once, not thirty times a second
                logger.exception("a frame of the live image could not be analysed")
            failing = True
            self._analyser = None  # its state may be what is wrong
            image = _turn(_show_unanalysed(frame, blur), mirror)
        recording = self._get_recording()
        if recording is not None:
            recording.add(image, faces, started)
        self._note(started, len(faces), n_skipped, failing)
        _draw_speed(image, self.status)
        return av.VideoFrame.from_ndarray(image, format="rgb24")

    def _analyse(
        self, recognizer: Recognizer, model: Identity, image: np.ndarray, seconds: float
    ) -> list[TrackedFace]:
        # The same model may be loaded anew at any time; another one may know other emotions.
        if model != self._model:
            self._model, self._analyser = model, None
            self._history = (recognizer.emotions, deque())
            recording = self._get_recording()
            if recording is not None and recording.n_frames:
                recording.stop("The recording ended because another model was chosen.")
        if self._analyser is None:
            self._analyser = FrameAnalyser(recognizer, CAMERA_FPS)
        faces = self._analyser(image, seconds)
        if seconds - self._remembered >= HISTORY_STEP:
            self._remembered = seconds
            rows = self._history[1]
            rows.extend(list_rows(seconds, 0, faces))
            while rows and seconds - rows[0][0] > HISTORY_SECONDS:
                rows.popleft()
        return faces

    def _note(self, started: float, n_faces: int, n_skipped: int, failing: bool) -> None:
        now = time.monotonic()
        self._moments.append(now)
        while now - self._moments[0] > FPS_SECONDS:
            self._moments.popleft()
        span = now - self._moments[0]
        self.status = LiveStatus(
            fps=(len(self._moments) - 1) / span if span else 0.0,
            milliseconds=(now - started) * 1000,
            n_faces=n_faces,
            n_frames=self.status.n_frames + 1,
            n_skipped=self.status.n_skipped + n_skipped,
            failing=failing,
        )


def _turn(image: np.ndarray, mirror: bool) -> np.ndarray:
    return np.ascontiguousarray(image[:, ::-1]) if mirror else image


def _show_unanalysed(frame: av.VideoFrame, blur: bool) -> np.ndarray:
    """Return a frame as it came, or with `blur` one in which nobody can be recognised."""
    width, height = frame.width, frame.height
    try:
        if not blur:
            return frame.to_ndarray(format="rgb24").copy()
        small = frame.reformat(PIXELATED, max(2, round(PIXELATED * height / width)), "rgb24").to_ndarray()
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    except Exception:  # not even its pixels can be read
        return np.zeros((max(2, height), max(2, width), 3), np.uint8)


def _draw_speed(image: np.ndarray, status: LiveStatus) -> None:
    """Write the speed into the lower left corner, in place."""
    text = "not analysed" if status.failing else f"{status.fps:.0f} fps"
    scale = image.shape[0] / 900
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    bottom = image.shape[0] - below - 4
    cv2.rectangle(image, (0, bottom - height - 6), (width + 12, image.shape[0]), (0, 0, 0), -1)
    cv2.putText(image, text, (6, bottom), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
