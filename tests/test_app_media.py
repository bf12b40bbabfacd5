"""The app's pages Video and Live."""

import asyncio
import io
import json
import sys
import tracemalloc
import weakref
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pandas as pd
import pytest
from aiortc import MediaStreamTrack
from aiortc.contrib.media import MediaRelay
from app_harness import collect_downloads, open_page, read_page
from PIL import Image

from app import common, live_recording, live_stream, video_analysis
from app.common import identify, name_identity
from app.drawn_faces import describe_drawn_faces
from app.live_recording import Recording
from app.live_stream import LiveStream, keep_newest_frames_only
from app.timeline import MAX_ROWS, build_timeline
from app.video_analysis import Analysis, describe_progress, draw_demo, show_time, summarise_tracks
from app.views import video
from demo_faces.clips import draw_clip, draw_scene
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.registry import DEFAULT_MODEL, RELEASE_DIR
from fer_lib.inference.video_reader import VideoInfo, VideoReader
from fer_lib.inference.video_writer import VideoWriter
from fer_lib.palette import EMOTION_COLOURS

MODEL = ("folder", "variant", ())


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer(threads=1)


@pytest.fixture
def downloads(monkeypatch):
    return collect_downloads(monkeypatch, common)


def press(app, label):
    """Press the button with this label and run the page."""
    return find_button(app, label).click().run()


def find_button(app, label):
    return next(button for button in app.button if button.label == label)


def switch(app, label, value=True):
    """Set the toggle with this label and run the page."""
    return next(toggle for toggle in app.toggle if toggle.label == label).set_value(value).run()


# Video


def encode(frames, fps=10, size=(320, 240)):
    out = io.BytesIO()
    with VideoWriter(out, VideoInfo(*size, fps, None)) as writer:
        for number, frame in enumerate(frames):
            writer.write(frame, number / fps)
    return out.getvalue()


@pytest.fixture(scope="module")
def clip():
    """Return one second of a drawn face, as an MP4."""
    return encode(draw_clip(10, 1, 320, 240))


def start(app, name=None, content=None):
    """Upload a file, if one is given, and press the button to analyse it."""
    if content is not None:
        app.file_uploader[0].upload(name, content).run()
    return press(app, "Analyse the video")


def test_upload_is_analysed_once_shown_and_handed_out(clip, downloads, monkeypatch):
    calls = []
    original = video_analysis.analyse_video
    monkeypatch.setattr(
        video_analysis, "analyse_video", lambda *a, **k: calls.append(k["blur"]) or original(*a, **k)
    )
    app = open_page("video")
    assert app.button[0].disabled, "nothing to analyse yet"
    start(app, "my *clip*.mp4", clip)
    assert r"my \*clip\*.mp4: 10 frames" in read_page(app)
    assert describe_drawn_faces() not in read_page(app)
    assert len(app.get("video")) == 1
    assert app.dataframe[0].value["Face"].tolist() == ["#1"]
    table = pd.read_csv(io.BytesIO(downloads["my *clip*_emotions.csv"]))
    assert table["frame"].tolist() == list(range(10))
    assert "group" not in table, "in which surprise is positive"
    sharp = downloads["my *clip*_emotions.mp4"]
    with VideoReader(io.BytesIO(sharp)) as reader:
        assert reader.info.width == 320
    switch(app, "Blur faces")
    assert downloads["my *clip*_emotions.mp4"] != sharp
    switch(app, "Blur faces", False)
    assert downloads["my *clip*_emotions.mp4"] == sharp
    assert calls == [False], "redrawn, not analysed again"
    app.file_uploader[0].upload("other.mp4", clip).run()
    assert not app.get("video"), "another upload, another result"


def test_upload_that_is_not_analysed_yet_is_kept_while_another_page_is_open(clip):
    app = open_page("video")
    app.file_uploader[0].upload("my *clip*.mp4", clip).run()
    assert not app.get("video")
    app.switch_page("views/about.py").run()
    app.switch_page("views/video.py").run()
    assert not app.file_uploader[0].value, "the browser has forgotten the file"
    assert r":material/movie: my \*clip\*.mp4" in read_page(app)
    assert r"my \*clip\*.mp4: 10 frames" in read_page(start(app))
    press(app, "Remove")
    assert video.FILE not in app.session_state
    assert video.STATE not in app.session_state, "the result holds the file as well"
    assert find_button(app, "Analyse the video").disabled


def test_result_is_kept_while_another_page_is_open_and_removed_on_request():
    app = open_page("video")
    press(app, "Try the demo clip")
    app.switch_page("views/about.py").run()
    app.switch_page("views/video.py").run()
    assert len(app.get("video")) == 1
    press(app, "Remove the result")
    assert not app.get("video")
    assert video.STATE not in app.session_state


def test_result_is_kept_when_another_model_is_chosen_and_says_whose_it_is():
    app = press(open_page("video"), "Try the demo clip")
    own, other = app.radio[0].value, "tiny"
    app.radio[0].set_value(other).run()
    assert len(app.get("video")) == 1
    assert f"This is the result of {DEFAULT_MODEL}, {own} (released)." in read_page(app)
    press(app, "Analyse again with the chosen model")
    assert app.session_state[video.STATE].model[1] == other
    assert describe_drawn_faces() in read_page(app)
    assert len(app.get("video")) == 1
    assert not app.info


def test_result_is_its_models_own_after_that_was_loaded_anew():
    app = press(open_page("video"), "Try the demo clip")
    common._load.clear()  # as when other pages have loaded more models than are kept
    assert len(app.run().get("video")) == 1
    assert not app.info


def test_analysis_that_is_half_done_is_not_continued_by_another_model(clip):
    app = open_page("video")
    app.file_uploader[0].upload("clip.mp4", clip).run()
    model = identify(common.load_recognizer(DEFAULT_MODEL, "tiny"))
    app.session_state[video.STATE] = Analysis("clip.mp4", io.BytesIO(clip), model)
    assert "Press the button again" in read_page(app.run())
    assert not app.get("video")
    assert len(start(app).get("video")) == 1


def test_model_has_a_name_after_it_was_deleted():
    assert (
        name_identity((str(RELEASE_DIR / DEFAULT_MODEL), "tiny", ())) == f"{DEFAULT_MODEL}, tiny (released)"
    )
    assert name_identity(("gone/mine", "float", ())) == "mine, float (released)"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("empty.mp4", b"", "empty file"), ("text.mp4", b"no video " * 99, "found a file that is none")],
    ids=["empty", "renamed"],
)
def test_what_is_no_video_gets_a_sentence_and_is_not_tried_again(name, content, words):
    app = start(open_page("video"), name, content)
    assert name in app.error[0].value
    assert words in app.error[0].value
    assert not app.get("progress")
    assert not app.run().error


def test_video_that_is_too_long_is_refused_with_its_length(monkeypatch):
    monkeypatch.setattr(video_analysis, "MAX_MINUTES", 0.05)  # three seconds
    frames = np.zeros((60, 64, 64, 3), np.uint8)
    app = start(open_page("video"), "long.mp4", encode(frames, 10, (64, 64)))
    assert "6.0 s long" in app.error[0].value
    assert "python -m fer_lib video" in app.error[0].value


def test_video_without_faces_and_a_cut_one_are_explained():
    frames = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), np.uint8)
    app = start(open_page("video"), "noise.mp4", encode(frames, 10, (64, 64)))
    assert "No face was found" in read_page(app)
    assert len(app.get("video")) == 1
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as container:  # an MP4's index is at its end
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    app = start(open_page("video"), "cut.mkv", out.getvalue()[: len(out.getvalue()) // 2])
    assert app.warning, "what could be read is shown, and the rest is explained"
    assert len(app.get("video")) == 1


@pytest.fixture(autouse=True)
def _short_demo(monkeypatch):
    monkeypatch.setattr(video_analysis, "DEMO_SECONDS", 1)
    monkeypatch.setattr(video_analysis, "DEMO_FPS", 3)


def test_demo_clip_needs_no_upload():
    with VideoReader(io.BytesIO(draw_demo())) as reader:
        assert reader.info.width == 640
    app = open_page("video")
    assert f"shows nobody real. {describe_drawn_faces()}" in read_page(app)
    text = read_page(press(app, "Try the demo clip"))
    assert "demo.mp4: 3 frames" in text
    assert describe_drawn_faces() in text


def test_analysis_reports_its_progress_and_can_be_cancelled(recognizer, clip, monkeypatch):
    monkeypatch.setattr(video_analysis, "REDRAW_SECONDS", 0.0)
    model = identify(recognizer)
    analysis, shown = Analysis("clip.mp4", io.BytesIO(clip), model), []
    for blur in (False, True):  # found, and redrawn
        analysis.run(recognizer, blur, lambda done, text: shown.append((done, text)))
        shares = [done for done, _ in shown]
        assert shares == sorted(shares)
        assert shares[-1] == 1
        assert any("left" in text for _, text in shown)
        shown.clear()

    class Cancelled(BaseException):
        """Streamlit ends a script in this way when a button is pressed, at its next call."""

    def cancel(done, text):
        raise Cancelled

    analysis = Analysis("clip.mp4", io.BytesIO(clip), model)
    with pytest.raises(Cancelled):
        analysis.run(recognizer, False, cancel)
    assert analysis.result is None
    assert not analysis.copies


def test_cancelling_forgets_an_analysis_and_shows_a_drawn_video_as_it_was(monkeypatch):
    state = {video.STATE: None, video.BLUR: True}
    monkeypatch.setattr(video.st, "session_state", state)
    video._cancel(Analysis("clip.mp4", io.BytesIO(), MODEL, result=object()), blur=True)
    assert state == {video.STATE: None, video.BLUR: False}
    video._cancel(Analysis("clip.mp4", io.BytesIO(), MODEL), blur=False)
    assert state == {video.BLUR: False}


def test_time_left_is_told_in_seconds_and_minutes():
    assert describe_progress("Analysing", 0.01, 1) == "Analysing …"
    assert describe_progress("Drawing", 0.25, 10) == "Drawing: 25%, about 30 s left"
    assert describe_progress("Analysing", 0.5, 300) == "Analysing: 50%, about 5 min left"
    assert show_time(65.4) == "1:05"


def test_tracks_are_summed_up_the_longest_first():
    table = pd.DataFrame(
        {
            "time": [0.0, 0.0, 1.0, 2.0, 3.0],
            "track": [2, 1, 1, 1, 1],
            "label": ["sad", "happy", "happy", "fear", "fear"],
            "confidence": [0.3, 0.9, 0.8, 0.7, 0.4],
            "abstained": [True, False, False, False, True],
            **dict.fromkeys(("happy", "fear", "sad"), 1 / 3),
        }
    )
    [first, second] = summarise_tracks(table.astype({"label": "category"}), fps=2).to_dict("records")
    assert first == {
        **{"Face": "#1", "From": "0:00", "To": "0:03", "Seconds": 2.0, "Mostly": "happy", "Confidence": 0.7},
        **{"Unsure": 0.25, "happy": 0.5, "fear": 0.25, "sad": 0.0},
    }
    assert (second["Face"], second["Mostly"], second["Unsure"], second["sad"]) == ("#2", "–", 1.0, 0.0)


def build_table(*lives):
    """Return a table of tracks from `lives`, (first, last) seconds each, all happy."""
    rows = [
        {"time": time, "track": track, "happy": 0.75, "sad": 0.25}
        for track, (first, last) in enumerate(lives, start=1)
        for time in np.arange(first, last, 0.1)
    ]
    return pd.DataFrame(rows, columns=["time", "track", "happy", "sad"])


def test_timeline_has_a_row_per_person_and_a_colour_per_emotion():
    data = build_timeline(build_table((0, 3), (1, 2)))
    assert [row["name"] for row in data["rows"]] == ["#1", "#2"]
    assert data["emotions"][0] == {"name": "happy", "colour": EMOTION_COLOURS["happy"]}
    [visit] = data["rows"][1]["visits"]
    assert (visit["times"][0], visit["times"][-1]) == (1.0, 1.9)
    assert visit["values"] == [[0.75, 0.25]] * 10
    assert data["note"] == ""
    json.dumps(data, allow_nan=False)


def test_timeline_shows_the_longest_and_counts_the_rest():
    data = build_timeline(build_table(*[(0, 1 + number) for number in range(MAX_ROWS + 2)]))
    assert [row["name"] for row in data["rows"]] == [f"#{number}" for number in range(3, 9)]
    assert data["note"] == "2 more people are not shown."


def test_timeline_leaves_a_gap_where_nobody_is_seen():
    table = build_table((0, 1))
    [row] = build_timeline(pd.concat([table, table.assign(time=table["time"] + 3)]))["rows"]
    spans = [(visit["times"][0], visit["times"][-1]) for visit in row["visits"]]
    assert spans == [(0, 0.9), (3, 3.9)]


def test_timeline_of_a_single_frame_has_a_width_and_that_of_a_long_video_is_small():
    assert build_timeline(build_table())["rows"] == []
    [row] = build_timeline(build_table((0, 0.1)))["rows"]
    assert row["visits"][0]["times"] == [0, 0.04]
    [row] = build_timeline(build_table((0, 600)))["rows"]
    assert 300 < len(row["visits"][0]["times"]) < 500


# Live


def build_frame(image):
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")


def receive(stream, *images):
    """Return the image that a stream makes of the frames that have come since the last one."""
    [frame] = asyncio.run(stream.recv_queued([build_frame(image) for image in images]))
    return frame.to_ndarray(format="rgb24")


class Model(str):
    """Stands for a recognizer."""

    emotions = ("happy",)
    folder = Path("nowhere")

    @property
    def variant(self):
        return str(self)


@pytest.fixture
def analyser(monkeypatch):
    """Replace the analysis by one that finds nothing; return the recognizers that were asked, in order."""
    asked = []

    class NoFaces:
        def __init__(self, recognizer, fps):
            self.recognizer = recognizer

        def __call__(self, frame, seconds):
            asked.append(self.recognizer)
            if self.recognizer == "broken":
                raise RuntimeError("on purpose")
            return []

    monkeypatch.setattr(live_stream, "FrameAnalyser", NoFaces)
    return asked


def measure_detail(image):
    """Return how much neighbouring pixels differ, in grey levels."""
    return np.abs(np.diff(image.astype(int), axis=1)).mean()


def test_live_marks_and_blurs_faces(recognizer):
    image, [placed] = draw_scene(1, 320, 240)
    left, top, width, height = map(int, placed.box)
    inside = np.s_[top + height // 3 : top + height // 2, left + width // 4 : left + 3 * width // 4]
    stream = LiveStream(recognizer)
    marked = receive(stream, image)
    assert stream.status.n_faces == 1
    assert (marked != image).any()
    # YuNet's box is not where the face was placed to the pixel, so its middle is compared: the eyes.
    assert np.abs(marked[inside].astype(int) - image[inside]).mean() < 1
    stream.configure(recognizer, blur=True, mirror=False)
    hidden = receive(stream, image)
    assert measure_detail(hidden[inside]) < measure_detail(image[inside]) / 3, "no eyes are left"


def test_live_shows_the_newest_frame_and_counts_the_others(analyser):
    stream = LiveStream(Model("model"))
    images = [np.full((48, 64, 3), value, np.uint8) for value in (10, 20, 200)]
    assert receive(stream, *images)[0, 0, 0] == 200
    assert receive(stream, images[0])[0, 0, 0] == 10
    assert (stream.status.n_frames, stream.status.n_skipped) == (2, 2)
    assert len(analyser) == 2
    assert stream.status.fps > 0


def test_live_takes_another_model_while_it_runs(analyser):
    stream, image = LiveStream(Model("one")), np.zeros((48, 64, 3), np.uint8)
    receive(stream, image)
    stream.configure(Model("two"), blur=False, mirror=False)
    receive(stream, image)
    assert analyser == ["one", "two"]


def test_live_goes_on_with_its_model_after_that_was_loaded_anew(analyser):
    stream, image = LiveStream(Model("one")), np.zeros((48, 64, 3), np.uint8)
    receive(stream, image)
    kept, recording = stream._analyser, stream.record()
    receive(stream, image)
    stream.configure(Model("one"), blur=False, mirror=False)
    receive(stream, image)
    assert stream._analyser is kept, "no face is followed from its beginning again"
    assert recording.is_running


@pytest.mark.parametrize("blur", [False, True])
def test_live_survives_an_error_and_shows_no_face_unblurred(analyser, blur, caplog):
    image = np.zeros((48, 64, 3), np.uint8)
    image[::2] = 255
    stream = LiveStream(Model("broken"), blur)
    for _ in range(3):
        shown = receive(stream, image)[:30]  # above the note
        assert stream.status.failing
        assert (shown == image[:30]).all() == (not blur)
    assert len(caplog.records) == 1, "logged once, not thirty times a second"
    stream.configure(Model("model"), blur, mirror=False)
    assert (receive(stream, image)[:30] == image[:30]).all()
    assert not stream.status.failing


def test_live_survives_a_frame_that_cannot_be_read(analyser):
    class Unreadable:
        width, height = 64, 48

        def to_ndarray(self, format):
            raise ValueError("on purpose")

    for blur in (False, True):
        stream = LiveStream(Model("model"), blur)
        shown = stream.recv(Unreadable())
        assert (shown.width, shown.height) == (64, 48)
        assert stream.status.failing


def test_live_keeps_no_frames(analyser):
    stream, image = LiveStream(Model("model")), np.zeros((240, 320, 3), np.uint8)
    receive(stream, image)
    tracemalloc.start()
    try:
        for _ in range(100):
            receive(stream, image)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < image.nbytes, "less than one frame of a hundred"


@pytest.fixture
def webrtc(monkeypatch):
    """Replace streamlit-webrtc, which needs a browser; return its stream and the arguments it is given."""
    context = SimpleNamespace(video_processor=None, state=SimpleNamespace(playing=False, signalling=False))
    arguments = {}
    relay = SimpleNamespace(get_global_relay=MediaRelay)
    module = SimpleNamespace(
        relay=relay,
        WebRtcMode=SimpleNamespace(SENDRECV="both ways"),
        webrtc_streamer=lambda key, **options: arguments.update(options) or context,
    )
    monkeypatch.setitem(sys.modules, "streamlit_webrtc", module)
    monkeypatch.setitem(sys.modules, "streamlit_webrtc.relay", relay)
    return context, arguments


def test_live_is_off_until_it_is_started_and_says_when_it_is_on(webrtc):
    context, arguments = webrtc
    app = open_page("live")
    assert "The camera is off." in read_page(app)
    assert not app.camera_input
    assert arguments["rtc_configuration"] == {"iceServers": []}, "no other computer is asked"
    assert arguments["media_stream_constraints"]["audio"] is False
    context.state.signalling = True
    assert "Connecting" in read_page(app.run())
    context.state = SimpleNamespace(playing=True, signalling=False)
    context.video_processor = arguments["video_processor_factory"]()
    text = read_page(app.run())
    assert "The camera is on." in text
    assert "0 frames analysed, 0 skipped" in text
    assert app.metric[0].value == "–"


def test_live_gives_model_and_blur_to_the_running_stream(webrtc, analyser):
    context, arguments = webrtc
    app = open_page("live")
    context.video_processor = stream = arguments["video_processor_factory"]()
    switch(app, "Blur faces")
    asked = []
    stream.configure = lambda *wanted: asked.append(wanted)
    app.run()
    [(recognizer, blur, mirror)] = asked
    assert recognizer is common.load_recognizer(DEFAULT_MODEL)
    assert (blur, mirror) == (True, True)


def test_live_changes_to_snapshots_on_request(webrtc):
    app = open_page("live")
    switch(app, "Use snapshots instead")
    assert len(app.camera_input) == 1
    assert "The camera is off." not in read_page(app)


def test_live_offers_snapshots_where_video_cannot_be_had(monkeypatch):
    monkeypatch.setitem(sys.modules, "streamlit_webrtc", None)
    app = open_page("live")
    assert "`make env` installs it" in read_page(app)
    out = io.BytesIO()
    Image.fromarray(draw_scene(2, 640, 480)[0]).save(out, "PNG")
    app.camera_input[0].upload("snapshot.jpg", out.getvalue()).run()
    assert app.image[0].captions == ["2 faces found"]
    out = io.BytesIO()
    Image.new("RGB", (320, 240)).save(out, "PNG")
    app.camera_input[0].upload("snapshot.jpg", out.getvalue()).run()
    assert app.image[0].captions == ["no faces found"]
    app.camera_input[0].upload("snapshot.jpg", b"no image").run()
    assert "expected an image" in app.error[0].value


@pytest.mark.parametrize("model", ["model", "broken"])
def test_live_mirrors_the_image_before_it_writes_on_it(analyser, model):
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    drawn, mirrored = (
        receive(LiveStream(Model(model)), image),
        receive(LiveStream(Model(model), mirror=True), image),
    )
    assert (mirrored[:100] == image[:100, ::-1]).all()
    assert (mirrored[-8:, :8] == drawn[-8:, :8]).all(), "the note is where it was, and can be read"


def test_live_remembers_the_last_minute(recognizer, monkeypatch):
    moments = [0.0]
    monkeypatch.setattr(live_stream.time, "monotonic", lambda: moments[-1])
    stream, image = LiveStream(recognizer), draw_scene(1, 320, 240)[0]
    for moment in (1000.0, 1000.1, 1030.0, 1065.0):
        moments.append(moment)
        receive(stream, image)
    history = stream.build_history()
    assert history["time"].tolist() == [-35.0, 0.0]
    assert set(history["track"]) == {1}
    assert build_timeline(history)["rows"]


def test_live_recording_holds_what_is_shown_and_who_is_in_it(recognizer):
    stream, image = LiveStream(recognizer), draw_scene(1, 640, 480)[0]
    receive(stream, image)
    recording = stream.record()
    shown = [receive(stream, image), receive(stream, image[::2, ::2]), receive(stream, image)]
    recording.stop()
    receive(stream, image)
    assert (recording.n_frames, recording.end) == (3, "")
    with VideoReader(io.BytesIO(recording.get_video())) as reader:
        frames = list(reader)
    assert len(frames) == 3
    assert [frame.shape for _, frame in frames] == [(480, 640, 3)] * 3
    assert np.abs(frames[2][1][:400].astype(int) - shown[2][:400]).mean() < 5
    table = pd.read_csv(io.BytesIO(recording.get_table()))
    assert table["frame"].tolist() == [0, 1, 2]
    assert table["track"].tolist() == [1, 1, 1]
    assert "group" not in table


def test_live_recording_ends_with_its_model(recognizer):
    image, other = draw_scene(1, 640, 480)[0], Recognizer(variant="tiny")
    stream = LiveStream(recognizer)
    receive(stream, image)
    recording = stream.record()
    receive(stream, image)
    stream.configure(other, blur=False, mirror=False)
    assert stream.build_history()["track"].tolist() == [1]
    receive(stream, image)
    assert (recording.n_frames, recording.is_running) == (1, False)
    assert "another model" in recording.end
    assert recording.get_table().count(b"\n") == 2


def test_live_stream_keeps_no_recording_that_was_removed(analyser):
    stream, image = LiveStream(Model("model")), np.zeros((48, 64, 3), np.uint8)
    recording = stream.record()
    receive(stream, image)
    recording.stop()
    kept = weakref.ref(recording)
    del recording
    assert kept() is None
    receive(stream, image)
    assert not stream.status.failing


def test_live_recording_ends_at_a_frame_that_cannot_be_written(caplog):
    recording = Recording(["happy"])
    recording.add(np.zeros((480, 640, 3), np.uint8), [], 0.0)
    recording.add(None, [], 0.1)
    assert (recording.is_running, recording.n_frames, len(caplog.records)) == (False, 1, 1)
    assert "could not be written" in recording.end
    with VideoReader(io.BytesIO(recording.get_video())) as reader:
        assert len(list(reader)) == 1


def test_live_recording_ends_at_its_bounds(monkeypatch):
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    monkeypatch.setattr(live_recording, "MAX_MEGABYTES", 1)
    for seconds, words in ((120.0, "after 2 minutes"), (0.1, "at 1 MB")):
        recording = Recording(["happy"])
        for index in range(150):
            recording.add(np.roll(image, 77 * index, 1), [], index * seconds)
        assert words in recording.end
        assert 0 < recording.n_frames < 150
        with VideoReader(io.BytesIO(recording.get_video())) as reader:
            assert len(list(reader)) == recording.n_frames


def test_live_recording_is_kept_while_another_page_is_open(webrtc, recognizer, downloads):
    context, arguments = webrtc
    app = open_page("live")
    assert "Record" not in [button.label for button in app.button]
    context.state = SimpleNamespace(playing=True, signalling=False)
    context.video_processor = stream = arguments["video_processor_factory"]()
    app.run()
    press(app, "Record")
    receive(stream, draw_scene(1, 640, 480)[0])
    assert "of 2:00, 0" in read_page(app.run())
    app.switch_page("views/about.py").run()
    context.state, context.video_processor = SimpleNamespace(playing=False, signalling=False), None
    app.switch_page("views/live.py").run()
    assert "0:00, 1 frames" in read_page(app)
    assert downloads["live_emotions.csv"].startswith(b"time,frame,track")
    with VideoReader(io.BytesIO(downloads["live_emotions.mp4"])) as reader:
        assert len(list(reader)) == 1
    press(app, "Remove")
    assert "0:00, 1 frames" not in read_page(app)


class Camera(MediaStreamTrack):
    """Gives its count every few milliseconds."""

    kind = "video"
    number = 0

    async def recv(self):
        await asyncio.sleep(0.002)
        self.number += 1
        return self.number


def test_slow_reader_of_a_stream_gets_the_newest_frame_and_no_queue_grows():
    async def watch():
        relay = MediaRelay()
        keep_newest_frames_only(relay)
        camera = Camera()
        track = relay.subscribe(camera)
        numbers = []
        for _ in range(3):
            await asyncio.sleep(0.1)  # the camera gives some forty frames in the meantime
            numbers.append((await track.recv(), camera.number))
        track.stop()
        return numbers

    for seen, newest in asyncio.run(watch())[1:]:
        assert newest - seen <= 3
