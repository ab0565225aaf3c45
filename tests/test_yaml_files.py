"""YAML files: what two readers understand differently, or one drops silently, is refused."""

import pytest
import yaml
from dvc.utils.serialize._yaml import loads_yaml

from clipzoo.yaml_files import ConfigError, is_plain_text, read_yaml


def read(tmp_path, text: str) -> object:
    path = tmp_path / "some.yaml"
    path.write_text(text)
    return read_yaml(path)


@pytest.mark.parametrize(
    ("written", "value", "older"),
    [
        ("010", 10, 8),
        ("-010", -10, -8),
        ("008", 8, "008"),
        ("0o17", 15, "0o17"),
        ("1:30", "1:30", 90),
        ("1:30.5", "1:30.5", 90.5),
        ("yes", "yes", True),
        ("OFF", "OFF", False),
        ("5e-5", 5e-5, "5e-5"),
    ],
)
def test_a_value_has_the_meaning_that_it_has_for_dvc(tmp_path, written, value, older):
    """PyYAML, which reads an older YAML, sees something else."""
    text = f"a:\n  b:\n  - 1\n  - {written}\n"
    assert yaml.safe_load(text)["a"]["b"][1] == older
    assert read(tmp_path, text) == loads_yaml(text) == {"a": {"b": [1, value]}}
    assert read(tmp_path, f"a: '{written}'") == {"a": written}
    assert is_plain_text(written) == isinstance(value, str)


def test_a_key_that_is_set_twice_is_named_with_its_line(tmp_path):
    text = "a:\n  lr: 1\n\n  lr: 2\nb: 1\n"
    with pytest.raises(ConfigError, match=r'(?s)duplicate key "lr".*some\.yaml", line 4') as error:
        read(tmp_path, text)
    assert "suppress" not in str(error.value)


def test_an_alias_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r'(?s)some\.yaml.*alias.*some\.yaml", line 2, column 5'):
        read(tmp_path, "a: &a [1, 1]\nb: [*a, *a]\nc: [*b, *b]\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 1000, "nested too deeply"),
        (f"a: {'9' * 5000}", "is not YAML: Exceeds the limit"),
        ("a: !!int x", "is not YAML: invalid literal"),
        ("a: !!python/name:os.system", "is not YAML: could not determine a constructor"),
        ("a: 2024-99-99", "is not YAML: month"),
        ("a: \0", r"is not YAML.*#x0000"),
        ("a: 1\n---\na: 2", r"is not YAML.*single document"),
    ],
)
def test_a_broken_file_is_one_error(tmp_path, text, message):
    with pytest.raises(ConfigError, match=rf"(?s)some\.yaml:? .*{message}"):
        read(tmp_path, text)


def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match=r"latin\.yaml: is not UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_yaml(tmp_path / "none.yaml")


def test_text_that_needs_no_quotes():
    assert is_plain_text("my_videos-2.x")
    assert not any(
        map(is_plain_text, ["2024", "1e5", "5e-5", "true", "2024-01-01", "null", "a: b", "*a"])
    )
