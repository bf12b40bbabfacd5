"""Offer what the app's pages share: the choice of a model, errors as sentences, bars and downloads."""

import html
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from starlette.formparsers import MultiPartParser

from fer_lib.errors import FerError, ModelError
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.registry import (
    DEFAULT_MODEL,
    FINETUNED,
    find_checkpoint,
    find_variant,
    list_checkpoints,
    list_variants,
    read_model,
)
from fer_lib.models.checkpoints import CONFIG_NAME, WEIGHTS_NAME
from fer_lib.palette import choose_colours
from fer_lib.responsible_use import NOTICE

LOG = logging.getLogger("fer_lib.app")

Stamps = tuple[tuple[str, int, int], ...]
Identity = tuple[str, str, Stamps]

MAX_LOADED = 3
"""Models kept in memory for all visitors together; one takes some 100 MB."""


def keep_uploads_in_memory() -> None:
    """See that no upload touches the disk: Streamlit's server puts those over 1 MB into a temporary file.

    They are read into memory right after, so this costs nothing; `server.maxUploadSize` bounds them.
    """
    MultiPartParser.spool_max_size = 2**40


@contextmanager
def guard() -> Iterator[None]:
    """Show what goes wrong inside as a sentence; a `with` block or a decorator.

    A FerError says itself what to do. Anything else is a bug: the visitor reads one calm sentence, and the
    trace goes to the server's log.
    """
    try:
        yield
    except FerError as error:
        st.error(escape_markdown(str(error)), icon=":material/error:")
    except Exception:
        LOG.exception("unexpected error in the app")
        st.error(
            "Something went wrong that this app did not expect. Try again, or with another file or model. "
            "The details are in the terminal where the app was started.",
            icon=":material/error:",
        )


def show_notice() -> None:
    """Show what the answers must not be used for."""
    st.caption(NOTICE)


def choose_model() -> Recognizer:
    """Return the model and variant chosen in the sidebar. Raises ModelError as `load_recognizer`."""
    name = choose_model_name()
    return load_recognizer(name, choose_variant(name))


def choose_variant(name: str) -> str:
    """Return the variant of model `name` chosen in the sidebar, where it has more than one."""
    config = read_model(find_checkpoint(name))
    variants, default = list_variants(config), find_variant(config, None, name)
    if len(variants) == 1:
        return default
    variant = st.sidebar.radio(
        "Variant",
        list(variants),
        index=list(variants).index(default),
        captions=[describe_costs(entry) for entry in variants.values()],
        key=f"variant of {name}",
        persist_state="session",
        help="Size, time for one face on one thread of the machine that measured it, and accuracy on the "
        "test images. Without a choice it is the one that the release recommends.",
    )
    return variant or default


def describe_costs(variant: Mapping[str, Any]) -> str:
    """Return what a variant costs and how accurate it is; empty where nothing was measured."""
    metrics = variant.get("metrics", {})
    judge, place = (
        ("test.majority", "annotators") if "test.majority.accuracy" in metrics else ("test", "labels")
    )
    parts = []
    if "bytes" in variant:
        parts.append(f"{variant['bytes'] / 1e6:.1f} MB")
    if "milliseconds" in variant:
        parts.append(f"{variant['milliseconds']:.1f} ms a face")
    if f"{judge}.accuracy" in metrics:
        parts.append(f"accuracy {metrics[f'{judge}.accuracy']:.1%} by {place}")
    return ", ".join(parts)


def choose_model_name() -> str:
    """Return the name of the model chosen in the sidebar; the choice is kept from page to page.

    Raises ModelError when there is none to choose.
    """
    names = list(list_checkpoints())
    if not names:
        raise ModelError("expected a model under models/, found none; train one with `make results`")
    return st.sidebar.selectbox(
        "Model",
        names,
        format_func=name_model,
        key="model",
        persist_state="session",
        help="Released models come first; those that `make results` or `fer train` trained here follow.",
    )


def name_model(name: str, variant: str = "") -> str:
    """Return a model's name in `list_checkpoints`, and that of a variant, as the pages show them."""
    if "/" in name:
        return f"{name} ({'your faces' if name.endswith(f'/{FINETUNED}') else 'study'})"
    if variant:
        return f"{name}, {variant} (released)"
    return f"{name} (released, default)" if name == DEFAULT_MODEL else f"{name} (released)"


def name_identity(identity: Identity) -> str:
    """Return the name of what `identify` tells apart, as `name_model` shows it, even of a deleted model."""
    folder, variant, _ = identity
    names = {str(path): name for name, path in list_checkpoints().items()}
    return name_model(names.get(folder, Path(folder).name), variant)


def load_recognizer(name: str, variant: str | None = None) -> Recognizer:
    """Return a model by its name in `list_checkpoints`; loaded once, and anew when its files change.

    Raises ModelError, in one line, when it is missing or damaged.
    """
    folder = find_checkpoint(name)
    variant = find_variant(read_model(folder), variant, name)  # the default is not to be loaded twice
    return _load(str(folder), variant, read_stamps(folder))


def identify(recognizer: Recognizer) -> Identity:
    """Return what tells a model and its variant from every other, and from itself with other files."""
    return str(recognizer.folder), recognizer.variant, read_stamps(recognizer.folder)


def read_stamps(folder: Path) -> Stamps:
    """Return name, time of change in nanoseconds, and size in bytes of each file that makes up a model."""
    found = [folder / CONFIG_NAME, folder / WEIGHTS_NAME, *sorted(folder.glob("*.onnx"))]
    stats = [(path.name, path.stat()) for path in found if path.is_file()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


@st.cache_resource(show_spinner="Loading the model …", max_entries=MAX_LOADED)
def _load(folder: str, variant: str, stamps: Stamps) -> Recognizer:
    return Recognizer(folder, variant=variant)


def show_probabilities(probabilities: Mapping[str, float]) -> None:
    """Show a labelled bar for each emotion, the most likely first; readable on a telephone."""
    st.html(build_bars(probabilities))


def build_bars(probabilities: Mapping[str, float]) -> str:
    """Return the bars as HTML; to screen readers they are nothing, the text beside them says all."""
    rows, colours = [], choose_colours(probabilities)
    for emotion, value in sorted(probabilities.items(), key=lambda item: -item[1]):
        rows.append(
            f'<span>{html.escape(emotion)}</span><span aria-hidden="true" style="background: '
            'rgba(128, 128, 128, 0.2); border-radius: 0.3rem; height: 0.8rem"><span style="display: block; '
            f"height: 100%; width: {value:.1%}; background: {colours[emotion]}; "
            'border-radius: 0.3rem"></span></span>'
            f'<span style="text-align: right">{show_percent(value)}</span>'
        )
    return (
        '<div style="display: grid; grid-template-columns: max-content 1fr max-content; gap: 0.15rem 0.7rem; '
        f'align-items: center">{"".join(rows)}</div>'
    )


def show_percent(share: float) -> str:
    """Return a share as `84%`, as `annotate.name_face` writes it into images."""
    return f"{100 * share:.0f}%"


def offer_download(label: str, data: bytes | Callable[[], bytes], file_name: str, mime: str) -> None:
    """Show a download button that leaves the page as it is.

    `data` are bytes, or a function that returns them and is called when the button is pressed.
    """
    st.download_button(label, data, file_name, mime, on_click="ignore", icon=":material/download:")


def drop_group(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of faces as it is handed out, without the column `group`.

    That calls surprise positive for want of a place of its own; the pages say that it may be either.
    """
    return table.drop(columns="group")


def escape_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is, but for `code`: file names hold stars and brackets."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([\\*_\[\]$~<>#|])", r"\\\1", part) for part in parts
    )
