"""The app's frame, its pages Photo and About, and what all pages share."""

import asyncio
import io
import json
import os
import shutil
import sys
import threading
import tomllib
from dataclasses import replace
from weakref import WeakSet

import numpy as np
import pillow_heif
import pytest
from app_harness import collect_downloads, open_app, read_page
from conftest import REPO
from PIL import Image
from starlette.requests import Request
from streamlit.testing.v1 import AppTest

from app import common, image_analysis, image_source, saliency
from app.drawn_faces import describe_drawn_faces
from app.model_facts import describe_privacy, describe_trust, list_facts, list_scores, read_card
from app.views import photo
from demo_faces.clips import draw_scene
from fer_lib import paths
from fer_lib.analysis import explain
from fer_lib.inference import registry
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.registry import DEFAULT_MODEL, RELEASE_DIR, list_variants
from fer_lib.intervals import Interval
from fer_lib.metrics_file import Metrics, read_metrics
from fer_lib.models.checkpoints import read_config
from fer_lib.paths import get_output_dirs
from fer_lib.responsible_use import RESPONSIBLE_USE

PAGES = ("Facial expressions", "Compare", "Video", "Live", "Results", "About this model")


@pytest.fixture
def prepared(monkeypatch):
    """Collect the recognizers whose network would be built in the background, and build none."""
    built = []
    monkeypatch.setattr(saliency, "_warm", WeakSet())
    monkeypatch.setattr(saliency, "_build_network", built.append)
    return built


@pytest.fixture
def app(prepared):
    """Return the app, opened on its first page."""
    return open_app()


@pytest.fixture
def downloads(monkeypatch):
    return collect_downloads(monkeypatch, common)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Return an own folder of models that holds a copy of the release."""
    folder = tmp_path / "models"
    shutil.copytree(RELEASE_DIR / DEFAULT_MODEL, folder / "release" / DEFAULT_MODEL)
    monkeypatch.setattr(registry, "MODELS_DIR", folder)
    monkeypatch.setattr(registry, "RELEASE_DIR", folder / "release")
    return folder


def encode(pixels, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def upload(app, name, content):
    return app.file_uploader[0].upload(name, content).run()


def find_toggle(app, words):
    return next(toggle for toggle in app.toggle if words in toggle.label)


def open_about(app):
    return app.switch_page("views/about.py").run()


def read_variant():
    """Return the config of the released model's default variant."""
    config = read_config(RELEASE_DIR / DEFAULT_MODEL)
    return list_variants(config)[config["default"]]


def write_model(folder, **changes):
    """Write the config of a checkpoint, like the released network's with changes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(read_variant() | changes))


def edit_release(models, **changes):
    """Change the config of every variant of the copied release."""
    folder = models / "release" / DEFAULT_MODEL
    config = read_config(folder)
    for entry in config["variants"].values():
        entry.update(changes)
    (folder / "config.json").write_text(json.dumps(config))


# The frame


def test_every_page_opens_from_the_menu(app, monkeypatch):
    monkeypatch.setitem(sys.modules, "streamlit_webrtc", None)  # needs a browser; Live does without it
    names = ("photo", "compare", "video", "live", "results", "about")
    assert sorted(names) == sorted(path.stem for path in (REPO / "app" / "views").glob("*.py"))
    for title, name in zip(PAGES, names, strict=True):
        app.switch_page(f"views/{name}.py").run()
        assert not app.exception
        assert not app.error
        assert app.title[0].value == title
        assert "Nothing is written and nothing is sent" in app.sidebar.caption[-1].value


def test_app_is_for_this_computer_alone_and_shows_no_traces():
    config = tomllib.loads((REPO / ".streamlit" / "config.toml").read_text())
    assert config["server"]["address"] == "localhost"
    assert config["server"]["enableXsrfProtection"]
    assert config["browser"]["gatherUsageStats"] is False
    assert config["client"]["showErrorDetails"] == "none"
    assert image_source.MAX_MEGABYTES <= config["server"]["maxUploadSize"] <= 200


def test_model_choice_stays_from_page_to_page(app, models):
    write_model(models / "mine" / "baseline", dataset="mine")
    titles = [f"{DEFAULT_MODEL} (released, default)", "mine/baseline (study)"]
    assert app.run().selectbox(key="model").options == titles
    open_about(app).selectbox(key="model").set_value("mine/baseline").run()
    app.switch_page("views/results.py").run()
    assert open_about(app).selectbox(key="model").value == "mine/baseline"
    assert "training images: Mine: faces" in read_page(app)


def test_model_is_loaded_once_and_anew_when_its_files_change(models):
    first = common.load_recognizer(DEFAULT_MODEL)
    assert common.load_recognizer(DEFAULT_MODEL) is first
    edit_release(models, abstain_below=0.9)
    again = common.load_recognizer(DEFAULT_MODEL)
    assert again.abstain_below == 0.9
    onnx = models / "release" / DEFAULT_MODEL / read_variant()["file"]
    os.utime(onnx, ns=(0, 0))
    assert common.load_recognizer(DEFAULT_MODEL) is not again


@pytest.mark.parametrize("page", ["photo", "video"])
def test_damaged_model_is_a_sentence_and_another_can_be_chosen(app, models, page):
    (models / "release" / DEFAULT_MODEL / read_variant()["file"]).write_bytes(b"none")
    app.switch_page(f"views/{page}.py").run()
    assert not app.exception
    assert "not a network that runs here" in app.error[0].value
    assert app.selectbox(key="model").options


@pytest.mark.parametrize("page", ["photo", "about"])
def test_without_any_model_the_page_says_what_to_do(app, models, page):
    shutil.rmtree(models)
    app.switch_page(f"views/{page}.py").run()
    assert "`make results`" in app.error[0].value


def test_unexpected_error_is_a_calm_sentence_and_goes_to_the_log(app, monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(Recognizer, "__call__", fail)
    upload(app, "face.png", encode(draw_scene(1, 320, 240)[0]))
    assert "Something went wrong" in app.error[0].value
    assert "secret detail" not in read_page(app)
    assert "secret detail" in caplog.text


def run_guarded(line):
    script = "import streamlit as st\nfrom app.common import guard\nfrom fer_lib.errors import MediaError\n"
    return AppTest.from_string(f"{script}with guard():\n    {line}\nst.write('went on')").run()


def test_guard_shows_file_names_as_they_are_and_goes_on():
    app = run_guarded("raise MediaError('*my* [face](http://a.b)_1_.png: found none; use `make env`')")
    assert app.error[0].value == r"\*my\* \[face\](http://a.b)\_1\_.png: found none; use `make env`"
    assert app.markdown[0].value == "went on"


def test_guard_lets_streamlit_stop_the_page():
    app = run_guarded("st.stop()")
    assert not app.error
    assert not app.markdown


def test_uploads_never_touch_the_disk(app):
    """Streamlit's server parses forms with Starlette, which spools all over 1 MB unless told otherwise."""
    body = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f.png"\r\n\r\n' + bytes(3_000_000)
    messages = iter([{"type": "http.request", "body": body + b"\r\n--x--\r\n", "more_body": False}])

    async def receive():
        return next(messages)

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "headers": headers}

    async def parse():
        return await Request(scope, receive).form()

    file = asyncio.run(parse())["f"].file
    assert file.seek(0, io.SEEK_END) == 3_000_000
    assert not file._rolled


def test_bars_name_every_emotion_the_likeliest_first():
    bars = common.build_bars({"sad": 0.08, "happy": 0.9, "fear": 0.02})
    assert bars.index("happy") < bars.index("90%") < bars.index("sad") < bars.index("fear")
    assert "width: 90.0%" in bars


# Photo


def test_upload_is_described_face_by_face(app, downloads):
    image, _ = draw_scene(2, 800, 500)
    upload(app, "two *faces*.png", encode(image))
    text = read_page(app)
    assert r"two \*faces\*.png: 2 faces" in app.image[0].captions
    assert app.image[0].proto.imgs[0].alt == "two *faces*.png: 2 faces", "no Markdown"
    assert r"**\#1 " in text, "the number that the face has in the image"
    assert r"**\#2 " in text
    assert len(app.html) == 2
    assert all(emotion in app.html[0].value for emotion in Recognizer().emotions)
    table = downloads["two *faces*_emotions.csv"].decode().splitlines()
    assert len(table) == 3
    assert table[0].startswith("source,face,left")
    assert "group" not in table[0].split(","), "in which surprise is positive"
    assert Image.open(io.BytesIO(downloads["two *faces*_emotions.jpg"]())).size == (800, 500)


def test_photograph_of_a_telephone_that_stands_on_its_head_is_read_and_told(app, downloads):
    stream, image = io.BytesIO(), draw_scene(1, 640, 480, seed=1)[0]
    pillow_heif.from_pillow(Image.fromarray(np.ascontiguousarray(np.rot90(image, 2)))).save(stream)
    upload(app, "IMG_0001.heic", stream.getvalue())
    assert "after the image was turned by 180 degrees" in read_page(app)
    assert "IMG\\_0001.heic: 1 face" in app.image[0].captions
    names, values = map(str.split, downloads["IMG_0001_emotions.csv"].decode().splitlines(), ",,")
    assert dict(zip(names, values, strict=True))["turned"] == "180"


def test_face_in_doubt_says_that_it_is_the_way_up():
    (face,) = Recognizer()(draw_scene(1, 320, 240)[0])
    doubtful = replace(face, abstained=True, confidence=0.9)
    assert "Which way up the face is stays in doubt" in photo.describe_face(doubtful, abstain_below=0.5)
    assert "names no emotion below 95" in photo.describe_face(doubtful, abstain_below=0.95)


def test_surprise_is_not_called_positive():
    (face,) = Recognizer()(draw_scene(1, 320, 240)[0])
    assert photo.describe_face(face, 0.0) == "A positive expression."
    surprised = replace(face, label="surprise", group="positive")
    assert photo.describe_face(surprised, 0.0) == "An expression that may be positive or negative."


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.png", b"", "found a file that is none"),
        ("program.jpg", b"MZ\x90\x00" + bytes(500), "found a file that is none"),
        ("cut.png", encode(draw_scene(1, 320, 240)[0])[:3000], "damaged"),
        ("tiny.png", encode(np.zeros((4, 4, 3), np.uint8)), "too small"),
        ("bomb.png", encode(np.zeros((8200, 8200), np.uint8)), "megapixels"),
    ],
    ids=["empty", "renamed", "cut", "tiny", "bomb"],
)
def test_what_is_no_image_gets_a_sentence_and_the_next_upload_works(app, name, content, words):
    upload(app, name, content)
    assert words in app.error[0].value
    assert "An expression is not a feeling." in read_page(app)
    assert not app.image
    upload(app, "face.png", encode(draw_scene(1, 320, 240)[0]))
    assert app.image[0].captions == ["face.png: 1 face"]
    assert not app.error


def test_image_without_a_face_gets_advice_and_is_shown(app, downloads):
    upload(app, "wall.png", encode(np.full((200, 300, 3), 128, np.uint8)))
    assert "No face was found in wall.png. Try" in app.info[0].value
    assert app.image[0].captions == ["wall.png: no faces"]
    assert not downloads


def test_examples_need_no_file_and_say_where_they_come_from(app):
    app.segmented_control[0].set_value("An example").run()
    assert not app.camera_input
    assert "NASA, public domain" in read_page(app)
    for name, (file, _) in image_source.PHOTOGRAPHS.items():
        assert f"`{file}`" in (image_source.EXAMPLES_DIR / "README.md").read_text()
        app.segmented_control[1].set_value(name).run()
        assert app.image[0].captions == [f"{name}: 1 face"]


def test_drawn_example_says_how_many_of_its_faces_are_recognised(app):
    app.segmented_control[0].set_value("An example").run()
    app.segmented_control[1].set_value("Seven drawn people").run()
    example = image_source.load_example("Seven drawn people")
    n_correct = 0
    for face in Recognizer()(example.source):
        nearest = min(example.drawn, key=lambda drawn: np.hypot(*np.subtract(drawn.box, face.box)[:2]))
        n_correct += nearest.emotion == face.label and not face.abstained
    text = read_page(app)
    assert f"Here the chosen model names {n_correct} of 7 expressions correctly" in text
    assert describe_drawn_faces() in text
    assert 0 < n_correct < 7


def test_camera_is_there_only_when_asked_for(app):
    assert not app.camera_input
    app.segmented_control[0].set_value("The camera").run()
    assert len(app.camera_input) == 1
    app.camera_input[0].set_value(("camera.jpg", encode(draw_scene(1)[0], "JPEG"), "image/jpeg")).run()
    assert app.image[0].captions == ["camera.jpg: 1 face"]


def test_image_is_analysed_once_however_often_the_page_runs(app, monkeypatch):
    seen = []
    recognize = Recognizer.recognize
    monkeypatch.setattr(
        Recognizer, "recognize", lambda self, *args: seen.append(self) or recognize(self, *args)
    )
    upload(app, "face.png", encode(draw_scene(1, 320, 240)[0]))
    app.toggle[-1].set_value(True).run()
    assert len(seen) == 1
    upload(app, "face.png", encode(draw_scene(1, 320, 240, seed=1)[0]))
    assert len(seen) == 2, "another image of the same name"


def test_image_is_forgotten_when_it_is_removed(app):
    upload(app, "face.png", encode(draw_scene(1, 320, 240)[0]))
    assert "photo analysis" in app.session_state
    app.file_uploader[0].set_value(None).run()
    assert "photo analysis" not in app.session_state
    assert not app.image


def test_work_is_kept_while_another_page_is_open(app):
    upload(app, "two.png", encode(draw_scene(2, 800, 500)[0]))
    find_toggle(app, "speak for").set_value(True).run()
    app.main.selectbox[0].set_value(1).run()
    app.main.selectbox[1].set_value("disgust").run()
    open_about(app)
    app.switch_page("views/photo.py").run()
    assert not app.file_uploader[0].value, "the browser has forgotten the file"
    assert app.image[0].captions == ["two.png: 2 faces"]
    assert [choice.value for choice in app.main.selectbox] == [1, "disgust"]
    assert app.image[-1].captions == ["What speaks for disgust"]
    next(button for button in app.button if button.label == "Remove").click().run()
    assert not app.image
    assert "photo analysis" not in app.session_state


def test_pasted_image_is_read_like_a_file(app):
    app.chat_input[0].upload("image.png", encode(draw_scene(1, 320, 240)[0]), "image/png").run()
    assert app.image[0].captions == ["image.png: 1 face"]


def test_saliency_map_is_computed_once_and_prepared_after_the_first_answer(app, prepared, monkeypatch):
    seen = []
    original = explain.explain_face
    monkeypatch.setattr(explain, "explain_face", lambda *args: seen.append(args[2]) or original(*args))
    assert not prepared
    upload(app, "face.png", encode(draw_scene(1, 320, 240)[0]))
    assert prepared == [common.load_recognizer(DEFAULT_MODEL)]
    find_toggle(app, "speak for").set_value(True).run()
    app.run()
    assert len(seen) == len(prepared) == 1


def test_saliency_map_is_prepared_anew_for_a_model_that_is_loaded_anew(prepared):
    recognizers = [Recognizer(threads=1), Recognizer(threads=1)]
    for recognizer in (*recognizers, *recognizers):
        saliency.warm_up(recognizer)
        for thread in threading.enumerate():
            if thread.name == "warm up":
                thread.join()
    assert prepared == recognizers, "each once"


@pytest.mark.parametrize("fails", [False, True])
def test_network_of_a_saliency_map_is_built_in_the_background(monkeypatch, fails):
    def fail(*_):
        raise OSError("on purpose")

    monkeypatch.setattr(saliency, "_warm", WeakSet())
    recognizer = Recognizer()
    if fails:
        monkeypatch.setattr(Recognizer, "_load_torch", fail)
    saliency.warm_up(recognizer)
    for thread in threading.enumerate():
        if thread.name == "warm up":
            thread.join()
    assert ("checkpoint" in vars(recognizer)) != fails


def test_blurred_download_shows_no_face_and_the_plain_one_does(app, downloads):
    image, _ = draw_scene(1, 640, 480)
    upload(app, "face.png", encode(image))
    recognizer = Recognizer()
    plain = np.asarray(Image.open(io.BytesIO(downloads["face_emotions.jpg"]())))
    assert len(recognizer(plain)) == 1
    find_toggle(app, "Blur").set_value(True).run()
    blurred = np.asarray(Image.open(io.BytesIO(downloads["face_emotions.jpg"]())))
    assert recognizer(blurred) == []
    assert app.image[-1].captions == ["As it will be downloaded"]


def test_unsure_face_is_explained(app, models):
    edit_release(models, abstain_below=0.999)
    upload(app.run(), "face.png", encode(draw_scene(1, 320, 240)[0]))
    text = read_page(app)
    assert "**unsure" in text
    assert "names no emotion below 100%. Its best guess is " in text


def test_crowd_is_described_in_full_only_when_asked_for(app):
    n_faces = photo.CARDS + 3
    upload(app, "crowd.png", encode(draw_scene(n_faces, 700, 500)[0]))
    assert app.image[0].captions == [f"crowd.png: {n_faces} faces"]
    assert len(app.html) == photo.CARDS
    app.toggle[0].set_value(True).run()
    assert len(app.html) == n_faces


def test_explanation_is_shown_for_the_emotion_that_is_chosen(app):
    upload(app, "two.png", encode(draw_scene(2, 800, 500)[0]))
    n_images = len(app.image)
    find_toggle(app, "speak for").set_value(True).run()
    assert len(app.image) == n_images + 2
    assert not app.error
    face, emotion = app.main.selectbox
    assert face.options[0].startswith("#1 ")
    assert app.image[n_images + 1].captions == [f"What speaks for {emotion.value}"]
    emotion.set_value("disgust").run()
    assert app.image[n_images + 1].captions == ["What speaks for disgust"]


def test_downloaded_image_carries_no_metadata_and_is_large_enough_to_use():
    tall = np.zeros((66_000, 8, 3), np.uint8)
    image = Image.open(io.BytesIO(image_analysis.encode_jpeg(tall)))
    assert image.height == image_analysis.JPEG_SIDE, "more than that is no JPEG"
    assert not image.getexif()


def test_shown_image_is_not_larger_than_a_page():
    assert image_analysis.shrink(np.zeros((4000, 3000, 3), np.uint8), image_analysis.SHOWN_SIDE).shape == (
        1600,
        1200,
        3,
    )
    small = np.zeros((40, 30, 3), np.uint8)
    assert image_analysis.shrink(small, image_analysis.SHOWN_SIDE) is small


# About this model


def test_about_shows_the_scores_of_the_config(app):
    metrics = read_variant()["metrics"]
    text = read_page(open_about(app))
    keys = ("test.majority.accuracy", "test.accuracy", "test.majority.macro.recall")
    for shown, key in zip(app.metric, keys, strict=False):
        assert shown.value == f"{metrics[key]:.1%}"
        assert shown.delta.split() == f"[{metrics[f'{key}_lo']:.1%}, {metrics[f'{key}_hi']:.1%}]".split()
    assert f"answers {metrics['val.coverage']:.0%} (coverage)" in text
    assert app.metric[3].value == f"{metrics['test.majority.ece']:.3f}"
    assert RESPONSIBLE_USE in text
    assert "Nothing is written" in text
    assert app.expander[0].label == "The whole model card"
    tables = [table.value.to_numpy() for table in app.dataframe]
    assert ["disgust", "negative"] in [list(row[:2]) for table in tables for row in table]
    assert app.code[0].value.startswith("from fer_lib import"), "of the card"
    assert "What they score" in text


def test_about_a_model_without_card_and_test_scores(app, models):
    config = {"metrics": {"val.accuracy": 0.8397, "val.loss": 0.25}, "abstain_below": 0.0}
    write_model(models / "demo" / "baseline", **config)
    open_about(app).selectbox(key="model").set_value("demo/baseline").run()
    text = read_page(app)
    assert [metric.label for metric in app.metric] == ["Size", "Time for a face"]
    assert not app.expander
    assert "84.0%" in text
    assert "no threshold was set" in text
    assert "no card" in text


def test_trust_is_told_by_the_numbers():
    metrics = {
        "test.accuracy": 0.7,
        "test.accuracy_lo": 0.6,
        "test.accuracy_hi": 0.8,
        "test.n_images": 1234,
        "test.recall.happy": 0.9,
        "test.recall.sad": 0.2,
        "test.ece": 0.051,
        "test.mean_confidence": 0.8,
        "val.coverage": 0.75,
        "val.accuracy_answered": 0.85,
        "val.accuracy_abstained": 0.4,
    }
    emotions = ["happy", "sad", "neutral"]
    sentences = describe_trust({"metrics": metrics, "emotions": emotions, "abstain_below": 0.5})
    text = "\n".join(sentences).replace("\N{NO-BREAK SPACE}", " ")
    assert "accuracy on the 1,234 test images is 70.0% [60.0%, 80.0%];" in text
    assert "is highest for happy, 90.0%, and lowest for sad, 20.0%." in text
    assert "off by 5.1 percentage points on average (calibration error); on the whole it is more sure" in text
    assert "Below a confidence of 50%" in text
    assert "answers 75% (coverage), with an accuracy of 85%" in text
    assert "correct for 40%" in text


def test_trust_in_a_model_for_photographs_is_judged_by_annotators():
    metrics = {
        **{"test.accuracy": 0.6, "test.ece": 0.2, "test.recall.happy": 0.2, "test.recall.sad": 0.9},
        **{"test.majority.accuracy": 0.8, "test.majority.ece": 0.01, "test.majority.mean_confidence": 0.79},
        **{"test.majority.recall.happy": 0.9, "test.majority.recall.sad": 0.3},
    }
    emotions = ["happy", "sad"]
    text = "\n".join(describe_trust({"metrics": metrics, "emotions": emotions, "judged_by": "majority"}))
    assert "is highest for happy, 90.0%, and lowest for sad, 30.0%." in text
    assert "off by 1.0 percentage points on average (calibration error); on the whole it is less sure" in text


def test_nothing_is_claimed_that_the_config_does_not_say():
    bare = {"architecture": "x", "emotions": ["happy", "sad"], "preprocessing": {"image_size": 32}}
    assert list_scores(bare) == []
    assert "says nothing" in describe_trust(bare)[0]
    assert list_facts(bare) == {"Architecture": "x", "Emotions": "happy, sad", "Input": "32 pixels a side"}


def test_card_fits_the_page(tmp_path):
    card = "---\nlicense: mit\n---\n\n# name\n\nA ![plot](figures/a.png), [file](config.json), [law](https://example.org/a).\n\n"
    code = "```python\nfaces[0](1)  # ![x](y)\n```\n\n"
    (tmp_path / "README.md").write_text(card + code + "## What it scores\n")
    shown = read_card(tmp_path)
    assert "A plot, file, [law](https://example.org/a)." in shown
    assert code.strip() in shown
    assert shown.endswith("### What it scores")
    assert "#### " not in shown
    assert shown.startswith("A plot"), "without metadata and name"
    assert read_card(tmp_path / "nowhere") == ""


def test_card_of_the_release_needs_no_file_beside_it():
    shown = read_card(RELEASE_DIR / DEFAULT_MODEL)
    assert "What they are for" in shown
    assert "![" not in shown


def test_variant_is_chosen_where_a_model_has_several_and_says_what_it_costs(app, models):
    folder = models / "release" / DEFAULT_MODEL
    (variant,) = app.run().sidebar.radio
    assert variant.options == list(list_variants(read_config(folder)))
    assert variant.options == ["accurate", "float", "balanced", "tiny"]
    assert variant.value == "balanced"
    assert "0.9 MB" in str(variant.proto.captions)
    variant.set_value("tiny").run()
    assert not app.exception
    assert common.load_recognizer(DEFAULT_MODEL, "tiny").variant == "tiny"
    write_model(models / "demo" / "baseline")
    app.run().selectbox(key="model").set_value("demo/baseline").run()
    assert not app.sidebar.radio  # one variant alone is no choice


def test_about_describes_the_chosen_variant(app):
    variants = list_variants(read_config(RELEASE_DIR / DEFAULT_MODEL))
    for name, words in {"tiny": "face ResNet, tiny in int8", "accurate": "A soft vote of float, b"}.items():
        open_about(app).sidebar.radio[0].set_value(name).run()
        text = read_page(app)
        assert f"**{DEFAULT_MODEL}, {name}.** " in text
        assert words in text
        assert f"confidence of {variants[name]['abstain_below']:.0%}" in text
        shown = {metric.label: metric.value for metric in app.metric}
        assert shown["Size"] == f"{variants[name]['bytes'] / 1e6:.1f} MB"
        assert shown["Time for a face"] == f"{variants[name]['milliseconds']:.1f} ms"
        assert shown["Accuracy by labels"] == f"{variants[name]['metrics']['test.accuracy']:.1%}"
        assert ("saliency map)" in text) == (name == "tiny"), "a vote has none"
        assert ("votes (70%)" in text) == (name == "tiny")


def test_saliency_is_offered_only_where_there_is_a_map(app):
    upload(app.run(), "face.png", encode(draw_scene(1, 320, 240)[0]))
    assert "Why this answer?" in read_page(app)
    app.sidebar.radio[0].set_value("accurate").run()
    assert not any("parts of a face" in toggle.label for toggle in app.toggle)
    assert "Why this answer?" not in read_page(app)


def test_accuracy_on_drawn_faces_is_that_of_the_table_or_none(monkeypatch, tmp_path):
    table = read_metrics(get_output_dirs("demo", paths.ROOT), "robustness")
    shown = f"is right about {table.interval('external.accuracy'):.1%} of drawn faces."
    assert shown in describe_drawn_faces()
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert describe_drawn_faces() == "These faces are drawn; the released model learned from photographs."


def test_privacy_is_told_with_the_figures_of_the_models_own_data_alone():
    attacks = Metrics("privacy", {"network": "student"}, {"data": "a"})
    for metric in ("membership.auroc", "inversion.train", "inversion.unseen"):
        attacks.add(metric, Interval(0.55, 0.53, 0.57))
    sentences = describe_privacy({"data_hash": "a", "network": "student.float32"}, attacks)
    assert len(sentences) == 2
    assert all("0.55 [0.53, 0.57]" in sentence.replace("\N{NO-BREAK SPACE}", " ") for sentence in sentences)
    assert "Membership inference" in sentences[0]
    assert describe_privacy({"data_hash": "b", "network": "student.float32"}, attacks) == []
    of_other = describe_privacy({"data_hash": "a", "network": "tiny.int8"}, attacks)
    assert "`student`, another network" in of_other[0]
    assert of_other[1:] == sentences
    assert describe_privacy({"data_hash": "a", "network": "student.float32"}, Metrics("privacy")) == []
