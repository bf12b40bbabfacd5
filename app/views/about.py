"""Show the page About this model: what it is, how far to trust it, what it must not be used for."""

import re
from collections.abc import Iterable

import pandas as pd
import streamlit as st

from app.common import choose_model_name, choose_variant
from app.model_facts import (
    describe_model,
    describe_privacy,
    describe_saliency,
    describe_training,
    describe_trust,
    list_costs,
    list_facts,
    list_scores,
    read_card,
)
from app.results_data import read_stage_metrics
from fer_lib.inference.registry import find_checkpoint, list_variants
from fer_lib.models.checkpoints import read_config
from fer_lib.responsible_use import RESPONSIBLE_USE

LIMITS = (
    "The scores are those of images like its training images. Expect less on any others.",
    "Small, blurred, covered and turned faces are recognised less well.",
    "Some groups of people may be recognised less well than others.",
    "It knows only the expressions named above, and chooses among them even for a face that shows several or "
    "another.",
)

PRIVACY = (
    "They are processed in the memory of the computer on which this app runs. Nothing is written to its "
    "disk, and nothing is sent anywhere. An image stays in memory until you remove it or close the page. "
    "The only copies are the files that you download."
)

WIDE_PARTS = re.compile(r"(^```.*?^```$|^\|[^\n]*\n\|[-:| ]+\n(?:\|[^\n]*\n?)+)", re.DOTALL | re.MULTILINE)
"""Of Markdown: blocks of code, and tables."""


def show() -> None:
    """Show the page."""
    st.title("About this model")
    name = choose_model_name()
    folder = find_checkpoint(name)
    variant = choose_variant(name)
    variants = list_variants(read_config(folder))
    config = variants[variant]
    title = f"{name}, {variant}" if len(variants) > 1 else name
    st.markdown(f"**{title}.** {describe_model(config)}")
    st.warning(RESPONSIBLE_USE, icon=":material/gavel:")
    st.header("How far to trust it")
    with st.container(horizontal=True):
        for label, value, remark in [*list_scores(config), *list_costs(config)]:
            st.metric(label, value, remark or None, delta_color="off", delta_arrow="off", border=True)
    _show_list([*describe_trust(config), *describe_saliency(config)])
    st.header("What it was trained on")
    _show_list(describe_training(config))
    st.header("Its limits")
    _show_list(LIMITS)
    st.header("What happens to your images")
    st.write(PRIVACY)
    _show_list(describe_privacy(config, read_stage_metrics(config.get("dataset", ""), "privacy")))
    st.header("Where it comes from")
    st.table(list_facts(config), border="horizontal")
    card = read_card(folder)
    if card:
        with st.expander("The whole model card"):
            if len(variants) > 1:
                st.caption("Of all variants together.")
            _show_card(card)
    else:
        st.caption("This model has no card of its own; the facts are those of its `config.json`.")


def _show_card(card: str) -> None:
    """Show Markdown whose code and tables are wider than a telephone."""
    for part in WIDE_PARTS.split(card):
        if part.startswith("```"):  # wrapped, since only a mouse can scroll it
            st.code(part.partition("\n")[2].removesuffix("```"), language=None, wrap_lines=True)
        elif part.startswith("|"):  # scrolls by itself, where a table of Markdown would widen the page
            head, _, *rows = (
                [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()
            )
            st.dataframe(pd.DataFrame(rows, columns=head), hide_index=True, alt="A table of the card")
        elif part.strip():
            st.markdown(part)


def _show_list(sentences: Iterable[str]) -> None:
    st.markdown("\n".join(f"- {sentence}" for sentence in sentences))


if __name__ == "__main__":
    show()
