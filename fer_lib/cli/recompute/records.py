"""Recompute `training`, `claims` and `scale` from curves, rules and measurements."""

import numpy as np
import pandas as pd

from fer_lib.cli.recompute.written import Numbers, Written
from fer_lib.errors import FerError
from fer_lib.evaluation.claims import count_verdicts, judge_claim, load_claims, load_records
from fer_lib.provenance import hash_values
from fer_lib.scale.measurements import NAMES, read_measurements


def recompute_training(stage: Written) -> Numbers:
    """Yield losses and accuracies of the baseline, by epoch and of the best."""
    history = pd.read_csv(stage.dirs.reports / "recipes" / "baseline.csv")
    best = int(history["val_accuracy"].to_numpy().argmax())
    yield from (("epochs", len(history)), ("best_epoch", best + 1))
    for column in ("train_loss", "val_loss", "val_accuracy"):
        yield column.replace("_", "."), history[column].iloc[best]
        yield from ((f"epoch_{i}.{column}", value) for i, value in enumerate(history[column], 1))


def recompute_claims(stage: Written) -> Numbers:
    """Yield the verdicts, and how many there are of each."""
    records = load_records(stage.dirs, stage.root)
    rows = [judge_claim(claim, records) for claim in load_claims(stage.root / "claims.yaml")]
    yield from ((f"verdict.{row['id']}", row["verdict"]) for row in rows)
    yield "n_claims", len(rows)
    yield from count_verdicts(rows).items()


def recompute_scale(stage: Written) -> Numbers:
    """Yield rates, speed-ups, waiting times and needs of memory; costs and projections rest on them."""
    measured = {name: read_measurements(name, stage.root) for name in NAMES}
    if hash_values(measured) != stage.metrics.provenance["data"]:
        raise FerError("measurements/: expected those behind the page, found others")
    scored, overload, edge = measured["score"], measured["serve"]["overload"], measured["edge"]
    runs = pd.DataFrame(scored["runs"]).set_index(["workers", "work", "round"])["per_second"]
    rates = {workers: runs[workers] for workers in runs.index.unique("workers")}
    bare = pd.DataFrame(scored["bare"]).set_index(["work", "round"])["per_second"]
    for workers, rate in rates.items():
        for work, median in rate.groupby("work").median().items():
            yield f"{work}.workers_{workers}.per_second", median
        ratios = {"share_of_bare": rate.drop("scenes") / bare / workers, "speedup": rate / rates[1]}
        for measure, ratio in ratios.items():
            for work, mean in np.exp(np.log(ratio.dropna()).groupby("work").mean()).items():
                if (measure, workers) != ("speedup", 1):
                    yield f"{work}.workers_{workers}.{measure}", mean
    for work, parts in scored["parts_ms"].items():
        yield f"{work}.bound_by", max(parts, key=parts.get)
        yield from ((f"{work}.{part}.milliseconds", value) for part, value in parts.items())
    resumed = scored["resumed"]
    yield "crops.kills", len(resumed["kills"])
    yield "crops.lost", resumed["images"] - resumed["distinct"]
    yield "crops.duplicates", resumed["rows"] - resumed["distinct"]
    yield "driver.listing_bytes", scored["listing_bytes"]
    yield "server.lost", overload["accepted_without_answer"]
    yield "server.p99_ms", overload["p99_ms"]
    yield "server.per_second", overload["by_status"]["200"] / (60 * overload["minutes"])
    enough: dict[str, int] = {}
    for run in edge["runs"]:
        model = "{}.photograph_{}x{}".format(run["variant"], *edge["photograph_px"][run["photograph"]])
        if run["worked"] and run["limit_mib"] == edge["device_mib"]:
            yield f"{model}.edge.per_second", 1e3 / np.median(run["photograph_ms"])
        if run["worked"] and run["limit_mib"]:
            enough[model] = min(run["limit_mib"], enough.get(model, run["limit_mib"]))
    yield from ((f"{model}.edge.least_mib", limit) for model, limit in enough.items())
    for run in edge["emulated_arm64"]:
        yield f"{run['variant']}.arm64.probability_difference", run["photograph_probability_max_difference"]
    steps = pd.DataFrame(measured["distributed"]["points"])
    seconds = steps.groupby(["processes", "image_size", "batch"])["seconds"].median()
    yield "training.processes_2.speedup", (seconds[1] / seconds[2]).median()
