"""The wheel in an environment of its own: without a checkout, without torch, with the default model."""

import os
import subprocess
import sys
import zipfile

import pytest
from conftest import REPO

PHOTO = REPO / "app" / "examples" / "astronaut.jpg"
UV = [sys.executable, "-m", "uv"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # What builds it is in the lock; nothing is downloaded.
    subprocess.run([*UV, "build", "--wheel", "--no-build-isolation", "--out-dir", folder, REPO], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Return the `bin` of an environment with the wheel, its base dependencies and nothing else."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([*UV, "venv", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    locked = ["--constraint", REPO / "requirements.lock"]
    subprocess.run([*UV, "pip", "install", "--quiet", "--python", python, *locked, wheel], check=True)
    return folder / "bin"


def run(environment, folder, *command):
    clean = {name: value for name, value in os.environ.items() if name not in ("FER_ROOT", "PYTHONPATH")}
    return subprocess.run(
        [environment / command[0], *command[1:]],
        cwd=folder,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )


def test_wheel_holds_the_default_model_and_its_types(wheel):
    sizes = {entry.filename: entry.file_size for entry in zipfile.ZipFile(wheel).infolist()}
    assert "fer_lib/py.typed" in sizes
    networks = [size for name, size in sizes.items() if name.endswith(".onnx") and "/release/" in name]
    assert len(networks) == 2
    assert sum(networks) < 6e6
    assert not [name for name in sizes if name.startswith(("app/", "tests/", "reports/"))]


def test_library_recognises_a_photograph(environment, tmp_path):
    code = (
        "import sys; from fer_lib import Recognizer\n"
        f"print([(face.label, face.abstained) for face in Recognizer()({str(PHOTO)!r})])\n"
        "print(sorted({'torch', 'pandas', 'scipy', 'pydantic'} & sys.modules.keys()))"
    )
    done = run(environment, tmp_path, "python", "-c", code)
    assert done.stdout == "[('happy', False)]\n[]\n", done.stderr


def test_command_recognises_a_photograph_and_lists_what_is_there(environment, tmp_path):
    done = run(environment, tmp_path, "fer", "predict", PHOTO)
    assert "happy" in done.stdout, done.stderr
    listed = run(environment, tmp_path, "fer", "models").stdout.splitlines()[1:]
    assert [line.split()[1] for line in listed] == ["balanced", "tiny"]
    refused = run(environment, tmp_path, "fer", "predict", PHOTO, "--variant", "float")
    assert refused.stderr == "error: variant: expected one of balanced, tiny of photographs, found 'float'\n"


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["video", "clip.mp4", "--table", "faces.csv"], "media"),
        (["train", "."], "study"),
        (["evaluate", "--data", "."], "study"),
        (["score", ".", "--output", "out"], "scale"),
        (["serve"], "serve"),
    ],
)
def test_command_that_lacks_a_package_names_its_extra(environment, tmp_path, command, extra):
    done = run(environment, tmp_path, "fer", *command)
    assert done.returncode == 1
    assert f": expected what the extra `{extra}` installs, found none; " in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_iphone_photograph_names_the_extra(environment, tmp_path):
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    done = run(environment, tmp_path, "fer", "predict", "photo.heic")
    assert (
        done.stderr == "error: photo.heic: HEIC: expected what the extra `media` installs, found none; "
        "install fer-lib with it\n"
    )
