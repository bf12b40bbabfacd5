import json
import shutil
import sys

import nbformat
import pytest
import yaml
from conftest import REPO, run_fer_lib, write_tiny_params
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from fer_lib.cli import main as cli
from fer_lib.cli import pipeline
from fer_lib.errors import DataError, FerError, ParamsError


def run_main(monkeypatch, action):
    """Run a command whose work is `action`; return its exit status."""

    class Parser:
        def parse_args(self, arguments):
            return type("Options", (), {"run": staticmethod(action)})

    monkeypatch.setattr(cli, "build_parser", Parser)
    return cli.main([])


def test_user_error_is_one_line_and_status_1(monkeypatch, capsys):
    def fail(options):
        raise FerError("here is what to do")

    assert run_main(monkeypatch, fail) == 1
    assert capsys.readouterr().err == "error: here is what to do\n"


def test_interruption_is_one_line_and_status_130(monkeypatch, capsys):
    def interrupt(options):
        raise KeyboardInterrupt

    assert run_main(monkeypatch, interrupt) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_programming_error_keeps_its_trace(monkeypatch):
    def fail(options):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_main(monkeypatch, fail)


@pytest.fixture
def project(tmp_path):
    """Return a project folder without data and with one notebook that fails in its last cell."""
    write_tiny_params(tmp_path / "params.yaml")
    (tmp_path / "notebooks").mkdir()
    parameters = new_code_cell(
        "dataset = 'demo'\nsmoke = False\nout_dir = None", metadata={"tags": ["parameters"]}
    )
    cells = [
        new_markdown_cell("# Fails\n\n**Question.** How?"),
        parameters,
        new_code_cell("from fer_lib.data.packed import load_packed\n\nload_packed(dataset)"),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "01_fails.ipynb")
    cells[-1] = new_code_cell("1 / 0")
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "02_breaks.ipynb")
    return tmp_path


def test_prepare_prints_counts_and_hash_and_draws_the_same_faces_again(tiny_project, tmp_path):
    shutil.copy(tiny_project / "params.yaml", tmp_path)
    done = run_fer_lib(tmp_path, "prepare", "--dataset", "demo")
    meta = json.loads((tiny_project / "data" / "packed" / "demo" / "meta.json").read_text())
    assert "demo: 160 faces (train 1" in done.stdout
    assert "0 dropped" in done.stdout
    assert done.stdout.splitlines()[-1] == f"data hash: {meta['data_hash']}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare", "--dataset", "nope"),
        ("prepare", "--dataset", "fer2013"),
        ("pipeline", "fer2013"),
        ("notebook", "09_nope", "--dataset", "demo"),
        ("notebook", "01_fails", "--dataset", "demo", "--smoke", "--out-dir", "."),
    ],
)
def test_what_a_user_can_get_wrong_ends_in_one_line(project, arguments):
    done = run_fer_lib(project, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_failing_notebook_names_cell_and_error_and_is_kept(project):
    ours = run_fer_lib(project, "notebook", "01_fails", "--dataset", "demo")
    assert ours.returncode == 1
    assert ours.stderr.count("\n") == 1
    assert "01_fails, cell 3: " in ours.stderr
    assert "make repro DATASET=demo" in ours.stderr  # the library's own message, whole
    assert "DataError" not in ours.stderr
    other = run_fer_lib(project, "notebook", "02_breaks", "--dataset", "demo")
    assert "02_breaks, cell 3: ZeroDivisionError: division by zero" in other.stderr
    kept = nbformat.read(project / "scratch" / "failed" / "demo_02_breaks.ipynb", as_version=4)
    assert kept.cells[-1].outputs[0].ename == "ZeroDivisionError"
    assert not (project / "scratch" / "reports").exists()


def test_kernel_that_is_slow_to_settle_after_a_failure_changes_nothing(project):
    path = project / "notebooks" / "02_breaks.ipynb"
    notebook = nbformat.read(path, as_version=4)
    # What it does last; nbclient waits for that, by default for 4 seconds.
    slow = "get_ipython().kernel._abort_queues = lambda *_: __import__('time').sleep(5)\n"
    notebook.cells[-1].source = slow + notebook.cells[-1].source
    nbformat.write(notebook, path)
    done = run_fer_lib(project, "notebook", "02_breaks", "--dataset", "demo")
    assert done.stderr.startswith("error: 02_breaks, cell 3: ZeroDivisionError: division by zero")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def params_file(tmp_path, monkeypatch):
    """Return a copy of params.yaml that `pipeline` takes for the project's, in a project of its own."""
    path = tmp_path / "params.yaml"
    shutil.copy(REPO / "params.yaml", path)
    monkeypatch.setattr(pipeline, "ROOT", tmp_path)
    monkeypatch.setattr(pipeline, "PARAMS_FILE", path)
    monkeypatch.setattr(pipeline, "read_params_file", lambda: yaml.safe_load(path.read_text()))
    monkeypatch.setattr(pipeline, "get_raw_dir", lambda name: tmp_path / "elsewhere" / name)
    return path


def test_data_set_is_added_to_params_once_and_comments_stay(params_file):
    before = params_file.read_text()
    line = pipeline.add_to_params("fer2013", "fer2013")
    assert line == "fer2013: data/raw/fer2013"
    after = params_file.read_text()
    assert after.replace(f"    {line}\n", "").replace("    - fer2013\n", "") == before
    assert yaml.safe_load(after)["pipeline"]["names"] == ["demo", "fer2013"]
    assert yaml.safe_load(after)["pipeline"]["datasets"] == {
        "demo": "fer_lib/data/readers/demo.py",
        "fer2013": "data/raw/fer2013",
    }
    assert pipeline.add_to_params("fer2013", "fer2013") is None
    assert params_file.read_text() == after


def test_params_without_the_place_to_add_to_say_what_to_add(params_file):
    params_file.write_text("pipeline: {datasets: {}}\n")
    with pytest.raises(ParamsError, match="add `mine: data/raw/mine` by hand"):
        pipeline.add_to_params("mine", "mine")


def test_missing_raw_files_say_where_to_put_them(params_file):
    with pytest.raises(DataError, match=r"elsewhere/fer2013: .*data/README\.md"):
        pipeline.link_raw_dirs("fer2013")


def test_raw_files_outside_the_project_are_linked_into_it(params_file):
    outside = params_file.parent / "elsewhere" / "fer2013"
    outside.mkdir(parents=True)
    (outside / "fer2013.csv").write_text("emotion,pixels,Usage\n")
    for _ in range(2):
        assert pipeline.link_raw_dirs("fer2013") == "fer2013"
    linked = params_file.parent / "data" / "raw" / "fer2013"
    assert linked.is_symlink()
    assert (linked / "fer2013.csv").samefile(outside / "fer2013.csv")


def test_link_never_replaces_files(params_file):
    for folder in (params_file.parent / "elsewhere" / "fer2013", params_file.parent / "data/raw/fer2013"):
        folder.mkdir(parents=True)
        (folder / "fer2013.csv").write_text("emotion,pixels,Usage\n")
    with pytest.raises(DataError, match="remove one"):
        pipeline.link_raw_dirs("fer2013")


def test_data_set_that_leaves_out_a_section_is_told_which(params_file, monkeypatch):
    params = yaml.safe_load(params_file.read_text())
    del params["datasets"]["fer2013"]["evaluation"]
    params_file.write_text(yaml.safe_dump(params))
    with pytest.raises(ParamsError, match=r"evaluation: \{\}"):
        pipeline.check_overrides("fer2013")


def test_stage_finds_the_python_that_runs_now(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    path = pipeline.build_environment()["PATH"].split(":")
    assert shutil.which("python", path=path[0]) or sys.platform == "win32"
