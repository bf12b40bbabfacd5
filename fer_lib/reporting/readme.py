"""The result table of README.md, written from `reports/`; no number in it comes from a keyboard."""

from fer_lib.errors import FerError
from fer_lib.evaluation.paper import EPOCHS
from fer_lib.files import write_atomically
from fer_lib.metrics_file import format_interval, read_metrics
from fer_lib.paths import ROOT, get_output_dirs

README = ROOT / "README.md"
BEGIN, END = "<!-- results: written by `make readme` -->", "<!-- end of results -->"
BASELINE_ACCURACY = "models.baseline.test.accuracy"
COLUMNS = {
    BASELINE_ACCURACY: "the paper's recipe",
    "test.accuracy": "selected network",
    "test_dedup.accuracy": "… no duplicates",
    "test.macro.recall": "… macro recall",
    "ensemble_tta.test.accuracy": "ensemble, 12 views",
    "test.group.accuracy": "three groups",
}
"""Columns of the table; the metrics are those of stage `evaluation`."""


def update_readme() -> None:
    """Rewrite the table. Raises FerError when README.md has lost its markers."""
    text = README.read_text()
    current = _cut_table(text)
    write_atomically(README, text.replace(current, build_table(), 1).encode())


def check_readme() -> bool:
    """Return whether the table is what `reports/` says."""
    return _cut_table(README.read_text()) == build_table()


def build_table() -> str:
    """Return the table with its markers, one row per data set that has been evaluated."""
    evaluated = [path.parents[1].name for path in sorted(ROOT.glob("reports/*/metrics/evaluation.json"))]
    if not evaluated:
        return f"{BEGIN}\nNo results yet: `make repro` computes them.\n{END}"
    lines = [
        f"| data set | test images | {' | '.join(COLUMNS.values())} |",
        "|---|" + "--:|" * (len(COLUMNS) + 1),
        *map(_build_row, evaluated),
    ]
    last = EPOCHS.iloc[-1]
    lines += [
        "",
        f"The paper reports {last['val_accuracy']:.0%} validation accuracy after epoch {last['epoch']:.0f}, "
        "on a data set and split that it does not name.",
    ]
    return "\n".join([BEGIN, *lines, END])


def _build_row(dataset: str) -> str:
    metrics = read_metrics(get_output_dirs(dataset, ROOT), "evaluation")
    values = {key: format_interval(metrics, key, ".1%") if key in metrics else "–" for key in COLUMNS}
    if BASELINE_ACCURACY in metrics:  # its picture size is not the same everywhere
        values[BASELINE_ACCURACY] += f" at {metrics['models.baseline.image_size']} px"
    cells = [f"[{dataset}](reports/{dataset}/index.html)", f"{metrics['test.n_images']:,}", *values.values()]
    return f"| {' | '.join(cells)} |"


def _cut_table(text: str) -> str:
    begin, end = text.find(BEGIN), text.find(END)
    if begin < 0 or end < begin:
        raise FerError(f"{README}: expected the table between `{BEGIN}` and `{END}`; put the two lines back")
    return text[begin : end + len(END)]
