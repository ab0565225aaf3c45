import os
import pickle
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clipzoo.models import archives
from clipzoo.models.archives import named_tensors, read_file, read_tensor
from clipzoo.tensors import WeightsError


class Payload:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 2, bias=False)
        self.ln = nn.LayerNorm(4).half()
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv1(x).mean()


def save_torchscript(module: nn.Module, path: Path) -> dict[str, torch.Tensor]:
    """Write an archive as OpenAI did, and return the tensors that torch reads from it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        torch.jit.save(torch.jit.trace(module, torch.zeros(1, 3, 4, 4)), path)
        return dict(torch.jit.load(path).state_dict())


def test_torchscript_archives_are_read_as_torch_reads_them(tmp_path: Path):
    outer = nn.Sequential(Tower())
    expected = save_torchscript(outer, tmp_path / "clip.pt")
    tensors = read_file(tmp_path / "clip.pt")
    assert tensors.keys() == expected.keys()
    assert "0.conv1.weight" in tensors
    for name, value in expected.items():
        assert tensors[name].dtype == value.dtype
        torch.testing.assert_close(tensors[name], value)


def replace_pickle(path: Path, pickled: bytes) -> None:
    """Put another data.pkl into an archive."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, pickled if name.endswith("/data.pkl") else data)


@pytest.mark.parametrize("form", ["pickle", "torch", "legacy", "torchscript"])
def test_a_file_that_would_run_code_is_refused(form: str, tmp_path: Path):
    path, marker = tmp_path / "weights.pt", tmp_path / "it-ran"
    content = {"model_state_dict": {"visual.proj": Payload(marker)}}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    elif form == "torchscript":
        save_torchscript(Tower(), path)
        replace_pickle(path, pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(WeightsError, match="refused, because it is damaged or would run code"):
        read_file(path)
    assert not marker.exists()


def test_names_and_numbers_are_made_plain():
    content = {
        "epoch": 3,
        "model_state_dict": {
            "module.visual.proj": torch.ones(2, dtype=torch.float16),
            "visual.bn1.num_batches_tracked": torch.tensor(5),
            "context_length": torch.tensor(77),
        },
        "optimizer_state_dict": {"state": torch.zeros(9)},
    }
    tensors = named_tensors(content, "file")
    assert tensors.keys() == {"visual.proj", "visual.bn1.num_batches_tracked"}
    assert tensors["visual.proj"].dtype == torch.float32
    assert tensors["visual.bn1.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("text.pt", b"not a weights file", "damaged or would run code"),
        ("empty.pt", b"", "not a PyTorch file"),
        ("text.safetensors", b"not a weights file", "not a safetensors file"),
    ],
)
def test_other_files_are_refused(name: str, data: bytes, message: str, tmp_path: Path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsError, match=message):
        read_file(tmp_path / name)


def test_a_truncated_file_is_refused(tmp_path: Path):
    path = tmp_path / "weights.pt"
    torch.save({"visual.proj": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WeightsError, match=r"damaged|not a PyTorch file"):
        read_file(path)


def test_absent_files_and_files_without_tensors_are_refused(tmp_path: Path):
    with pytest.raises(WeightsError, match="no such file"):
        read_file(tmp_path / "absent.pt")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="holds a list; allowed: a dict"):
        read_file(tmp_path / "list.pt")
    with pytest.raises(WeightsError, match=r"no named tensors; found the keys \['epoch'\]"):
        named_tensors({"epoch": 3}, "file")


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_archive(path: Path, content: dict[str, bytes], level: int | None = None) -> None:
    """Zip members; they are stored if there is no level of compression."""
    form = zipfile.ZIP_STORED if level is None else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", form, compresslevel=level) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("level", [None, 0, 9])
@pytest.mark.parametrize("form", ["torch", "torchscript"])
def test_an_archive_that_was_zipped_again_has_the_same_numbers(form, level, tmp_path: Path):
    path = tmp_path / "weights.pt"
    if form == "torch":
        expected = {"a": torch.arange(5000.0), "b": torch.ones(3).half()}
        torch.save(expected, path)
    else:
        expected = save_torchscript(nn.Sequential(Tower()), path)
    write_archive(path, members(path), level)
    torch.testing.assert_close(read_file(path), expected)


def test_a_pickle_that_ends_like_a_zip_archive_is_read_as_a_pickle(tmp_path: Path):
    path, end = tmp_path / "weights.pt", b"PK\5\6" + bytes(18)
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes() + end)
    assert zipfile.is_zipfile(path)
    assert torch.equal(read_file(path)["a"], torch.ones(3))


@pytest.mark.parametrize("form", ["torch", "torchscript"])
def test_a_flipped_bit_is_found_and_its_member_named(form: str, tmp_path: Path):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.arange(100.0)}, path)
    if form == "torchscript":
        save_torchscript(Tower(), path)
    number = members(path)["weights/data/0"][-8:]
    path.write_bytes(path.read_bytes().replace(number, number[:-1] + bytes([number[-1] ^ 1])))
    with pytest.raises(WeightsError, match=r"weights\.pt: damaged .*CRC-32 .*weights/data/0"):
        read_file(path)


def test_a_torchscript_archive_takes_no_more_memory_than_its_tensors(tmp_path: Path):
    path = tmp_path / "bomb.pt"
    save_torchscript(Tower(), path)
    content = members(path)
    write_archive(path, {**content, "bomb/data/0": content["bomb/data/0"] + bytes(1 << 24)}, 1)
    tracemalloc.start()
    with pytest.raises(WeightsError, match=r"bomb.pt: refused.*data/0 has 16,\d*,\d* bytes.*need"):
        read_file(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 22


def test_a_compressed_archive_that_would_grow_a_hundredfold_is_refused(tmp_path, monkeypatch):
    path, content = tmp_path / "bomb.pt", {"a": torch.zeros(1 << 20)}
    torch.save(content, path)
    write_archive(path, members(path), 9)
    assert torch.equal(read_file(path)["a"], content["a"]), "small enough"
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)
    with pytest.raises(WeightsError, match=r"bomb\.pt: would grow to 4,\d*,\d* bytes"):
        read_file(path)


def damage(data: bytes, random: Random) -> bytes:
    """Change, remove or repeat a few bytes."""
    changed = bytearray(data or b"\0")
    for _ in range(random.choice([1, 1, 1, 4, 16])):
        place = random.randrange(len(changed))
        part = changed[place : place + random.choice([1, 2, 8, 100])]
        other = random.choice([b"", bytes(part) * 2, random.randbytes(len(part)), b"\xff" * 4])
        changed[place : place + len(part)] = other or b"\0"
    return bytes(changed)


@pytest.mark.parametrize("form", ["torch", "legacy", "torchscript"])
def test_damaged_files_are_named_or_have_named_tensors(form: str, tmp_path: Path):
    """Checksums are right, so that the damage reaches the reader; but for a file as a whole."""
    path, random = tmp_path / "weights.pt", Random(form)
    content = {"state_dict": {"a": torch.ones(9), "b": nn.Parameter(torch.ones(2, 3)).t()}, "n": 2}
    torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    if form == "torchscript":
        save_torchscript(nn.Sequential(Tower()), path)
    whole, found = path.read_bytes(), Counter[str]()
    parts = members(path) if form != "legacy" else {}
    for number in range(200):
        if not parts or number % 5 == 0:
            path.write_bytes(damage(whole, random))
        else:
            level = random.choice([None, 9])
            name = "weights/data.pkl" if number % 5 < 4 else random.choice(list(parts))
            write_archive(path, {**parts, name: damage(parts[name], random)}, level)
        try:
            named_tensors(read_file(path), str(path))
            found["read"] += 1
        except WeightsError as error:
            found["named" if str(error).startswith(f"{path}: ") else "not named"] += 1
    assert found["not named"] == 0
    assert found["named"] > 100
    assert found["read"] > 3, "some damage changes nothing that is read"


def test_modules_that_hold_themselves_or_each_other_too_often_are_refused(tmp_path: Path):
    path = tmp_path / "weights.pt"
    save_torchscript(Tower(), path)
    bag = b"c__torch__\nBag\n)\x81"  # an object of a class of the archive
    itself = b"\x80\x02" + bag + b"q\0}X\1\0\0\0xh\0sb."
    twice = b"\x80\x02" + bag + b"q\0"
    for number in range(40):  # 2^40 paths to the first bag
        pair = b"}(X\1\0\0\0xh%cX\1\0\0\0yh%cu" % (number, number)
        twice += bag + b"q" + bytes([number + 1]) + pair + b"b"
    for pickled in (itself, twice + b"."):
        replace_pickle(path, pickled)
        with pytest.raises(WeightsError, match="more than 100000 parts, or 100 within each other"):
            read_file(path)


LITTLE_MEMORY = """
import resource, sys
from clipzoo.models.archives import read_file
from clipzoo.runtime import failures
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 26),) * 2)
for path in sys.argv[1:]:
    try:
        read_file(path)
    except ValueError as error:
        print(failures.is_final(error), failures.describe(error))
"""


@pytest.mark.slow
def test_memory_that_runs_out_while_a_file_is_read_names_the_file(tmp_path: Path):
    """Mapped, compressed, a TorchScript archive, and safetensors; none blames the micro-batch."""
    paths = [tmp_path / f"{name}.pt" for name in ("mapped", "compressed", "legacy", "script")]
    paths.append(tmp_path / "own.safetensors")
    content = {"a": torch.zeros(1 << 25)}
    torch.save(content, paths[0])
    write_archive(paths[1], members(paths[0]), 1)
    torch.save(content, paths[2], _use_new_zipfile_serialization=False)
    tower = Tower()
    tower.register_buffer("a", content["a"])
    save_torchscript(tower, paths[3])
    save_file(content, paths[4])
    command = [sys.executable, "-c", LITTLE_MEMORY, *map(str, paths)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == len(paths)
    for path, line in zip(paths, lines, strict=True):
        assert line.startswith(f"True {path}: this machine's memory ran out while it was read")


def odd_tensors() -> dict[str, torch.Tensor]:
    """Tensors that no weights file or scores file of anyone holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are prototypes
        rows = torch.eye(4)
        return {
            "expanded": torch.full((1, 1), 0.5).expand(4, 2),
            "sparse_coo": rows.to_sparse(),
            "sparse_csr": rows.to_sparse_csr(),
            "meta": rows.to("meta"),
            "complex64": rows.to(torch.complex64),
            "quint8": torch.quantize_per_tensor(rows, 0.1, 0, torch.quint8),
            "float8_e5m2": rows.to(torch.float8_e5m2),
        }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", odd_tensors())
def test_odd_tensors_are_refused_by_name(kind: str, tmp_path: Path):
    path = tmp_path / "weights.pt"
    torch.save(odd_tensors()[kind], path)
    with pytest.raises(WeightsError, match=rf"weights\.pt: found .*{kind}.*; allowed: dense"):
        read_tensor(path)
    torch.save({"model_state_dict": {"proj": odd_tensors()[kind]}}, path)
    with pytest.raises(WeightsError, match=rf"weights\.pt: proj: found .*{kind}.*; allowed: dense"):
        named_tensors(read_file(path), str(path))
