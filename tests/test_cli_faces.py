import csv
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import REPO, run_fer_lib
from PIL import Image

from demo_faces.clips import draw_clip, draw_scene
from fer_lib.cli import faces, videos
from fer_lib.cli import main as cli
from fer_lib.data.image_files import expand_paths
from fer_lib.labels import EMOTIONS_7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with images of two, one and no faces, and two files that are none."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "deep").mkdir()
    for name, n_faces in (("a.png", 2), ("deep/b.jpg", 1), ("c.png", 0)):
        Image.fromarray(draw_scene(n_faces)[0]).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    (folder / "notes.txt").write_text("no image")
    return folder


def run(capsys, *arguments):
    status = cli.main(list(map(str, arguments)))
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def expand(arguments):
    return list(expand_paths(arguments, {}))


def test_folder_globs_and_files_are_listed_once_in_order(folder):
    found = expand([f"{folder}/deep/*.jpg", str(folder), str(folder / "notes.txt"), "gone.png"])
    names = [os.path.relpath(path, folder) if os.path.isabs(path) else path for path in found]
    assert names == ["deep/b.jpg", "a.png", "broken.jpg", "c.png", "notes.txt", "gone.png"]


def test_folder_that_links_to_itself_ends(tmp_path):
    (tmp_path / "again").symlink_to(tmp_path)
    shutil.copy(REPO / "app/examples/astronaut.jpg", tmp_path / "one.jpg")
    assert expand([str(tmp_path)]) == [str(tmp_path / "one.jpg")]


def test_globs_with_links_in_a_circle_end_and_reach_subfolders(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "all")
    for name in ("one", "two"):  # followed, two links back would take for ever
        (tmp_path / "all" / "deep" / name).symlink_to(tmp_path / "all")
    for glob, expected in (
        ("all/**/*.jpg", {"broken.jpg", "deep/b.jpg"}),
        ("all/**", set()),
        ("a*/[ab].*", {"a.png"}),
        ("al?", {"a.png", "broken.jpg", "c.png", "deep/b.jpg"}),
    ):
        found = expand([str(tmp_path / glob)])
        images = {os.path.relpath(path, tmp_path / "all") for path in found if "*" not in path}
        assert images == expected
        assert expected or found == [str(tmp_path / glob)]  # reading it says that there is nothing


def test_many_images_are_recommended_another_command(folder, capsys, monkeypatch):
    monkeypatch.setattr(faces, "MANY_IMAGES", 2)
    _, _, told = run(capsys, "predict", folder / "a.png", folder / "c.png")
    assert told == "2 images: `fer score` uses every core, and resumes where it was interrupted\n"
    assert run(capsys, "predict", folder / "a.png")[2] == ""


def test_hidden_files_and_pipes_in_a_folder_are_left_out(folder, tmp_path):
    (tmp_path / ".thumbnails").mkdir()
    for name in ("a.png", "._a.png", ".thumbnails/a.png", "we[ir]d.png"):
        shutil.copy(folder / "a.png", tmp_path / name)
    os.mkfifo(tmp_path / "endless.png")
    weird = str(tmp_path / "we[ir]d.png")
    assert expand([str(tmp_path)]) == [str(tmp_path / "a.png"), weird]
    assert expand([weird]) == [weird]
    (tmp_path / "endless.png").unlink()
    assert expand([str(tmp_path / "*")]) == [str(tmp_path / "a.png"), weird]
    assert expand([str(tmp_path / ".*")]) == [
        str(tmp_path / "._a.png"),
        str(tmp_path / ".thumbnails" / "a.png"),
    ]


def test_folder_that_may_not_be_read_is_told(folder, monkeypatch, capsys):
    scan = os.scandir

    def refuse(path):
        if os.path.basename(path) == "deep":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    status, out, err = run(capsys, "predict", folder)
    assert status == 1
    assert "a.png: 2 faces" in out
    assert f"error: {folder / 'deep'}: expected image files in the folder, found none" in err


def test_reader_that_has_enough_ends_the_batch_quietly(folder):
    command = f"{sys.executable} -m fer_lib predict {folder}/a.png {folder}/c.png | true"
    done = subprocess.run(command, shell=True, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "-x", ".hidden"])
def test_release_takes_no_name_that_leads_elsewhere(name, capsys):
    assert cli.main(["release", "demo", "--", name]) == 1
    assert "expected a name of letters" in capsys.readouterr().err


def test_batch_goes_on_after_a_problem_and_exit_status_tells(folder, capsys):
    status, out, err = run(capsys, "predict", folder)
    assert status == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 2
    assert "broken.jpg" in err
    assert err.endswith("\npassed over 1 (.txt: 1)\n")
    assert f"{folder / 'a.png'}: 2 faces found" in out
    assert f"{folder / 'c.png'}: no faces found" in out
    assert f"{folder / 'deep/b.jpg'}: 1 face found" in out


def test_json_and_csv_say_the_same(folder, capsys):
    status, out, _ = run(capsys, "predict", folder / "a.png", folder / "c.png", "--json")
    assert status == 0
    first, last = json.loads(out)
    assert len(first["faces"]) == 2
    assert last["faces"] == []
    _, out, _ = run(capsys, "predict", folder / "a.png", folder / "c.png", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["label"] for row in rows] == [face["label"] for face in first["faces"]]
    for row, face in zip(rows, first["faces"], strict=True):
        assert [int(row[name]) for name in ("left", "top", "width", "height")] == face["box"]
        assert {name: float(row[name]) for name in face["probabilities"]} == face["probabilities"]


def test_image_comes_from_stdin_without_torch_or_pandas(folder):
    code = (
        "import sys; from fer_lib.cli.main import main; status = main(['predict', '-', '--json']); "
        "assert not {'torch', 'pandas', 'matplotlib'} & sys.modules.keys(); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=(folder / "a.png").read_bytes(), capture_output=True, cwd=REPO
    )
    assert done.returncode == 0, done.stderr.decode()
    assert len(json.loads(done.stdout)[0]["faces"]) == 2


def test_usage_and_model_errors(tmp_path):
    assert run_fer_lib(REPO, "predict").returncode == 2
    done = run_fer_lib(REPO, "predict", "x.png", "--model", "nope")
    assert done.returncode == 1
    assert done.stderr.startswith("error: nope: expected")
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    import av

    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for image in draw_clip(12, 1, 320, 240):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_video_writes_video_and_table(clip, tmp_path, capsys):
    status, out, _ = run(capsys, "video", clip, "--out", tmp_path / "o.mp4", "--table", tmp_path / "o.csv")
    assert status == 0
    assert "12 frames, 1 face" in out
    table = pd.read_csv(tmp_path / "o.csv")
    assert len(table) == 12
    assert set(table["track"]) == {1}
    np.testing.assert_allclose(table.iloc[:, -7:].sum(axis=1), 1, atol=1e-3)
    assert (tmp_path / "o.mp4").stat().st_size > 1000


def test_video_without_a_result_or_with_a_wrong_name_is_told(clip, tmp_path, capsys):
    for arguments, said in (
        ((), "expected --out"),
        (("--table", tmp_path / "o.xls"), "ends in .csv or .parquet"),
        (("--out", tmp_path / "o.avi"), "ends in .mp4"),
        (("--table", tmp_path / "o.csv", "--blur"), "--blur"),
    ):
        status, _, err = run(capsys, "video", clip, *arguments)
        assert status == 1
        assert said in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_video_that_cannot_be_read_leaves_nothing(clip, tmp_path, capsys):
    whole = clip.read_bytes()
    (tmp_path / "none.mp4").write_bytes(whole[:500])
    status, _, err = run(capsys, "video", tmp_path / "none.mp4", "--table", tmp_path / "o.csv")
    assert status == 1
    assert err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "o.csv").exists()


def test_problems_of_a_video_are_told_and_the_rest_is_written(clip, tmp_path, capsys, monkeypatch):
    from fer_lib.inference import video

    analyse = video.analyse_video

    def analyse_with_problem(*arguments, **options):
        result = analyse(*arguments, **options)
        return replace(result, problems=["The video is damaged from 0.5 s on."])

    monkeypatch.setattr(video, "analyse_video", analyse_with_problem)
    status, _, err = run(capsys, "video", clip, "--table", tmp_path / "o.csv")
    assert status == 1
    assert err.splitlines() == [
        f"error: {clip}: The video is damaged from 0.5 s on.",
        "What could be read is written all the same.",
    ]
    assert len(pd.read_csv(tmp_path / "o.csv")) == 12


def test_explanation_is_an_image(folder, tmp_path, capsys):
    assert run(capsys, "explain", folder / "a.png", "--out", tmp_path / "why.png")[0] == 0
    assert Image.open(tmp_path / "why.png").height > 300
    status, _, err = run(capsys, "explain", folder / "c.png", "--out", tmp_path / "no.png")
    assert status == 1
    assert "no face was found" in err
    status, _, err = run(
        capsys, "explain", folder / "a.png", "--out", tmp_path / "no.png", "--emotion", "bored"
    )
    assert status == 1
    assert "bored" in err
    assert not (tmp_path / "no.png").exists()


def test_models_lists_the_release_first(capsys):
    status, out, _ = run(capsys, "models")
    assert status == 0
    rows = [line.split()[:4] for line in out.splitlines()[1:5]]
    assert rows[1] == ["photographs", "float", "fer2013", "EfficientNet-B0"]
    assert [row[1] for row in rows] == ["accurate", "float", "balanced", "tiny"]


def test_camera_that_is_not_there_is_one_line(capsys):
    status, _, err = run(capsys, "webcam", "--camera", 99)
    assert status == 1
    assert err.startswith("error: camera 99")
    assert err.count("\n") == 1


def test_camera_tells_its_faces_until_it_stops(capsys, monkeypatch):
    import cv2

    class Camera:
        def __init__(self, number):
            self.frames = draw_clip(3, 1, 320, 240)

        def isOpened(self):  # noqa: N802 - as OpenCV names it
            return True

        def read(self):
            frame = next(self.frames, None)
            return frame is not None, None if frame is None else cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    clock = itertools.count(0, 0.1)
    monkeypatch.setattr(videos, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    status, out, err = run(capsys, "webcam")
    assert status == 1
    assert out.startswith("#1 ")
    assert out.count("\n") == 1  # once a second
    assert "gives no more images" in err.splitlines()[-1]


def test_audit_tells_in_one_plain_line_what_is_wrong_with_the_faces(tmp_path):
    done = run_fer_lib(REPO, "audit", "--data", tmp_path, "--out", tmp_path / "audit")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}: expected ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "audit").exists()


def test_drawn_faces_come_in_a_folder_per_emotion_and_never_into_a_full_one(capsys, tmp_path):
    folder = tmp_path / "my_faces"
    assert run(capsys, "draw", folder, "--faces", "12")[:2] == (0, f"written: {folder} (12 faces)\n")
    drawn = sorted(folder.rglob("*.png"))
    assert len(drawn) == 12
    counts = Counter(path.parent.name for path in drawn)
    assert sorted(counts.values()) == [1, 1, 2, 2, 2, 2, 2]
    assert set(counts) == set(EMOTIONS_7)
    assert {Image.open(path).size for path in drawn} == {(64, 64)}
    before = [path.read_bytes() for path in drawn]
    status, _, problem = run(capsys, "draw", folder, "--faces", "3")
    assert (status, problem.count("\n")) == (1, 1)
    assert "expected a new or an empty folder" in problem
    assert [path.read_bytes() for path in sorted(folder.rglob("*.png"))] == before
