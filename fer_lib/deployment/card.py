"""Write the card of a release; every number comes from its config or from a table of metrics."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template

from fer_lib.inference.registry import TARGETS, list_variants, name_network
from fer_lib.intervals import show_score
from fer_lib.labels import GROUP_OF, GROUPS
from fer_lib.paths import ROOT

OUTSIDE = ROOT / "reports" / "external" / "metrics" / "outside.json"
"""What others measured on data that are not in this repository: aggregates, as they reported them."""


def build_card(name: str, config: dict[str, Any]) -> str:
    """Return the card of a release as Markdown."""
    variants = list_variants(config)
    text = Path(__file__).with_name("card.md.j2").read_text()
    card = Template(text, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).render(
        name=name,
        config=config,
        variants=variants,
        has_int8=any(entry.get("quantized") for entry in variants.values()),
        single={variant: entry for variant, entry in variants.items() if "file" in entry},
        default=variants[config["default"]],
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
    return "\n\n".join(blocks).replace("\N{NO-BREAK SPACE}", " ") + "\n"


def _name_targets(variant: Mapping[str, Any]) -> str:
    parts = []
    for target, share in variant["targets"].items():
        names = f" ({', '.join(variant['teachers'])})" if target == "teacher" else ""
        parts.append(f"{share:.0%} {TARGETS[target]}{names}")
    return ", ".join(parts)


def _show_pair(scores: list[float | None]) -> str:
    """Return accuracy / macro recall of data elsewhere; the second may be unknown."""
    return " / ".join(f"{score:.1%}" for score in scores if score is not None)
