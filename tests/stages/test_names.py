"""Names in params.yaml reach DVC before any of our code: none runs a command or empties a folder.

DVC writes them into the commands, which a shell runs, and into the paths of outputs, which it
removes before their stage runs.
"""

import subprocess
import sys

import pytest

COMMANDS = (
    "x; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "x' ; touch pwned ; '",
    'x" ; touch pwned ; "',
    "x\ntouch pwned",
    "x && touch pwned #",
    "-x; touch pwned",
    "x | touch pwned",
    "\\'; touch pwned",
    "${recipe}; touch pwned",
    "--dataset=x;touch${IFS}pwned",
)
STAGES = ("make_demo", "zero_shot")  # tests/test_pipeline.py: the commands of others are alike


@pytest.fixture
def repository(fresh_workspace):
    fresh_workspace.git("init", "-q")
    fresh_workspace.git("add", ".")
    fresh_workspace.git("commit", "-q", "-m", "start")
    return fresh_workspace


def fails(workspace, *arguments: str) -> str:
    """What a `dvc` command that must fail printed, on both streams."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=workspace.path,
        env=workspace.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode, done.stdout
    assert not list(workspace.path.parent.rglob("pwned*"))
    return done.stdout


def set_names(workspace, names) -> None:
    workspace.set(data__demo=list(names), data__datasets=list(names), data__zero_shot=list(names))


@pytest.mark.slow
def test_no_stage_runs_with_a_name_that_is_not_plain(repository):
    """build_lists and train would first empty lists/<dataset> and plots/<recipe>/train."""
    dataset, recipe = "../../videos", "../../models"
    owned = [repository.path.parent / "videos/mine", repository.path.parent / "models/train/mine"]
    for file in owned:
        file.parent.mkdir(parents=True)
        file.touch()
    set_names(repository, COMMANDS)
    repository.set(recipe=recipe)
    printed = fails(repository, "repro", "--keep-going")
    ran = [line for line in printed.splitlines() if line.startswith("Running stage")]
    assert ran == ["Running stage 'check_names':"]
    assert f"recipe: found {recipe!r}; allowed: parts of" in printed
    for i, name in enumerate(COMMANDS):
        assert f"data.datasets[{i}]: found {name!r}; allowed: 1 to 100 letters" in printed
    # DVC itself refuses this name: annotations and frames would be one folder.
    repository.set(data__datasets=[dataset])
    printed = fails(repository, "repro", "--keep-going")
    assert f"extract_frames@{dataset}" in printed
    assert "Running stage" not in printed
    assert all(file.exists() for file in owned)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_alone_gets_the_name_as_it_is(repository, stage):
    """`--single-item` leaves out check_names: then DVC's quotes alone keep the shell from it."""
    set_names(repository, COMMANDS)
    printed = fails(repository, "repro", "--force", "--single-item", "--keep-going", stage)
    for name in COMMANDS:
        assert f"Running stage '{stage}@{name}'" in printed
    assert printed.count("failed to run: ") == len(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        [{"x; touch pwned": "y"}],
        [["; touch pwned"]],
        "; touch pwned",
        {"x; touch pwned": "y"},
        [None],
    ],
)
def test_values_that_are_no_names_run_nothing(repository, names):
    for key in ("demo", "datasets", "zero_shot"):
        repository.set(**{f"data__{key}": names})
    fails(repository, "repro", "--keep-going")
    for stage in STAGES:
        fails(repository, "repro", "--force", "--single-item", stage)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["recipe", "data__dataset", "model__method"])
def test_other_names_reach_no_command(repository, key):
    repository.set(**{key: "x; touch pwned"})
    for stage in ("check_names", "train"):
        fails(repository, "repro", "--force", "--single-item", stage)
