"""Name the studies' arms and what each is compared with, as a reader sees them."""

from fer_lib.evaluation.ablation_results import BOTH

LOSSES = {
    "cross_entropy": "cross-entropy",
    "weighted": "weighted cross-entropy",
    **{f"focal_{gamma}": f"focal loss, gamma {gamma}" for gamma in (1, 2, 5)},
}

ARMS = {
    "augmentation": {
        "none": "no augmentation",
        "rotation": "rotation alone",
        "scale_shift": "scale and shift alone",
        "flip": "flip alone",
        "brightness_contrast": "brightness and contrast alone",
        "erasing": "erasing alone",
        "mixup": "mixup alone",
        "wide": "a wider set",
    },
    "dropout": {"none": "no dropout", "half": "dropout of a half"},
    "duplicates": {"dropped": "no duplicates, all faces"},
    "duplicates_unseen": {"dropped": "no duplicates, faces without copy"},
    "ensemble": {
        "b0": "B0",
        "lite0": "Lite0 (member)",
        "resnet18": "ResNet-18, random weights (member)",
        "soft_vote": "soft vote of the members",
        "three_times": "one network, three times the epochs",
    },
    "head": {"hierarchical": "hierarchical head"},
    "image_size": {"px_32": "32 px", "px_64": "64 px", "growing": "48 px, then 64 px"},
    "initialisation": {
        "random": "random initial weights",
        "hub": "initial weights of the Hub",
        "head_only": "the head alone trained",
        "head_first": "the head trained first",
    },
    "loss": LOSSES | {f"{loss}{BOTH}": f"{name}, sampler" for loss, name in LOSSES.items()},
    "paper": {
        "neither": "neither sampler nor focal loss",
        "cosine": "cosine schedule",
        "random_weights": "random initial weights",
        "hierarchical": "hierarchical head",
    },
    "schedule": {"constant": "constant 0.001", "cosine_twice": "cosine from 0.002"},
    "targets": {
        "majority": "the annotators' majority",
        "votes": "100% votes",
        "votes_25": "25% votes",
        "blend": "50% votes",
        "votes_75": "75% votes",
        "smoothing": "label smoothing",
    },
}
ARMS["targets_annotators"] = ARMS["targets"]
ARMS["vote_over"] = {arm: f"over {name}" for arm, name in ARMS["ensemble"].items()}
"""Study to arms whose names in `params.yaml` say too little to a reader."""

BASELINES = {
    "paper": "the paper's recipe",
    "ensemble": "the paper's recipe",
    "vote_over": "each network alone",
    "loss": "cross-entropy without the weighted sampler",
    "stacked": "one of the two alone",
    "augmentation": "the paper's transforms together",
    "schedule": "a cosine from 0.001",
    "head": "the flat head",
    "targets": "training on the labels",
    "targets_annotators": "training on the labels",
    "duplicates": "training on all faces",
    "duplicates_unseen": "training on all faces",
}
"""What a study's gains are over, where that is not the exploration's reference."""

EXPLORATION = "the exploration's reference"


def name_arm(study: str, arm: str) -> str:
    """Return an arm's name: that of `ARMS`, else its own without underscores."""
    if study == "stacked":
        both, alone = arm.split("_over_")
        loss = name_arm("loss", both.removesuffix(BOTH))
        return f"{loss}, added to sampler" if alone.endswith(BOTH) else f"sampler, added to {loss}"
    return ARMS.get(study, {}).get(arm, arm.replace("_", " "))


def name_baseline(study: str) -> str:
    """Return what the gains of a study's arms are over."""
    return BASELINES.get(study, EXPLORATION)
