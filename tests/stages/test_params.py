"""dvc.yaml's `params` against what each stage reads, both ways."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipzoo import config
from clipzoo.config import Params, Section
from clipzoo.report.kept import take_predictions

STAGES = yaml.safe_load((Path(__file__).parents[2] / "dvc.yaml").read_text())["stages"]

# Values that a stage reads and that cannot change what it writes: paths, messages and checks.
HARMLESS = {
    ("extract_frames", "data.demo"),
    ("train", "test.clips"),
    ("train", "test.dense"),
    ("train", "zero_shot.clips"),
    ("train", "data.zero_shot"),
    ("train", "text.templates"),
    ("test", "text.templates"),
    ("interpolation", "text.templates"),
    ("zero_shot", "text.templates"),
}
# Values that a stage reads for other settings than those of the demo.
ELSEWHERE = {
    ("prepare_clip", "demo.other_archs.pretrain_batch"),  # another model.arch
    ("prepare_clip", "demo.other_archs.pretrain_steps"),
    ("train", "demo.other_archs.train_steps"),
    ("train", "test.precision"),  # text.classifier lda
    ("train", "demo.other_archs.eval_videos"),
    ("test", "demo.other_archs.eval_videos"),
    ("interpolation", "demo.other_archs.eval_videos"),
    ("zero_shot", "demo.other_archs.eval_videos"),
    ("attributes", "attributes.weights"),  # of an attributes.arch of its own
    ("test", "seed"),  # random clips, of methods that have them
    ("interpolation", "seed"),
    ("zero_shot", "seed"),
    ("build_lists", "seed"),  # few-shot picks, of classes with more videos; folders of classes
    ("embed_labels", "seed"),  # text.classifier random or orthogonal
}


class Recorder:
    """A section, or all parameters, that notes which values are read."""

    def __init__(self, section: Section, prefix: str, reads: set[str]) -> None:
        self._section, self._prefix, self._reads = section, prefix, reads

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._section, name)
        if isinstance(value, Section):
            return Recorder(value, f"{self._prefix}{name}.", self._reads)
        if name == "options":  # of the active method
            self._reads.add(self._section.model_dump()["model"]["method"])
        elif name in type(self._section).model_fields:
            field = type(self._section).model_fields[name]
            self._reads.add(f"{self._prefix}{field.alias or name}")
        return value

    def model_copy(self, *, update: dict[str, Any]) -> "Recorder":
        values = {
            key: value._section if isinstance(value, Recorder) else value
            for key, value in update.items()
        }
        return Recorder(self._section.model_copy(update=values), self._prefix, self._reads)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets the section itself, and may read all of it."""
        self._reads.update(f"{self._prefix}{name}" for name in type(self._section).model_fields)
        return (type(self._section).model_validate, (self._section.model_dump(),))


def expand(keys: list[str], params: Params) -> Iterator[tuple[str, set[str]]]:
    """Each key of dvc.yaml with the values that it stands for."""
    for key in keys:
        if key == "${model.method}":
            yield key, {params.model.method}
        elif key in Params.model_fields and isinstance(getattr(params, key), Section):
            fields = type(getattr(params, key)).model_fields
            yield key, {f"{key}.{field.alias or name}" for name, field in fields.items()}
        else:
            yield key, {key}


def keep_predictions(root: Path) -> None:
    """Those of the run for those of another recipe, as `zoo --parent` takes them."""
    shutil.copy(root / "metrics/demo/test.json", root / "predictions")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        take_predictions("demo/other", Path("predictions/test.safetensors"))


@pytest.mark.slow
def test_stages_read_the_parameters_that_they_depend_on(fresh_workspace, monkeypatch):
    fresh_workspace.set(demo__train_videos=1, train__epochs=2, train__val_every=2)
    fresh_workspace.set(zero_shot__interpolation=[0.5])  # without, no other value is read
    load = config.load_params
    params = load(fresh_workspace.path / "params.yaml")
    faults = []
    for name, stage in STAGES.items():
        reads: set[str] = set()
        monkeypatch.setattr(config, "load_params", lambda *_, r=reads: Recorder(load(), "", r))
        items = ["demo_shapes", "demo_unseen"] if "matrix" in stage else [None]
        if name == "fuse":
            keep_predictions(fresh_workspace.path)
            items = ["demo/other"]
        for item in items:
            if (name, item) != ("zero_shot", "demo_shapes"):
                fresh_workspace.run_here(name, *filter(None, [item]))
        declared = dict(expand(stage.get("params", []), params))
        covered = set().union(*declared.values())
        reads = {key for key in reads if not key.startswith("runtime.")}
        faults += [
            f"{name} reads {key}, which dvc.yaml does not list"
            for key in reads - covered
            if (name, key) not in HARMLESS
        ]
        faults += [
            f"{name} depends on {key} and does not read it"
            for key, values in declared.items()
            # check_names checks all while it loads them
            if not values & reads and (name, key) not in ELSEWHERE and name != "check_names"
        ]
    assert not faults, "\n".join(sorted(faults))
