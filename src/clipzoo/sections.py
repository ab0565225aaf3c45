"""Sections of YAML and JSON files as frozen pydantic models, and errors that say what to change.

Unknown, missing and mistyped keys are errors that name the key and the allowed values; all errors
of a file are reported at once.
"""

import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from clipzoo.files import near
from clipzoo.yaml_files import ConfigError

SHOWN_CHARACTERS = 200
"""Most characters of a wrong value that an error shows."""


class Section(BaseModel):
    """A mapping in a file: frozen, with exactly the declared keys and types.

    A validator of one value raises ValueError with the text for what is allowed; a validator of
    several values calls `require`. `build` composes the message.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,  # an error on a missing key says what the key is
    )

    @classmethod
    def keys(cls) -> list[str]:
        """The keys that a file may have."""
        return list(fields(cls))


SectionType = TypeVar("SectionType", bound=Section)


def require(*checks: tuple[bool, str, object, str]) -> None:
    """For a model validator: each check is (ok, key in this section, its value, what is allowed).

    Raises:
        ConfigError: one line for each check that failed.
    """
    lines = [_fault(key, value, allowed) for ok, key, value, allowed in checks if not ok]
    if lines:
        raise ConfigError("\n".join(lines))


def _fault(key: str, value: object, allowed: str) -> str:
    try:
        found = repr(value)
    except ValueError:
        found = "a number of thousands of digits"  # Python refuses to print it
    found = found if len(found) <= SHOWN_CHARACTERS else f"{found[:SHOWN_CHARACTERS]}..."
    return f"{key}: found {found}; allowed: {allowed}"


NoneWord = BeforeValidator(lambda value: "None" if value is None else value)
"""For a choice of words that includes `None`: YAML's null means that word."""


def build(
    cls: type[SectionType], values: object, where: str | Path, key: str = "", *, again: str = ""
) -> SectionType:
    """Validate a mapping as the section `cls`.

    Args:
        cls: the model.
        values: the mapping, as parsed from YAML.
        where: the file, for messages.
        key: dotted key of the mapping in that file; '' = the mapping is the whole file.
        again: for a file that a stage wrote, the command that writes it again; it ends the message.

    Raises:
        ConfigError: names `where` and every fault: its key, the value and what is allowed.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        faults = list(_describe(cls, error.errors(include_url=False), (key,) if key else ()))
    text = faults[0] if len(faults) == 1 else "\n  ".join([f"{len(faults)} faults", *faults])
    if again:
        older = all(fault.startswith("missing key") for fault in faults)
        text += f"; {'written by an older version' if older else 'damaged or changed'}: {again}"
    raise ConfigError(f"{where}: {text}") from None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping with dotted keys: {"train": {"lr": 1}} -> {"train.lr": 1}."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


# Below: pydantic's errors in the words of people who edit files.

_ALLOWED = {
    "invalid_key": "keys that are text",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "tuple_type": "a list of values",
    "too_short": "one value or more",
    "string_too_short": "some text",
}
"""pydantic's type of error -> what is allowed, where its own message speaks of Python's types."""

Location = tuple[int | str, ...]


def _describe(cls: type[Section], errors: list[ErrorDetails], start: Location) -> Iterator[str]:
    """The faults of a mapping, one line or more for each error, in the order of the keys."""
    unknown = {error["loc"] for error in errors if error["type"] == "extra_forbidden"}
    for error in errors:
        kind, location, raised = error["type"], error["loc"], error.get("ctx", {}).get("error")
        key, value = _dotted(start + location), error["input"]
        if kind == "extra_forbidden":
            keys = _section(cls, location[:-1]).keys()
            yield f"unknown key {key}; allowed: {', '.join(keys)}{near(location[-1], keys)}"
        elif location in unknown:
            pass  # the content of an unknown key does not matter
        elif kind == "missing" and isinstance(location[-1], int):  # of a list of fixed length
            yield f"missing value {key}"
        elif kind == "missing":
            meaning = fields(_section(cls, location[:-1]))[str(location[-1])].description
            yield f"missing key {key}" + (f" ({' '.join(meaning.split())})" if meaning else "")
        elif isinstance(raised, ConfigError):  # by `require`
            prefix = f"{key}." if start + location else ""
            yield from (prefix + line for line in str(raised).splitlines())
        elif raised is not None:
            yield _fault(key, value, str(raised))
        else:
            allowed = _ALLOWED.get(kind) or error["msg"].removeprefix("Input should be ")
            words = re.findall(r"'(.+?)'", allowed) if kind == "literal_error" else []
            yield _fault(key, value, allowed + near(value, words))


def _dotted(location: Location) -> str:
    """("published", 0, "metric") -> published[0].metric."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    text = text.removeprefix(".")[:SHOWN_CHARACTERS]
    return (text if text.isprintable() else repr(text)) or "the file"


def fields(cls: type[Section]) -> dict[str, FieldInfo]:
    """The declared fields of a section by their keys in a file."""
    return {field.alias or name: field for name, field in cls.model_fields.items()}


def _section(cls: type[Section], location: Location) -> type[Section]:
    """The model of the mapping at a location."""
    kind: Any = cls
    for part in location:
        if typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        elif isinstance(part, str):
            kind = fields(_innermost(kind))[part].annotation
    return _innermost(kind)


def _innermost(kind: Any) -> type[Section]:
    """The model in a type such as list[Published]."""
    while not isinstance(kind, type) or not issubclass(kind, Section):
        kind = typing.get_args(kind)[0]
    return kind
