"""Write the card of a release; every number comes from its config or from a table of metrics."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import StrictUndefined, Template

from fer_lib.inference.registry import TARGETS, list_variants, name_network
from fer_lib.intervals import show_score
from fer_lib.labels import GROUP_OF, GROUPS
from fer_lib.paths import ROOT
from fer_lib.responsible_use import RESPONSIBLE_USE

OUTSIDE = ROOT / "reports" / "external" / "metrics" / "outside.json"
"""What others measured on data that are not in this repository: aggregates, as they reported them."""


JUDGES = {"test": "labels", "test.majority": "annotators"}
"""Key of a judge's metrics in a config to its name."""


def build_metadata(name: str, config: dict[str, Any]) -> ModelCardData:
    """Return what the Hugging Face Hub reads of a card; its results are those of the default variant."""
    variants = list_variants(config)
    metrics = variants[config["default"]]["metrics"]
    targets = {target for entry in variants.values() for target in entry.get("targets", {})}
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=config["dataset"],
            dataset_name=f"{config['dataset']}, by {judge}",
            dataset_config=judge,
            dataset_split="test",
            metric_type=metric.rpartition(".")[2],
            metric_name=f"{title} of {config['default']}",
            metric_value=metrics[f"{key}.{metric}"],
        )
        for key, judge in JUDGES.items()
        for metric, title in {"accuracy": "Accuracy", "macro.recall": "Macro recall"}.items()
        if f"{key}.{metric}" in metrics
    ]
    return ModelCardData(
        # The code and the weights are given under MIT; the data set has terms of its own.
        license="other",
        license_name="mit-and-terms-of-the-data-sets",
        license_link="LICENSE",
        library_name="fer-lib",
        pipeline_tag="image-classification",
        tags=["facial-emotion-recognition", "facial-expression-recognition", "onnx"],
        datasets=[config["dataset"], *(["ferplus"] if targets & {"majority", "votes"} else [])],
        metrics=["accuracy", "recall"],
        model_name=name,
        eval_results=results,
    )


def build_card(name: str, config: dict[str, Any]) -> str:
    """Return the card of a release as Markdown, after `build_metadata` in YAML."""
    variants = list_variants(config)
    text = Path(__file__).with_name("card.md.j2").read_text()
    card = Template(text, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).render(
        name=name,
        config=config,
        variants=variants,
        has_int8=any(entry.get("quantized") for entry in variants.values()),
        single={variant: entry for variant, entry in variants.items() if "file" in entry},
        default=variants[config["default"]],
        responsible_use=RESPONSIBLE_USE,
        groups=GROUPS,
        group_of=GROUP_OF,
        outside=json.loads(OUTSIDE.read_text()) if config["dataset"] == "fer2013" else None,
        show=show_score,
        pair=_show_pair,
        name_network=name_network,
        name_targets=_name_targets,
    )
    # Prose is filled, whatever the length of its numbers; headings, tables and code stay.
    blocks = [
        block
        if block.startswith(("#", "|", "- ")) or "```" in block
        else textwrap.fill(block, 110, break_long_words=False, break_on_hyphens=False)
        for block in card.strip().split("\n\n")
    ]
    # The spaces in an interval do not break; in the file they are found by who searches for the numbers.
    body = "\n\n".join(blocks).replace("\N{NO-BREAK SPACE}", " ")
    return f"---\n{build_metadata(name, config).to_yaml()}\n---\n\n{body}\n"


def _name_targets(variant: Mapping[str, Any]) -> str:
    parts = []
    for target, share in variant["targets"].items():
        names = f" ({', '.join(variant['teachers'])})" if target == "teacher" else ""
        parts.append(f"{share:.0%} {TARGETS[target]}{names}")
    return ", ".join(parts)


def _show_pair(scores: list[float | None]) -> str:
    """Return accuracy / macro recall of data elsewhere; the second may be unknown."""
    return " / ".join(f"{score:.1%}" for score in scores if score is not None)
