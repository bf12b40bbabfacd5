"""The claims ledger: every rule at its boundaries, what is missing, the 89% table, and the files written."""

import json
import re
from pathlib import Path

import pytest
from conftest import REPO
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fer_lib.errors import FerError
from fer_lib.evaluation.browser_record import RECORD, list_tests
from fer_lib.evaluation.claim_rules import (
    BASES,
    BELOW,
    CONTAINED,
    IMPLEMENTED,
    MEASURED,
    REACHED,
    RULES,
    Records,
    Rule,
    judge_threshold,
)
from fer_lib.evaluation.claims import (
    BESIDE,
    CLAIMS_FILE,
    VERDICTS,
    Claim,
    count_verdicts,
    describe_verdicts,
    judge_claim,
    load_claims,
    load_records,
    spell_verdict,
    tabulate_checks,
    tabulate_verdicts,
    write_ledger,
)
from fer_lib.evaluation.paper import EPOCHS, collect_accuracies, describe_accuracies
from fer_lib.intervals import Interval
from fer_lib.labels import EMOTIONS_7, EMOTIONS_8
from fer_lib.metrics_file import Metrics
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.reporting.figures import claims as plots_claims

REPRODUCED, PARTLY, INCONCLUSIVE, NOT_REPRODUCED, NOT_TESTED = VERDICTS[MEASURED]
DONE, _, NOT_DONE, _ = VERDICTS[IMPLEMENTED]

IDS = [*(f"S{n}" for n in range(1, 16)), *(f"N{n}" for n in range(1, 7))]

AT_LEAST = {"kind": "at_least", "values": {"04_evaluation/test.accuracy": 0.89}}
GAINS = {
    "kind": "gains",
    "gains": {
        "05_ablations/loss.focal_2.accuracy.gain": "positive",
        "04_evaluation/ensemble.gain": "negative",
    },
}
GREATER = {
    "kind": "greater",
    "pairs": [
        [f"04_evaluation/test.precision.{name}", "04_evaluation/test.macro.precision"]
        for name in ("happy", "neutral")
    ],
}
EQUALS = {
    "kind": "equals",
    "values": {"03_training/recipe.lr": 0.001, "03_training/recipe.schedule": "constant"},
}
PRESENT = {
    "kind": "present",
    "numbers": ["04_evaluation@fer2013/test.accuracy", "04_evaluation@affectnet/test.accuracy"],
}
PASSED = {"kind": "passed", "tests": ["test_photo", "test_live[dark]"]}
ONE_GAIN = {"kind": "gains", "gains": {"05_ablations/a.gain": "positive"}}

ENTRY = """
  - id: S1
    title: Works
    claim: It works.
    paper: null
    rule: {kind: at_least, values: {04_evaluation/test.accuracy: 0.5}}
"""


def build_metrics(stage="evaluation", values=None, **provenance):
    """Return metrics by key: a text is a fact."""
    metrics = Metrics(stage, provenance=provenance)
    for key, value in (values or {}).items():
        if isinstance(value, str):
            metrics.describe(key, value)
        else:
            metrics.add(key, value)
    return metrics


def judge(rule, metrics=None, project=REPO, figures=(), names=None, **given):
    """Judge one rule on the metrics of data set `demo`: stage's name to values, or to its `Metrics`."""
    figure = "05_ablations.html#figure-loss"
    claim = Claim(
        **{"id": "S1", "title": "Works", "claim": "It works.", "paper": None, "figure": figure} | given,
        rule=rule,
    )
    datasets = metrics if metrics and "demo" in metrics else {"demo": metrics or {}}
    built = {
        dataset: {
            stage: values if isinstance(values, Metrics) else build_metrics(stage, values)
            for stage, values in stages.items()
        }
        for dataset, stages in datasets.items()
    }
    return judge_claim(claim, Records("demo", built, project, figures, names or {}))


def write_metrics_file(root, dataset, metrics):
    """Write what `read_metrics` reads."""
    dirs = get_output_dirs(dataset, root)
    provenance = {"data": f"{dataset}-data", "commit": "c0ffee", "seed": 3, "facts": metrics.facts}
    table = dirs.get_table(metrics.stage)
    for path in (table, dirs.get_provenance(metrics.stage)):
        path.parent.mkdir(parents=True, exist_ok=True)
    metrics.to_frame().to_csv(table, index=False)
    dirs.get_provenance(metrics.stage).write_text(json.dumps(provenance))


def build_evaluation(accuracy, emotions=EMOTIONS_7, selected="b0"):
    """Return metrics as stage evaluation writes them; each interval is two points wide on either side."""
    metrics = build_metrics(values={"selected": selected})
    for name in emotions:
        metrics.add("precision", 0.5, split="test", of=name)
    models = {"": 0.0, "baseline": -0.01, "b0": 0.0, "tta": 0.01, "ensemble": 0.02}
    for model, more in models.items():
        metrics.add("accuracy", surround(accuracy + more), model=model, split="test")
    metrics.add("accuracy", Interval(0.99, 0.98, 1.0), split="test_dedup")
    for model in ("", "b0"):
        metrics.add("accuracy", surround(accuracy), model=model, split="val")
    metrics.add("accuracy", surround(accuracy + 0.1), split="test.group")
    return metrics


def surround(value):
    return Interval(value, value - 0.02, value + 0.02)


class TestAtLeast:
    @pytest.mark.parametrize(
        ("low", "high", "verdict"),
        [
            (0.89, 0.92, REPRODUCED),  # the low end may be the value itself
            (0.889, 0.92, INCONCLUSIVE),
            (0.85, 0.89, INCONCLUSIVE),  # the high end still contains it
            (0.85, 0.889, NOT_REPRODUCED),
        ],
    )
    def test_interval_decides(self, low, high, verdict):
        row = judge(AT_LEAST, {"evaluation": {"test.accuracy": Interval(0.9, low, high)}})
        assert row["verdict"] == verdict
        assert (row["ours"], row["low"], row["high"]) == (0.9, low, high)

    def test_value_without_interval_decides_nothing(self):
        row = judge(AT_LEAST, {"evaluation": {"test.accuracy": 0.95}})
        assert row["verdict"] == NOT_TESTED
        assert row["reason"] == "Test.accuracy was measured without an interval."

    def test_numbers_are_named_in_words_and_shown_in_their_unit(self):
        names = {"04_evaluation/test.accuracy": "the accuracy (%)"}
        row = judge(AT_LEAST, {"evaluation": {"test.accuracy": Interval(0.9, 0.895, 0.91)}}, names=names)
        found = f"{Interval(0.9, 0.895, 0.91):.1%}"
        assert row["reason"] == f"The accuracy is {found}; the claim needs at least 89.0%."

    @given(
        low=st.floats(0, 1),
        width=st.floats(0, 1),
        up=st.floats(0, 1),
        wider=st.floats(0, 1),
        value=st.floats(0, 1),
    )
    def test_interval_that_moves_up_is_never_worse(self, low, width, up, wider, value):
        order = [NOT_REPRODUCED, INCONCLUSIVE, REPRODUCED]
        rule = {**AT_LEAST, "values": {"04_evaluation/test.accuracy": value}}
        before, after = (
            judge(rule, {"evaluation": {"test.accuracy": Interval(start, start, end)}})["verdict"]
            for start, end in ((low, low + width), (low + up, max(low + width, low + up) + wider))
        )
        assert order.index(after) >= order.index(before)

    def test_every_value_has_to_be_reached(self):
        values = {"04_evaluation/test.accuracy": 0.5, "06_compression/int8.rate": 25}
        metrics = {
            "evaluation": {"test.accuracy": Interval(0.6, 0.55, 0.65)},
            "compression": {"int8.rate": Interval(20.0, 18.0, 22.0)},
        }
        row = judge({**AT_LEAST, "values": values}, metrics)
        assert row["verdict"] == PARTLY
        assert row["reason"] == (
            "1 of 2 parts hold. Test.accuracy is 0.600 [0.550, 0.650]; the claim needs at least 0.5. "
            "Int8.rate is 20 [18, 22]; the claim needs at least 25."
        )

    @given(low=st.floats(0, 1), width=st.floats(0, 1), value=st.floats(0, 2))
    def test_one_function_places_every_interval(self, low, width, value):
        position = judge_threshold(low, low + width, value)
        assert (position == REACHED) == (low >= value)
        assert (position == BELOW) == (low + width < value)


class TestGains:
    def judge_gains(self, positive, negative):
        ablations = {"loss.focal_2.accuracy.gain": Interval(sum(positive) / 2, *positive)}
        evaluation = {"ensemble.gain": Interval(sum(negative) / 2, *negative)}
        return judge(GAINS, {"ablations": ablations, "evaluation": evaluation})

    @pytest.mark.parametrize(
        ("positive", "negative", "verdict"),
        [
            ((0.001, 0.02), (-0.02, -0.001), REPRODUCED),
            ((0.001, 0.02), (-0.02, 0.0), PARTLY),  # an interval that touches 0 shows no difference
            ((0.0, 0.02), (-0.02, 0.01), INCONCLUSIVE),
            ((0.0, 0.02), (0.001, 0.02), NOT_REPRODUCED),  # one of them says the opposite
            ((-0.02, -0.001), (0.001, 0.02), NOT_REPRODUCED),
        ],
    )
    def test_interval_must_lie_wholly_on_the_expected_side(self, positive, negative, verdict):
        assert self.judge_gains(positive, negative)["verdict"] == verdict

    # A lower value has its interval turned round, so that both say how much lower.
    @pytest.mark.parametrize(
        ("gain", "sign", "sentence"),
        [
            (
                (0.012, -0.002, 0.026),
                "positive",
                "1.2 points higher than with the recipe [-0.2, 2.6]; the claim expects it to be higher, "
                "and the interval contains 0.",
            ),
            (
                (-0.183, -0.2, -0.167),
                "negative",
                "18.3 points lower than with the recipe [16.7, 20.0], as claimed.",
            ),
            (
                (0.0002, -0.01, 0.0104),
                "negative",
                "0.0 points higher than with the recipe [-1.0, 1.0]; the claim expects it to be lower, "
                "and the interval contains 0.",
            ),
            (
                (0.02, 0.01, 0.03),
                "negative",
                "2.0 points higher than with the recipe [1.0, 3.0]; the claim expects it to be lower.",
            ),
        ],
    )
    def test_reason_says_over_what_and_what_the_claim_expects(self, gain, sign, sentence):
        names = {"05_ablations/a.gain": "accuracy without it, compared with the recipe (points)"}
        rule = {"kind": "gains", "gains": {"05_ablations/a.gain": sign}}
        row = judge(rule, {"ablations": {"a.gain": Interval(*gain)}}, names=names)
        assert row["reason"] == f"Accuracy without it is {sentence}"

    def test_one_missing_difference_leaves_it_untested(self):
        known = {"ablations": {"loss.focal_2.accuracy.gain": Interval(0.1, 0.05, 0.2)}}
        row = judge(GAINS, known)
        assert row["verdict"] == NOT_TESTED
        assert row["reason"] == "Page 04 (evaluation) has not been run on this data set."
        assert [check["outcome"] for check in row["checks"]] == ["supported", "missing"]


class TestGreater:
    @pytest.mark.parametrize(
        ("happy", "neutral", "verdict"),
        [
            (0.81, 0.81, REPRODUCED),
            (0.81, 0.80, PARTLY),  # the low end must be above, not at, the other's high end
            (0.80, 0.60, INCONCLUSIVE),
        ],
    )
    def test_low_end_against_the_other_high_end(self, happy, neutral, verdict):
        values = {
            "test.macro.precision": Interval(0.70, 0.6, 0.8),
            "test.precision.happy": Interval(0.9, happy, 0.95),
            "test.precision.neutral": Interval(0.9, neutral, 0.95),
        }
        assert judge(GREATER, {"evaluation": values})["verdict"] == verdict

    def test_interval_below_the_other_one_contradicts(self):
        values = {"test.macro.precision": Interval(0.7, 0.65, 0.75)}
        values |= {f"test.precision.{name}": Interval(0.6, 0.5, 0.64) for name in ("happy", "neutral")}
        assert judge(GREATER, {"evaluation": values})["verdict"] == NOT_REPRODUCED

    def test_needs_the_other_number_too(self):
        values = {"test.precision.happy": Interval(0.9, 0.8, 0.95)}
        row = judge(GREATER, {"evaluation": values})
        assert row["verdict"] == NOT_TESTED
        missing = [check["key"] for check in row["checks"]]
        assert missing == ["test.macro.precision", "test.precision.neutral"]


class TestEquals:
    @pytest.mark.parametrize(
        ("lr", "schedule", "verdict"),
        [
            (0.001, "constant", DONE),
            (0.002, "constant", PARTLY),
            (0.002, "cosine", NOT_DONE),
        ],
    )
    def test_settings(self, lr, schedule, verdict):
        row = judge(EQUALS, {"training": {"recipe.lr": lr, "recipe.schedule": schedule}})
        assert row["verdict"] == verdict
        assert row["file"] == "reports/demo/tables/training.csv"

    def test_whole_and_floating_numbers_are_equal(self):
        rule = {"kind": "equals", "values": {"03_training/image_size": 224}}
        row = judge(rule, {"training": {"image_size": 224.0}})
        assert (row["verdict"], row["reason"]) == (DONE, "Image_size is 224, as in the paper.")


class TestPresent:
    @pytest.mark.parametrize(
        ("datasets", "verdict"),
        [(("fer2013", "affectnet"), DONE), (("affectnet",), PARTLY), ((), NOT_TESTED)],
    )
    def test_data_sets(self, datasets, verdict):
        metrics = {name: {"evaluation": {"test.accuracy": 0.7}} for name in datasets}
        assert judge(PRESENT, {"demo": {}, **metrics})["verdict"] == verdict

    def test_reason_says_when_there_is_no_such_notebook(self, tmp_path):
        row = judge({"kind": "present", "numbers": ["06_compression/int8"]}, project=tmp_path)
        assert row["reason"] == "Page 06 (compression) does not exist yet."

    def test_reason_names_the_data_set_that_was_not_evaluated(self):
        row = judge(PRESENT, {"demo": {}, "fer2013": {"evaluation": {"test.accuracy": 0.7}}})
        found = "1 of 2 parts hold. Test.accuracy is 0.700."
        assert row["reason"] == f"{found} Page 04 (evaluation) has not been run on affectnet."

    @pytest.mark.parametrize(("reported", "verdict"), [("ab", DONE), ("b", PARTLY), ("c", NOT_TESTED)])
    def test_numbers(self, reported, verdict):
        rule = {"kind": "present", "numbers": ["06_compression/a", "06_compression/b"]}
        assert judge(rule, {"compression": dict.fromkeys(reported, 1)})["verdict"] == verdict


class TestPassed:
    def judge_passed(self, root, **tests):
        (root / RECORD).parent.mkdir(parents=True, exist_ok=True)
        record = {"tests": {"test_photo": "passed", **tests}, "commit": "c0ffee"}
        (root / RECORD).write_text(json.dumps(record))
        return judge(PASSED, project=root)

    @pytest.mark.parametrize(
        ("live", "verdict"), [("passed", REPRODUCED), ("failed", PARTLY), ("skipped", NOT_TESTED)]
    )
    def test_each_test_has_to_pass(self, tmp_path, live, verdict):
        row = self.judge_passed(tmp_path, **{"test_live[dark]": live})
        assert row["verdict"] == verdict
        assert (row["basis"], row["file"], row["key"]) == (MEASURED, RECORD.as_posix(), "test_photo")
        assert [check["commit"] for check in row["checks"]] == ["c0ffee", "c0ffee"]

    def test_reason_names_what_failed(self, tmp_path):
        reason = self.judge_passed(tmp_path, **{"test_live[dark]": "failed"})["reason"]
        passed = "1 of 2 parts hold. Photo: the test passed in a browser."
        assert reason == f"{passed} Live[dark]: the test failed in a browser."

    def test_unknown_test_is_missing(self, tmp_path):
        assert self.judge_passed(tmp_path)["verdict"] == NOT_TESTED

    def test_without_a_record_it_says_how_to_get_one(self, tmp_path):
        row = judge(PASSED, project=tmp_path)
        assert row["verdict"] == NOT_TESTED
        assert row["reason"] == "The tests in a browser have not been run (make record)."

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"tests": []}'])
    def test_damaged_record_is_one_line(self, tmp_path, text):
        (tmp_path / RECORD).parent.mkdir(parents=True)
        (tmp_path / RECORD).write_text(text)
        with pytest.raises(FerError, match=r"browser\.json: expected what `make record` writes") as caught:
            judge(PASSED, project=tmp_path)
        assert "\n" not in str(caught.value)


class TestBeside:
    def judge_beside(self, *numbers):
        metrics = {
            "evaluation": {"test.accuracy": Interval(0.95, 0.93, 0.97)},
            "compression": {"machine": "AMD EPYC"},
        }
        return judge(AT_LEAST, metrics, beside=numbers)

    def test_stands_in_the_row_with_its_interval_and_decides_nothing(self):
        row = self.judge_beside("04_evaluation/test.accuracy", "06_compression/machine")
        assert row["verdict"] == REPRODUCED
        assert row["also"] == "Test.accuracy is 0.950 [0.930, 0.970]. Machine is AMD EPYC."
        assert [check["outcome"] for check in row["beside"]] == [BESIDE, BESIDE]
        assert len(row["checks"]) == 1

    def test_missing_one_is_told_and_leaves_the_verdict(self):
        row = self.judge_beside("04_evaluation/b.gain")
        assert (row["verdict"], row["also"]) == (REPRODUCED, "B.gain was not measured, or on too few faces.")

    def test_without_any_there_is_nothing_to_tell(self):
        assert self.judge_beside()["also"] is None


class TestRow:
    def test_names_where_its_numbers_come_from(self):
        values = {"a.gain": Interval(0.02, 0.01, 0.03), "seeds": "0, 1, 2"}
        metrics = build_metrics("ablations", values, seed=0, data="da7a", commit="c0ffee")
        row = judge(ONE_GAIN, {"ablations": metrics})
        assert row["file"] == "reports/demo/tables/ablations.csv"
        assert (row["key"], row["seeds"], row["dataset"]) == ("a.gain", "0, 1, 2", "demo")
        assert (row["checks"][0]["data_hash"], row["checks"][0]["commit"]) == ("da7a", "c0ffee")

    def test_seed_of_a_single_run(self):
        metrics = build_metrics(values={"test.accuracy": Interval(0.6, 0.5, 0.7)}, seed=7)
        assert judge(AT_LEAST, {"evaluation": metrics})["seeds"] == "7"

    @pytest.mark.parametrize(
        ("facts", "budget"),
        [
            ({"a.budget": "5 epochs of 700 faces"}, "5 epochs of 700 faces"),
            ({"a.gain.budget": "15 epochs", "a.budget": "5 epochs"}, "15 epochs"),  # an arm's own
            ({"budget": "5 epochs"}, "5 epochs"),  # of the network that the stage is about
            ({"b.budget": "1 epoch"}, None),  # another's
        ],
    )
    def test_budget_is_that_of_the_study_or_network_of_the_number(self, facts, budget):
        metrics = build_metrics("ablations", {"a.gain": Interval(0.02, 0.01, 0.03)})
        for key, fact in facts.items():
            metrics.describe(key, fact)
        assert [check["budget"] for check in judge(ONE_GAIN, {"ablations": metrics})["checks"]] == [budget]

    def test_seeds_are_those_of_the_number_shown(self):
        both = {
            "kind": "gains",
            "gains": {"04_evaluation/b.gain": "positive", "05_ablations/a.gain": "positive"},
        }
        gain = Interval(0.02, 0.01, 0.03)
        metrics = {
            "evaluation": build_metrics("evaluation", {"b.gain": gain}, seed=7),
            "ablations": build_metrics("ablations", {"a.gain": gain, "seeds": "0, 1"}, seed=0),
        }
        row = judge(both, metrics)
        assert row["seeds"] == "7"
        assert [check["seeds"] for check in row["checks"]] == [7, "0, 1"]

    def test_figure_is_named_once_its_stage_has_run_and_the_page_once_it_has_the_figure(self):
        assert judge(AT_LEAST)["figure"] is None
        assert judge(AT_LEAST, {"ablations": {}})["figure"] == "05_ablations.html"
        shown = judge(AT_LEAST, {"ablations": {}}, figures={"ablations/loss"})
        assert shown["figure"] == "05_ablations.html#figure-loss"

    def test_missing_stage(self):
        row = judge(ONE_GAIN)
        assert row["verdict"] == NOT_TESTED
        assert row["reason"] == "Page 05 (ablations) has not been run on this data set."
        assert row["ours"] is row["low"] is row["seeds"] is None

    def test_missing_key(self):
        row = judge(ONE_GAIN, {"ablations": {"b.gain": 0.1}})
        assert (row["verdict"], row["reason"]) == (
            NOT_TESTED,
            "A.gain was not measured, or on too few faces.",
        )


class TestLedger:
    def test_holds_every_claim_once_in_order(self):
        assert [claim.id for claim in load_claims()] == IDS

    def test_states_the_paper_s_accuracy(self):
        rule = next(claim for claim in load_claims() if claim.id == "N1").rule
        assert list(rule.values.values()) == [EPOCHS["val_accuracy"].iloc[-1]]

    def test_names_tests_of_the_app_that_there_are(self):
        named = [test for claim in load_claims() if claim.rule.kind == "passed" for test in claim.rule.tests]
        assert named
        assert {test.partition("[")[0] for test in named} <= list_tests(REPO)

    def test_rests_on_the_paper_s_budget(self):
        paper = {*load_params("fer2013").ablations.paper_studies, "vote_over"}
        assert {study for study, _ in find_named_arms()} <= paper

    def test_names_arms_that_are_trained(self):
        arms = set(list_arms("fer2013"))
        arms |= {("vote_over", arm) for study, arm in arms if study == "ensemble"}
        assert find_named_arms() <= arms | {("ensemble", "soft_vote")}

    def test_names_every_arm_that_is_trained_on_drawn_faces(self):
        # Each takes its time in `make repro`. Those that need votes run nowhere there.
        arms = list_arms("demo")
        trained = {arm for arm, changes in arms.items() if "targets" not in changes.training}
        trained -= {("reference", "reference"), ("paper", "reference")}
        assert trained
        assert trained <= find_named_arms()

    def test_names_pages_of_notebooks_as_they_are_called(self):
        stages = {path.stem.split("_", 1)[1]: path.stem for path in (REPO / "notebooks").glob("0*.ipynb")}
        named = set(re.findall(r"\b(0\d_([a-z]+))", CLAIMS_FILE.read_text()))
        assert all(stages.get(short, whole) == whole for whole, short in named)

    def test_links_to_figures_that_a_notebook_draws(self):
        for claim in load_claims():
            page, _, figure = (claim.figure or "").partition("#figure-")
            notebook = REPO / "notebooks" / page.replace(".html", ".ipynb")
            if figure and notebook.is_file():
                source = notebook.read_text()
                assert any(f'{mark}\\"{figure}\\"' in source for mark in ("name=", "    ")), claim.id

    def test_states_every_kind_of_rule_in_words(self):
        kinds = {variant["properties"]["kind"]["const"] for variant in find_variants()}
        assert RULES.keys() == {"every rule", *kinds}
        assert BASES.keys() == kinds
        assert all(len(words) > 30 for words in RULES.values())  # a sentence, no placeholder

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ("values:", "valeus:", "S1: rule.at_least.values"),
            ("at_least", "at_lest", "S1: rule"),
            ("04_evaluation/", "04_evaluaton/", "S1: rule.at_least.values.04_evaluaton/test.accuracy"),
            ("04_evaluation/test.accuracy", "test.accuracy", "S1: rule.at_least.values.test.accuracy"),
            ("0.5", "half", "S1: rule.at_least.values.04_evaluation/test.accuracy"),
            ("paper:", "beside: [test.accuracy]\n    paper:", "S1: beside.0"),
            ("paper:", "papre:", "S1: paper"),
            ("paper:", "ntoe: an unknown key\n    paper:", "S1: ntoe"),
            ("values:", "vlaue: 1, values:", "S1: rule.at_least.vlaue"),
            ("id: S1", "id: X1", "X1: id"),
            ("id: S1", "name: S1", "expected `claims:`"),
            ("- id", "id", "expected `claims:`"),
            ("{kind", "{{kind", "expected `claims:`"),
        ],
    )
    def test_typo_is_one_line_that_says_where(self, tmp_path, old, new, expected):
        path = tmp_path / "claims.yaml"
        assert old in ENTRY
        path.write_text(f"numbers: {{}}\nclaims:{ENTRY}".replace(old, new, 1))
        with pytest.raises(FerError) as caught:
            load_claims(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert expected in message
        assert "\n" not in message

    def test_claim_may_not_stand_twice(self, tmp_path):
        path = tmp_path / "claims.yaml"
        path.write_text(f"numbers: {{}}\nclaims:{ENTRY}{ENTRY}")
        with pytest.raises(FerError, match="S1: expected once, found 2 times"):
            load_claims(path)

    def test_lost_ledger_is_one_line(self, tmp_path):
        with pytest.raises(FerError, match=r"claims\.yaml: expected"):
            load_claims(tmp_path / "claims.yaml")


def find_named_arms():
    """Return study and arm of every gain in the ledger."""
    return set(re.findall(r"05_ablations/(\w+)\.(\w+)\.", CLAIMS_FILE.read_text()))


def list_arms(dataset):
    """Return what the arms of a data set change, by study and arm."""
    return {
        (name, arm): changes
        for name, study in load_params(dataset).ablations.list_studies().items()
        for arm, changes in study.arms.items()
        if changes
    }


def find_variants():
    return TypeAdapter(Rule).json_schema()["$defs"].values()


class TestRecords:
    def test_reads_what_is_there(self, tmp_path):
        for dataset, accuracy in {"demo": 0.8, "fer2013": 0.7, ".hidden": 0.1}.items():
            write_metrics_file(tmp_path, dataset, build_metrics(values={"test.accuracy": accuracy}))
        records = load_records(get_output_dirs("demo", tmp_path))
        assert records.metrics.keys() == {"demo", "fer2013"}
        assert records.metrics["demo"]["evaluation"]["test.accuracy"] == 0.8

    def test_every_number_has_a_name_and_every_name_a_number(self, tmp_path):
        records = load_records(get_output_dirs("demo", tmp_path), tmp_path)
        rows = [judge_claim(claim, records) for claim in load_claims()]
        numbers = [check for row in rows for check in (*row["checks"], *row["beside"])]
        assert [check["key"] for check in numbers if check["name"] == check["key"]] == []
        pairs = [pair for claim in load_claims() for pair in getattr(claim.rule, "pairs", ())]
        others = {other.split("/")[1] for _, other in pairs}  # told by the first where both are missing
        assert {name.split("/")[1] for name in records.names} == {c["key"] for c in numbers} | others
        assert len(set(records.names.values())) == len(records.names)

    def test_no_sentence_of_a_verdict_has_a_key(self, tmp_path):
        records = load_records(get_output_dirs("fer2013", REPO))
        for row in (judge_claim(claim, records) for claim in load_claims()):
            for text in (row["title"], row["claim"], row["note"], row["reason"], row["also"]):
                assert not re.search(r"[a-z_]\.[a-z_]", text or ""), row["id"]

    def test_every_claim_is_judged_with_nothing_measured(self, tmp_path):
        records = load_records(get_output_dirs("demo", tmp_path), tmp_path)
        rows = [judge_claim(claim, records) for claim in load_claims()]
        assert {row["verdict"] for row in rows} == {NOT_TESTED}
        assert all(row["reason"] and row["figure"] is None for row in rows)

    @pytest.mark.parametrize("part", ["table", "provenance"])
    def test_damaged_file_is_one_line(self, tmp_path, part):
        write_metrics_file(tmp_path, "demo", build_metrics())
        dirs = get_output_dirs("demo", tmp_path)
        path = dirs.get_table("evaluation") if part == "table" else dirs.get_provenance("evaluation")
        path.write_text("{\n1,2\n")
        with pytest.raises(
            FerError, match=r"evaluation\.csv, .*: expected what stage 'evaluation'"
        ) as caught:
            load_records(dirs)
        assert "\n" not in str(caught.value)

    def test_another_stage_s_file_does_not_matter(self, tmp_path):
        write_metrics_file(tmp_path, "demo", build_metrics("claims"))
        dirs = get_output_dirs("demo", tmp_path)
        dirs.get_table("claims").write_text("{")
        load_records(dirs)


class TestAccuracies:
    @pytest.fixture
    def accuracies(self, tmp_path):
        write_metrics_file(tmp_path, "fer2013", build_evaluation(0.70))
        write_metrics_file(tmp_path, "ferplus", build_evaluation(0.85, EMOTIONS_8))
        return [
            row
            for dataset in ("fer2013", "ferplus")
            for row in collect_accuracies(load_records(get_output_dirs(dataset, tmp_path)), 0.89)
        ]

    def test_lists_each_way_to_predict_once(self, accuracies):
        found = [
            (row["split"], row["model"], row["labels"], row["classes"])
            for row in accuracies
            if row["dataset"] == "ferplus"
        ]
        assert found == [
            ("test", "baseline (the paper's recipe)", "emotions", 8),
            ("test", "b0 (selected)", "emotions", 8),
            ("test", "b0, twelve views", "emotions", 8),
            ("test", "ensemble", "emotions", 8),
            ("test", "b0 (selected)", "groups", 3),
            ("validation", "b0 (selected)", "emotions", 8),
        ]
        assert {row["classes"] for row in accuracies if row["dataset"] == "fer2013"} == {7, 3}

    def test_says_where_each_interval_lies(self, accuracies):
        positions = {(row["dataset"], row["model"], row["labels"]): row["reached"] for row in accuracies}
        assert positions["ferplus", "b0 (selected)", "groups"] == REACHED  # from 93%
        assert positions["ferplus", "ensemble", "emotions"] == CONTAINED  # 85% to 89%
        assert positions["ferplus", "b0 (selected)", "emotions"] == BELOW  # up to 87%
        assert {row["reached"] for row in accuracies if row["dataset"] == "fer2013"} == {BELOW}

    def test_names_data_and_code(self, accuracies):
        assert accuracies[0]["data_hash"] == "fer2013-data"
        assert accuracies[0]["commit"] == "c0ffee"

    def test_reads_an_evaluation_of_one_network(self):
        metrics = Metrics("evaluation")
        metrics.add("accuracy", Interval(0.68, 0.66, 0.70), split="test")
        metrics.add("precision", 0.5, split="test", of="happy")
        rows = collect_accuracies(Records("demo", {"demo": {"evaluation": metrics}}), 0.89)
        assert [(row["model"], row["classes"]) for row in rows] == [("the network", 1)]

    def test_float_network_is_listed_where_its_other_scores_are_of_other_weights(self):
        compressed = Metrics("compression", provenance={"commit": "d0d0"})
        compressed.add("accuracy", surround(0.81), model="b0.float32", split="test")
        evaluation = build_evaluation(0.8)
        evaluation.describe("read_back", "b0, lite0")
        stages = {"evaluation": evaluation, "compression": compressed}
        rows = collect_accuracies(Records("demo", {"demo": stages}), 0.89)
        assert ("b0 (FP32)", 0.81) in [(row["model"], row["accuracy"]) for row in rows]

    def test_lists_compressed_variants_once(self):
        compressed = Metrics("compression", provenance={"commit": "d0d0"})
        for model, accuracy in {
            "b0.float32": 0.8,  # stage evaluation has scored it
            "compact.float32": 0.7,
            "b0.int8": 0.79,
            "b0.int8_all": 0.78,
            "b0.sparse_70": 0.1,
            "smallest": 0.79,  # another one's, by what it was chosen for
        }.items():
            compressed.add("accuracy", surround(accuracy), model=model, split="test")
        stages = {"evaluation": build_evaluation(0.8), "compression": compressed}
        rows = collect_accuracies(Records("demo", {"demo": stages}), 0.89)
        found = [(row["model"], row["accuracy"]) for row in rows if row["split"] == "test"]
        assert found[4:-1] == [
            ("b0 (INT8)", 0.79),
            ("b0 (INT8 throughout)", 0.78),
            ("b0 (70% zeros)", 0.1),
            ("compact (FP32)", 0.7),
        ]
        assert rows[4]["commit"] == "d0d0"

    def test_reads_nothing_where_nothing_was_evaluated(self):
        assert collect_accuracies(Records("demo", {"demo": {}}), 0.89) == []

    def test_the_annotators_majority_is_a_label_set_of_its_own(self):
        metrics = build_metrics(values={"selected": "b0"})
        metrics.add("accuracy", Interval(0.8, 0.7, 0.9), model="annotators", split="test")
        metrics.add("accuracy", 0.9, model="lite0", split="test")  # without an interval
        [row] = collect_accuracies(Records("demo", {"demo": {"evaluation": metrics}}), 0.89)
        assert (row["labels"], row["model"], row["reached"]) == ("annotators", "b0", CONTAINED)

    def test_finding_names_the_highest_and_the_paper_s_figure(self, accuracies):
        sentence, table = describe_accuracies(accuracies, 0.89)
        best, highest = f"{Interval(0.87, 0.85, 0.89):.1%}", f"{Interval(0.95, 0.93, 0.97):.1%}"
        assert sentence == (
            f"The highest test accuracy for the 8 emotions of the labels is {best} (`ensemble`), whose "
            "interval contains the paper's 89%."
        )
        assert table == {
            "highest test accuracy for the 8 emotions of the labels": best,
            "highest of all accuracies (test, 3 groups: b0 (selected))": highest,
            "accuracies whose whole interval reaches 89%": "1 of 12",
        }

    @pytest.mark.parametrize(
        ("dataset", "place"),
        [("ferplus", "whose interval contains the paper's 89%."), ("fer2013", "below the paper's 89%.")],
    )
    def test_finding_says_where_the_highest_lies(self, accuracies, dataset, place):
        of_emotions = [row for row in accuracies if row["labels"] == "emotions" and row["dataset"] == dataset]
        assert describe_accuracies(of_emotions, 0.89)[0].endswith(place)

    def test_finding_without_any(self):
        sentence, table = describe_accuracies([], 0.89)
        assert "No accuracy" in sentence
        assert not table


class TestCounts:
    @pytest.fixture
    def counts(self):
        found = {
            (MEASURED, REPRODUCED): 1,
            (MEASURED, NOT_REPRODUCED): 3,
            (IMPLEMENTED, DONE): 2,
            (IMPLEMENTED, PARTLY): 1,
        }
        rows = [{"id": "S1", "basis": basis, "verdict": verdict} for basis, verdict in found]
        return count_verdicts([row for row, n in zip(rows, found.values(), strict=True) for _ in range(n)])

    def test_the_two_kinds_of_claims_are_counted_apart(self, counts):
        assert counts == {
            "measured.n": 4,
            "measured.reproduced": 1,
            "measured.partly": 0,
            "measured.inconclusive": 0,
            "measured.not_reproduced": 3,
            "measured.not_tested": 0,
            "implemented.n": 3,
            "implemented.implemented": 2,
            "implemented.partly": 1,
            "implemented.not_implemented": 0,
            "implemented.not_tested": 0,
        }

    def test_sentence_counts_the_measured_ones_and_the_table_both(self, counts):
        sentence = "Of the 4 measured claims, 1 is reproduced and 3 are not reproduced on demo."
        assert describe_verdicts(counts, "demo") == sentence
        assert tabulate_verdicts(counts) == {
            "measured claims reproduced": "1 of 4",
            "measured claims reproduced in part": "0 of 4",
            "measured claims inconclusive": "0 of 4",
            "measured claims not reproduced": "3 of 4",
            "measured claims not tested": "0 of 4",
            "claims about the implementation that are met": "2 of 3",
        }

    def test_every_rule_of_the_ledger_is_of_one_kind(self):
        measured = {claim.id for claim in load_claims() if claim.rule.basis == MEASURED}
        implemented = {claim.id for claim in load_claims() if claim.rule.basis == IMPLEMENTED}
        assert implemented == {"S2", "S3", "S6", "S9", "S10", "S12"}
        assert measured | implemented == set(IDS)


def test_table_of_checks_names_every_number_with_its_budget():
    gain = {"a.gain": Interval(0.02, 0.01, 0.03), "seeds": "0, 1", "a.budget": "1 epoch"}
    table = tabulate_checks(
        [
            judge(ONE_GAIN, {"ablations": gain}, beside=("05_ablations/b.gain",)),
            judge(PRESENT, {"demo": {}, "fer2013": {"evaluation": {"test.accuracy": 0.7}}}, id="S2"),
        ]
    )
    assert {name: column.tolist() for name, column in table.items()} == {
        "claim": ["S1: Works", "S1: Works", "S2: Works", "S2: Works"],
        "number": ["a.gain", "b.gain", "test.accuracy", "test.accuracy"],
        "outcome": ["supported", "missing", "supported", "not supported"],
        "budget": ["1 epoch", "–", "–", "–"],
        "seeds": ["0, 1", "0, 1", "–", "–"],
    }


def test_ledger_file_is_the_same_on_every_run(tmp_path):
    write_metrics_file(tmp_path, "demo", build_evaluation(0.8))
    dirs = get_output_dirs("demo", tmp_path)
    path = dirs.reports / "claims.json"
    contents = []
    for _ in range(2):
        records = load_records(dirs)
        rows = [judge_claim(claim, records) for claim in load_claims()]
        write_ledger(dirs, rows, collect_accuracies(records, 0.89))
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    written = json.loads(contents[0])
    assert [row["id"] for row in written["claims"]] == IDS
    assert all(row["verdict"] in VERDICTS[row["basis"]] for row in written["claims"])
    assert written["rules"] == RULES
    assert len(written["accuracies"]) == 6  # those of `build_evaluation`
    assert str(tmp_path) not in contents[0].decode()
    assert str(Path.home()) not in contents[0].decode()


class TestFigures:
    @pytest.fixture
    def rows(self):
        ablations = {"a.b.accuracy.gain": Interval(0.02, 0.01, 0.03), "c.gain": Interval(0.0, -0.1, 0.1)}
        claims = [
            {
                "kind": "gains",
                "gains": {"05_ablations/a.b.accuracy.gain": "positive", "05_ablations/c.gain": "negative"},
            },
            {"kind": "gains", "gains": {"05_ablations/lost.gain": "negative"}},
            {"kind": "at_least", "values": {"05_ablations/c.gain": 1.0}},
            {"kind": "present", "numbers": ["05_ablations/c.gain"]},
        ]
        names = {"05_ablations/a.b.accuracy.gain": "accuracy with b, compared with a (points)"}
        return [judge(rule, {"ablations": ablations}, names=names) for rule in claims]

    def test_verdicts_show_a_tile_and_the_name_of_each_claim(self, rows):
        panels = plots_claims.plot_verdicts(rows).axes
        # Three rest on a measurement, one on what was built.
        assert [len(axes.patches) for axes in panels] == [3, 1]
        for axes, (basis, verdicts), n in zip(panels, VERDICTS.items(), (3, 1), strict=True):
            shown = [text.get_text() for text in axes.texts]
            assert axes.get_title("left") == f"{basis.capitalize()} claims"
            assert [text.partition(":")[0] for text in shown if "Works" not in text] == [
                spell_verdict(verdict, basis) for verdict in verdicts
            ]
            assert shown.count("S1: Works") == n

    def test_gains_show_each_measured_difference(self, rows):
        axes = plots_claims.plot_gains(rows).axes[0]
        assert [label.get_text() for label in axes.get_yticklabels()] == [
            "S1: accuracy with b\nover a",
            "S1: c.gain",
        ]
        low, high = axes.get_xlim()
        assert low < -10 < 10 < high  # the widest interval, in points
        assert [patch.get_width() > 0 for patch in axes.patches] == [True, False]  # the expected sides

    def test_accuracies_show_an_interval_each_their_groups_and_the_paper_s_line(self):
        records = Records("demo", {"demo": {"evaluation": build_evaluation(0.8)}})
        rows = collect_accuracies(records, 0.89)
        axes = plots_claims.plot_accuracies(rows, 0.89).axes[0]
        assert len(axes.collections) == len(rows)
        groups = ["test, 7 emotions", "test, 3 groups", "validation, 7 emotions"]
        assert [label.get_text() for label in axes.get_yticklabels()] == groups
        assert axes.texts[0].get_text() == "ensemble: 82.0%"
        assert any(list(line.get_xdata()) == [0.89, 0.89] for line in axes.lines)
        chart = plots_claims.chart_accuracies(rows, 0.89)
        assert chart["params"][0]["bind"]["options"] == groups
        assert max(map(len, chart["datasets"].values())) == len(rows)
        fallen = rows[0] | {"accuracy": 0.02, "low": 0.01, "high": 0.03}  # clearly worse than guessing
        assert plots_claims.chart_accuracies([*rows, fallen], 0.89) == chart
