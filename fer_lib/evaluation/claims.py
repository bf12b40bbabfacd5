"""Judge the claims ledger: what the paper says, what was measured here, and the verdict of a stated rule.

`claims.yaml` names the numbers that decide each claim, as `<stage>/<key>`. A verdict is computed, never typed
in; the docstring of a rule is the rule as the report states it.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field

from fer_lib.errors import FerError
from fer_lib.files import write_atomically
from fer_lib.metrics_file import Metrics, read_metrics
from fer_lib.params import Section, validate
from fer_lib.paths import ROOT, OutputDirs

CLAIMS_FILE = ROOT / "claims.yaml"
"""The ledger of the project that the results belong to."""

VERDICTS = ("reproduced", "partly", "not reproduced", "not testable here")
SUPPORTED, OPEN, CONTRARY, MISSING = "supported", "open", "not supported", "missing"
"""What one number does for a claim."""
OUTCOMES = {True: SUPPORTED, False: CONTRARY, None: OPEN}

REACHED, CONTAINED, BELOW = "reached", "interval contains it", "below"
"""Where an interval lies beside a value."""

STAGES = "03_training|04_evaluation|05_ablations|06_compression|07_gradcam|08_robustness"
Number = Annotated[str, Field(pattern=rf"^({STAGES})(@\w+)?/\S+$")]
"""`<stage>/<key>`; `<stage>@<data set>/<key>` for a certain data set's."""


@dataclass(frozen=True)
class Check:
    """One thing that a rule looked at: where it stands, what the claim expects, and what was found."""

    file: str
    key: str
    expected: str
    outcome: str
    value: float | int | str | None = None
    low: float | None = None
    high: float | None = None
    why: str | None = None
    seeds: int | str | None = None
    data_hash: str | None = None
    commit: str | None = None


@dataclass(frozen=True)
class Records:
    """What there is to judge `dataset` by. metrics: data set -> stage's name -> its numbers."""

    dataset: str
    metrics: Mapping[str, Mapping[str, Metrics]]
    project: Path = ROOT

    def check(
        self, number: str, expected: str, decide: Callable[..., bool | None], bounds: bool = True
    ) -> Check:
        """Look a number up, with an interval if `bounds`; decide(value, low, high) says if it counts."""
        place, key = number.split("/", 1)
        stage, _, other = place.partition("@")
        dataset, name = other or self.dataset, stage.split("_", 1)[-1]
        file = f"reports/{dataset}/tables/{name}.csv"
        found = self.metrics.get(dataset, {}).get(name)
        if found is None:
            is_there = (self.project / "notebooks" / f"{stage}.ipynb").is_file()
            lack = f"not run on {other or 'this data set'}" if is_there else "no notebook yet"
            return Check(file, key, expected, MISSING, why=f"needs stage {stage}, which has {lack}")
        source = {
            "seeds": found.get("seeds", found.provenance.get("seed")),
            "data_hash": found.provenance.get("data"),
            "commit": found.provenance.get("commit"),
        }
        if key not in found:
            return Check(file, key, expected, MISSING, why=f"{stage} reports no {key}", **source)
        values: tuple[Any, float | None, float | None]
        try:
            values = found.interval(key)
        except KeyError:
            if bounds:
                why = f"{stage} reports no interval of {key}"
                return Check(file, key, expected, MISSING, why=why, **source)
            values = found[key], None, None
        return Check(file, key, expected, OUTCOMES[decide(*values)], *values, **source)


def judge_threshold(low: float, high: float, value: float) -> str:
    """Return where a 95 % interval lies: `reached` from `value` up, `below` it, or it contains the value."""
    if low >= value:
        return REACHED
    return BELOW if high < value else CONTAINED


class AtLeast(Section):
    """A number counts when its interval lies at the value or above; when it contains the value: partly."""

    kind: Literal["at_least"]
    key: Number
    value: float

    def _check(self, records: Records) -> list[Check]:
        def decide(_: float, low: float, high: float) -> bool | None:
            return {REACHED: True, CONTAINED: None, BELOW: False}[judge_threshold(low, high, self.value)]

        return [records.check(self.key, f"at least {_format(self.value)}", decide)]


class Gains(Section):
    """A difference counts when its interval lies wholly on the expected side of 0: else it is not shown."""

    kind: Literal["gains"]
    gains: dict[Number, Literal["positive", "negative"]] = Field(min_length=1)

    def _check(self, records: Records) -> list[Check]:
        sides = {
            "positive": ("above 0", lambda _, low, __: low > 0),
            "negative": ("below 0", lambda _, __, high: high < 0),
        }
        return [records.check(number, *sides[sign]) for number, sign in self.gains.items()]


class Greater(Section):
    """A number counts when its interval lies wholly above the number it is compared with."""

    kind: Literal["greater"]
    pairs: tuple[tuple[Number, Number], ...] = Field(min_length=1)

    def _check(self, records: Records) -> list[Check]:
        return [self._check_pair(records, *pair) for pair in self.pairs]

    def _check_pair(self, records: Records, first: str, second: str) -> Check:
        other = records.check(second, "a number", lambda *_: True, bounds=False)
        if other.outcome == MISSING:
            return other
        expected = f"above {other.key}, {_format(other.value)}"
        return records.check(first, expected, lambda _, low, __: low > other.value)


class Equals(Section):
    """A setting counts when the run used what the paper says."""

    kind: Literal["equals"]
    values: dict[Number, int | float | str] = Field(min_length=1)

    def _check(self, records: Records) -> list[Check]:
        return [
            records.check(
                number, _format(stated), lambda used, *_, stated=stated: used == stated, bounds=False
            )
            for number, stated in self.values.items()
        ]


class Present(Section):
    """A number counts when it is reported and else does not; when none is, the claim is not testable here."""

    kind: Literal["present"]
    numbers: tuple[Number, ...] = Field(min_length=1)

    def _check(self, records: Records) -> list[Check]:
        checks = [records.check(name, "reported", lambda *_: True, bounds=False) for name in self.numbers]
        if all(check.outcome == MISSING for check in checks):
            return checks
        return [replace(c, outcome=CONTRARY) if c.outcome == MISSING else c for c in checks]


class Built(Section):
    """A file counts when it is in the repository; how well it works is not judged."""

    kind: Literal["built"]
    files: tuple[str, ...] = Field(min_length=1)

    def _check(self, records: Records) -> list[Check]:
        built = {file: (records.project / file).is_file() for file in self.files}
        found = {True: "there", False: "not there"}
        return [Check(file, file, "there", OUTCOMES[ok], found[ok]) for file, ok in built.items()]


Rule = AtLeast | Gains | Greater | Equals | Present | Built

RULES = {
    "every rule": "Reproduced when all that the rule names counts, not reproduced when nothing does, else "
    "partly. Not testable here while a number that it needs is missing (but see the rule present). Intervals "
    "are 95 % intervals."
} | {get_args(rule.model_fields["kind"].annotation)[0]: rule.__doc__ for rule in get_args(Rule)}


class Claim(Section):
    """A claim, the paper's own number, what a reader must know, where to look, and the rule that decides."""

    id: Annotated[str, Field(pattern="^[SN][1-9][0-9]?$")]
    claim: str
    paper: str | None
    note: str | None = None
    figure: Annotated[str, Field(pattern=rf"^({STAGES})\.html(#figure-\w+)?$")] | None = None
    rule: Annotated[Rule, Field(discriminator="kind")]


def load_claims(path: Path = CLAIMS_FILE) -> list[Claim]:
    """Return the ledger's claims. Raises FerError, in one line, for whatever is not as it should be."""
    try:
        entries = yaml.safe_load(path.read_text())["claims"]
        ids = [str(entry["id"]) for entry in entries]
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        found = shorten(str(error), 120)
        raise FerError(f"{path}: expected `claims:`, a list whose entries have an `id`; {found}") from None
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice:
        raise FerError(f"{path}: {twice}: expected once, found {ids.count(twice)} times")
    return [validate(Claim, entry, f"{path}: {name}") for entry, name in zip(entries, ids, strict=True)]


def load_records(dirs: OutputDirs) -> Records:
    """Return all that has been measured so far, on the data set of `dirs` and on those beside it.

    Raises FerError for a damaged file.
    """
    metrics: dict[str, dict[str, Metrics]] = {dirs.reports.name: {}}
    for folder in sorted(path for path in dirs.reports.parent.glob("[!.]*") if path.is_dir()):
        other = replace(dirs, reports=folder)
        for stage in STAGES.split("|"):
            name = stage.split("_", 1)[1]
            if other.get_table(name).is_file():
                metrics.setdefault(folder.name, {})[name] = read_metrics(other, name)
    return Records(dirs.reports.name, metrics)


def judge_claim(claim: Claim, records: Records) -> dict[str, Any]:
    """Return a row of plain values: the claim, the verdict, the reason, and what was found.

    `ours`, `low`, `high`, `seeds`, `file` and `key` are of the first check. A figure is named once its stage
    has run.
    """
    checks = claim.rule._check(records)
    first, stage = checks[0], (claim.figure or "").split(".")[0].split("_", 1)[-1]
    return claim.model_dump(include={"id", "claim", "paper", "note"}) | {
        "ours": first.value,
        "low": first.low,
        "high": first.high,
        "seeds": None if first.seeds is None else str(first.seeds),
        "dataset": records.dataset,
        "verdict": conclude(checks),
        "reason": explain(checks),
        "figure": claim.figure if stage in records.metrics[records.dataset] else None,
        "rule": claim.rule.kind,
        "file": first.file,
        "key": first.key,
        "checks": [asdict(check) for check in checks],
    }


def conclude(checks: Iterable[Check]) -> str:
    """Return the verdict on what a rule looked at, as `RULES` says."""
    outcomes = {check.outcome for check in checks}
    if MISSING in outcomes:
        return "not testable here"
    if outcomes == {SUPPORTED}:
        return "reproduced"
    return "not reproduced" if outcomes == {CONTRARY} else "partly"


def explain(checks: list[Check]) -> str:
    """Return in words what is missing, or else what was found: all of it, or what does not count."""
    missing = dict.fromkeys(check.why or "" for check in checks if check.outcome == MISSING)
    if missing:
        return "; ".join(missing)
    lost = [check for check in checks if check.outcome != SUPPORTED]
    shown = "; ".join(c.why or f"{c.key} {show(c)}, expected {c.expected}" for c in lost)
    found = "; ".join(dict.fromkeys(f"{check.key} {show(check)}" for check in checks))
    counted = f"{len(checks) - len(lost)} of {len(checks)} as expected; else: " if len(checks) > 1 else ""
    return f"{counted}{shown}" if lost else f"as expected: {found}"


def show(check: Check) -> str:
    """Return what was found, with its 95 % interval where it has one."""
    ends = "" if check.low is None else f" [{_format(check.low)}, {_format(check.high)}]"
    return f"{_format(check.value)}{ends}"


def write_ledger(dirs: OutputDirs, rows: list[dict[str, Any]], accuracies: list[dict[str, Any]]) -> None:
    """Write `claims.json`: the rules in words, the judged claims, and every accuracy beside the paper's."""
    content = {"rules": RULES, "claims": rows, "accuracies": accuracies}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_atomically(dirs.reports / "claims.json", f"{text}\n".encode())


def _format(value: float | int | str | None) -> str:
    if not isinstance(value, float):
        return str(value)
    if value.is_integer() and abs(value) > 1:  # a setting, such as 224 pixels
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"
