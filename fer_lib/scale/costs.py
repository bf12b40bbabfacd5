"""Model what scoring and training take elsewhere, from what was measured here; see `measurements`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, stats

from fer_lib.intervals import Interval

BYTES = 4
"""Of a gradient, in float32."""


def average_ratio(ratios: np.ndarray, level: float = 0.95) -> Interval:
    """Return the geometric mean of positive ratios, float (n,), n >= 2, with Student's interval."""
    logs = np.log(ratios)
    reach = stats.t.ppf((1 + level) / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    return Interval(*map(float, np.exp(logs.mean() + np.array([0, -reach, reach]))))


def compute_rate(milliseconds: Sequence[float], level: float = 0.95) -> Interval:
    """Return how often a second a thing is done, from the median of its times and that median's interval."""
    bounds = stats.quantile_test(milliseconds, p=0.5).confidence_interval(level)
    return Interval(*(1e3 / float(value) for value in (np.median(milliseconds), bounds.high, bounds.low)))


def compute_speedups(runs: pd.DataFrame) -> pd.DataFrame:
    """Return how many times as fast runs with several workers are as those with one, by work and workers.

    runs: columns work, round, workers, per_second. The columns of the result are those of an `Interval`; a
    round is compared with itself, for a machine is not as fast at all times.
    """
    rates = runs.set_index(["work", "round", "workers"])["per_second"].unstack()  # noqa: PD010
    rows = {}
    for work, group in rates.groupby(level="work"):
        for workers in group.columns.drop([1]):
            rows[work, workers] = average_ratio((group[workers] / group[1]).to_numpy())
    index = pd.MultiIndex.from_tuples(rows, names=["work", "workers"])
    return pd.DataFrame(rows.values(), index=index, columns=Interval._fields)


def price_cores(seconds: float, dollars_per_hour: float) -> float:
    """Return the dollars for so many core-seconds."""
    return seconds / 3600 * dollars_per_hour


def share_of_ring(processes: int) -> float:
    """Return how often each process sends all gradients in a ring all-reduce, 2 (n - 1) / n.

    Source: Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters (2009).
    """
    return 2 * (processes - 1) / processes


@dataclass(frozen=True)
class StepTime:
    """Seconds of a training step: a constant, a part for each image, and a part for each byte exchanged."""

    n_parameters: int
    constant: float
    per_image: dict[int, float]  # by image size in pixels
    per_byte: float

    @classmethod
    def fit(cls, points: pd.DataFrame, n_parameters: int) -> "StepTime":
        """Return the model that fits measured steps best, by least squares of relative errors.

        points: columns image_size, batch (of all processes together), processes, seconds.
        """
        sizes = sorted(points["image_size"].unique())
        design = cls._design(points, sizes, n_parameters)
        seconds = points["seconds"].to_numpy()
        found, _ = optimize.nnls(design / seconds[:, None], np.ones(len(seconds)))
        return cls(n_parameters, found[0], dict(zip(sizes, found[2:], strict=True)), found[1])

    @staticmethod
    def _design(points: pd.DataFrame, sizes: list[int], n_parameters: int) -> np.ndarray:
        exchanged = BYTES * n_parameters * points["processes"].map(share_of_ring)
        own = points["batch"] / points["processes"]
        of_size = [own * (points["image_size"] == size) for size in sizes]
        return np.column_stack([np.ones(len(points)), exchanged, *of_size])

    def predict(self, points: pd.DataFrame) -> np.ndarray:
        """Return the seconds, float (n,), of steps as `fit` takes them."""
        sizes = list(self.per_image)
        factors = np.array([self.constant, self.per_byte, *self.per_image.values()])
        return self._design(points, sizes, self.n_parameters) @ factors


def cross_validate(points: pd.DataFrame, n_parameters: int) -> np.ndarray:
    """Return the relative error, float (n,), with which each point is predicted from all others."""
    errors = []
    for row in range(len(points)):
        left_out = points.iloc[[row]]
        model = StepTime.fit(points.drop(left_out.index), n_parameters)
        errors.append(float(model.predict(left_out)[0] / left_out["seconds"].iloc[0] - 1))
    return np.array(errors)


def project_training(
    n_faces: int,
    epochs: int,
    faces_per_second: float,
    batch: int,
    n_parameters: int,
    bytes_per_second: float,
    processes: int,
) -> float:
    """Return the seconds of a training on several devices that exchange gradients after every step.

    faces_per_second, batch: of one device.   bytes_per_second: between devices. Gradients are exchanged after
    the step, not during it; that devices wait for the slowest, and for the means of batch norms, is left out.
    """
    steps = n_faces / (batch * processes)
    exchange = BYTES * n_parameters * share_of_ring(processes) / bytes_per_second
    return epochs * steps * (batch / faces_per_second + exchange)
