"""The sections of `params.yaml` on what comes after training, typed: what each setting may be."""

from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from fer_lib.param_sections import Changes, Fraction, Section


class EvaluationParams(Section):
    """Which networks are scored, and how."""

    networks: tuple[str, ...] = Field(min_length=1)
    read_back: tuple[str, ...] = ()  # those of which only the released int8 weights are left
    batch_size: int = Field(ge=1)
    n_resamples: int = Field(ge=10)
    seed: int = Field(ge=0)


class AcceptanceCriteria(Section):
    """What int8 must bring to be accepted: shares, and how many times as fast on the most threads."""

    loss: float = Field(ge=0.0)
    size: float = Field(gt=0.0)
    speedup: float = Field(gt=0.0)
    speedup_of_32: float = Field(gt=0.0)


class DeviceLimits(Section):
    """What a device has room and time for; null: no limit. Milliseconds are for one face on one thread."""

    megabytes: float | None = None
    milliseconds: float | None = None


class CompressionParams(Section):
    """How networks are made small, and how their speed is measured."""

    baseline: str  # the network that the others are compared with
    networks: tuple[str, ...] = Field(min_length=1)
    calibration_faces: int = Field(ge=1)
    percentile: float = Field(gt=50.0, le=100.0)
    max_layer_error: float = Field(ge=0.0)
    sparsities: tuple[float, ...]
    threads: tuple[int, ...] = Field(min_length=1)
    rounds: int = Field(ge=2)
    price_per_core_hour: float = Field(gt=0.0)
    acceptance: AcceptanceCriteria
    tolerance: float = Fraction
    devices: dict[str, DeviceLimits]
    n_resamples: int = Field(ge=10)
    seed: int = Field(ge=0)


class ScaleParams(Section):
    """What other machines cost, and which training they are asked for."""

    price_per_gpu_hour: float = Field(gt=0.0)
    price_per_gb_month: float = Field(gt=0.0)
    price_per_gb_sent: float = Field(ge=0.0)
    images: tuple[int, ...] = Field(min_length=1)
    gpu_recipe: str
    gpu_train_faces: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    train_faces: int = Field(ge=1)
    epochs: int = Field(ge=1)
    gpus: tuple[int, ...] = Field(min_length=1)
    gpu_gb_per_second: float = Field(gt=0.0)


class GradcamParams(Section):
    """Which network is explained, and on how many faces its maps are tested."""

    network: str
    n_chosen: int = Field(ge=1)  # validation faces on which method and stage are chosen
    n_faces: int = Field(ge=1)
    n_randomised: int = Field(ge=1)
    min_faces: int = Field(ge=1)  # fewer are neither averaged nor judged as a group
    shifts: tuple[int, ...] = Field(min_length=1)
    n_resamples: int = Field(ge=10)
    seed: int = Field(ge=0)


class RobustnessParams(Section):
    """Which networks are shown perturbed and varied faces, and how many."""

    explained: str
    networks: tuple[str, ...] = Field(min_length=1)
    members: tuple[str, ...] = Field(min_length=1)
    comparisons: dict[str, tuple[str, str]]  # of two networks each
    audited: tuple[str, ...] = Field(min_length=1)
    mitigations: dict[str, str]  # audited network: the one that it is to improve on
    n_faces: int = Field(ge=1)
    n_saliency: int = Field(ge=1)
    n_counterfactuals: int = Field(ge=8)  # one of each class
    n_members: int = Field(ge=10)
    min_faces: int = Field(ge=1)
    n_permutations: int = Field(ge=10)
    n_resamples: int = Field(ge=10)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _check_names(self) -> "RobustnessParams":
        pairs = {"comparisons": [*self.comparisons.values()], "mitigations": [*self.mitigations.items()]}
        for title, known in {"comparisons": self.networks, "mitigations": self.audited}.items():
            for name in {name for pair in pairs[title] for name in pair} - set(known):
                raise ValueError(f"{title}: expected names among {', '.join(known)}, found {name!r}")
        return self


class Study(NamedTuple):
    """One question of the ablations: its arms, what they change, and where both stand in `params.yaml`.

    arms: name to what it changes of `reference`; None: this data set cannot have that arm.
    """

    reference: Changes
    arms: dict[str, Changes | None]
    place_of_reference: str
    place: str


class AblationsParams(Section):
    """Trainings of an equal budget, each changing one thing of a reference.

    Claims rest on `paper_studies`, which have the paper's epochs and all faces; `studies` explore with a few.
    """

    seeds: tuple[int, ...] = Field(min_length=1)
    n_resamples: int = Field(ge=10)
    paper_reference: Changes
    paper_studies: dict[str, dict[str, Changes | None]]
    members: tuple[str, ...]  # arms of the study `ensemble` that vote together
    reference: Changes
    studies: dict[str, dict[str, Changes | None]]

    @model_validator(mode="after")
    def _check_names(self) -> "AblationsParams":
        for name in self.paper_studies.keys() & self.studies.keys():
            raise ValueError(f"studies: expected other names than in paper_studies, found {name!r} in both")
        return self

    def list_studies(self) -> dict[str, Study]:
        """Return every study by its name, those that claims rest on first."""
        return {
            name: Study(reference, arms, f"ablations.{prefix}reference", f"ablations.{prefix}studies.{name}")
            for prefix, reference, studies in (
                ("paper_", self.paper_reference, self.paper_studies),
                ("", self.reference, self.studies),
            )
            for name, arms in studies.items()
        }


class ReleaseParams(Section):
    """The networks of a release, and how they are adjusted.

    judged_by: what temperature and threshold fit, the labels or the annotators' majority.   adjustment_cost:
    the accuracy on validation that logit adjustment may cost; 0: none is made.   default: the variant that is
    taken unless another is named.   variants: name to one network, `<recipe>.float32` or `<recipe>.int8`, or
    to several that vote; each voter is a variant of its own too.
    """

    judged_by: Literal["label", "majority"]
    adjustment_cost: float = Fraction
    default: str
    variants: dict[str, tuple[str, ...]] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_names(self) -> "ReleaseParams":
        if self.default not in self.variants:
            raise ValueError(f"default: expected one of {', '.join(self.variants)}, found {self.default!r}")
        singles = {voters[0] for voters in self.variants.values() if len(voters) == 1}
        for voter in {voter for voters in self.variants.values() for voter in voters} - singles:
            raise ValueError(f"variants: expected {voter!r}, which votes, as a variant of its own too")
        return self
