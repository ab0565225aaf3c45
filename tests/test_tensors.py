"""Safetensors files: whole or not at all, equal content as equal bytes; and file hashes."""

import contextlib
import hashlib
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clipzoo import tensors
from clipzoo.files import file_sha256
from clipzoo.tensors import (
    WeightsError,
    read_metadata,
    read_safetensors,
    write_safetensors,
)

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}
METADATA = {"z": "größer", "a": "{}", "m": "3"}


def test_what_is_written_is_read(tmp_path: Path):
    path = tmp_path / "x" / "model.safetensors"
    write_safetensors(TENSORS, path, METADATA)
    tensors_read, metadata = read_safetensors(path)
    assert metadata == METADATA
    assert tensors_read.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert tensors_read[name].dtype == value.dtype
        assert torch.equal(tensors_read[name], value)
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_equal_content_is_equal_bytes(tmp_path: Path):
    metadata = {f"key{i}": str(i) for i in range(20)}
    reversed_metadata = dict(reversed(metadata.items()))
    hashes = set()
    for i, text in enumerate([metadata, reversed_metadata, metadata]):
        write_safetensors(TENSORS, tmp_path / f"{i}.safetensors", text)
        hashes.add(file_sha256(tmp_path / f"{i}.safetensors"))
    assert len(hashes) == 1


def test_a_file_without_metadata(tmp_path: Path):
    write_safetensors(TENSORS, tmp_path / "x.safetensors", {})
    tensors_read, metadata = read_safetensors(tmp_path / "x.safetensors")
    assert metadata == {}
    assert torch.equal(tensors_read["a"], TENSORS["a"])


def test_a_read_only_link_is_replaced_and_its_target_stays(tmp_path: Path):
    cached, path = tmp_path / "cached", tmp_path / "x.safetensors"
    cached.write_bytes(b"old")
    cached.chmod(0o444)
    path.hardlink_to(cached)
    write_safetensors(TENSORS, path, METADATA)
    assert read_safetensors(path)[1] == METADATA
    assert cached.read_bytes() == b"old"


def test_an_error_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.safetensors"
    write_safetensors(TENSORS, path, METADATA)
    before = file_sha256(path)

    def full(_: object, part: Path, **__: object) -> None:
        Path(part).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_safetensors({"c": torch.zeros(3)}, path, {})
    assert file_sha256(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_tensors_that_cannot_be_written_leave_nothing(tmp_path: Path):
    with pytest.raises(ValueError, match="contiguous"):
        write_safetensors({"a": torch.zeros(2, 3).T}, tmp_path / "x.safetensors", {})
    assert not list(tmp_path.iterdir())


def test_permissions_are_those_of_the_umask(tmp_path: Path):
    before = os.umask(0o027)
    try:
        write_safetensors(TENSORS, tmp_path / "x.safetensors", METADATA)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o640


def test_missing_and_damaged_files_are_named(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"x\.safetensors: no such file"):
        read_safetensors(tmp_path / "x.safetensors")
    write_safetensors(TENSORS, tmp_path / "x.safetensors", METADATA)
    whole = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole[:-4])
    with pytest.raises(WeightsError, match=r"x\.safetensors: not a safetensors file"):
        read_safetensors(tmp_path / "x.safetensors")


def test_hash_of_a_file_longer_than_a_block(tmp_path: Path):
    data = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(data)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(data).hexdigest()


def test_flipped_bits_are_found(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    write_safetensors(TENSORS, path, METADATA)
    whole = path.read_bytes()
    start = whole.index(b'"crc32"')
    for bit in range(0, 8 * len(whole), 3):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        if start < bit // 8 <= start + len("crc32"):  # its key: as if there were no checksum
            with contextlib.suppress(WeightsError):
                assert torch.equal(read_safetensors(path)[0]["a"], TENSORS["a"])
            continue
        with pytest.raises(WeightsError, match=r"x\.safetensors: (damaged|not a safetensors file)"):
            read_safetensors(path)
        if bit // 8 < len(whole) - 40:  # within the header
            with pytest.raises(WeightsError, match=r"damaged|not a safetensors file"):
                read_metadata(path)


def test_a_damaged_tensor_is_told_from_a_damaged_header(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    write_safetensors(TENSORS, path, METADATA)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\x01")
    with pytest.raises(WeightsError, match=r"CRC-32 of its tensors is [0-9a-f]{8}, not"):
        read_safetensors(path)
    assert read_metadata(path) == METADATA, "no tensor is read for it"
    path.write_bytes(whole.replace(b'"m":"3"', b'"m":"4"'))
    for read in (read_metadata, read_safetensors):
        with pytest.raises(WeightsError, match=r"CRC-32 of its header"):
            read(path)


def test_files_of_older_versions_and_of_others_have_no_checksum(tmp_path: Path):
    save_file(TENSORS, tmp_path / "x.safetensors", metadata=METADATA)
    assert read_safetensors(tmp_path / "x.safetensors")[1] == METADATA
    text = {"note": '"crc32":"0123456789abcdef"'}  # looks like one
    write_safetensors(TENSORS, tmp_path / "x.safetensors", text)
    assert read_safetensors(tmp_path / "x.safetensors")[1] == text
