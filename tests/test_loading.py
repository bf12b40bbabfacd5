import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lib.training.loading import EpochBatches, build_eval_batches, compute_sampling_weights

LABELS = np.repeat([0, 1, 2], [900, 90, 10])


def list_rows(batches: EpochBatches) -> list[int]:
    return [row for batch in batches for row, _ in batch]


def test_weighted_sampler_draws_every_class_equally_often():
    batches = EpochBatches(np.arange(1000), compute_sampling_weights(LABELS, True), 10, seed=0)
    drawn = []
    for batches.epoch in range(20):
        drawn += list_rows(batches)
    shares = np.bincount(LABELS[drawn]) / len(drawn)
    # 20,000 draws: the standard error of a share of 1/3 is 0.0033; four of them.
    assert shares == pytest.approx(np.full(3, 1 / 3), abs=0.0133)


@pytest.mark.parametrize("is_weighted", [True, False])
def test_groups_are_drawn_equally_often_within_a_class_and_classes_as_before(is_weighted):
    groups = np.concatenate([np.repeat([0, 1], [800, 100]), np.repeat([0, 1], [45, 45]), np.ones(10, int)])
    weights = compute_sampling_weights(LABELS, is_weighted, groups)
    shares = {
        (label, group): weights[(label == LABELS) & (group == groups)].sum() / weights.sum()
        for label in range(3)
        for group in range(2)
    }
    of_class = [1 / 3] * 3 if is_weighted else [0.9, 0.09, 0.01]
    for label in (0, 1):
        assert shares[label, 0] == pytest.approx(of_class[label] / 2)
        assert shares[label, 1] == pytest.approx(of_class[label] / 2)
    assert shares[2, 1] == pytest.approx(of_class[2])  # a class of one group keeps its share


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 300), batch_size=st.integers(1, 64), seed=st.integers(0, 99))
def test_shuffle_uses_every_row_at_most_once(n, batch_size, seed):
    rows = np.arange(n) * 3
    batches = EpochBatches(rows, None, batch_size, seed)
    used = list_rows(batches)
    assert len(used) == len(set(used)) == min(n, len(batches) * batch_size)
    assert set(used) <= set(rows.tolist())
    assert n - len(used) < batch_size  # only what does not fill a batch is left out


@settings(max_examples=30, deadline=None)
@given(start=st.integers(0, 12), weighted=st.booleans(), epoch=st.integers(0, 5))
def test_an_interrupted_epoch_goes_on_with_the_same_batches(start, weighted, epoch):
    weights = compute_sampling_weights(LABELS, True) if weighted else None
    whole = EpochBatches(np.arange(1000), weights, 80, seed=4, epoch=epoch)
    rest = EpochBatches(np.arange(1000), weights, 80, seed=4, epoch=epoch, start=start)
    assert list(whole)[start:] == list(rest)


def test_epochs_and_seeds_give_different_orders():
    orders = {
        tuple(list_rows(EpochBatches(np.arange(100), None, 10, seed, epoch)))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_eval_batches_keep_order_and_augment_nothing():
    batches = build_eval_batches(np.array([5, 3, 8]), 2)
    assert batches == [[(5, None), (3, None)], [(8, None)]]
