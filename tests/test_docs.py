"""README.md and docs/: what they show is what there is."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from clipzoo.__main__ import make_parser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path: path.read_text(encoding="utf-8") for path in PAGES}
MAX_CELL = 120
FILES = ("csv", "json", "parquet", "py", "safetensors", "txt", "yaml")
"""What follows a dot in `train.csv`, which is not a parameter."""
REMOVED = {"data.allow_missing"}
"""Parameters of earlier versions that a page tells to remove."""


def code_blocks(text: str) -> Iterator[str]:
    """Lines of indented blocks, without comments; continued lines are joined."""
    for block in re.findall(r"(?:^    .*\n)+", text.replace("\\\n", ""), re.MULTILINE):
        yield from (line.strip() for line in block.splitlines())


def anchor(heading: str) -> str:
    """The name that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def headings(text: str) -> set[str]:
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {anchor(title) for title in re.findall(r"^#+ (.*)$", plain, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)]*)\)", TEXTS[page]):
        if not target.startswith("https://"):
            name, _, section = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            assert file.is_file(), target
            if section:
                assert section in headings(file.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_are_valid(page: Path):
    assert TEXTS[page].count("python -m clipzoo") == (page.name == "README.md")
    for line in code_blocks(TEXTS[page]):
        if line.startswith("clipzoo "):
            words = shlex.split(line, comments=True)[1:]
            assert callable(make_parser().parse_args(words).run), line


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_parameters_exist(page: Path):
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for section, key in re.findall(r"`(\w+)\.(\w+)", TEXTS[page]):
        if section in params and key not in FILES and f"{section}.{key}" not in REMOVED:
            assert key in params[section], f"{section}.{key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_tables_are_narrow(page: Path):
    for line in TEXTS[page].splitlines():
        if line.startswith("| "):
            longest = max(line.strip("| ").split(" | "), key=len)
            assert len(longest) <= MAX_CELL, longest


@pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")
def test_the_graph_is_the_one_that_dvc_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With one box for the datasets of a stage."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path))
    with Repo(str(ROOT)) as repo:
        edges = repo.index.graph.edges
        drawn = {tuple(s.addressing.partition("@")[0] for s in edge) for edge in edges}
    (graph,) = re.findall(r"flowchart LR\n(.*?)```", TEXTS[ROOT / "docs/pipeline.md"], re.DOTALL)
    arrows = [line.strip().split(" --> ") for line in graph.splitlines()]
    # DVC's edges lead from a stage to what it depends on.
    assert {(end, start) for start, ends in arrows for end in ends.split(" & ")} == drawn


def interval(recipe: str, file: str, key: str) -> str:
    """An accuracy with its interval, as tables have it."""
    metrics = json.loads((ROOT / "metrics" / recipe / f"{file}.json").read_text())
    low, high = (metrics[f"{key}_ci95_{end}"] for end in ("low", "high"))
    return f"{metrics[key]:.1f} ({low:.1f} to {high:.1f})"


@pytest.mark.parametrize("name", ["README.md", "docs/demo.md"])
def test_results_of_the_demo_are_those_in_metrics(name: str):
    row = r"^\| `(demo[^`]*)` \| (.*?) \| (\d.*?) \| (\d.*)?\|$"
    rows = re.findall(row, TEXTS[ROOT / name], re.MULTILINE)
    assert len(rows) == (11 if name == "README.md" else 31)
    for recipe, difference, top1, zero_shot in rows:
        fused = ("fused", "fused_top1") if "fused" in difference else ("test", "top1")
        assert top1 == interval(recipe, *fused), recipe
        if zero_shot:
            assert zero_shot == interval(recipe, "zero_shot_demo_unseen", "full_top1") + " "


def test_the_table_that_repro_prints_is_the_one_of_its_run():
    (row,) = re.findall(r"^\| demo \| (.*?) +\| \w+ \|$", TEXTS[ROOT / "README.md"], re.MULTILINE)
    unseen = ("demo", "zero_shot_demo_unseen")
    shown = [
        interval("demo", "test", "top1"),
        *(interval(*unseen, k) for k in ("full_top1", "gain")),
    ]
    assert [cell.strip() for cell in row.split("|")] == shown


def test_the_layout_names_all_that_is_in_the_library():
    text = TEXTS[ROOT / "docs/pipeline.md"].partition("## Layout of the repository")[2]
    named = set(re.findall(r"^ {8}(\w[\w.]*)", text, re.MULTILINE))
    found = {path.name for path in (ROOT / "src/clipzoo").iterdir() if path.name[0] != "_"}
    assert named == found
