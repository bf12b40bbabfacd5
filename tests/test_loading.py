import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lib.data.packed import PackedDataset
from fer_lib.errors import ParamsError
from fer_lib.params import load_params
from fer_lib.training.loading import EpochBatches, build_eval_batches, compute_sampling_weights

LABELS = np.repeat([0, 1, 2], [900, 90, 10])
GROUPS = np.repeat(["pale", "dark", "pale", "dark"], [800, 100, 45, 55])


def weigh(sampler: str, balance: str | None = None, **columns) -> np.ndarray | None:
    index = pd.DataFrame({"label": LABELS, "tone": GROUPS, **columns})
    data = PackedDataset(np.zeros((1000, 2, 2), np.uint8), index, {"dataset": "three"})
    training = load_params("demo").training.model_copy(update={"sampler": sampler, "balance": balance})
    return compute_sampling_weights(data, np.arange(1000), training)


def list_rows(batches: EpochBatches) -> list[int]:
    return [row for batch in batches for row, _ in batch]


def test_weighted_sampler_draws_every_class_equally_often():
    batches = EpochBatches(np.arange(1000), weigh("weighted"), 10, seed=0)
    drawn = []
    for batches.epoch in range(20):
        drawn += list_rows(batches)
    shares = np.bincount(LABELS[drawn]) / len(drawn)
    # 20,000 draws: the standard error of a share of 1/3 is 0.0033; four of them.
    assert shares == pytest.approx(np.full(3, 1 / 3), abs=0.0133)


@pytest.mark.parametrize(("sampler", "of_class"), [("weighted", [1 / 3] * 3), ("shuffle", [0.9, 0.09, 0.01])])
def test_groups_are_drawn_equally_often_within_a_class_and_classes_as_before(sampler, of_class):
    weights = pd.Series(weigh(sampler, "tone"))
    shares = weights.groupby([LABELS, GROUPS]).sum() / weights.sum()
    for label in (0, 1):
        assert shares[label].tolist() == pytest.approx([of_class[label] / 2] * 2)
    assert shares[2].to_dict() == {"dark": pytest.approx(of_class[2])}  # one group keeps the class's share


def test_groups_that_are_not_known_of_every_face_are_refused():
    assert weigh("shuffle") is None
    with pytest.raises(ParamsError, match=r"balance: expected a column that three knows .* found 'age'"):
        weigh("shuffle", "age")
    with pytest.raises(ParamsError, match="found 'age'; use null"):
        weigh("shuffle", "age", age=[None, *range(999)])


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
    weights = weigh("weighted" if weighted else "shuffle")
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
