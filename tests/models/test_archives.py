import os
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from clipzoo.models.archives import named_tensors, read_file
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
