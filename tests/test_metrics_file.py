import json
import math

import numpy as np
import pandas as pd
import pytest

from fer_lib import metrics_file
from fer_lib.errors import FerError
from fer_lib.intervals import UNDEFINED, Interval
from fer_lib.machine import describe_cpu
from fer_lib.metrics_file import COLUMNS, Metrics, build_key, read_metrics, write_metrics
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.provenance import hash_file

META = {"dataset": "demo", "data_hash": "da7a" * 16}
PARAMS = load_params("demo")
ACCURACY = Interval(0.65249, 0.637, 0.668)


@pytest.fixture
def dirs(tmp_path, monkeypatch):
    """Return the output folders of a run whose code is known."""
    monkeypatch.setattr(metrics_file, "get_commit", lambda: "c0ffee" * 6)
    monkeypatch.setattr(metrics_file, "hash_stage_code", lambda stage: {"fer_lib/data": "c0de"})
    return get_output_dirs("demo", tmp_path)


def build(accuracy=ACCURACY, seconds=3.5, stage="training", **facts):
    metrics = Metrics(stage)
    metrics.add("accuracy", accuracy, split="test", n=601)
    metrics.add("recall", 0.25, model="b0", split="test", of="fear")
    metrics.add("seconds", seconds, model="arm")
    for key, value in facts.items():
        metrics.describe(key, value)
    return metrics


def write(
    dirs, metrics=None, meta=META, params=PARAMS, seed=0, wall_seconds=10.0, headline=("test.accuracy",)
):
    """Write the metrics; return the paths of table, headline numbers and provenance."""
    metrics = metrics or build()
    write_metrics(dirs, metrics, meta, params, seed, wall_seconds, headline)
    name = metrics.stage
    return dirs.get_table(name), dirs.metrics / f"{name}.json", dirs.get_provenance(name)


def test_three_files_hold_numbers_headlines_and_what_they_depend_on(dirs):
    table, headline, provenance = write(dirs, build(selected="b0"), seed=7)
    assert table.read_text().splitlines() == [
        ",".join(COLUMNS),
        "training,,test,accuracy,,0.65249,0.637,0.668,601",
        "training,b0,test,recall,fear,0.25,,,",
        "training,arm,,seconds,,3.5,,,",
    ]
    assert json.loads(headline.read_text()) == {"test.accuracy": 0.65249}
    written = json.loads(provenance.read_text())
    assert list(written) == sorted(written)
    assert written.pop("device")
    assert written.pop("cpu") == describe_cpu()
    assert len(written.pop("params")) == 64  # sha256, in hex
    assert written == {
        "stage": "training",
        "dataset": "demo",
        "code": {"fer_lib/data": "c0de"},
        "data": "da7a" * 16,
        "inputs": {},
        "seed": 7,
        "commit": "c0ffee" * 6,
        "wall_seconds": 10.0,
        "table_sha256": hash_file(table),
        "facts": {"selected": "b0"},
    }


def test_what_was_written_is_read_again(dirs):
    metrics = build(selected="b0", layers=["conv", "linear"])
    write(dirs, metrics)
    read = read_metrics(dirs, "training")
    assert dict(read) == dict(metrics)
    assert read.interval("test.accuracy") == ACCURACY
    assert (read.count("test.accuracy"), read.count("arm.seconds")) == (601, None)
    pd.testing.assert_frame_equal(read.to_frame(), metrics.to_frame(), check_dtype=False)
    assert read.provenance["seed"] == 0
    assert read.flatten() == {**metrics, "test.accuracy_lo": 0.637, "test.accuracy_hi": 0.668}


def test_floats_keep_six_significant_digits_and_whole_numbers_all(dirs):
    metrics = Metrics("training")
    for name, value in {"small": 0.00123456789, "large": 1234567.8, "bytes": 3326111, "one": 1.0}.items():
        metrics.add(name, value)
    write(dirs, metrics)
    read = read_metrics(dirs, "training")
    assert dict(read) == {"small": 0.00123457, "large": 1234570.0, "bytes": 3326111, "one": 1}
    assert ",bytes,,3326111,," in dirs.get_table("training").read_text()


def test_key_is_its_parts_and_search_by_a_part_finds_it():
    assert build_key("recall", "b0", "test", "angry") == "b0.test.recall.angry"
    assert build_key("accuracy") == "accuracy"
    metrics = build()
    assert metrics["b0.test.recall.fear"] == 0.25
    assert list(metrics.select(split="test")["metric"]) == ["accuracy", "recall"]
    assert list(metrics.select(of="fear")["model"]) == ["b0"]
    assert metrics.select(metric="none").empty


def test_scores_by_name_are_metric_and_class():
    metrics = Metrics("evaluation")
    metrics.add_scores({"accuracy": 0.5, "recall.angry": ACCURACY, "macro.recall": 0.25}, split="test", n=9)
    frame = metrics.to_frame().set_index("metric")
    assert frame["class"].to_dict() == {"accuracy": "", "recall": "angry", "macro.recall": ""}
    assert metrics.interval("test.recall.angry") == ACCURACY


def test_undefined_number_is_left_out_and_other_than_finite_is_an_error():
    metrics = Metrics("training")
    metrics.add("recall", UNDEFINED, of="fear")
    metrics.add("recall", math.nan, of="disgust")
    assert len(metrics) == 0
    for value in (np.inf, Interval(0.5, 0.1, math.inf), Interval(0.5, math.nan, 0.7)):
        with pytest.raises(FerError, match="training: recall: expected finite numbers"):
            metrics.add("recall", value)


def test_two_numbers_of_one_name_are_an_error():
    metrics = build()
    metrics.add("recall", 1, split="test")
    with pytest.raises(FerError, match=r"two numbers are called test\.recall"):
        metrics.add("recall", 1, model="test")
    metrics.describe("selected", "b0")
    with pytest.raises(FerError, match="two numbers are called selected"):
        metrics.add("selected", 1)
    with pytest.raises(FerError, match=r"two numbers are called test\.accuracy"):
        metrics.add("accuracy", 0.9, split="test")
    with pytest.raises(FerError, match=r"found test\.accuracy twice"):
        metrics.describe("test.accuracy", "high")


def test_number_without_interval_has_none():
    with pytest.raises(KeyError, match=r"b0\.test\.recall\.fear has no interval"):
        build().interval("b0.test.recall.fear")
    with pytest.raises(KeyError):
        build().interval("nope")
    assert build().get("nope") is None


def test_headlines_are_few_and_those_that_are_there(dirs):
    _, headline, _ = write(dirs, headline=["test.accuracy", "test.recall.contempt"])
    assert json.loads(headline.read_text()).keys() == {"test.accuracy"}
    with pytest.raises(FerError, match="at most 15 headline numbers, found 16"):
        write(dirs, headline=[f"n{i}" for i in range(16)])


def test_stage_without_headlines_writes_no_metrics_for_dvc(dirs):
    _, headline, _ = write(dirs, build(stage="recipes/b0"), headline=())
    assert not headline.exists()
    assert dict(read_metrics(dirs, "recipes/b0")) == dict(build(stage="recipes/b0"))


def test_stage_that_no_pipeline_knows_says_where_to_add_it(dirs):
    with pytest.raises(FerError, match=r"no stage writes provenance/nope\.json; add it to its outs"):
        write(dirs, build(stage="nope"))


def identify(paths):
    """Return what changes when a file is written, even with the same content."""
    return [(path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]


def test_rerun_with_the_same_numbers_leaves_every_file_untouched(dirs, monkeypatch):
    before = identify(paths := write(dirs))
    # A change elsewhere, of code that the stage does not use, is another commit and nothing more.
    monkeypatch.setattr(metrics_file, "get_commit", lambda: "decaf" * 8)
    write(dirs, build(seconds=88.8), wall_seconds=99.0)
    assert identify(paths) == before


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": build(Interval(0.7, 0.6, 0.8))},
        {"metrics": build(Interval(0.65249, 0.6, 0.668))},
        {"metrics": build(selected="b0")},
        {"meta": META | {"data_hash": "0" * 64}},
        {"params": PARAMS.model_copy(update={"training": PARAMS.training.model_copy(update={"lr": 0.5})})},
        {"seed": 1},
    ],
)
def test_any_other_difference_rewrites_them_with_their_time(dirs, change):
    before = identify(paths := write(dirs))
    write(dirs, **change, wall_seconds=99.0)
    assert identify(paths) != before
    assert read_metrics(dirs, "training").provenance["wall_seconds"] == 99.0
    assert read_metrics(dirs, "training").provenance["table_sha256"] == hash_file(paths[0])


def test_parameters_of_another_stage_do_not_count(dirs):
    before = identify(paths := write(dirs))
    write(dirs, params=PARAMS.model_copy(update={"recipes": {}}))
    assert identify(paths) == before


def test_other_code_rewrites_the_provenance(dirs, monkeypatch):
    _, _, provenance = write(dirs)
    monkeypatch.setattr(metrics_file, "hash_stage_code", lambda stage: {"fer_lib/data": "other"})
    monkeypatch.setattr(metrics_file, "get_commit", lambda: "decaf" * 8)
    write(dirs)
    assert json.loads(provenance.read_text())["commit"] == "decaf" * 8


@pytest.mark.parametrize("number", [0, 1, 2])
def test_damaged_or_missing_file_is_replaced(dirs, number):
    path = write(dirs)[number]
    whole = path.read_bytes()
    for damage in (b'{"a": ', None):
        path.unlink() if damage is None else path.write_bytes(damage)
        write(dirs)
        assert path.read_bytes() == whole


def test_changed_time_is_mended(dirs):
    table, *_ = write(dirs)
    whole = table.read_text()
    table.write_text(whole.replace("seconds,,3.5", "seconds,,9.9"))
    write(dirs)
    assert table.read_text() == whole


@pytest.mark.parametrize("content", ["", "[]", '{"seed": 0}', "stage,model\n", "a,b\n1,2\n"])
def test_damaged_file_is_one_line_that_names_it(dirs, content):
    table, _, provenance = write(dirs)
    (table if "," in content else provenance).write_text(content)
    with pytest.raises(
        FerError, match=r"expected what stage 'training' writes, found .*; run it again"
    ) as error:
        read_metrics(dirs, "training")
    assert str(table) in str(error.value)
    assert "\n" not in str(error.value)


def test_interval_reads_as_the_field_writes_it():
    assert f"{ACCURACY}".replace("\N{NO-BREAK SPACE}", " ") == "0.652 [0.637, 0.668]"
    assert f"{ACCURACY:.1%}".replace("\N{NO-BREAK SPACE}", " ") == "65.2% [63.7%, 66.8%]"
    assert f"{UNDEFINED:.1%}" == "–"
    assert Interval(0.25, -0.5, 0.75).to_points() == (25, -50, 75)
    assert not UNDEFINED.is_defined


def test_metrics_of_a_stage_that_has_not_run_say_what_to_do(dirs):
    with pytest.raises(FerError, match=r"training\.csv: not found; run stage 'training' first"):
        read_metrics(dirs, "training")
    write(dirs)[2].unlink()
    with pytest.raises(FerError, match=r"training\.json: not found; run stage 'training' first"):
        read_metrics(dirs, "training")
