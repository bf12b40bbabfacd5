import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from demo_faces.clips import draw_labelled_clip, draw_scene
from fer_lib.data.detector import Detection
from fer_lib.errors import ModelError
from fer_lib.inference import tracking
from fer_lib.inference.baseline import Baseline
from fer_lib.inference.faces import Face
from fer_lib.inference.numbering import Numbering, describe_looks
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.tracking import FaceHider, FrameAnalyser

EMOTIONS = ("happy", "sad", "neutral")
FRAME = np.zeros((480, 640, 3), np.uint8)


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer(threads=1)


def place(x, y=200.0, width=80.0, score=0.9):
    """Return a detection; the landmarks have the same places in every box."""
    corners = np.float32([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    return Detection((x, y, width, 1.25 * width), corners * [width, 1.25 * width] + [x, y], score)


class ScriptedDetector:
    """Finds in its n-th frame what it was told, and counts what is refined."""

    def __init__(self, *frames):
        self.frames, self.refined, self.smallest = list(frames), [], []

    def search(self, frame, min_face):
        self.smallest.append(min_face)
        self.refined.append(0)
        return self.frames.pop(0) if self.frames else []

    def refine(self, frame, face):
        self.refined[-1] += 1
        tilt = np.float32([[0, -5], [0, 5], [0, 0], [0, -5], [0, 5]])
        return Detection(face.box, face.landmarks + tilt, face.score)


class ScriptedRecognizer:
    """Says of its n-th frame's faces what it was told; describes probabilities as the real one does."""

    emotions, abstain_below = EMOTIONS, 0.5
    describe = Recognizer.describe

    def __init__(self, *rows):
        self.rows = list(rows)

    def recognize(self, frame, detections):
        row = self.rows.pop(0) if self.rows else [0.8, 0.1, 0.1]
        emotion = vars(self.describe(np.array(row)))
        return [
            Face(
                **emotion,
                box=tuple(map(int, face.box)),
                landmarks=face.landmarks,
                detection_score=face.score,
                turned=face.turned,
                crop=FRAME[:48, :48],
            )
            for face in detections
            if face.box[0] < 640
        ]


def build_analyser(detector, recognizer=None, fps=30, **options):
    analyser = FrameAnalyser(recognizer or ScriptedRecognizer(), fps, **options)
    analyser._detector = detector
    return analyser


def number(*frames, fps=30):
    numbering = Numbering()
    rows = enumerate(frames)
    return [numbering.assign(row, describe_looks(FRAME, row), index / fps, 640) for index, row in rows]


def test_drawn_people_keep_their_numbers_from_the_first_frame_on(recognizer):
    analyser = FrameAnalyser(recognizer, 15)
    numbers = {person: set() for person in range(3)}
    for index, (frame, placed) in enumerate(draw_labelled_clip(12, 3, 480, 360)):
        faces = analyser(frame, index / 15)
        assert len(faces) == 3
        for place_ in placed:
            centre = np.array(place_.box[:2]) + np.array(place_.box[2:]) / 2
            (face,) = [
                face
                for face in faces
                if np.all(np.abs(np.array(face.box[:2]) + np.array(face.box[2:]) / 2 - centre) < 40)
            ]
            numbers[place_.person].add(face.track)
    assert sorted(map(sorted, numbers.values())) == [[1], [2], [3]]


def draw_moving(seconds, portraits):
    """Return a frame in which two people pass each other, the first in front, and one leaves and returns."""
    frame = np.full((400, 640, 3), 60, np.uint8)
    away = min(1.0, abs(seconds - 2.0))  # a second to leave, and one to return
    lefts = (10 + 120 * seconds, 370 - 120 * seconds, 640 - 160 * away)
    tops = (30, 10, 220)
    for person in (1, 0, 2):
        left = round(lefts[person] + 15 * math.sin(6 * seconds))
        first, last = min(max(0, left), 640), min(640, left + 160)
        portrait = portraits[person][:, first - left : max(first, last) - left]
        frame[tops[person] : tops[person] + 160, first:last] = portrait
    return frame, [(left + 80, top + 85) for left, top in zip(lefts, tops, strict=True)]


@pytest.mark.parametrize("fps", [3, 5, 10, 25])
def test_people_keep_their_numbers_at_every_frame_rate(fps):
    portraits = [draw_scene(1, 160, 160, seed=seed)[0] for seed in range(3)]
    analyser = FrameAnalyser(ScriptedRecognizer())
    numbers = {0: [], 1: [], 2: []}
    for index in range(3 * fps + fps // 2):
        frame, centres = draw_moving(index / fps, portraits)
        for face in analyser(frame, index / fps):
            centre = np.array(face.box[:2]) + np.array(face.box[2:]) / 2
            distances = [np.abs(np.array(place) - centre).max() for place in centres]
            if sorted(distances)[1] > 70:  # else two are in one place
                numbers[int(np.argmin(distances))].append(face.track)
    assert sorted(sorted({*tracks}) for tracks in numbers.values()) == [[1], [2], [3]]
    assert min(map(len, numbers.values())) > fps


def test_people_keep_their_numbers_when_the_frames_change_their_size():
    analyser, numbers = FrameAnalyser(ScriptedRecognizer()), []
    for index, side in enumerate((160, 160, 320, 640, 640)):  # as a browser begins to send its camera's image
        frame = cv2.resize(draw_scene(2)[0], (side, side * 3 // 4), interpolation=cv2.INTER_AREA)
        numbers.append(sorted(face.track for face in analyser(frame, index / 30)))
    assert numbers == [[1, 2]] * 5


def test_a_stream_that_stands_still_loses_nobody():
    analyser = build_analyser(ScriptedDetector(*[[place(100)]] * 2))
    assert [analyser(FRAME, when)[0].track for when in (0.0, 10.0)] == [1, 1]


def test_who_comes_elsewhere_is_another_person():
    assert number(*[[place(500)]] * 10, [], [place(40)], [place(45)])[-1] == [2]


def test_a_face_is_a_plain_one_with_a_number(recognizer):
    frame, _ = next(draw_labelled_clip(1, 1, 320, 240))
    (face,) = FrameAnalyser(recognizer, 30)(frame, 0.0)
    assert isinstance(face, Face)
    assert face.to_dict()["track"] == face.track == 1
    assert sum(face.probabilities.values()) == pytest.approx(1)
    assert face.confidence == max(face.probabilities.values()) == face.probabilities[face.label]
    assert face.crop.shape[:2] == (recognizer.framing.size,) * 2


def test_people_who_cross_keep_their_numbers():
    frames = []
    for step in range(61):
        near, far = place(20 + 8 * step, 200, 100), place(520 - 8 * step, 195, 80)
        frames.append([near] if abs(near.box[0] - far.box[0]) < 50 else [near, far])
    numbers = number(*frames)
    assert numbers[0] == numbers[-1] == [1, 2]


def test_a_face_out_of_sight_keeps_its_number_for_a_while():
    seen, gone = [place(100)], []
    assert number(*[seen] * 10, *[gone] * 20, seen)[-1] == [1]
    assert number(*[seen] * 10, *[gone] * 60, seen)[-1] == [2]


def test_the_frame_rate_does_not_change_how_long_a_face_is_remembered():
    seen, gone = [place(100)], []
    assert number(*[seen] * 4, *[gone] * 4, seen, fps=6)[-1] == [1]
    assert number(*[seen] * 4, *[gone] * 12, seen, fps=6)[-1] == [2]


def test_a_new_face_keeps_its_first_number_though_it_is_missed_in_its_second_frame():
    numbers = number([place(100)], [], [place(102)], [place(104)])
    assert numbers == [[1], [], [1], [1]]


def test_a_face_that_jumps_too_far_is_still_shown():
    assert all(None not in row for row in number(*[[place(150 * (i % 4))] for i in range(12)]))


def test_a_doubtful_face_is_followed_and_never_begins():
    sure, doubtful = [place(100)], [place(100, score=0.65)]
    assert number(*[sure] * 3, *[doubtful] * 10) == [[1]] * 13
    assert number(*[doubtful] * 5) == [[None]] * 5
    assert number(*[doubtful] * 3, sure, doubtful)[-2:] == [[1], [1]]


def test_numbers_follow_the_order_of_the_faces():
    one, other = place(50), place(400)
    assert number([one, other], [other, one], [one, other]) == [[1, 2], [2, 1], [1, 2]]


@pytest.mark.parametrize("fps", [8, 30, 120])
def test_the_time_constant_is_in_seconds_at_every_frame_rate(fps):
    before, after = [0.9, 0.05, 0.05], [0.1, 0.85, 0.05]
    n_before, n_after = 5 * fps, round(0.5 * fps)
    rows = [before] * n_before + [after] * n_after
    analyser = build_analyser(
        ScriptedDetector(*[[place(100)]] * len(rows)), ScriptedRecognizer(*rows), fps, smoothing_seconds=0.5
    )
    for index in range(len(rows)):
        (face,) = analyser(FRAME, index / fps)
    expected = 0.1 + 0.8 * math.exp(-n_after / fps / 0.5)
    assert face.probabilities["happy"] == pytest.approx(
        expected, abs=1e-4
    )  # the first frame still weighs 2e-5


def test_the_first_frames_count_alike():
    # Started at its first value, the average would be 0.96 after the second frame.
    analyser = build_analyser(
        ScriptedDetector([place(100)], [place(100)]),
        ScriptedRecognizer([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
        smoothing_seconds=10.0,
    )
    analyser(FRAME, 0.0)
    assert analyser(FRAME, 0.1)[0].probabilities["happy"] == pytest.approx(0.5, abs=0.01)


def test_label_group_and_abstention_follow_the_average():
    rows = [[0.9, 0.1, 0.0]] * 20 + [[0.0, 1.0, 0.0]] * 20
    analyser = build_analyser(
        ScriptedDetector(*[[place(100)]] * 40), ScriptedRecognizer(*rows), smoothing_seconds=0.3
    )
    faces = [analyser(FRAME, index / 30)[0] for index in range(40)]
    assert (faces[20].label, faces[20].group) == ("happy", "positive")  # one frame does not turn it
    assert (faces[-1].label, faces[-1].group) == ("sad", "negative")
    assert [face.abstained for face in faces] == [face.confidence < 0.5 for face in faces]


def test_smoothing_can_be_switched_off():
    rows = [[0.9, 0.1, 0.0], [0.0, 0.2, 0.8]]
    analyser = build_analyser(
        ScriptedDetector(*[[place(100)]] * 2), ScriptedRecognizer(*rows), smoothing_seconds=0
    )
    analyser(FRAME, 0.0)
    assert list(analyser(FRAME, 0.1)[0].probabilities.values()) == rows[1]


def test_each_face_is_seen_against_its_own_first_seconds():
    # The second comes after half a second; at rest it looks sad, the first one happy.
    detector = ScriptedDetector(*[[place(50)]] * 5, *[[place(50), place(400)]] * 15)
    analyser = build_analyser(detector, fps=10, neutral_seconds=0.95)
    looks = {50: [0.6, 0.1, 0.3], 400: [0.1, 0.6, 0.3]}
    analyser.recognizer.recognize = lambda frame, faces: [
        face for one in faces for face in ScriptedRecognizer(looks[round(one.box[0])]).recognize(frame, [one])
    ]
    seen = {1: [], 2: []}
    for index in range(20):
        for face in analyser(FRAME, index / 10):
            seen[face.track].append([*face.probabilities.values()])
    for track, row in zip(seen, looks.values(), strict=True):
        expected = Baseline.from_probabilities(np.array([row]), EMOTIONS).apply(np.array(row))
        np.testing.assert_allclose(seen[track][:10], [row] * 10)  # a second is ten frames
        np.testing.assert_allclose(seen[track][10:], [expected] * (len(seen[track]) - 10))
    assert (len(seen[1]), len(seen[2])) == (20, 15)


def test_one_baseline_counts_for_every_face_from_its_first_frame_on():
    analyser = build_analyser(ScriptedDetector([place(100)]), baseline=Baseline((0.25, 1.0, 1.0)))
    (face,) = analyser(FRAME, 0.0)
    # 0.8, 0.1 and 0.1 become 0.2, 0.1 and 0.1, of 0.4
    assert [*face.probabilities.values()] == pytest.approx([0.5, 0.25, 0.25])


def test_first_seconds_need_a_model_that_knows_neutral():
    blind = SimpleNamespace(emotions=("happy", "sad"))
    with pytest.raises(ModelError, match="expected a model with the class neutral, found happy, sad"):
        FrameAnalyser(blind, neutral_seconds=1.0)


@pytest.mark.parametrize(("fps", "classified"), [(120, 10), (30, 10), (25, 10), (8, 8)])
def test_a_face_is_classified_ten_times_a_second_and_shown_in_every_frame(fps, classified):
    recognizer = ScriptedRecognizer()
    looked, recognize = [], recognizer.recognize
    recognizer.recognize = lambda frame, faces: looked.extend(faces) or recognize(frame, faces)
    analyser = build_analyser(ScriptedDetector(*[[place(100 + i)] for i in range(fps)]), recognizer, fps)
    boxes = [analyser(FRAME, i / fps)[0].box for i in range(fps)]
    assert len(looked) == pytest.approx(classified, abs=2)
    assert [box[0] for box in boxes] == [100 + i for i in range(fps)]


def test_landmarks_are_refined_one_face_a_frame_and_each_once_a_second():
    faces = [place(50), place(250), place(450)]
    detector = ScriptedDetector(*[faces] * 75)
    analyser = build_analyser(detector)
    for index in range(75):
        analyser(FRAME, index / 30)
    assert detector.refined[:4] == [1, 1, 1, 0]
    assert max(detector.refined) == 1
    assert sum(detector.refined) == 9  # at 0, 1 and 2 seconds


def test_between_refinements_landmarks_move_and_grow_with_the_box():
    detector = ScriptedDetector([place(100)], [place(150, 220, 160)])
    analyser = build_analyser(detector)
    analyser(FRAME, 0.0)
    (face,) = analyser(FRAME, 1 / 30)
    assert detector.refined == [1, 0]
    # Refined, the right eye lay 5 pixels higher than found; the face is now twice as large.
    np.testing.assert_allclose(face.landmarks[0], place(150, 220, 160).landmarks[0] + [0, -10], atol=1e-3)


def test_a_face_outside_the_frame_mixes_nothing_up():
    frame = [place(700), place(100)]
    analyser = build_analyser(ScriptedDetector(frame, frame))
    assert [face.box[0] for face in analyser(FRAME, 0.0)] == [100]
    assert [face.track for face in analyser(FRAME, 0.1)] == [2]


@pytest.mark.parametrize("times", [[5.0, 5.0, 5.0, 5.0], [5.0, 1.0, 1.03, 1.07], [5.0, math.nan, 5.1, 5.2]])
def test_times_that_stand_still_fall_or_are_none_lose_nobody(times):
    analyser = build_analyser(ScriptedDetector(*[[place(100)]] * 4))
    faces = [analyser(FRAME, when) for when in times]
    assert [[face.track for face in row] for row in faces] == [[1]] * 4
    assert all(math.isfinite(face.confidence) for row in faces for face in row)


@pytest.mark.parametrize("fps", [0.0, math.nan, math.inf])
def test_a_frame_rate_that_is_none_is_taken_as_usual(fps):
    assert len(build_analyser(ScriptedDetector([place(100)]), fps=fps)(FRAME, 0.0)) == 1


def test_frames_without_faces_are_empty_lists(recognizer):
    analyser = FrameAnalyser(recognizer, 30)
    assert [analyser(FRAME, index / 30) for index in range(3)] == [[], [], []]


def test_who_is_gone_is_forgotten():
    analyser = build_analyser(ScriptedDetector([place(100)], [place(100)]))
    for index in range(90):
        analyser(FRAME, index / 30)
    assert not analyser._memory


@pytest.mark.parametrize(
    ("shape", "smallest"), [((480, 640, 3), 36), ((1920, 1080, 3), 81), ((120, 160, 3), 24)]
)
def test_the_smallest_face_looked_for_follows_the_shorter_side(shape, smallest):
    detector = ScriptedDetector()
    build_analyser(detector)(np.zeros(shape, np.uint8), 0.0)
    assert detector.smallest == [pytest.approx(smallest)]


def test_a_hidden_face_stays_hidden_for_a_moment_after_it_is_lost():
    hider, one, other = FaceHider(), SimpleNamespace(track=1), SimpleNamespace(track=2)
    assert hider.add_lost([one, other], 0.0) == [one, other]
    assert set(map(id, hider.add_lost([one], 0.3))) == {id(one), id(other)}
    assert hider.add_lost([one], 0.3 + tracking.HIDDEN_SECONDS) == [one]
