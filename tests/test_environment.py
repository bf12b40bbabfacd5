"""What is installed, what is locked, and what the package pulls in must agree."""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from conftest import REPO
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PYPROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())
LOCKS = [(REPO / name).read_text() for name in ("requirements.lock", "requirements-scale.lock")]
LOCKED = [
    Requirement(line.rstrip(" \\"))
    for lock in LOCKS
    for line in re.findall(r"^[a-zA-Z].*$", lock, re.MULTILINE)
]


def list_direct_requirements():
    project = PYPROJECT["project"]
    extras = {**project["optional-dependencies"]}
    for name in ("openvino", "phone"):  # large, for one command or benchmark alone: not in the lock
        extras.pop(name)
    lists = [project["dependencies"], *extras.values()]
    found = [Requirement(text) for requirements in lists for text in requirements]
    return [one for one in found if one.name != project["name"]]  # extras name one another


@pytest.mark.parametrize("requirement", list_direct_requirements(), ids=str)
def test_lock_holds_every_direct_dependency_at_a_version_that_fits(requirement):
    name = canonicalize_name(requirement.name)
    versions = [str(r.specifier).removeprefix("==") for r in LOCKED if canonicalize_name(r.name) == name]
    assert versions
    assert all(Version(version) in requirement.specifier for version in versions)


def test_locks_pin_and_hash_everything_and_hold_no_address():
    blocks = [block for lock in LOCKS for block in re.split(r"\n(?=\S)", lock.strip())]
    assert len(blocks) == len(LOCKED)
    assert all("==" in block.splitlines()[0] and "--hash=sha256:" in block for block in blocks)
    assert not [block for block in blocks if "://" in block]


def test_no_package_is_locked_twice():
    # Both locks go into one environment, `make scale`. A marker makes it another entry.
    names = [f"{canonicalize_name(one.name)} {one.marker}" for one in LOCKED]
    assert len(names) == len(set(names))


def test_lock_holds_one_opencv():
    # A marker that never holds does not count: it is how the lock keeps the second one out.
    opencv = [r.name for r in LOCKED if r.name.startswith("opencv") and (not r.marker or r.marker.evaluate())]
    assert opencv == ["opencv-python-headless"]


def test_one_opencv_is_installed():
    installed = {d.metadata["Name"].lower() for d in metadata.distributions()}
    assert [name for name in installed if name.startswith("opencv")] == ["opencv-python-headless"]


def test_conda_environment_installs_the_same_lock_with_a_python_that_fits():
    environment = yaml.safe_load((REPO / "environment.yml").read_text())
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["--require-hashes", "-r requirements.lock"]
    python = next(entry.split("=")[1] for entry in plain if entry.startswith("python="))
    assert Version(python) in Requirement(f"python{PYPROJECT['project']['requires-python']}").specifier


def test_python_versions_agree_everywhere():
    workflow = yaml.safe_load((REPO / ".github/workflows/ci.yml").read_text())
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    allowed = Requirement(f"python{PYPROJECT['project']['requires-python']}").specifier
    every = [f"3.{minor}" for minor in range(8, 20)]
    assert tested == [version for version in every if Version(version) in allowed]
    makefile = (REPO / "Makefile").read_text()
    assert str(tuple(tuple(map(int, version.split("."))) for version in tested)) in makefile
    assert f"--python-version {tested[0]}" in makefile


def test_library_imports_where_notebook_pipeline_and_page_tools_are_not_installed():
    # Whoever serves a model must not need Jupyter, DVC or Streamlit. Some modules need extras of their own.
    code = (
        "import importlib, pkgutil, sys, fer_lib\n"
        "for name in ('dvc', 'streamlit', 'papermill', 'nbconvert', 'nbformat', 'IPython', 'ipywidgets'):\n"
        "    sys.modules[name] = None\n"  # from here on importing it fails
        "for module in pkgutil.walk_packages(fer_lib.__path__, 'fer_lib.'):\n"
        "    extra = module.name.startswith('fer_lib.scale.') or module.name == 'fer_lib.deployment.phone'\n"
        "    if not module.name.endswith('__main__') and not extra:\n"
        "        importlib.import_module(module.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_readme_lists_every_notebook():
    readme = (REPO / "README.md").read_text()
    for path in (REPO / "notebooks").glob("*.ipynb"):
        assert f"[{path.stem}](notebooks/{path.name})" in readme


def test_make_help_describes_every_target():
    makefile = (REPO / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split()
    described = re.findall(r"^([a-z]+):.*## .+$", makefile, re.MULTILINE)
    assert sorted(described) == sorted(phony)


@pytest.mark.parametrize("path", sorted((REPO / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_what_benchmarks_import_is_there(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("fer_lib", "demo_faces"):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name) or importlib.util.find_spec(f"{node.module}.{name.name}")
