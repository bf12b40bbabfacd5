"""Read what the pipeline has measured, for the page Results: anew each time, in a fraction of a second."""

import html
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from app.number_titles import POINTS, SCORES, name_number
from fer_lib import paths
from fer_lib.errors import FerError
from fer_lib.inference.registry import list_checkpoints, list_variants, name_network
from fer_lib.intervals import UNDEFINED, Interval
from fer_lib.metrics_file import Metrics, read_metrics
from fer_lib.models.checkpoints import read_config
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.reporting.index_page import ABOUT, FROM_FOLDER
from fer_lib.reporting.results import SCALE, read_captions
from fer_lib.reporting.stage import get_stage_name

ARCHITECTURE = ".architecture"
"""How the key ends by which stage `evaluation` tells of a network; a release has its scores in its config."""

MISSING = "–"
RELEASED, STUDY = "released", "study"

STUDY_NAME = "study.html"
"""All pages of a data set in one document, beside them."""


@dataclass(frozen=True)
class ScoredModel:
    """One row of the comparison."""

    name: str
    kind: str
    """`RELEASED` or `STUDY`."""
    dataset: str
    architecture: str
    image_size: int | None
    commit: str
    metrics: Mapping[str, Any]
    """Flat, with `_lo` and `_hi`, as in a release's config; {} when not scored yet."""


@dataclass(frozen=True)
class StageReport:
    """What one stage has left in `reports/<dataset>`; whatever it has not written is empty."""

    stage: str
    title: str
    finding: str
    """Markdown: a sentence or two, and mostly a table."""
    figures: list[tuple[Path, str]]
    """Files with their captions, in the order of the page."""
    page: Path
    metrics: Metrics

    @property
    def answer(self) -> str:
        """The finding without its table."""
        return self.finding.partition("\n\n")[0]


def read_models() -> tuple[list[ScoredModel], list[str]]:
    """Return every model that is at hand or was scored, and a sentence for each that cannot be read."""
    models, problems = [], []
    evaluations = {dataset: read_stage_metrics(dataset, "evaluation") for dataset in list_datasets()}
    for name, folder in list_checkpoints().items():
        try:
            variants = list_variants(read_config(folder))
            for variant, config in variants.items():
                title = f"{name}, {variant}" if len(variants) > 1 else name
                models.append(_describe_model(name, title, config, evaluations))
        except (FerError, KeyError, TypeError, AttributeError) as error:
            problems.append(str(error) if isinstance(error, FerError) else f"{folder}: its config is damaged")
    known = {model.name for model in models}
    for dataset, evaluation in evaluations.items():
        commit = str(evaluation.provenance.get("commit", ""))
        for key in evaluation.facts:
            network = key.removesuffix(ARCHITECTURE)
            name = f"{dataset}/{network} ({STUDY})"
            if network != key and name not in known:  # reports are in Git, the pipeline's weights are not
                metrics = _pick_metrics(evaluation, network)
                size = metrics.get("image_size")
                models.append(ScoredModel(name, STUDY, dataset, evaluation[key], size, commit, metrics))
    return models, problems


def get_interval(metrics: Mapping[str, Any], key: str) -> Interval:
    """Return a number of flat metrics with its interval; `UNDEFINED` where it was not measured."""
    values = [metrics.get(name) for name in (key, f"{key}_lo", f"{key}_hi")]
    numbers = [value for value in values if isinstance(value, int | float)]
    return Interval(*numbers) if len(numbers) == 3 else UNDEFINED


def _pick_metrics(evaluation: Metrics, network: str) -> dict[str, Any]:
    prefix, by_annotators = f"{network}.", f"annotators.{network}.test."
    metrics = {}
    for key, value in evaluation.flatten().items():
        if key.startswith(prefix):
            metrics[key.removeprefix(prefix)] = value
        elif key.startswith(by_annotators):
            metrics[f"test.majority.{key.removeprefix(by_annotators)}"] = value
    if "test.accuracy" in metrics:
        metrics["test.n_images"] = evaluation.count(f"{prefix}test.accuracy")
    return metrics


def _describe_model(
    name: str, title: str, config: Mapping[str, Any], evaluations: Mapping[str, Metrics]
) -> ScoredModel:
    kind = STUDY if "/" in name else RELEASED
    metrics = config.get("metrics") or {}
    dataset = config.get("dataset", MISSING)
    if "test.accuracy" not in metrics and name.startswith(f"{dataset}/"):
        evaluation = evaluations.get(dataset, Metrics("evaluation"))
        # A network trained on other data is not what the last evaluation scored.
        same = evaluation.provenance.get("data") == config.get("data_hash")
        metrics = _pick_metrics(evaluation, name.removeprefix(f"{dataset}/")) if same else {}
    size = config.get("preprocessing", {}).get("image_size")  # a vote has none
    commit = str(config.get("git_commit", ""))
    return ScoredModel(f"{title} ({kind})", kind, dataset, name_network(config), size, commit, metrics)


def build_comparison(models: list[ScoredModel]) -> pd.DataFrame:
    """Return the models side by side, a row each, every cell a text: scores with their 95% intervals.

    What no model has is no column.
    """
    table = pd.DataFrame(
        [
            {
                "Model": model.name,
                **{
                    name: format(get_interval(model.metrics, key), spec)
                    for key, (name, spec) in SCORES.items()
                },
                "Test images": _show_count(model.metrics.get("test.n_images")),
                "Architecture": model.architecture,
                "Image size": f"{model.image_size} px" if model.image_size else MISSING,
                "Commit": show_commit(model.commit),
            }
            for model in models
        ]
    )
    return table.loc[:, (table != MISSING).any()]


def list_scores(models: list[ScoredModel]) -> dict[str, str]:
    """Return name to key of each of `SCORES` that at least one of the models has."""
    known = {key for model in models for key in SCORES if get_interval(model.metrics, key).is_defined}
    return {name: key for key, (name, _) in SCORES.items() if key in known}


def build_chart_data(models: list[ScoredModel], key: str) -> pd.DataFrame:
    """Return one score with its interval, columns Model, Kind, value, low, high, the best first.

    Models without it are left out.
    """
    scores = [(model.name, model.kind, *get_interval(model.metrics, key)) for model in models]
    frame = pd.DataFrame(scores, columns=["Model", "Kind", "value", "low", "high"])
    return frame.dropna().sort_values("value", ascending=key.endswith(".ece"), ignore_index=True)


def list_datasets() -> list[str]:
    """Return the data sets that have reports."""
    return sorted(path.parent.name for path in (paths.ROOT / "reports").glob("[!.]*/tables"))


def sort_datasets(datasets: Iterable[str]) -> list[str]:
    """Return data sets, the most useful first: evaluated before others, photographs before drawn faces."""
    known = list(ABOUT)

    def rank(dataset: str) -> tuple[bool, bool, bool, int, str]:
        evaluated = get_output_dirs(dataset, paths.ROOT).get_table("evaluation").is_file()
        place = known.index(dataset) if dataset in known else len(known)
        return dataset == SCALE, not evaluated, dataset == "demo", place, dataset

    return sorted(datasets, key=rank)


def describe_dataset(dataset: str) -> str:
    """Return what a data set is, in words that stand alone."""
    about = ABOUT.get(dataset, f"{dataset}: {FROM_FOLDER}")
    return f"{about[0].upper()}{about[1:]}"


def read_stages(dataset: str) -> list[StageReport]:
    """Return what each stage of a data set that has a page has left, in the order of the notebooks."""
    dirs = get_output_dirs(dataset, paths.ROOT)
    pages = sorted(dirs.reports.glob("[0-9]*_*.html"))
    return [_read_stage(dirs, get_stage_name(page.stem), page) for page in pages]


def find_study(dataset: str) -> Path | None:
    """Return the one document that holds all pages of a data set, where it was written."""
    path = get_output_dirs(dataset, paths.ROOT).reports / STUDY_NAME
    return path if path.is_file() else None


def _read_stage(dirs: OutputDirs, stage: str, page: Path) -> StageReport:
    text = read_text(page)
    finding = read_text(dirs.reports / "findings" / f"{stage}.md").strip().replace("$", r"\$")  # no formula
    title = re.search(r"<title>(.*?)</title>", text, re.DOTALL)
    captions = read_captions(text)
    files = {path.stem: path for path in sorted((dirs.figures / stage).glob("*.webp"))}
    in_order = [*filter(files.get, captions), *sorted(files.keys() - captions.keys())]
    # "4 · Evaluation · demo · Facial emotion recognition" -> "4 · Evaluation"
    heading = " · ".join(html.unescape(title[1]).split(" · ")[:-2]) if title else ""
    return StageReport(
        stage,
        heading or _show_name(stage),
        finding,
        [(files[name], captions.get(name) or _show_name(name)) for name in in_order],
        page,
        read_stage_metrics(dirs.reports.name, stage),
    )


def build_metric_table(metrics: Metrics) -> pd.DataFrame:
    """Return a stage's metrics, columns Quantity, Value, 95% interval, all text."""
    flat, rows = metrics.flatten(), []
    for key, value in metrics.items():
        interval, (name, spec) = get_interval(flat, key), name_number(key)
        bounds = " to ".join(show_bounds(interval, spec)) if interval.is_defined else MISSING
        rows.append((name, show_value(value, spec), bounds))
    return pd.DataFrame(rows, columns=["Quantity", "Value", "95% interval"])


def remove_page_links(page: str) -> str:
    """Return a report without links to other pages and scripts, which lead nowhere inside the app's frame."""
    page = re.sub(r'<script src="[^":]*"></script>', "", page)
    return re.sub(r'(<a\b[^>]*?) href="[^"#:]*\.html"', r"\1", page)


def read_stage_metrics(dataset: str, stage: str) -> Metrics:
    """Return the metrics of a stage; empty when it has not run, or its files are damaged."""
    try:
        return read_metrics(get_output_dirs(dataset, paths.ROOT), stage)
    except (FerError, OSError, ValueError, AttributeError):
        return Metrics(stage)


def read_text(path: Path) -> str:
    """Return a file's text; "" when there is none, or the pipeline is just replacing it."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def show_value(value: Any, spec: str = "") -> str:
    """Return a plain value as text; a dash for one that is undefined.

    spec: the format of a number, or `POINTS`; without it, one that is no count has four digits.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(value, ensure_ascii=False)  # as `params.yaml` does: true, null, [1, 2]
    if not math.isfinite(value):
        return MISSING
    if spec == POINTS:
        return f"{round(100 * value, 1) or 0.0:+.1f} {POINTS}"  # no -0.0
    if isinstance(value, int) and not spec:
        return f"{value:,}"
    return format(value, spec or (",.0f" if abs(value) >= 1e4 else ",.4g"))


def show_bounds(interval: Interval, spec: str) -> tuple[str, str]:
    """Return both ends of an interval as `show_value` does, without the unit, which the value has."""
    low, high = (show_value(bound, spec).removesuffix(f" {POINTS}") for bound in interval[1:])
    return low, high


def _show_count(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) and math.isfinite(value) else MISSING


def show_commit(commit: str) -> str:
    """Return a commit shortened, and whether files were changed since; a dash for none."""
    return commit[:10] + (" + changes" if commit.endswith("-dirty") else "") or MISSING


def _show_name(name: str) -> str:
    return name.replace("_", " ").capitalize()
