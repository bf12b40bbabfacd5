"""dvc.yaml against the code: a stage that does not list what it uses would not rerun when that changes."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from fer_lib.cli.main import CALLS
from fer_lib.params import load_params
from fer_lib.provenance import list_outs, list_stages
from fer_lib.reporting.results import SCALE

ROOT = Path(__file__).resolve().parent.parent
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
TARGETS = list_stages("demo")
STAGES = {target.split("@")[0]: stage for target, stage in TARGETS.items()}  # one of each kind
NOTEBOOK_STAGES = sorted(name for name in STAGES if name[0].isdigit())

NO_RESULT = {
    *(
        f"fer_lib/{name}.py"
        for name in (
            "__init__",
            "errors",
            "files",
            "intervals",
            "jobs",
            "machine",
            "metrics_file",
            "paths",
            "provenance",
        )
    ),
    # The values they read are listed under `params:`.
    *(f"fer_lib/{name}.py" for name in ("params", "param_sections", "params_file", "study_sections")),
    "fer_lib/onnx_session.py",  # threads and memory
    *("fer_lib/palette.py", "fer_lib/wording.py"),  # a colour and a name are no result
}
"""The root of the library but for the labels: no number depends on it."""


def find_module(name):
    path = ROOT / Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate.relative_to(ROOT).as_posix()
    return None


def find_imports(source):
    """Return the files of ours that `source` imports, wherever in it, but for those that only types need."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
        if isinstance(node, ast.ImportFrom):
            found |= {find_module(f"{node.module}.{alias.name}") for alias in node.names}
            found.add(find_module(node.module))
        elif isinstance(node, ast.Import):
            found |= {find_module(alias.name) for alias in node.names}
    return {path for path in found - {None} if path.startswith(("fer_lib/", "demo_faces/"))}


@cache
def find_imports_of_file(path):
    return find_imports((ROOT / path).read_text())


def find_used(start):
    """Return the files of ours that are imported, directly or through others, from `start` on."""
    used, waiting = set(), set(start)
    while waiting:
        path = waiting.pop()
        if path not in used | NO_RESULT:
            used.add(path)
            waiting |= find_imports_of_file(path)
    return {path for path in used if not path.endswith("__init__.py")}


def read_code(notebook):
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def get_command(stage):
    """Return the command of a stage: `ablate` of `python -m fer_lib ablate ...`."""
    return stage["cmd"].split()[3]


def find_used_by_stage(name):
    command = get_command(STAGES[name])
    if command == "notebook":
        # What turns the executed notebook into its page is not imported by the notebook itself.
        return find_used({*find_imports(read_code(name)), "fer_lib/reporting/execution.py"})
    if command == "prepare":
        return find_used({"fer_lib/data/prepare.py"})
    return find_used({find_module("fer_lib." + CALLS[command].function.partition(":")[0])})


def is_inside(path, folders):
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


@pytest.mark.parametrize("name", STAGES)
def test_stage_lists_the_code_that_it_uses_and_no_other(name):
    used = find_used_by_stage(name)
    listed = [dep for dep in STAGES[name]["deps"] if dep.startswith(("fer_lib/", "demo_faces"))]
    assert {path for path in used if not is_inside(path, listed)} == set()
    assert [dep for dep in listed if not any(is_inside(path, [dep]) for path in used)] == []


def list_stale(path):
    """Return the targets of demo that DVC would run when `path`, and all that they write, changes."""
    changed, stale = {path}, set()
    while True:
        found = {
            target
            for target, stage in TARGETS.items()
            for dep in stage["deps"]
            if any(is_inside(each, [dep]) or is_inside(dep, [each]) for each in changed)
        }
        if found == stale:
            return stale
        stale = found
        changed |= {out for target in stale for out in list_outs(TARGETS[target])}


@pytest.mark.parametrize("path", ["fer_lib/reporting/figures/style.py", "fer_lib/palette.py"])
def test_a_colour_reruns_pages_alone(path):
    assert not [target for target in list_stale(path) if get_command(TARGETS[target]) != "notebook"]


def test_a_reader_reruns_no_training_by_itself():
    direct = {
        get_command(stage)
        for stage in TARGETS.values()
        if is_inside("fer_lib/data/readers/mine.py", stage["deps"])
    }
    assert not direct & {"train-networks", "predict-networks", "ablate"}


def test_every_notebook_is_a_stage_and_every_stage_a_notebook():
    notebooks = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks == NOTEBOOK_STAGES


def test_stages_of_one_network_list_that_network():
    for dataset in PARAMS["datasets"]:
        params = load_params(dataset)
        asked = {"saliency": params.gradcam.network, "privacy": params.robustness.explained}
        for stage, network in asked.items():
            assert f"models/demo/{network}" in STAGES[stage]["deps"]
        released = {f"models/release/{name}" for name in params.releases}
        assert released <= set(STAGES["04_evaluation"]["deps"])


@pytest.mark.parametrize("name", NOTEBOOK_STAGES)
def test_stage_lists_the_parameters_it_reads(name):
    read = set(re.findall(r"stage\.params\.(\w+)", read_code(name)))
    listed = {param.split(".")[0] for param in STAGES[name]["params"]}
    assert read <= listed


@pytest.mark.parametrize("name", NOTEBOOK_STAGES)
def test_stage_names_its_notebook_page_and_metrics_alike(name):
    stage, short = STAGES[name], name.split("_", 1)[1]
    dataset = SCALE if short == SCALE else "demo"
    assert f"notebook {name} --dataset {dataset} --out-dir ." in stage["cmd"]
    assert f"notebooks/{name}.ipynb" in stage["deps"]
    kept = {"cache": False, "persist": True}
    assert {f"reports/{dataset}/metrics/{short}.json": kept} in stage["metrics"]


def test_metrics_of_dvc_are_the_headline_numbers_alone():
    # `dvc metrics diff` prints all of them: at most 15 of each notebook.
    metrics = [path for stage in TARGETS.values() for path in map(next, map(iter, stage.get("metrics", [])))]
    of_demo = [f"reports/demo/metrics/{name.split('_', 1)[1]}.json" for name in NOTEBOOK_STAGES[:-1]]
    assert sorted(metrics) == sorted([*of_demo, f"reports/{SCALE}/metrics/{SCALE}.json"])


def test_packed_faces_are_never_cached():
    # A cached output can be pushed to a remote; licensed faces must not be.
    assert STAGES["prepare"]["outs"] == [{"data/packed/demo": {"cache": False}}]


def test_every_data_set_lists_every_section():
    # DVC watches `datasets.<name>.<section>` and fails on a key that is not there.
    sections = set(PARAMS) - {"pipeline", "datasets", "smoke", SCALE, "finetuning"}  # the last of no stage
    given = {name: set(own) for name, own in PARAMS["datasets"].items() if name != SCALE}
    assert given == dict.fromkeys(given, sections)
