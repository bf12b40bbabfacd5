"""Show the page About this model: what it is, how far to trust it, what it must not be used for."""

import streamlit as st

from app.common import choose_model_name, choose_variant
from app.model_facts import (
    describe_model,
    describe_privacy,
    describe_trust,
    list_facts,
    list_scores,
    read_card,
)
from app.results_data import read_stage_metrics
from fer_lib.inference.registry import find_checkpoint, list_variants
from fer_lib.models.checkpoints import read_config

WARNING = (
    "**Not for judging people.** A face shows an expression, not what a person feels. In the European Union "
    "the AI Act (Regulation 2024/1689, Article 5) prohibits systems that infer emotions at work and in "
    "education, outside medical and safety uses. Do not use this app there, nor to decide anything about "
    "anybody. Small, blurred, covered and turned faces are recognised less well, and some groups of people "
    "may be recognised less well than others."
)

PRIVACY = (
    "They are processed in the memory of the computer on which this app runs. Nothing is written to its "
    "disk, and nothing is sent anywhere. An image is forgotten when you open another one or close the page. "
    "The only copies are the files that you download."
)


def show() -> None:
    """Show the page."""
    st.title("About this model")
    name = choose_model_name()
    folder = find_checkpoint(name)
    variant = choose_variant(name)
    config = list_variants(read_config(folder))[variant]
    st.markdown(f"**{name}.** {describe_model(config)}")
    st.warning(WARNING, icon=":material/gavel:")
    st.header("How far to trust it")
    with st.container(horizontal=True):
        for label, value, interval in list_scores(config):
            st.metric(label, value, interval or None, delta_color="off", delta_arrow="off", border=True)
    st.markdown("\n".join(f"- {sentence}" for sentence in describe_trust(config)))
    st.header("What happens to your images")
    st.write(PRIVACY)
    attacks = read_stage_metrics(config.get("dataset", ""), "privacy")
    st.markdown("\n".join(f"- {sentence}" for sentence in describe_privacy(config, attacks)))
    st.header("Where it comes from")
    st.table(list_facts(config), border="horizontal")
    card = read_card(folder)
    if card:
        with st.expander("The whole model card"):
            st.markdown(card)
    else:
        st.caption("This model has no card of its own; the facts are those of its `config.json`.")


if __name__ == "__main__":
    show()
