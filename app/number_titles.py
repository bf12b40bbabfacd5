"""Name the pipeline's numbers for the page Results as its reports do, and say how each is written."""

from fer_lib.metrics_file import HEADLINES
from fer_lib.wording import PRECISIONS, spell_network

POINTS = "points"
"""The format of a difference of two shares: `+0.7 points`."""

BY_ANNOTATORS = {"test.majority.accuracy": ("Accuracy by annotators", ".1%")}
"""Key in a release's config to name and format, as in `HEADLINES`."""

SCORES = BY_ANNOTATORS | HEADLINES
"""What models are compared by."""

ENDINGS = SCORES | {
    "val.accuracy": ("Accuracy, validation images", ".1%"),
    "accuracy.gain": ("Accuracy gain", POINTS),
    "macro_recall.gain": ("Macro recall gain", POINTS),
    "baseline.gain": ("Accuracy gain, over the baseline", POINTS),
    "float_reference.gain": ("Accuracy gain, over the same network in FP32", POINTS),
    "clean.gain": ("Accuracy gain, clean faces", POINTS),
    "photograph_640x480.edge.per_second": ("Rendered images of 640 x 480 per second, one core", ",.1f"),
}
"""How the key of a network's number ends to its name and format; ` of <network>` goes before the comma."""

_VERDICTS = {
    "n": "in all",
    "reproduced": "reproduced",
    "implemented": "implemented",
    "partly": "in part",
    "inconclusive": "inconclusive",
    "not_reproduced": "not reproduced",
    "not_implemented": "not implemented",
    "not_tested": "not tested",
}

TITLES = {
    # Notebook 1
    "train.imbalance": ("Size of the largest training class over that of the smallest", ".1f"),
    "exact.test_share_in_train": ("Test images that are identical to a training image", ".1%"),
    "near.pairs_crossing_splits": ("Further pairs of near copies in different splits", ",.0f"),
    "humans.voter_vs_others": ("How often an annotator agrees with the majority of the others", ".1%"),
    # 2
    "all_together.change": ("Change of a pixel by all transforms together, of 255 grey levels", ".1f"),
    # 3
    "train.loss": ("Training loss", ".3f"),
    "val.loss": ("Validation loss", ".3f"),
    # 4
    "baseline.test.accuracy": ("Accuracy of the paper's recipe", ".1%"),
    "ensemble.test.accuracy": ("Accuracy of the ensemble", ".1%"),
    "ensemble_tta.test.accuracy": ("Accuracy of the ensemble, twelve views", ".1%"),
    "test.group.accuracy": ("Accuracy in three groups", ".1%"),
    "test_scaled.ece": ("Calibration error (ECE), with temperature", ".3f"),
    "selective.accuracy_at_50": ("Accuracy on the half of the faces that is surest", ".1%"),
    # 5
    "paper.reference.accuracy": ("Accuracy of the paper's recipe", ".1%"),
    "paper.reference.macro_recall": ("Macro recall of the paper's recipe", ".1%"),
    "paper.no_focal_loss.accuracy.gain": ("Accuracy gain over the paper's recipe, no focal loss", POINTS),
    "paper.no_augmentation.accuracy.gain": ("Accuracy gain over the paper's recipe, no augmentation", POINTS),
    "ensemble.soft_vote.accuracy.gain": ("Accuracy gain over the paper's recipe, soft vote", POINTS),
    # 6
    "int8.test.accuracy": ("Accuracy of the selected INT8 network", ".1%"),
    "pruned.test.accuracy": ("Accuracy of the network with the fewest channels left", ".1%"),
    "smallest.test.accuracy": ("Accuracy of the smallest network", ".1%"),
    # 7
    "chosen.deletion": ("Deletion area of the chosen saliency map, smaller is better", ".3f"),
    "chosen.insertion": ("Insertion area of the chosen saliency map, larger is better", ".3f"),
    "chosen.energy": ("Energy of the chosen saliency map on the parts that make the emotion", ".3f"),
    "randomised.correlation": ("Correlation with the original saliency map, all weights permuted", ".3f"),
    "wrong.background": ("Share of the saliency map outside the face, wrong predictions", ".3f"),
    # 8
    "clean.accuracy": ("Accuracy on clean faces", ".1%"),
    "perturbed.accuracy": ("Mean accuracy under all corruptions", ".1%"),
    "augmentation.accuracy.gain": ("Accuracy gain by augmentation, corrupted faces", POINTS),
    "skin_tone.recall_ratio": ("Lowest over highest macro recall of a skin tone", ".1%"),
    "membership.auroc": ("AUROC of membership inference, 0.5 is guessing", ".3f"),
    "inversion.gain": ("Correlation of an inverted image, training over unseen faces", "+.3f"),
    # 9
    **{f"measured.{key}": (f"Measured claims, {verdict}", ",.0f") for key, verdict in _VERDICTS.items()},
    **{
        f"implemented.{key}": (f"Implementation claims, {verdict}", ",.0f")
        for key, verdict in _VERDICTS.items()
    },
    # 10
    "crops.workers_2.speedup": ("Speed-up by two workers, crops", ".2f"),
    "crops_b0.workers_2.speedup": ("Speed-up by two workers, crops in FP32", ".2f"),
    "crops_b0.workers_2.share_of_bare": ("Speed of two workers over the bare loop's, crops in FP32", ".2f"),
    "scenes.workers_2.speedup": ("Speed-up by two workers, rendered images", ".2f"),
    "crops.lost": ("Images lost after kills", ",.0f"),
    "crops.duplicates": ("Images scored twice after kills", ",.0f"),
    "server.lost": ("Accepted requests lost under overload", ",.0f"),
    "server.p99_ms": ("Milliseconds to an answer under overload, 99th percentile", ",.0f"),
    "step.error.median": ("Error of the predicted duration of a training step, median", ".1%"),
}
"""Key of a number to its name and format."""

_DIFFERENCES = {"gain", "gap", "gap_change", "accuracy_change"}


def name_number(key: str) -> tuple[str, str]:
    """Return a number's name in words and its format: by `TITLES` or `ENDINGS`, else the key without dots.

    `b0.test.accuracy` is the `Accuracy of b0`.
    """
    if key in TITLES:
        return TITLES[key]
    endings = [ending for ending in ENDINGS if f".{key}".endswith(f".{ending}")]
    if not endings:
        return show_key(key), _find_format(key)
    ending = max(endings, key=len)
    name, spec = ENDINGS[ending]
    network = key.removesuffix(ending).rstrip(".")
    what, *rest = name.partition(",")
    of = f" of {_spell_network(network)}" if network else ""
    return f"{what}{of}{''.join(rest)}", spec


def show_key(key: str) -> str:
    """Return the path to a number or a setting in words: `training.loss.focal_gamma` as
    `training: loss, focal gamma`.
    """
    return key.replace(".", ": ", 1).replace(".", ", ").replace("_", " ")


def _find_format(key: str) -> str:
    parts = key.split(".")
    if any(part.startswith("gain_over_") for part in parts):
        return "+.3f"  # of an area or an energy, which its page writes with three digits
    if not _DIFFERENCES.isdisjoint(parts):  # the class may follow
        return POINTS
    return ".1%" if parts[-1].endswith("accuracy") else ""


def _spell_network(name: str) -> str:
    variant = name.partition(".")[2]
    is_variant = variant in PRECISIONS or variant.startswith("sparse_")
    return spell_network(name) if is_variant else name.replace(".", " ").replace("_", " ")
