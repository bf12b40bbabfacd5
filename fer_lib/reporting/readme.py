"""Write the tables of results in README.md.

No number comes from a keyboard: all are read from what the stages have written below `reports/`, and from the
configs of the releases.
"""

import json

from fer_lib.errors import FerError
from fer_lib.evaluation.claim_rules import IMPLEMENTED, MEASURED
from fer_lib.evaluation.claims import group_verdicts, spell_verdict
from fer_lib.evaluation.paper import EPOCHS
from fer_lib.files import write_atomically
from fer_lib.inference.registry import RELEASE_DIR, list_checkpoints, list_variants
from fer_lib.intervals import show_score
from fer_lib.metrics_file import HEADLINES, read_metrics
from fer_lib.models.checkpoints import read_config
from fer_lib.paths import ROOT, get_output_dirs
from fer_lib.reporting.results import read_if_written

VERDICTS_OF = {
    MEASURED: "Claims of the paper that a measurement could have contradicted:",
    IMPLEMENTED: "Claims that only say what was built:",
}

README = ROOT / "README.md"
BEGIN, END = "<!-- results: written by `make readme` -->", "<!-- end of results -->"
README_COLUMNS = {
    "baseline.test.accuracy": "The paper's recipe: accuracy",
    **{key: HEADLINES[key][0] for key in ("test.accuracy", "test_dedup.accuracy")},
    **{key: HEADLINES[key][0] for key in ("test.macro.recall", "test_dedup.macro.recall")},
    "test.group.accuracy": "Three groups: accuracy",
    "ensemble_tta.test.accuracy": "Ensemble, twelve views: accuracy",
}
"""Columns of the table in README.md, by the key in the metrics of stage `evaluation`."""

INT8_COLUMN = "Selected INT8 network: accuracy"
"""The last one, from stage `compression`."""


def update_readme() -> None:
    """Rewrite the table of README.md. Raises FerError when it has lost its markers."""
    text = README.read_text()
    current = _cut_table(text)
    write_atomically(README, text.replace(current, build_results_table(), 1).encode())


def check_readme() -> bool:
    """Return whether the table of README.md is what `reports/` says."""
    return _cut_table(README.read_text()) == build_results_table()


def build_results_table() -> str:
    """Return the table in Markdown with its markers, one row per data set that has been evaluated."""
    evaluated = [path.parents[1].name for path in sorted(ROOT.glob("reports/*/tables/evaluation.csv"))]
    if not evaluated:
        return f"{BEGIN}\nNo results yet: `make results` computes them.\n{END}"
    lines = [
        f"| Data set | Test images | {' | '.join([*README_COLUMNS.values(), INT8_COLUMN])} |",
        "|---|" + "--:|" * (len(README_COLUMNS) + 2),
        *map(_build_row, evaluated),
    ]
    last = EPOCHS.iloc[-1]
    lines += [
        "",
        f"The paper reports {last['val_accuracy']:.0%} validation accuracy after epoch {last['epoch']:.0f}, "
        "on a data set and split that it does not name.",
    ]
    origins = [f"{origin} ({name})" for name in evaluated if (origin := _find_origin(name))]
    if origins:
        lines += ["", f"Some trainings come on top of others: {'; '.join(origins)}."]
    lines += ["", *_list_released()]
    ledgers = {name: get_output_dirs(name, ROOT).ledger for name in evaluated}
    judged = {
        name: group_verdicts(json.loads(path.read_bytes())["claims"])
        for name, path in ledgers.items()
        if path.is_file()
    }
    for basis, sentence in VERDICTS_OF.items():
        tables = {name: groups[basis] for name, groups in judged.items()}
        if tables:
            verdicts = list(next(iter(tables.values())))
            lines += [
                "",
                sentence,
                "",
                f"| Data set | {' | '.join(spell_verdict(verdict, basis) for verdict in verdicts)} |",
                "|---|" + "---|" * len(verdicts),
            ]
            for name, table in tables.items():
                cells = [f"[{name}](reports/{name}/09_claims.html)"]
                cells += [", ".join(ids) or "–" for ids in table.values()]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([BEGIN, *lines, END])


def _list_released() -> list[str]:
    """Return a table of what a fresh clone can run: every variant of every release, by both judges."""
    lines = ["| Model | Variant | MB | Accuracy by labels | By annotators |", "|---|---|--:|--:|--:|"]
    datasets = set[str]()
    for name, folder in list_checkpoints().items():
        if folder.parent == RELEASE_DIR:
            config = read_config(folder)
            for variant, of in list_variants(config).items():
                shown = f"`{variant}`{' (default)' if variant == config['default'] else ''}"
                scores = [show_score(of["metrics"], f"test.{judge}accuracy") for judge in ("", "majority.")]
                card = f"[{name}](models/release/{name}/README.md)"
                lines.append(f"| {card} | {shown} | {of['bytes'] / 1e6:.1f} | {' | '.join(scores)} |")
            datasets.add(config["dataset"])
    return [
        f"Models that a fresh clone can run, on the test images of {', '.join(sorted(datasets))}:",
        "",
        *lines,
    ]


def _build_row(dataset: str) -> str:
    dirs = get_output_dirs(dataset, ROOT)
    metrics, compression = read_metrics(dirs, "evaluation"), read_if_written(dirs, "compression")
    values = {key: f"{metrics.interval(key):.1%}" if key in metrics else "–" for key in README_COLUMNS}
    # What each network saw is not the same everywhere.
    for key, name in {"baseline.test.accuracy": "baseline", "test.accuracy": metrics.get("selected")}.items():
        if f"{name}.budget" in metrics:
            values[key] += f" (`{name}`, {metrics[f'{name}.budget']})"
    cells = [f"[{dataset}](reports/{dataset}/index.html)", f"{metrics.count('test.accuracy'):,}"]
    int8 = "–"
    if "int8.test.accuracy" in compression:
        network = compression["int8.variant"].partition(".")[0]
        int8 = f"{compression.interval('int8.test.accuracy'):.1%} (`{network}`)"
    return f"| {' | '.join([*cells, *values.values(), int8])} |"


def _find_origin(dataset: str) -> str | None:
    metrics = read_metrics(get_output_dirs(dataset, ROOT), "evaluation")
    return metrics.get(f"{metrics['selected']}.origin")


def _cut_table(text: str) -> str:
    begin, end = text.find(BEGIN), text.find(END)
    if begin < 0 or end < begin:
        raise FerError(f"{README}: expected the table between `{BEGIN}` and `{END}`; put the two lines back")
    return text[begin : end + len(END)]
