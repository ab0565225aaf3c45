"""Safetensors files with equal bytes for equal content, and copies of tensors to a device.

Every file that is written here has a checksum of all its bytes in its metadata, under `crc32`: the
CRC-32 of the tensors' bytes, and that of the header with zeros in its own place:

    length of the header | {"__metadata__": {..., "crc32": "DDDDDDDDHHHHHHHH"}, ...} | tensors
    8 bytes                                                D = CRC-32 of the tensors
                                                           H = CRC-32 of the header, if H is zeros

The header has the names, dtypes, shapes and places of the tensors, and the metadata. A CRC-32 finds
every damage of up to 32 bits in a row, and takes 0.6 s for a GB; SHA-256 would take 1.2 s.
"""

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from clipzoo.files import is_of_memory, replacing, require_regular

CRC = "crc32"
"""The key of the checksum in the metadata."""
_CRC_TEXT = re.compile(rb'"crc32":"([^"]{8})([^"]{8})"')


class WeightsError(ValueError):
    """A weights file cannot be read, or does not fit the model it is loaded into."""


def write_safetensors(
    tensors: dict[str, Tensor], path: str | Path, metadata: dict[str, str]
) -> None:
    """Write tensors, of which no two may share memory, and text to a safetensors file; ValueError
    if a tensor is not contiguous, DiskError if the disk is full."""
    num_bytes = sum(tensor.nbytes for tensor in tensors.values())
    with replacing(path, num_bytes=num_bytes) as part:
        part.touch()
        mode = part.stat().st_mode  # from the umask; the library creates files for their owner only
        save_file(tensors, part, metadata={**metadata, CRC: "0" * 16})
        part.chmod(mode)
        _finish_header(part)


def _finish_header(path: Path) -> None:
    """Sort the metadata's keys, and fill in the checksum.

    The library writes the keys in a different order every time, but equal content must have equal
    bytes, or DVC would rerun every later stage.
    """
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length, "only the order has changed"
        place = _CRC_TEXT.search(text)
        assert place is not None, "save_file has written it"
        data_crc = b"%08x" % _crc32(file)
        # The format pads a header with spaces, so the library's length remains.
        text = text[: place.start(1)] + data_crc + text[place.end(1) :].ljust(length - place.end(1))
        header_crc = b"%08x" % zlib.crc32(text)
        file.seek(8)
        file.write(text[: place.start(2)] + header_crc + text[place.end(2) :])


def _crc32(file: BinaryIO) -> int:
    """The CRC-32 of the rest of a file."""
    crc = 0
    while block := file.read(1 << 20):
        crc = zlib.crc32(block, crc)
    return crc


def _check(path: str | Path, *, with_tensors: bool) -> None:
    """Raise WeightsError if a file has a checksum and is damaged. Files of older versions and of
    other projects have none."""
    with open(path, "rb") as file:
        text = file.read(int.from_bytes(file.read(8), "little"))
        place = _CRC_TEXT.search(text)
        if place is None:
            return
        data_crc, header_crc = place.groups()
        zeros = text[: place.start(2)] + b"0" * 8 + text[place.end(2) :]
        parts = {"header": (header_crc, zlib.crc32(zeros))}
        if with_tensors:
            parts["tensors"] = (data_crc, _crc32(file))
    for name, (noted, found) in parts.items():
        if noted != b"%08x" % found:
            raise WeightsError(
                f"{path}: damaged: the CRC-32 of its {name} is {found:08x}, not the one in its "
                f"metadata ({CRC}); get another copy, or write it again: `dvc repro --force "
                "STAGE`; if it is in .state, remove its folder first"
            )


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, on the CPU, and its metadata; WeightsError if the file is missing, not
    a safetensors file, or damaged."""
    with _opened(path, with_tensors=True) as (file, metadata):
        return {k: file.get_tensor(k) for k in file.keys()}, metadata  # noqa: SIM118


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a file, without its tensors; raises as `read_safetensors`."""
    with _opened(path, with_tensors=False) as (_, metadata):
        return metadata


@contextmanager
def _opened(path: str | Path, *, with_tensors: bool) -> Iterator[tuple[safe_open, dict[str, str]]]:
    """An open file and its metadata, without the checksum, which is compared first."""
    if Path(path).exists():
        require_regular(path, WeightsError)
    try:
        with safe_open(path, framework="pt") as file:
            _check(path, with_tensors=with_tensors)
            metadata = dict(file.metadata() or {})
            metadata.pop(CRC, None)
            yield file, metadata
    except WeightsError:
        raise
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file; `dvc repro` writes it") from error
    except Exception as error:
        fault = "not a safetensors file"
        if is_of_memory(error):
            fault = "this machine's memory ran out while it was read; use one with more"
        raise WeightsError(f"{path}: {fault} ({error})") from error


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on another device, without waiting for a GPU.

    A copy from memory that is not pinned would wait for all work that the GPU has been given.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def send_indices(indices: Sequence[int], device: torch.device) -> Tensor:
    """Some indices as int64 [n] on a device; a GPU is not waited for."""
    return send(torch.tensor(indices, dtype=torch.int64), device)
