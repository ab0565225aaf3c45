"""Read tensors from weights files of any origin, without running code from the file.

PyTorch pickles are read with `weights_only=True`. TorchScript archives (as OpenAI publishes) hold a
pickle too, with classes that are compiled from the archive's source; here their instances become
plain bags of attributes, so nothing is compiled or called.

Zip archives have a CRC-32 of each member, which is compared here, because PyTorch does not do it.
Compressed members may claim any size: it is compared with the size of the file and of the tensors.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clipzoo.files import is_of_memory
from clipzoo.tensors import WeightsError, read_safetensors

MAPPINGS: tuple[tuple[type, str], ...] = ((OrderedDict, "yacs.config.CfgNode"),)
"""What is made in the place of classes that a PyTorch pickle may name, which are mappings. Training
code with yacs saves its whole configuration beside the tensors."""
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
"""Sizes that OpenAI's archives store among the parameters."""
CONTAINERS = ("model_state_dict", "state_dict", "model", "model_state")
"""Keys under which checkpoints store the model's tensors."""
WRAPPED = "model."
"""What the names begin with where a network is part of another (PySlowFast's, for one)."""
MAX_PARTS, MAX_DEPTH = 100_000, 100
"""Most modules, tensors and other attributes of a TorchScript archive, and how deep they nest."""
MAX_GROWTH, FREE_BYTES = 100, 1 << 30
"""A compressed archive may grow by this factor, or to this many bytes. Weights hardly shrink."""
REFUSED = "refused, because it is damaged or would run code when loaded"


def read_file(path: str | Path) -> dict[str, Any]:
    """Read a .safetensors file, a PyTorch pickle or a TorchScript archive.

    Returns:
        named tensors, or a dict of dicts of tensors and other values.

    Raises:
        WeightsError: the file is missing, damaged, is none of these, or contains code.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give the path of a weights file")
    if path.suffix == ".safetensors":
        return dict(read_safetensors(path)[0])
    if folder := _torchscript_folder(path):
        return dict(_read_torchscript(path, folder))
    content = _read_pickle(path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}; allowed: a dict of tensors")
    return content


def read_tensor(path: str | Path) -> Tensor:
    """Read a PyTorch file that holds one tensor and nothing else.

    Raises:
        WeightsError: the file is missing, damaged, holds something else, or contains code.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give the path of a file with one tensor")
    content = _read_pickle(path)
    if not isinstance(content, Tensor):
        raise WeightsError(f"{path}: holds a {type(content).__name__}; allowed: one bare tensor")
    return _dense(content, str(path))


def _read_pickle(path: Path) -> object:
    """The content of a PyTorch pickle; raises WeightsError as `read_file`."""
    with _named_errors(path):
        mapped = False
        if _is_archive(path):
            with _opened(path) as archive:
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"Bad CRC-32 for file {damaged!r}")
                # Released files also hold the optimizer's state, twice the size of the model: what
                # is not read need not be in memory. Compressed members cannot be mapped.
                mapped = not any(map(_is_compressed, archive.infolist()))
        with torch.serialization.safe_globals(list(MAPPINGS)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


@contextmanager
def _named_errors(path: Path, otherwise: str = "not a PyTorch file") -> Iterator[None]:
    """Turn the errors of PyTorch, pickle and zipfile for a damaged file into a WeightsError."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except Exception as error:
        # PyTorch's messages advise to trust the file, and end with what is wrong.
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().split("\n")[0]
        reason = f"{type(error).__name__}: {reason.split('. ')[0]}"
        if is_of_memory(error):
            text = f"this machine's memory ran out while it was read ({reason}); use one with more"
        elif isinstance(error, pickle.UnpicklingError):
            text = f"{REFUSED} ({reason}); ask for a file with tensors only"
        elif isinstance(error, zipfile.BadZipFile):
            text = f"damaged ({reason}); get it again, or save it with checksums"
        elif isinstance(error, OSError):
            text = f"cannot be read ({reason})"
        else:
            text = f"{otherwise} ({reason})"
        raise WeightsError(f"{path}: {text}") from None


def _is_archive(path: Path) -> bool:
    """Whether PyTorch takes a file for a zip archive, according to its first bytes."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04" and zipfile.is_zipfile(path)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive whose compressed members do not claim an absurd size."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist() if _is_compressed(member))
        if size > max(FREE_BYTES, MAX_GROWTH * path.stat().st_size):
            raise WeightsError(f"would grow to {size:,} bytes; ask for a file without compression")
        yield archive


def _is_compressed(member: zipfile.ZipInfo) -> bool:
    return member.compress_type != zipfile.ZIP_STORED


def _dense(tensor: Tensor, where: str) -> Tensor:
    """A tensor without its history.

    WeightsError unless it has plain numbers on the CPU, each with a place of its own in memory.
    """
    found = f"{tensor.dtype}, {tensor.layout}, on the device {tensor.device.type}"
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if plain and tensor.nbytes > (stored := tensor.untyped_storage().nbytes()):
        found, plain = f"expanded to {tensor.nbytes:,} bytes from {stored:,}", False
    if not plain or tensor.dtype not in STORAGES.values():
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in STORAGES.values())
        raise WeightsError(
            f"{where}: found a tensor that is {found}; allowed: dense ones on the CPU (save its "
            f"tensor.to_dense().contiguous()) of {allowed}"
        )
    return tensor.detach()


def named_tensors(content: dict[str, Any], where: str) -> dict[str, Tensor]:
    """The tensors of `stored_tensors`, with all floating-point values as float32."""
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in stored_tensors(content, where).items()
    }


def stored_tensors(content: dict[str, Any], where: str) -> dict[str, Tensor]:
    """The named tensors in what `read_file` returns, on the CPU and in the dtype of the file.

    Takes them from under one of `CONTAINERS` if present, and removes the `module.` that
    DistributedDataParallel adds to names, and a `model.` that all of them begin with, where a
    network is part of another.

    Raises:
        WeightsError: there are none, or one is sparse, complex, expanded or the like; names the
            file (`where`) and the tensor.
    """
    key = _container(content)
    content = content[key] if key else content
    tensors = {
        plain_name(name): _dense(value, f"{where}: {name}")
        for name, value in content.items()
        if isinstance(value, Tensor) and name not in NOT_WEIGHTS
    }
    if not tensors:
        raise WeightsError(
            f"{where}: holds no named tensors; found the keys {list(content)[:10]}, allowed: "
            f"tensors by name, alone or under {' or '.join(CONTAINERS)}"
        )
    if all(name.startswith(WRAPPED) for name in tensors):
        return {name.removeprefix(WRAPPED): value for name, value in tensors.items()}
    return tensors


def plain_name(name: object) -> str:
    """A tensor's name without the `module.` that DistributedDataParallel adds."""
    return ".".join(part for part in str(name).split(".") if part != "module")


def unread_keys(content: dict[str, Any], *others: str) -> list[str]:
    """Top-level keys in what `read_file` returns that nobody reads, such as an optimizer's state.

    `stored_tensors` reads the tensors, and the caller reads `others`.
    """
    key = _container(content)
    if key:
        return [name for name in content if name not in (key, *others)]
    return [name for name, value in content.items() if not isinstance(value, Tensor)]


def _container(content: dict[str, Any]) -> str | None:
    """The key under which a file's tensors are; None = they are at the top."""
    return next((key for key in CONTAINERS if isinstance(content.get(key), dict)), None)


def _torchscript_folder(path: Path) -> str:
    """The folder of a TorchScript archive's members, with a slash; '' = the file is not one."""
    with _named_errors(path):
        if not _is_archive(path):
            return ""
        with _opened(path) as archive:
            names = (name for name in archive.namelist() if name.endswith("/constants.pkl"))
            return next(names, "").removesuffix("constants.pkl")


class _View(NamedTuple):
    """A tensor whose numbers have not been read yet; they lie in a member of the archive."""

    dtype: torch.dtype
    member: str
    offset: int
    size: Sequence[int]
    stride: Sequence[int]

    def num_bytes(self) -> int:
        """Number of bytes at the beginning of the member that are needed."""
        # The last number has the index n - 1 in every dimension.
        last = sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        return 0 if 0 in self.size else (self.offset + last + 1) * self.dtype.itemsize

    def read(self, data: bytearray) -> Tensor:
        """The tensor in the member's bytes."""
        empty = torch.empty(0, dtype=self.dtype)
        storage = torch.frombuffer(data, dtype=self.dtype) if data else empty
        return storage.as_strided(self.size, self.stride, self.offset)


class _Bag:
    """An object whose class exists only in the archive's source."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: object) -> _View:
    dtype, member = storage
    return _View(dtype, member, offset, tuple(size), tuple(stride))


def _first(value: object, *_: object) -> object:
    return value


STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}
HARMLESS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): dict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    **{("torch.jit._pickle", f"build_{kind}list"): _first for kind in ("int", "double", "bool")},
    ("torch.jit._pickle", "build_tensorlist"): _first,
}
"""Functions that a pickle may call, and what is called in their place."""


class _Unpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Builds bags and views; refuses every other class or function.

    It is Python's own: the one that is written in C would allocate as much memory as any number in
    a damaged pickle says.
    """

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name.startswith("__torch__"):
            return _Bag
        if module_name == "torch" and global_name in STORAGES:
            return STORAGES[global_name]
        try:
            return HARMLESS[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it refers to {module_name}.{global_name}") from None

    def persistent_load(self, pid: Any) -> tuple[torch.dtype, str]:
        _, dtype, key, *_ = pid
        return dtype, f"data/{key}"


def _read_torchscript(path: Path, folder: str) -> dict[str, Tensor]:
    """The parameters and buffers of a TorchScript archive, by name.

    Raises:
        WeightsError: the archive is damaged, or its pickle refers to anything but tensors and
            classes of the archive.
    """
    with _named_errors(path, REFUSED), _opened(path) as archive:
        pickled = io.BytesIO(archive.read(f"{folder}data.pkl"))
        views = dict(_collect(_Unpickler(pickled).load()))
        needed: dict[str, int] = {}  # bytes of each member
        for view in views.values():
            needed[view.member] = max(needed.get(view.member, 0), view.num_bytes())
        members = {name: archive.getinfo(folder + name) for name in needed}
        for name, member in members.items():
            spare = member.file_size - needed[name]
            if spare < 0 or (spare and _is_compressed(member)):
                raise pickle.UnpicklingError(
                    f"its member {name} has {member.file_size:,} bytes, and its tensors need "
                    f"{needed[name]:,}"
                )
        data = {name: bytearray(archive.read(member)) for name, member in members.items()}
        return {name: view.read(data[view.member]) for name, view in views.items()}


def _collect(root: object) -> Iterator[tuple[str, _View]]:
    """The tensors of a module and those within it, by dotted name."""
    todo = [("", root)]
    for _ in range(MAX_PARTS):
        if not todo:
            return
        name, value = todo.pop()
        if isinstance(value, _View):
            yield name, value
        elif isinstance(value, _Bag):
            dotted = f"{name}." if name else ""
            todo += [(f"{dotted}{key}", part) for key, part in reversed(vars(value).items())]
        if name.count(".") > MAX_DEPTH:
            break
    raise ValueError(f"more than {MAX_PARTS} parts, or {MAX_DEPTH} within each other")
