"""params.yaml: every wrong key or value is refused with a message that says what to do."""

import shutil
from pathlib import Path

import pytest
from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from clipzoo.config import ConfigError, load_params

ROOT = Path(__file__).parent.parent


def changed(tmp_path: Path, key: str, value: object, *, delete: bool = False) -> Path:
    """A copy of params.yaml in which one dotted key is set or deleted."""
    yaml = YAML()
    values = yaml.load(ROOT / "params.yaml")
    *sections, last = key.split(".")
    section = values
    for name in sections:
        section = section[name]
    if delete:
        del section[last]
    else:
        section[last] = value
    path = tmp_path / "params.yaml"
    yaml.dump(values, path)
    return path


def test_params_of_the_repository_load():
    params = load_params(ROOT / "params.yaml")
    assert params.data.dataset in params.data.datasets
    assert params.train.eps == 1e-8


@pytest.mark.parametrize("written", [5e-5, "5e-5", "5e-05", "5.0e-5"])
def test_every_written_form_of_a_float_is_a_float(tmp_path, written):
    path = changed(tmp_path, "train.lr", written)
    assert load_params(path).train.lr == 5e-5


def test_an_integer_is_accepted_where_a_float_stands(tmp_path):
    value = load_params(changed(tmp_path, "train.grad_clip", 1)).train.grad_clip
    assert value == 1.0
    assert isinstance(value, float)


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("train.learning_rate", 1, ["unknown key train.learning_rate", "allowed", "lr"]),
        ("train.epoch", 1, ["unknown key train.epoch", "did you mean epochs"]),
        ("modle", {}, ["unknown key modle", "did you mean model"]),
        ("train.epochs", "ten", ["train.epochs", "'ten'", "int"]),
        ("train.epochs", 1.5, ["train.epochs", "1.5", "int"]),
        ("train.epochs", True, ["train.epochs", "True", "int"]),
        ("train.epochs", -1, ["train.epochs", "-1", "0 or more"]),
        ("train.lr", "fast", ["train.lr", "'fast'", "float"]),
        ("train.precision", "fp8", ["train.precision", "fp16", "bf16"]),
        ("model.head", "Transformer", ["model.head", "Transf", "did you mean Transf"]),
        ("data.datasets", "demo_shapes", ["data.datasets", "a list"]),
        ("data.dataset", "k400", ["data.dataset", "k400", "demo_shapes"]),
        ("data.shots", 3, ["data.shots", "3", "16"]),
        ("test.crops", 2, ["test.crops", "2", "10"]),
        ("frames.size", 256, ["frames.size", "256", "str"]),
        ("frames.size", "big", ["frames.size", "'340x256'"]),
        ("text.templates", ["no place"], ["text.templates", "no place", "{}"]),
        ("augment", 3, ["augment", "mapping"]),
        ("recipe", "../out", ["recipe", "../out"]),
    ],
)
def test_a_wrong_value_is_named(tmp_path, key, value, parts):
    path = changed(tmp_path, key, value)
    with pytest.raises(ConfigError) as error:
        load_params(path)
    for part in [str(path), *parts]:
        assert part in str(error.value)


def test_a_missing_key_is_named(tmp_path):
    path = changed(tmp_path, "train.lr", None, delete=True)
    with pytest.raises(ConfigError, match=r"missing key train\.lr \(float\)"):
        load_params(path)


def test_a_file_that_is_not_yaml_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("a: [1, 2\nb: }")
    with pytest.raises(ConfigError, match=r"(?s)params\.yaml is not YAML.*line 2"):
        load_params(path)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_params(tmp_path / "params.yaml")


def test_dvc_changes_one_line_for_one_value(tmp_path):
    """`dvc exp run -S` keeps comments and form, because params.yaml is in the form DVC writes."""
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    before = path.read_text().splitlines()
    with modify_yaml(path) as values:
        values["train"]["epochs"] = 77
    after = path.read_text().splitlines()
    differing = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert [b.split() for _, b in differing] == [["epochs:", "77"]]
