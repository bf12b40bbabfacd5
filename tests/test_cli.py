import ast
import errno
import json
import re
import shutil
import subprocess
import sys
from functools import reduce
from operator import getitem
from types import SimpleNamespace

import click
import nbformat
import pytest
import yaml
from conftest import REPO, run_fer_lib, write_tiny_params
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from fer_lib.cli import main as cli
from fer_lib.cli import pipeline
from fer_lib.errors import DataError, FerError, ParamsError
from fer_lib.files import hold_lock
from fer_lib.params import apply_recipe, load_params
from fer_lib.params_file import read_params_file


@pytest.fixture
def run_action(monkeypatch):
    """Return a function that runs a command whose work is `action`, and returns its exit status."""

    def run(action):
        monkeypatch.setitem(cli.fer.commands, "act", click.Command("act", callback=action))
        return cli.main(["act"])

    return run


def test_user_error_is_one_line_and_status_1(run_action, capsys):
    def fail():
        raise FerError("here is what to do")

    assert run_action(fail) == 1
    assert capsys.readouterr().err == "error: here is what to do\n"


def test_full_disk_is_one_line_and_status_1(run_action, capsys):
    def fail():
        raise OSError(errno.ENOSPC, "No space left on device", "page.html")

    assert run_action(fail) == 1
    assert capsys.readouterr().err == "error: No space left on device: page.html\n"


def test_interruption_is_one_line_and_status_130(run_action, capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert run_action(interrupt) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_programming_error_keeps_its_trace(run_action):
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_action(fail)


@pytest.mark.parametrize(
    "arguments", [["nope"], ["train"], ["train-recipe", "b0"], ["predict"], ["audit", "--faces", "0"], []]
)
def test_wrong_usage_is_status_2(arguments, capsys):
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.startswith("Usage: fer ")


@pytest.mark.parametrize("name", cli.fer.commands)
def test_every_command_tells_what_it_does(name, capsys):
    assert cli.main([name, "--help"]) == 0
    assert f"Usage: fer {name} " in capsys.readouterr().out


@pytest.mark.parametrize("name", cli.CALLS)
def test_command_of_the_table_names_a_function_that_takes_its_arguments(name):
    call = cli.CALLS[name]
    module, function = call.function.split(":")
    source = ast.parse((REPO / "fer_lib" / f"{module.replace('.', '/')}.py").read_text())
    (found,) = [node for node in source.body if isinstance(node, ast.FunctionDef) and node.name == function]
    n_given, n_needed = len(call.takes.split()), len(found.args.args) - len(found.args.defaults)
    assert n_needed <= n_given <= len(found.args.args)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [(["phone", "out"], "phone"), (["serve"], "serve"), (["score", "images/", "--output", "out"], "scale")],
)
def test_command_without_its_extra_says_what_to_install(arguments, extra, capsys, monkeypatch):
    for module in ("coremltools", "litserve", "ray"):
        monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(arguments) == 1
    assert re.fullmatch(
        rf"error: \w+: expected what the extra `{extra}` installs, found none; install fer-lib with it\n",
        capsys.readouterr().err,
    )


def test_overview_fits_a_terminal_of_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["--help"]) == 0
    _, _, listed = capsys.readouterr().out.partition("Commands:\n")
    assert [line.split()[0] for line in listed.splitlines()] == list(cli.fer.commands)
    assert "..." not in listed  # what click leaves of a text that is too long


def test_help_imports_neither_torch_nor_pandas():
    code = (
        "import sys; from fer_lib.cli.main import main; status = main(['--help']); "
        "assert not {'torch', 'pandas', 'cv2', 'pydantic'} & sys.modules.keys(); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stderr


def test_settings_are_those_of_a_recipe_or_of_an_arm(capsys):
    assert cli.main(["params", "fer2013", "--recipe", "b0", "--arm", "loss.focal_2"]) == 2
    assert "expected --recipe or --arm, found both" in capsys.readouterr().err


def test_settings_of_a_training_are_told_with_their_place(capsys):
    assert cli.main(["params", "fer2013", "--recipe", "b0"]) == 0
    shown = capsys.readouterr().out
    params = load_params("fer2013")
    resolved = apply_recipe(params, params.recipes["b0"])
    expected = resolved.model_dump(mode="json", exclude_defaults=True)
    del expected["training"]["teachers"]  # those of a recipe are told above, by their names
    assert yaml.safe_load(shown) == {name: expected[name] for name in ("training", "augmentation")}
    lines = {line.split(":")[0].strip(): line for line in shown.splitlines()}
    assert lines["loss"].split() == ["loss:", "cross_entropy", "#", "recipes.b0.training"]
    assert lines["epochs"].endswith("# datasets.fer2013.recipes.b0.training")
    assert lines["seed"].endswith("# augmentation")


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("dataset", ["demo", "ferplus"])
def test_settings_stand_where_they_are_said_to(dataset, smoke):
    params, content = load_params(dataset, smoke), read_params_file()
    told = [pipeline.describe_settings(dataset, name, None, smoke) for name in ("baseline", *params.recipes)]
    studies = params.ablations.list_studies().items()
    arms = [f"{study}.{arm}" for study, found in studies for arm, changes in found.arms.items() if changes]
    told += [pipeline.describe_settings(dataset, "baseline", arm, smoke) for arm in arms]
    for line in "\n".join(told).splitlines():
        setting, _, place = line.partition(" # ")
        if place:
            ((key, value),) = yaml.safe_load(setting).items()
            stated = reduce(getitem, place.split("."), content)[key]
            # A share of 0 stands there only to replace that of another layer.
            assert value == ({k: v for k, v in stated.items() if v} if isinstance(stated, dict) else stated)


def test_settings_of_an_arm_stand_under_its_own_kind_of_study():
    for arm, key, place in (
        ("paper.cosine", "schedule", "ablations.paper_studies.paper.cosine.training"),
        ("paper.cosine", "image_size", "ablations.paper_reference.training"),
        ("loss.focal_2", "loss", "ablations.studies.loss.focal_2.training"),
        ("loss.focal_2", "image_size", "ablations.reference.training"),
    ):
        lines = pipeline.describe_settings("fer2013", "baseline", arm).splitlines()
        assert next(line for line in lines if line.startswith(f"  {key}: ")).endswith(f"# {place}")


def test_training_that_is_not_there_is_told_with_those_there_are():
    with pytest.raises(ParamsError, match="no 'b1'; known: b0, "):
        pipeline.describe_settings("demo", "b1")
    for arm in ("loss.none", "paper.cosine", "lost.arm"):  # the second is null on demo
        with pytest.raises(ParamsError, match=rf"ablations: no arm '{arm}'; known: paper\.reference, "):
            pipeline.describe_settings("demo", "baseline", arm)


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
    assert "demo: packed 160 (train 1" in done.stdout
    assert "passed over 0, dropped 0\n" in done.stdout
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
    assert "make results DATASET=demo" in ours.stderr  # the library's own message, whole
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
    assert after.replace(f"    {line}\n", "") == before
    datasets = yaml.safe_load(after)["pipeline"]["datasets"]
    assert datasets == {"demo": "demo_faces", "fer2013": "data/raw/fer2013"}
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


def test_pipeline_waits_for_no_dead_process_and_does_not_run_twice_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "DVC_DIR", tmp_path)
    monkeypatch.setattr(pipeline, "_run_stale", lambda _: SimpleNamespace(has_run=True))
    monkeypatch.setattr(pipeline, "build_index", lambda *_: REPO / "index.html")
    left_behind = tmp_path / "rwlock"
    left_behind.touch()
    with hold_lock(tmp_path / "pipeline.lock"), pytest.raises(FerError, match="another run is at work here"):
        pipeline.run_pipeline("demo")
    assert left_behind.is_file()  # it may be that run's
    pipeline.run_pipeline("demo")
    assert not left_behind.exists()
