"""The claims ledger: what the paper says, what was measured here, and the verdict that a stated rule gives.

`claims.yaml` names the numbers that decide each claim, as `<stage>/<key>`. A verdict is computed, never typed in;
the docstring of a rule is the rule as the report states it.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError

from fer_lib.errors import FerError
from fer_lib.files import write_atomically
from fer_lib.params import Params, Section
from fer_lib.paths import OutputDirs

PROJECT = Path(__file__).resolve().parent.parent
CLAIMS_FILE = PROJECT / "claims.yaml"
"""The ledger belongs to the code: results in another folder (`FER_ROOT`) are judged by the same rules."""

VERDICTS = REPRODUCED, PARTLY, NOT_REPRODUCED, NOT_TESTABLE = (
    *("reproduced", "partly", "not reproduced"),
    "not testable here",
)
SUPPORTED, OPEN, CONTRARY, MISSING = "supported", "open", "not supported", "missing"
"""What one number does for a claim."""

REACHED, CONTAINED, BELOW = "reached", "interval contains it", "below"
"""Where an interval lies beside a value."""

IF_MISSING = "Whatever the rule: a claim is not testable here while a number that decides it is missing."

Text = Annotated[str, Field(min_length=1)]
Number = Annotated[str, Field(pattern=r"^(params|0[1-8]_[a-z_]+)/\S+$")]
"""Where a number stands: the stage and its key there; `params` are the data set's settings in params.yaml."""


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
    missing: str | None = None

    def show(self) -> str:
        """Return what was found, with its 95 % interval where it has one."""
        bounds = "" if self.low is None else f" [{_format(self.low)}, {_format(self.high)}]"
        return f"{_format(self.value)}{bounds}"


@dataclass(frozen=True)
class Records:
    """What there is to judge by: metrics by stage (and `params`), and those of stage evaluation by data set."""

    dataset: str
    metrics: Mapping[str, Mapping[str, Any]]
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    project: Path = PROJECT

    def check(self, number: str, expected: str, decide: Callable[..., str], bounds: bool = True) -> Check:
        """Look a number up; `decide(value[, low, high])` says what it does for the claim."""
        stage, key = number.split("/", 1)
        name = stage.split("_", 1)[-1]
        file = "params.yaml" if name == "params" else _get_file(self.dataset, name)
        found = self.metrics.get(name)
        if found is None:
            why = f"needs stage {stage}, which has not run on this data set"
            return Check(file, key, expected, MISSING, missing=why)
        keys = (key, f"{key}_lo", f"{key}_hi") if bounds else (key,)
        for wanted in keys:
            if wanted not in found or (bounds and isinstance(found[wanted], str)):
                return Check(file, key, expected, MISSING, missing=f"{stage} reports no number {wanted}")
        values = [found[wanted] for wanted in keys]
        return Check(file, key, expected, decide(*values), *values)


def judge_threshold(low: float, high: float, value: float) -> str:
    """Return where a 95 % interval lies: `reached` from `value` up, `below` it, or it contains the value."""
    if low >= value:
        return REACHED
    return BELOW if high < value else CONTAINED


class AtLeast(Section):
    """Reproduced from the value up, not reproduced below it, partly where the 95 % interval contains it."""

    kind: Literal["at_least"]
    key: Number
    value: float

    def _check(self, records: Records) -> list[Check]:
        outcomes = {REACHED: SUPPORTED, CONTAINED: OPEN, BELOW: CONTRARY}
        expected = f"at least {_format(self.value)}"
        return [
            records.check(self.key, expected, lambda _, *bounds: outcomes[judge_threshold(*bounds, self.value)])
        ]


class Gains(Section):
    """A difference counts when its 95 % interval lies wholly on the expected side of 0: all, some or none do."""

    kind: Literal["gains"]
    positive: tuple[Number, ...] = ()
    negative: tuple[Number, ...] = ()

    def _check(self, records: Records) -> list[Check]:
        above = [records.check(key, "above 0", lambda _, low, __: _support(low > 0)) for key in self.positive]
        below = [records.check(key, "below 0", lambda _, __, high: _support(high < 0)) for key in self.negative]
        return above + below


class Greater(Section):
    """A pair counts when the first one's 95 % interval lies wholly above the second: all, some or none do."""

    kind: Literal["greater"]
    pairs: tuple[tuple[Number, Number], ...] = Field(min_length=1)

    def _check(self, records: Records) -> list[Check]:
        return [self._check_pair(*pair, records) for pair in self.pairs]

    def _check_pair(self, first: str, second: str, records: Records) -> Check:
        other = records.check(second, "a number", lambda _: SUPPORTED, bounds=False)
        if other.outcome == MISSING:
            return other
        expected = f"above {other.key} {_format(other.value)}"
        return records.check(first, expected, lambda _, low, __: _support(low > other.value))


class Equals(Section):
    """A setting counts when the run used what the paper says: all, some or none do."""

    kind: Literal["equals"]
    values: dict[Number, int | float | str] = Field(min_length=1)

    def _check(self, records: Records) -> list[Check]:
        return [
            records.check(key, _format(paper), lambda value, paper=paper: _support(value == paper), bounds=False)
            for key, paper in self.values.items()
        ]


class Present(Section):
    """A number counts when it is reported: all or some are. While none is, the claim is not testable here."""

    kind: Literal["present"]
    keys: tuple[Number, ...] = Field(min_length=1)

    def _check(self, records: Records) -> list[Check]:
        checks = [records.check(key, "reported", lambda _: SUPPORTED, bounds=False) for key in self.keys]
        return _count_missing(checks, "not reported")


class Built(Section):
    """A file counts when it is in the repository: all, some or none are. How well it works is not judged."""

    kind: Literal["built"]
    paths: tuple[Text, ...] = Field(min_length=1)

    def _check(self, records: Records) -> list[Check]:
        there = {path: (records.project / path).is_file() for path in self.paths}
        return [Check(p, "", "built", _support(ok), "built" if ok else "not built") for p, ok in there.items()]


class DataSets(Section):
    """A data set counts when it was evaluated here: all or some were. While none was, it is not testable here."""

    kind: Literal["data_sets"]
    names: tuple[Text, ...] = Field(min_length=1)

    def _check(self, records: Records) -> list[Check]:
        checks = [
            Check(_get_file(name, "evaluation"), "", "evaluated", SUPPORTED, "evaluated")
            if name in records.evaluations
            else Check(name, "", "evaluated", MISSING, missing=f"needs data set {name}, which was not evaluated")
            for name in self.names
        ]
        return _count_missing(checks, "not evaluated")


Rule = AtLeast | Gains | Greater | Equals | Present | Built | DataSets


class Claim(Section):
    """A claim, the paper's own number, what a reader must know, where to look, and the rule that decides it."""

    id: Annotated[str, Field(pattern="^[SN][1-9][0-9]?$")]
    claim: Text
    paper: str | None
    note: str | None = None
    figure: Annotated[str, Field(pattern=r"^0[1-8]_\w+\.html(#figure-\w+)?$")] | None = None
    rule: Annotated[Rule, Field(discriminator="kind")]


def load_claims(path: Path = CLAIMS_FILE) -> list[Claim]:
    """Return the ledger's claims. Raises FerError, in one line, for what no rule allows and for an id used twice."""
    try:
        entries = yaml.safe_load(path.read_text())["claims"]
        ids = [str(entry["id"]) for entry in entries]
    except FileNotFoundError:
        raise FerError(f"{path}: not found; expected the claims ledger") from None
    except yaml.YAMLError as error:
        raise FerError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except (TypeError, KeyError):
        raise FerError(f"{path}: expected `claims:`, a list of entries that each have an `id`") from None
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice:
        raise FerError(f"{path}: {twice}: expected once, found {ids.count(twice)} times")
    return [_validate(entry, f"{path}: {name}") for entry, name in zip(entries, ids, strict=True)]


def load_records(dirs: OutputDirs, params: Params) -> Records:
    """Return what has been measured so far for the data set of `dirs`, and by stage evaluation for all of them."""
    settings = {
        f"{section}.{key}": value
        for section, values in params.model_dump().items()
        for key, value in values.items()
        if isinstance(value, int | float | str)
    }
    metrics = {path.stem: _read_json(path) for path in sorted(dirs.metrics.glob("*.json"))}
    files = sorted(dirs.reports.parent.glob("[!.]*/metrics/evaluation.json"))
    evaluations = {path.parents[1].name: _read_json(path) for path in files}
    return Records(dirs.reports.name, metrics | {"params": settings}, evaluations)


def judge_claims(claims: Iterable[Claim], records: Records) -> list[dict[str, Any]]:
    """Return one row per claim as plain values: what was found, the verdict and the reason.

    `ours`, `low`, `high`, `file` and `key` are those of the first of its `checks`. A figure is named once its
    stage has run.
    """
    return [_judge(claim, records) for claim in claims]


def write_ledger(dirs: OutputDirs, rows: list[dict[str, Any]], accuracies: list[dict], records: Records) -> None:
    """Write `claims.json`: the rows, the rules in words, accuracies, and which data and code each file is from."""
    read = {check["file"] for row in rows for check in row["checks"]}
    files = {_get_file(records.dataset, name): values for name, values in records.metrics.items()}
    others = {_get_file(name, "evaluation"): values for name, values in records.evaluations.items()}
    sources = {
        file: {key: values.get(key) for key in ("data_hash", "git_commit")}
        for file, values in sorted((files | others).items())
        if file in read or file in others
    }
    content = {"dataset": records.dataset, "claims": rows, "rules": describe_rules()}
    content |= {"accuracies": accuracies, "sources": sources}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_atomically(dirs.reports / "claims.json", f"{text}\n".encode())


def describe_rules() -> dict[str, str]:
    """Return each kind of rule in words."""
    words = {get_args(kind.model_fields["kind"].annotation)[0]: kind.__doc__ for kind in get_args(Rule)}
    return words | {"every rule": IF_MISSING}


def _judge(claim: Claim, records: Records) -> dict[str, Any]:
    checks = claim.rule._check(records)
    first, outcomes = checks[0], {check.outcome for check in checks}
    verdict = {SUPPORTED: REPRODUCED, CONTRARY: NOT_REPRODUCED}.get(*outcomes) if len(outcomes) == 1 else PARTLY
    ...
