"""Reference values are by hand; fits are of times that follow the model exactly."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fer_lib.scale.costs import (
    StepTime,
    average_ratio,
    compute_rate,
    compute_speedups,
    cross_validate,
    price_cores,
    project_training,
    share_of_ring,
)

TRUE = StepTime(1_000_000, constant=0.05, per_image={48: 0.01, 64: 0.02}, per_byte=1e-8)


def list_points():
    points = [
        {"image_size": size, "batch": batch, "processes": processes}
        for size in (48, 64)
        for batch in (16, 32, 64)
        for processes in (1, 2)
    ]
    table = pd.DataFrame(points)
    return table.assign(seconds=TRUE.predict(table))


def test_step_by_hand():
    point = pd.DataFrame([{"image_size": 64, "batch": 32, "processes": 2}])
    # 0.05 + 16 images at 0.02 + 4 MB exchanged once at 1e-8
    assert TRUE.predict(point)[0] == pytest.approx(0.05 + 0.32 + 0.04)


def test_fit_finds_what_made_the_times():
    found = StepTime.fit(list_points(), TRUE.n_parameters)
    assert found.constant == pytest.approx(TRUE.constant)
    assert found.per_image == pytest.approx(TRUE.per_image)
    assert found.per_byte == pytest.approx(TRUE.per_byte)
    assert cross_validate(list_points(), TRUE.n_parameters) == pytest.approx(np.zeros(12), abs=1e-9)


def test_cross_validation_shows_a_point_that_does_not_fit():
    points = list_points()
    points.loc[3, "seconds"] *= 2
    errors = cross_validate(points, TRUE.n_parameters)
    assert errors[3] == pytest.approx(-0.5)
    assert abs(np.delete(errors, 3)).max() < 0.5


@pytest.mark.parametrize(("processes", "share"), [(1, 0), (2, 1), (4, 1.5), (64, 1.96875)])
def test_share_of_ring(processes, share):
    assert share_of_ring(processes) == share


def test_speedup_compares_each_round_with_itself():
    # The machine is half as fast in the second round: the ratios are 1.8 and 2, and the mean is their root.
    runs = pd.DataFrame(
        [("crops", 0, 1, 10.0), ("crops", 0, 2, 18.0), ("crops", 1, 1, 5.0), ("crops", 1, 2, 10.0)],
        columns=["work", "round", "workers", "per_second"],
    )
    assert compute_speedups(runs).loc[("crops", 2), "value"] == pytest.approx(3.6**0.5)


def test_interval_is_students():
    ratios = np.array([1.7, 1.8, 1.95])
    expected = stats.ttest_1samp(np.log(ratios), 0).confidence_interval(0.95)
    found = average_ratio(ratios)
    assert (found.low, found.high) == pytest.approx((np.exp(expected.low), np.exp(expected.high)))


def test_rate_is_of_the_median_with_the_order_statistics_around_it():
    # Of ten values the 2nd and the 9th enclose the median with 97.9 %, the 3rd and the 8th with 89.1 %.
    assert compute_rate([20, 10, 90, 40, 30, 80, 60, 70, 50, 100]) == pytest.approx(
        (1e3 / 55, 1e3 / 90, 1e3 / 20)
    )


def test_prices():
    assert price_cores(7200, 0.04) == pytest.approx(0.08)


def test_training_on_several_devices():
    asked = {"n_faces": 100_000, "epochs": 2, "faces_per_second": 1000, "batch": 100}
    asked |= {"n_parameters": 5_000_000, "bytes_per_second": 1e9}
    assert project_training(**asked, processes=1) == pytest.approx(200)
    # 500 steps an epoch of 0.1 s, and 20 MB at a GB/s in each
    assert project_training(**asked, processes=2) == pytest.approx(2 * 500 * 0.12)
