"""The rules of the claims ledger: each says which numbers it looks at, and which of them count for a claim.

The docstring of a rule is the rule as the report states it. `measured` rules have an outcome that could have
contradicted the paper; `implemented` ones look for a setting or a number that is there.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field

from fer_lib.evaluation.browser_record import RECORD, read_record
from fer_lib.evaluation.claim_checks import (
    COMPARED,
    CONTRARY,
    HIGHER,
    LOWER,
    MISSING,
    OUTCOMES,
    SUPPORTED,
    UNITS,
    Check,
    show,
)
from fer_lib.intervals import Interval
from fer_lib.metrics_file import Metrics
from fer_lib.param_sections import Section
from fer_lib.paths import ROOT

MEASURED, IMPLEMENTED = "measured", "implemented"
"""What a rule, and so a claim, rests on."""

REACHED, CONTAINED, BELOW = "reached", "interval contains it", "below"
"""Where an interval lies beside a value."""

STAGES = "03_training|04_evaluation|05_ablations|06_compression|07_gradcam|08_robustness|10_scale"
Number = Annotated[str, Field(pattern=rf"^({STAGES})(@\w+)?/\S+$")]
"""`<stage>/<key>`; `<stage>@<data set>/<key>` for a certain data set's."""


@dataclass(frozen=True)
class Records:
    """What there is to judge `dataset` by.

    metrics: data set -> stage's name -> its numbers.   figures: of `dataset`, such as `ablations/paper`.
    names: number -> what it is in words, with its unit in brackets at the end where it has one.
    """

    dataset: str
    metrics: Mapping[str, Mapping[str, Metrics]]
    project: Path = ROOT
    figures: Collection[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    def check(
        self, number: str, expected: str, decide: Callable[..., bool | None], bounds: bool = True
    ) -> Check:
        """Look a number up, with an interval if `bounds`; decide(value, low, high) says if it counts."""
        place, key = number.split("/", 1)
        stage, _, other = place.partition("@")
        dataset, name = other or self.dataset, stage.split("_", 1)[-1]
        words = self.names.get(number) or self.names.get(f"{stage}/{key}", key)
        ending = next(filter(words.endswith, UNITS), "")
        words, unit = words.removesuffix(ending), UNITS.get(ending, "")
        what = (f"reports/{dataset}/tables/{name}.csv", key, words, unit)
        found = self.metrics.get(dataset, {}).get(name)
        if found is None:
            is_there = (self.project / "notebooks" / f"{stage}.ipynb").is_file()
            lack = f"has not been run on {other or 'this data set'}" if is_there else "does not exist yet"
            return Check(*what, expected, MISSING, why=f"page {stage.replace('_', ' (')}) {lack}")
        source = {
            "budget": _find_budget(found, key),
            "seeds": found.get("seeds", found.provenance.get("seed")),
            "data_hash": found.provenance.get("data"),
            "commit": found.provenance.get("commit"),
        }
        if key not in found:
            why = f"{words.partition(COMPARED)[0]} was not measured, or on too few faces"
            return Check(*what, expected, MISSING, why=why, **source)
        values: tuple[Any, float | None, float | None]
        try:
            values = found.interval(key)
        except KeyError:
            if bounds:
                why = f"{words} was measured without an interval"
                return Check(*what, expected, MISSING, why=why, **source)
            values = found[key], None, None
        return Check(*what, expected, OUTCOMES[decide(*values)], *values, **source)


def judge_threshold(low: float, high: float, value: float) -> str:
    """Return where a 95% interval lies: `reached` from `value` up, `below` it, or it contains the value."""
    if low >= value:
        return REACHED
    return BELOW if high < value else CONTAINED


def compare(low: float, high: float, value: float) -> bool | None:
    """Return whether a 95% interval lies above a value; None where it contains it."""
    return None if low <= value <= high else low > value


class AtLeast(Section):
    """A number counts when its whole interval reaches the value; inconclusive: it contains the value."""

    basis: ClassVar = MEASURED
    kind: Literal["at_least"]
    values: dict[Number, float] = Field(min_length=1)

    def check(self, records: Records) -> list[Check]:
        """Return a check for each of `values`."""
        return [self._check_value(records, *item) for item in self.values.items()]

    def _check_value(self, records: Records, number: str, value: float) -> Check:
        counts = {REACHED: True, CONTAINED: None, BELOW: False}
        check = records.check(number, "", lambda _, low, high: counts[judge_threshold(low, high, value)])
        shown = show(replace(check, value=value, low=None)) if check.unit else f"{value:g}"
        return replace(check, expected=f"at least {shown}")


class Gains(Section):
    """A difference counts when its interval lies on the expected side of 0; inconclusive: it contains 0."""

    basis: ClassVar = MEASURED
    kind: Literal["gains"]
    gains: dict[Number, Literal["positive", "negative"]] = Field(min_length=1)

    def check(self, records: Records) -> list[Check]:
        """Return a check for each of `gains`."""
        sides = {
            "positive": (HIGHER, lambda _, low, high: compare(low, high, 0)),
            "negative": (LOWER, lambda _, low, high: compare(-high, -low, 0)),
        }
        return [records.check(number, *sides[sign]) for number, sign in self.gains.items()]


class Greater(Section):
    """A number counts when its whole interval is above that of another number; inconclusive: they overlap."""

    basis: ClassVar = MEASURED
    kind: Literal["greater"]
    pairs: tuple[tuple[Number, Number], ...] = Field(min_length=1)

    def check(self, records: Records) -> list[Check]:
        """Return a check for each of `pairs`."""
        return [self._check_pair(records, *pair) for pair in self.pairs]

    def _check_pair(self, records: Records, first: str, second: str) -> Check:
        other = records.check(second, "a number", lambda *_: True)
        if not isinstance(other.value, float) or other.low is None or other.high is None:  # it is missing
            found = records.check(first, f"above {other.name}", lambda *_: None)
            return found if found.outcome == MISSING else other
        beside = Interval(other.value, other.low, other.high)

        def decide(_: float, low: float, high: float) -> bool | None:
            return None if low <= beside.high and high >= beside.low else low > beside.high

        return records.check(first, f"above {other.name}, which is {show(other)}", decide)


class Equals(Section):
    """A setting counts when the run used what the paper says."""

    basis: ClassVar = IMPLEMENTED
    kind: Literal["equals"]
    values: dict[Number, int | float | str] = Field(min_length=1)

    def check(self, records: Records) -> list[Check]:
        """Return a check for each of `values`."""
        return [self._check_setting(records, *item) for item in self.values.items()]

    def _check_setting(self, records: Records, number: str, stated: int | float | str) -> Check:
        check = records.check(number, "", lambda used, *_: used == stated, bounds=False)
        return replace(check, expected=show(replace(check, value=stated)))


class Present(Section):
    """A number counts when it is reported; when none of them is, the claim is not tested."""

    basis: ClassVar = IMPLEMENTED
    kind: Literal["present"]
    numbers: tuple[Number, ...] = Field(min_length=1)

    def check(self, records: Records) -> list[Check]:
        """Return a check for each of `numbers`."""
        checks = [records.check(name, "reported", lambda *_: True, bounds=False) for name in self.numbers]
        if all(check.outcome == MISSING for check in checks):
            return checks
        return [replace(c, outcome=CONTRARY) if c.outcome == MISSING else c for c in checks]


class Passed(Section):
    """A test of the app counts when it passed in a real browser, as the record of its last run says."""

    basis: ClassVar = MEASURED
    kind: Literal["passed"]
    tests: tuple[Annotated[str, Field(pattern=r"^test_\w+")], ...] = Field(min_length=1)

    def check(self, records: Records) -> list[Check]:
        """Return a check for each of `tests`."""
        record = read_record(records.project)
        return [self._check_test(name, record, records.names) for name in self.tests]

    def _check_test(self, name: str, record: Mapping[str, Any], names: Mapping[str, str]) -> Check:
        found = record["tests"].get(name)
        outcome = {"passed": SUPPORTED, "failed": CONTRARY}.get(found, MISSING)
        why = "the tests in a browser have not been run (make record)" if outcome == MISSING else None
        words = names.get(f"app/{name}", name.removeprefix("test_").replace("_", " "))
        what = (RECORD.as_posix(), name, words, "", "passed", outcome, found)
        return Check(*what, why=why, commit=record.get("commit"))


Rule = AtLeast | Gains | Greater | Passed | Equals | Present

BASES = {get_args(rule.model_fields["kind"].annotation)[0]: rule.basis for rule in get_args(Rule)}
"""Rule to what it rests on."""

RULES = {
    "every rule": "A measured claim is reproduced, and an implemented one implemented, when everything that "
    "its rule names counts, and in part when only some of it does. When nothing counts, it is inconclusive "
    "if every number is, and otherwise not reproduced. It is not tested while a number that the rule needs "
    "is missing (the rule present differs). Intervals are 95% intervals."
} | {get_args(rule.model_fields["kind"].annotation)[0]: rule.__doc__ for rule in get_args(Rule)}


def _find_budget(metrics: Metrics, key: str) -> str | None:
    """Return the budget of the arm, study or network that a key begins with, or else that of the stage."""
    study, _, rest = key.partition(".")
    names = (f"{study}.{rest.partition('.')[0]}.budget", f"{study}.budget", "budget")
    return next((metrics[name] for name in names if name in metrics), None)
