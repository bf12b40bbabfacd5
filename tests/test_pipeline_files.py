"""dvc.yaml against the code: a stage that does not list what it uses would not rerun when that changes."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

NOT_LISTED = {
    "fer_lib/__init__.py",
    "fer_lib/data/readers/__init__.py",  # only `prepare` opens readers; it lists the whole folder
    "fer_lib/errors.py",  # texts of errors; no result depends on them
    "fer_lib/files.py",  # how files are written, not what
    "fer_lib/reporting/index_page.py",  # its page is rebuilt at every run and is no stage's output
    "fer_lib/params.py",  # the values it reads are listed under `params:`
    "fer_lib/paths.py",
    "fer_lib/provenance.py",
}


def find_module(name):
    path = ROOT / Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate.relative_to(ROOT).as_posix()
    return None


def find_imports(source):
    """Return the fer_lib files that `source` imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fer_lib":
            found.add(find_module(node.module))
            found |= {find_module(f"{node.module}.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                find_module(alias.name) for alias in node.names if alias.name.split(".")[0] == "fer_lib"
            }
    return found - {None}


def find_used_files(source):
    """Return the fer_lib files that `source` imports, directly or through others."""
    used, waiting = set(), find_imports(source)
    while waiting:
        path = waiting.pop()
        if path not in used:
            used.add(path)
            # The package's own __init__ imports every reader; who imports one module needs only that one.
            if path != "fer_lib/data/readers/__init__.py":
                waiting |= find_imports((ROOT / path).read_text())
    return used


def read_code(notebook):
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def read_stage(name):
    return STAGES[name].get("do", STAGES[name])  # `foreach` has a template, `matrix` is one


NOTEBOOK_STAGES = [name for name in STAGES if name[0].isdigit()]
COMMANDS = {
    "recipe": "recipes",
    "teacher": "teacher",
    "student": "recipes",
    "predict-splits": "predictions",
    "ablation": "ablations",
    "distilled": "recipes",
    "pruned": "recipes",
    "compress": "compression",
    "latency": "latency",
    "compared": "recipes",
    "mitigation": "recipes",
    "test-heatmaps": "explain_study",
    "perturb": "robustness",
    "vary": "variants",
    "attack": "privacy",
}
"""Stages that run a command, and the module behind it."""


def test_every_notebook_is_a_stage_and_every_stage_a_notebook():
    notebooks = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks == NOTEBOOK_STAGES


@pytest.mark.parametrize("name", NOTEBOOK_STAGES)
def test_stage_lists_exactly_the_files_it_uses(name):
    used = find_used_files(read_code(name)) - NOT_LISTED
    # What turns the executed notebook into its page is not imported by the notebook itself.
    used |= {"fer_lib/reporting/execution.py", "fer_lib/report_template"}
    listed = {dep for dep in read_stage(name)["deps"] if dep.startswith("fer_lib")}
    assert listed == used


@pytest.mark.parametrize("name", COMMANDS)
def test_command_lists_exactly_the_files_it_uses(name):
    module = f"fer_lib/{COMMANDS[name]}.py"
    used = find_used_files((ROOT / module).read_text()) | {module}
    assert {dep for dep in read_stage(name)["deps"] if dep.startswith("fer_lib")} == used - NOT_LISTED


def test_every_stage_is_known_here():
    assert set(STAGES) == {"prepare", *NOTEBOOK_STAGES, *COMMANDS}


def test_studies_and_recipes_are_those_of_the_parameters():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert STAGES["ablation"]["matrix"]["study"] == list(params["ablations"]["studies"])
    # A member trains in stage `recipe`; the student, whom the members teach, in a stage of its own, and after
    # it those whom it teaches, the pruned ones one from another.
    distilled = STAGES["distilled"]["matrix"]["recipe"]
    pruned = [command.split()[4] for command in read_stage("pruned")["cmd"]]
    first = [*params["ensemble"]["members"], "student"]
    compared = [*STAGES["compared"]["matrix"]["recipe"], *STAGES["mitigation"]["matrix"]["recipe"]]
    assert [*first, *compared, *distilled, *pruned] == list(params["recipes"])
    assert set(params["robustness"]["audited"]) <= {"student.float32", *compared}
    assert STAGES["predict-splits"]["matrix"]["network"] == ["baseline", *first]
    assert set(params["compression"]["networks"]) <= {"student", *distilled, *pruned}


def test_stages_list_the_networks_they_show_faces_to():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    robustness = params["robustness"]
    asked = {
        "test-heatmaps": [params["gradcam"]["network"]],
        "perturb": [*robustness["networks"], *robustness["members"], robustness["explained"]],
        "vary": robustness["audited"],
        "attack": [robustness["explained"]],
    }
    for stage, names in asked.items():
        names = set(names) - {"ensemble"}
        needed = {name.partition(".")[0] for name in names}
        needed |= {"compressed"} if any("." in name for name in names) else set()
        listed = {dep.rpartition("/")[2] for dep in read_stage(stage)["deps"] if dep.startswith("models/")}
        assert listed == needed, stage


def test_prepare_lists_the_files_it_uses():
    listed = read_stage("prepare")["deps"]
    used = find_used_files((ROOT / "fer_lib/data/prepare.py").read_text()) - NOT_LISTED
    missing = {path for path in used if not path.startswith("fer_lib/datasets/")} - set(listed)
    assert not missing
    assert {"fer_lib/data/prepare.py", "fer_lib/datasets"} <= set(listed)


@pytest.mark.parametrize("name", NOTEBOOK_STAGES)
def test_stage_lists_the_parameters_it_reads(name):
    read = set(re.findall(r"stage\.params\.(\w+)", read_code(name)))
    listed = {param.split(".")[0] for param in read_stage(name)["params"]}
    assert read <= listed


@pytest.mark.parametrize("name", NOTEBOOK_STAGES)
def test_stage_names_its_notebook_page_and_metrics_alike(name):
    stage, short = read_stage(name), name.split("_", 1)[1]
    assert f"notebook {name} --dataset ${{key}} --out-dir ." in stage["cmd"]
    assert f"notebooks/{name}.ipynb" in stage["deps"]
    assert {f"reports/${{key}}/metrics/{short}.json": {"cache": False, "persist": True}} in stage["metrics"]


def test_packed_faces_are_never_cached():
    # A cached output can be pushed to a remote; licensed faces must not be.
    assert read_stage("prepare")["outs"] == [{"data/packed/${key}": {"cache": False}}]


def test_every_data_set_lists_every_section():
    # DVC watches `datasets.<name>.<section>` and fails on a key that is not there.
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    sections = set(params) - {"pipeline", "datasets", "smoke"}
    assert {name: set(given) for name, given in params["datasets"].items()} == dict.fromkeys(
        params["datasets"], sections
    )
