"""Seeded damages of files: bytes, lines, values, tensors and tables; and what is no file at all."""

import csv
import io
import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import yaml
from pyarrow import parquet
from safetensors.torch import load_file, save_file

from clipzoo.tensors import read_metadata

Damage = Callable[[Path, random.Random], object]
"""Damages the file at a path, in place."""

VALUES: list[Any] = [
    *(None, True, -1, 0, 10**30, 1e308, float("nan"), "", " ", "x", "a\nb", "\x1b[31mred", "\0"),
    *("x" * 100_000, "../../etc", "é" * 50, [], [None], {}, {"a": 1}, "2026-01-01", "1e400"),
    [[[[[]]]]],
]
"""What takes the place of a value."""


def bytes_damage(change: Callable[[bytes, random.Random], bytes]) -> Damage:
    def damage(path: Path, rng: random.Random) -> None:
        path.write_bytes(change(path.read_bytes(), rng))

    damage.__name__ = change.__name__
    return damage


def _place(content: bytes, rng: random.Random) -> int:
    return rng.randrange(len(content) + 1)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def flip(content: bytes, rng: random.Random) -> bytes:
    """One to eight bits, half of the time near the start, where headers are."""
    damaged = bytearray(content)
    end = rng.choice((len(content), min(len(content), 300)))
    for _ in range(rng.choice((1, 1, 8))):
        damaged[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def zeros(content: bytes, rng: random.Random) -> bytes:
    start, length = _place(content, rng), rng.choice((1, 16, 512, 4096))
    return (content[:start] + bytes(length) + content[start + length :])[: len(content)]


def drop(content: bytes, rng: random.Random) -> bytes:
    start = _place(content, rng)
    return content[:start] + content[start + rng.choice((1, 8, 512)) :]


def twice(content: bytes, rng: random.Random) -> bytes:
    start = _place(content, rng)
    return content[:start] + content[start : start + rng.choice((1, 64, 512))] + content[start:]


def append(content: bytes, rng: random.Random) -> bytes:
    return content + rng.choice((b"\0", b"\n\n", rng.randbytes(100), content))


BYTES = [
    bytes_damage(change) for change in (cut, cut, flip, flip, flip, zeros, drop, twice, append)
]


def lines_damage(change: Callable[[list[bytes], random.Random], None]) -> Damage:
    def damage(content: bytes, rng: random.Random) -> bytes:
        lines = content.splitlines(keepends=True)
        change(lines, rng)
        return b"".join(lines)

    damage.__name__ = change.__name__
    return bytes_damage(damage)


def _twice_a_line(lines: list[bytes], rng: random.Random) -> None:
    line = rng.choice(lines)
    lines.insert(rng.randrange(len(lines) + 1), line)


def _no_line(lines: list[bytes], rng: random.Random) -> None:
    del lines[rng.randrange(len(lines))]


def _swap_lines(lines: list[bytes], rng: random.Random) -> None:
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]


def encoded(content: bytes, rng: random.Random) -> bytes:
    """Another encoding, a byte order mark, or the line ends of other systems."""
    text = content.decode()
    return rng.choice(
        (
            text.encode("utf-16"),
            text.encode("utf-8-sig"),
            "é".encode("latin-1") + content,
            content.replace(b"\n", b"\r\n"),
            content.replace(b"\n", b"\r"),
        )
    )


def odd_character(content: bytes, rng: random.Random) -> bytes:
    start = _place(content, rng)
    new = rng.choice(("\0", "\x1b[2J", "\u202e", "\u200b", "\x85", "\u2028", '"', "\t", "\x7f"))
    return content[:start] + new.encode() + content[start:]


TEXT = [
    *BYTES[:7],
    *map(lines_damage, (_twice_a_line, _no_line, _swap_lines)),
    *map(bytes_damage, (encoded, encoded, odd_character, odd_character)),
]


def csv_value(path: Path, rng: random.Random) -> None:
    """Another value in one field of a file whose fields are separated by commas or spaces."""
    text = path.read_text()
    separator = "," if "," in text else " "
    rows = list(csv.reader(io.StringIO(text), delimiter=separator))
    row = rng.choice([row for row in rows if row])
    value = rng.choice(VALUES)
    row[rng.randrange(len(row))] = "" if value is None else str(value)
    file = io.StringIO()
    csv.writer(file, delimiter=separator, lineterminator="\n").writerows(rows)
    path.write_text(file.getvalue())


def changed_value(values: Any, rng: random.Random) -> Any:
    """A nested mapping or list in which one value, or one key, is another or is missing."""
    places: list[tuple[Any, Any]] = []

    def walk(part: Any) -> None:
        items = part.items() if isinstance(part, dict) else enumerate(part)
        for key, value in items:
            places.append((part, key))
            if isinstance(value, (dict, list)):
                walk(value)

    walk(values)
    if not places or rng.random() < 0.05:
        return rng.choice(VALUES)
    part, key = rng.choice(places)
    how = rng.random()
    if how < 0.7:
        part[key] = rng.choice(VALUES)
    elif how < 0.85 or isinstance(part, list):
        del part[key]
    else:
        part[rng.choice(("x", "", "\x1b[31m", f"{key} "))] = part.pop(key)
    return values


def yaml_value(path: Path, rng: random.Random) -> None:
    values = changed_value(yaml.safe_load(path.read_text()), rng)
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def json_value(path: Path, rng: random.Random) -> None:
    text = json.dumps(changed_value(json.loads(path.read_text()), rng), ensure_ascii=False)
    text = rng.choice((text, text, text, "[" * 100_000, text[:-1] + ', "x": 1e999}'))
    path.write_text(text)


def changed_text(text: str, rng: random.Random) -> str:
    """Metadata: JSON with another value, or other text."""
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if isinstance(values, (dict, list)) and rng.random() < 0.7:
        return json.dumps(changed_value(values, rng))
    return str(rng.choice(VALUES))


def safetensors_part(path: Path, rng: random.Random) -> None:
    """A file with another tensor or other metadata, which is whole in itself."""
    tensors, metadata = load_file(path), dict(read_metadata(path))
    if metadata and rng.random() < 0.5:
        key = rng.choice(sorted(metadata))
        if rng.random() < 0.3:
            del metadata[key]
        else:
            metadata[key] = changed_text(metadata[key], rng)
    else:
        changed_tensors(tensors, rng)
        tensors = {name: value.contiguous().clone() for name, value in tensors.items()}
    path.unlink()  # it may be mapped into memory
    save_file(tensors, path, metadata)


def changed_tensors(tensors: dict[str, Any], rng: random.Random) -> None:
    """One tensor of another shape, type or content, or under another name."""
    name = rng.choice([key for key, value in tensors.items() if isinstance(value, torch.Tensor)])
    value = tensors.pop(name)
    change = rng.randrange(9)
    if change == 0:
        return
    tensors["other" if change == 1 else name] = (
        lambda: value,
        lambda: value,
        lambda: value[None],
        lambda: value.flatten()[:1],
        lambda: value.reshape(-1)[:0],
        lambda: value.to(rng.choice((torch.int32, torch.bool, torch.float64, torch.float16))),
        lambda: torch.full_like(value, 3 if not value.is_floating_point() else float("nan")),
        lambda: -value if value.dtype != torch.bool else value,
        lambda: torch.tensor(7.0),
    )[change]()


def parquet_part(path: Path, rng: random.Random) -> None:
    """A table with another column, type, value or number of rows."""
    if path.suffix != ".parquet":
        noise(path, rng)
        return
    table = parquet.read_table(path)
    names, rows = table.column_names, table.num_rows
    name = rng.choice(names)
    place, change = names.index(name), rng.randrange(7)
    if change == 0:
        table = table.drop_columns([name])
    elif change == 1:
        table = table.rename_columns([f"{n}x" if n == name else n for n in names])
    elif change == 2:
        table = table.slice(0, rng.randrange(rows))
    elif change == 3:
        table = pa.concat_tables([table, table.slice(0, 1)])
    elif change == 4:
        table = table.set_column(
            place, name, pa.array([None] * rows, table.schema.field(name).type)
        )
    elif change == 5:
        table = table.set_column(place, name, pa.array([[1]] * rows))
    else:
        value = str(rng.choice(VALUES))
        table = table.set_column(place, name, pa.array([value] * rows))
    parquet.write_table(table, path)


def checkpoint_part(path: Path, rng: random.Random) -> None:
    """A PyTorch file with other content; or the same in a zip that is compressed."""
    if rng.random() < 0.2 and zipfile.is_zipfile(path):
        rezip(path, rng)
        return
    content: Any = torch.load(path, weights_only=True)
    value = torch.ones(2, 2)
    odd = (value.to_sparse(), value.expand(3, 2, 2), value.to("meta"), value.to_sparse_csr())
    whole: dict[str, Any] = {"": content} if isinstance(content, torch.Tensor) else content
    tensors: dict[str, Any] = next(
        (whole[key] for key in ("model_state_dict", "model") if key in whole), whole
    )
    change = rng.randrange(4)
    if change == 0:
        content = rng.choice([value for value in VALUES if not isinstance(value, str)])
    elif change == 1:
        tensors[rng.choice(sorted(tensors))] = rng.choice((None, "x", [1], 3, {}))
    elif change == 2:
        tensors[rng.choice(sorted(tensors))] = rng.choice(odd)
    else:
        changed_tensors(tensors, rng)
    bare = change and isinstance(content, torch.Tensor)
    torch.save(next(iter(tensors.values()), None) if bare else content, path)


def rezip(path: Path, rng: random.Random) -> None:
    """The same archive, compressed, or with a member that is missing, empty or not the same."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name, change = rng.choice(sorted(members)), rng.randrange(4)
    if change == 1:
        del members[name]
    elif change == 2:
        members[name] = b""
    elif change == 3:
        members[name] = flip(members[name] or b"\0", rng)
    level, kind = rng.choice(((None, zipfile.ZIP_STORED), (0, zipfile.ZIP_DEFLATED), (9, 8)))
    with zipfile.ZipFile(path, "w", kind, compresslevel=level) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


# Below: no file at all, or that of something else.


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def no_file(path: Path, rng: random.Random) -> None:
    path.unlink()


def folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def dangling(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to("nowhere/at all")


def unreadable(path: Path, rng: random.Random) -> None:
    path.chmod(0)


def noise(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(2000))


def swapped(path: Path, rng: random.Random) -> None:
    """Another file of this kind."""
    others = [p for p in path.parent.parent.rglob(f"*{path.suffix}") if p.is_file() and p != path]
    path.write_bytes(rng.choice(sorted(others)).read_bytes() if others else b"{}\n")


SPECIAL: list[Damage] = [empty, no_file, folder, pipe, dangling, unreadable, noise, swapped]
WHOLE: list[Damage] = [swapped, safetensors_part, checkpoint_part, rezip, parquet_part]
"""These leave a file that is valid in itself, without a checksum or with one that fits, as an
earlier version or another program would write it. Nothing shows that it was damaged."""
KINDS: dict[str, list[Damage]] = {
    "yaml": [*TEXT, *[yaml_value] * 14],
    "json": [*TEXT, *[json_value] * 14],
    "csv": [*TEXT, *[csv_value] * 8],
    "text": TEXT,
    "safetensors": [*BYTES, *[safetensors_part] * 9],
    "parquet": [*BYTES, *[parquet_part] * 9],
    "checkpoint": [*BYTES, *[checkpoint_part] * 9],
    "torchscript": [*BYTES, *[rezip] * 5],
    "binary": BYTES,
}
"""Damages of each kind of file, besides SPECIAL."""
