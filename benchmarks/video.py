"""Which tracker keeps identities, how much smoothing is right, and whether memory stays constant.

    python benchmarks/video.py [--only trackers smoothing memory] [--threads 1]

`trackers`: boxes that move as faces do, with a detector's jitter and misses, are given to our numbering and
to the trackers of the package `trackers` that use boxes alone, at several frames per second. A switch is a
face whose number differs from the one it had when last seen, or was another person's.
`smoothing`: drawn clips that change expression at known times, made noisy, are analysed with several time
constants. Flicker is changes per second of what is shown (`unsure`, too, is a label) in the second
half of each expression; lag is the time from a change until the label is the one it settles on. The same
is measured for several times between a face's classifications.
`memory`: a long clip of small frames is analysed, and resident memory is printed on the way.
"""

import argparse
import io
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import av
import numpy as np
import psutil
import supervision as sv
import trackers

from demo_faces.clips import draw_labelled_clip
from fer_lib.data.detector import CANDIDATE, Detection
from fer_lib.inference import tracking
from fer_lib.inference.numbering import LOOK_SIDE, LOST_SECONDS, SURE, Numbering
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.tracking import FrameAnalyser
from fer_lib.inference.video import analyse_video

WIDTH, HEIGHT = 640, 480
N_SEEDS = 10

Boxes = dict[int, tuple[float, float, float]]
"""By person: centre x, centre y and width; a face is 1.25 times as high as wide."""


def walk_apart(t: float) -> Boxes:
    """Eight people who sway in their places, as in a video call."""
    places = [(80 + 160 * (i % 4), 130 + 220 * (i // 4)) for i in range(8)]
    return {
        i: (x + 20 * np.sin(1.3 * t + i), y + 10 * np.cos(2.1 * t + i), 70) for i, (x, y) in enumerate(places)
    }


def cross(t: float) -> Boxes:
    """Two people walk past each other in 3 seconds; in the middle the nearer hides the other."""
    x = 60 + 520 * min(t, 3) / 3
    both = {0: (x, 240.0, 110.0), 1: (640 - x, 235.0, 90.0)}
    return {0: both[0]} if abs(2 * x - 640) < 60 else both


def meet(t: float) -> Boxes:
    """Two people walk up to each other, one before the other for half a second, and back again."""
    apart = 200 * abs(np.cos(1.2 * t))
    both = {0: (320 - apart, 240.0, 110.0), 1: (330 + apart, 225.0, 90.0)}
    return {0: both[0]} if apart < 60 else both


def hide(t: float) -> Boxes:
    """One person stays; one walks to and fro behind three pillars, hidden for 0.5 seconds behind each."""
    boxes = {0: (100.0, 380.0, 90.0)}
    return boxes if t % 1.2 > 0.7 else boxes | {1: (320 + 220 * np.sin(0.8 * t), 160.0, 80.0)}


def run_past(t: float) -> Boxes:
    """Again and again another person runs through the image in 1.2 seconds; one stands."""
    return {1 + int(t // 2): (-50 + 740 * (t % 2) / 1.2, 200.0, 80.0), 0: (500.0, 380.0, 90.0)}


def nod(t: float) -> Boxes:
    """Two people who move their heads to and fro by more than the width of a face."""
    return {
        0: (200 + 90 * np.sin(4.4 * t), 240 + 20 * np.sin(5 * t), 110.0),
        1: (480 + 70 * np.sin(3.1 * t + 1), 230.0, 100.0),
    }


def leave(t: float) -> Boxes:
    """One person walks out of the image, is away for a second, and comes back; one sits."""
    return {
        0: (max(-120.0, 300 - 350 * t) if t < 2.4 else min(300, 350 * t - 960), 240, 100),
        1: (500, 200, 90),
    }


def relieve(t: float) -> Boxes:
    """One person goes out at the right, and soon another comes in at the left."""
    return {0: (400 + 200 * t, 240, 110)} if t < 1.6 else {1: (120 * t - 270, 230, 95)}


MOTIONS = {
    "eight sway": walk_apart,
    "two cross": cross,
    "two meet": meet,
    "hidden": hide,
    "runs past": run_past,
    "two nod": nod,
    "leaves": leave,
    "relieved": relieve,
}


class PackageNumbering:
    """Gives a tracker of the package `trackers` the interface of `Numbering`."""

    def __init__(self, build: Callable[[], Any]):
        self.tracker = build()

    def assign(
        self, faces: list[Detection], _looks: np.ndarray, time: float, _width: int
    ) -> list[int | None]:
        """Return each face's number, or None where the tracker gives none."""
        boxes = np.array([face.box for face in faces], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([face.score for face in faces], float)
        detections = sv.Detections(boxes, confidence=scores, data={"row": np.arange(len(faces))})
        named = self.tracker.update(detections, timestamp=time)
        found = dict(zip(named.data.get("row", []), named.tracker_id, strict=True))
        return [int(found[row]) if found.get(row, -1) >= 0 else None for row in range(len(faces))]


def detect(boxes: Boxes, rng: np.random.Generator) -> tuple[list[int], list[Detection]]:
    """Return whose and which faces a detector would give: 3 % jitter, 4 % missed, 8 % with low scores."""
    people, found = [], []
    for person, (x, y, width) in boxes.items():
        if not -0.3 * width < x < WIDTH + 0.3 * width or rng.random() < 0.04:
            continue
        x, y, width, height = rng.normal((x, y, width, 1.25 * width), 0.03 * width)
        score = rng.uniform(CANDIDATE, SURE) if rng.random() < 0.08 else rng.uniform(SURE, 0.95)
        people.append(person)
        found.append(Detection((x - width / 2, y - height / 2, width, height), np.zeros((5, 2)), score))
    return people, found


def build_trackers(fps: float) -> dict[str, Callable[[], PackageNumbering]]:
    """Return what makes each of the package's trackers; all keep a lost face equally long."""
    common = {
        "lost_track_buffer": round(30 * LOST_SECONDS),
        "frame_rate": fps,
        "minimum_consecutive_frames": 1,
    }
    sure = {"track_activation_threshold": SURE, "high_conf_det_threshold": SURE}
    weightless = {"high_conf_det_threshold": CANDIDATE, "direction_consistency_weight": 0.0}
    near = {"minimum_iou_threshold": -0.1, "iou": trackers.DIoU()}
    touching = {"minimum_iou_threshold": 0.1}
    wide = {
        "buffer_ratio_first": 0.5,
        "buffer_ratio_second": 0.7,
        "minimum_iou_threshold_first_assoc": 0.1,
        "minimum_iou_threshold_second_assoc": 0.1,
        "minimum_iou_threshold_unconfirmed_assoc": 0.1,
    }
    builders: dict[str, Callable[[], Any]] = {
        "SORT, IoU": lambda: trackers.SORTTracker(track_activation_threshold=SURE, **touching, **common),
        "SORT, DIoU": lambda: trackers.SORTTracker(track_activation_threshold=SURE, **near, **common),
        "ByteTrack, IoU": lambda: trackers.ByteTrackTracker(**touching, **common, **sure),
        "ByteTrack, DIoU": lambda: trackers.ByteTrackTracker(**near, **common, **sure),
        "OC-SORT, IoU": lambda: trackers.OCSORTTracker(**touching, **common, **weightless),
        "OC-SORT, DIoU": lambda: trackers.OCSORTTracker(**near, **common, **weightless),
        "OC-SORT, DIoU, direction": lambda: trackers.OCSORTTracker(
            high_conf_det_threshold=CANDIDATE, **near, **common
        ),
        "C-BIoU": lambda: trackers.CBIoUTracker(**common, **sure),
        "C-BIoU, wide": lambda: trackers.CBIoUTracker(**wide, **common, **sure),
        "BoT-SORT": lambda: trackers.BoTSORTTracker(enable_cmc=False, **common, **sure),
    }
    return {name: partial(PackageNumbering, build) for name, build in builders.items()}


def count_switches(
    motion: Callable[[float], Boxes], fps: float, build: Callable[[], Any]
) -> tuple[float, float]:
    """Return switches per minute of clip, and the share of face-frames without a number."""
    switches, late, total, seconds = 0, 0, 0, 5.0
    alike = np.zeros((8, LOOK_SIDE, LOOK_SIDE, 3))  # no looks: boxes alone are compared
    for seed in range(N_SEEDS):
        rng = np.random.default_rng(seed)
        numbering, last, owners = build(), {}, {}
        for frame in range(round(seconds * fps)):
            people, found = detect(motion(frame / fps), rng)
            for person, number in zip(
                people, numbering.assign(found, alike[: len(found)], frame / fps, WIDTH), strict=True
            ):
                total += 1
                late += number is None
                if number is not None:
                    switches += last.get(person, number) != number or owners.get(number, person) != person
                    last[person], owners[number] = number, person
    return 60 * switches / (seconds * N_SEEDS), late / total


def compare_trackers() -> None:
    """Print a table of identity switches."""
    print(f"identity switches per minute (share of faces without a number), {N_SEEDS} clips of 5 s each")
    for fps in (3, 5, 10, 25):
        print(f"\n{f'{fps} frames/s':26s}" + "".join(f"{name:>15s}" for name in MOTIONS) + f"{'sum':>9s}")
        for name, build in ({"as chosen": Numbering} | build_trackers(fps)).items():
            results = [count_switches(motion, fps, build) for motion in MOTIONS.values()]
            cells = "".join(f"{f'{switches:.1f} ({late:.1%})':>15s}" for switches, late in results)
            print(f"{name:26s}{cells}{sum(switches for switches, _ in results):9.1f}", flush=True)


def spoil(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the frame as a cheap camera in poor light gives it: shaken, of changing brightness, noisy."""
    shift = rng.integers(-2, 3, 2)
    noise = rng.normal(0, 14, frame.shape)
    return np.clip(np.roll(frame, shift, (0, 1)) * rng.normal(1, 0.06) + noise, 0, 255).astype(np.uint8)


def compare_smoothing(recognizer: Recognizer, constants: tuple[float, ...], fps: int = 30) -> None:
    """Print flicker and lag for each time constant."""
    hold, n_faces, n_clips = 90, 3, 3
    flicker: dict[float, list[float]] = {constant: [] for constant in constants}
    lag: dict[float, list[float]] = {constant: [] for constant in constants}
    missed = dict.fromkeys(constants, 0)
    for seed in range(n_clips):
        labels = record_labels(recognizer, constants, seed, hold, n_faces, fps)
        for constant in constants:
            for series in labels[constant]:
                changes, lags = measure_series(series, hold, fps)
                flicker[constant].append(changes)
                lag[constant] += [value for value in lags if value is not None]
                missed[constant] += sum(value is None for value in lags)
    print("\nsmoothing: drawn clips with noise, change of expression every 3 s; a face is classified every")
    print(f"{tracking.CLASSIFY_SECONDS:.3f} s\n")
    print("time constant, s   flicker, changes/s   lag, s: median   90 %   changes not followed")
    for constant in constants:
        lags = lag[constant] or [float("nan")]
        print(
            f"{constant or 'none':>16}   {statistics.mean(flicker[constant]):18.2f}   "
            f"{statistics.median(lags):14.2f}   {np.quantile(lags, 0.9):4.2f}   {missed[constant]:20d}"
        )


def record_labels(
    recognizer: Recognizer, constants: tuple[float, ...], seed: int, hold: int, n_faces: int, fps: int
) -> dict[float, list[list[str]]]:
    """Return, for each constant, each person's labels frame by frame; a face not found keeps its label."""
    analysers = {constant: FrameAnalyser(recognizer, fps, constant) for constant in constants}
    labels = {constant: [[] for _ in range(n_faces)] for constant in constants}
    rng = np.random.default_rng(seed)
    for index, (image, placed) in enumerate(draw_labelled_clip(4 * hold, n_faces, WIDTH, HEIGHT, seed, hold)):
        frame = spoil(image, rng)
        for constant, analyser in analysers.items():
            faces = analyser(frame, index / fps)
            for person, place in enumerate(placed):
                centre = place.box[0] + place.box[2] / 2
                near = [f for f in faces if abs(f.box[0] + f.box[2] / 2 - centre) < place.box[2] / 2]
                known = labels[constant][person]
                shown = "unsure" if near and near[0].abstained else near[0].label if near else None
                known.append(shown or (known[-1] if known else "none"))
    return labels


def measure_series(labels: list[str], hold: int, fps: int) -> tuple[float, list[float | None]]:
    """Return label changes per second in the second half of each hold, and the lag of each change.

    The label a hold settles on is the commonest of its second half. Where that is the one of the hold before,
    the network does not see the change, and there is no lag. None: not reached in half a hold.
    """
    half = hold // 2
    settled, changes, lags = [], 0, []
    for start in range(0, len(labels), hold):
        late = labels[start + half : start + hold]
        changes += sum(a != b for a, b in itertools.pairwise(late))
        settled.append(statistics.mode(late))
        if len(settled) > 1 and settled[-1] != settled[-2]:
            series = labels[start : start + half]
            # From when on the label stays for a tenth of a second.
            stays = [all(label == settled[-1] for label in series[i : i + 3]) for i in range(half)]
            lags.append(stays.index(True) / fps if True in stays else None)
    return changes / (len(settled) * (hold - half) / fps), lags


def stretch_clip(n_frames: int) -> Iterator[np.ndarray]:
    """Yield the frames of a small clip, forwards and backwards, as often as needed."""
    frames = [frame for frame, _ in draw_labelled_clip(90, 1, 160, 120)]
    frames += frames[::-1]
    return (frames[index % len(frames)] for index in range(n_frames))


def measure_memory(recognizer: Recognizer, n_frames: int) -> None:
    """Print resident memory while a clip is analysed and written."""
    clip = io.BytesIO()
    with av.open(clip, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for frame in stretch_clip(n_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    process, marks = psutil.Process(), iter((0.1, 0.25, 0.5, 0.75, 1.0))
    due = next(marks)
    print(f"\nmemory: {n_frames:,} frames of 160 x 120\n")
    started = time.perf_counter()

    def report(done: float) -> None:
        nonlocal due
        if done >= due:
            print(f"{done:5.0%}   {process.memory_info().rss / 2**20:7.0f} MiB", flush=True)
            due = next(marks, 2.0)

    result = analyse_video(recognizer, clip, io.BytesIO(), progress=report)
    seconds = time.perf_counter() - started
    size = result.table.memory_usage(deep=True).sum() / 2**20
    print(f"the table: {len(result.table):,} rows, {size:.1f} MiB; {n_frames / seconds:.0f} frames/s")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("trackers", "smoothing", "memory")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=2000, help="of the clip for `memory`")
    options = parser.parse_args()
    if "trackers" in options.only:
        compare_trackers()
    recognizer = Recognizer(threads=options.threads)
    if "smoothing" in options.only:
        compare_smoothing(recognizer, (0.0, 0.1, 0.2, 0.3, 0.5, 1.0))
        for seconds in (0.0, 0.067, 0.133, 0.2):
            tracking.CLASSIFY_SECONDS = seconds
            compare_smoothing(recognizer, (tracking.SMOOTHING_SECONDS,))
    if "memory" in options.only:
        measure_memory(recognizer, options.frames)


if __name__ == "__main__":
    main()
