"""Recompute the numbers of each page from what they were made from, for `fer verify`.

Each stage in a few lines of NumPy and pandas, not with the code that wrote its numbers. Intervals are drawn
again for `evaluation` alone.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from fer_lib.cli.rescore import Numbers, Written, rescore_ablations, rescore_compression, rescore_evaluation
from fer_lib.data.packed import PackedDataset
from fer_lib.errors import FerError
from fer_lib.evaluation.bootstrap import ECE_BINS, assign_bins
from fer_lib.evaluation.claims import count_verdicts, judge_claim, load_claims, load_records
from fer_lib.evaluation.perturbations import CORRUPTIONS, SEVERITIES
from fer_lib.labels import EMOTIONS_8, RARE_EMOTIONS, VOTE_OF_LABEL, VOTES
from fer_lib.metrics_file import read_metrics
from fer_lib.provenance import hash_values
from fer_lib.scale.measurements import NAMES, read_measurements
from fer_lib.training.targets import VOTE_COLUMNS, has_votes

CHUNK = 1000
"""Faces that are in memory as floats at once."""


def recompute_data_audit(stage: Written) -> Numbers:
    """Yield counts, copies, suspects and votes; pairs of near copies would take too long."""
    data = stage.faces
    assert data is not None
    # The pixels themselves, not the hashes in the index.
    faces = data.index[["split", "label"]].assign(pixels=[face.tobytes() for face in data.faces])
    yield "n_images", len(faces)
    for split, part in faces.groupby("split"):
        counts = np.bincount(part["label"], minlength=len(data.emotions))
        yield f"{split}.n_images", len(part)
        yield from ((f"{split}.n.{emotion}", n) for emotion, n in zip(data.emotions, counts, strict=True))
        if split == "train":
            yield "train.imbalance", counts.max() / counts[counts > 0].min()
    groups = faces.groupby("pixels").agg(
        n=("split", "size"), splits=("split", "nunique"), labels=("label", "nunique")
    )
    repeated = groups[groups["n"] > 1]
    yield "exact.groups", len(repeated)
    yield "exact.groups_crossing_splits", (repeated["splits"] > 1).sum()
    yield "exact.groups_conflicting_labels", (repeated["labels"] > 1).sum()
    train, test = (faces[faces["split"] == split] for split in ("train", "test"))
    is_copy = test["pixels"].isin(train["pixels"])
    yield "exact.test_images_in_train", is_copy.sum()
    yield "exact.test_share_in_train", is_copy.mean()
    for label, share in is_copy.groupby(test["label"]).mean().items():
        yield f"test.exact.share_in_train.{data.emotions[label]}", share
    if stage.params:
        settings, mean_face = stage.params.data_audit, data.faces[train.index].mean(axis=0, keepdims=True)
        spreads, likenesses = [], []
        for start in range(0, len(faces), CHUNK):
            chunk = data.faces[start : start + CHUNK].astype(float)
            spreads.append(chunk.reshape(len(chunk), -1).std(axis=1))
            likenesses.append(1 - cdist(_flatten_grey(chunk), _flatten_grey(mean_face), "correlation")[:, 0])
        is_blank = np.concatenate(spreads) < settings.blank_std
        is_suspect = ~(np.concatenate(likenesses) >= settings.mean_face_similarity)  # a constant one has none
        yield "n_blank", is_blank.sum()
        yield "n_suspect", is_suspect.sum()
        if has_votes(data.index):
            is_no_face = data.index[VOTE_COLUMNS].to_numpy().argmax(axis=1) == VOTES.index("nf")
            yield "n_voted_no_face", is_no_face.sum()
            yield "n_voted_no_face_found", (is_no_face & (is_blank | is_suspect)).sum()
    if has_votes(data.index):
        yield from _count_agreement(data)


def _flatten_grey(faces: np.ndarray) -> np.ndarray:
    return (faces.mean(axis=3) if faces.ndim == 4 else faces).reshape(len(faces), -1)


def _count_agreement(data: PackedDataset) -> Numbers:
    votes = data.index[VOTE_COLUMNS].to_numpy(np.int64)
    judged = votes.sum(axis=1) > 1
    votes, shares = votes[judged], votes[judged] / votes[judged].sum(axis=1, keepdims=True)
    # For each answer: the votes without one for it, and its part in the lead among them.
    others = votes[:, None] - np.eye(len(VOTES), dtype=int)
    leads = others == others.max(axis=2, keepdims=True)
    parts = np.diagonal(leads, axis1=1, axis2=2) / leads.sum(axis=2)
    yield "humans.n_images", len(votes)
    yield "humans.voter_vs_others", (shares * parts).sum(axis=1).mean()
    if data.soft_labels is None:
        of_label = np.arange(len(votes)), np.asarray(VOTE_OF_LABEL)[data.labels[judged]]
        leads = votes == votes.max(axis=1, keepdims=True)
        yield "humans.voter_vs_label", shares[of_label].mean()
        yield "humans.majority_vs_label", (leads / leads.sum(axis=1, keepdims=True))[of_label].mean()


def recompute_augmentation(stage: Written) -> Numbers:
    """Yield what each transform changes of the same faces, drawn with the same seeds."""
    from fer_lib.models.preprocessing import Preprocessing  # here: torch takes seconds
    from fer_lib.training.transforms import ORIGINAL, apply_each, choose_sample

    assert stage.faces is not None
    sample = choose_sample(stage.faces.get_rows("train"))
    yield "n_images", len(sample)
    if stage.params:
        unscaled = Preprocessing(stage.params.training.image_size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        images = apply_each(stage.faces.faces[sample], stage.params.augmentation, unscaled)
        before = np.stack(images.pop(ORIGINAL)).astype(np.float32)
        for name, changed in images.items():
            after, model = np.stack(changed).astype(np.float32), name.replace(" ", "_")
            yield f"{model}.change", np.abs(after - before).mean(dtype=float)
            for measure, of in {"mean_shift": np.mean, "std_shift": np.std}.items():
                shifts = [of(each, axis=(1, 2, 3), dtype=float) for each in (after, before)]
                yield f"{model}.{measure}", np.abs(shifts[0] - shifts[1]).mean()


def recompute_training(stage: Written) -> Numbers:
    """Yield losses and accuracies of the baseline, by epoch and of the best."""
    history = pd.read_csv(stage.dirs.reports / "recipes" / "baseline.csv", index_col="epoch")
    best = history["val_accuracy"].idxmax()
    yield from (("epochs", len(history)), ("best_epoch", best))
    for column in ("train_loss", "val_loss", "val_accuracy"):
        yield column.replace("_", "."), history.loc[best, column]
        yield from ((f"epoch_{epoch}.{column}", value) for epoch, value in history[column].items())


def recompute_gradcam(stage: Written) -> Numbers:
    """Yield what maps score and gain, where they lie, and how they correlate with those of other weights."""
    titles = {"chosen": "chosen", "Grad-CAM, last stage": "last_stage", "random": "random"}
    titles["face centre"] = "face_centre"
    groups = stage.read("explain/faces.parquet").groupby("map")
    maps = {key: groups.get_group(title).reset_index(drop=True) for title, key in titles.items()}
    chosen = maps["chosen"]
    label, pred, share = chosen["label"], chosen["pred"], chosen["part_background"]
    is_correct = label == pred
    is_active = is_correct & (label != EMOTIONS_8.index("neutral"))
    kept = {"deletion": label >= 0, "insertion": label >= 0, "energy": is_active, "pointing": is_active}
    means = {
        key: {name: table.loc[mask, name].mean() for name, mask in kept.items()}
        for key, table in maps.items()
    }
    for key, of_map in means.items():
        yield from ((f"{key}.{measure}", value) for measure, value in of_map.items())
        for rival in means if key in ("chosen", "last_stage") else ():
            if rival not in (key, "chosen"):
                for measure, value in of_map.items():
                    sign = -1 if measure == "deletion" else 1
                    yield f"{key}.{measure}.gain_over_{rival}", sign * (value - means[rival][measure])
    for part, emotion in stage.metrics.select(metric="density")[["split", "class"]].itertuples(index=False):
        of_emotion = chosen[is_correct & (pred == EMOTIONS_8.index(emotion))]
        name = part.replace("_", " ")
        yield (
            f"{part}.density.{emotion}",
            of_emotion[f"part_{name}"].mean() / of_emotion[f"area_{name}"].mean(),
        )
    yield "landmarks_found", chosen["landmarks_found"].mean()
    yield "image.background", chosen["area_background"].mean()
    yield "correct.background", share[is_correct].mean()
    yield "wrong.background", share[~is_correct].mean()
    by_emotion = (
        share.groupby([pred, is_correct])
        .agg(["mean", "size"])
        .unstack()
        .reindex(  # noqa: PD010
            columns=[("mean", False), ("mean", True), ("size", False)]
        )
    )
    gaps = by_emotion.dropna()
    if len(gaps):
        gap = gaps["mean"][False] - gaps["mean"][True]
        yield "gap.background", np.average(gap, weights=gaps["size"][False])
    blocks = stage.read("explain/randomised.parquet").drop(columns="row")
    for split, block in {
        "randomised": blocks.iloc[:, -1],
        "randomised_classifier": blocks.iloc[:, 0],
    }.items():
        yield from ((f"{split}.correlation", block.mean()), (f"{split}.flat", block.isna().mean()))
    for shift, column in stage.read("explain/stability.parquet").drop(columns="row").items():
        yield f"moved_{shift}_px.correlation", column.mean()


def recompute_robustness(stage: Written) -> Numbers:
    """Yield scores under corruptions, areas, losses and gains, of drawn faces by factor, and of attacks."""
    tables = stage.read_all("robustness/perturbed")
    follows = tables.pop("saliency").drop(columns="row").mean()
    yield from ((f"{_name(condition)}.saliency_correlation", value) for condition, value in follows.items())
    main = stage.metrics["network"]
    labels = tables[main]["label"]
    correct = {name: _get(table, "pred").eq(labels, axis=0).astype(int) for name, table in tables.items()}
    recalls = {name: of_network.groupby(labels).mean() for name, of_network in correct.items()}
    accuracy, confidence = correct[main].mean(), _get(tables[main], "confidence")
    for condition in follows.index:
        yield f"{_name(condition)}.accuracy", accuracy[condition]
        yield f"{_name(condition)}.macro_recall", recalls[main][condition].mean()
        yield f"{_name(condition)}.ece", _compute_ece(correct[main][condition], confidence[condition])
    corrupted = accuracy[follows.index]
    by_corruption = corrupted.groupby(lambda condition: condition.split("/")[0]).mean()
    by_family = by_corruption.groupby(lambda name: CORRUPTIONS[name].family).mean()
    means = {_name(key): value for key, value in {**by_corruption, **by_family}.items()}
    means |= {"perturbed": corrupted.mean(), "clean": accuracy["clean/0"]}
    yield from ((f"{split}.accuracy", value) for split, value in means.items())
    for split in stage.metrics.select(metric="accuracy.loss")["split"]:
        yield f"{split}.accuracy.loss", means["clean"] - means[split]
    for network, of_network in correct.items():
        for name in by_corruption.index:
            curve = of_network.mean()[["clean/0", *(f"{name}/{severity}" for severity in SEVERITIES[1:])]]
            area = np.trapezoid(curve) / (len(curve) - 1) / curve.iloc[0]
            yield f"{network}.{_name(name)}.relative_area", area
    for title, (a, b) in stage.params.robustness.comparisons.items() if stage.params else ():
        yield f"{title}.clean.gain", (correct[a] - correct[b])["clean/0"].mean()
        yield f"{title}.accuracy.gain", (correct[a] - correct[b])[follows.index].mean().mean()
        gains = (recalls[a] - recalls[b])[follows.index].mean(axis=1)
        yield f"{title}.macro_recall.gain", gains.mean()
        for emotion in RARE_EMOTIONS:
            yield f"{title}.recall.gain.{emotion}", gains.get(EMOTIONS_8.index(emotion), np.nan)
    if (stage.dirs.reports / "robustness" / "counterfactuals.parquet").is_file():
        yield from _recompute_counterfactuals(stage)
    attacks = read_metrics(stage.dirs, "privacy").flatten()
    yield from ((key, value) for key, value in attacks.items() if key in stage.metrics and key != "network")


def _recompute_counterfactuals(stage: Written) -> Numbers:
    """Yield accuracies and gaps by factor of the first network, and what mitigations change."""
    table = stage.read("robustness/counterfactuals.parquet")
    correct = _get(table, "pred").eq(table["label"], axis=0)
    main = correct.columns[0]
    accuracies = correct.groupby([table["factor"], table["value"]]).mean()
    for factor in stage.metrics.select(metric="gap")["split"].str.removeprefix("group."):
        of_factor = accuracies.loc[factor, main]
        yield f"group.{factor}.gap", np.ptp(of_factor)
        for value, accuracy in of_factor.items():
            at = (table["factor"] == factor) & (table["value"] == value)
            yield f"group.{factor}.{value}.accuracy", accuracy
            yield (
                f"group.{factor}.{value}.ece",
                _compute_ece(correct.loc[at, main], table.loc[at, f"{main}/confidence"]),
            )
    of_tones = table["factor"] == "skin_tone"
    recalls = correct.loc[of_tones, main].groupby([table["value"], table["label"]]).mean()
    of_tone = recalls.groupby("value").mean()
    yield "skin_tone.recall_ratio", of_tone.min() / of_tone.max()
    for name, baseline in stage.params.robustness.mitigations.items() if stage.params else ():
        for factor in ("skin_tone", "light_strength"):
            ours, theirs = (accuracies.loc[factor, network] for network in (name, baseline))
            yield f"mitigation.{name}.{factor}.accuracy_change", (ours - theirs).mean()
            yield f"mitigation.{name}.{factor}.gap_change", np.ptp(ours) - np.ptp(theirs)


def _name(condition: str) -> str:
    return condition.replace(" ", "_").replace("/", ".")


def _get(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return the columns `<name>/<what>`, by name."""
    return table.filter(regex=f"/{what}$").rename(columns=lambda column: column.rpartition("/")[0])


def _compute_ece(correct: pd.Series, confidence: pd.Series) -> float:
    confidence = confidence.astype(float)
    gaps = (correct - confidence).groupby(assign_bins(confidence.to_numpy(), ECE_BINS)).sum()
    return gaps.abs().sum() / len(correct)


def recompute_claims(stage: Written) -> Numbers:
    """Yield the verdicts, and how many there are of each."""
    records = load_records(stage.dirs, stage.root)
    rows = [judge_claim(claim, records) for claim in load_claims(stage.root / "claims.yaml")]
    yield from ((f"verdict.{row['id']}", row["verdict"]) for row in rows)
    yield "n_claims", len(rows)
    yield from count_verdicts(rows).items()


def recompute_scale(stage: Written) -> Numbers:
    """Yield rates, speed-ups, waiting times and needs of memory from the measurements."""
    measured = {name: read_measurements(name, stage.root) for name in NAMES}
    if hash_values(measured) != stage.metrics.provenance["data"]:
        raise FerError("measurements/: expected those behind the page, found others")
    scored, overload, edge = measured["score"], measured["serve"]["overload"], measured["edge"]
    rates = pd.DataFrame(scored["runs"]).set_index(["work", "round", "workers"])["per_second"].unstack()
    bare = pd.DataFrame(scored["bare"]).set_index(["work", "round"])["per_second"]
    for workers, of_workers in rates.items():
        for measure, ratios in {
            "share_of_bare": of_workers.drop("scenes") / (workers * bare),
            "speedup": of_workers / rates[1],
        }.items():
            if (measure, workers) != ("speedup", 1):
                for work, mean in np.exp(np.log(ratios.dropna()).groupby("work").mean()).items():
                    yield f"{work}.workers_{workers}.{measure}", mean
        for work, rate in of_workers.groupby("work").median().items():
            yield f"{work}.workers_{workers}.per_second", rate
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
    for run in edge["runs"]:
        model = "{}.photograph_{}x{}".format(run["variant"], *edge["photograph_px"][run["photograph"]])
        if run["worked"] and run["limit_mib"] == edge["device_mib"]:
            yield f"{model}.edge.per_second", 1e3 / np.median(run["photograph_ms"])
    for run in edge["emulated_arm64"]:
        yield f"{run['variant']}.arm64.probability_difference", run["photograph_probability_max_difference"]
    steps = pd.DataFrame(measured["distributed"]["points"]).groupby(["image_size", "batch", "processes"])
    seconds = steps["seconds"].median().unstack()
    yield "training.processes_2.speedup", (seconds[1] / seconds[2]).median()


FROM_FACES: dict[str, Callable[[Written], Numbers]] = {
    "data_audit": recompute_data_audit,
    "augmentation": recompute_augmentation,
}
"""How the numbers of a stage are recomputed that needs the packed faces."""

FROM_REPORTS: dict[str, Callable[[Written], Numbers]] = {
    "training": recompute_training,
    "evaluation": rescore_evaluation,
    "ablations": rescore_ablations,
    "compression": rescore_compression,
    "gradcam": recompute_gradcam,
    "robustness": recompute_robustness,
    "claims": recompute_claims,
    "scale": recompute_scale,
}
"""How they are of a stage that needs no more than what is committed."""
