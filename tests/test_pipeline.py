"""dvc.yaml against the code: what a stage depends on is what its script can reach."""

import ast
from pathlib import Path

import pytest
import yaml

from clipzoo.config import Params, Section

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

# Modules that cannot change a number: they read and write files, start processes, print, or find a
# binary.
HARMLESS = {
    "src/clipzoo/__init__.py",
    "src/clipzoo/config.py",
    "src/clipzoo/files.py",
    "src/clipzoo/tensors.py",
    "src/clipzoo/runtime/distributed.py",
    "src/clipzoo/runtime/launch.py",
    "src/clipzoo/runtime/progress.py",
    "src/clipzoo/data/__init__.py",
    "src/clipzoo/frames/ffmpeg.py",
    "src/clipzoo/demo/__init__.py",
    "src/clipzoo/models/__init__.py",
}


def stage_body(name: str) -> dict:
    return STAGES[name].get("do", STAGES[name])


def file_of(module: str) -> Path | None:
    base = ROOT / "src" / module.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imported_files(path: Path) -> set[Path]:
    """First-party files that a file imports, anywhere in it."""
    files = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        files |= {file_of(n) for n in names if n.split(".")[0] == "clipzoo"} - {None}
    return files


def reachable(path: Path) -> set[str]:
    """Paths, relative to the root, of all first-party files that a script can reach."""
    seen, todo = set(), [path]
    while todo:
        for file in imported_files(todo.pop()) - seen:
            seen.add(file)
            todo.append(file)
    return {str(file.relative_to(ROOT)) for file in seen}


@pytest.mark.parametrize("name", sorted(STAGES))
def test_deps_cover_the_imports(name):
    deps = [d for d in stage_body(name)["deps"] if d.startswith(("src/", "stages/"))]
    assert f"stages/{name}.py" in deps
    needed = reachable(ROOT / "stages" / f"{name}.py") - HARMLESS
    uncovered = {f for f in needed if not any(f == d or f.startswith(d + "/") for d in deps)}
    assert not uncovered, f"{name} can reach {sorted(uncovered)}, which dvc.yaml does not name"
    unused = {d for d in deps if d.startswith("src/")} - needed
    unused = {d for d in unused if not any(f.startswith(d + "/") for f in needed)}
    assert not any(d for d in unused if (ROOT / d).suffix == ".py"), (
        f"{name} never reaches {unused}"
    )


@pytest.mark.parametrize("name", sorted(STAGES))
def test_deps_exist_in_the_repository(name):
    for dep in stage_body(name)["deps"]:
        if dep.startswith(("src/", "stages/")):
            assert (ROOT / dep).exists(), dep


@pytest.mark.parametrize("name", sorted(STAGES))
def test_params_exist_and_runtime_is_in_none(name):
    for key in stage_body(name).get("params", []):
        kind, _, field = key.partition(".")
        assert kind != "runtime"
        if key == "${model.method}":
            continue
        assert kind in Params.model_fields, key
        section = Params.model_fields[kind].annotation
        if field:
            assert isinstance(section, type)
            assert issubclass(section, Section)
            assert field in section.model_fields, key


def test_stages_that_build_the_model_depend_on_its_methods_options():
    named = {name for name in STAGES if "${model.method}" in stage_body(name).get("params", [])}
    assert named == {"train", "test", "zero_shot"}
    assert all("model" in stage_body(name)["params"] for name in named)


@pytest.mark.parametrize("script", sorted((ROOT / "stages").glob("*.py")), ids=lambda p: p.name)
def test_stage_scripts_are_thin(script):
    assert len(script.read_text().splitlines()) <= 65
    assert script.stem in STAGES
