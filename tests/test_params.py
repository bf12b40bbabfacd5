import json
import shutil

import pytest
import yaml
from dvc.utils.hydra import apply_overrides  # what `dvc exp run --set-param` does

from fer_lib.errors import ParamsError
from fer_lib.params import apply_recipe, find_recipe, load_params
from fer_lib.params_file import read_params_file
from fer_lib.paths import PARAMS_FILE


@pytest.fixture
def write_params(tmp_path):
    """Return a function that writes the project's parameters after a change, and returns the path."""

    def write(change):
        content = json.loads(json.dumps(read_params_file()))  # entries that share an anchor are apart now
        change(content)
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.mark.parametrize("dataset", read_params_file()["datasets"])
@pytest.mark.parametrize("smoke", [False, True])
def test_every_data_set_has_valid_parameters(dataset, smoke):
    load_params(dataset, smoke=smoke)


def test_override_reaches_one_data_set_only(write_params):
    path = write_params(lambda content: content["datasets"]["demo"]["training"].update(lr=0.5))
    assert load_params("demo", path=path).training.lr == 0.5
    assert load_params("fer2013", path=path).training.lr == load_params("fer2013").training.lr


def test_smoke_stands_above_the_data_set(write_params):
    def change(content):
        content["datasets"]["demo"]["training"] = {"epochs": 7}
        content["smoke"]["training"] = {"epochs": 1}

    path = write_params(change)
    assert load_params("demo", path=path).training.epochs == 7
    assert load_params("demo", smoke=True, path=path).training.epochs == 1


def get_arm(content, study, arm, kind="studies"):
    return content["ablations"][kind][study][arm]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["training"].update(learning_rate=0.1), "training.learning_rate"),
        (lambda c: c["training"].update(lr=-1), "training.lr"),
        (lambda c: c["training"].update(sampler="none"), "training.sampler"),
        (lambda c: c["training"].pop("epochs"), "training.epochs"),
        (lambda c: c["datasets"]["fer2013"].update(trainning={}), "trainning"),
        (lambda c: c["datasets"]["fer2013"]["prepare"].update(n_classes=9), "prepare.n_classes"),
        (lambda c: c.update(extra={}), "extra"),
        (lambda c: c["recipes"]["b0"].update(trainning={}), "recipes.b0.trainning"),
        (lambda c: c["recipes"]["b0"].update(start=["lite0"]), "recipes.b0.start"),
        (lambda c: c["datasets"]["fer2013"]["recipes"].update(b0=None), "ensemble.members: no 'b0'"),
        (
            lambda c: c["recipes"]["b0"]["training"].update(learning_rate=1),
            "recipes.b0.training: learning_rate",
        ),
        (lambda c: c["recipes"]["b0"]["augmentation"].update(flip=1), "recipes.b0.augmentation: flip"),
        (
            lambda c: c["recipes"]["student"]["training"].update(weight_decay=-1),
            "recipes.student.training: weight",
        ),
        (lambda c: c["datasets"]["fer2013"]["ablations"].update(seeds=[]), "ablations.seeds"),
        (
            lambda c: c["robustness"]["comparisons"].update(int8=["student.int4", "ensemble"]),
            "found 'student.int4'",
        ),
        (lambda c: c["robustness"].update(mitigations={"augmented": "none"}), "mitigations: expected names"),
        (lambda c: c["ablations"].update(members=["b0", "lite"]), "ablations.members: no arm 'lite'"),
        (
            lambda c: c["ablations"]["reference"]["training"].update(epoch=2),
            "ablations.reference.training: epoch",
        ),
        (
            lambda c: get_arm(c, "loss", "focal_2").update(trainning={}),
            "ablations.studies.loss.focal_2.trainning",
        ),
        (
            lambda c: get_arm(c, "loss", "focal_2")["training"].update(gamma=1),
            "ablations.studies.loss.focal_2.training: gamma",
        ),
        (
            lambda c: get_arm(c, "augmentation", "none")["augmentation"].update(flip_probability=2),
            "ablations.studies.augmentation.none.augmentation: flip_probability",
        ),
        (
            lambda c: c["datasets"]["fer2013"]["ablations"].update(
                studies={"loss": {"focal_2": {"training": {"lr": "x"}}}}
            ),
            "ablations.studies.loss.focal_2.training: lr",
        ),
        (
            lambda c: c["ablations"]["paper_reference"]["training"].update(lr=-1),
            "ablations.paper_reference.training: lr",
        ),
        (
            lambda c: get_arm(c, "paper", "cosine", "paper_studies")["training"].update(schedule="step"),
            "ablations.paper_studies.paper.cosine.training: schedule",
        ),
        (
            lambda c: c["ablations"]["studies"].update(paper={}),
            "ablations: studies: expected other names than in paper_studies, found 'paper'",
        ),
    ],
)
def test_error_names_the_key_and_the_file_in_one_line(write_params, change, named):
    path = write_params(change)
    with pytest.raises(ParamsError) as caught:
        load_params("fer2013", path=path)
    message = str(caught.value)
    assert named in message
    assert str(path) in message
    assert "\n" not in message


def test_recipe_changes_what_it_names_and_keeps_the_rest():
    params = load_params("demo")
    recipe = params.recipes["b0"]
    changed = apply_recipe(params, recipe)
    for name in ("training", "augmentation"):
        before, after = getattr(params, name).model_dump(), getattr(changed, name).model_dump()
        named = getattr(recipe, name)
        assert named
        assert after == before | named
    assert changed.prepare == params.prepare
    assert apply_recipe(params, params.ablations.studies["reference"]["reference"]) == params


def test_data_set_changes_a_part_of_a_recipe_and_keeps_the_rest(write_params):
    def change(content):
        content["datasets"]["demo"]["recipes"] = {"b0": {"training": {"epochs": 1}}}
        content["datasets"]["demo"]["ablations"] = {
            "reference": {"training": {"epochs": 1}},
            "studies": {"loss": {"focal_1": {"training": {"focal_gamma": 1.5}}}},
        }

    path = write_params(change)
    demo, other = (load_params(dataset, path=path) for dataset in ("demo", "affectnet"))
    assert other.recipes == load_params("affectnet").recipes
    b0, plain = demo.recipes["b0"], other.recipes["b0"]
    assert plain.training["epochs"] != 1
    assert b0.training == plain.training | {"epochs": 1}
    assert b0.augmentation == plain.augmentation
    assert demo.recipes["lite0"] == other.recipes["lite0"]
    assert demo.recipes["student"].start == "b0"
    assert demo.ablations.seeds == other.ablations.seeds
    assert demo.ablations.reference.training == other.ablations.reference.training | {"epochs": 1}
    changed, kept = (params.ablations.studies["loss"] for params in (demo, other))
    assert list(changed) == list(kept)
    assert changed["focal_1"].training == {"loss": "focal", "focal_gamma": 1.5}
    assert changed | {"focal_1": None} == kept | {"focal_1": None}


def test_studies_are_listed_with_their_reference_and_where_they_stand():
    ablations = load_params("fer2013").ablations
    studies = ablations.list_studies()
    assert list(studies) == [*ablations.paper_studies, *ablations.studies]
    paper, loss = studies["paper"], studies["loss"]
    assert (paper.reference, paper.arms) == (ablations.paper_reference, ablations.paper_studies["paper"])
    assert (paper.place_of_reference, paper.place) == (
        "ablations.paper_reference",
        "ablations.paper_studies.paper",
    )
    assert (loss.reference, loss.arms) == (ablations.reference, ablations.studies["loss"])
    assert (loss.place_of_reference, loss.place) == ("ablations.reference", "ablations.studies.loss")


def test_what_recipes_share_in_the_file_is_changed_for_one_alone(tmp_path):
    # YAML's anchors make two recipes hold the same mapping; it must not be changed in place.
    path = tmp_path / "params.yaml"
    before, own = PARAMS_FILE.read_text(), "b0: {training: {epochs: 7}"
    assert before.count(own) == 1
    path.write_text(before.replace(own, f"{own}, augmentation: {{scale: 0.5}}"))
    recipes, plain = load_params("fer2013", path=path).recipes, load_params("fer2013").recipes
    assert recipes["b0"].augmentation == plain["b0"].augmentation | {"scale": 0.5}
    assert recipes | {"b0": plain["b0"]} == plain


def list_numbers(content, *place):
    """Return the places of all numbers in a file's content, as `dvc exp run --set-param` names them."""
    if isinstance(content, dict):
        return [found for key, value in content.items() for found in list_numbers(value, *place, key)]
    return [".".join(map(str, place))] if type(content) in (int, float) else []


def test_experiment_changes_the_place_that_it_names_and_no_other(tmp_path):
    path = tmp_path / "params.yaml"
    shutil.copy(PARAMS_FILE, path)
    places = list_numbers(read_params_file())
    # Hydra reads no blank in a name, as in that of a machine.
    asked = {place: 1000 + number for number, place in enumerate(places) if " " not in place}
    assert len(asked) > 200
    # A mapping that stands in two places would have two values here, and DVC keeps one of them.
    apply_overrides(path, [f"{place}={value}" for place, value in asked.items()])
    changed = yaml.safe_load(path.read_text())
    for place, value in asked.items():
        found = changed
        for key in place.split("."):
            found = found[key]
        assert found == value, place


def test_arm_that_a_data_set_cannot_have_is_null_there_alone(write_params):
    path = write_params(
        lambda content: content["datasets"]["demo"].update(ablations={"studies": {"loss": {"focal_1": None}}})
    )
    demo, other = (
        load_params(dataset, path=path).ablations.studies["loss"] for dataset in ("demo", "fer2013")
    )
    assert demo["focal_1"] is None
    assert demo | {"focal_1": other["focal_1"]} == other


def test_recipe_that_a_data_set_cannot_have_is_null_there_alone(write_params):
    path = write_params(lambda content: content["datasets"]["fer2013"]["recipes"].update(tiny=None))
    plain = load_params("fer2013").recipes
    without = load_params("fer2013", path=path).recipes
    assert without == {name: recipe for name, recipe in plain.items() if name != "tiny"} != plain
    assert load_params("affectnet", path=path).recipes == load_params("affectnet").recipes


def test_unknown_recipe_is_told_with_the_known_ones():
    params = load_params("fer2013")
    assert find_recipe(params, "student") is params.recipes["student"]
    with pytest.raises(ParamsError, match=r"recipes: no 'b1'; known: b0, lite0, resnet18, student, "):
        find_recipe(params, "b1")
    with pytest.raises(ParamsError, match=r"no 'b0'; known: none$"):
        find_recipe(params.model_copy(update={"recipes": {}}), "b0")


def test_unknown_data_set_is_told_with_the_known_ones():
    with pytest.raises(ParamsError, match=r"'nope'.*demo"):
        load_params("nope")


def test_missing_and_malformed_files_are_one_line(tmp_path):
    with pytest.raises(ParamsError, match=r"none\.yaml: expected the parameters file, found none"):
        read_params_file(tmp_path / "none.yaml")
    path = tmp_path / "params.yaml"
    path.write_text("a: [1,\n b: 2")
    with pytest.raises(ParamsError, match="not valid YAML") as caught:
        read_params_file(path)
    assert "\n" not in str(caught.value)
    path.write_text("just text")
    with pytest.raises(ParamsError, match="mapping"):
        read_params_file(path)
