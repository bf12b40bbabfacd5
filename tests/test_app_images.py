"""The app's page Compare, and many images at once on the page Photo."""

import io
import json
import struct
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pillow_heif
import pytest
from app_harness import collect_downloads, open_page, read_page
from PIL import Image

from app import common, gallery, many_images, model_comparison, saliency
from app.image_source import EXAMPLES_DIR
from app.many_images import Batch, build_archive, build_table, limit_files, list_entries
from app.model_comparison import describe_agreement, describe_difference, has_saliency_map
from demo_faces.clips import draw_scene
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.registry import DEFAULT_MODEL, RELEASE_DIR, list_variants
from fer_lib.models.checkpoints import read_config

PHOTOGRAPH = (EXAMPLES_DIR / "astronaut.jpg").read_bytes()
WALL = np.full((120, 160, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer(threads=1)


@pytest.fixture(autouse=True)
def _no_preparation(monkeypatch):
    monkeypatch.setattr(saliency, "_build_network", lambda recognizer: None)


@pytest.fixture
def downloads(monkeypatch):
    return collect_downloads(monkeypatch, gallery)


def read_without_errors(app):
    assert not app.error
    return read_page(app)


def encode(pixels, kind="PNG"):
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    pillow_heif.from_pillow(image).save(out) if kind == "HEIC" else image.save(out, kind)
    return out.getvalue()


def pack(files, compression=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def bring(files):
    """Return what `list_entries` makes of uploads, name to content."""
    return list_entries([SimpleNamespace(name=name, getvalue=lambda it=it: it) for name, it in files.items()])


def run(files, recognizer):
    batch = Batch(*bring(files))
    while not batch.is_done:
        batch.analyse_next(recognizer)
    return batch


# Many images


def test_damaged_files_are_lines_and_do_not_stop_the_others(recognizer):
    archive = pack(
        {
            "album/face.jpg": PHOTOGRAPH,
            "album/cut.jpg": PHOTOGRAPH[:2000],
            "__MACOSX/album/._face.jpg": b"x",
            "notes.txt": b"x",
            "../../up.jpg": PHOTOGRAPH,
        }
    )
    files = {
        "a.zip": archive,
        "no.zip": b"no archive",
        "wall.png": encode(WALL),
        "empty.png": b"",
        "photo.heic": encode(np.asarray(Image.open(io.BytesIO(PHOTOGRAPH))), "HEIC"),
        "photo.avif": encode(np.asarray(Image.open(io.BytesIO(PHOTOGRAPH))), "AVIF"),
    }
    batch = run(files, recognizer)
    found = {result.entry.name: result.answers for result in batch.results}
    assert found == {
        "album/face.jpg": ["happy"],
        "../../up.jpg": ["happy"],
        "wall.png": ["no face"],
        "photo.heic": ["happy"],
        "photo.avif": ["happy"],
    }
    reasons = {problem.file: problem.reason for problem in batch.problems}
    assert sorted(reasons) == ["a.zip", "album/cut.jpg", "empty.png", "no.zip"]
    assert reasons["a.zip"] == "no images by their names: 1 (.txt: 1)"
    assert "damaged" in reasons["album/cut.jpg"]
    table = build_table(batch.results)
    assert table["source"].tolist() == ["album/face.jpg", "../../up.jpg", "photo.heic", "photo.avif"]
    handed_out = zipfile.ZipFile(io.BytesIO(build_archive(batch.results, blur=False)))
    assert not any("/" in name or "\\" in name for name in handed_out.namelist())
    first = np.asarray(Image.open(handed_out.open("001_face_emotions.jpg")))
    assert len(recognizer(first)) == 1
    blurred = zipfile.ZipFile(io.BytesIO(build_archive(batch.results[:1], blur=True)))
    assert recognizer(np.asarray(Image.open(blurred.open("001_face_emotions.jpg")))) == []


def test_unexpected_error_in_an_image_is_a_line_and_does_not_stop_the_others(recognizer, monkeypatch, caplog):
    def fail_once(*args):
        monkeypatch.undo()
        raise RuntimeError("on purpose")

    monkeypatch.setattr(many_images, "analyse", fail_once)
    batch = run({"a.jpg": PHOTOGRAPH, "b.jpg": PHOTOGRAPH}, recognizer)
    assert [result.entry.name for result in batch.results] == ["b.jpg"]
    [problem] = batch.problems
    assert (problem.file, problem.reason) == ("a.jpg", many_images.UNEXPECTED)
    assert "on purpose" in caplog.text, "the trace is in the log"


def test_what_is_kept_of_an_image_is_small(recognizer):
    large = np.asarray(Image.open(io.BytesIO(PHOTOGRAPH)).resize((3000, 3000)))
    (result,) = run({"large.jpg": encode(large, "JPEG")}, recognizer).results
    assert max(Image.open(io.BytesIO(result.thumbnail)).size) == many_images.THUMBNAIL_SIDE
    assert len(result.thumbnail) + sum(face.crop.nbytes for face in result.faces) < 100_000


def hide_size(archive):
    """Return an archive whose list of files says that it is a gigabyte long."""
    end = archive.rfind(b"PK\5\6")
    return archive[: end + 12] + struct.pack("<I", 10**9) + archive[end + 16 :]


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (pack({f"{i}.png": bytes(600_000_000) for i in range(2)}), "unpacks to 1.2 GB"),
        (hide_size(pack({"a.png": b"x"})), "lists too many files"),
        (
            pack({f"{'d' * 200}/{i}.txt": b"" for i in range(17_000)}, zipfile.ZIP_STORED),
            "lists too many files",
        ),
        (pack({"a.png": b"x"})[:-30], "none or is damaged"),
        (b"", "none or is damaged"),
    ],
    ids=["bomb", "forged list", "long list", "cut", "empty"],
)
def test_archive_over_a_bound_is_refused_before_it_is_unpacked(archive, words, monkeypatch):
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    entries, (problem,) = bring({"a.zip": archive})
    assert not entries
    assert words in problem.reason


def test_files_in_an_archive_that_cannot_be_read_are_told(recognizer):
    locked = bytearray(pack({"a.png": b"x"}))
    locked[locked.rfind(b"PK\1\2") + 8] |= 1  # encrypted, as the list of files says
    stored = pack({"a.png": encode(WALL)}, zipfile.ZIP_STORED)
    spoilt = stored.replace(b"IDAT", b"IDAX")  # the checksum does not fit
    large = pack({"a.png": bytes(60_000_000)})
    nested = pack({"a.zip": stored})
    batch = run({"locked.zip": bytes(locked), "spoilt.zip": spoilt, "large.zip": large}, recognizer)
    reasons = [problem.reason for problem in batch.problems]
    assert ["password" in reasons[0], "unpacked" in reasons[1], "at most 50 MB" in reasons[2]] == [True] * 3
    entries, (problem,) = bring({"nested.zip": nested})
    assert not entries
    assert ".zip: 1" in problem.reason


def test_no_more_images_are_taken_than_are_analysed_at_once(monkeypatch):
    monkeypatch.setattr(many_images, "MAX_IMAGES", 2)
    entries, (problem,) = bring({f"{i}.png": b"x" for i in range(5)})
    assert len(entries) == 2
    assert problem.file == "3 images more"


def test_files_over_the_bounds_are_not_kept_and_told(monkeypatch):
    megabytes = {"a.png": 300, "b.png": 300, "c.png": 100, "d.png": 1}
    files = [SimpleNamespace(name=name, size=size * 10**6) for name, size in megabytes.items()]
    monkeypatch.setattr(many_images, "MAX_IMAGES", 2)
    kept, problems = limit_files(files)
    assert [file.name for file in kept] == ["a.png", "c.png"]
    assert [problem.file for problem in problems] == ["b.png", "d.png"]
    assert "500 MB in all" in problems[0].reason


def open_many(files):
    app = open_page("photo")
    app.segmented_control[0].set_value("Many files").run()
    app.file_uploader[0].set_value([(name, it, "image/png") for name, it in files.items()]).run()
    return app


def find_button(app, label):
    return next(button for button in app.button if label in button.label)


def test_many_files_are_analysed_filtered_kept_and_handed_out(downloads, monkeypatch):
    analysed = []
    original = Batch.analyse_next
    monkeypatch.setattr(
        Batch, "analyse_next", lambda self, *args: analysed.append(self.n_done) or original(self, *args)
    )
    files = {"face.jpg": PHOTOGRAPH, "wall.png": encode(WALL), "cut.png": encode(WALL)[:50]}
    app = open_many(files)
    assert not analysed, "not before the button is pressed"
    find_button(app, "Analyse 3 images").click().run()
    assert [metric.value for metric in app.metric] == ["2", "1", "0", "1"]
    assert "face.jpg: happy" in [caption for image in app.image for caption in image.captions]
    assert app.dataframe[0].value["File"].tolist() == ["cut.png"]
    app.pills[0].set_value(["no face"]).run()
    assert [image.captions for image in app.image] == [["wall.png: no face"]]
    table = pd.read_csv(io.BytesIO(downloads["faces.csv"]))
    assert table["label"].tolist() == ["happy"]
    assert "group" not in table, "in which surprise is positive"
    assert "group" not in json.loads(downloads["faces.json"])[0]
    assert json.loads(downloads["faces.json"])[0]["source"] == "face.jpg"
    assert pd.read_parquet(io.BytesIO(downloads["faces.parquet"]())).equals(table)
    assert len(zipfile.ZipFile(io.BytesIO(downloads["images_emotions.zip"]())).namelist()) == 2
    app.switch_page("views/about.py").run()
    app.switch_page("views/photo.py").run()
    assert [image.captions for image in app.image] == [["wall.png: no face"]]
    assert analysed == [0, 1, 2], "kept, not analysed again"
    app.sidebar.radio[0].set_value("tiny").run()
    assert not app.metric, "another model gives other results"
    assert find_button(app, "Analyse 3 images")
    find_button(app, "Remove").click().run()
    assert [button.label for button in app.button] == []
    assert gallery.FILES not in app.session_state
    assert gallery.BATCH not in app.session_state, "the results hold the files as well"


def test_analysis_of_many_files_stops_and_goes_on(monkeypatch):
    original = Batch.analyse_next

    def analyse_two(batch, recognizer):
        original(batch, recognizer)
        batch.is_stopped = batch.n_done == 2  # as the button does, which a test cannot press meanwhile
        if batch.is_stopped:
            import streamlit as st

            st.stop()

    monkeypatch.setattr(Batch, "analyse_next", analyse_two)
    app = open_many({f"{i}.png": encode(WALL) for i in range(3)})
    find_button(app, "Analyse 3").click().run()
    app.run()
    assert "Stopped after 2 of 3 images." in read_without_errors(app)
    assert app.metric[0].value == "2"
    find_button(app, "Go on").click().run()
    assert app.metric[0].value == "3"


# Compare


def test_models_are_asked_about_the_same_face(recognizer):
    app = open_page("compare")
    text = read_without_errors(app)
    released = [folder.parent for folder in RELEASE_DIR.glob("[!.]*/config.json")]
    n_variants = sum(len(list_variants(read_config(folder))) for folder in released)
    assert f"All {n_variants} answer happy." in text
    assert f"**{DEFAULT_MODEL}, tiny (released)**" in text
    assert len(app.html) == n_variants
    n_images = len(app.image)
    app.pills[0].set_value([f"{DEFAULT_MODEL}, {name} (released)" for name in ("tiny", "accurate")]).run()
    next(toggle for toggle in app.toggle if "speaks for" in toggle.label).set_value(True).run()
    assert len(app.image) == n_images + 1, "the vote has no saliency map"
    assert "There is no saliency map of this model." in read_without_errors(app)
    app.switch_page("views/about.py").run()
    app.switch_page("views/compare.py").run()
    assert len(app.html) == 2
    assert len(app.image) == n_images + 1


def test_saliency_is_offered_only_where_a_chosen_model_has_a_map():
    app = open_page("compare")
    offered = {}
    for names in (("accurate",), ("accurate", "tiny"), ()):
        app.pills[0].set_value([f"{DEFAULT_MODEL}, {name} (released)" for name in names]).run()
        offered[names] = any("speaks for" in toggle.label for toggle in app.toggle)
    assert offered == {("accurate",): False, ("accurate", "tiny"): True, (): False}
    read_without_errors(app)


def test_saliency_map_is_foretold_as_the_loaded_model_tells_it(monkeypatch):
    for variant in list_variants(read_config(RELEASE_DIR / DEFAULT_MODEL)):
        why = Recognizer(variant=variant, threads=1).why_unexplained
        assert has_saliency_map(DEFAULT_MODEL, variant) == (not why)
    monkeypatch.setattr(model_comparison, "find_spec", lambda name: None)
    assert not has_saliency_map(DEFAULT_MODEL, "tiny"), "PyTorch computes it"


def test_image_of_the_page_photo_is_compared():
    app = open_page("photo")
    app.file_uploader[0].upload("two.png", encode(draw_scene(2, 800, 500)[0])).run()
    app.switch_page("views/compare.py").run()
    assert app.image[0].captions == ["two.png"]
    assert app.main.selectbox[0].options[0].startswith("#1 ")


def test_two_images_are_shown_side_by_side():
    app = open_page("compare")
    app.segmented_control[0].set_value("Two images").run()
    assert [image.captions for image in app.image] == [["Eileen Collins"], ["Grace Hopper"]]
    assert "They differ most in happy: 100% in the first image, 0% in the second." in read_without_errors(app)


def test_threshold_says_what_it_costs_and_brings():
    app = open_page("compare")
    app.segmented_control[0].set_value("Thresholds").run()
    config = read_config(RELEASE_DIR / DEFAULT_MODEL)
    entry = list_variants(config)[config["default"]]
    (slider,) = app.select_slider
    assert slider.value == entry["abstain_below"]
    metrics = entry["metrics"]
    shown = [f"{metrics[key]:.1%}" for key in ("val.coverage", "val.accuracy_answered")]
    assert [metric.value for metric in app.metric] == shown
    slider.set_value(0.9).run()
    point = entry["abstention"]["threshold"].index(0.9)
    n_answered = round(1000 * entry["abstention"]["coverage"][point])
    assert f"Of 1,000 faces it names an emotion in {n_answered}," in read_without_errors(app)
    assert [metric.delta[0] for metric in app.metric] == ["-", "+"]


def test_model_that_was_not_released_has_no_thresholds_to_compare(monkeypatch):
    config = list_variants(read_config(RELEASE_DIR / DEFAULT_MODEL))["float"]
    del config["abstention"]
    recognizer = SimpleNamespace(config=config, variant="float", folder=RELEASE_DIR / DEFAULT_MODEL)
    monkeypatch.setattr(common, "choose_model", lambda: recognizer)
    app = open_page("compare")
    app.segmented_control[0].set_value("Thresholds").run()
    assert "measured when a model is released" in read_without_errors(app)


def test_sentences_count_models_and_name_the_largest_difference(recognizer):
    (face,) = recognizer(Image.open(io.BytesIO(PHOTOGRAPH)))
    (other,) = recognizer((EXAMPLES_DIR / "grace_hopper.jpg").read_bytes())
    assert describe_agreement([face]) == "It answers happy."
    assert describe_agreement([face, other, face]) == "Of 3 models, 2 answer happy and 1 answers neutral."
    assert describe_difference(face, other).startswith("They differ most in happy: 100")
