from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fer_lib.errors import DataError
from fer_lib.evaluation.ablation_results import (
    SHARES,
    add_studies,
    compare_studies,
    measure_propagation,
    measure_rare,
    score_reference,
    tabulate_rare,
)
from fer_lib.evaluation.ablations import get_predictions_path
from fer_lib.evaluation.predictions import write_table
from fer_lib.labels import EMOTIONS_7, VOTE_OF_LABEL, VOTES
from fer_lib.metrics_file import Metrics
from fer_lib.params import AblationsParams
from fer_lib.paths import get_output_dirs
from fer_lib.reporting.studies import build_study_table, describe_clear, select_studies
from fer_lib.training.targets import VOTE_COLUMNS

N_FACES, SEEDS = 700, (0, 1, 2)
LABELS = np.arange(N_FACES) % 7
COPIES = 70
"""The first test faces have a copy in training."""


def get_rows(split, drop_duplicates_of=None):
    assert split == "test"
    return np.arange(COPIES if drop_duplicates_of == "train" else 0, N_FACES)


DATA = SimpleNamespace(
    labels=LABELS,
    persons=np.arange(N_FACES),
    emotions=EMOTIONS_7,
    get_rows=get_rows,
    data_hash="da7a",
    meta={"dataset": "demo"},
)
STUDIES = {
    name: {} for name in ("reference", "loss", "targets", "duplicates", "ensemble", "not_run")
}  # what arms they have stands in the tables
SETTINGS = AblationsParams(seeds=SEEDS, n_resamples=200, reference={}, members=(), studies=STUDIES)


def write_study(dirs, study, **right):
    """Write the predictions of arms that name this share of every class rightly, the rest as the next one."""
    table = pd.DataFrame({"row": np.arange(N_FACES), "label": LABELS.astype(np.uint8)})
    for arm, share in right.items():
        for seed in SEEDS:
            is_right = np.arange(N_FACES) // 7 < share * N_FACES / 7
            table[f"{arm}.{seed}.emotion"] = np.where(is_right, LABELS, (LABELS + 1) % 7).astype(np.uint8)
            table[f"{arm}.{seed}.group"] = np.uint8(1)
    write_table(get_predictions_path(dirs, study), table, DATA)


@pytest.fixture
def dirs(tmp_path):
    found = get_output_dirs("demo", tmp_path)
    write_study(found, "reference", reference=0.5)
    write_study(found, "loss", better=0.7, same=0.5)
    return found


def test_arms_are_compared_with_the_reference(dirs):
    table = compare_studies(dirs, SETTINGS, DATA)
    assert set(table["study"]) == {"loss"}  # what has not run is left out
    by_arm = table.set_index(["arm", "share"])
    for share in SHARES:
        row = by_arm.loc["better", share]
        assert row["value"] == pytest.approx(0.7)
        assert row["gain"] == pytest.approx(0.2)
        assert 0 < row["low"] < 0.2 < row["high"]
        assert by_arm.loc["same", share][["gain", "low", "high"]].tolist() == [0, 0, 0]
    assert by_arm.loc[("better", "accuracy"), "p_value"] < 1e-6
    assert by_arm.loc[("better", "accuracy"), "mcnemar"] < 1e-6
    assert by_arm.loc[("same", "accuracy"), ["p_value", "mcnemar"]].tolist() == [1, 1]


def test_a_study_s_own_reference_is_what_its_arms_are_compared_with(dirs):
    write_study(dirs, "duplicates", reference=0.9, dropped=0.8)
    table = compare_studies(dirs, SETTINGS, DATA).set_index(["study", "arm", "share"])
    assert table.loc[("duplicates", "dropped", "accuracy"), "gain"] == pytest.approx(-0.1)
    assert ("duplicates", "reference", "accuracy") not in table.index
    unseen = table.loc["duplicates_unseen", "dropped", "accuracy"]
    assert unseen["value"] == pytest.approx((0.8 * N_FACES - COPIES) / (N_FACES - COPIES))


def test_the_vote_is_compared_with_each_of_the_others(dirs):
    write_study(dirs, "ensemble", b0=0.5, three_times=0.65, soft_vote=0.6)
    table = compare_studies(dirs, SETTINGS, DATA).set_index(["study", "arm", "share"])
    gains = table.xs("accuracy", level="share").loc["vote_over", "gain"]
    assert gains.to_dict() == {"b0": pytest.approx(0.1), "three_times": pytest.approx(-0.05)}
    assert table.loc[("vote_over", "three_times", "accuracy"), "value"] == pytest.approx(0.65)
    assert table.loc[("ensemble", "soft_vote", "accuracy"), "gain"] == pytest.approx(0.1)


def test_a_loss_with_the_sampler_is_compared_with_either_alone(dirs):
    write_study(dirs, "loss", cross_entropy_sampler=0.6, focal_2=0.7, focal_2_sampler=0.5, weighted=0.4)
    table = compare_studies(dirs, SETTINGS, DATA).set_index(["study", "arm", "share"])
    gains = table.xs("accuracy", level="share").loc["stacked", "gain"]
    assert gains.to_dict() == {
        "focal_2_sampler_over_focal_2": pytest.approx(-0.2),
        "focal_2_sampler_over_cross_entropy_sampler": pytest.approx(-0.1),
    }


def test_other_labels_are_judged_by_the_annotators_too(dirs):
    # Nine of ten annotators name the next emotion: an arm that is right by its labels is wrong by theirs.
    votes = np.zeros((N_FACES, len(VOTES)), int)
    votes[np.arange(N_FACES), np.asarray(VOTE_OF_LABEL)[(LABELS + 1) % 7]] = 9
    index = pd.DataFrame(votes, columns=VOTE_COLUMNS)
    data = SimpleNamespace(**vars(DATA), index=index, take=lambda rows: SimpleNamespace(index=index))
    write_study(dirs, "targets", votes=0.25)
    table = compare_studies(dirs, SETTINGS, data).set_index(["study", "arm", "share"])
    assert table.loc[("targets", "votes", "accuracy"), ["value", "gain"]].tolist() == [0.25, -0.25]
    assert table.loc[("targets_annotators", "votes", "accuracy"), ["value", "gain"]].tolist() == [0.75, 0.25]


def test_rare_emotions_are_tabulated_for_the_losses_that_have_run(dirs):
    table = tabulate_rare(dirs, DATA)
    assert table.index.tolist() == ["reference", "better", "same"]
    assert table.loc["better", ["precision.disgust", "rate.fear"]].tolist() == pytest.approx([0.7, 1.0])
    get_predictions_path(dirs, "loss").unlink()
    assert tabulate_rare(dirs, DATA).index.tolist() == ["reference"]


def test_rare_emotions_are_counted_against_their_faces():
    disgust, fear = EMOTIONS_7.index("disgust"), EMOTIONS_7.index("fear")
    labels = np.array([disgust, disgust, 0, 0])
    predicted = np.array([[disgust, disgust, disgust, 0], [disgust, 0, disgust, disgust]])
    measured = measure_rare(labels, predicted, EMOTIONS_7)
    assert measured == {"rate.disgust": 6 / 4, "precision.disgust": 3 / 6}  # no fear to be named
    assert measure_rare(np.array([fear]), np.zeros((2, 1), int), EMOTIONS_7) == {
        "rate.fear": 0.0,
        "precision.fear": 0.0,
    }


def test_persons_with_several_faces_widen_the_intervals(dirs):
    few = SimpleNamespace(**vars(DATA) | {"persons": np.arange(N_FACES) // 100})
    alone, together = (
        compare_studies(dirs, SETTINGS, data).set_index(["arm", "share"]).loc["better", "accuracy"]
        for data in (DATA, few)
    )
    assert together["gain"] == alone["gain"]
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])


def test_the_reference_is_scored_seed_by_seed():
    predicted = np.stack([LABELS, np.where(LABELS == 0, 1, LABELS)])
    shares = score_reference(LABELS, predicted, EMOTIONS_7)
    assert shares.index.tolist() == list(SHARES)
    assert shares.loc["accuracy"].tolist() == pytest.approx([13 / 14, 1, 6 / 7])


def test_metrics_have_a_key_per_arm_and_share(dirs):
    metrics = Metrics("ablations")
    add_studies(metrics, compare_studies(dirs, SETTINGS, DATA))
    value, low, high = metrics.interval("loss.better.recall.gain.disgust")
    assert value == pytest.approx(0.2)
    assert 0 < low < value < high
    expected = {"loss.same.recall.disgust", "loss.same.accuracy.p_value", "loss.same.mcnemar"}
    assert expected | {f"loss.same.accuracy{end}" for end in ("", ".gain", ".effect")} <= set(metrics)


def test_the_table_shows_points_and_the_finding_names_what_is_clear(dirs):
    table = compare_studies(dirs, SETTINGS, DATA)
    rows = select_studies(table, "loss")
    shown = build_study_table(rows)
    assert shown.index.tolist() == ["better", "same"]
    assert shown.loc["better", "accuracy"] == "0.700"
    assert shown.loc["better", "points"].startswith("+20.0\N{NO-BREAK SPACE}[")
    assert shown.loc["same", "macro recall"].endswith("(+0.0)")
    assert not shown["points"].str.contains(" ").any()
    sentence = "Macro recall is clearly raised by better (+20.0 points)."
    assert describe_clear(rows, "macro_recall") == sentence
    better = rows[(rows["arm"] == "better") & (rows["share"] == "macro_recall")]
    many = pd.concat([better.assign(arm=f"arm {n}", gain=n / 100) for n in range(1, 7)])
    named = "arm 6 (+6.0 points), arm 5 (+5.0 points), arm 4 (+4.0 points), arm 3 (+3.0 points) and 2 more"
    assert describe_clear(many, "macro_recall") == f"Macro recall is clearly raised by {named}."
    none = rows[rows["arm"] == "same"]
    assert describe_clear(none, "macro_recall") == "No arm changes macro recall clearly."


def test_arms_of_several_studies_carry_the_study_s_name(dirs):
    table = compare_studies(dirs, SETTINGS, DATA)
    assert set(select_studies(table, "loss", "image_size")["arm"]) == {"loss: better", "loss: same"}
    nothing = build_study_table(select_studies(table, "not_run"))
    assert nothing.empty
    assert nothing.columns.tolist() == ["accuracy", "points", "p", "h", "McNemar"]


def test_without_the_reference_there_is_nothing_to_compare_with(tmp_path):
    with pytest.raises(DataError, match=r"reference\.parquet: .*; run `python -m fer_lib ablate reference"):
        compare_studies(get_output_dirs("demo", tmp_path), SETTINGS, DATA)


def test_propagation_by_hand():
    # angry, happy and neutral; happy is called surprise (the same group), neutral is called sad.
    angry, happy, sad, surprise, neutral = (
        EMOTIONS_7.index(name) for name in ("angry", "happy", "sad", "surprise", "neutral")
    )
    labels = np.array([angry, happy, neutral])
    predictions, groups = np.array([[angry, surprise, sad]]), np.array([[1, 0, 1]])  # GROUPS: negative is 1
    assert measure_propagation(labels, predictions, groups, EMOTIONS_7) == {
        "coarse_accuracy": pytest.approx(2 / 3),
        "fine_given_coarse": 0.5,
        "inherited": 0.5,
    }
    flawless = measure_propagation(labels, labels[None], np.array([[1, 0, 2]]), EMOTIONS_7)
    assert flawless["inherited"] == 0
