"""Runs of `fer score`. They need the extra `scale`, for which the Makefile makes an environment."""

import io
import os
import signal
import socket
import subprocess
import sys
import time

import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.score import list_workers
from demo_faces.clips import draw_scene
from fer_lib.cli import main as cli
from fer_lib.inference.recognizer import Recognizer
from fer_lib.scale import sources
from fer_lib.scale.output import Output
from fer_lib.scale.score import split_parts
from fer_lib.scale.sources import Images, Place

N_SCENES = 200
BLOCK = 8


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Return a table of photographs that takes one process five seconds."""
    file = io.BytesIO()
    Image.fromarray(draw_scene(1)[0]).save(file, "jpeg")
    path = tmp_path_factory.mktemp("scenes") / "scenes.parquet"
    pq.write_table(pa.table({"image": [file.getvalue()] * N_SCENES}), path, row_group_size=150)
    return path


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK", BLOCK)


def score(capsys, *arguments):
    status = cli.main(["score", *map(str, arguments), "--variant", "tiny", "--workers", "1"])
    return status, capsys.readouterr()


def test_images_tables_and_damaged_files_become_rows(capsys, tmp_path):
    given, output = tmp_path / "given", tmp_path / "output"
    given.mkdir()
    scene = draw_scene(2)[0]
    Image.fromarray(scene).save(given / "two.png")
    Image.fromarray(draw_scene(0)[0]).save(given / "none.png")
    Image.fromarray(scene[:48, :48]).save(given / "crop.png")
    (given / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    pq.write_table(pa.table({"image": [(given / "crop.png").read_bytes(), None]}), given / "a.parquet")
    (given / "notes.txt").write_text("no image")
    status, printed = score(capsys, given, "--output", output)
    assert status == 0
    assert "skipped 1 (.txt: 1)" in printed.out
    assert "not scored, see the column `error`: 2" in printed.out
    table = pd.read_parquet(output).set_index("source").sort_index()
    table.index = table.index.str.removeprefix(f"{given}/")
    assert table.groupby(level=0)["face"].count().to_dict() == {
        "a.parquet:0": 1, "a.parquet:1": 0, "broken.jpg": 0, "crop.png": 1, "none.png": 0, "two.png": 2,
    }  # fmt: skip
    assert table.index[table["error"].notna()].tolist() == ["a.parquet:1", "broken.jpg"]
    assert len(table["model"].unique()) == 1
    recognizer = Recognizer(variant="tiny", threads=1)
    for row, face in zip(table.loc["two.png"].to_dict("records"), recognizer(given / "two.png"), strict=True):
        assert (row["left"], row["top"], row["width"], row["height"]) == face.box
        assert row["landmarks"] == pytest.approx(face.landmarks.ravel(), abs=1e-3)
        assert row["label"] == face.label
        for emotion, probability in face.probabilities.items():
            assert row[emotion] == pytest.approx(probability, abs=1e-3)
    (alone,) = recognizer.classify([given / "crop.png"])
    for name in ("crop.png", "a.parquet:0"):
        assert table.loc[name, "label"] == alone.label
        assert table.loc[name, "confidence"] == pytest.approx(alone.confidence, abs=1e-5)


def test_what_is_pending_and_committed_is_scored_again(tmp_path):
    output = Output(str(tmp_path))
    folder = tmp_path / "_checkpoints" / "00000"
    folder.mkdir(parents=True)
    for name in ("a.parquet", "a.pending.parquet", "b.parquet", "c.pending.parquet"):
        (folder / name).touch()
    output.mend("00000")
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.pending.parquet",
        "b.parquet",
        "c.pending.parquet",
    ]


@pytest.mark.parametrize("shard", [1, 3, 7, 100])
def test_shards_hold_every_part_once_and_no_more_than_asked(shard):
    sizes = [1, 2, 3, 1, 5, 1]
    parts = [Images((Place("", str(n)),) * size) for n, size in enumerate(sizes)]
    shards = list(split_parts(parts, shard))
    assert [part for some in shards for part in some] == parts
    assert all(sum(p.n_images for p in some) <= shard or len(some) == 1 for some in shards)
    assert list(split_parts([], shard)) == []


def start(scenes, output, *others):
    code = (
        "import sys; from fer_lib.cli import main; from fer_lib.scale import sources; "
        f"sources.BLOCK = {BLOCK}; sys.exit(main.main(sys.argv[1:]))"
    )
    options = ["--output", str(output), "--variant", "tiny", "--workers", "1", *others]
    return subprocess.Popen(
        [sys.executable, "-c", code, "score", str(scenes), *options], stderr=subprocess.DEVNULL
    )


def wait_for(condition, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


def read_sources(output):
    table = pd.read_parquet(output)
    assert table["source"].is_unique
    return len(table)


def test_nothing_is_lost_or_doubled_when_workers_and_drivers_are_killed(scenes, tmp_path):
    output = tmp_path / "output"

    def commits():
        return [path for path in output.glob("_checkpoints/*/*.parquet") if ".pending" not in path.name]

    driver = start(scenes, output)
    wait_for(commits, "nothing was written")
    os.kill(list_workers(driver, "MapWorker")[0].pid, signal.SIGKILL)  # Ray starts another
    before = len(commits())
    wait_for(lambda: len(commits()) > before, "no other worker took over")
    workers = list_workers(driver)
    driver.kill()
    driver.wait()
    assert 0 < read_sources(output) < N_SCENES  # or the test has come too late
    assert not psutil.wait_procs(workers, timeout=60)[1]
    driver = start(scenes, output)
    assert driver.wait() == 0
    assert read_sources(output) == N_SCENES
    names = {path.name for path in output.rglob("*.parquet")}
    driver = start(scenes, output)  # there is nothing left to do
    assert driver.wait() == 0
    assert {path.name for path in output.rglob("*.parquet")} == names


def test_output_of_another_run_is_refused(capsys, scenes, tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "mine.txt").touch()
    status, printed = score(capsys, scenes, "--output", tmp_path / "output")
    assert status == 1
    assert (
        printed.err
        == f"error: {tmp_path}/output: expected a new or empty folder, found files; name another --output\n"
    )


def test_cluster_that_was_started_before_is_joined(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    scene = tmp_path / "scene.png"
    Image.fromarray(draw_scene(1)[0]).save(scene)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    options = ["--port", str(port), "--num-cpus", "3", "--include-dashboard", "false"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    head = subprocess.Popen([*command, *options], **quiet)
    try:
        wait_for(lambda: is_listening(port), "no cluster came up")
        assert start(scene, tmp_path / "output", "--address", f"127.0.0.1:{port}").wait() == 0
    finally:
        for process in (*psutil.Process(head.pid).children(recursive=True), head):
            process.kill()  # it would take half a minute to end by itself
        head.wait()
    assert read_sources(tmp_path / "output") == 1


def is_listening(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
