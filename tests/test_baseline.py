import json
import shutil
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from conftest import REPO, run_fer_lib
from PIL import Image

from demo_faces.clips import draw_scene
from fer_lib.errors import MediaError, ModelError
from fer_lib.inference.baseline import Baseline
from fer_lib.inference.recognizer import Recognizer
from fer_lib.labels import EMOTIONS_7

RELEASE = REPO / "models" / "release" / "photographs"
EMOTIONS = ("angry", "happy", "neutral")


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer(RELEASE, threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with `happy.png`, a poor resting face, `two.png`, `none.png` and `clip.mp4`."""
    folder = tmp_path_factory.mktemp("rest")
    for name, n_faces in (("happy", 1), ("two", 2), ("none", 0)):
        Image.fromarray(draw_scene(n_faces, 320, 240)[0]).save(folder / f"{name}.png")
    with av.open(folder / "clip.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(12):  # one face that does not move: whatever changes is the baseline's doing
            frame = av.VideoFrame.from_ndarray(draw_scene(1, 320, 240)[0], format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return folder


@pytest.fixture(scope="module")
def without_neutral(tmp_path_factory):
    """Return a copy of the release in which the class neutral has another name."""
    copy = Path(shutil.copytree(RELEASE, tmp_path_factory.mktemp("models") / "model"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "emotions": [*EMOTIONS_7[:-1], "contempt"]}))
    return copy


def read_rows(table):
    return pd.read_csv(table)[list(EMOTIONS_7)].to_numpy()


def test_neutral_is_twice_as_likely_at_rest_as_any_emotion():
    baseline = Baseline.from_probabilities(np.array([[0.6, 0.1, 0.3]]), EMOTIONS)
    assert baseline.weights == pytest.approx((0.25, 1, 1))  # twice as likely as neutral, to be half
    np.testing.assert_allclose(baseline.apply(np.array([0.6, 0.1, 0.3])), np.array([0.15, 0.1, 0.3]) / 0.55)
    # 0.2, 0.1 and 0.1, of 0.4
    np.testing.assert_allclose(baseline.apply(np.array([0.8, 0.1, 0.1])), [0.5, 0.25, 0.25])


def test_a_face_that_is_neutral_at_rest_changes_nothing():
    baseline = Baseline.from_probabilities(np.array([[0.3, 0.1, 0.6]]), EMOTIONS)
    row = np.array([0.5, 0.2, 0.3])
    np.testing.assert_allclose(baseline.apply(row), row)


def test_several_images_at_rest_count_by_their_mean_log_probability():
    rows = np.array([[0.8, 0.1, 0.1], [0.2, 0.4, 0.4]])
    # angry over neutral: 8 and 1 / 2, whose geometric mean is 2; happy is as likely as neutral
    assert Baseline.from_probabilities(rows, EMOTIONS).weights == pytest.approx((0.25, 0.5, 1))


def test_a_probability_of_zero_stays_finite():
    baseline = Baseline.from_probabilities(np.array([[1.0, 0.0, 0.0]]), EMOTIONS)
    row = baseline.apply(np.array([0.5, 0.25, 0.25]))
    assert np.isfinite(row).all()
    assert row.sum() == pytest.approx(1)


def test_faces_are_described_against_the_baseline(recognizer, folder):
    baseline = Baseline(tuple(1e-4 if name == "happy" else 1.0 for name in recognizer.emotions))
    (plain,) = recognizer(folder / "happy.png")
    (face,) = recognizer(folder / "happy.png", baseline=baseline)
    expected = baseline.apply(np.array([*plain.probabilities.values()]))
    np.testing.assert_allclose([*face.probabilities.values()], expected)
    assert plain.label == "happy" != face.label == recognizer.emotions[expected.argmax()]
    assert face.confidence == expected.max()
    assert face.abstained == (face.confidence < recognizer.abstain_below)


def test_a_photograph_gives_the_baseline_of_its_face(recognizer, folder):
    (face,) = recognizer(folder / "happy.png")
    lead = face.probabilities["happy"] / face.probabilities["neutral"]
    assert lead > 0.5
    baseline = Baseline.from_image(recognizer, folder / "happy.png")
    weights = dict(zip(recognizer.emotions, baseline.weights, strict=True))
    assert weights["happy"] == pytest.approx(1 / (2 * lead))
    assert weights["neutral"] == 1


@pytest.mark.parametrize(("name", "found"), [("two", "2"), ("none", "none")])
def test_a_photograph_of_no_one_person_is_told(recognizer, folder, name, found):
    with pytest.raises(MediaError, match=f"{name}.png: expected one face at rest, found {found}; cut"):
        Baseline.from_image(recognizer, folder / f"{name}.png")
    with pytest.raises(MediaError, match=r"^the neutral photograph: expected one face"):
        Baseline.from_image(recognizer, draw_scene(2)[0])


def test_a_model_that_does_not_know_neutral_is_told(without_neutral, folder):
    with pytest.raises(ModelError, match=r"^neutral: expected a model with the class neutral, found angry, "):
        Baseline.from_image(Recognizer(without_neutral), folder / "happy.png")


def test_predict_sees_each_face_against_the_photograph(recognizer, folder):
    done = run_fer_lib(REPO, "predict", folder / "two.png", "--json", "--neutral", folder / "happy.png")
    seen = json.loads(done.stdout)[0]["faces"]
    baseline = Baseline.from_image(recognizer, folder / "happy.png")
    for before, after in zip(recognizer(folder / "two.png"), seen, strict=True):
        expected = baseline.apply(np.array([*before.probabilities.values()]))
        np.testing.assert_allclose([*after["probabilities"].values()], expected, atol=1e-3)


def test_commands_tell_in_one_line_what_is_wrong_with_the_photograph(folder, without_neutral, tmp_path):
    table = tmp_path / "faces.csv"
    for command in (("predict", folder / "happy.png"), ("video", folder / "clip.mp4", "--table", table)):
        for more, message in (
            (("--neutral", folder / "two.png"), f"error: {folder / 'two.png'}: expected one face at rest"),
            (("--neutral", folder / "gone.png"), f"error: {folder / 'gone.png'}: "),
            (("--neutral", folder / "happy.png", "--model", without_neutral), "error: neutral: expected"),
        ):
            done = run_fer_lib(REPO, *command, *more)
            assert done.returncode == 1
            assert done.stderr.splitlines()[-1].startswith(message)
            assert done.stderr.count("\n") == 1
    done = run_fer_lib(REPO, *command, "--neutral-seconds", "1", "--model", without_neutral)
    assert done.stderr.startswith("error: neutral: expected")
    done = run_fer_lib(REPO, *command, "--neutral-seconds", "1", "--neutral", folder / "happy.png")
    assert done.returncode == 2
    assert "found both" in done.stderr
    assert not table.exists()


def test_video_is_seen_against_a_photograph_or_against_its_own_first_seconds(folder, tmp_path):
    tables = {}
    for name, more in (
        ("plain", ()),
        ("photograph", ("--neutral", folder / "happy.png")),
        ("seconds", ("--neutral-seconds", "0.45")),
    ):
        done = run_fer_lib(REPO, "video", folder / "clip.mp4", "--table", tmp_path / f"{name}.csv", *more)
        assert done.returncode == 0, done.stderr
        tables[name] = read_rows(tmp_path / f"{name}.csv")
    happy, neutral = EMOTIONS_7.index("happy"), EMOTIONS_7.index("neutral")
    plain = tables["plain"]
    assert len(plain) == 12
    assert (plain.argmax(axis=1) == happy).all()
    np.testing.assert_array_equal(tables["seconds"][:5], plain[:5])  # 0 to 0.4 s are taken for rest
    # From then on the face looks as it does at rest, where neutral is twice as likely.
    later = tables["seconds"][5:]
    np.testing.assert_allclose(later[:, neutral] / later[:, happy], 2, rtol=0.3)
    photograph = tables["photograph"]  # in which landmarks are found more closely than in a video
    assert (photograph[:, neutral] > photograph[:, happy]).all()
