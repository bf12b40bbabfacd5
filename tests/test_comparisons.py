import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.evaluation.comparisons import (
    Difference,
    compare_arms,
    compute_p_value,
    compute_shares,
    measure_disagreement,
    summarise_gain,
)
from fer_lib.evaluation.metrics import compare_mcnemar
from fer_lib.labels import EMOTIONS_7
from fer_lib.metrics_file import Interval

AB = ("happy", "sad")
TRIALS = 300


def draw(seed: int, n_seeds: int = 3, n: int = 200, skill: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Labels with a rare second class, like disgust, and what an arm predicts with each of its seeds."""
    rng = np.random.default_rng(seed)
    shares = np.ones(7)
    shares[1] = 0.1
    labels = rng.choice(7, n, p=shares / shares.sum())
    guesses = rng.integers(7, size=(n_seeds, n))
    return labels, np.where(rng.random((n_seeds, n)) < skill, labels, guesses)


def place(*right: list[int]) -> np.ndarray:
    """Predictions for faces of class 0: right where there is a 1."""
    return 1 - np.array(right)


def compare(labels, a, b, emotions, n_resamples, seed):
    return compare_arms(labels, a, b, emotions, Bootstrap(len(labels), n_resamples, seed))


def is_clear(difference: Difference) -> bool:
    assert (difference.p_value < 0.05) == (difference.gain.low > 0 or difference.gain.high < 0)
    return difference.p_value < 0.05


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n_seeds=st.integers(1, 4), n=st.integers(1, 60))
def test_shares_are_the_mean_over_seeds_of_what_sklearn_says(seed, n_seeds, n):
    labels, predictions = draw(seed, n_seeds, n)
    found = compute_shares(labels, predictions, EMOTIONS_7)
    present = np.unique(labels)
    accuracies = [sk.accuracy_score(labels, row) for row in predictions]
    recalls = [
        sk.recall_score(labels, row, labels=present, average=None, zero_division=0) for row in predictions
    ]
    assert found.pop("accuracy") == pytest.approx(np.mean(accuracies))
    macro = [
        sk.recall_score(labels, row, labels=present, average="macro", zero_division=0) for row in predictions
    ]
    assert found.pop("macro_recall") == pytest.approx(np.mean(macro))
    # A class without a face has no recall, and no key.
    expected = {
        f"recall.{EMOTIONS_7[c]}": value for c, value in zip(present, np.mean(recalls, 0), strict=True)
    }
    assert found == pytest.approx(expected)


def test_an_arm_does_not_differ_from_itself():
    labels, a = draw(0)
    for difference in compare(labels, a, a, EMOTIONS_7, 100, 0).values():
        assert difference == Difference(Interval(0.0, 0.0, 0.0), 1.0, 0.0)
        assert not is_clear(difference)


def test_difference_is_that_of_the_shares_and_turns_with_the_arms():
    labels, a = draw(1, skill=0.9)
    b = draw(1, skill=0.2)[1]
    shares_a, shares_b = (compute_shares(labels, arm, EMOTIONS_7) for arm in (a, b))
    forth, back = (compare(labels, *arms, EMOTIONS_7, 200, 0) for arms in ((a, b), (b, a)))
    assert forth.keys() == back.keys() == shares_a.keys()
    for name, found in forth.items():
        value, low, high = found.gain
        assert value == pytest.approx(shares_a[name] - shares_b[name])
        assert low <= value <= high
        assert back[name].gain == pytest.approx((-value, -high, -low))
        assert back[name].effect == pytest.approx(-found.effect)
    # 60 points between them are clear on 200 faces, where a share is known to about 7 points.
    assert forth["accuracy"].gain.low > 0
    assert is_clear(forth["accuracy"])
    assert back["accuracy"].gain.high < 0
    assert is_clear(back["accuracy"])


def test_effect_is_cohens_h_by_hand():
    # 2 asin(sqrt 0.5) = pi / 2 and 2 asin(sqrt 0.25) = pi / 3.
    labels = np.zeros(4, dtype=int)
    a, b = place([1, 1, 0, 0]), place([1, 0, 0, 0])
    assert compare(labels, a, b, AB, 10, 0)["accuracy"].effect == pytest.approx(np.pi / 6)
    # All against nothing, the largest effect there is.
    all_right, none = place([1, 1, 1, 1]), place([0, 0, 0, 0])
    assert compare(labels, all_right, none, AB, 10, 0)["accuracy"].effect == pytest.approx(np.pi)


def test_resamples_without_a_rare_class_leave_its_recall_defined():
    # One face of its class: about (1 - 1/20)^20 = 36 % of the resamples miss it.
    labels = np.array([1] + [0] * 19)
    a, b = np.zeros((2, 20), dtype=int), labels[None].repeat(2, axis=0)
    differences = compare(labels, a, b, AB, 200, 0)
    assert differences["recall.sad"] == Difference(Interval(-1.0, -1.0, -1.0), 0.0, pytest.approx(-np.pi))
    assert differences["macro_recall"].gain.value == -0.5
    assert all(d.gain.is_defined for d in differences.values())


def test_same_seed_same_interval():
    labels, a = draw(2)
    b = draw(3)[1]
    first, again, other = (compare(labels, a, b, EMOTIONS_7, 100, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def simulate(rng: np.random.Generator, n_seeds: int, seed_sd: float) -> Difference:
    """Compare two arms of accuracy 0.65 and 0.60, whose trainings scatter by `seed_sd` around that."""
    n = 300
    # Half of the faces are easy for both arms: what they have right, they share.
    ease = np.where(rng.random(n) < 0.5, 0.2, -0.2)
    right = [
        rng.random((n_seeds, n)) < mean + ease + rng.normal(0, seed_sd, (n_seeds, 1)) for mean in (0.65, 0.6)
    ]
    a, b = (place(*arm) for arm in right)
    seed = int(rng.integers(2**31))
    return compare(np.zeros(n, dtype=int), a, b, AB, 200, seed)["accuracy"]


@pytest.mark.parametrize(
    ("n_seeds", "seed_sd", "least"),
    # Two seeds that scatter much more than faces are known to cover too little; the docstring says so.
    [(1, 0.0, 0.91), (3, 0.0, 0.91), (3, 0.03, 0.91), (3, 0.1, 0.91), (2, 0.1, 0.82)],
)
def test_interval_covers_the_true_difference_over_faces_and_seeds(n_seeds, seed_sd, least):
    # 95 % of 300 trials, whose standard deviation is 1.3 points; three of them. The chance of a single answer
    # counts in both scatters, of faces and of seeds, so the interval may err to the safe side.
    rng = np.random.default_rng(0)
    found = [simulate(rng, n_seeds, seed_sd) for _ in range(TRIALS)]
    covered = np.mean([difference.gain.low <= 0.05 <= difference.gain.high for difference in found])
    assert least <= covered <= (0.99 if n_seeds == 1 else 1.0)


def test_trainings_that_scatter_widen_the_interval():
    rng = np.random.default_rng(0)
    labels, ranks = np.zeros(2000, dtype=int), rng.permutation(2000)
    steady, b = (place(*[ranks < 2000 * share] * 3) for share in (0.7, 0.6))
    scattered = place(*[ranks < 2000 * share for share in (0.6, 0.7, 0.8)])
    found = [compare(labels, a, b, AB, 500, 0)["accuracy"] for a in (steady, scattered)]
    assert found[0].gain.value == found[1].gain.value == pytest.approx(0.1)
    widths = [difference.gain.high - difference.gain.low for difference in found]
    # Faces alone: 2 * 1.96 * sqrt(0.1 * 0.9 / 2000) = 2.6 points; 10 % for the variance of 500 resamples.
    assert widths[0] == pytest.approx(2 * 1.96 * np.sqrt(0.09 / 2000), rel=0.1)
    # Seeds at 0, 10 and 20 points: 2 * 4.30 * 10 / sqrt(3), Student's t with two degrees of freedom.
    assert widths[1] == pytest.approx(2 * 4.303 * 0.1 / np.sqrt(3), rel=0.05)


def test_seeds_are_paired():
    # Both arms are lucky with the same seed: the difference does not scatter, though each arm does.
    labels = np.zeros(1000, dtype=int)
    a, b = (place(*[np.arange(1000) < 1000 * s for s in shares]) for shares in ((0.3, 0.9), (0.2, 0.8)))
    paired = compare(labels, a, b, AB, 300, 0)["accuracy"]
    crossed = compare(labels, a, b[::-1], AB, 300, 0)["accuracy"]
    assert paired.gain.value == crossed.gain.value
    assert is_clear(paired)
    assert not is_clear(crossed)


@pytest.mark.parametrize("shape", [(2, 10), (3, 9)])
def test_arms_of_other_seeds_or_faces_are_refused(shape):
    a, b = np.zeros((3, 10), dtype=int), np.zeros(shape, dtype=int)
    with pytest.raises(ValueError, match=r"same seeds and faces|broadcast"):
        compare(np.zeros(10, dtype=int), a, b, AB, 10, 0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_p_value_of_one_seed_is_mcnemars(seed):
    labels, a = draw(seed, n_seeds=1, n=50)
    b = draw(seed + 1, n_seeds=1, n=50)[1]
    expected = compare_mcnemar(a[0] == labels, b[0] == labels).p_value
    assert compute_p_value(labels, a, b) == expected
    assert compute_p_value(labels, b, a) == pytest.approx(expected)


def test_p_value_counts_a_face_for_the_arm_with_more_seeds():
    # Seven faces for A by two seeds to one, one for B by three to none, two ties: 1 against 7 of 8 faces, so
    # p = 2 (C(8,0) + C(8,1)) / 2^8 = 18 / 256.
    labels = np.zeros(10, dtype=int)
    a = place([1] * 7 + [0, 1, 0], [1] * 7 + [0, 0, 0], [0] * 8 + [0, 0])
    b = place([1] * 7 + [1, 0, 0], [0] * 7 + [1, 1, 0], [0] * 7 + [1, 0, 0])
    assert compute_p_value(labels, a, b) == pytest.approx(18 / 256)
    assert compute_p_value(labels, a, a) == 1.0


def test_disagreement_by_hand():
    # Two of five named differently; it does not matter which of them is right.
    assert measure_disagreement(np.array([0, 1, 2, 3, 4]), np.array([0, 2, 2, 0, 4])) == 0.4
    assert measure_disagreement(np.array([5, 5]), np.array([5, 5])) == 0.0


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
