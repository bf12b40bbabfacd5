"""The app's page Results."""

import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from app_harness import collect_downloads, open_page, read_page
from conftest import REPO
from PIL import Image

from app import common, results_data
from app.number_titles import POINTS, name_number, show_key
from fer_lib import paths
from fer_lib.inference import registry
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.registry import DEFAULT_MODEL, RELEASE_DIR, list_variants
from fer_lib.intervals import Interval
from fer_lib.metrics_file import Metrics, write_metrics
from fer_lib.models.checkpoints import read_config
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs

ACCURACY = Interval(0.684, 0.668, 0.698)
IN_CONFIG = {"test.accuracy": 0.684, "test.accuracy_lo": 0.668, "test.accuracy_hi": 0.698}
DATA_HASH = "da7a" * 16


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer(threads=1)


@pytest.fixture
def downloads(monkeypatch):
    return collect_downloads(monkeypatch, common)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return an empty project folder, which the pages take for theirs."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(registry, "MODELS_DIR", tmp_path / "models")
    monkeypatch.setattr(registry, "RELEASE_DIR", tmp_path / "models" / "release")
    return tmp_path


# Results


def write_evaluation(project, dataset, network="", accuracy=ACCURACY, **facts):
    """Write the metrics of stage `evaluation`: the accuracy of a network, and plain facts of it."""
    metrics = Metrics("evaluation")
    metrics.add("accuracy", accuracy, model=network, split="test", n=1234)
    metrics.add("accuracy", 0.5, model="ensemble", split="test")  # no network
    for key, value in facts.items():
        metrics.describe(f"{network}.{key}", value)
    params = load_params("demo")
    dirs = get_output_dirs(dataset, project)
    write_metrics(dirs, metrics, {"dataset": dataset, "data_hash": DATA_HASH}, params, seed=0, wall_seconds=1)


def write_checkpoint(project, name, **changes):
    folder = project / "models" / name
    folder.mkdir(parents=True)
    released = read_config(RELEASE_DIR / DEFAULT_MODEL)
    config = list_variants(released)[released["default"]] | {"metrics": {}} | changes
    (folder / "config.json").write_text(json.dumps(config))


def write_report(project, dataset):
    """Write what the stage `evaluation` leaves: a page, a finding and two figures."""
    reports = project / "reports" / dataset
    (reports / "findings").mkdir(parents=True)
    (reports / "figures" / "evaluation").mkdir(parents=True)
    for name in ("confusion", "roc"):
        Image.new("RGB", (8, 8)).save(reports / "figures" / "evaluation" / f"{name}.webp")
    (reports / "findings" / "evaluation.md").write_text(
        "Two of three are right for $1 or $2.\n\n"
        "| quantity | value | 95% interval |\n|---|--:|--:|\n| images | 3 | [2, 4] |\n"
    )
    (reports / "03_training.html").write_text(
        f"<title>3 · Training · {dataset} · Facial emotion recognition</title>"
    )
    figures = "".join(
        f'<figure id="figure-{name}"><img alt="The {name} &amp; more." height="8" src="data:,"></figure>'
        for name in ("roc", "confusion")
    )
    (reports / "04_evaluation.html").write_text(
        f"<title>4 · Evaluation · {dataset} · Facial emotion recognition</title>"
        f'<a class="home" href="index.html">All</a><a href="#top">Top</a>{figures}'
        '<script src="../charts.js"></script>'
    )


def test_without_any_result_the_page_says_what_to_run(project):
    app = open_page("results")
    assert "`make results`" in read_page(app)
    assert not app.dataframe


def test_models_are_compared_by_scores_with_intervals(project):
    write_checkpoint(project, "release/mine", metrics=IN_CONFIG, git_commit="abcdef123456-dirty")
    both = {name: {"architecture": "a", "metrics": IN_CONFIG} for name in ("float", "tiny")}
    write_checkpoint(project, "release/small", variants=both)
    write_checkpoint(project, "mine/baseline", dataset="mine", data_hash=DATA_HASH)
    write_checkpoint(project, "mine/untested", dataset="mine")
    write_evaluation(project, "mine", "baseline", ACCURACY._replace(value=0.69), architecture="a")
    # Reports are in Git, the weights are not.
    write_evaluation(project, "cloned", "b0", architecture="tf_b0", image_size=64)
    models, problems = results_data.read_models()
    table = results_data.build_comparison(models).set_index("Model")
    assert not problems
    assert table["Accuracy"].str.replace("\N{NO-BREAK SPACE}", " ").to_dict() == {
        "mine (released)": "68.4% [66.8%, 69.8%]",
        "small, float (released)": "68.4% [66.8%, 69.8%]",
        "small, tiny (released)": "68.4% [66.8%, 69.8%]",
        "mine/baseline (study)": "69.0% [66.8%, 69.8%]",
        "mine/untested (study)": "–",
        "cloned/b0 (study)": "68.4% [66.8%, 69.8%]",
    }
    assert table.loc["mine (released)", "Commit"] == "abcdef1234 + changes"
    assert table.loc["cloned/b0 (study)", ["Architecture", "Image size", "Test images"]].tolist() == [
        *("tf_b0", "64 px", "1,234")
    ]
    assert table.loc["mine/baseline (study)", "Test images"] == "1,234"
    assert "Macro F1" not in table, "no model has it"
    assert results_data.list_scores(models) == {"Accuracy": "test.accuracy"}
    chart = results_data.build_chart_data(models, "test.accuracy")
    assert len(chart) == 5, "all but the untested"
    assert chart.loc[0, ["Model", "Kind", "value"]].tolist() == ["mine/baseline (study)", "study", 0.69]
    assert (chart["low"] <= 0.67).all()
    errors = [{"test.ece": value, "test.ece_lo": 0, "test.ece_hi": 1} for value in (0.3, 0.1)]
    two = [replace(models[0], metrics=metrics) for metrics in errors]
    assert results_data.build_chart_data(two, "test.ece")["value"].tolist() == [0.1, 0.3], "lower is better"


def test_page_opens_on_photographs_and_mixes_no_data_sets(project):
    for dataset in ("demo", "fer2013"):
        write_evaluation(project, dataset, "b0", architecture="a")
    for dataset in ("scale", "mine"):
        (project / "reports" / dataset / "tables").mkdir(parents=True)
    app = open_page("results")
    dataset = app.selectbox[0]
    assert dataset.value == "fer2013"
    assert dataset.options == [
        *("FER2013, small grey photographs found on the web", results_data.describe_dataset("demo")),
        *("Mine: faces from a folder of images", results_data.describe_dataset("scale")),
    ]
    assert "scoring, serving and training" in dataset.options[-1]
    assert app.dataframe[0].value["Model"].tolist() == ["fer2013/b0 (study)"]
    dataset.set_value("demo").run()
    assert app.dataframe[0].value["Model"].tolist() == ["demo/b0 (study)"]
    app.switch_page("views/about.py").run()
    app.switch_page("views/results.py").run()
    assert app.selectbox(key="results data set").value == "demo", "where it was left"
    dataset = app.selectbox[0]
    chart = json.loads(app.get("vega_lite_chart")[0].proto.spec)
    assert chart["encoding"]["y"]["axis"]["labelColor"] == "#11151A", "that of the theme"
    dataset.set_value("scale").run()
    assert not app.dataframe, "machines have no models"


def test_scores_by_annotators_are_those_of_the_network():
    metrics = Metrics("evaluation")
    for network, value in {"b0": 0.8, "lite": 0.7}.items():
        metrics.add("accuracy", Interval(value, 0.6, 0.9), model=f"annotators.{network}", split="test")
    model = results_data.ScoredModel(
        "m", results_data.STUDY, "d", "a", None, "", results_data._pick_metrics(metrics, "b0")
    )
    [shown] = results_data.build_comparison([model])["Accuracy by annotators"]
    assert shown.replace("\N{NO-BREAK SPACE}", " ") == "80.0% [60.0%, 90.0%]"


def test_evaluation_of_other_data_is_not_the_scores_of_a_baseline(project):
    write_checkpoint(project, "mine/baseline", dataset="mine", data_hash="other")
    write_evaluation(project, "mine", "baseline", architecture="a")
    [model], _ = results_data.read_models()
    assert not results_data.get_interval(model.metrics, "test.accuracy").is_defined


@pytest.mark.parametrize("damaged", [{"test.accuracy": float("nan")}, {"test.accuracy_lo": None}])
def test_no_number_is_shown_that_is_none(damaged):
    model = results_data.ScoredModel("m", results_data.STUDY, "d", "a", None, "", {**IN_CONFIG, **damaged})
    assert "Accuracy" not in results_data.build_comparison([model])
    assert results_data.build_chart_data([model], "test.accuracy").empty


def test_numbers_of_a_stage_are_shown_with_their_intervals(project):
    metrics = Metrics("privacy")
    metrics.add("accuracy", ACCURACY, split="test")
    metrics.add("accuracy", ACCURACY, model="b0", split="test_dedup")
    metrics.add("ece", 0.03, split="val")
    metrics.add("seconds", 1234567.0)
    metrics.describe("network", "b0")
    assert results_data.build_metric_table(metrics).to_numpy().tolist() == [
        ["Accuracy", "68.4%", "66.8% to 69.8%"],
        ["Accuracy of b0, no duplicates", "68.4%", "66.8% to 69.8%"],
        ["val: ece", "0.03", "–"],
        ["seconds", "1,234,567", "–"],
        ["network", "b0", "–"],
    ]


def read_headlines():
    """Return stage and key to each headline number that is in Git."""
    return {
        (path.parents[1].name, path.stem, key): value
        for path in sorted(REPO.glob("reports/*/metrics/*.json"))
        for key, value in json.loads(path.read_bytes()).items()
        if isinstance(value, int | float)
    }


def test_every_headline_number_has_a_name_of_its_own():
    headlines = read_headlines()
    assert len(headlines) > 100
    named = {place: name_number(place[-1]) for place in headlines}
    assert {key for (*_, key), (name, _) in named.items() if name == show_key(key)} == set()
    assert not [name for name, _ in named.values() if "_" in name or ":" in name]
    assert all(spec for _, spec in named.values())
    assert {spec for (*_, key), (_, spec) in named.items() if key.endswith("gain")} == {POINTS}
    per_stage = Counter((*place[:2], name) for place, (name, _) in named.items())
    assert max(per_stage.values()) == 1, "two numbers of a stage share a name"


def test_numbers_of_a_network_are_named_as_the_reports_do():
    assert name_number("lite.int8.float_reference.gain") == (
        "Accuracy gain of lite (INT8), over the same network in FP32",
        POINTS,
    )
    assert name_number("student.int8.test.accuracy")[0] == "Accuracy of student (INT8)"
    assert name_number("student.sparse_70.test.accuracy")[0] == "Accuracy of student (70% zeros)"
    assert name_number("int8.test.accuracy")[0] == "Accuracy of the selected INT8 network"
    assert name_number("resnet18.tta.test.accuracy")[0] == "Accuracy of resnet18 tta"


def test_differences_are_written_in_points_with_a_sign():
    metrics = Metrics("ablations")
    metrics.add("accuracy.gain", Interval(-0.0013, -0.0074, 0.0049), model="paper.no_focal_loss")
    metrics.add("recall.gain", 0.0505, model="paper.no_focal_loss", of="fear")
    metrics.add("gap_change", -0.0001, split="age")
    metrics.add("energy.gain_over_random", 0.1465, model="chosen")
    assert results_data.build_metric_table(metrics).to_numpy()[:, 1:].tolist() == [
        ["-0.1 points", "-0.7 to +0.5"],
        ["+5.1 points", "–"],
        ["+0.0 points", "–"],
        ["+0.146", "–"],
    ]


@pytest.mark.parametrize(
    ("value", "spec", "shown"),
    [
        (0, POINTS, "+0.0 points"),
        (1, ".1%", "100.0%"),
        (1234, "", "1,234"),
        (True, "", "true"),
        (None, "", "null"),
    ],
)
def test_whole_numbers_are_written_like_others_of_their_kind(value, spec, shown):
    assert results_data.show_value(value, spec) == shown


def test_damaged_model_is_named_and_the_others_are_shown(project):
    write_checkpoint(project, "release/good", metrics=IN_CONFIG)
    write_checkpoint(project, "release/odd", preprocessing=None)
    (project / "models" / "release" / "bad").mkdir()
    (project / "models" / "release" / "bad" / "config.json").write_text("{")
    app = open_page("results")
    read_page(app)
    assert ["bad" in warning.value for warning in app.warning] == [True, False]
    assert "odd" in app.warning[1].value
    assert app.dataframe[0].value["Model"].tolist() == ["good (released)"]


def test_study_of_a_data_set_is_shown_and_read_anew_when_it_changes(project, downloads):
    write_report(project, "mine")
    write_evaluation(project, "mine")
    (project / "reports" / "mine" / "tables" / "privacy.csv").write_text("a stage without a page")
    app = open_page("results")
    text = read_page(app)
    assert "| images | 3 | [2, 4] |" in text, "the finding's table"
    assert r"**4 · Evaluation.** Two of three are right for \$1 or \$2." in text
    assert "**3 · Training.** No finding" in text
    page = app.selectbox(key="page of mine")
    assert (page.value, page.options) == (1, ["3 · Training", "4 · Evaluation"])
    assert [image.captions[0] for image in app.image] == ["The roc & more.", "The confusion & more."]
    assert "<title>4 · Evaluation" in downloads["mine_04_evaluation.html"].decode()
    assert "mine_study.html" not in downloads
    (project / "reports" / "mine" / "study.html").write_text("all pages")
    app.run()
    assert downloads["mine_study.html"]() == b"all pages"
    assert re.search(r"From data da7ada7ada7a, code \S{10}.*, seed 0, device \S+\.", read_page(app))
    (project / "reports" / "mine" / "findings" / "evaluation.md").write_text("All are right.\n")
    assert "**4 · Evaluation.** All are right." in read_page(app.run())
    # Half written, or by hand: the page stays.
    for path, content in (("provenance/evaluation.json", "[1,"), ("tables/evaluation.csv", "a\n1,2,3\n")):
        (project / "reports" / "mine" / path).write_text(content)
        assert "Traceback" not in read_page(app.run())
        assert not app.error


def test_report_can_be_read_inside_without_links_that_lead_nowhere(project):
    write_report(project, "mine")
    write_evaluation(project, "mine")
    app = open_page("results")
    assert not app.get("iframe")
    app.toggle[0].set_value(True).run()
    [frame] = app.get("iframe")
    assert 'href="index.html"' not in frame.proto.srcdoc
    assert "charts.js" not in frame.proto.srcdoc
    assert '<a href="#top">' in frame.proto.srcdoc
