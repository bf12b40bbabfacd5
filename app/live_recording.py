"""Record what the page Live shows, as a video and a table, in memory and not for long."""

import io
import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack

import cv2
import numpy as np
import pandas as pd

from app.common import drop_group
from fer_lib.errors import MediaError
from fer_lib.inference.tracking import TrackedFace
from fer_lib.inference.video import list_rows, tabulate
from fer_lib.inference.video_reader import VideoInfo
from fer_lib.inference.video_writer import VideoWriter

MAX_SECONDS, MAX_MEGABYTES = 120, 50
"""A recording ends by itself at the first of these."""

MIN_WIDTH = 640
"""Pixels; browsers begin with small frames, and send larger ones a moment later."""

NOMINAL_FPS = 15
"""Frames per second that the file claims; each frame is shown at the time when it came."""

logger = logging.getLogger(__name__)


class Recording:
    """A video that grows frame by frame, and the table of its faces. Any thread may use it."""

    def __init__(self, emotions: Sequence[str]):
        """Take the names of the table's last columns."""
        self._emotions = emotions
        self._lock = threading.Lock()
        self._out = io.BytesIO()
        self._open = ExitStack()
        self._writer: VideoWriter | None = None
        self._size = (0, 0)
        self._started = 0.0
        self._rows: list[tuple] = []
        self.seconds = 0.0
        """Recorded so far."""
        self.megabytes = 0.0
        self.n_frames = 0
        self.is_running = True
        """Until the file is complete."""
        self.end = ""
        """Why it ended by itself, a sentence."""

    def add(self, image: np.ndarray, faces: Sequence[TrackedFace], seconds: float) -> None:
        """Append a uint8 (H, W, 3) RGB frame as it is shown at `seconds`, which rise; never raises."""
        with self._lock:
            if not self.is_running:
                return
            try:
                self._write(image, faces, seconds)
            except Exception as error:
                self._finish(_explain(error))
            if self.seconds >= MAX_SECONDS:
                self._finish(f"The recording ended after {MAX_SECONDS // 60} minutes.")
            elif self.megabytes >= MAX_MEGABYTES:
                self._finish(f"The recording ended at {MAX_MEGABYTES} MB.")

    def stop(self, end: str = "") -> None:
        """End the recording, if it runs, so that it can be had. `end` tells why, if nobody asked for it."""
        with self._lock:
            self._finish(end)

    def get_video(self) -> bytes:
        """Return the MP4 of a recording that has ended."""
        with self._lock:
            return self._out.getvalue()

    def get_table(self) -> bytes:
        """Return the faces as CSV, with the columns of a video's table but for `group`."""
        with self._lock:
            table: pd.DataFrame = tabulate(self._rows, self._emotions)
        return drop_group(table).to_csv(index=False, float_format="%.4f").encode()

    def _write(self, image: np.ndarray, faces: Sequence[TrackedFace], seconds: float) -> None:
        if self._writer is None:
            scale = max(1.0, MIN_WIDTH / image.shape[1])
            self._size = (round(scale * image.shape[1]), round(scale * image.shape[0]))
            self._started = seconds
            info = VideoInfo(*self._size, NOMINAL_FPS, None)
            self._writer = self._open.enter_context(VideoWriter(self._out, info))
        if image.shape[1::-1] != self._size:
            image = cv2.resize(image, self._size)
        self.seconds = seconds - self._started
        self._writer.write(image, self.seconds)
        self._rows += list_rows(self.seconds, self.n_frames, faces)
        self.n_frames += 1
        self.megabytes = self._out.getbuffer().nbytes / 1e6

    def _finish(self, end: str) -> None:
        if not self.is_running:
            return
        try:
            self._open.close()
        except Exception as error:
            end = _explain(error)
        self.megabytes = self._out.getbuffer().nbytes / 1e6
        self.end = end
        self.is_running = False  # last: the page then offers the file


def _explain(error: Exception) -> str:
    if isinstance(error, MediaError):
        return str(error)
    logger.error("a recording ended by an error", exc_info=error)
    return "The recording ended because a frame could not be written."
