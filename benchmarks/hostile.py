"""Damaged images and videos, by the thousand: is each read, or refused in a sentence, and how fast?

    python benchmarks/hostile.py [--images 8500] [--videos 1500] [--seed 0]

Small valid files of every format are damaged: bits turned, ends cut off, parts removed, repeated or taken
from another file, numbers set to extremes. `read_image` and `analyse_video` may then return, or raise
MediaError with a text of one line. The exit status is 1 if one does anything else, takes longer than
`SLOWEST` seconds, opens a file for writing or starts a program; one that takes a minute ends the run with a
trace. Every input follows from the seed, its kind and its number, which are printed with what went wrong.
"""

import argparse
import faulthandler
import io
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import av
import numpy as np
import pillow_heif
from PIL import Image

from demo_faces.clips import draw_clip, draw_scene
from fer_lib.data.images import read_image
from fer_lib.errors import MediaError
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.video import analyse_video

SLOWEST = 5.0
"""Seconds that one input may take."""

WIDTH, HEIGHT, N_FRAMES = 96, 72, 6

EXIF = Image.Exif()
EXIF[0x0112] = 6  # turned by a quarter

IMAGES = {
    "jpeg": (
        {"format": "JPEG"},
        {"format": "JPEG", "progressive": True, "exif": EXIF},
        {"format": "JPEG", "mode": "CMYK"},
    ),
    "mpo": ({"format": "MPO", "save_all": True},),
    "png": (
        {"format": "PNG"},
        {"format": "PNG", "mode": "P"},
        {"format": "PNG", "mode": "I;16"},
        {"format": "PNG", "mode": "RGBA"},
        {"format": "PNG", "mode": "LA"},
        {"format": "PNG", "save_all": True},
    ),
    "gif": ({"format": "GIF"}, {"format": "GIF", "save_all": True}),
    "bmp": ({"format": "BMP"}, {"format": "BMP", "mode": "P"}),
    "tiff": (
        {"format": "TIFF"},
        {"format": "TIFF", "compression": "tiff_lzw"},
        {"format": "TIFF", "compression": "jpeg"},
        {"format": "TIFF", "mode": "F", "compression": "tiff_adobe_deflate"},
        {"format": "TIFF", "mode": "I;16"},
        {"format": "TIFF", "save_all": True},
    ),
    "webp": (
        {"format": "WEBP"},
        {"format": "WEBP", "lossless": True},
        {"format": "WEBP", "mode": "RGBA"},
        {"format": "WEBP", "save_all": True},
    ),
    "avif": ({"format": "AVIF"}, {"format": "AVIF", "save_all": True}),
    "heif": (
        {"format": "HEIF"},
        {"format": "HEIF", "mode": "I;16"},
        {"format": "HEIF", "mode": "RGBA"},
        {"format": "HEIF", "save_all": True},
    ),
    "ppm": ({"format": "PPM"}, {"format": "PPM", "mode": "L"}, {"format": "PPM", "mode": "I;16"}),
}
"""By kind, how the files that are damaged are written; several frames where it says `save_all`."""

VIDEOS = {
    "mp4": ("mp4", "libx264", "yuv420p"),
    "mirror": ("mp4", "libx264", "yuv420p"),
    "mov": ("mov", "mpeg4", "yuv420p"),
    "webm": ("webm", "libvpx", "yuv420p"),
    "mkv": ("matroska", "libx264", "yuv420p"),
    "avi": ("avi", "mjpeg", "yuvj420p"),
    "mpegts": ("mpegts", "libx264", "yuv420p"),
    "gifvid": ("gif", "gif", "rgb8"),
}
"""By kind, FFmpeg's container, codec and pixel format."""

MATRICES = {"mirror": (0, 1 << 16, 0, 1 << 16, 0, 0, 0, 0, 1 << 30)}
"""By kind, the display matrix: rows and columns are exchanged, which turns and mirrors."""

WRITING = ("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.system", "subprocess.Popen")


@dataclass
class Tally:
    """What became of the inputs of one kind; slowest in seconds, faults as lines."""

    n_read: int = 0
    n_refused: int = 0
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)


def build_images(kind: str) -> list[bytes]:
    """Return the valid files of a kind of image."""
    frames = [Image.fromarray(draw_scene(1, WIDTH, HEIGHT, seed=seed)[0]) for seed in range(2)]
    files = []
    for options in IMAGES[kind]:
        stream, options = io.BytesIO(), dict(options)
        mode = options.pop("mode", "RGB")
        first, second = (_change_mode(frame, mode) for frame in frames)
        others = [second] if options.get("save_all") else []
        if options["format"] == "HEIF":
            # Written without Pillow: to teach Pillow the format is up to what is tested.
            file = pillow_heif.from_pillow(first)
            for image in others:
                file.add_from_pillow(image)
            file.save(stream)
        else:
            first.save(stream, append_images=others, **options)
        files.append(stream.getvalue())
    return files


def build_videos(kind: str) -> list[bytes]:
    """Return the one valid file of a kind of video."""
    container, codec, pixels = VIDEOS[kind]
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as output:
        track = output.add_stream(codec, rate=25, options={"threads": "1"})
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, pixels
        if kind in MATRICES:
            track.set_display_matrix(MATRICES[kind])
        for image in draw_clip(N_FRAMES, 1, WIDTH, HEIGHT):
            output.mux(track.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(track.encode(None))
    return [stream.getvalue()]


def damage(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Return `data` with one to three faults of kinds drawn at random; parts may come from `other`."""
    for _ in range(rng.integers(1, 4)):
        if len(data) < 8:
            break
        # Headers are short and decide most: every third fault is put into the first 64 bytes.
        start = int(rng.integers(min(64, len(data)) if rng.random() < 1 / 3 else len(data)))
        length = int(rng.integers(1, 1 + min(64, len(data) - start)))
        before, part, after = data[:start], data[start : start + length], data[start + length :]
        match rng.integers(7):
            case 0:
                data = before + bytes([part[0] ^ 1 << int(rng.integers(8))]) + part[1:] + after
            case 1:
                data = data[: max(1, start)]
            case 2:
                data = before + after
            case 3:
                data = before + part * int(rng.integers(2, 20)) + after
            case 4:
                data = before + rng.bytes(length) + after
            case 5:
                extreme = [
                    b"\0\0\0\0",
                    b"\xff\xff\xff\xff",
                    b"\x7f\xff\xff\xff",
                    b"\xff\xff\xff\x7f",
                    b"\0\1\0\0",
                ]
                data = before + extreme[rng.integers(len(extreme))] + data[start + 4 :]
            case _:
                data = before + other[start : start + length * 8] + after
    return data


def build_input(kind: str, number: int, seed: int, files: list[bytes], others: list[bytes]) -> bytes:
    """Return the input of this number; it depends on its arguments alone."""
    rng = np.random.default_rng([seed, number, *kind.encode()])
    data = damage(files[number % len(files)], others[rng.integers(len(others))], rng)
    return mend_png(data) if rng.random() < 0.8 else data


def mend_png(data: bytes) -> bytes:
    """Return the file with right checksums, if it is a PNG; else they keep most damage from the decoder."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    mended, start = bytearray(data), 8
    while (end := start + 8 + int.from_bytes(data[start : start + 4])) + 4 <= len(data):
        mended[end : end + 4] = zlib.crc32(data[start + 4 : end]).to_bytes(4)
        start = end + 4
    return bytes(mended)


def try_inputs(name: str, inputs: Iterator[bytes], read: Callable[[bytes], object]) -> Tally:
    """Read every input and count what became of it."""
    tally = Tally()
    for number, data in enumerate(inputs):
        faulthandler.dump_traceback_later(60, exit=True)
        start, fault = time.perf_counter(), None
        try:
            with watch_writing() as written:
                read(data)
            tally.n_read += 1
        except MediaError as error:
            tally.n_refused += 1
            fault = f"a text of several lines: {error}" if "\n" in str(error) else None
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - start
        tally.slowest = max(tally.slowest, seconds)
        fault = fault or (f"took {seconds:.1f} s" if seconds > SLOWEST else None)
        fault = fault or (f"wrote or started {written[0]}" if written else None)
        if fault:
            tally.faults.append(f"{name} {number}: {fault}")
    faulthandler.cancel_dump_traceback_later()
    return tally


@contextmanager
def watch_writing() -> Iterator[list[str]]:
    """Give a list that grows by what Python opens for writing, changes on the disk or starts meanwhile."""
    if not _watches:
        sys.addaudithook(_note)
    _watches.append([])
    try:
        yield _watches[-1]
    finally:
        _watches.append(None)


_watches: list[list[str] | None] = []


def _note(event: str, arguments: tuple) -> None:
    watched = _watches[-1]
    if watched is None:
        return
    if event == "open":
        path, mode, flags = arguments
        if (mode and set(mode) & set("wax+")) or (mode is None and flags & 3):
            watched.append(str(path))
    elif event in WRITING:
        watched.append(f"{event} {arguments[0]}")


def _change_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    changed = image.convert(mode)
    if mode in ("LA", "RGBA"):
        # What is opaque everywhere, Pillow may write without its transparency.
        changed.putalpha(Image.linear_gradient("L").resize(image.size))
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=8500, help="damaged images, of all kinds together")
    parser.add_argument("--videos", type=int, default=1500, help="damaged videos, of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    av.logging.set_level(av.logging.PANIC)
    tempfile.gettempdir()  # tries out once where it may write, which is no fault
    recognizer = Recognizer(threads=1)

    def read_video(data: bytes) -> None:
        analyse_video(recognizer, io.BytesIO(data), io.BytesIO(), blur=True, max_seconds=60)

    faults = []
    print(f"{'kind':6s} {'tried':>6s} {'read':>6s} {'refused':>8s} {'faults':>7s} {'slowest':>9s}")
    for build, kinds, n_inputs, read in (
        (build_images, IMAGES, options.images, lambda data: read_image(data)),
        (build_videos, VIDEOS, options.videos, read_video),
    ):
        files = {kind: build(kind) for kind in kinds}
        everything = [data for group in files.values() for data in group]
        for place, kind in enumerate(kinds):
            numbers = range(len(range(place, n_inputs, len(kinds))))
            make = partial(build_input, kind, seed=options.seed, files=files[kind], others=everything)
            tally = try_inputs(kind, map(make, numbers), read)
            faults += tally.faults
            print(
                f"{kind:6s} {len(numbers):6d} {tally.n_read:6d} {tally.n_refused:8d} "
                f"{len(tally.faults):7d} {tally.slowest:7.2f} s",
                flush=True,
            )
    for fault in faults:
        print(f"seed {options.seed}, {' '.join(fault.split())[:300]}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
