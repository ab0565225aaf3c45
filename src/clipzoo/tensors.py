"""Safetensors files with equal bytes for equal content, file hashes, and copies to a device."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from clipzoo.files import regular, replacing


class WeightsError(ValueError):
    """A weights file cannot be read, or does not fit the model it is loaded into."""


def write_safetensors(
    tensors: dict[str, Tensor], path: str | Path, metadata: dict[str, str]
) -> None:
    """Write tensors and text metadata to a safetensors file.

    Args:
        tensors: by name; no two may share memory.
        path: the file.
        metadata: by key.

    Raises:
        ValueError: a tensor is not contiguous.
        DiskError: the disk is full.
    """
    num_bytes = sum(tensor.nbytes for tensor in tensors.values())
    with replacing(path, num_bytes=num_bytes) as part:
        part.touch()
        mode = part.stat().st_mode  # from the umask; the library creates files for their owner only
        save_file(tensors, part, metadata=metadata)
        part.chmod(mode)
        _sort_metadata(part)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata's keys: the library writes them in a different order every time, but equal
    content must give equal bytes, or DVC reruns every later stage."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" not in header:
            return
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length, "only the order has changed"
        file.seek(8)
        file.write(text.ljust(length))


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file (CPU) and its metadata.

    Raises:
        WeightsError: the file is missing or not a safetensors file.
    """
    with _opened(path) as file:
        return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a file, without its tensors; raises as `read_safetensors`."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: str | Path) -> Iterator[safe_open]:
    try:
        with safe_open(regular(path), framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file; `dvc repro` writes it") from error
    except Exception as error:
        raise WeightsError(f"{path}: not a safetensors file ({error})") from error


def file_sha256(path: str | Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on another device, without waiting for a GPU.

    A copy from pageable memory would wait for all work that the GPU has been given.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
