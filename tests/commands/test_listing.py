"""`clipzoo recipes`."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipzoo.__main__ import main
from clipzoo.commands import listing
from clipzoo.config import ConfigError
from clipzoo.report.recipes import recipe_names

ROOT = Path(__file__).parents[2]
VITB16 = "text4vis/k400-vitb16-f8"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipes and datasets of the repository, without data."""
    for name in ("recipes", "datasets"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIPZOO_DATA", raising=False)
    return tmp_path


def row(name: str) -> dict[str, str]:
    (values,) = listing.recipe_rows([name])
    return dict(zip(listing.HEADER, values, strict=True))


def test_every_recipe_has_a_row(here):
    assert [name for name, *_ in listing.recipe_rows(["*"])] == recipe_names()
    assert row("demo")["Missing here"] == "-"


def test_what_is_published_and_what_is_missing_is_told(here):
    assert row(VITB16) == {
        "Recipe": VITB16,
        "Dataset": "kinetics400",
        "Published": "82.9 top-1",
        "Weights": "openai",
        "Missing here": "videos, annotations of kinetics400",
    }
    (here / "data/annotations/kinetics400").mkdir(parents=True)
    (here / "data/annotations/kinetics400/val.csv").touch()
    assert row(VITB16)["Missing here"] == "videos of kinetics400"
    assert row("text4vis/zero-shot-kinetics600-vitl14-f8")["Missing here"] == (
        "videos, annotations of kinetics600_split1, kinetics600_split2, kinetics600_split3; "
        "model of text4vis/k400-vitl14-f8"
    )
    assert row("text4vis/k400-rn50-f8")["Published"] == "no number"


def test_a_pattern_without_a_recipe_is_an_error(here):
    with pytest.raises(ConfigError, match=r"matches 'text4vis/k400-vitb16-f9' \(did you mean"):
        listing.recipe_rows(["text4vis/k400-vitb16-f9"])


def test_the_list_is_quick_and_builds_no_model(here, capsys, monkeypatch):
    start = time.perf_counter()
    monkeypatch.setattr("sys.argv", ["clipzoo", "recipes", "text4vis/k400-*"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + sum(name.startswith("text4vis/k400-") for name in recipe_names())
    assert time.perf_counter() - start < 10
    code = "import clipzoo.commands.listing, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
