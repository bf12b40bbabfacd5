"""Read the frames of a video, upright and with their times (PyAV, FFmpeg), a few in memory at a time."""

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from fer_lib.errors import MediaError

VideoSource = str | Path | BinaryIO

CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif"
"""What is opened. Of FFmpeg's other formats some open further files or addresses: playlists, for one."""

USE_INSTEAD = "use MP4, MOV, MKV, WebM or AVI"

MAX_PIXELS, MIN_SIDE, MAX_SIDE = 4096 * 2304, 16, 16_384
"""Of a frame. x264 writes no longer side, and OpenCV turns none of 32,767 pixels."""

FFMPEG_OPTIONS = {"max_pixels": str(4 * MAX_PIXELS)}
"""What FFmpeg refuses before it allocates it, whatever a header claims. Up to there the size can be named."""

N_DECODING_THREADS = 4
"""Each may hold a frame; unlimited, FFmpeg starts one per core."""

MAX_FAILURES = 500
"""Errors in a row without a frame, before the rest is given up: what is only noise should end soon."""

MISSING_SECONDS = 0.5
"""By which the frames may end before the length that the file gives; sound is often a little longer."""

MAX_LEAP = 600
"""Seconds by which a frame may follow another, or the end that the file gives; broken stamps say years."""

TICKS = 60_000
"""Per second, of the written frames' times: a multiple of the usual frame rates that MPEG-4 can count to."""

BROKEN = (av.FFmpegError, OSError, ValueError, ArithmeticError, LookupError, RuntimeError, MemoryError)
"""What PyAV raises on damaged files."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its frames, which are taken upright."""

    width: int
    height: int
    fps: float
    """Frames per second, on average."""
    n_seconds: float | None
    """None where the file does not say."""


class VideoReader(AbstractContextManager):
    """The frames of a video with their times. Use it in a `with` block, and iterate over it once.

    `problems` are sentences about what could not be read, complete once the frames are read; `progress` is
    the share of the file that is read, 0 to 1.
    """

    def __init__(self, source: VideoSource):
        """Open a path, or a binary file object that can seek, which is read from its start and stays open.

        Raises MediaError, in a sentence, when no frame can be read, or a frame is too large or too small.
        """
        is_path = isinstance(source, str | Path)
        self.name = str(source if is_path else getattr(source, "name", "the video"))
        self.problems: list[str] = []
        self.progress = self._time = 0.0
        self._damaged_from: float | None = None
        with ExitStack() as stack:
            self._file = stack.enter_context(_open_path(source)) if isinstance(source, str | Path) else source
            self._container = stack.enter_context(self._open())
            self._video = self._find_video()
            frames = self._decode()
            first = next(frames, None)
            if first is None:
                raise MediaError(
                    f"{self.name}: no frame of the video could be read; save it again or use another"
                )
            self.info = self._describe(first)
            self._start, self._frames = first.time or 0.0, itertools.chain([first], frames)
            self._opened = stack.pop_all()

    def __exit__(self, *exception: object) -> None:
        self._opened.close()

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield (seconds since the first frame, uint8 (H, W, 3) RGB); the times rise from frame to frame."""
        index = 0
        for index, frame in enumerate(self._frames):
            self._time = self._follow(frame.time) if index else 0.0
            known = self.info.n_seconds
            self.progress = min(1.0, self._time / known if known else self._file.tell() / self._n_bytes)
            yield self._time, self._convert(frame)
        self._note_problems(self._time + (self._time / index if index else 1 / self.info.fps))

    def _open(self) -> av.container.InputContainer:
        options = {"format_whitelist": CONTAINERS, **FFMPEG_OPTIONS}
        try:
            self._n_bytes = self._file.seek(0, os.SEEK_END)
            self._file.seek(0)
            if self._n_bytes:
                return av.open(self._file, "r", options=options, metadata_errors="replace")
        except BROKEN:
            raise MediaError(
                f"{self.name}: expected a video, found a file that is none or is damaged from its start; "
                + USE_INSTEAD
            ) from None
        raise MediaError(f"{self.name}: expected a video, found an empty file; copy or record it again")

    def _find_video(self) -> av.VideoStream:
        # Sound files may hold a cover, as a video of one frame.
        cover = av.stream.Disposition.attached_pic
        video = next((each for each in self._container.streams.video if not each.disposition & cover), None)
        if video is None:
            raise MediaError(f"{self.name}: the file holds no pictures, perhaps sound only; {USE_INSTEAD}")
        if video.codec_context is None:
            raise MediaError(f"{self.name}: the video's codec is unknown here; convert it to H.264 in MP4")
        self._check_size(video.codec_context.width, video.codec_context.height)
        video.thread_type = "AUTO"
        video.codec_context.thread_count = N_DECODING_THREADS
        video.codec_context.options = FFMPEG_OPTIONS
        return video

    def _check_size(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise MediaError(
                f"{self.name}: the frames are {width:,} x {height:,} pixels, at most 4096 x 2304 are read; "
                "make the video smaller, 1280 x 720 is plenty"
            )
        if max(width, height) > MAX_SIDE:
            raise MediaError(
                f"{self.name}: the frames are {width:,} x {height:,} pixels, a side may have {MAX_SIDE:,} at "
                "most; make the video smaller, or cut it"
            )

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yield every frame that can be had; PyAV stops at an error, and asked again goes on behind it."""
        n_failures = 0
        while n_failures < MAX_FAILURES:
            try:
                for frame in self._container.decode(self._video):
                    n_failures = 0
                    if frame.is_corrupt:
                        self._note_damage()
                    yield frame
                return
            except BROKEN:
                n_failures += 1
                self._note_damage()

    def _note_damage(self) -> None:
        if self._damaged_from is None:
            self._damaged_from = self._time

    def _describe(self, frame: av.VideoFrame) -> VideoInfo:
        ratio = self._video.sample_aspect_ratio or 1
        # Old television has pixels up to twice as wide as high; anything else is a broken header.
        width, height = round(frame.width * ratio) if 0.4 < ratio < 2.5 else frame.width, frame.height
        is_transposed, _, _ = _find_orientation(frame)
        if is_transposed:
            width, height = height, width
        self._check_size(width, height)
        if min(width, height) < MIN_SIDE:
            raise MediaError(
                f"{self.name}: the frames are {width} x {height} pixels, too small to hold a face; "
                f"each side needs {MIN_SIDE} at least"
            )
        fps = float(self._video.average_rate or self._video.guessed_rate or 30)
        seconds = (self._container.duration or 0) / av.time_base
        return VideoInfo(width, height, fps if 0.01 < fps < 1000 else 30.0, seconds if seconds > 0 else None)

    def _follow(self, stamp: float | None) -> float:
        """Return the next frame's time; where its stamp is missing or absurd, one frame after the last."""
        due = self._time + 1 / self.info.fps if stamp is None else stamp - self._start
        if due > max(self._time, self.info.n_seconds or 0) + MAX_LEAP:
            self._note_damage()
            due = self._time + 1 / self.info.fps
        return max(due, self._time + 1 / TICKS)

    def _convert(self, frame: av.VideoFrame) -> np.ndarray:
        """Return the frame upright as RGB; one whose size differs from the first one's is scaled to it."""
        is_transposed, row_step, column_step = _find_orientation(frame)
        width, height = self.info.width, self.info.height
        if is_transposed:
            width, height = height, width
        pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
        if is_transposed:
            pixels = pixels.swapaxes(0, 1)
        return np.ascontiguousarray(pixels[::row_step, ::column_step])

    def _note_problems(self, end: float) -> None:
        """Add what went wrong; `end` is the time at which the last frame ends."""
        n_seconds = self.info.n_seconds
        if n_seconds and n_seconds - end > MISSING_SECONDS:
            self.problems.append(
                f"The video should last {describe_seconds(n_seconds)}, but its frames end after "
                f"{describe_seconds(end)}; the file may be cut off. What was read until then is kept."
            )
        if self._damaged_from is not None:
            self.problems.append(
                f"The video is damaged from {describe_seconds(self._damaged_from)} on; later frames may be "
                "missing or distorted. What could be read is kept."
            )


def describe_seconds(seconds: float) -> str:
    """Return a length or a time in words: `3.2 s`, `12 min 5 s`, `2 h 3 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def _open_path(path: str | Path) -> BinaryIO:
    """Open a video's file: FFmpeg gets a stream, since it takes paths for addresses and commands too."""
    try:
        return open(path, "rb")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise MediaError(f"{path}: expected a video, found no file; check the path") from None
    except OSError as error:
        raise MediaError(
            f"{path}: the file may not be read ({error.strerror}); check its permissions"
        ) from None


def _find_orientation(frame: av.VideoFrame) -> tuple[bool, int, int]:
    """Return how a frame becomes upright: whether to transpose it, then the steps of its rows and columns.

    A step of -1 reverses an axis. The display matrix shows the pixel (x, y) at (a x + c y, b x + d y), with y
    pointing down (QuickTime File Format Specification, "Matrices"; FFmpeg, libavutil/display.h). The nearest
    to [a b; c d] is taken of the eight matrices that move whole pixels: any angle becomes a quarter turn, and
    zeros change nothing.
    """
    a, b, c, d = _read_matrix(frame)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, -1 if d < 0 else 1, -1 if a < 0 else 1
    return True, -1 if b < 0 else 1, -1 if c < 0 else 1


def _read_matrix(frame: av.VideoFrame) -> tuple[float, float, float, float]:
    """Return a, b, c and d of a frame's display matrix, up to a factor."""
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")  # PyAV's types know motion vectors only
    except ValueError:
        # PyAV gives no side data at all where one is of a kind that it cannot name, such as EXIF in Motion
        # JPEG. It still tells the angle, counterclockwise, though not whether to mirror.
        angle = math.radians(frame.rotation)
        return math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    if matrix is None:
        return 1, 0, 0, 1
    # As Python's integers: the least int32 has no absolute value among int32.
    a, b, _, c, d = np.frombuffer(matrix, np.int32, count=5).tolist()
    return a, b, c, d
