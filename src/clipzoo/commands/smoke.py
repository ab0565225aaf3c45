"""`clipzoo zoo RECIPE --smoke`: a recipe's stages on a few of the user's videos.

The stages run in a folder of their own, .state/smoke/, with links to the videos and annotation
files, so that nothing of the repository changes, no result least of all. A part of the manifest is
taken, and the ledger there says of all other videos that they are absent: so the official files are
read and checked as a whole, as in a real run.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clipzoo.runtime.ending import run_command
from clipzoo import config
from clipzoo.annotations.wanted import SETS, join
from clipzoo.commands.planned import Options, Run, plan
from clipzoo.commands.use import PARAMS_FILE, write_params
from clipzoo.config import ConfigError, Params, load_params, replace
from clipzoo.data.ledger import LEDGER_COLUMNS, LEDGER_NAME, read_ledger
from clipzoo.data.spec import ANNOTATION_DIR, SPEC_DIR, load_spec, raw_root
from clipzoo.files import write_csv
from clipzoo.frames.manifest import manifest_path, read_manifest, write_manifest
from clipzoo.paths import STATE_DIR
from clipzoo.runtime.machine import count_gpus

SMOKE_DIR = STATE_DIR / "smoke"
STAGES_DIR = Path("stages")
TRAINED, EVALUATED = 4, 12
"""Videos of each set of a dataset that is trained on; and of one for zero-shot, whose halves of the
classes must not be empty."""
BATCH = 2
"""Clips in a step, so that training takes two."""
LEFT_OUT = "absent: left out of the smoke run"


def smoke(name: str, options: Options, *, keep: bool = False) -> None:
    """Run the stages of a recipe on a few videos, and print what was run and what was not.

    Args:
        keep: leave the folder there.

    Raises:
        ConfigError: as `plan`; the recipe is on rendered videos or has its own folders of classes,
            or a stage failed.
        ListError: as for the stages extract_frames and build_lists.
    """
    run = plan(name, options, load_params(PARAMS_FILE).runtime.model_dump())
    params, notes = smoke_params(run)
    folder = SMOKE_DIR / params.recipe
    shutil.rmtree(folder, ignore_errors=True)
    try:
        for dataset in params.data.datasets:
            print(f"{dataset}: {link_dataset(params, dataset, folder)} videos", flush=True)
        (folder / SPEC_DIR).symlink_to(SPEC_DIR.resolve())
        shutil.copyfile(PARAMS_FILE, folder / PARAMS_FILE)
        write_params(params, folder / PARAMS_FILE)
        stages = list(commands(params))
        for number, words in enumerate(stages, 1):
            _run_stage(words, folder, f"[{number}/{len(stages)}]")
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"\nsmoke: {params.recipe}: all {len(stages)} stages ran; no result is written")
    print("not as in the recipe, and so not tried:", *notes, sep="\n  ")
    if keep:
        print(f"kept: {folder}")


def smoke_params(run: Run) -> tuple[Params, list[str]]:
    """The parameters of a smoke run, and how they differ from the run's, a line for each."""
    params, notes = run.params, []
    if params.data.demo:
        raise ConfigError(f"--smoke: {run.name} renders its videos: it is small as it is")
    training = params.train.epochs > 0
    values: dict[str, Any] = {
        "data.shots": 0,
        "train.epochs": int(training),
        "train.warmup_epochs": 0,
        "train.batch_size": BATCH,
        "train.val_every": 1,
        "train.average_epochs": min(params.train.average_epochs, 1),
        "train.milestones": [],
        "test.clips": 1,
        "test.crops": min(params.test.crops, 3),
        "zero_shot.interpolation": params.zero_shot.interpolation[:1],
    }
    if params.text.classifier == "lda":  # needs videos of every class
        values["text.classifier"] = "text"
    if not count_gpus(params.runtime.device):  # 4 to 10 times faster
        values |= {f"{key}.precision": "fp32" for key in ("train", "test")}
        values["train.val_precision"] = "fp32"
    method = params.model.method
    if params.options.get("authors_test_batch"):
        values[f"{method}.authors_test_batch"] = BATCH
    if params.fusion.with_:
        values["fusion.with"] = []
    values |= _absolute_paths(run)
    settings = params.settings()
    changed = {key: value for key, value in values.items() if settings.get(key) != value}
    notes += [f"{key}: {settings[key]!r} -> {value!r}" for key, value in changed.items()]
    return replace(params, changed), [*notes, "all other videos, and DVC itself"]


def _absolute_paths(run: Run) -> dict[str, str]:
    """Files that the settings name, found from another folder too; '' for a parent's model that is
    not there."""
    checkpoint = run.given_model or Path(run.params.model.checkpoint)
    values = {}
    if run.params.model.checkpoint:
        there = checkpoint.is_file()
        values["model.checkpoint"] = str(checkpoint.resolve()) if there else ""
    settings = run.params.settings()
    for key in ("model.weights", "attributes.weights", "attributes.lexicon"):
        path = Path(settings.get(key) or "/")
        if path.is_file():
            values[key] = str(path.resolve())
    return values


def link_dataset(params: Params, dataset: str, folder: Path) -> int:
    """Make a part of a dataset in another folder; returns its number of videos."""
    spec = load_spec(dataset)
    if spec.format == "folder":
        raise ConfigError(f"--smoke: {dataset} is in folders of classes; it is for official lists")
    manifest = read_manifest(manifest_path(dataset))
    joined = join(params, dataset, spec, [video.video_id for video in manifest])
    ledger = read_ledger(dataset)
    count = EVALUATED if dataset in params.data.zero_shot else TRAINED
    picked: set[str] = set()
    for kind in SETS:
        usable = [
            video.copies[0]
            for video in joined.videos
            if video.kind == kind and video.copies and video.copies[0] not in ledger
        ]
        picked.update(usable[:: max(1, len(usable) // count)][:count])  # of many classes
    videos = [video for video in manifest if video.video_id in picked]
    write_manifest(videos, folder / manifest_path(dataset))
    (folder / manifest_path(dataset).with_suffix("")).symlink_to(
        raw_root(params, dataset).resolve()
    )
    annotations = folder / ANNOTATION_DIR / dataset
    annotations.mkdir(parents=True)
    for path in (ANNOTATION_DIR / dataset).iterdir():
        if path.name != LEDGER_NAME:
            (annotations / path.name).symlink_to(path.resolve())
    left_out = {copy for video in joined.videos for copy in video.copies} - picked
    rows = ledger | dict.fromkeys(left_out, LEFT_OUT)
    write_csv(LEDGER_COLUMNS, sorted(rows.items()), annotations / LEDGER_NAME)
    return len(videos)


def commands(params: Params) -> Iterator[list[str]]:
    """The stages of a run in their order, with their arguments."""
    yield ["check_names"]
    yield ["prepare_clip"]
    for dataset in params.data.datasets:
        for stage in ("extract_frames", "build_lists", "embed_labels"):
            yield [stage, "--dataset", dataset]
    for dataset in params.attributes.datasets:
        yield ["attributes", "--dataset", dataset]
    yield ["train"]
    yield ["test"]
    yield ["interpolation"]
    for dataset in params.data.zero_shot:
        yield ["zero_shot", "--dataset", dataset]


def _run_stage(words: Sequence[str], folder: Path, number: str) -> None:
    """Run a stage in a folder; ConfigError if it fails."""
    stage, *arguments = words
    print(f"\n{number} {' '.join(words)}", flush=True)
    source = Path(config.__file__).resolve().parents[1]
    begin = time.monotonic()
    code = run_command(
        [sys.executable, str(STAGES_DIR.resolve() / f"{stage}.py"), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source)},
    )
    if code:
        raise ConfigError(f"smoke: the stage {stage} failed; see its message above")
    print(f"{stage}: {time.monotonic() - begin:.0f} s", flush=True)
