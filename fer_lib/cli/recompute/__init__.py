"""Recompute the numbers of each page from what they were made from, for `fer verify`.

Each stage in a few lines of NumPy, pandas and scikit-learn, not by the code that wrote its numbers. Some of
that code runs again all the same: what `evaluation` fits and draws (temperatures, weights of a vote,
intervals), the transforms of `augmentation`, the rules of `claims`. Intervals are drawn again for
`evaluation` alone.
"""

from collections.abc import Callable

from fer_lib.cli.recompute.ablations import recompute_ablations
from fer_lib.cli.recompute.analysis import recompute_gradcam, recompute_robustness
from fer_lib.cli.recompute.faces import recompute_augmentation, recompute_data_audit
from fer_lib.cli.recompute.predictions import recompute_compression, recompute_evaluation
from fer_lib.cli.recompute.records import recompute_claims, recompute_scale, recompute_training
from fer_lib.cli.recompute.written import Numbers, Written

FROM_FACES: dict[str, Callable[[Written], Numbers]] = {
    "data_audit": recompute_data_audit,
    "augmentation": recompute_augmentation,
}
"""How the numbers of a stage are recomputed that needs the packed faces."""

FROM_REPORTS: dict[str, Callable[[Written], Numbers]] = {
    "training": recompute_training,
    "evaluation": recompute_evaluation,
    "ablations": recompute_ablations,
    "compression": recompute_compression,
    "gradcam": recompute_gradcam,
    "robustness": recompute_robustness,
    "claims": recompute_claims,
    "scale": recompute_scale,
}
"""How they are of a stage that needs no more than what is committed."""
