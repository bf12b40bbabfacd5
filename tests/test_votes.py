import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy

from fer_lib.evaluation.metrics import compute_risk_coverage, get_accuracy_at
from fer_lib.evaluation.votes import (
    NO_LABEL,
    VOTE_COLUMNS,
    add_votes,
    choose_tau,
    compute_soft_nll,
    compute_vote_entropy,
    describe_votes,
    estimate_human_ceiling,
    label_by_majority,
    learns_from_votes,
    measure_adjustment,
    measure_agreement,
)
from fer_lib.intervals import Interval
from fer_lib.labels import EMOTIONS_7, VOTES
from fer_lib.metrics_file import Metrics

HAPPY, SAD = EMOTIONS_7.index("happy"), EMOTIONS_7.index("sad")


def test_curve_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.55, 0.45]])
    curve = compute_risk_coverage(np.array([0, 0, 1, 1]), probabilities)
    # By confidence: 0.9 right, 0.8 right, 0.6 wrong, 0.55 wrong.
    assert curve["coverage"].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve["accuracy"].tolist() == pytest.approx([1, 1, 2 / 3, 0.5])
    assert get_accuracy_at(curve, 50) == 1
    assert get_accuracy_at(curve, 100) == 0.5


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 60))
def test_answering_everything_is_the_accuracy(seed, n):
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.dirichlet(np.ones(7), size=n), rng.integers(7, size=n)
    curve = compute_risk_coverage(labels, probabilities)
    assert curve["accuracy"].iloc[-1] == pytest.approx(np.mean(probabilities.argmax(1) == labels))


def build_votes(*faces: dict[str, int]) -> pd.DataFrame:
    votes = pd.DataFrame(0, index=range(len(faces)), columns=VOTE_COLUMNS)
    for row, face in enumerate(faces):
        for name, count in face.items():
            votes.loc[row, f"votes_{name}"] = count
    return votes


def test_agreement_by_hand():
    all_say_happy = {"happiness": 10}
    votes = build_votes(
        all_say_happy, {"sadness": 5, "neutral": 5}, {"anger": 5, "unknown": 5}, all_say_happy
    )
    labels = np.array([HAPPY, SAD, SAD, SAD])
    probabilities = np.eye(7)[[HAPPY, SAD, HAPPY, SAD]]
    table = measure_agreement(votes, labels, probabilities)
    assert table.index.tolist() == [5, 10]
    assert table["n_images"].tolist() == [2, 2]
    assert table["model"].tolist() == [0.5, 1]
    # Two answers lead the second face: half a credit; none of those that lead the third is its label.
    assert table["annotators"].tolist() == [0.25, 0.5]
    assert table["voter"].tolist() == [0.25, 0.5]


def test_people_are_not_judged_by_their_own_labels():
    votes = build_votes({"happiness": 8, "fear": 2}, {"happiness": 9, "fear": 1}, {"anger": 5, "unknown": 5})
    table = measure_agreement(votes, np.array([HAPPY, HAPPY, SAD]), np.eye(7)[[HAPPY, SAD, SAD]])
    assert table.columns.tolist() == ["model", "n_images"]
    metrics = Metrics("evaluation")
    add_votes(metrics, table, np.array([[8, 2], [9, 1], [0, 0]]), np.full((3, 2), 0.5))
    assert set(metrics) == {
        f"votes.{key}" for key in ("model", "model_at_5", "model_at_8", "model_at_9", "soft_nll", "entropy")
    }
    assert "Judged by" not in describe_votes(metrics)


def test_few_agreeing_voters_are_counted_together():
    scattered = {"happiness": 2, "sadness": 2, "neutral": 2, "anger": 2, "fear": 2}
    table = measure_agreement(
        build_votes(scattered, {"happiness": 4, **{"fear": 3, "anger": 3}}), *two_happy()
    )
    assert table.index.tolist() == [4]
    assert table["annotators"].tolist() == pytest.approx([(0.2 + 1) / 2])


def two_happy():
    return np.array([HAPPY, HAPPY]), np.eye(7)[[HAPPY, HAPPY]]


def test_majority_follows_the_protocol_of_ferplus():
    votes = build_votes(
        {"happiness": 6, "neutral": 4},
        {"happiness": 5, "neutral": 5},  # no majority
        {"unknown": 10},  # a majority for no emotion
        {"contempt": 9, "sadness": 1},  # not among seven
        {"sadness": 2, "fear": 1, "anger": 1, "neutral": 1},  # single votes do not count
    )
    assert label_by_majority(votes, 7).tolist() == [HAPPY, -1, -1, -1, SAD]
    assert label_by_majority(votes, 8)[3] == 7


def test_soft_nll_is_least_for_the_votes_themselves():
    rng = np.random.default_rng(0)
    votes, guesses = (rng.dirichlet(np.ones(7), size=50) for _ in range(2))
    assert compute_soft_nll(votes, votes) == pytest.approx(entropy(votes, axis=1).mean())
    assert compute_soft_nll(votes, guesses) > compute_soft_nll(votes, votes)


def test_summary_of_votes_weighs_by_images_and_leaves_out_faces_without_a_vote():
    agreement = pd.DataFrame(
        {"n_images": [1, 3], "model": [0.0, 1.0], "annotators": [0.5, 1.0], "voter": [0.4, 1.0]},
        index=pd.Index([5, 10], name="n_agreeing"),
    )
    votes = np.array([[2, 2], [0, 0]])
    probabilities = np.array([[0.25, 0.75], [1.0, 0.0]])
    found = Metrics("evaluation")
    add_votes(found, agreement, votes, probabilities)
    assert found["votes.model_at_10"] == 1
    assert found["votes.model"] == 0.75
    assert found["votes.voter"] == pytest.approx((0.4 + 3) / 4)
    assert found["votes.entropy"] == pytest.approx(np.log(2))
    assert found["votes.soft_nll"] == pytest.approx(-(np.log(0.25) + np.log(0.75)) / 2)
    for name, accuracy in {"annotators": 0.8125, "annotators_ensemble_tta": 0.9}.items():
        found.add("accuracy", Interval(accuracy, 0.7, 0.95), model=name, split="test", n=3500)
    text = describe_votes(found)
    assert "the annotators' most frequent answer on 87.5%" in text
    assert "on the 3,500 test faces that have one, the network is correct on 81.2%" in text


def make_votes(**counts: int) -> list[int]:
    return [counts.get(name, 0) for name in VOTES]


def test_vote_entropy_of_known_splits():
    votes = [make_votes(happiness=10), make_votes(fear=5, surprise=5), [1] * 10, [0] * 10]
    found = compute_vote_entropy(np.array(votes))
    assert found[:3] == pytest.approx([0, 1, np.log2(10)], abs=1e-12)
    assert np.isnan(found[3])


@settings(deadline=None, max_examples=40)
@given(arrays(np.int8, (5, 10), elements=st.integers(0, 10)))
def test_vote_entropy_is_bounded_and_ignores_the_order_of_answers(votes):
    found = compute_vote_entropy(votes)
    defined = votes.sum(axis=1) > 0
    assert (np.isfinite(found) == defined).all()
    assert (found[defined] >= -1e-12).all()
    assert (found[defined] <= np.log2(10) + 1e-12).all()
    np.testing.assert_allclose(found, compute_vote_entropy(votes[:, ::-1]), atol=1e-12)


def test_human_ceiling_by_hand():
    # 6 happy, 4 neutral. A happy voter (0.6) faces 5:4 for happy and agrees; a neutral one (0.4) does not.
    clear = make_votes(happiness=6, neutral=4)
    # 1:1. Each voter faces one vote for the other answer: they never agree; the lead is shared.
    tied = make_votes(anger=1, sadness=1)
    ceiling, n_images = estimate_human_ceiling(np.array([clear, tied]), np.array([3, 4]), 100, seed=0)
    assert n_images == 2
    assert ceiling["voter_vs_others"].value == pytest.approx((0.6 + 0.0) / 2)
    assert ceiling["voter_vs_label"].value == pytest.approx((0.6 + 0.5) / 2)
    assert ceiling["majority_vs_label"].value == pytest.approx((1.0 + 0.5) / 2)


@pytest.mark.parametrize("label", range(7))
def test_human_ceiling_maps_every_vote_column_to_its_label(label):
    # In the order of EMOTIONS_7.
    answer = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")[label]
    votes = np.array([make_votes(**{answer: 10})] * 3)
    agree, _ = estimate_human_ceiling(votes, np.full(3, label), 20, seed=0)
    assert {interval.value for interval in agree.values()} == {1.0}
    other, _ = estimate_human_ceiling(votes, np.full(3, (label + 1) % 7), 20, seed=0)
    assert other["voter_vs_label"].value == other["majority_vs_label"].value == 0.0


def test_human_ceiling_ignores_images_without_a_second_vote_and_has_ordered_intervals():
    rng = np.random.default_rng(0)
    votes = rng.multinomial(10, [0.55, *[0.05] * 9], size=400)
    votes[:3] = 0
    votes[3] = make_votes(happiness=1)
    ceiling, n_images = estimate_human_ceiling(votes, np.full(400, 6), 500, seed=0)
    assert n_images == 396
    assert all(interval.low < interval.value < interval.high for interval in ceiling.values())
    # Every annotator is neutral with probability 0.55.
    assert ceiling["voter_vs_label"].low < 0.55 < ceiling["voter_vs_label"].high


def test_logit_adjustment_by_hand():
    logits = np.array([[1.0, 0.8], [1.0, 0.0], [0.0, 1.0]])  # the first two are called 0, the last one 1
    judges = {"labels": np.array([1, 0, 1]), "annotators": np.array([0, 0, NO_LABEL])}
    table = measure_adjustment(logits, judges, np.array([0.75, 0.25]), np.array([0.0, 0.5]))
    # Half of log 3 lifts class 1 by 0.55: over the first face's 0.2, not over the second one's 1.
    assert table["tau"].tolist() == [0.0, 0.0, 0.5, 0.5]
    assert table["judge"].tolist() == ["labels", "annotators"] * 2
    assert table["accuracy"].tolist() == pytest.approx([2 / 3, 1.0, 1.0, 0.5])
    assert table["macro_recall"].tolist() == pytest.approx([0.75, 1.0, 1.0, 0.5])


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ({"label": 0.0, "majority": 0.0, "votes": 0.7, "teacher": 0.3}, True),
        ({"label": 0.2, "majority": 0.0, "votes": 0.8, "teacher": 0.0}, False),
        ({"label": 1.0, "majority": 0.0, "votes": 0.0, "teacher": 0.0}, False),
    ],
)
def test_who_learned_from_votes_alone(targets, expected):
    assert learns_from_votes({"targets": targets}) is expected


def test_tau_is_the_largest_before_accuracy_costs_too_much():
    accuracies = pd.Series([0.80, 0.81, 0.78, 0.75, 0.79], index=[0.0, 0.1, 0.2, 0.3, 0.4])
    assert choose_tau(accuracies, 0.03) == 0.2  # what comes back later does not count
    assert choose_tau(accuracies, 0.0) == 0.1
    assert choose_tau(accuracies, 0.5) == 0.4
