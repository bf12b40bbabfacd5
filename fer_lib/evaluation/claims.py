"""Judge the claims ledger: what the paper says, what was measured here, and the verdict of a stated rule.

`claims.yaml` names the numbers that decide each claim, as `<stage>/<key>`. A verdict is computed by one of
`claim_rules`, never typed in.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

import pandas as pd
import yaml
from pydantic import Field

from fer_lib.errors import FerError
from fer_lib.evaluation.claim_checks import (
    CONTRARY,
    MISSING,
    SUPPORTED,
    Check,
    describe,
    explain_check,
)
from fer_lib.evaluation.claim_rules import IMPLEMENTED, MEASURED, RULES, STAGES, Number, Records, Rule
from fer_lib.files import write_atomically
from fer_lib.metrics_file import Metrics, read_metrics
from fer_lib.param_sections import Section
from fer_lib.params import validate
from fer_lib.paths import ROOT, OutputDirs
from fer_lib.wording import join_words

CLAIMS_FILE = ROOT / "claims.yaml"
"""The ledger of the project that the results belong to."""

INCONCLUSIVE = "inconclusive"
"""The verdict where every interval contains the value that decides."""

VERDICTS = {
    MEASURED: ("reproduced", "partly", INCONCLUSIVE, "not reproduced", "not tested"),
    IMPLEMENTED: ("implemented", "partly", "not implemented", "not tested"),
}
"""By what a claim rests on, the best first."""

BESIDE = "context"
"""Stands in the place of the outcome of a number that a claim names beside those of its rule."""


class Claim(Section):
    """A claim, the paper's own number, what a reader must know, where to look, and the rule that decides.

    title: the claim in a few words.   beside: numbers and facts for context, which do not enter the verdict.
    """

    id: Annotated[str, Field(pattern="^[SN][1-9][0-9]?$")]
    title: str
    claim: str
    paper: str | None
    note: str | None = None
    figure: Annotated[str, Field(pattern=rf"^(\.\./\w+/)?({STAGES})\.html(#figure-\w+)?$")] | None = None
    beside: tuple[Number, ...] = ()
    rule: Annotated[Rule, Field(discriminator="kind")]


def load_claims(path: Path = CLAIMS_FILE) -> list[Claim]:
    """Return the ledger's claims. Raises FerError, in one line, for whatever is not as it should be."""
    entries = _load(path)["claims"]
    ids = [str(entry["id"]) for entry in entries]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice:
        raise FerError(f"{path}: {twice}: expected once, found {ids.count(twice)} times")
    return [validate(Claim, entry, f"{path}: {name}") for entry, name in zip(entries, ids, strict=True)]


def _load(path: Path) -> dict[str, Any]:
    try:
        ledger = yaml.safe_load(path.read_text())
        _ = [entry["id"] for entry in ledger["claims"]], dict(ledger["numbers"])
    except (OSError, yaml.YAMLError, TypeError, ValueError, KeyError) as error:
        raise FerError(
            f"{path}: expected `claims:`, a list whose entries have an `id`, and `numbers:`, their names; "
            f"{shorten(str(error), 120)}"
        ) from None
    return ledger


def load_records(dirs: OutputDirs, project: Path = ROOT) -> Records:
    """Return all that has been measured so far, on the data set of `dirs` and on those beside it.

    project: the folder with the notebooks, and with the record of the tests in a browser.

    Raises FerError for a damaged file.
    """
    metrics: dict[str, dict[str, Metrics]] = {dirs.reports.name: {}}
    for folder in sorted(path for path in dirs.reports.parent.glob("[!.]*") if path.is_dir()):
        other = replace(dirs, reports=folder)
        for stage in STAGES.split("|"):
            name = stage.split("_", 1)[1]
            if other.get_table(name).is_file():
                metrics.setdefault(folder.name, {})[name] = read_metrics(other, name)
    figures = {f"{path.parent.name}/{path.stem}" for path in dirs.figures.glob("*/*.webp")}
    return Records(dirs.reports.name, metrics, project, figures, _load(CLAIMS_FILE)["numbers"])


def judge_claim(claim: Claim, records: Records) -> dict[str, Any]:
    """Return a row of plain values: the claim, the verdict, the reason, and what was found.

    `ours`, `low`, `high`, `seeds`, `file` and `key` are of the first check. `also` says what stands beside
    those that decide. The page of the figure is named once its stage has run, with an anchor if it is there.
    """
    checks, basis = claim.rule.check(records), claim.rule.basis
    beside = [records.check(number, "–", lambda *_: None, bounds=False) for number in claim.beside]
    beside = [check if check.outcome == MISSING else replace(check, outcome=BESIDE) for check in beside]
    first = checks[0]
    return claim.model_dump(include={"id", "title", "claim", "paper", "note"}) | {
        "ours": first.value,
        "low": first.low,
        "high": first.high,
        "seeds": None if first.seeds is None else str(first.seeds),
        "dataset": records.dataset,
        "basis": basis,
        "verdict": conclude(checks, basis),
        "reason": explain(checks),
        "also": " ".join(dict.fromkeys(f"{describe(check)}." for check in beside)) or None,
        "figure": _find_figure(claim, records),
        "rule": claim.rule.kind,
        "file": first.file,
        "key": first.key,
        "checks": [asdict(check) for check in checks],
        "beside": [asdict(check) for check in beside],
    }


def _find_figure(claim: Claim, records: Records) -> str | None:
    page, _, name = (claim.figure or "").partition("#figure-")
    folder, _, file = page.rpartition("/")
    stage = file.removesuffix(".html").split("_", 1)[-1]
    if stage not in records.metrics.get(folder.removeprefix("../") or records.dataset, {}):
        return None
    return claim.figure if f"{stage}/{name}" in records.figures else page


def conclude(checks: Iterable[Check], basis: str) -> str:
    """Return the verdict on what a rule looked at, as `RULES` says.   basis: what the rule rests on."""
    outcomes, (yes, partly, *_, no, untested) = {check.outcome for check in checks}, VERDICTS[basis]
    if MISSING in outcomes:
        return untested
    if SUPPORTED in outcomes:
        return yes if outcomes == {SUPPORTED} else partly
    return no if CONTRARY in outcomes else INCONCLUSIVE


def explain(checks: list[Check]) -> str:
    """Return in sentences what is missing, or else what was found and what the claim asks for."""
    missing = [check for check in checks if check.outcome == MISSING]
    n_met = sum(check.outcome == SUPPORTED for check in checks)
    counted = [f"{n_met} of {len(checks)} parts hold."] if 0 < n_met < len(checks) and not missing else []
    return " ".join(dict.fromkeys([*counted, *map(explain_check, missing or checks)]))


def name_claim(row: Mapping[str, Any]) -> str:
    """Return the code of a claim and what it is about: `S4: Augmentation helps`."""
    return f"{row['id']}: {row['title']}"


def group_verdicts(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Return the ids of the claims by what they rest on and by verdict, from rows of `judge_claim`."""
    groups = {basis: {verdict: list[str]() for verdict in verdicts} for basis, verdicts in VERDICTS.items()}
    for row in rows:
        groups[row["basis"]][row["verdict"]].append(row["id"])
    return groups


def spell_verdict(verdict: str, basis: str) -> str:
    """Return a verdict as a reader sees it: `reproduced in part` for `partly`."""
    best, partly, *_ = VERDICTS[basis]
    return f"{best} in part" if verdict == partly else verdict


def count_verdicts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many claims have each verdict, from rows of `judge_claim`: `measured.not_reproduced`.

    `measured.n` and `implemented.n` are the numbers of claims.
    """
    counts = {}
    for basis, groups in group_verdicts(rows).items():
        counts[f"{basis}.n"] = sum(map(len, groups.values()))
        counts |= {f"{basis}.{_name(verdict)}": len(ids) for verdict, ids in groups.items()}
    return counts


def describe_verdicts(counts: Mapping[str, Any], dataset: str) -> str:
    """Return the numbers of `count_verdicts` on the measured claims as a sentence."""
    n, *found = (round(counts[f"{MEASURED}.{_name(name)}"]) for name in ("n", *VERDICTS[MEASURED]))
    parts = [
        f"{of} {'is' if of == 1 else 'are'} {spell_verdict(verdict, MEASURED)}"
        for of, verdict in zip(found, VERDICTS[MEASURED], strict=True)
        if of
    ]
    return f"Of the {n} measured claims, {join_words(parts)} on {dataset}."


def tabulate_verdicts(counts: Mapping[str, Any]) -> dict[str, str]:
    """Return the numbers of `count_verdicts` for a small table: what to how many of how many."""
    table = {}
    for verdict in VERDICTS[MEASURED]:
        of, n = (counts[f"{MEASURED}.{name}"] for name in (_name(verdict), "n"))
        table[f"measured claims {spell_verdict(verdict, MEASURED)}"] = f"{of:.0f} of {n:.0f}"
    met = counts[f"{IMPLEMENTED}.{_name(VERDICTS[IMPLEMENTED][0])}"]
    return table | {
        "claims about the implementation that are met": f"{met:.0f} of {counts[f'{IMPLEMENTED}.n']:.0f}"
    }


def tabulate_checks(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a row for each number and test behind the verdicts, and for those beside them.

    Columns: claim, number, outcome, and the budget and seeds of its trainings.
    """
    table = []
    for row in rows:
        for check in (Check(**found) for found in (*row["checks"], *row["beside"])):
            seeds = "–" if check.seeds is None else str(check.seeds)
            table.append((name_claim(row), check.name, check.outcome, check.budget or "–", seeds))
    return pd.DataFrame(table, columns=["claim", "number", "outcome", "budget", "seeds"])


def write_ledger(dirs: OutputDirs, rows: list[dict[str, Any]], accuracies: list[dict[str, Any]]) -> None:
    """Write the ledger: the rules in words, the judged claims, and every accuracy beside the paper's."""
    content = {"rules": RULES, "claims": rows, "accuracies": accuracies}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_atomically(dirs.ledger, f"{text}\n".encode())


def _name(verdict: str) -> str:
    return verdict.replace(" ", "_")
