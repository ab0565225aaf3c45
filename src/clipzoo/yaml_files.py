"""Read a YAML file as DVC reads it.

DVC reads YAML 1.2, with ruamel.yaml, and so do we: one value never has two meanings. PyYAML reads
YAML 1.1, in which `yes` is true, 010 is 8, 1:30 is 90 and 5e-5 is text.
"""

import copy
import functools
from pathlib import Path

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import Node

from clipzoo.files import read_text


class ConfigError(ValueError):
    """A parameter is unknown, missing, of the wrong type or out of range."""


class _Composer(Composer):
    """Refuses aliases: a few lines of them can stand for a list of 10 ** 9 values."""

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.parser.check_event(AliasEvent):
            raise ComposerError(
                problem="found an alias (*name); write the value out",
                problem_mark=self.parser.peek_event().start_mark,
            )
        return super().compose_node(parent, index)


def read_yaml(path: str | Path) -> object:
    """The content of a YAML file: mappings, lists and single values.

    Raises:
        ConfigError: the file cannot be read or is not YAML, or it has a key twice or an alias; the
            message names the lines.
    """
    return parse_yaml(read_text(path, ConfigError), path)


def parse_yaml(text: str, where: str | Path) -> object:
    """The content of YAML text; raises ConfigError as `read_yaml`, naming `where`."""
    return copy.deepcopy(_parsed(text, where))


@functools.lru_cache(maxsize=1000)  # many recipes start from the same one, and each read takes 8 ms
def _parsed(text: str, where: str | Path) -> object:
    reader = YAML(typ="safe", pure=True)
    reader.Composer = _Composer
    try:
        return reader.load(text)
    except (YAMLError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n\nTo suppress")[0]  # ruamel's advice on repeated keys
        reason = reason.replace("<unicode string>", str(where))
        raise ConfigError(f"{where} is not YAML: {reason}") from error
    except RecursionError:
        raise ConfigError(f"{where}: lists or mappings are nested too deeply to read") from None


def is_plain_text(text: str) -> bool:
    """Whether YAML reads `text` as text without quotes: no number, date, `true`, `null`, ..."""
    try:
        return parse_yaml(text, "text") == text
    except ConfigError:
        return False
