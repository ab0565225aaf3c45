"""dvc.yaml against the code: what a stage depends on is what its script can reach."""

import ast
import functools
from pathlib import Path
from typing import get_args

import pytest
import yaml

from clipzoo import config
from clipzoo.given_files import DIGESTS_DIR, LINKS_DIR, given_files
from clipzoo.settings import TRAINING_KEYS, TRAINING_SECTIONS

ROOT = Path(__file__).parent.parent
METHODS = config.method_names()
PARAMS = config.load_params(ROOT / "params.yaml")
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

# Modules that cannot change a number: they read and write files, start processes, print, find a
# binary, or choose how much is computed at once.
HARMLESS = {
    "src/clipzoo/__init__.py",
    "src/clipzoo/config.py",
    "src/clipzoo/files.py",
    "src/clipzoo/paths.py",
    "src/clipzoo/recorded.py",
    "src/clipzoo/sections.py",
    "src/clipzoo/settings.py",
    "src/clipzoo/tensors.py",
    "src/clipzoo/yaml_files.py",
    "src/clipzoo/runtime/__init__.py",
    "src/clipzoo/runtime/allocator.py",
    "src/clipzoo/runtime/cluster_launch.py",
    "src/clipzoo/runtime/distributed.py",
    "src/clipzoo/runtime/ending.py",
    "src/clipzoo/runtime/failures.py",
    "src/clipzoo/runtime/heartbeat.py",
    "src/clipzoo/runtime/launch.py",
    "src/clipzoo/runtime/lock.py",
    "src/clipzoo/runtime/loopback.py",
    "src/clipzoo/runtime/machine.py",
    "src/clipzoo/runtime/one_run.py",
    "src/clipzoo/runtime/parent.py",
    "src/clipzoo/runtime/pools.py",
    "src/clipzoo/runtime/progress.py",
    "src/clipzoo/data/__init__.py",
    "src/clipzoo/data/ffmpeg.py",
    "src/clipzoo/demo/__init__.py",
    "src/clipzoo/evaluate/__init__.py",
    "src/clipzoo/methods/memory/__init__.py",
    "src/clipzoo/methods/memory/estimates.py",
    "src/clipzoo/methods/memory/start.py",
    "src/clipzoo/models/__init__.py",
}


def file_of(module: str) -> Path | None:
    base = ROOT / "src" / module.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@functools.cache
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


def code_deps(name: str, method: str) -> list[str]:
    """Files and folders of code that a stage depends on, for one value of model.method."""
    deps = [dep.replace("${model.method}", method) for dep in STAGES[name]["deps"]]
    return [dep for dep in deps if dep.startswith(("src/", "stages/"))]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", sorted(STAGES))
def test_deps_are_what_the_script_can_reach(name, method):
    """Both ways: nothing that it reaches is missing, and it reaches all that is named."""
    deps = code_deps(name, method)
    assert f"stages/{name}.py" in deps
    harmless = HARMLESS
    if name == "check_names":  # it imports methods to check their options, and writes nothing else
        methods = ROOT / "src/clipzoo/methods/__init__.py"
        checks = {str(methods.relative_to(ROOT))} | reachable(methods)
        harmless = HARMLESS | checks - reachable(ROOT / "src/clipzoo/report/kept.py")
    other_methods = {f"src/clipzoo/methods/{other}.py" for other in METHODS if other != method}
    needed = reachable(ROOT / "stages" / f"{name}.py") - harmless - other_methods
    missing = {f for f in needed if not any(f == d or f.startswith(d + "/") for d in deps)}
    assert not missing, f"{name} can reach {sorted(missing)}, which dvc.yaml does not name"
    reached = {*needed, f"stages/{name}.py", "src/clipzoo/reference"}
    unused = {d for d in deps if not any(f == d or f.startswith(d + "/") for f in reached)}
    unused -= {"src/clipzoo/reference/labels"}
    assert not unused, f"{name} never reaches {unused}"


def test_commands_hold_no_text_of_a_user():
    """Only ${item} of a matrix, which DVC writes as `--dataset <name>` with the name quoted; and
    `--recipe <name>`."""
    for name, stage in STAGES.items():
        assert "foreach" not in stage
        assert list(stage.get("matrix", {})) in ([], ["dataset"], ["recipe"])
        item = " ${item}" if "matrix" in stage else ""
        assert stage["cmd"] == f"PYTHONPATH=src python stages/{name}.py{item}"


def test_files_that_parameters_name_are_dependencies():
    _, *digests = STAGES["check_names"]["outs"]
    stages = given_files(PARAMS).keys()
    assert digests == [f"{DIGESTS_DIR}/{name}.json" for name in stages]
    assert str(LINKS_DIR) in STAGES["check_names"]["deps"]
    for name in stages:
        assert f"{DIGESTS_DIR}/{name}.json" in STAGES[name]["deps"]


def test_training_settings_are_the_parameters_of_train():
    keys = {*TRAINING_KEYS, *TRAINING_SECTIONS, "${model.method}", "recipe"}
    assert keys == set(STAGES["train"]["params"])


def test_zero_shot_does_not_wait_for_test():
    """They may run side by side; both wait for train."""
    (curve,) = STAGES["interpolation"]["outs"]
    assert curve in STAGES["zero_shot"]["deps"]
    written = {str(out) for kind in ("outs", "metrics") for out in STAGES["test"][kind]}
    for name in ("interpolation", "zero_shot"):
        assert not written & set(STAGES[name]["deps"])
        assert "models/model.safetensors" in STAGES[name]["deps"]


def test_names_are_checked_before_an_output_is_removed():
    """Stages whose outputs' paths have names in them come after check_names."""
    checked, *_ = STAGES["check_names"]["outs"]
    after = {name for name, stage in STAGES.items() if checked in stage["deps"]}
    later = set(after)
    for _ in STAGES:  # those of a later stage come even later
        written = {o for name in later for o in STAGES[name]["outs"] if isinstance(o, str)}
        later |= {name for name, stage in STAGES.items() if written & set(stage["deps"])}
    for name, stage in STAGES.items():
        outs = [str(out) for kind in ("outs", "metrics") for out in stage.get(kind, [])]
        if any("${" in out for out in outs):
            assert name in later, name
    assert {"make_demo", "prepare_clip", "extract_frames", "build_lists"} == after


def test_a_methods_file_reruns_only_rows_of_that_method():
    for name in STAGES:
        for method in METHODS:
            of_methods = {d for d in code_deps(name, method) if "/methods" in d}
            shared = {"src/clipzoo/methods/__init__.py", "src/clipzoo/methods/parts"}
            of_method = {f"src/clipzoo/methods/{method}.py"}
            assert of_methods in (set(), shared | of_method), name


def test_code_deps_are_few():
    deps = [d for stage in STAGES.values() for d in stage["deps"]]
    assert len([d for d in deps if d.startswith("src/")]) <= 64


@pytest.mark.parametrize("name", sorted(STAGES))
def test_deps_exist_in_the_repository(name):
    for dep in code_deps(name, "text4vis"):
        assert (ROOT / dep).exists(), dep


@pytest.mark.parametrize("script", sorted((ROOT / "stages").glob("*.py")), ids=lambda p: p.name)
def test_stage_scripts_are_thin(script):
    (main,) = (
        node
        for node in ast.parse(script.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    assert main.end_lineno is not None
    assert main.end_lineno - main.lineno < 60
    assert script.stem in STAGES


def test_train_and_test_depend_on_what_the_method_reads():
    """On data/frames/<dataset> or on data/attributes/<dataset>, never on both."""
    kinds = get_args(config.ModelConfig.model_fields["inputs"].annotation)
    written = [str(out) for stage in STAGES.values() for out in stage["outs"]]
    for kind in kinds:
        assert any(f"data/{kind}/${{item.dataset}}" in out for out in written), kind
    for name in ("train", "test", "interpolation"):
        deps = STAGES[name]["deps"]
        assert "data/${model.inputs}/${data.dataset}" in deps
        assert not [dep for dep in deps if dep.startswith(("data/frames", "data/attributes"))]
