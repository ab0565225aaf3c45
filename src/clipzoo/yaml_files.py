"""Read a YAML file in which every value has one meaning.

DVC reads YAML 1.2, PyYAML (used here) and many editors YAML 1.1. What the two versions read
differently is refused, and so is what both would silently drop or repeat: keys that are set twice,
and aliases. Only 5e-5 is left, text in PyYAML; `sections.Float` makes it the number that DVC reads.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from yaml.composer import ComposerError

from clipzoo.files import raise_all, read_text

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
"""A decimal number in either YAML; PyYAML takes 5e-5 for text and expects 5.0e-5."""


class ConfigError(ValueError):
    """A parameter is unknown, missing, of the wrong type or out of range."""


class _Loader(yaml.SafeLoader):
    """Refuses aliases: a few lines of them can stand for a list of 10 ** 9 values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise ComposerError(
                problem="found an alias (*name); write the value out", problem_mark=mark
            )
        return super().compose_node(parent, index)


def read_yaml(path: str | Path) -> object:
    """The content of a YAML file: mappings, lists and single values.

    Raises:
        ConfigError: the file cannot be read or is not YAML, or it has a key twice, an alias, or a
            value that is not finite or has two meanings; the message names the lines.
    """
    return parse_yaml(read_text(path, ConfigError), path)


def parse_yaml(text: str, where: str | Path) -> object:
    """The content of YAML text; raises ConfigError as `read_yaml`, naming `where`."""
    try:
        loader = _Loader(text)
        loader.name = str(where)  # in the messages
        node = loader.get_single_node()
        faults = [] if node is None else list(_faults(node, "", str(where)))
        if not faults:
            return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ConfigError(f"{where} is not YAML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{where}: lists or mappings are nested too deeply to read") from None
    if len(faults) == 1:
        raise ConfigError(faults[0])
    raise_all(f"{where}: {len(faults)} faults", faults, ConfigError)


def is_plain_text(text: str) -> bool:
    """Whether YAML reads `text` as text without quotes: no number, date, `true`, `null`, ..."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return False
    assert node is not None
    return value == text and not _two_meanings(node) and not NUMBER.fullmatch(text)


def _faults(node: yaml.Node, key: str, where: str) -> Iterator[str]:
    """What is wrong in a node and below it.

    Args:
        node: of the composed file.
        key: its dotted key; '' = the whole file.
        where: the file.
    """
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for name, value in node.value:
            inner = f"{key}.{name.value}" if key else str(name.value)
            at = name.start_mark.line + 1
            if isinstance(name, yaml.ScalarNode):
                if first := lines.get((name.tag, name.value)):
                    yield f"{where}:{at}: {inner}: set in line {first} too; keep one of the lines"
                lines[name.tag, name.value] = at
            yield from _faults(name, inner, where)
            yield from _faults(value, inner, where)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield from _faults(value, f"{key}[{position}]", where)
    elif allowed := _is_not_finite(node) or _two_meanings(node):
        yield f"{where}:{line}: {key}: found {node.value}; allowed: {allowed}"


def _is_not_finite(node: yaml.Node) -> str:
    """What to write instead of .inf and .nan; '' = the value is neither."""
    words = (".inf", "-.inf", "+.inf", ".nan")
    is_word = node.tag.endswith(":float") and node.value.lower() in words
    return "a finite number" if is_word else ""


def _two_meanings(node: yaml.Node) -> str:
    """What to write instead of a value that YAML 1.1 and 1.2 read differently; '' = they agree."""
    if not isinstance(node, yaml.ScalarNode) or node.style:  # text in quotes has one meaning
        return ""
    text, kind = node.value, node.tag.rpartition(":")[2]
    if kind == "bool" and text.lower() not in ("true", "false"):
        return f"true or false, or '{text}' in quotes for text"
    if kind in ("int", "float") and ":" in text:
        return f"a plain number (one YAML reads base 60), or '{text}' in quotes for text"
    if re.fullmatch(r"[-+]?0[0-9_]+|0o[0-7]+", text):
        return f"a number without leading zeros (one YAML reads base 8), or '{text}' for text"
    return ""
