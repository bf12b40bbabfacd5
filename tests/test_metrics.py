import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import norm
from sklearn import metrics as sk
from torchmetrics.functional import classification as tm

from fer_lib.evaluation.bootstrap import Bootstrap, Scorer, average_defined, draw_rows, summarise_draws
from fer_lib.evaluation.metrics import (
    compare_mcnemar,
    compute_metrics,
    compute_reliability,
    fit_temperature,
    group_labels,
    group_probabilities,
    score_predictions,
    summarise_gain,
)
from fer_lib.intervals import UNDEFINED, Interval
from fer_lib.labels import EMOTIONS_7, EMOTIONS_8, GROUPS

AB = ("happy", "sad")


def draw_predictions(seed: int, n: int, n_classes: int = 7, skill: float = 1.5) -> tuple:
    """Labels with a rare second class, like disgust, and softmax outputs that know something about them."""
    rng = np.random.default_rng(seed)
    shares = np.ones(n_classes)
    shares[1] = 0.1
    labels = rng.choice(n_classes, n, p=shares / shares.sum())
    return labels, softmax(rng.normal(size=(n, n_classes)) + skill * np.eye(n_classes)[labels], axis=1)


def score(labels, probabilities, emotions, n_resamples, seed, clusters=None):
    """Return every metric with its interval."""
    return score_predictions(
        labels, probabilities, emotions, Bootstrap(len(labels), n_resamples, seed, clusters)
    )


@st.composite
def adversarial_predictions(draw) -> tuple:
    """Small data with absent classes, ties, certainty and zero probability of the truth."""
    n = draw(st.integers(1, 40))
    labels = np.array(draw(st.lists(st.integers(0, 6), min_size=n, max_size=n)))
    # Integers out of a handful of values make ties and exact zeros and ones likely.
    raw = np.array(
        draw(st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=n, max_size=n))
    )
    raw = raw + (raw.sum(axis=1, keepdims=True) == 0)
    return labels, raw / raw.sum(axis=1, keepdims=True)


def assert_agrees_with_sklearn(labels: np.ndarray, probabilities: np.ndarray) -> None:
    found = compute_metrics(labels, probabilities, EMOTIONS_7)
    predictions = probabilities.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predictions))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns when a predicted class has no label
        assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predictions))
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predictions, labels=range(7), zero_division=0
    )
    present = support > 0
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert found[f"macro.{name}"] == pytest.approx(expected[present].mean())
        for emotion, value, counted in zip(EMOTIONS_7, expected, present, strict=True):
            if counted or name != "recall":
                assert found[f"{name}.{emotion}"] == pytest.approx(value)
    aurocs = []
    for c, emotion in enumerate(EMOTIONS_7):
        if 0 < support[c] < len(labels):
            aurocs.append(sk.roc_auc_score(labels == c, probabilities[:, c]))
            assert found[f"auroc.{emotion}"] == pytest.approx(aurocs[-1])
        else:
            assert f"auroc.{emotion}" not in found
    assert found.get("macro.auroc", np.nan) == pytest.approx(
        np.mean(aurocs) if aurocs else np.nan, nan_ok=True
    )
    assert found["nll"] == pytest.approx(sk.log_loss(labels, probabilities, labels=range(7)), abs=1e-9)
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_sklearn_on_random_predictions(seed):
    assert_agrees_with_sklearn(*draw_predictions(seed, 400))


@settings(deadline=None, max_examples=40)
@given(adversarial_predictions())
def test_metrics_agree_with_sklearn_on_adversarial_predictions(predictions):
    assert_agrees_with_sklearn(*predictions)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_agree_with_torchmetrics(seed):
    labels, probabilities = draw_predictions(seed, 600)
    found = compute_metrics(labels, probabilities, EMOTIONS_7)
    scores, truth = torch.tensor(probabilities), torch.tensor(labels)
    expected = {
        "accuracy": tm.multiclass_accuracy(scores, truth, 7, average="micro"),
        "macro.recall": tm.multiclass_recall(scores, truth, 7, average="macro"),
        "macro.specificity": tm.multiclass_specificity(scores, truth, 7, average="macro"),
        "macro.auroc": tm.multiclass_auroc(scores, truth, 7, average="macro"),
        "ece": tm.multiclass_calibration_error(scores, truth, 7, n_bins=15, norm="l1"),
    }
    assert {name: found[name] for name in expected} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, abs=1e-5
    )  # torchmetrics computes in float32
    for emotion, value in zip(
        EMOTIONS_7, tm.multiclass_specificity(scores, truth, 7, average=None), strict=True
    ):
        assert found[f"specificity.{emotion}"] == pytest.approx(float(value), abs=1e-6)


def test_specificity_brier_and_ece_by_hand():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.3, 0.7], [0.1, 0.9]])
    found = compute_metrics(labels, probabilities, AB)
    # Predictions 0 1 1 1: both "not happy" images are predicted not happy; one of two "not sad" images is.
    assert found["specificity.happy"] == 1.0
    assert found["specificity.sad"] == 0.5
    # Per image 2 (1 - p)^2: 0.02, 0.98, 0.18, 0.02.
    assert found["brier"] == pytest.approx(1.2 / 4)
    # Bin of 0.7: two images, accuracy 0.5, gap 0.2. Bin of 0.9: two images, accuracy 1, gap 0.1.
    assert found["ece"] == pytest.approx(0.5 * 0.2 + 0.5 * 0.1)
    assert found["mean_confidence"] == pytest.approx(0.8)
    assert found["nll"] == pytest.approx(-np.log([0.9, 0.3, 0.7, 0.9]).mean())


def test_absent_class_is_left_out_of_the_result_and_of_the_averages():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]])
    found = compute_metrics(labels, probabilities, ("happy", "sad", "disgust"))
    assert "recall.disgust" not in found
    assert "auroc.disgust" not in found
    assert found["precision.disgust"] == 0.0
    assert found["macro.recall"] == pytest.approx((0.5 + 1.0) / 2)
    assert found["macro.precision"] == pytest.approx((1.0 + 1.0) / 2)
    assert found["specificity.disgust"] == 0.75


def test_certain_and_wrong_gives_a_finite_nll():
    found = compute_metrics(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]), AB)
    assert np.isfinite(found["nll"])


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], np.full((2, 3), 1 / 3), "expected probabilities"),
        ([], np.empty((0, 2)), "N > 0"),
        ([0, 2], np.full((2, 2), 0.5), "labels in"),
        ([0.0, 1.0], np.full((2, 2), 0.5), "integer labels"),
        ([0, 1], np.full((2, 2), 0.7), "sum to 1"),
        ([0, 1], np.array([[1.5, -0.5], [0.5, 0.5]]), "non-negative"),
        ([0, 1], np.full((2, 2), np.nan), "sum to 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        compute_metrics(np.array(labels), probabilities, AB)


def test_metrics_do_not_depend_on_the_order_of_images_or_classes():
    labels, probabilities = draw_predictions(0, 300)
    plain = compute_metrics(labels, probabilities, EMOTIONS_7)
    rng = np.random.default_rng(1)
    images, classes = rng.permutation(300), rng.permutation(7)
    shuffled = compute_metrics(labels[images], probabilities[images], EMOTIONS_7)
    assert shuffled == pytest.approx(plain)
    renamed = compute_metrics(
        np.argsort(classes)[labels], probabilities[:, classes], [EMOTIONS_7[c] for c in classes]
    )
    assert renamed == pytest.approx(plain)


def test_scoring_a_resample_equals_scoring_the_repeated_images():
    labels, probabilities = draw_predictions(2, 120)
    rows = np.random.default_rng(0).integers(120, size=120)
    scorer = Scorer(labels, probabilities, EMOTIONS_7)
    weighted = scorer.score(np.bincount(rows, minlength=120)[None].astype(float))[0]
    direct = compute_metrics(labels[rows], probabilities[rows], EMOTIONS_7)
    assert {
        name: v for name, v in zip(scorer.names, weighted, strict=True) if np.isfinite(v)
    } == pytest.approx(direct)


def test_a_bootstrap_draws_as_many_images_as_there_are():
    bootstrap = Bootstrap(30, 20_000, seed=0)  # in several chunks
    weights = bootstrap.score(lambda drawn: drawn)
    assert weights.shape == (20_001, 30)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 30).all()
    assert weights[1:].mean(axis=0) == pytest.approx(np.ones(30), abs=0.05)
    values = np.arange(30.0)
    scores = bootstrap.score(lambda drawn: drawn @ values / 30)
    assert scores == pytest.approx(weights @ values / 30)
    assert bootstrap.mean(values) == summarise_draws(scores)
    assert bootstrap.mean(values, values >= 20).value == values[20:].mean()


def test_images_of_a_cluster_are_drawn_together():
    persons = np.array(["b", "a", "b", "c", "a"])
    weights = Bootstrap(5, 100, 0, persons).score(lambda drawn: drawn)[1:]
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()  # as many persons as there are


def test_what_is_not_defined_counts_for_nothing():
    nan = np.nan
    assert average_defined(np.array([[1.0, nan, 3.0], [nan, nan, nan]])).tolist() == pytest.approx(
        [2.0, nan], nan_ok=True
    )
    assert summarise_draws(np.array([nan, 1.0])) == pytest.approx(UNDEFINED, nan_ok=True)
    assert summarise_draws(np.array([1.0, nan])) == pytest.approx(UNDEFINED, nan_ok=True)
    assert summarise_draws(np.array([1.0, nan, 2.0, 2.0])) == Interval(1.0, 2.0, 2.0)
    assert not Bootstrap(4, 10, 0).mean(np.ones(4), np.zeros(4)).is_defined


def test_drawn_rows_are_some_of_those_given_in_order():
    rows = np.arange(100, 200)
    drawn = draw_rows(rows, 10, seed=0)
    assert len(set(drawn)) == 10
    assert set(drawn) <= set(rows)
    assert (np.diff(drawn) > 0).all()
    assert draw_rows(rows, 1000, seed=0).tolist() == rows.tolist()


def test_bootstrap_interval_of_accuracy_matches_the_binomial():
    n, accuracy = 3589, 0.7
    labels = np.zeros(n, dtype=int)
    hit = np.arange(n) < round(accuracy * n)
    probabilities = np.where(hit[:, None], [0.8, 0.2], [0.2, 0.8])
    _, low, high = score(labels, probabilities, AB, 2000, seed=0)["accuracy"]
    half_width = norm.ppf(0.975) * np.sqrt(accuracy * (1 - accuracy) / n)  # 1.5 points
    # 2,000 resamples place a 2.5 % quantile within about a tenth of the half width.
    assert low == pytest.approx(accuracy - half_width, abs=0.1 * half_width)
    assert high == pytest.approx(accuracy + half_width, abs=0.1 * half_width)


def test_bootstrap_intervals_cover_the_true_accuracy():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        _, low, high = Bootstrap(300, 200, seed=trial).mean(rng.random(300) < 0.7)
        covered += low <= 0.7 <= high
    # 95 % of 100 with standard deviation 2.2; quantiles of 200 resamples cover a little less.
    assert 88 <= covered <= 99


def test_bootstrap_is_deterministic_and_depends_on_the_seed():
    labels, probabilities = draw_predictions(3, 200)
    first, again, other = (score(labels, probabilities, EMOTIONS_7, 100, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_thousand_resamples_of_a_full_test_split_take_seconds():
    labels, probabilities = draw_predictions(4, 3589)
    start = time.process_time()
    score(labels, probabilities, EMOTIONS_7, 1000, seed=0)
    # About one second on one core; ten leaves room for a busy machine and for threads that spin.
    assert time.process_time() - start < 10


def test_scores_are_the_metrics_with_ordered_bounds():
    labels, probabilities = draw_predictions(5, 500, n_classes=8)
    scores = score(labels, probabilities, EMOTIONS_8, 200, seed=0)
    assert all(interval.is_defined for interval in scores.values())
    plain = compute_metrics(labels, probabilities, EMOTIONS_8)
    assert {name: interval.value for name, interval in scores.items()} == plain
    for name in ("accuracy", "recall.disgust", "specificity.contempt", "macro.f1", "auroc.happy", "nll"):
        value, low, high = scores[name]
        assert low <= value <= high


def test_scores_of_one_image_hold_nothing_undefined():
    scores = score(np.array([0]), np.array([[0.7, 0.3]]), AB, 10, seed=0)
    assert scores["accuracy"] == pytest.approx((1.0, 0.2065, 1.0), abs=1e-4)  # Wilson's, of 1 of 1
    assert scores["precision.sad"] == (0.0, 0.0, 1.0)  # never predicted: nothing is known of it
    assert "recall.sad" not in scores
    assert "specificity.happy" not in scores


def test_groups_sum_the_probabilities_of_their_emotions():
    probabilities = np.array([[0.1, 0.05, 0.15, 0.2, 0.1, 0.15, 0.25]])
    grouped = group_probabilities(probabilities, EMOTIONS_7)
    expected = {"positive": 0.2 + 0.15, "negative": 0.1 + 0.05 + 0.15 + 0.1, "neutral": 0.25}
    assert grouped[0] == pytest.approx([expected[name] for name in GROUPS])
    # The best single emotion is neutral; the best group is negative.
    assert GROUPS[grouped[0].argmax()] == "negative"
    names = [GROUPS[i] for i in group_labels(np.array([3, 6, 1, 5]), EMOTIONS_7)]
    assert names == ["positive", "neutral", "negative", "positive"]


def test_mcnemar_by_hand():
    # 8 discordant images, 1 against 7: p = 2 (C(8,0) + C(8,1)) / 2^8 = 18 / 256.
    correct_a = np.array([True] * 7 + [False] * 1 + [True] * 5)
    correct_b = np.array([False] * 7 + [True] * 1 + [True] * 5)
    assert compare_mcnemar(correct_a, correct_b) == pytest.approx(18 / 256)
    assert compare_mcnemar(correct_b, correct_a) == pytest.approx(18 / 256)


def test_mcnemar_without_disagreement_finds_no_difference():
    correct = np.array([True, False])
    assert compare_mcnemar(correct, correct) == 1.0
    with pytest.raises(ValueError, match="one shape"):
        compare_mcnemar(correct, correct[:1])


def test_gain_is_paired():
    labels = np.zeros(200, dtype=int)
    b = np.eye(2)[(np.arange(200) >= 100).astype(int)]  # right on the first half
    a = np.eye(2)[(np.arange(200) >= 120).astype(int)]  # and on 20 faces more
    gain, p_value = summarise_gain(labels, a, b, Bootstrap(200, 500, 0))
    assert gain.value == pytest.approx(0.1)
    # Faces that both predict alike take no part: the standard error is sqrt(0.1 * 0.9 / 200) = 0.021.
    assert gain.low == pytest.approx(0.1 - 1.96 * 0.021, abs=0.01)
    assert gain.high == pytest.approx(0.1 + 1.96 * 0.021, abs=0.01)
    assert p_value == pytest.approx(2 / 2**20)  # 20 against none


def test_a_model_gains_nothing_over_itself():
    labels, a = draw_predictions(7, 100)
    assert summarise_gain(labels, a, a, Bootstrap(100, 50, 0)) == ((0.0, 0.0, 0.0), 1.0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_recovers_a_known_one(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20000, 7)) * 2
    calibrated = softmax(logits, axis=1)
    labels = (calibrated.cumsum(axis=1) < rng.random((20000, 1))).sum(axis=1)
    # 20,000 labels determine T to about 1 %.
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.04)


def test_interval_of_the_calibration_error_holds_its_value_where_resamples_are_biased():
    # Calibrated to the last face: whatever is drawn has a larger error.
    labels = np.tile([0, 0, 0, 1], 100)
    probabilities = np.tile([0.75, 0.25], (400, 1))
    value, low, high = score_predictions(labels, probabilities, ("a", "b"), Bootstrap(400, 200, 0))["ece"]
    assert value == pytest.approx(0, abs=1e-12)
    assert low == 0
    assert 0 < high < 0.05


def test_reliability_bins_by_hand_and_agrees_with_ece():
    labels = np.array([0, 0, 1])
    probabilities = np.array([[0.6, 0.4], [0.4, 0.6], [0.1, 0.9]])
    table = compute_reliability(labels, probabilities, n_bins=5)
    # Bins are closed on the right: 0.6 is in (0.4, 0.6], 0.9 in (0.8, 1].
    assert table["count"].tolist() == [0, 0, 2, 0, 1]
    assert table.loc[2, ["confidence", "accuracy"]].tolist() == pytest.approx([0.6, 0.5])
    assert table.loc[4, "upper"] == 1.0
    assert np.isnan(table.loc[0, "accuracy"])
    labels, probabilities = draw_predictions(8, 400)
    table = compute_reliability(labels, probabilities)
    gaps = (table["accuracy"] - table["confidence"]).abs() * table["count"]
    assert gaps.sum() / 400 == pytest.approx(compute_metrics(labels, probabilities, EMOTIONS_7)["ece"])


def test_clusters_widen_the_interval_when_their_images_err_together():
    # 40 persons with 10 faces each, all right or all wrong: 40 independent answers, not 400.
    rng = np.random.default_rng(0)
    persons = np.repeat(np.arange(40), 10)
    labels = rng.integers(0, 2, 400)
    right = np.repeat(rng.random(40) < 0.7, 10)
    probabilities = np.eye(2)[np.where(right, labels, 1 - labels)] * 0.8 + 0.1
    widths = []
    for clusters in (None, persons):
        _, low, high = score(labels, probabilities, AB, 2000, 0, clusters)["accuracy"]
        widths.append(high - low)
    # sqrt(10) wider by theory; a tenth of slack for 2,000 resamples of 40 persons.
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(10), rel=0.1)


def test_clusters_of_one_image_change_nothing():
    labels, probabilities = np.array([0, 1, 1, 0]), np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.8, 0.2]])
    plain, alone = (score(labels, probabilities, AB, 50, 0, clusters) for clusters in (None, np.arange(4)))
    assert plain == alone
