"""What a result was made with, as the report reads it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from clipzoo.config import load_params
from clipzoo.evaluate import provenance
from clipzoo.files import write_metrics
from clipzoo.report.verdicts import read_settings
from clipzoo.settings import training_settings

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
HERE = "torch 2, x86_64 AVX2"


def trained_as(monkeypatch: pytest.MonkeyPatch, clip: str = HERE, **changes: object) -> None:
    """Let the model file have this metadata."""
    values = {"split": {}, "environment": HERE, "checkpoint_sha256": ""} | changes
    settings = training_settings(PARAMS.settings())
    clip_meta = SimpleNamespace(environment=clip)
    meta = SimpleNamespace(clip=clip_meta, settings=settings, **values)
    monkeypatch.setattr(provenance, "read_model_metadata", lambda: meta)


@pytest.fixture(autouse=True)
def on_a_known_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provenance, "environment", lambda device: HERE)
    monkeypatch.setattr(provenance, "MODEL_FILE", __file__)
    trained_as(monkeypatch)


def test_settings_are_read_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def record(run: str) -> dict[str, str]:
        described = provenance.record_provenance(PARAMS, "cpu", tmp_path / "plots" / run)
        write_metrics(tmp_path / f"metrics/{run}.json", {"top1": 50.0, **described})
        return described

    demo = record("demo/test")
    trained_as(monkeypatch, split={"runtime.micro_batch": 32})
    rn50 = record("rn50/test")
    read = read_settings(tmp_path, "demo", "test")
    assert read is not None
    assert read["train.lr"] == PARAMS.train.lr
    assert read["data.datasets"] == PARAMS.data.datasets
    assert not any(key.startswith("runtime") for key in read)
    assert read_settings(tmp_path, "rn50", "test") == read | {"runtime.micro_batch": 32}
    assert read_settings(tmp_path, "demo", "zero_shot_x") is None
    assert demo["settings_sha256"] != rn50["settings_sha256"]
    write_metrics(tmp_path / "metrics/demo/test.json", {"top1": 50.0, **rn50})
    assert read_settings(tmp_path, "demo", "test") is None


def test_results_of_another_model_have_no_settings(tmp_path: Path):
    described = provenance.record_provenance(PARAMS, "cpu", tmp_path / "plots/demo/test")
    path = tmp_path / "metrics/demo/test.json"
    write_metrics(path, {"top1": 50.0, **described})
    assert read_settings(tmp_path, "demo", "test") == PARAMS.settings()
    write_metrics(path, {"top1": 50.0, **described, "training_sha256": "ab" * 32})
    assert read_settings(tmp_path, "demo", "test") is None


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (("", ""), HERE),
        ((HERE, HERE), HERE),
        (("torch 1, x86_64 AVX512", HERE), f"torch 1, x86_64 AVX512; {HERE}"),
    ],
)
def test_every_environment_is_named_once(
    model: tuple[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trained_as(monkeypatch, clip=model[0], environment=model[1])
    assert provenance.record_provenance(PARAMS, "cpu", tmp_path)["environment"] == words
    assert json.loads((tmp_path / "settings.json").read_text())["seed"] == PARAMS.seed


def test_the_file_that_a_run_evaluates_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert "checkpoint_sha256" not in provenance.record_provenance(PARAMS, "cpu", tmp_path)
    trained_as(monkeypatch, checkpoint_sha256="ab" * 32)
    described = provenance.record_provenance(PARAMS, "cpu", tmp_path)
    assert described["checkpoint_sha256"] == "ab" * 32
