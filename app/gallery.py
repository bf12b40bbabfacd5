"""Show many images at once on the page Photo: a gallery to filter, a table of all faces, and downloads."""

from pathlib import PurePosixPath
from typing import Any

import pandas as pd
import streamlit as st

from app.common import drop_group, escape_markdown, identify, offer_download
from app.image_analysis import count_faces
from app.image_source import MAX_MEGABYTES, TYPES
from app.many_images import (
    DOWNLOAD_SIDE,
    MAX_FILE,
    MAX_IMAGES,
    MAX_UNPACKED,
    MAX_UPLOADED,
    NO_FACE,
    UNSURE,
    Batch,
    Problem,
    Result,
    build_archive,
    build_table,
    limit_files,
    list_entries,
)
from fer_lib.inference.recognizer import Recognizer

UPLOADER, FILES, BATCH = "many files", "many files kept", "many files analysed"

PER_PAGE = 24

# Of so many faces in an image the answers are listed, of more the number.
NAMED = 4

SHOWN_COLUMNS = ("source", "face", "label", "confidence", "abstained")


def show_gallery(recognizer: Recognizer) -> None:
    """Ask for files, analyse them when told to, and show what came of them."""
    uploaded = st.file_uploader(
        "Images or ZIP archives",
        type=[*TYPES, "zip"],
        accept_multiple_files=True,
        max_upload_size=MAX_FILE,
        key=UPLOADER,
        on_change=_keep_files,
    )
    files, dropped = st.session_state.get(FILES, ([], []))
    if not files:
        st.caption(
            f"Up to {MAX_IMAGES} images of {MAX_MEGABYTES} MB each, {MAX_UPLOADED} MB in all; an archive may "
            f"unpack to {MAX_UNPACKED / 1e9:.0f} GB."
        )
        return
    if not uploaded:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/image: {len(files)} files")
            st.button("Remove", icon=":material/close:", on_click=_forget)
    made_of = (tuple(file.file_id for file in files), identify(recognizer))
    if st.session_state.get(BATCH, (None,))[0] != made_of:
        entries, problems = list_entries(files)
        problems = [*dropped, *problems]
        if not entries:
            _show_problems(problems)
            return
        st.button(
            f"Analyse {len(entries)} {'image' if len(entries) == 1 else 'images'}",
            icon=":material/play_arrow:",
            on_click=_start,
            args=(made_of, Batch(entries, problems)),
        )
        return
    batch: Batch = st.session_state[BATCH][1]
    if not batch.is_done and not batch.is_stopped:
        _run(batch, recognizer)
    _show_batch(batch, recognizer)


def _keep_files() -> None:
    """Keep the uploads within bounds: the browser forgets them when another page is opened."""
    _forget()
    st.session_state[FILES] = limit_files(st.session_state[UPLOADER])


def _forget() -> None:
    """Forget the files and the results, which hold them as well."""
    for key in (FILES, BATCH):
        st.session_state.pop(key, None)


def _start(made_of: object, batch: Batch) -> None:
    st.session_state[BATCH] = (made_of, batch)


def _run(batch: Batch, recognizer: Recognizer) -> None:
    """Analyse with a progress bar; what is done stays when the page is left or stopped."""
    place = st.empty()
    with place.container():
        bar = st.progress(0.0)
        st.button("Stop", on_click=setattr, args=(batch, "is_stopped", True), icon=":material/stop:")
    n_images = len(batch.entries)
    while not batch.is_done:
        bar.progress(batch.n_done / n_images, f"Image {batch.n_done + 1} of {n_images}")
        batch.analyse_next(recognizer)
    place.empty()


def _show_batch(batch: Batch, recognizer: Recognizer) -> None:
    results = batch.results
    if not batch.is_done:
        st.info(f"Stopped after {batch.n_done} of {len(batch.entries)} images.")
        st.button("Go on", on_click=setattr, args=(batch, "is_stopped", False), icon=":material/play_arrow:")
    faces = [face for result in results for face in result.faces]
    with st.container(horizontal=True):
        st.metric("Images", len(results))
        st.metric("Faces", len(faces))
        st.metric("Unsure", sum(face.abstained for face in faces))
        st.metric("Problems", len(batch.problems))
    _show_problems(batch.problems)
    if not results:
        return
    shown = _filter(results, recognizer)
    _show_thumbnails(shown)
    if any(result.faces for result in shown):
        st.header("All faces" if len(shown) == len(results) else "Their faces")
        _show_table(build_table(shown))
    if faces:
        _show_downloads(results)


def _show_problems(problems: list[Problem]) -> None:
    if problems:
        st.warning("Some files gave no result; the others are not affected.", icon=":material/error:")
        st.dataframe(
            pd.DataFrame(map(vars, problems)).rename(columns={"file": "File", "reason": "What is wrong"}),
            hide_index=True,
            alt="Files that gave no result, and why",
        )


def _filter(results: list[Result], recognizer: Recognizer) -> list[Result]:
    """Return the results that show what was chosen; all without a choice."""
    counts = {
        answer: sum(answer in result.answers for result in results)
        for answer in (*recognizer.emotions, UNSURE, NO_FACE)
    }
    chosen = st.pills(
        "Show images with",
        [answer for answer, count in counts.items() if count],
        selection_mode="multi",
        format_func=lambda answer: f"{answer} ({counts[answer]})",
        key="many files filter",
        persist_state="session",
    )
    return [result for result in results if not set(chosen).isdisjoint(result.answers)] if chosen else results


def _show_thumbnails(results: list[Result]) -> None:
    first = 0
    n_pages = -(-len(results) // PER_PAGE)
    if n_pages > 1:
        first = PER_PAGE * (st.pagination(n_pages, key=f"many files page of {n_pages}") - 1)
    with st.grid(min_column_width=150):
        for result in results[first : first + PER_PAGE]:
            answers = ", ".join(result.answers) if len(result.faces) <= NAMED else count_faces(result.faces)
            alt = f"{PurePosixPath(result.entry.name).name}: {answers}"
            st.image(result.thumbnail, caption=escape_markdown(alt), alt=alt)


def _show_table(table: pd.DataFrame) -> None:
    shown = table[list(SHOWN_COLUMNS)]
    percent = st.column_config.NumberColumn("Confidence", format="percent")
    names: dict[str, Any] = {
        "source": "Image",
        "face": "Face",
        "label": "Best guess",
        "confidence": percent,
        "abstained": "Unsure",
    }
    st.dataframe(shown, hide_index=True, column_config=names, alt="All faces with their emotions")


def _show_downloads(results: list[Result]) -> None:
    st.header("Take it with you")
    blur = st.toggle("Blur faces in the images", key="many files blurred", persist_state="session")
    table = drop_group(build_table(results))
    with st.container(horizontal=True):
        offer_download("Table (CSV)", table.to_csv(index=False).encode(), "faces.csv", "text/csv")
        offer_download(
            "Table (JSON)", table.to_json(orient="records").encode(), "faces.json", "application/json"
        )
        offer_download(
            "Table (Parquet)",
            lambda: table.to_parquet(None, index=False),
            "faces.parquet",
            "application/vnd.apache.parquet",
        )
        offer_download(
            "Images (ZIP)", lambda: build_archive(results, blur), "images_emotions.zip", "application/zip"
        )
    st.caption(
        f"The tables hold every face, the archive every image, at most {DOWNLOAD_SIDE:,} pixels a side. "
        "The archive takes a moment: its images are drawn when you press the button."
    )
