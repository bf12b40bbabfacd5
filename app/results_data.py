"""What the pipeline has measured so far, for the page Results. Read anew each time: it takes milliseconds."""

import html
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fer_lib import paths
from fer_lib.errors import FerError
from fer_lib.metrics_file import PROVENANCE_KEYS, format_interval, read_metrics
from fer_lib.models.checkpoints import list_checkpoints, read_config
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.reporting.stage import get_stage_name

SCORES = {
    "test.accuracy": ("Accuracy", ".1%"),
    "test_dedup.accuracy": ("Accuracy, no duplicates", ".1%"),
    "test.macro.recall": ("Macro recall", ".1%"),
    "test.ece": ("Calibration error (ECE)", ".3f"),
}
"""The metrics that models are compared by: name and format."""

SCORED = re.compile(r"models\.([^.]+)\.test\.accuracy")
"""The key by which stage `evaluation` scores a checkpoint; a release has its scores in its own config."""

MISSING = "–"


@dataclass(frozen=True)
class ScoredModel:
    """One row of the comparison. Metrics are flat, as in `evaluation.summarise`; {} when not scored yet."""

    name: str
    dataset: str
    architecture: str
    image_size: int | None
    commit: str
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class StageReport:
    """What one stage has left in `reports/<dataset>`; whatever it has not written is None or empty."""

    stage: str
    title: str
    finding: str | None
    figures: list[tuple[Path, str]]
    page: Path | None
    metrics: Mapping[str, Any]


def read_models() -> tuple[list[ScoredModel], list[str]]:
    """Return every model that is at hand or was scored, and a sentence for each that cannot be read."""
    models, problems = [], []
    for name, folder in list_checkpoints().items():
        try:
            config = read_config(folder)
            models.append(_describe_model(name, config))
        except (FerError, KeyError, TypeError, AttributeError) as error:
            problems.append(str(error) if isinstance(error, FerError) else f"{folder}: its config is damaged")
    known = {model.name for model in models}
    for dataset in list_datasets():
        evaluation = read_stage_metrics(dataset, "evaluation")
        commit = str(evaluation.get("git_commit", ""))
        for short in [match[1] for key in evaluation if (match := SCORED.fullmatch(key))]:
            name = f"{dataset}/{short}"
            if name not in known:  # reports are in Git, the pipeline's weights are not
                metrics = _pick_metrics(evaluation, short)
                architecture, size = metrics.get("architecture", MISSING), metrics.get("image_size")
                models.append(ScoredModel(name, dataset, architecture, size, commit, metrics))
    return models, problems


def _pick_metrics(evaluation: Mapping[str, Any], short: str) -> Mapping[str, Any]:
    prefix = f"models.{short}."
    return {key.removeprefix(prefix): v for key, v in evaluation.items() if key.startswith(prefix)}


def _describe_model(name: str, config: Mapping[str, Any]) -> ScoredModel:
    metrics = config.get("metrics") or {}
    dataset = config.get("dataset", MISSING)
    if "test.accuracy" not in metrics and name.startswith(f"{dataset}/"):
        evaluation = read_stage_metrics(dataset, "evaluation")
        # A network trained on other data is not what the last evaluation scored.
        same = evaluation.get("data_hash") == config.get("data_hash")
        metrics = _pick_metrics(evaluation, name.removeprefix(f"{dataset}/")) if same else {}
    size = config["preprocessing"].get("image_size")
    return ScoredModel(
        name, dataset, config["architecture"], size, str(config.get("git_commit", "")), metrics
    )


def build_comparison(models: list[ScoredModel]) -> pd.DataFrame:
    """Return the models side by side, a row each, every cell a text: scores with their 95 % intervals."""
    return pd.DataFrame(
        [
            {
                "Model": model.name,
                "Data set": model.dataset,
                **{name: show_score(model.metrics, key, spec) for key, (name, spec) in SCORES.items()},
                "Test images": _show_count(model.metrics.get("test.n_images")),
                "Architecture": model.architecture,
                "Image size": f"{model.image_size} px" if model.image_size else MISSING,
                "Commit": show_commit(model.commit),
            }
            for model in models
        ]
    )


def build_chart_data(models: list[ScoredModel], key: str) -> pd.DataFrame:
    """Return one score with its interval, columns Model, value, low, high; models without it are left out."""
    rows = [
        {
            "Model": model.name,
            "value": model.metrics[key],
            "low": model.metrics[f"{key}_lo"],
            "high": model.metrics[f"{key}_hi"],
        }
        for model in models
        if _has_interval(model.metrics, key)
    ]
    return pd.DataFrame(rows, columns=["Model", "value", "low", "high"])


def show_score(metrics: Mapping[str, Any], key: str, spec: str) -> str:
    """Return a metric with its interval, as `68.4% [66.8%, 69.8%]`; a dash where it was not measured."""
    return format_interval(dict(metrics), key, spec) if _has_interval(metrics, key) else MISSING


def list_datasets() -> list[str]:
    """Return the data sets that have reports."""
    return sorted(path.parent.name for path in (paths.ROOT / "reports").glob("[!.]*/metrics"))


def read_stages(dataset: str) -> list[StageReport]:
    """Return what each stage of a data set has left, in the order of the notebooks."""
    dirs = get_output_dirs(dataset, paths.ROOT)
    pages = {get_stage_name(page.stem): page for page in sorted(dirs.reports.glob("[0-9]*_*.html"))}
    others = sorted({path.stem for path in dirs.metrics.glob("*.json")} - pages.keys())
    return [_read_stage(dirs, stage, pages.get(stage)) for stage in [*pages, *others]]


def _read_stage(dirs: OutputDirs, stage: str, page: Path | None) -> StageReport:
    text = read_text(page) if page else ""
    finding = read_text(dirs.reports / "findings" / f"{stage}.md").strip()
    title = re.search(r"<title>(.*?)</title>", text, re.DOTALL)
    captions = read_captions(text)
    files = {path.stem: path for path in sorted((dirs.figures / stage).glob("*.png"))}
    in_order = [*filter(files.get, captions), *sorted(files.keys() - captions.keys())]
    # "4 · Evaluation · demo · Facial emotion recognition" -> "4 · Evaluation"
    heading = " · ".join(html.unescape(title[1]).split(" · ")[:-2]) if title else ""
    return StageReport(
        stage,
        heading or _show_name(stage),
        finding or None,
        [(files[name], captions.get(name) or _show_name(name)) for name in in_order],
        page if text else None,
        read_stage_metrics(dirs.reports.name, stage),
    )


def read_captions(page: str) -> dict[str, str]:
    """Return figure name to caption, in the order of a report's page as `Stage.show_figure` writes it."""
    found = re.findall(r'<figure id="figure-([^"]+)"><img [^>]*?alt="([^"]*)"', page)
    return {html.unescape(name): html.unescape(caption) for name, caption in found}


def build_metric_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return a stage's metrics, columns metric, value, 95 % interval, all text; no provenance."""
    rows = []
    for key, value in metrics.items():
        bound_of = re.sub(r"_(lo|hi)$", "", key)
        if key in PROVENANCE_KEYS or (bound_of != key and bound_of in metrics):
            continue
        interval = MISSING
        if _has_interval(metrics, key):
            interval = f"{_show_value(metrics[f'{key}_lo'])} to {_show_value(metrics[f'{key}_hi'])}"
        rows.append({"metric": key, "value": _show_value(value), "95 % interval": interval})
    return pd.DataFrame(rows, columns=["metric", "value", "95 % interval"])


def remove_page_links(page: str) -> str:
    """Return a report without its links to other pages, which lead nowhere inside the app's frame."""
    return re.sub(r'(<a\b[^>]*?) href="[^"#:]*\.html"', r"\1", page)


def _has_interval(metrics: Mapping[str, Any], key: str) -> bool:
    values = [metrics.get(name) for name in (key, f"{key}_lo", f"{key}_hi")]
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def read_stage_metrics(dataset: str, stage: str) -> dict[str, Any]:
    """Return the metrics of a stage; empty when it has not run, or is just writing them."""
    try:
        metrics = read_metrics(get_output_dirs(dataset, paths.ROOT), stage)
    except (FerError, OSError, json.JSONDecodeError, UnicodeDecodeError):  # not written, or half written
        return {}
    return metrics if isinstance(metrics, dict) else {}


def read_text(path: Path) -> str:
    """Return a file's text; "" when there is none, or the pipeline is just replacing it."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _show_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if math.isfinite(value) else MISSING
    return f"{value:,}" if isinstance(value, int) else str(value)


def _show_count(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) and math.isfinite(value) else MISSING


def show_commit(commit: str) -> str:
    """Return a commit shortened, and whether files were changed since; a dash for none."""
    return commit[:10] + (" + changes" if commit.endswith("-dirty") else "") or MISSING


def _show_name(name: str) -> str:
    return name.replace("_", " ").capitalize()
