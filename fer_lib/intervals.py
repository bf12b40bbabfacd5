"""A value with its 95% interval, and how both are written."""

import math
from collections.abc import Mapping
from typing import NamedTuple


class Interval(NamedTuple):
    """A value with the bounds of its 95% interval; NaN throughout where the data do not define it."""

    value: float
    low: float
    high: float

    @property
    def is_defined(self) -> bool:
        """Whether all three are finite numbers."""
        return all(map(math.isfinite, self))

    def to_points(self) -> "Interval":
        """Return a share, or a difference of two, in percentage points."""
        return Interval(100 * self.value, 100 * self.low, 100 * self.high)

    def __format__(self, spec: str) -> str:
        """Return `0.652 [0.637, 0.668]`, in one piece; a dash for an undefined one."""
        if not self.is_defined:
            return "–"
        value, low, high = (format(number, spec or ".3f") for number in self)
        return f"{value} [{low}, {high}]".replace(" ", "\N{NO-BREAK SPACE}")


UNDEFINED = Interval(math.nan, math.nan, math.nan)


def show_score(metrics: Mapping[str, float], key: str, spec: str = ".1%") -> str:
    """Return a value with its 95% interval, `<key>_lo` to `<key>_hi`; a dash when it was not measured."""
    if key not in metrics:
        return "–"
    return f"{Interval(*(metrics[f'{key}{end}'] for end in ('', '_lo', '_hi'))):{spec}}"
