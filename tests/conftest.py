"""A project folder to run the data stages in."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from clipzoo.config import Params, load_params

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with params.yaml as the working directory."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIPZOO_DATA", raising=False)
    return tmp_path


ParamsFor = Callable[..., Params]


@pytest.fixture
def params_for(project: Path) -> ParamsFor:
    """params_for("mine", data={...}, frames={...}): the defaults with one dataset, and changes."""

    def build(dataset: str, **changes: dict[str, object]) -> Params:
        params = load_params(ROOT / "params.yaml")
        sections: dict[str, object] = {
            "data": {"dataset": dataset, "datasets": [dataset], "demo": [], "zero_shot": []},
            "frames": {"size": "48"},
        }
        for name, values in changes.items():
            sections[name] = {**sections.get(name, {}), **values}  # pyright: ignore
        replaced = {
            name: dataclasses.replace(getattr(params, name), **values)  # pyright: ignore
            for name, values in sections.items()
        }
        return dataclasses.replace(params, **replaced)

    return build
