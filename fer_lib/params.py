"""Typed parameters. An unknown or out-of-range key fails with its name and file."""

from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fer_lib.errors import ParamsError
from fer_lib.labels import EMOTIONS_8, normalise_emotion
from fer_lib.params_file import read_sections
from fer_lib.paths import PARAMS_FILE

Model = TypeVar("Model", bound=BaseModel)

Fraction = Field(ge=0.0, lt=1.0)


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PrepareParams(Section):
    """How raw faces are packed."""

    size: int = Field(ge=16, le=512)
    channels: Literal[1, 3]
    n_classes: Literal[7, 8]
    val_fraction: float = Fraction
    test_fraction: float = Fraction
    n_faces: int = Field(ge=0)
    skip_bad: bool
    classes: dict[str, str | None]
    seed: int = Field(ge=0)

    @field_validator("classes", mode="before")
    @classmethod
    def _name_classes(cls, classes: Any) -> Any:
        """Take the names of emotions in any spelling, and numbers for folders: YAML reads `1` as one."""
        if not isinstance(classes, dict):
            return classes
        try:
            return {
                str(name): emotion and normalise_emotion(str(emotion)) for name, emotion in classes.items()
            }
        except KeyError as error:
            raise ValueError(
                f"expected one of {', '.join(EMOTIONS_8)} or null, found {error}; correct it"
            ) from None


class DataAuditParams(Section):
    """Thresholds of the data audit."""

    near_duplicate_correlation: float = Field(gt=0.5, lt=1.0)
    blank_std: float = Field(ge=0.0)
    mean_face_similarity: float = Field(ge=-1.0, le=1.0)
    min_faces_per_mean: int = Field(ge=2)
    n_resamples: int = Field(ge=10)
    seed: int = Field(ge=0)


class AugmentationParams(Section):
    """Ranges of the random transforms; 0 turns one off."""

    rotation_degrees: float = Field(ge=0.0, le=180.0)
    scale: float = Fraction
    shift: float = Fraction
    aspect: float = Fraction
    flip_probability: float = Field(ge=0.0, le=1.0)
    brightness: float = Fraction
    contrast: float = Fraction
    gamma: float = Field(ge=0.0, le=4.0)
    lighting: float = Field(ge=0.0, le=0.2)  # as far as albumentations goes
    downscale: float = Fraction
    erasing_probability: float = Field(ge=0.0, le=1.0)
    seed: int = Field(ge=0)


class TargetShares(Section):
    """What a face is trained towards: a mixture of four distributions over the emotions."""

    label: float = Field(default=0.0, ge=0.0, le=1.0)  # one-hot, the data set's own
    majority: float = Field(default=0.0, ge=0.0, le=1.0)  # one-hot, the emotion with most votes (FER+)
    votes: float = Field(default=0.0, ge=0.0, le=1.0)  # the share of votes for each emotion (FER+)
    teacher: float = Field(default=0.0, ge=0.0, le=1.0)  # the mean of the teachers' probabilities

    @model_validator(mode="after")
    def _check_sum(self) -> "TargetShares":
        total = self.label + self.majority + self.votes + self.teacher
        if abs(total - 1) > 1e-6:
            raise ValueError(f"expected shares that sum to 1, found {total:g}")
        return self


class TrainingParams(Section):
    """The training recipe."""

    architecture: str
    weights: Literal["package", "hub", "file", "none"]
    weights_file: Path | None
    head: Literal["flat", "hierarchical"]
    head_epochs: int = Field(ge=0)
    image_size: int = Field(ge=32, le=512)
    first_image_size: int | None = Field(ge=32, le=512)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    lr: float = Field(gt=0.0)
    layer_decay: float = Field(gt=0.0, le=1.0)
    schedule: Literal["constant", "cosine"]
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0.0)
    dropout: float = Fraction
    targets: TargetShares
    teachers: tuple[Path, ...]
    macs: float = Field(gt=0.0, le=1.0)
    loss: str  # a name in training.optim.LOSSES, which is checked when a training starts
    focal_gamma: float = Field(ge=0.0)
    label_smoothing: float = Fraction
    mixup: float = Field(ge=0.0)
    drop_duplicates: bool
    train_fraction: float = Field(gt=0.0, le=1.0)
    sampler: Literal["weighted", "shuffle"]
    balance: str | None
    ema_decay: float = Fraction
    patience: int = Field(ge=1)
    precision: Literal["auto", "float32", "bfloat16"]
    seed: int = Field(ge=0)


class EnsembleParams(Section):
    """Which recipes' soft vote teaches the student."""

    members: tuple[str, ...] = Field(min_length=1)


class EvaluationParams(Section):
    """Which networks are scored, and how."""

    networks: tuple[str, ...] = Field(min_length=1)
    batch_size: int = Field(ge=1)
    n_resamples: int = Field(ge=10)
    seed: int = Field(ge=0)


class Changes(Section):
    """What one training changes of the sections `training` and `augmentation`."""

    training: dict[str, Any] = {}
    augmentation: dict[str, Any] = {}


class Recipe(Changes):
    """A training of its own.

    start: the recipe (or `baseline`) whose trained body it starts from.   teachers: whose probabilities have
    the share `targets.teacher`: recipes (or `baseline`), or `ensemble`, the vote of `ensemble.members`.
    """

    start: str | None = None
    teachers: tuple[str, ...] = ()


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

    Claims rest on `paper_studies`, which have the paper's budget; `studies` explore with a small one.
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


class Params(Section):
    """Everything one data set's run needs, overrides applied."""

    prepare: PrepareParams
    data_audit: DataAuditParams
    augmentation: AugmentationParams
    training: TrainingParams
    recipes: dict[str, Recipe]
    ensemble: EnsembleParams
    evaluation: EvaluationParams
    ablations: AblationsParams
    compression: CompressionParams
    gradcam: GradcamParams
    robustness: RobustnessParams
    releases: dict[str, ReleaseParams]


def load_params(dataset: str, smoke: bool = False, path: Path = PARAMS_FILE) -> Params:
    """Return the parameters of `dataset`: the sections, then its overrides, then `smoke`'s if asked for.

    Raises ParamsError, in one line, for an unknown data set or key and for a value out of range.
    """
    sections = read_sections(Params.model_fields, dataset, smoke, path)
    # null: this data set can have no such recipe.
    sections["recipes"] = {name: recipe for name, recipe in sections["recipes"].items() if recipe is not None}
    params = validate(Params, sections, str(path))
    for name in params.ensemble.members:
        find_recipe(params, name, f"{path}: ensemble.members")
    for name, recipe in params.recipes.items():
        shares = apply_recipe(params, recipe, f"{path}: recipes.{name}").training.targets
        if bool(recipe.teachers) != (shares.teacher > 0):
            raise ParamsError(
                f"{path}: recipes.{name}: expected `teachers` and a share `targets.teacher` above 0, or "
                f"neither; found {', '.join(recipe.teachers) or 'no teachers'} and {shares.teacher:g}"
            )
    for study in params.ablations.list_studies().values():
        plain = apply_recipe(params, study.reference, f"{path}: {study.place_of_reference}")
        for arm, changes in study.arms.items():
            apply_recipe(plain, changes or Changes(), f"{path}: {study.place}.{arm}")
    arms = params.ablations.paper_studies.get("ensemble", {})
    voters = [arm for arm, changes in arms.items() if changes is not None]
    for name in params.ablations.members:
        if name not in voters:
            known = ", ".join(voters) or "none"
            raise ParamsError(f"{path}: ablations.members: no arm {name!r} in `ensemble`; known: {known}")
    return params


def apply_recipe(params: Params, recipe: Changes, where: str = "recipe") -> Params:
    """Return `params` with the changes. Raises ParamsError for a key or value that cannot be."""
    training = params.training.model_dump() | recipe.training
    augmentation = params.augmentation.model_dump() | recipe.augmentation
    sections = {
        "training": validate(TrainingParams, training, f"{where}.training"),
        "augmentation": validate(AugmentationParams, augmentation, f"{where}.augmentation"),
    }
    return params.model_copy(update=sections)


def find_recipe(params: Params, name: str, where: str = f"{PARAMS_FILE}: recipes") -> Recipe:
    """Return a recipe by its name. Raises ParamsError that names `where` and those there are."""
    if name not in params.recipes:
        known = ", ".join(params.recipes) or "none"
        raise ParamsError(f"{where}: no {name!r}; known: {known}")
    return params.recipes[name]


def validate(kind: type[Model], values: dict[str, Any], where: str) -> Model:
    """Return `values` as a `kind`. Raises ParamsError, in one line, that names `where` and the key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key, found = ".".join(map(str, first["loc"])), shorten(repr(first["input"]), 60)
        message = f"{first['msg']} (found {found})"
        if first["type"] == "value_error":  # our own, which say what they found
            message = first["msg"].removeprefix("Value error, ")
        elif first["type"] == "extra_forbidden":
            message = f"expected a setting that there is, found this one with {found}; correct its name"
        raise ParamsError(f"{where}: {key}: {message}") from None
