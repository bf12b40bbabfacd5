import pytest
import yaml

from fer_lib.errors import ParamsError
from fer_lib.params import load_params, read_params_file


@pytest.fixture
def write_params(tmp_path):
    """Return a function that writes the project's parameters after a change, and returns the path."""

    def write(change):
        content = read_params_file()
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


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["training"].update(learning_rate=0.1), "training.learning_rate"),
        (lambda c: c["training"].update(lr=-1), "training.lr"),
        (lambda c: c["training"].update(loss="hinge"), "training.loss"),
        (lambda c: c["training"].pop("epochs"), "training.epochs"),
        (lambda c: c["datasets"]["demo"].update(trainning={}), "trainning"),
        (lambda c: c["datasets"]["demo"]["prepare"].update(n_classes=9), "prepare.n_classes"),
        (lambda c: c.update(extra={}), "extra"),
    ],
)
def test_error_names_the_key_and_the_file_in_one_line(write_params, change, named):
    path = write_params(change)
    with pytest.raises(ParamsError) as caught:
        load_params("demo", path=path)
    message = str(caught.value)
    assert named in message
    assert str(path) in message
    assert "\n" not in message


def test_unknown_data_set_is_told_with_the_known_ones():
    with pytest.raises(ParamsError, match=r"'nope'.*demo"):
        load_params("nope")


def test_missing_and_malformed_files_are_one_line(tmp_path):
    with pytest.raises(ParamsError, match="not found"):
        read_params_file(tmp_path / "none.yaml")
    path = tmp_path / "params.yaml"
    path.write_text("a: [1,\n b: 2")
    with pytest.raises(ParamsError, match="not valid YAML") as caught:
        read_params_file(path)
    assert "\n" not in str(caught.value)
    path.write_text("just text")
    with pytest.raises(ParamsError, match="mapping"):
        read_params_file(path)
