"""Read tensors from weights files of any origin, without running code from the file.

PyTorch pickles are read with `weights_only=True`. TorchScript archives (as OpenAI publishes) hold a
pickle too, with classes that are compiled from the archive's source; here their instances become
plain bags of attributes, so nothing is compiled or called.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipzoo.tensors import WeightsError, read_safetensors

NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
"""Sizes that OpenAI's archives store among the parameters."""
CONTAINERS = ("model_state_dict", "state_dict")
"""Keys under which checkpoints store the model's tensors."""


def read_file(path: str | Path) -> dict[str, Any]:
    """Read a weights file: named tensors, or a dict of dicts of tensors and other values.

    Args:
        path: a .safetensors file, a PyTorch pickle or a TorchScript archive.

    Raises:
        WeightsError: the file is missing, is none of these, or contains code.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give the path of a weights file")
    if path.suffix == ".safetensors":
        return dict(read_safetensors(path)[0])
    if zipfile.is_zipfile(path) and _is_torchscript(path):
        return dict(read_torchscript(path))
    content = _read_pickle(path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}; allowed: a dict of tensors")
    return content


def read_tensor(path: str | Path) -> Tensor:
    """Read a PyTorch file that holds one tensor and nothing else.

    Raises:
        WeightsError: the file is missing, holds something else, or contains code.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give the path of a file with one tensor")
    content = _read_pickle(path)
    if not isinstance(content, Tensor):
        raise WeightsError(f"{path}: holds a {type(content).__name__}; allowed: one bare tensor")
    return content


def _read_pickle(path: Path) -> object:
    """The content of a PyTorch pickle; raises WeightsError as `read_file`."""
    is_zip = zipfile.is_zipfile(path)
    try:
        # Memory-mapped: released files also hold the optimizer's state, twice the model's size.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise WeightsError(
            f"{path}: refused, because it is damaged or would run code when loaded "
            f"({reason}); ask for a file with tensors only"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise WeightsError(f"{path}: not a PyTorch file ({error})") from None


def named_tensors(content: dict[str, Any], where: str) -> dict[str, Tensor]:
    """The tensors of `stored_tensors`, those of floating point as float32."""
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in stored_tensors(content, where).items()
    }


def stored_tensors(content: dict[str, Any], where: str) -> dict[str, Tensor]:
    """Named tensors of a file's content, as they are stored.

    Takes them from `model_state_dict` or `state_dict` if present, and removes the `module.` that
    DistributedDataParallel adds to names.

    Args:
        content: from `read_file`.
        where: the file, for messages.

    Returns:
        tensors on the CPU, of any dtype.

    Raises:
        WeightsError: there are none.
    """
    key = _container(content)
    content = content[key] if key else content
    tensors = {
        _plain_name(name): value
        for name, value in content.items()
        if isinstance(value, Tensor) and name not in NOT_WEIGHTS
    }
    if not tensors:
        raise WeightsError(
            f"{where}: holds no named tensors; found the keys {list(content)[:10]}, allowed: "
            f"tensors by name, alone or under {' or '.join(CONTAINERS)}"
        )
    return tensors


def unread_keys(content: dict[str, Any], *others: str) -> list[str]:
    """Top-level keys of a file that `stored_tensors` does not read, such as an optimizer's state.

    Args:
        content: from `read_file`.
        others: keys that the caller reads.
    """
    key = _container(content)
    if key:
        return [name for name in content if name not in (key, *others)]
    return [name for name, value in content.items() if not isinstance(value, Tensor)]


def _container(content: dict[str, Any]) -> str | None:
    """The key under which a file's tensors are; None = at the top."""
    return next((key for key in CONTAINERS if isinstance(content.get(key), dict)), None)


def _plain_name(name: str) -> str:
    return ".".join(part for part in str(name).split(".") if part != "module")


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


class _Bag:
    """An object whose class exists only in the archive's source."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _first(value: object, *_: object) -> object:
    return value


DTYPES = {
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
    ("torch.jit._pickle", "build_intlist"): _first,
    ("torch.jit._pickle", "build_doublelist"): _first,
    ("torch.jit._pickle", "build_boollist"): _first,
    ("torch.jit._pickle", "build_tensorlist"): _first,
}


class _Unpickler(pickle.Unpickler):
    """Builds bags and tensors; refuses every other class or function."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(archive.open(f"{folder}data.pkl"))
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name.startswith("__torch__"):
            return _Bag
        if module_name == "torch" and global_name in DTYPES:
            return DTYPES[global_name]
        try:
            return HARMLESS[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it refers to {module_name}.{global_name}") from None

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, *_ = pid
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._folder}data/{key}"))
            empty = torch.empty(0, dtype=dtype)
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else empty
        return self._storages[key]


def read_torchscript(path: str | Path) -> dict[str, Tensor]:
    """Parameters and buffers of a TorchScript archive, by name.

    Raises:
        WeightsError: the archive is damaged, or its pickle refers to anything but tensors and
            classes of the archive.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        folder = next(n for n in names if n.endswith("/constants.pkl")).removesuffix(
            "constants.pkl"
        )
        try:
            root = _Unpickler(archive, folder).load()
        except (pickle.UnpicklingError, zipfile.BadZipFile, LookupError, ValueError) as error:
            raise WeightsError(
                f"{path}: refused, because it is damaged or would run code when loaded "
                f"({error}); ask for a file with tensors only"
            ) from None
    tensors: dict[str, Tensor] = {}
    _collect(root, "", tensors)
    return tensors


def _collect(bag: Any, prefix: str, tensors: dict[str, Tensor]) -> None:
    for name, value in getattr(bag, "__dict__", {}).items():
        if isinstance(value, Tensor):
            tensors[prefix + name] = value
        elif isinstance(value, _Bag):
            _collect(value, f"{prefix}{name}.", tensors)
