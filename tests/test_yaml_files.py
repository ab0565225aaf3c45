"""YAML files: what two readers understand differently, or one drops silently, is refused."""

import pytest
import yaml
from ruamel.yaml import YAML

from clipzoo.yaml_files import ConfigError, is_plain_text, read_yaml


def read(tmp_path, text: str) -> object:
    path = tmp_path / "some.yaml"
    path.write_text(text)
    return read_yaml(path)


@pytest.mark.parametrize(
    ("written", "one", "other"),
    [
        ("010", 8, 10),
        ("-010", -8, -10),
        ("008", "008", 8),
        ("0o17", "0o17", 15),
        ("1:30", 90, "1:30"),
        ("1:30.5", 90.5, "1:30.5"),
        ("yes", True, "yes"),
        ("OFF", False, "OFF"),
    ],
)
def test_a_value_that_two_readers_understand_differently_is_refused(tmp_path, written, one, other):
    """PyYAML reads one, DVC's reader the other."""
    text = f"a:\n  b:\n  - 1\n  - {written}\n"
    assert yaml.safe_load(text)["a"]["b"][1] == one
    assert YAML(typ="safe", pure=True).load(text)["a"]["b"][1] == other
    with pytest.raises(ConfigError, match=r"some\.yaml:4: a\.b\[1\]: found ") as error:
        read(tmp_path, text)
    assert f"found {written};" in str(error.value)
    assert f"'{written}'" in str(error.value)  # how to write it as text
    assert read(tmp_path, f"a: '{written}'") == {"a": written}
    assert not is_plain_text(written)


@pytest.mark.parametrize("written", ["10", "0", "-3", "0.5", "00.5", "0x10", "true", "null", "a:b"])
def test_a_value_with_one_meaning_is_read(tmp_path, written):
    expected = YAML(typ="safe", pure=True).load(written)
    assert read(tmp_path, f"a: {written}") == {"a": expected}
    assert type(expected) is type(yaml.safe_load(written))


@pytest.mark.parametrize("written", [".inf", "-.Inf", ".NaN"])
def test_a_number_that_is_not_finite_is_refused(tmp_path, written):
    with pytest.raises(ConfigError, match=rf"some\.yaml:2: b: found {written}; allowed: a finite"):
        read(tmp_path, f"a: 1\nb: {written}\n")


def test_a_key_that_is_set_twice_is_named_with_both_lines(tmp_path):
    text = "a:\n  lr: 1\n  x: {b: 1, b: 2}\n\n  lr: 2\nb: 1\na: 3\n"
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    lines = [line.partition("some.yaml")[2] for line in str(error.value).splitlines()]
    assert [line.partition("; ")[0] for line in lines] == [
        ": 3 faults",
        ":3: a.x.b: set in line 3 too",
        ":5: a.lr: set in line 2 too",
        ":7: a: set in line 1 too",
    ]


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
        ("? [1]\n: 2", r"is not YAML.*unhashable"),
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
        map(is_plain_text, ["2024", "1e5", "5e-5", "true", "2024-01-01", "null", "a: b"])
    )
