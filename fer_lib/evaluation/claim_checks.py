"""Say in sentences what one check of a claim has found: a number with its interval, over a named baseline."""

from dataclasses import dataclass

from fer_lib.intervals import Interval
from fer_lib.wording import spell_difference, spell_network

SUPPORTED, OPEN, CONTRARY, MISSING = "supported", "inconclusive", "not supported", "missing"
"""What one number does for a claim."""
OUTCOMES = {True: SUPPORTED, False: CONTRARY, None: OPEN}

UNITS = {" (points)": "points", " (%)": "%", " (px)": "px"}
"""How the names of numbers end that have a unit; points and % are shown times 100."""

COMPARED = ", compared with "
"""Stands in the name of a difference before what it is measured over."""

HIGHER, LOWER = "above 0", "below 0"
"""Where a claim expects a difference."""


@dataclass(frozen=True)
class Check:
    """One thing that a rule looked at: where it stands, what the claim expects, and what was found.

    name: what the number is, in words.   unit: it is shown in `points` of 100, in `%`, or as it is.   budget:
    of the trainings behind it, as far as its stage tells.
    """

    file: str
    key: str
    name: str
    unit: str
    expected: str
    outcome: str
    value: float | int | str | None = None
    low: float | None = None
    high: float | None = None
    why: str | None = None
    budget: str | None = None
    seeds: int | str | None = None
    data_hash: str | None = None
    commit: str | None = None


def format_value(value: float | int | str | None) -> str:
    """Return a number with three decimals or thousands separators, a setting or a text as it is."""
    if not isinstance(value, float):
        return str(value)
    if value.is_integer() and abs(value) != 1:  # a setting or a count, such as 224 pixels
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def show(check: Check) -> str:
    """Return what was found in the number's unit, with its 95% interval where it has one."""
    if isinstance(check.value, str):
        return spell_network(check.value)
    value, low, high = check.value, check.low, check.high
    if check.unit == "%" and isinstance(value, float):
        return f"{value:.1%}" if low is None or high is None else f"{Interval(value, low, high):.1%}"
    numbers = [value] if low is None else [value, low, high]
    spec = "+.1f" if COMPARED in check.name else ".1f"
    in_points = check.unit == "points"
    shown = [
        format(100 * x, spec) if in_points and isinstance(x, float | int) else format_value(x)
        for x in numbers
    ]
    unit = f" {check.unit}" if check.unit else ""
    return f"{shown[0]}{unit}" + (f" [{shown[1]}, {shown[2]}]" if shown[1:] else "")


def describe(check: Check) -> str:
    """Return what was found as a sentence without its full stop; a difference says over what it is."""
    if check.value is None:
        return _capitalise(check.why or f"{check.name} was not measured")
    quantity, _, baseline = check.name.partition(COMPARED)
    if not baseline or not isinstance(check.value, float) or check.low is None or check.high is None:
        return _capitalise(f"{quantity} is {show(check)}")
    change, bounds = spell_difference(check.value, check.low, check.high)
    return _capitalise(f"{quantity} is {change} than with {baseline} {bounds}")


def explain_check(check: Check) -> str:
    """Return `describe` and what the claim asks for, as a whole sentence."""
    found, is_met = describe(check), check.outcome == SUPPORTED
    if check.value is None or check.outcome == MISSING or check.expected == "reported":
        return f"{found}."
    if check.expected == "passed":
        return f"{_capitalise(check.name)}: the test {check.value} in a browser."
    sides = {HIGHER: "it to be higher", LOWER: "it to be lower"}
    if check.expected in sides:
        but = ", and the interval contains 0" if check.outcome == OPEN else ""
        return (
            f"{found}, as claimed." if is_met else f"{found}; the claim expects {sides[check.expected]}{but}."
        )
    if check.expected.startswith(("at least", "above")):
        needed = check.expected.replace("above", "it above")
        but = ", which the interval contains" if check.outcome == OPEN else ""
        return f"{found}; the claim needs {needed}{but}."
    return f"{found}, as in the paper." if is_met else f"{found}; the paper gives {check.expected}."


def _capitalise(words: str) -> str:
    return words[:1].upper() + words[1:]
