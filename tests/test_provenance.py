import subprocess

import pytest

from fer_lib import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return an empty Git checkout that `provenance` takes for the project, and a function to commit."""
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    provenance.get_code_commit.cache_clear()
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run([*git, "init", "--quiet"], cwd=tmp_path, check=True)

    def commit(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        subprocess.run([*git, "add", "--all"], cwd=tmp_path, check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", "change"], cwd=tmp_path, check=True)
        provenance.get_code_commit.cache_clear()
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True)
        return head.stdout.strip()

    yield tmp_path, commit
    provenance.get_code_commit.cache_clear()


def test_commit_of_reports_does_not_change_the_code_commit(checkout):
    _, commit = checkout
    code = commit("fer_lib/a.py", "x = 1\n")
    commit("reports/demo/metrics/training.json", "{}\n")
    assert provenance.get_code_commit() == code


def test_changed_code_is_marked_and_changed_reports_are_not(checkout):
    root, commit = checkout
    code = commit("fer_lib/a.py", "x = 1\n")
    (root / "note.md").write_text("prose\n")
    assert provenance.get_code_commit() == code
    provenance.get_code_commit.cache_clear()
    (root / "fer_lib" / "a.py").write_text("x = 2\n")
    assert provenance.get_code_commit() == f"{code}-dirty"


def test_outside_git_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    provenance.get_code_commit.cache_clear()
    assert provenance.get_code_commit() == "unknown"
    provenance.get_code_commit.cache_clear()


def test_file_hash_sees_content_and_order(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("1")
    second.write_text("2")
    digest = provenance.hash_files([first, second])
    assert digest == provenance.hash_files([first, second])
    assert digest != provenance.hash_files([second, first])
    first.write_text("3")
    assert digest != provenance.hash_files([first, second])


def test_code_hash_ignores_comments_and_docstrings_only(tmp_path):
    path = tmp_path / "a.py"
    path.write_text('"""One."""\n\ndef f():\n    """Two."""\n    return 1  # three\n')
    digest = provenance.hash_code([path])
    path.write_text("def f():\n    return 1\n")
    assert provenance.hash_code([path]) == digest
    path.write_text("def f():\n    return 2\n")
    assert provenance.hash_code([path]) != digest
