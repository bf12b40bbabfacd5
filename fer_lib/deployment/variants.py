"""Compare the variants of the compressed networks: accuracy, loss, size, speed, cost, and which to take."""

import numpy as np
import pandas as pd

from fer_lib.data.packed import PackedDataset
from fer_lib.deployment.compression import INT8, INT8_ALL, REFERENCES, find_reference, read_logits
from fer_lib.deployment.latency import name_run
from fer_lib.errors import FerError
from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.evaluation.metrics import score_predictions, summarise_gain
from fer_lib.evaluation.predictions import SPLITS
from fer_lib.intervals import Interval
from fer_lib.metrics_file import Metrics, build_key, read_metrics
from fer_lib.paths import OutputDirs
from fer_lib.study_sections import CompressionParams, DeviceLimits
from fer_lib.training.voting import compute_softmax

SCORES = ("accuracy", "ece", "macro.recall")


def score_variants(dirs: OutputDirs, settings: CompressionParams, data: PackedDataset) -> Metrics:
    """Return `SCORES` of every `<network>.<variant>` on `val`, `test` and `test_dedup`, and its gains.

    `baseline.gain` and `float_reference.gain`, with McNemar's `p_value`, are in accuracy on test, against the
    baseline in float and against the same network in float. Raises DataError when a network has not been
    compressed.
    """
    rows = {split: data.get_rows(split) for split in SPLITS}
    unseen = np.isin(rows["test"], data.get_rows("test", drop_duplicates_of="train"))
    rows["test_dedup"] = rows["test"][unseen]
    predicted: dict[str, dict[str, np.ndarray]] = {}
    for network in settings.networks:
        for variant, logits in read_logits(dirs, network, data).items():
            found = {split: compute_softmax(values) for split, values in logits.items()}
            predicted[f"{network}.{variant}"] = {**found, "test_dedup": found["test"][unseen]}
    bootstraps = {
        split: Bootstrap(len(chosen), settings.n_resamples, settings.seed, data.persons[chosen])
        for split, chosen in rows.items()
    }
    metrics = Metrics("compression")
    for name, found in predicted.items():
        for split, chosen in rows.items():
            scores = score_predictions(data.labels[chosen], found[split], data.emotions, bootstraps[split])
            kept = {metric: scores[metric] for metric in SCORES}
            metrics.add_scores(kept, model=name, split=split, n=len(chosen))
        for title in REFERENCES:
            other = find_reference(name, title, settings)
            if other != name:
                labels, reference = data.labels[rows["test"]], predicted[other]["test"]
                gain, p_value = summarise_gain(labels, found["test"], reference, bootstraps["test"])
                metrics.add(f"{title}.gain", gain, model=name)
                metrics.add(f"{title}.p_value", p_value, model=name)
    return metrics


def read_variants(dirs: OutputDirs, settings: CompressionParams, latency: Metrics) -> pd.DataFrame:
    """Return one row per variant, by `<network>.<variant>`.

    Columns: network, variant, bytes, image_size, macs, macs_share of the baseline; ms, milliseconds per face
    on one thread; peak_mib; dollars per million faces on one core, in batches of 32. Raises FerError when the
    variants that were timed are not those that were compressed.
    """
    about = {name: read_metrics(dirs, f"compression/{name}") for name in settings.networks}
    rows = {}
    for network, facts in about.items():
        for variant in facts.select(metric="bytes")["model"]:
            name = f"{network}.{variant}"
            if latency.get(f"{name}.sha256") != facts.get(f"{variant}.sha256"):
                raise FerError(
                    f"{dirs.get_table('latency')}: {name} was not timed as it is now; run `make results`"
                )
            # Milliseconds of a million faces are so many thousand seconds.
            hours = latency[build_key("time.ms", name, name_run(1, 32))] * 1e3 / 3600
            rows[name] = {
                "network": network,
                "variant": variant,
                "bytes": facts[build_key("bytes", variant)],
                "image_size": facts["image_size"],
                "macs": facts["macs"],
                "macs_share": facts["macs"] / about[settings.baseline]["macs"],
                "ms": latency[build_key("time.ms", name, name_run(1, 1))],
                "peak_mib": latency[build_key("time.peak_mib", name)],
                "dollars": hours * settings.price_per_core_hour,
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def tabulate_sensitivity(dirs: OutputDirs, network: str) -> pd.DataFrame:
    """Return kind and error of every layer of `network` in int8 alone, in the order of the layers."""
    found = read_metrics(dirs, f"compression/{network}")
    table = pd.DataFrame({"kind": found["layers"], "error": found.select(metric="error")["value"].to_numpy()})
    return table.rename_axis("layer")


def find_front(variants: pd.DataFrame, cost: str, gain: str) -> pd.Index:
    """Return the variants that no other beats in both: less of `cost` and more of `gain`, cheapest first."""
    ordered = variants.sort_values([cost, gain], ascending=[True, False])
    best = ordered[gain].cummax()
    return ordered.index[(ordered[gain] == best) & ~best.duplicated()]


def choose_variant(variants: pd.DataFrame, limits: DeviceLimits, tolerance: float) -> str | None:
    """Return the variant for a device: of those within `limits` and within `tolerance` of the best of them in
    `val_accuracy`, the fastest on one thread; None when none fits.
    """
    fitting = variants[variants["bytes"] <= (limits.megabytes or np.inf) * 1e6]
    fitting = fitting[fitting["ms"] <= (limits.milliseconds or np.inf)]
    if fitting.empty:
        return None
    close = fitting[fitting["val_accuracy"] >= fitting["val_accuracy"].max() - tolerance]
    return str(close["ms"].idxmin())


def check_int8(
    variants: pd.DataFrame, metrics: Metrics, latency: Metrics, settings: CompressionParams, against: str
) -> pd.DataFrame:
    """Return what each int8 variant costs and brings, one row per variant.

    Columns: points of test accuracy lost, and the speed-ups on the most threads for one face and for 32, each
    with its interval as text; McNemar's p; size, a share; and `holds`: whether validation accuracy, size and
    both speed-ups are within `settings.acceptance`. Test accuracy decides nothing.

    Against `float_reference`, the same network in float, that is what quantization alone does; against
    `baseline`, the float network that all are compared with, what taking its place does.
    """
    threads, criteria, rows = max(settings.threads), settings.acceptance, {}
    for name in variants.index[variants["variant"].isin([INT8, INT8_ALL])]:
        other = find_reference(name, against, settings)
        loss = variants.loc[other, "val_accuracy"] - variants.loc[name, "val_accuracy"]
        size = variants.loc[name, "bytes"] / variants.loc[other, "bytes"]
        one, many = (
            latency.interval(build_key(f"time.speedup.{against}", name, name_run(threads, batch)))
            for batch in (1, 32)
        )
        gain = metrics.interval(build_key(f"{against}.gain", name))
        rows[name] = {
            "points lost": f"{Interval(-100 * gain.value, -100 * gain.high, -100 * gain.low):+.1f}",
            "McNemar p": metrics[build_key(f"{against}.p_value", name)],
            "size": size,
            "times as fast": f"{one:.2f}",
            "32 faces": f"{many:.2f}",
            "holds": bool(
                loss <= criteria.loss
                and size <= criteria.size
                and one.value >= criteria.speedup
                and many.value >= criteria.speedup_of_32
            ),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("network and variant")


def choose_int8(variants: pd.DataFrame, replaces: pd.DataFrame) -> str:
    """Return the int8 variant with the best validation accuracy among those that hold against the baseline.

    `replaces` is of `check_int8` against the baseline. Where none holds, the best of all.
    """
    candidates = variants[variants["variant"] == INT8]
    holding = candidates[replaces["holds"].reindex(candidates.index)]
    return str((candidates if holding.empty else holding)["val_accuracy"].idxmax())
