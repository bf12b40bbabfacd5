"""The forms of the compressed networks compared: accuracy, loss, size, speed, cost, and which to take."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fer_lib.data.packed import PackedDataset
from fer_lib.deployment.compression import FLOAT, INT8, INT8_ALL, read_said
from fer_lib.errors import FerError
from fer_lib.evaluation.comparisons import summarise_gain
from fer_lib.evaluation.metrics import summarise
from fer_lib.metrics_file import read_metrics
from fer_lib.params import CompressionParams, DeviceLimits
from fer_lib.paths import OutputDirs
from fer_lib.training.predict import compute_softmax

KEPT_OF_SUMMARY = ("accuracy", "ece", "macro.recall", "n_images")


def score_forms(dirs: OutputDirs, settings: CompressionParams, data: PackedDataset) -> dict[str, Any]:
    """Return what every form scores and loses, as metrics under `<network>.<form>.`.

    `val.*`, `test.*` and `test_dedup.*`; `parent.*` and `twin.*` with `gain`, its interval and McNemar's
    `p_value`, on test, against the parent in float and against the same network in float.
    Raises FerError when a network has not been compressed.
    """
    said = {name: read_said(dirs, name, data) for name in settings.networks}
    rows = {split: data.get_rows(split) for split in ("val", "test")}
    unseen = np.isin(rows["test"], data.get_rows("test", drop_duplicates_of="train"))
    rows["test_dedup"] = rows["test"][unseen]
    labels = {split: data.labels[rows[split]] for split in rows}
    bootstrap = {"n_resamples": settings.n_resamples, "seed": settings.seed}
    parent = compute_softmax(said[settings.parent][FLOAT]["test"])
    metrics: dict[str, Any] = {}
    for network, forms in said.items():
        twin = compute_softmax(forms[FLOAT]["test"])
        for form, logits in forms.items():
            found = {split: compute_softmax(values) for split, values in logits.items()}
            found["test_dedup"] = found["test"][unseen]
            prefix = f"{network}.{form}"
            for split in rows:
                clusters = data.persons[rows[split]]
                scored = summarise(
                    split, labels[split], found[split], data.emotions, clusters=clusters, **bootstrap
                )
                metrics |= {f"{prefix}.{key}": value for key, value in scored.items() if _is_kept(key)}
            for title, other in {"parent": parent, "twin": twin}.items():
                if prefix != f"{settings.parent if title == 'parent' else network}.{FLOAT}":
                    metrics |= summarise_gain(
                        f"{prefix}.{title}",
                        labels["test"],
                        found["test"],
                        other,
                        data.emotions,
                        clusters=data.persons[rows["test"]],
                        **bootstrap,
                    )
    return metrics


def read_forms(dirs: OutputDirs, settings: CompressionParams) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return one row per form and the metrics of the stage `latency`.

    Columns: network, form, bytes, image_size, n_parameters, macs, macs_share of the parent; milliseconds per
    face `ms_<threads>_<batch>`, `p95_<threads>_<batch>`; faces a second `per_second_<threads>`; peak_mib;
    dollars per million faces on one core; and the speed-ups `parent_<threads>_<batch>` and
    `twin_<threads>_<batch>`. Speeds and speed-ups have bounds with `_lo` and `_hi`; the index is
    `<network>.<form>`.
    Raises FerError when the forms that were timed are not those that were compressed.
    """
    latency = read_metrics(dirs, "latency")
    about = {name: read_metrics(dirs, f"compression/{name}") for name in settings.networks}
    rows = []
    for network, facts in about.items():
        forms = [key.removesuffix(".bytes") for key in facts if key.endswith(".bytes")]
        for form in sorted(forms, key=lambda form: (not form.startswith(FLOAT), form)):
            name = f"{network}.{form}"
            if latency.get(f"{name}.sha256") != facts[f"{form}.sha256"]:
                raise FerError(
                    f"{dirs.metrics / 'latency.json'}: {name} was not timed as it is now; run `make repro`"
                )
            row = {"name": name, "network": network, "form": form, "bytes": facts[f"{form}.bytes"]}
            row |= {key: facts[key] for key in ("image_size", "n_parameters", "macs")}
            row["macs_share"] = facts["macs"] / about[settings.parent]["macs"]
            for threads in settings.threads:
                for batch in (1, 32):
                    key, end = f"time.{name}.threads_{threads}.batch_{batch}", f"{threads}_{batch}"
                    row |= {f"ms_{end}": latency[f"{key}.ms"], f"p95_{end}": latency[f"{key}.ms_p95"]}
                    for title, bound in itertools.product(("parent", "twin"), ("", "_lo", "_hi")):
                        row[f"{title}_{end}{bound}"] = latency[f"{key}.{title}.speedup{bound}"]
            for threads in (min(settings.threads), max(settings.threads)):
                key = f"time.{name}.threads_{threads}.batch_1.faces_per_second"
                row |= {f"per_second_{threads}{end}": latency[f"{key}{end}"] for end in ("", "_lo", "_hi")}
            row["peak_mib"] = latency[f"time.{name}.peak_mib"]
            # Milliseconds of a million faces are so many thousand seconds.
            row["dollars"] = row["ms_1_32"] * 1e3 / 3600 * settings.price_per_core_hour
            rows.append(row)
    return pd.DataFrame(rows).set_index("name"), latency


def tabulate_sensitivity(dirs: OutputDirs, network: str) -> pd.DataFrame:
    """Return kind and error of every layer of `network` in int8 alone, in the order of the layers."""
    facts = read_metrics(dirs, f"compression/{network}")
    columns = ("kind", "error")
    return pd.DataFrame(
        [{c: facts[f"layer_{n}.{c}"] for c in columns} for n in range(facts["n_layers"])]
    ).rename_axis("layer")


def find_front(forms: pd.DataFrame, cost: str, gain: str) -> pd.Index:
    """Return the forms that no other beats in both: less of `cost` and more of `gain`, cheapest first."""
    ordered = forms.sort_values([cost, gain], ascending=[True, False])
    best = ordered[gain].cummax()
    return ordered.index[(ordered[gain] == best) & ~best.duplicated()]


def choose_form(forms: pd.DataFrame, limits: DeviceLimits, tolerance: float) -> str | None:
    """Return the form for a device: of those within `limits` and within `tolerance` of the best of them in
    `val_accuracy`, the fastest on one thread; None when none fits.
    """
    fitting = forms[forms["bytes"] <= (limits.megabytes or np.inf) * 1e6]
    fitting = fitting[fitting["ms_1_1"] <= (limits.milliseconds or np.inf)]
    if fitting.empty:
        return None
    close = fitting[fitting["val_accuracy"] >= fitting["val_accuracy"].max() - tolerance]
    return str(close["ms_1_1"].idxmin())


def check_int8(
    forms: pd.DataFrame, metrics: Mapping[str, Any], settings: CompressionParams, against: str
) -> pd.DataFrame:
    """Return what each int8 form costs and brings, one row per form.

    against: `twin`, the same network in float: what quantization alone does; or `parent`, the float network
    that all are compared with: what taking its place does. Columns: points of test accuracy lost, and the
    speed-ups on the most threads for one face and for 32, each with its interval as text; McNemar's p; size,
    a share; and `holds`: whether validation accuracy, size and both speed-ups are within `settings.worth`.
    Test accuracy decides nothing.
    """
    threads, worth, rows = max(settings.threads), settings.worth, {}
    for name, form in forms[forms["form"].isin([INT8, INT8_ALL])].iterrows():
        other = f"{form['network'] if against == 'twin' else settings.parent}.{FLOAT}"
        loss = forms.loc[other, "val_accuracy"] - form["val_accuracy"]
        size = form["bytes"] / forms.loc[other, "bytes"]
        speedups = {batch: f"{against}_{threads}_{batch}" for batch in (1, 32)}
        holds = loss <= worth.loss and size <= worth.size
        holds &= form[speedups[1]] >= worth.speedup and form[speedups[32]] >= worth.speedup_of_32
        gain = [-100 * metrics[f"{name}.{against}.gain{end}"] for end in ("", "_hi", "_lo")]
        rows[name] = {
            "points lost": "{:+.1f} [{:+.1f}, {:+.1f}]".format(*gain),
            "McNemar p": metrics[f"{name}.{against}.p_value"],
            "size": size,
            "times as fast": _show_speedup(form, speedups[1]),
            "32 faces": _show_speedup(form, speedups[32]),
            "holds": bool(holds),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("network and form")


def choose_int8(forms: pd.DataFrame, replaces: pd.DataFrame) -> str:
    """Return the int8 form with the best validation accuracy among those that hold against the parent.

    replaces: of `check_int8` against the parent. Where none holds, the best of all.
    """
    candidates = forms[forms["form"] == INT8]
    holding = candidates[replaces["holds"].reindex(candidates.index)]
    return str((candidates if holding.empty else holding)["val_accuracy"].idxmax())


def _show_speedup(form: pd.Series, column: str) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(form[f"{column}{end}"] for end in ("", "_lo", "_hi")))


def _is_kept(key: str) -> bool:
    name = key.split(".", 1)[1].removesuffix("_lo").removesuffix("_hi")
    return name in KEPT_OF_SUMMARY
