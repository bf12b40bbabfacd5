"""Write frames as a video that browsers play (PyAV, FFmpeg), one in memory at a time."""

import os
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np

from fer_lib.errors import MediaError
from fer_lib.inference.video_reader import BROKEN, TICKS, VideoInfo, VideoSource

QUALITY = {"libx264": {"preset": "veryfast", "crf": "23"}, "mpeg4": {"qscale": "4"}}
"""Of the encoder; MPEG-4 is used where FFmpeg was built without x264."""

BT709 = 1
"""FFmpeg's number for the colours of high-definition video, which browsers assume."""


class VideoWriter(AbstractContextManager):
    """Writes frames as a video that browsers play: H.264 in MP4, without sound. Use it in a `with` block.

    When the block ends well the file appears at its path; otherwise nothing does.
    """

    def __init__(self, target: VideoSource, info: VideoInfo):
        """Open a path ending in .mp4, or a binary file object that can seek, for frames as `info` says.

        Raises MediaError, in a sentence, when the place cannot be written to.
        """
        path = self._path = Path(target) if isinstance(target, str | Path) else None
        # Beside its final place, so that the rename at the end is one step.
        self._partial = path.with_name(f".{path.stem}.{os.getpid()}.mp4") if path else None
        # Lets browsers start before the end is there; it needs a second look at the file, by its path.
        options = {"movflags": "+faststart"} if path else {}
        try:
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(
                str(self._partial) if path else target, "w", format="mp4", options=options
            )
        except BROKEN as error:
            raise self._explain(error) from None
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = self._container.add_stream(codec, rate=max(1, round(info.fps)), options=QUALITY[codec])
        self._stream = cast("av.VideoStream", stream)
        context = self._stream.codec_context
        # 4:2:0 halves the colours, so both sides must be even; an odd last row or column is left out.
        self._stream.width, self._stream.height = info.width // 2 * 2, info.height // 2 * 2
        self._stream.pix_fmt = "yuv420p"
        context.time_base = Fraction(1, TICKS)
        context.colorspace = context.color_primaries = context.color_trc = BT709

    def write(self, image: np.ndarray, time: float) -> None:
        """Append a uint8 (H, W, 3) RGB frame, shown from `time` on, in seconds; times must rise."""
        even = np.ascontiguousarray(image[: self._stream.height, : self._stream.width])
        frame = av.VideoFrame.from_ndarray(even, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
        try:
            self._container.mux(self._stream.encode(frame))
        except BROKEN as error:
            raise self._explain(error) from None

    def __exit__(self, kind: object, *_exception: object) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode())
            self._container.close()
            if kind is None and self._path and self._partial:
                os.replace(self._partial, self._path)
        except BROKEN as error:
            if kind is None:
                raise self._explain(error) from None
        finally:
            if self._partial:
                self._partial.unlink(missing_ok=True)

    def _explain(self, error: Exception) -> MediaError:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        return MediaError(
            f"{self._path or 'the result'}: the video could not be written ({reason}); "
            "check the folder, its permissions and the free space"
        )
