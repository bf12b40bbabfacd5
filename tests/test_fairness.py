import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from fer_lib.analysis import fairness
from fer_lib.evaluation.bootstrap import Bootstrap


def predict(labels, right, n_classes=3):
    """Return the label where `right`, else the class after it."""
    return np.where(right, labels, (labels + 1) % n_classes)


@pytest.fixture
def faces():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(3, size=600), rng.integers(2, size=600)
    right = rng.random(600) < np.where(groups == 0, 0.9, 0.6)
    return labels, predict(labels, right), groups.astype(str)


def test_rates_of_a_group_are_those_of_its_faces(faces):
    labels, pred, groups = faces
    confidence = np.full(600, 0.8)
    table = fairness.score_groups(labels, pred, confidence, groups, Bootstrap(600, 50, 0))
    for group in ("0", "1"):
        chosen = groups == group
        named = pred[chosen]
        assert table.loc[group, "n"] == chosen.sum()
        rates = [np.mean(named[labels[chosen] != c] == c) for c in range(3)]
        expected = {
            "accuracy": np.mean(named == labels[chosen]),
            "macro_recall": balanced_accuracy_score(labels[chosen], named),
            "false_positive_rate": np.mean(rates),
            "ece": abs(np.mean(named == labels[chosen]) - 0.8),
        }
        assert {m: table.loc[group, m].value for m in expected} == pytest.approx(expected)
        value, low, high = table.loc[group, "accuracy"]
        assert low < value < high


def test_groups_of_few_faces_are_left_out(faces):
    labels, pred, groups = faces
    groups = np.where(np.arange(600) < 3, "few", groups)
    asked = (labels, pred, np.full(600, 0.8), groups, Bootstrap(600, 20, 0))
    assert fairness.score_groups(*asked).index.tolist() == ["0", "1", "few"]
    assert fairness.score_groups(*asked, min_faces=4).index.tolist() == ["0", "1"]


def test_gap_that_is_there_is_found_and_one_that_is_not_is_chance(faces):
    labels, pred, groups = faces
    blocks = np.arange(600)
    gap, p_value = fairness.measure_gap(pred == labels, groups, blocks, 200, 0)
    assert gap == pytest.approx(0.3, abs=0.08)
    assert p_value < 0.01
    shuffled = np.random.default_rng(1).permutation(groups)
    assert fairness.measure_gap(pred == labels, shuffled, blocks, 200, 0)[1] > 0.05


def test_groups_are_exchanged_within_faces_drawn_several_times():
    # Each face is drawn in two groups; faces differ much, groups a little, always to the same side.
    rng = np.random.default_rng(2)
    blocks, groups = np.repeat(np.arange(200), 2), np.tile([0, 1], 200)
    easy = np.repeat(rng.random(200) < 0.5, 2)
    right = easy & ~((groups == 1) & (rng.random(400) < 0.15))
    _, within = fairness.measure_gap(right, groups, blocks, 500, 0)
    _, between = fairness.measure_gap(right, groups, np.arange(400), 500, 0)
    assert within < 0.01 < between


def test_persons_keep_their_group_together():
    # One person of twenty is always wrong: as faces that is much, as persons it is chance.
    persons = np.repeat(np.arange(20), 30)
    groups = (persons < 10).astype(int)
    right = persons != 3
    assert fairness.measure_gap(right, groups, persons, 500, 0)[1] > 0.3
    assert fairness.measure_gap(right, groups, np.arange(600), 500, 0)[1] < 0.01


def test_person_on_the_border_of_two_groups_does_not_change_the_test():
    persons = np.repeat(np.arange(50), 12)
    groups = (persons >= 25).astype(int)
    groups[persons == 25] = np.tile([0, 1], 6)  # cut through by a fifth's border
    rng = np.random.default_rng(5)
    right = rng.random(600) < np.where(groups == 0, 0.9, 0.6)
    assert fairness.measure_gap(right, groups, persons, 300, 0)[1] < 0.02


def test_small_groups_do_not_enter_a_gap():
    groups = np.repeat([0, 1, 2], [50, 50, 5])
    right = groups != 2
    assert fairness.measure_gap(right, groups, np.arange(105), 20, 0, min_faces=10)[0] == 0
    assert fairness.measure_gap(right, groups, np.arange(105), 20, 0)[0] == 1


def test_ratio_is_lowest_over_highest_recall(faces):
    labels, pred, groups = faces
    recalls = [balanced_accuracy_score(labels[groups == g], pred[groups == g]) for g in ("0", "1")]
    ratio, low, high = fairness.compute_ratio(labels, pred, groups, Bootstrap(600, 200, 0))
    assert ratio == pytest.approx(min(recalls) / max(recalls))
    assert low < ratio < high


def test_interaction_that_neither_factor_explains_comes_first():
    rng = np.random.default_rng(3)
    first, second = rng.choice(["a", "b"], 800), rng.choice(["x", "y", "z"], 800)
    right = rng.random(800) < np.where((first == "a") & (second == "y"), 0.2, 0.9)
    pair = {"one": first, "two": second}
    table = fairness.list_interactions(right, pair, np.zeros(800), 20, 200, 0)
    cells = {(row.first, row.second): row for row in table.itertuples()}
    assert len(cells) == 6
    planted = cells["one a", "two y"]
    assert planted.excess < -10
    assert planted.p < 0.01
    chosen = right[(first == "a") & (second == "y")]
    assert planted.accuracy == pytest.approx(chosen.mean())
    assert (table["excess"].abs().diff().dropna() <= 0).all()


def test_factors_that_go_together_are_no_interaction():
    rng = np.random.default_rng(4)
    first = rng.random(3000) < 0.5
    second = np.where(rng.random(3000) < 0.9, first, ~first)
    right = rng.random(3000) < 0.4 + 0.25 * first + 0.25 * second
    pair = {"one": first, "two": second}
    table = fairness.list_interactions(right, pair, np.zeros(3000), 20, 20, 0)
    # The rare cells hold 150 faces, a standard error of 4 points. Adding both marginal effects would give 23.
    assert table["excess"].abs().max() < 8


def test_mitigation_is_judged_on_the_same_faces(faces):
    labels, pred, groups = faces
    right = pred == labels
    mended = right | (groups == "1")
    change = fairness.compare_gaps(mended, right, groups, Bootstrap(600, 200, 0))
    assert change["accuracy"][0] == pytest.approx(mended.mean() - right.mean())
    rates = [right[groups == group].mean() for group in ("0", "1")]
    assert change["gap"][0] == pytest.approx((1 - rates[0]) - abs(rates[0] - rates[1]))
    assert change["gap"][1] < change["gap"][0] < change["gap"][2]
    same = fairness.compare_gaps(right, right, groups, Bootstrap(600, 20, 0))
    assert same == {"accuracy": (0, 0, 0), "gap": (0, 0, 0)}


def test_rates_are_written_with_their_intervals(faces):
    labels, pred, groups = faces
    scores = fairness.score_groups(labels, pred, np.full(600, 0.8), groups, Bootstrap(600, 50, 0))
    table = fairness.tabulate_rates({"skin_tone": scores})
    assert table.index.tolist() == ["skin tone 0", "skin tone 1"]
    assert table.columns.tolist() == ["accuracy", "false positive rate", "ECE"]
    assert table.loc["skin tone 0", "accuracy"] == f"{scores.loc['0', 'accuracy']:.1%}"


def test_drawn_faces_are_grouped_by_what_is_known_of_them():
    factors = pd.DataFrame({"mask": np.arange(210) < 100, "age": np.linspace(0, 1, 210)})
    groups = fairness.group_factors(factors, 0)
    assert sorted(set(groups["mask"])) == ["False", "True"]
    assert sorted(set(groups["age"])) == ["1", "2", "3", "4", "5"]


# By hand: 4 x 0.01, then at least that, 3 x 0.01 = 0.03 -> 0.04; 2 x 0.03; 0.04 -> at least 0.06.
@pytest.mark.parametrize(
    ("p_values", "expected"),
    [([0.03, 0.01, 0.01, 0.04], [0.06, 0.04, 0.04, 0.06]), ([0.9, 0.8], [1, 1])],
)
def test_gaps_of_several_groupings_are_adjusted_together_as_holm_does(p_values, expected):
    table = fairness.tabulate_gaps({str(place): (place / 10, p) for place, p in enumerate(p_values)})
    assert table["gap"].tolist() == [place / 10 for place in range(len(p_values))]
    assert table["p"].tolist() == pytest.approx(expected)


LANDMARKS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.4, 0.8], [0.6, 0.8]])


def test_proxies_follow_the_image():
    face = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (48, 1))
    landmarks = np.stack([LANDMARKS, LANDMARKS])
    landmarks[1, 2, 0] = 0.6  # the nose is off the middle
    is_found = np.array([True, True])
    table = fairness.measure_proxies([face, face], landmarks, is_found)
    darker = fairness.measure_proxies([face // 2, face // 2], landmarks, is_found)
    np.testing.assert_allclose(table["luminance"], 2 * darker["luminance"], rtol=0.05)
    assert (table["sharpness"] > darker["sharpness"]).all()
    assert table["size"][0] == pytest.approx(0.4)
    assert table["yaw"].tolist() == pytest.approx([0, 0.25])
    assert table["roll"][0] == 0


def test_what_rests_on_landmarks_is_unknown_without_them():
    face = np.zeros((48, 48, 3), np.uint8)
    row = fairness.measure_proxies([face], LANDMARKS[None], np.array([False])).iloc[0]
    assert row[["size", "yaw", "roll"]].isna().all()
    assert row[["luminance", "sharpness"]].notna().all()


@given(n=st.integers(5, 200), missing=st.integers(0, 4), seed=st.integers(0, 9))
def test_fifths_are_even_and_in_order(n, missing, seed):
    values = pd.Series(np.random.default_rng(seed).random(n))
    values[:missing] = np.nan
    fifths = fairness.cut_quintiles(values, seed)
    assert (fifths[:missing] == fairness.NO_FACE).all()
    known, of_known = values[missing:].to_numpy(), fifths[missing:].astype(int)
    sizes = np.bincount(of_known, minlength=6)[1:]
    assert sizes.max() - sizes.min() <= 1
    assert (np.diff(of_known[np.argsort(known)]) >= 0).all()


def test_equal_values_are_not_cut_in_the_order_of_the_files():
    fifths = fairness.cut_quintiles(pd.Series(np.zeros(500)), 0)
    assert len(set(fifths[:100])) == 5  # a class folder's worth
