"""The files that hosts and contributors' tools read: whether they say what is true of this project."""

import shutil

from conftest import REPO, commit, run_git


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
