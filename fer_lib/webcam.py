"""Faces in front of a camera, told in lines of text; the OpenCV of this project opens no windows."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np

from fer_lib.annotate import draw_faces, name_face
from fer_lib.errors import MediaError
from fer_lib.recognizer import Recognizer
from fer_lib.tracking import FrameAnalyser, TrackedFace
from fer_lib.video_reader import VideoInfo
from fer_lib.video_writer import VideoWriter

USUAL_FPS = 30.0

LINE_SECONDS = 1.0
"""How often a line is printed."""


class Camera:
    """A camera's pictures as they come. Use it in a `with` block."""

    def __init__(self, number: int):
        """number: 0 is the first camera. Raises MediaError when it gives no picture."""
        self._number = number
        level = cv2.getLogLevel()
        cv2.setLogLevel(0)  # OpenCV prints several lines of its own where there is no camera
        try:
            self._capture = cv2.VideoCapture(number)
            self._first = self._capture.read()[1] if self._capture.isOpened() else None
        finally:
            cv2.setLogLevel(level)
        if self._first is None:
            self._capture.release()
            raise MediaError(
                f"camera {number}: expected a camera, found none that gives a picture; plug it in, close other "
                "programs that use it, or choose another with --camera"
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        fps = fps if math.isfinite(fps) and 1 <= fps <= 240 else USUAL_FPS
        height, width = self._first.shape[:2]
        self.info = VideoInfo(width, height, fps, None)

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_exception) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield (seconds since the first, uint8 (H, W, 3) RGB); raises MediaError when the camera stops."""
        start, frame = time.monotonic(), self._first
        while frame is not None:
            yield time.monotonic() - start, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            frame = self._capture.read()[1]
        raise MediaError(f"camera {self._number}: it gives no more pictures; check its plug and start again")


def watch_camera(recognizer: Recognizer, number: int, out: Path | None = None) -> None:
    """Print a line a second with the faces in front of a camera, until Ctrl-C.

    out: an MP4 file to record to, with boxes and labels; it is kept however the watching ends.
    Raises MediaError when there is no camera, when it stops, and when `out` cannot be written.
    """
    stopped: MediaError | None = None
    with Camera(number) as camera:
        print(
            f"camera {number}: Ctrl-C ends; for a picture run `make app` and open the page Live", flush=True
        )
        with nullcontext() if out is None else VideoWriter(out, camera.info) as writer:
            try:
                _watch(camera, FrameAnalyser(recognizer, camera.info.fps), writer)
            except KeyboardInterrupt:
                print()
            except MediaError as error:
                stopped = error
    if out is not None:
        print(f"video: {out}")
    if stopped is not None:
        raise stopped


def describe_moment(seconds: float, faces: Sequence[TrackedFace]) -> str:
    """Return a line, such as `  12.0 s  #1 happy 84 %  #2 unsure`."""
    return f"{seconds:6.1f} s  " + ("  ".join(map(name_face, faces)) or "no face")


def _watch(camera: Camera, analyser: FrameAnalyser, writer: VideoWriter | None) -> None:
    due, last = 0.0, -math.inf
    for seconds, frame in camera:
        faces = analyser(frame, seconds)
        if writer is not None and seconds > last:
            writer.write(draw_faces(frame, faces), seconds)
            last = seconds
        if seconds >= due:
            print(describe_moment(seconds, faces), flush=True)
            due = seconds + LINE_SECONDS
