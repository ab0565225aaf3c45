"""What `use`, `check` and `repro` say of params.yaml and of what git tracks."""

import subprocess
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from clipzoo.commands import planned, use
from clipzoo.config import ConfigError


def test_what_an_interrupted_experiment_left_is_named(here):
    assert use.leftovers() == ""
    apply_overrides(here / "params.yaml", ["train.epochs=5", "zero_shot.clips=2"])
    line = use.leftovers()
    assert "differs from the recipe demo in train.epochs (5 instead of 20), zero_shot.clips" in line
    assert "`clipzoo use demo` takes it back" in line
    use.use("demo")
    assert use.leftovers() == ""
    apply_overrides(here / "params.yaml", ["recipe=mine", "train.epochs=5"])
    assert use.leftovers() == ""


def test_options_of_a_run_are_not_left_over(here):
    Path("k400.pt").write_text("weights")
    use.use("demo", planned.Options(released=Path("k400.pt")))
    assert use.leftovers() == ""
    parent = {"text4vis/k400-vitl14-f16": Path("k400.pt")}
    use.use("text4vis/ucf101-vitl14-f16", planned.Options(parents=parent))
    assert use.leftovers() == ""


def test_an_untracked_annotation_file_is_found_before_the_experiment_is_queued(here):
    def git(*words: str) -> None:
        subprocess.run(["git", *words], check=True, capture_output=True)

    git("init", "-q")
    files = [Path("data/annotations/kinetics400/train.csv"), Path("data/raw/kinetics400.csv")]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    before = Path("params.yaml").read_bytes()
    message = r"(?s)git does not track 2 files \(data/annotations/kinetics400/train\.csv.*git add"
    with pytest.raises(ConfigError, match=message):
        use.queue("text4vis/k400-vitb16-f8")
    assert Path("params.yaml").read_bytes() == before
    git("add", *map(str, files))
    use._check_tracked(planned.plan("text4vis/k400-vitb16-f8").params)
