"""Sections of YAML files as frozen pydantic models, and errors that say what to change.

Unknown, missing and mistyped keys are errors that name the key and the allowed values; all errors
of a file are reported at once.
"""

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from clipzoo.files import near
from clipzoo.yaml_files import NUMBER, ConfigError

SHOWN_CHARACTERS = 200
"""Most characters of a wrong value that an error shows."""


class Section(BaseModel):
    """A mapping in a YAML file: frozen, with exactly the declared keys and types.

    A validator of one value raises ValueError with the text for what is allowed; a validator of
    several values calls `require`. `build` composes the message.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @classmethod
    def keys(cls) -> list[str]:
        """The keys that a file may have."""
        return list(cls.model_fields)


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


def _read_number(value: object) -> object:
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value) else value


def _read_none(value: object) -> object:
    return "None" if value is None else value


Float = Annotated[float, BeforeValidator(_read_number)]
"""A finite float; also an int, or text such as 5e-5."""
NoneWord = BeforeValidator(_read_none)
"""For a choice of words that includes `None`: YAML's null means that word."""


def build(
    cls: type[SectionType], values: object, where: str | Path, key: str = "", *, again: str = ""
) -> SectionType:
    """Validate a mapping as the section `cls`.

    Args:
        cls: the model.
        values: the mapping, as parsed from YAML.
        where: the file, for messages.
        key: of the mapping in that file, dotted; '' = the mapping is the whole file.
        again: for a file that a stage wrote: what writes it again, at the end of the message.

    Raises:
        ConfigError: names `where` and every fault: its key, the value and what is allowed.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        faults = _describe(cls, error.errors(include_url=False), (key,) if key else ())
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


# Below: pydantic's errors in our words.

_TYPES = {
    "int_type": "a value of type int",
    "float_type": "a value of type float",
    "string_type": "a value of type str",
    "bool_type": "a value of type bool",
    "finite_number": "a finite number",
    "invalid_key": "keys that are text",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "too_short": "one value or more",
    "string_too_short": "some text",
    "greater_than": "above {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "below {lt}",
    "less_than_equal": "{le} or less",
    "multiple_of": "a multiple of {multiple_of}",
}
"""pydantic's type of error -> what is allowed; `{}` stands for limits from its context."""

Location = tuple[int | str, ...]


def _describe(cls: type[Section], errors: list[ErrorDetails], start: Location) -> list[str]:
    """The faults of a mapping, one line each, in the order of the declared keys."""
    unknown = {error["loc"] for error in errors if error["type"] == "extra_forbidden"}
    lines = []
    for error in errors:
        kind, location, context = error["type"], error["loc"], error.get("ctx", {})
        key, value = _dotted(start + location), error["input"]
        if kind == "extra_forbidden":
            lines.append(_unknown_key(cls, location, key))
        elif location in unknown:
            pass  # the content of an unknown key does not matter
        elif kind == "missing":
            lines.append(f"missing key {key} ({_type_name(_annotation(cls, location))})")
        elif kind == "literal_error":
            choices = _choices(_annotation(cls, location))
            allowed = ", ".join(map(str, choices)) + near(value, choices)
            lines.append(_fault(key, value, allowed))
        elif isinstance(context.get("error"), ConfigError):  # raised by `require`
            prefix = f"{key}." if start + location else ""
            lines += [prefix + line for line in str(context["error"]).splitlines()]
        elif kind == "value_error":
            lines.append(_fault(key, value, str(context["error"])))
        else:
            limits = {name: _plain(limit) for name, limit in context.items()}
            allowed = _TYPES[kind].format(**limits) if kind in _TYPES else error["msg"]
            lines.append(_fault(key, value, allowed))
    return lines


def _plain(limit: object) -> object:
    """A limit as one writes it: 1 for 1.0."""
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def _dotted(location: Location) -> str:
    """("published", 0, "metric") -> published[0].metric."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    text = text.removeprefix(".")[:SHOWN_CHARACTERS]
    return (text if text.isprintable() else repr(text)) or "the file"


def _unknown_key(cls: type[Section], location: Location, key: str) -> str:
    allowed = _section(_annotation(cls, location[:-1])).keys()
    return f"unknown key {key}; allowed: {', '.join(allowed)}{near(location[-1], allowed)}"


def _annotation(cls: type[Section], location: Location) -> Any:
    """The declared type of the value at a location (of the list, for an item of one)."""
    kind: Any = cls
    for part in location:
        if typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        elif isinstance(part, str):
            fields = _section(kind).model_fields
            kind = {field.alias or name: field for name, field in fields.items()}[part].annotation
    return kind


def _section(kind: Any) -> type[Section]:
    """The model in a type such as list[Published]."""
    while not isinstance(kind, type) or not issubclass(kind, Section):
        kind = typing.get_args(kind)[0]
    return kind


def _choices(kind: Any) -> tuple[Any, ...]:
    """The words of a type such as list[Literal["full", "half"]]."""
    while typing.get_origin(kind) is not Literal:
        kind = typing.get_args(kind)[0]
    return typing.get_args(kind)


def _type_name(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Section):
        return "a mapping"
    if typing.get_origin(kind) is Literal:
        return " | ".join(map(str, typing.get_args(kind)))
    return getattr(kind, "__name__", str(kind))
