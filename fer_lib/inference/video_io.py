"""Frames out of a video file through PyAV (FFmpeg), a few in memory at a time, whatever the file holds."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from fer_lib.errors import MediaError

VideoSource = str | Path | BinaryIO

CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif"
"""What is opened. Of FFmpeg's other formats some open further files or addresses: playlists, for one."""

USE_INSTEAD = "use MP4, MOV, MKV, WebM or AVI"

MAX_PIXELS = 4096 * 2304
"""Of a frame."""

FFMPEG_OPTIONS = {"max_pixels": str(4 * MAX_PIXELS)}
"""What FFmpeg refuses before it allocates it, whatever a header claims. Up to there the size can be named."""

MIN_SIDE = 16

N_DECODING_THREADS = 4
"""Each may hold a frame; unlimited, FFmpeg starts one per core."""

MAX_FAILURES = 500
"""Packets in a row without a picture, before the rest is given up: what is only noise should end soon."""

MISSING_SECONDS = 0.5
"""By which the pictures may end before the length that the file gives; sound is often a little longer."""

MAX_LEAP = 600
"""Seconds by which a frame may follow another, or the end that the file gives; broken stamps say years."""

TICKS = 60_000
"""Per second, of the written frames' times: a multiple of the usual frame rates that MPEG-4 can count to."""

BROKEN = (av.FFmpegError, OSError, ValueError, ArithmeticError, LookupError, RuntimeError, MemoryError)
"""What PyAV raises on damaged files."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its pictures, which are taken upright.

    width, height: pixels.   fps: frames per second, on average.   n_seconds: None where the file does not
    say.
    """

    width: int
    height: int
    fps: float
    n_seconds: float | None


class VideoReader:
    """The frames of a video with their times. Use it in a `with` block, and iterate over it once.

    info: VideoInfo.   problems: sentences about what could not be read, complete once the frames are read.
    progress: share of the file that is read, 0..1.
    """

    def __init__(self, source: VideoSource):
        """source: a path, or a binary file object that can seek, which is read from its start.

        Raises MediaError, in a sentence, when no frame can be read, or a frame is too large or too small.
        """
        self.name = get_name(source)
        self.problems: list[str] = []
        self.progress = 0.0
        self._time = 0.0
        self._damaged_from: float | None = None
        self._container = None
        self._opened = _open_path(source) if isinstance(source, str | Path) else None
        try:
            self._open(self._opened or source)
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise MediaError(
                    f"{self.name}: no frame of the video could be read; save it again or use another"
                )
            self.info = self._describe(self._first)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; a file object that was passed in stays open."""
        if self._container is not None:
            self._container.close()
        if self._opened is not None:
            self._opened.close()

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield (seconds since the first frame, uint8 (H, W, 3) RGB); the times rise from frame to frame."""
        start, n_frames = self._first.time or 0.0, 0
        for frame in itertools.chain([self._first], self._frames):
            if n_frames:
                self._time = self._follow(frame.time, start)
            n_frames += 1
            self.progress = self._measure_progress()
            yield self._time, self._convert(frame)
        frame_time = self._time / (n_frames - 1) if n_frames > 1 else 1 / self.info.fps
        self._note_problems(self._time + frame_time)

    def _follow(self, stamp: float | None, start: float) -> float:
        """Return the next frame's time; where its stamp is missing or absurd, one frame after the last."""
        due = self._time + 1 / self.info.fps if stamp is None else stamp - start
        if due > max(self._time, self.info.n_seconds or 0) + MAX_LEAP:
            self._note_damage()
            due = self._time + 1 / self.info.fps
        return max(due, self._time + 1 / TICKS)

    def _open(self, stream: BinaryIO) -> None:
        options = {"format_whitelist": CONTAINERS, **FFMPEG_OPTIONS}
        try:
            stream.seek(0, os.SEEK_END)
            self._n_bytes = stream.tell()
            stream.seek(0)
            if not self._n_bytes:
                raise MediaError(
                    f"{self.name}: expected a video, found an empty file; copy or record it again"
                )
            self._stream = stream
            self._container = av.open(stream, "r", options=options, metadata_errors="replace")
        except MediaError:
            raise
        except BROKEN:
            raise MediaError(
                f"{self.name}: expected a video, found a file that is none or is damaged from its start; "
                + USE_INSTEAD
            ) from None
        # Sound files may hold a cover, as a video of one picture.
        streams = [
            video
            for video in self._container.streams.video
            if not video.disposition & av.stream.Disposition.attached_pic
        ]
        if not streams:
            raise MediaError(f"{self.name}: the file holds no pictures, perhaps sound only; {USE_INSTEAD}")
        self._video = streams[0]
        if self._video.codec_context is None:
            raise MediaError(f"{self.name}: the video's codec is unknown here; convert it to H.264 in MP4")
        self._check_size(self._video.codec_context.width, self._video.codec_context.height)
        self._video.thread_type = "AUTO"
        self._video.codec_context.thread_count = N_DECODING_THREADS
        self._video.codec_context.options = FFMPEG_OPTIONS

    def _check_size(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise MediaError(
                f"{self.name}: the frames are {width:,} x {height:,} pixels, at most 4096 x 2304 are read; "
                "make the video smaller, 1280 x 720 is plenty"
            )

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yield every frame that can be had; note what is broken, and go on if there is more."""
        packets, n_failures = self._container.demux(self._video), 0
        while n_failures < MAX_FAILURES:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                n_failures += 1
                # The end of a file that is cut off shows in its last packet, in most formats.
                if packet.is_corrupt:
                    self._note_damage()
                for frame in packet.decode():
                    n_failures = 0
                    if frame.is_corrupt:
                        self._note_damage()
                    yield frame
            except BROKEN:
                n_failures += 1
                self._note_damage()

    def _note_damage(self) -> None:
        if self._damaged_from is None:
            self._damaged_from = self._time

    def _describe(self, frame: av.VideoFrame) -> VideoInfo:
        height, width = self._convert_size(frame)
        self._check_size(width, height)
        if min(width, height) < MIN_SIDE:
            raise MediaError(
                f"{self.name}: the frames are {width} x {height} pixels, too small to hold a face; "
                f"each side needs {MIN_SIDE} at least"
            )
        fps = float(self._video.average_rate or self._video.guessed_rate or 30)
        n_ticks = self._container.duration
        return VideoInfo(
            width,
            height,
            fps if 0.01 < fps < 1000 else 30.0,
            n_ticks / av.time_base if n_ticks and n_ticks > 0 else None,
        )

    def _convert_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Return (height, width) of the frame, upright and with square pixels."""
        ratio = self._video.sample_aspect_ratio or 1
        # Old television has pixels up to twice as wide as high; anything else is a broken header.
        width = round(frame.width * ratio) if 0.4 < ratio < 2.5 else frame.width
        return (width, frame.height) if round(frame.rotation / 90) % 2 else (frame.height, width)

    def _convert(self, frame: av.VideoFrame) -> np.ndarray:
        """Return the frame upright as RGB; one whose size differs from the first one's is scaled to it."""
        turns = round(frame.rotation / 90)
        width, height = self.info.width, self.info.height
        if turns % 2:
            width, height = height, width
        pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
        return np.ascontiguousarray(np.rot90(pixels, turns))

    def _measure_progress(self) -> float:
        known = self.info.n_seconds
        done = self._time / known if known else self._stream.tell() / self._n_bytes
        return min(1.0, done)

    def _note_problems(self, end: float) -> None:
        """Add what went wrong; end: the time at which the last frame ends."""
        n_seconds = self.info.n_seconds
        if n_seconds and n_seconds - end > MISSING_SECONDS:
            self.problems.append(
                f"The video should last {describe_seconds(n_seconds)}, but its pictures end after "
                f"{describe_seconds(end)}; the file may be cut off. What was read until then is kept."
            )
        if self._damaged_from is not None:
            self.problems.append(
                f"The video is damaged from {describe_seconds(self._damaged_from)} on; later frames may be "
                "missing or distorted. What could be read is kept."
            )


def get_name(source: VideoSource) -> str:
    """Return what to call a video in messages."""
    return str(source) if isinstance(source, str | Path) else str(getattr(source, "name", "the video"))


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
