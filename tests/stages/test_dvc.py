"""The promises of DVC: repro, a no-op repro, experiments, diffs."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
import yaml

from browser import open_page
from clipzoo.config import load_params
from clipzoo.tensors import read_safetensors, write_safetensors


@pytest.fixture
def repository(demo, tmp_path):
    """A copy of the whole repository after `dvc repro`, with its results committed."""
    path = tmp_path / "repository"
    shutil.copytree(demo.path, path, symlinks=True)
    copy = type(demo)(path)
    copy.git("add", ".")
    copy.git("commit", "-q", "-m", "results")
    return copy


def stages_run(output: str) -> set[str]:
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def lock_of(repository) -> dict:
    return yaml.safe_load((repository.path / "dvc.lock").read_text())["stages"]


def top1(repository) -> float:
    return json.loads((repository.path / "metrics/demo/test.json").read_text())["top1"]


def test_repro_runs_every_stage_and_the_second_runs_none(demo, repository):
    stages = lock_of(demo)
    assert len(stages) == 15
    for name in stages:
        assert f"Running stage '{name}'" in demo.first_repro
    assert "dvc push" not in demo.first_repro
    (line,) = [line for line in demo.first_repro.splitlines() if line.startswith("seconds: ")]
    assert set(re.findall(r"(\S+) \d+,", line)) - {"itself"} == set(stages)
    assert re.search(r", dvc itself \d+; \d+ in all$", line)
    assert "Running stage" not in repository.dvc("repro")


@pytest.mark.slow
def test_experiments_change_one_value_and_can_be_compared(repository):
    repository.set(data__zero_shot=[])
    before = (repository.path / "params.yaml").read_text().splitlines()
    change = ("-S", "train.lr=5e-5", "-S", "train.epochs=1")
    out = repository.dvc("exp", "run", *change)
    assert stages_run(out) == {"check_names", "train", "test", "interpolation", "report"}
    after = (repository.path / "params.yaml").read_text().splitlines()
    changed = [b.strip() for a, b in zip(before, after, strict=True) if a != b]
    assert [line.split(":")[0] for line in changed] == ["epochs", "lr"]
    params = load_params(repository.path / "params.yaml")
    assert (params.train.lr, params.train.epochs) == (5e-5, 1)
    difference = json.loads(repository.dvc("metrics", "diff", "--json"))
    assert difference["metrics/demo/train.json"]["steps"] == {"old": 24, "new": 4, "diff": -20}
    shown = json.loads(repository.dvc("exp", "show", "--json"))
    assert "metrics/demo/test.json" in json.dumps(shown)
    repository.dvc("plots", "diff", "--out", "page")
    page = (repository.path / "page/index.html").read_text()
    assert "Training loss" in page
    assert "workspace" in page


def test_git_is_offered_no_data_after_a_stage_that_failed(repository):
    """DVC takes the outputs of a stage out of its .gitignore files while the stage runs."""

    def offered() -> list[str]:
        done = subprocess.run(
            ["git", "status", "--porcelain", "-uall"],
            cwd=repository.path,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.splitlines()

    assert offered() == []
    for name in ("extract_frames", "embed_labels"):
        with open(repository.path / f"stages/{name}.py", "w") as file:
            file.write("raise SystemExit(3)\n")
        with pytest.raises(AssertionError, match=f"failed to reproduce '{name}@demo_shapes'"):
            repository.dvc("repro", f"{name}@demo_shapes")
        assert (repository.path / "data/frames/demo_shapes/index.parquet").is_file()
        assert offered() == [f" M stages/{name}.py"]
        repository.git("checkout", "-q", "--", "stages")


def test_moving_to_another_machine_reruns_nothing(repository):
    repository.set(runtime__processes=3, runtime__micro_batch=3, runtime__workers=3)
    assert "Running stage" not in repository.dvc("repro")


def running(repository) -> set[str]:
    """Stages that `dvc repro` would run."""
    return stages_run(repository.dvc("repro", "--dry"))


def test_what_an_edit_reruns(repository):
    """A method's file: the rows of that method alone. The recipe's name: not the CLIP weights."""
    texts = {f"embed_labels@{dataset}" for dataset in ("demo_shapes", "demo_unseen")}
    # And the report of what they change.
    rows = {"train", "test", "interpolation", "zero_shot@demo_unseen"}
    for name, expected in (("raw", set()), ("text4vis", texts | rows)):
        with open(repository.path / f"src/clipzoo/methods/{name}.py", "a") as file:
            file.write("# edited\n")
        assert running(repository) == expected
    repository.git("checkout", "-q", "--", "src")
    repository.set(recipe="another", data__zero_shot=[])
    assert running(repository) == {"check_names", "train", "test", "report"}


def test_train_comes_after_the_stage_that_writes_what_the_method_reads(repository):
    """Of a method of frames, no stage of attributes; without a placeholder for its outputs."""
    assert not (repository.path / "data/attributes").exists()

    def edges() -> set[tuple[str, str]]:
        lines = repository.dvc("dag", "--dot", "train").splitlines()
        pairs = (line.replace('"', "").strip(" ;").split(" -> ") for line in lines if "->" in line)
        return {(before, after) for before, after in pairs}

    of_frames = edges()
    assert ("extract_frames@demo_shapes", "train") in of_frames
    repository.set(model__method="bike_attributes", model__inputs="attributes")
    repository.set(attributes__datasets=["demo_shapes"], data__zero_shot=[])
    of_attributes = edges()
    assert ("attributes@demo_shapes", "train") in of_attributes - of_frames
    assert ("extract_frames@demo_shapes", "train") not in of_attributes


def test_tables_of_experiments_have_the_metrics_of_the_active_run_alone(repository):
    """Those of all runs in git made a table of 1,260 columns."""
    shutil.copytree(repository.path / "metrics/demo", repository.path / "metrics/other")
    repository.git("add", ".")
    repository.git("commit", "-q", "-m", "another run")
    first, *_ = json.loads(repository.dvc("exp", "show", "--json"))
    metrics = first["data"]["metrics"]
    names = ("train", "test", "zero_shot_demo_unseen")
    of_run = {f"metrics/demo/{name}.json" for name in names}
    assert set(metrics) == of_run | {"metrics/clip.json", "summary.json"}
    header = repository.dvc("exp", "show", "--csv").partition("\n")[0].split(",")
    assert {"summary.top1", "summary.demo_unseen.gain", "summary.verdict"} <= set(header)
    for name in of_run:  # metrics diff compares every value
        values = json.loads((repository.path / name).read_text())
        assert metrics[name]["data"] == values


@pytest.mark.slow
def test_plots_are_shown_without_a_network(repository):
    """All charts and pictures, by scripts that are in the page."""
    repository.dvc("plots", "show", "--out", "shown")
    repository.dvc("plots", "diff", "HEAD", "--out", "changed")
    for folder in ("shown", "changed"):
        text = (repository.path / folder / "index.html").read_text()
        assert "{plot_divs}" not in text
        assert "<script src" not in text.replace("'", '"')
        assert "University of Washington Interactive Data Lab" in text
    with open_page() as (page, record):
        page.goto((repository.path / "shown/index.html").as_uri())
        for chart in ("loss", "val_top1", "lr", "confusion", "per_class"):
            canvas = page.locator(f"#{chart} canvas")
            canvas.wait_for()
            area = canvas.bounding_box()
            assert area
            assert min(area["width"], area["height"]) > 100
        pictures = [address.rsplit("_", 1)[1] for address in record.requests if ".png" in address]
        assert sorted(pictures) == ["class.png", "confusion.png", "examples.png"]
        page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
        assert record.outside() == []
        assert not [error for error in record.errors if error.startswith("script:")]


def test_an_experiment_with_wrong_parameters_fails_in_the_first_stage(repository):
    """With all that is wrong, before a stage that would take hours runs."""
    values = {"train__lr": "abc", "frames__size": 40, "model__arch": "ViT-X"}
    repository.set(**values, text4vis__head_layers="many")
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--keep-going"],
        cwd=repository.path,
        env=repository.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode
    assert stages_run(done.stdout) == {"check_names"}
    for fault in (
        "train.lr: found 'abc'; allowed: a valid number",
        "model.arch: found 'ViT-X'",
        "text4vis.head_layers: found 'many'; allowed: a valid integer",
    ):
        assert fault in done.stderr


@pytest.mark.slow
def test_the_logs_of_a_queued_experiment_say_what_is_wrong_in_its_parameters(repository):
    wrong = ("-S", "train.lr=abc", "-S", "test.clips=0")
    repository.dvc("exp", "run", "--queue", *wrong, "--name", "wrong")
    repository.dvc("queue", "start")
    for _ in range(600):
        status = repository.dvc("queue", "status")
        if "Failed" in status or "Success" in status:
            break
        time.sleep(0.1)
    assert "Failed" in status
    logs = repository.dvc("queue", "logs", "wrong")
    assert "train.lr: found 'abc'; allowed: a valid number" in logs
    assert "test.clips: found 0" in logs
    assert stages_run(logs) == {"check_names"}


@pytest.mark.slow
def test_queued_experiments_run(repository):
    repository.dvc("exp", "run", "--queue", "-S", "train.epochs=1", "--name", "short")
    repository.dvc("queue", "start")
    repository.dvc("queue", "logs", "--follow", "short")
    assert "Success" in repository.dvc("queue", "status")
    shown = repository.dvc("exp", "show", "--csv")
    assert "short" in shown


@pytest.mark.slow
def test_new_content_behind_a_path_reruns_what_reads_it(repository):
    path = repository.path / "start.safetensors"
    shutil.copy(repository.path / "models/model.safetensors", path)
    repository.set(data__zero_shot=[], train__epochs=0, model__checkpoint=str(path))
    repository.dvc("repro")
    assert "Running stage" not in repository.dvc("repro")
    tensors, metadata = read_safetensors(path)
    tensors["visual.proj"] = tensors["visual.proj"] * 1.5
    write_safetensors(tensors, path, metadata)
    expected = {"check_names", "train", "test", "interpolation", "report"}
    assert stages_run(repository.dvc("repro")) == expected
    os.remove(path)
    repository.set(model__checkpoint="")
    assert stages_run(repository.dvc("repro", module="clipzoo")) == expected


@pytest.mark.slow
def test_params_stay_those_that_a_run_began_with(repository):
    """Neither `use` nor an editor gives one run's results the settings of another."""
    repository.set(train__epochs=16, data__zero_shot=[])
    before = lock_of(repository)["train"]
    command = [sys.executable, "-m", "dvc", "repro", "train"]
    options = {"cwd": repository.path, "env": repository.environment(), "text": True}
    with subprocess.Popen(command, **options, stderr=subprocess.PIPE) as process:
        states = repository.path / ".state/train"
        while not any(states.glob("*/*.pt")) and process.poll() is None:
            time.sleep(0.1)
        use = [sys.executable, "-m", "clipzoo", "use", "demo/raw"]
        done = subprocess.run(use, **options, capture_output=True, check=False)
        assert done.returncode == 1
        assert "train runs here (process" in done.stderr
        repository.set(train__lr=0.5)
        assert process.stderr is not None
        error = process.stderr.read()
    assert process.returncode
    assert "params.yaml has changed since this run began (train.lr: 0.002 -> 0.5)" in error
    assert lock_of(repository)["train"] == before
    repository.set(train__lr=0.002)
    assert "resuming" in repository.dvc("repro", "train")
