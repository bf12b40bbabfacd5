"""The committed notebooks: what they look like, and that every one runs."""

import ast
import json
import os
import re
import subprocess
import sys

import nbformat
import pytest
from conftest import REPO, build_command_environment, run_fer_lib

from fer_lib.metrics_file import MAX_HEADLINE
from fer_lib.reporting.results import SCALE

NOTEBOOKS = sorted(path.stem for path in (REPO / "notebooks").glob("*.ipynb"))

AUDIT_PARAMETERS = {"08_robustness": {"model": None, "data": None, "variant": None, "n_faces": 300}}
"""Of the notebook that also audits one model on any faces."""


def get_dataset(name):
    return SCALE if name.endswith(SCALE) else "demo"


def read_notebook(name):
    return nbformat.read(REPO / "notebooks" / f"{name}.ipynb", as_version=4)


def read_code_cells(name):
    return [cell for cell in read_notebook(name).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
class TestForm:
    def test_is_committed_without_outputs(self, name):
        for cell in read_code_cells(name):
            assert cell.outputs == []
            assert cell.execution_count is None

    def test_runs_on_any_python_kernel(self, name):
        metadata = read_notebook(name).metadata
        assert metadata.kernelspec.name == "python3"
        assert "version" not in metadata.get("language_info", {})  # changes with whoever saved it last

    def test_takes_three_parameters(self, name):
        tagged = [c for c in read_code_cells(name) if "parameters" in c.metadata.get("tags", [])]
        assert len(tagged) == 1
        assigned = {
            node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(tagged[0].source).body
        }
        expected = {"dataset": get_dataset(name), "smoke": False, "out_dir": None}
        assert assigned == expected | AUDIT_PARAMETERS.get(name, {})

    def test_defines_nothing(self, name):
        for cell in read_code_cells(name):
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, kinds)]

    def test_is_short(self, name):
        assert len(read_notebook(name).cells) <= 40

    def test_opens_with_its_question_and_closes_with_its_finding(self, name):
        first, *_, last = read_notebook(name).cells
        marks = re.findall(
            r"^(# |\*\*Question\.\*\*|\*\*Inputs\.\*\*|\*\*Outputs\.\*\*)", first.source, re.MULTILINE
        )
        assert marks == ["# ", "**Question.**", "**Inputs.**", "**Outputs.**"]
        assert "show_finding(" in last.source

    def test_starts_its_own_stage(self, name):
        code = "\n".join(cell.source for cell in read_code_cells(name))
        assert f'start_stage("{name}", dataset, smoke, out_dir)' in code


STAGES = """
import notebook_engine
from concurrent.futures import ThreadPoolExecutor
from fer_lib import jobs
from fer_lib.analysis.counterfactuals import predict_counterfactuals
from fer_lib.analysis.explain_study import evaluate_saliency
from fer_lib.analysis.privacy import measure_privacy
from fer_lib.analysis.robustness import predict_perturbed
from fer_lib.deployment.compression import compress_networks
from fer_lib.deployment.latency import time_variants
from fer_lib.evaluation.ablations import run_ablations
from fer_lib.evaluation.predictions import predict_networks
from fer_lib.reporting.execution import run_notebook
from fer_lib.reporting.results import list_notebooks
from fer_lib.training.networks import train_networks

jobs._start_pool = lambda *_: ThreadPoolExecutor(1)  # new processes would start longer than these train
for stage in (
    *(train_networks, predict_networks, run_ablations, compress_networks, time_variants),
    *(evaluate_saliency, predict_perturbed, predict_counterfactuals, measure_privacy),
):
    stage("demo")
for dataset in ("scale", "demo"):
    for path in list_notebooks(dataset):
        run_notebook(path.stem, dataset, None, smoke=True)
"""
"""Every stage of the pipeline in one process; the notebooks, in smoke mode, come last."""


@pytest.fixture(scope="module")
def smoke_results(tiny_project):
    """Run every stage, and the notebooks in smoke mode; return the folder of the pages, by data set."""
    environment = build_command_environment(tiny_project)
    environment["PYTHONPATH"] += f"{os.pathsep}{REPO / 'tests'}"
    command = [sys.executable, "-c", STAGES]
    done = subprocess.run(command, cwd=tiny_project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tiny_project / "scratch" / "reports"


@pytest.mark.parametrize("name", NOTEBOOKS)
class TestSmokeRun:
    def test_writes_page_metrics_figures_and_finding(self, smoke_results, name):
        reports, stage = smoke_results / get_dataset(name), name.split("_", 1)[1]
        assert len((reports / "tables" / f"{stage}.csv").read_text().splitlines()) > 2
        provenance = json.loads((reports / "provenance" / f"{stage}.json").read_text())
        assert provenance["dataset"] == get_dataset(name)
        assert f"notebooks/{name}.ipynb" in provenance["code"]
        headline = json.loads((reports / "metrics" / f"{stage}.json").read_text())
        assert 1 <= len(headline) <= MAX_HEADLINE
        assert list((reports / "figures" / stage).glob("*.webp"))
        assert (reports / "findings" / f"{stage}.md").read_text().strip()
        assert (reports / f"{name}.html").is_file()

    def test_page_says_it_is_a_smoke_run(self, smoke_results, name):
        assert "Smoke run" in (smoke_results / get_dataset(name) / f"{name}.html").read_text()

    def test_page_is_self_contained_described_and_small(self, smoke_results, name):
        page = (smoke_results / get_dataset(name) / f"{name}.html").read_text()
        images = re.findall(r"<img [^>]*>", page)
        assert images
        assert all(re.search(r'alt="[^"]{10,}"', image) for image in images)
        outside = re.findall(r"""(?:src|href)=["'](?!data:|#|(?:\.\./scale/)?[\w.]+\.html)([^"']*)""", page)
        assert set(outside) <= {"pages.js", "../charts.js"}  # without which only comforts are missing
        chart = r'<script type="application/vnd\.vegalite\+json">.*?</script>'
        assert sum(map(len, re.findall(chart, page))) < 150_000
        shared = r"<style>(?s:.*?)</style>|<script>(?s:.*?)</script>"  # by all pages
        text = re.sub(rf"data:image/webp;base64,[A-Za-z0-9+/=]+|{chart}|{shared}", "", page)
        assert len(text) < 150_000

    def test_page_names_no_folder_of_this_machine(self, smoke_results, name):
        page = (smoke_results / get_dataset(name) / f"{name}.html").read_text()
        assert str(smoke_results.parents[1]) not in page
        assert str(REPO) not in page


def test_index_links_every_notebook(smoke_results):
    pages = {name: (smoke_results / get_dataset(name) / "index.html").read_text() for name in NOTEBOOKS}
    assert all(f'href="{name}.html"' in page for name, page in pages.items())
    assert not any("Not run yet." in page for page in pages.values())


def test_what_belongs_beside_a_verdict_was_measured(smoke_results):
    listed = json.loads((smoke_results / "demo" / "claims.json").read_text())["claims"]
    claims = {claim["id"]: claim for claim in listed}
    for name, n in {"S10": 1, "S11": 2, "S12": 4, "N1": 1, "N5": 3}.items():
        assert [check["outcome"] for check in claims[name]["beside"]] == n * ["context"]
    paper = claims["S7"]["checks"][0]  # an arm that these tiny parameters keep
    assert paper["budget"].startswith("1 epoch of ")
    assert paper["budget"].endswith(" faces at 32 px, seeds 1, 0")
    assert paper["low"] <= paper["value"] <= paper["high"]


def test_rerun_in_a_kernel_gives_the_same_bytes(smoke_results):
    reports, name = smoke_results / "demo", NOTEBOOKS[0]
    before = {path: path.read_bytes() for path in reports.rglob("*") if path.is_file()}
    done = run_fer_lib(reports.parents[2], "notebook", name, "--dataset", "demo", "--smoke")
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in reports.rglob("*") if path.is_file()} == before
