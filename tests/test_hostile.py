"""Damaged and malicious files: each is read or refused in a sentence, soon, and nothing else is touched."""

import importlib.util
import io
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPO, build_command_environment

from fer_lib.data.images import read_image
from fer_lib.errors import MediaError
from fer_lib.inference.video import analyse_video
from fer_lib.inference.video_reader import VideoReader

SCRIPT = REPO / "benchmarks" / "hostile.py"
N_IMAGES, N_VIDEOS = 1000, 240


@pytest.fixture(scope="module")
def hostile():
    """Return the benchmark as a module."""
    spec = importlib.util.spec_from_file_location("hostile", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_thousand_damaged_files_crash_nothing_and_write_nothing(hostile, tmp_path):
    # A process of its own: a decoder that crashes takes only that one with it. All its folders are empty.
    folders = {name: tmp_path / name for name in ("cwd", "HOME", "TMPDIR")}
    for folder in folders.values():
        folder.mkdir()
    environment = {
        **build_command_environment(REPO),
        "HOME": str(folders["HOME"]),
        "TMPDIR": str(folders["TMPDIR"]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, SCRIPT, "--images", str(N_IMAGES), "--videos", str(N_VIDEOS)]
    done = subprocess.run(
        command, cwd=folders["cwd"], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert [path for folder in folders.values() for path in folder.rglob("*")] == []

    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    tried = {kind: int(n) for kind, n, *_ in rows}
    assert tried.keys() == {*hostile.IMAGES, *hostile.VIDEOS}
    assert sum(tried[kind] for kind in hostile.IMAGES) == N_IMAGES
    assert sum(tried[kind] for kind in hostile.VIDEOS) == N_VIDEOS
    for kind, n_tried, n_read, n_refused, n_faults, slowest, _ in rows:
        assert int(n_read) + int(n_refused) == int(n_tried)
        assert int(n_faults) == 0
        # The damage is neither so slight that all passes nor so heavy that nothing gets to the decoder.
        assert int(n_read) > 0, kind
        assert int(n_refused) > 0, kind
        assert float(slowest) < hostile.SLOWEST


def test_undamaged_files_are_read(hostile):
    upright = (hostile.HEIGHT, hostile.WIDTH, 3)
    sizes = {upright, (hostile.WIDTH, hostile.HEIGHT, 3)}  # some are turned by EXIF or a display matrix
    for kind in hostile.IMAGES:
        for data in hostile.build_images(kind):
            assert read_image(data).shape in sizes
            assert hostile.mend_png(data) == data
    for kind in hostile.VIDEOS:
        for data in hostile.build_videos(kind):
            with VideoReader(io.BytesIO(data)) as reader:
                assert (reader.info.height, reader.info.width, 3) in sizes


def test_inputs_differ_and_follow_from_seed_and_number(hostile):
    files = hostile.build_images("bmp")
    build = [
        [hostile.build_input("bmp", number, seed, files, files) for number in range(40)] for seed in (0, 0, 1)
    ]
    assert build[0] == build[1] != build[2]
    assert len(set(build[0])) == 40
    assert sum(data in files for data in build[0]) < 4  # now and then a fault changes nothing


def break_reader(_):
    raise KeyError("what no caller expects")


def speak_at_length(_):
    raise MediaError("two\nlines")


def write_file(_, folder=None):
    (folder / "left over").write_bytes(b"")


def start_program(_):
    subprocess.run([sys.executable, "--version"], capture_output=True, check=True)


@pytest.mark.parametrize(
    ("read", "named"),
    [
        (break_reader, "KeyError"),
        (speak_at_length, "several lines"),
        (write_file, "left over"),
        (start_program, "subprocess.Popen"),
    ],
)
def test_every_kind_of_fault_is_noticed(hostile, tmp_path, read, named):
    def act(data):
        return read(data, tmp_path) if read is write_file else read(data)

    tally = hostile.try_inputs("bmp", iter([b"x"]), act)
    assert len(tally.faults) == 1
    assert tally.faults[0].startswith("bmp 0: ")
    assert named in tally.faults[0]


def test_slowness_is_a_fault(hostile, monkeypatch):
    monkeypatch.setattr(hostile, "SLOWEST", -1.0)
    assert "took 0.0 s" in hostile.try_inputs("bmp", iter([b"x"]), len).faults[0]


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile '{path}'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXTINF:1,\nfile://{path}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
        '<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{path}"/></svg>',
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8"])
def test_files_that_point_at_others_are_not_followed(hostile, tmp_path, text, suffix):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(hostile.build_videos("mp4")[0])
    trap = tmp_path / f"trap{suffix}"
    trap.write_text(text.format(path=secret))
    for source in (trap, io.BytesIO(trap.read_bytes())):
        with pytest.raises(MediaError):
            VideoReader(source)
    with pytest.raises(MediaError):
        read_image(trap)


def test_video_read_as_a_image_and_the_other_way_round(hostile):
    with pytest.raises(MediaError, match="a file that is none"):
        read_image(hostile.build_videos("avi")[0])
    for data in (hostile.build_images("png")[0], b"", b"\0" * 5000, np.random.default_rng(0).bytes(5000)):
        with pytest.raises(MediaError) as error:
            analyse_video(None, io.BytesIO(data))
        assert "\n" not in str(error.value)
