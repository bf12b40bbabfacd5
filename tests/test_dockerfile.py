"""The Dockerfile, read as a text: whether it fits the project. No test builds it."""

import itertools
import json
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, requires
from pathlib import PurePosixPath

import pytest
from conftest import REPO, run_git
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from fer_lib.cli.scale import serve

TEXT = (REPO / "Dockerfile").read_text()
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
EXTRAS = re.findall(r"--extra (\w+)", TEXT)


def list_copied():
    """Return what is copied out of the project."""
    copies = re.findall(r"^COPY (?!--from)(.+)$", TEXT, re.MULTILINE)
    return [source for copy in copies for source in copy.split()[:-1]]


def is_sent(path):
    """Return whether `.dockerignore` lets the builder see a file: the last line that matches decides."""
    sent, paths = True, [path, *map(str, PurePosixPath(path).parents)]
    for line in (REPO / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if pattern and not line.startswith("#") and any(fnmatch(one, pattern) for one in paths):
            sent = line.startswith("!")
    return sent


def test_what_is_copied_is_in_git_and_sent_and_nothing_else_is():
    tracked = run_git(REPO, "ls-files").splitlines()
    copied = {path for path in tracked if any(f"{path}/".startswith(f"{one}/") for one in list_copied())}
    for source in list_copied():
        assert any(f"{path}/".startswith(f"{source}/") for path in copied)
    assert {path for path in tracked if is_sent(path)} == {
        path for path in copied if not path.endswith(".parquet")
    }


@pytest.mark.parametrize(
    "path",
    [
        "data/packed/fer2013/faces.npy",
        "data/raw/fer2013/fer2013.csv",
        "models/affectnet/b0/model.safetensors",
        "rerun/fer2013/data/packed/fer2013/faces.npy",
        "scratch/reports/fer2013/figure.png",
        ".dvc/cache/files/md5/00/00",
        ".dvc/config.local",
        ".git/config",
    ],
)
def test_neither_faces_nor_secrets_are_sent(path):
    assert not is_sent(path)


def list_installed():
    """Return the packages in the images: those of the project with its extras, and all that these need."""
    todo, found = [Requirement(line) for line in PROJECT["dependencies"]], {PROJECT["name"]}
    todo.append(Requirement(f"{PROJECT['name']}[{','.join(EXTRAS)}]"))
    while todo:
        requirement = todo.pop()
        if requirement.name == PROJECT["name"]:
            lines = [PROJECT["optional-dependencies"][extra] for extra in requirement.extras]
            todo += [Requirement(line) for line in itertools.chain(*lines)]
        elif (name := canonicalize_name(requirement.name)) not in found:
            found.add(name)
            try:
                further = map(Requirement, requires(name) or [])
            except PackageNotFoundError:  # of `serve`, which is tested in an environment of its own
                continue
            settings = [{"extra": extra} for extra in requirement.extras or ("",)]
            todo += [one for one in further if not one.marker or any(map(one.marker.evaluate, settings))]
    return found


def test_app_needs_no_package_that_the_images_lack():
    installed = sorted(list_installed())
    assert {"torch", "scikit-learn"}.isdisjoint(installed)
    files = [path.relative_to(REPO).with_suffix("") for path in (REPO / "app").rglob("*.py")]
    modules = [".".join(path.parts) for path in files if path.name not in ("__init__", "main")]
    # What pages and commands import only once it is asked for.
    modules += ["fer_lib.cli.main", "streamlit_webrtc", "scipy.optimize"]
    code = (
        "import importlib, re, sys\n"
        "from importlib.metadata import packages_distributions\n"
        "owners = packages_distributions()\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        names = {re.sub('[-_.]+', '-', owner).lower() for owner in owners.get(name, [])}\n"
        f"        if names and not names & {{*{installed}}}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_python_fits():
    allowed = Requirement(f"python{PROJECT['requires-python']}").specifier
    versions = re.findall(r"^FROM python:([\d.]+)-slim", TEXT, re.MULTILINE)
    assert versions
    assert all(Version(version) in allowed for version in versions)


@pytest.mark.parametrize("target", ["app", "server"])
def test_nobody_listens_where_health_is_asked(target):
    before, stage = re.split(rf"^FROM base AS {target}$", TEXT, flags=re.MULTILINE)
    stage = stage.split("\nFROM ")[0]
    assert "\nUSER nobody\n" in before
    command = json.loads(re.search(r"^CMD (.+)$", stage, re.MULTILINE).group(1))
    port = re.search(r"^EXPOSE (\d+)$", stage, re.MULTILINE).group(1)
    assert {"0.0.0.0", port} <= {*command}
    assert f"http://127.0.0.1:{port}/" in re.search(r"^HEALTHCHECK .+$", stage, re.MULTILINE).group()


def test_options_of_the_server_are_known():
    command = json.loads(re.search(r'^CMD (\["python".+)$', TEXT, re.MULTILINE).group(1))
    context = serve.make_context("serve", command[4:])
    assert context.params["host"] == "0.0.0.0"
