"""Frames into a video file that browsers play, through PyAV (FFmpeg), one frame at a time."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from fer_lib.errors import MediaError
from fer_lib.inference.video_io import BROKEN, TICKS, VideoInfo, VideoSource

BT709 = 1
"""FFmpeg's number for the colours of high-definition video, which browsers assume."""


class VideoWriter:
    """Writes frames as a video that browsers play: H.264 in MP4, without sound. Use it in a `with` block.

    When the block ends well the file appears at its path; otherwise nothing does.
    """

    def __init__(self, target: VideoSource, info: VideoInfo):
        """target: a path ending in .mp4, or a binary file object that can seek.   info: of the frames.

        Raises MediaError, in a sentence, when the place cannot be written to.
        """
        self._path = Path(target) if isinstance(target, str | Path) else None
        # Beside its final place, so that the rename at the end is one step.
        self._partial = self._path and self._path.with_name(f".{self._path.stem}.{os.getpid()}.mp4")
        # Lets browsers start before the end is there; it needs a second look at the file, by its path.
        options = {"movflags": "+faststart"} if self._path else {}
        try:
            if self._path:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(
                str(self._partial) if self._path else target, "w", format="mp4", options=options
            )
        except BROKEN as error:
            raise self._explain(error) from None
        codec, quality = _choose_codec()
        self._stream = self._container.add_stream(codec, rate=max(1, round(info.fps)), options=quality)
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

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind, *_exception) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode())
            self._container.close()
            if kind is None and self._path:
                os.replace(self._partial, self._path)
        except BROKEN as error:
            if kind is None:
                raise self._explain(error) from None
        finally:
            if self._path:
                self._partial.unlink(missing_ok=True)

    def _explain(self, error: Exception) -> MediaError:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        return MediaError(
            f"{self._path or 'the result'}: the video could not be written ({reason}); "
            "check the folder, its permissions and the free space"
        )


def _choose_codec() -> tuple[str, dict[str, str]]:
    """Return the encoder and its options: x264, or where FFmpeg was built without it, MPEG-4."""
    try:
        av.Codec("libx264", "w")
    except av.codec.codec.UnknownCodecError:
        return "mpeg4", {"qscale": "4"}
    return "libx264", {"preset": "veryfast", "crf": "23"}
