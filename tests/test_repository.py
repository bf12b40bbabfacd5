"""The files that hosts and contributors' tools read: whether they say what is true; what a clone weighs."""

import json
import re
import shutil
import tomllib

import yaml
from conftest import REPO, commit, run_git
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from fer_lib.responsible_use import RESPONSIBLE_USE

MEGABYTE = 10**6
MAX_TREE = 60 * MEGABYTE
MAX_FILE = 2 * MEGABYTE
"""Of any file but a released network, which is one ONNX file."""


def test_downloaded_archive_names_the_commit_and_the_newest_version_of_the_code(tmp_path):
    for name in (".gitattributes", ".git_archival.txt"):
        shutil.copy(REPO / name, tmp_path)
    run_git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    for tag in ("v1.2.0", "photographs@v9.0.0"):  # the second is a release of a model, by gto
        run_git(tmp_path, "tag", "--annotate", "--message", tag, tag)
    run_git(tmp_path, "archive", "--output", "archive.zip", "HEAD")
    shutil.unpack_archive(tmp_path / "archive.zip", tmp_path / "unpacked")
    lines = (tmp_path / "unpacked" / ".git_archival.txt").read_text().splitlines()
    values = dict(line.split(": ") for line in lines)
    assert values["node"] == run_git(tmp_path, "rev-parse", "HEAD").strip()
    assert values["describe-name"] == "v1.2.0"


def test_citation_and_readme_name_the_newest_version_of_the_changelog():
    changelog = (REPO / "CHANGELOG.md").read_text()
    first, *versions = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert first == "Unreleased"
    assert versions == sorted(versions, key=Version, reverse=True)
    assert yaml.safe_load((REPO / "CITATION.cff").read_text())["version"] == versions[0]
    assert f"version = {{{versions[0]}}}" in (REPO / "README.md").read_text()


def test_changelog_has_the_sections_of_its_format_and_an_entry_a_line():
    text = (REPO / "CHANGELOG.md").read_text().partition("\n## ")[2]
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {*re.findall(r"^### (.+)$", text, re.MULTILINE)} <= known
    assert all(re.match(r"- |#|\[|$", line) for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 120


def test_development_container_has_a_python_that_fits_and_runs_targets_that_exist():
    container = json.loads((REPO / ".devcontainer" / "devcontainer.json").read_text())
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert Version(container["image"].rpartition(":")[2]) in SpecifierSet(project["requires-python"])
    targets = re.findall(r"make (\w+)", json.dumps(container))
    makefile = (REPO / "Makefile").read_text()
    assert {*targets} == {"env", "app", "lab"}
    assert all(f"\n{target}:" in makefile for target in targets)
    assert {int(port) for port in container["portsAttributes"]} == {*container["forwardPorts"]}


def test_readme_says_of_responsible_use_what_the_app_and_the_cards_say():
    section = (REPO / "README.md").read_text().partition("## Responsible use\n")[2].partition("\n## ")[0]
    assert " ".join(section.split()).startswith(RESPONSIBLE_USE)


def test_work_tree_and_its_files_are_small():
    sizes = {path: (REPO / path).stat().st_size for path in run_git(REPO, "ls-files", "-z").split("\0")[:-1]}
    large = {path for path, size in sizes.items() if size > MAX_FILE}
    assert {path for path in large if not path.startswith("models/release/")} == set()
    assert all(path.endswith(".onnx") for path in large)
    by_kind = {}
    for path, size in sizes.items():
        kind = path.rpartition(".")[2]
        by_kind[kind] = by_kind.get(kind, 0) + size
    heaviest = sorted(by_kind.items(), key=lambda item: -item[1])[:5]
    assert sum(sizes.values()) < MAX_TREE, heaviest
