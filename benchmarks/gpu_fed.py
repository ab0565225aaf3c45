"""How fast the loader feeds a GPU: threads, processes, and the share of a step spent waiting.

Frames are made up (gpu_frames.py), or those of a frame store that is ready (`--frames`). They stay
in the page cache if they are few, so that this measures processors, not disks. Torch's own threads
(those inside an operator) are as `train` has them: left alone in one process; in several, the
launcher's number, cores / processes.
"""

import itertools
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpu_frames import write_frames
from gpu_loading import servers, train_clips
from gpu_report import Section
from gpu_setting import Setting, free_memory, synchronize
from gpu_steps import RECIPE, Stepper, batch_that_fits, params_for

from clipzoo.clips.clips import ViewClips
from clipzoo.clips.transforms import ViewTransform
from clipzoo.config import replace
from clipzoo.data.index import INDEX_NAME
from clipzoo.data.store import ShardStore
from clipzoo.runtime.machine import count_workers, usable_cores
from clipzoo.train.log import WaitingTime
from clipzoo.train.loop import load_steps
from clipzoo.train.plan import Plan
from clipzoo.train.setup import Run

SIZES = {"340x256": "340x256", "320": "426x320"}
"""`frames.size` -> size of the frames; short side 320 is how Kinetics is often stored."""
MOST_LOST_PCT = 5.0
"""Above it, decoding on the GPU would pay."""
STEP_SECONDS = 3.0


def fed(section: Section, setting: Setting) -> None:
    """Loader rates, then steps with a real loader."""
    with tempfile.TemporaryDirectory() as name:
        indexes = prepare(section, setting, Path(name))
        for stored, index in indexes.items():
            if section.enough_time(15, f"{stored}: loader"):
                with section.attempt(f"{stored}: loader"):
                    _load(section, setting, stored, index)
        for arch, stored in itertools.product(setting.archs[:2], indexes):
            if section.enough_time(8, f"{arch}: fed with {stored}"):
                with section.attempt(f"{arch}: fed with {stored}"):
                    _feed(section, setting, arch, stored, indexes[stored])
                free_memory(setting.device)


def prepare(section: Section, setting: Setting, folder: Path) -> dict[str, Path]:
    """What is stored -> index of the frame store: the stores of `--frames`, or two made-up ones."""
    if setting.stores:
        return {str(store): Path(store).resolve() / INDEX_NAME for store in setting.stores}
    indexes = {}
    for stored in list(SIZES)[: setting.stored_sizes]:
        indexes[stored] = folder / stored / INDEX_NAME
        size_kb = write_frames(folder / stored, SIZES[stored], setting.videos, setting.frames)
        section.note(f"made-up frames of {SIZES[stored]}, {size_kb:.1f} KB each")
    return indexes


def counts(cores: int) -> list[int]:
    """1, 2, 4, ... and the number of cores."""
    return sorted({2**i for i in range(cores.bit_length()) if 2**i <= cores} | {cores})


def _load(section: Section, setting: Setting, stored: str, index: Path) -> None:
    """Clips a second of N threads and of N processes, and of N programs of one thread each, which
    share nothing."""
    most = setting.loaders or usable_cores()
    with servers(index, setting.num_segments, setting.input_px, most) as running:
        ones: dict[str, float] = {}

        def add(kind: str, number: int, rate: float) -> None:
            one = ones.setdefault(kind, rate)
            values = {"stored": stored, "loading": kind, "number": number, "clips/s": rate}
            section.row("Clips a second of the loader", **values, **{"x of one": rate / one})

        for kind in ("threads", "processes"):
            for number in counts(most):
                running[0].ask(kind, number, setting.load_seconds, 0)
                add(kind, number, running[0].answer())
        for number in counts(most):
            for server in running[:number]:
                server.ask("threads", 1, setting.load_seconds, max(1, most // number))
            add("programs", number, sum(server.answer() for server in running[:number]))


def _feed(section: Section, setting: Setting, arch: str, stored: str, index: Path) -> None:
    """Steps on clips in memory, then the same steps on clips from the loader."""
    chosen = replace(params_for(setting, arch, RECIPE), {"runtime.workers": 0}).runtime
    workers = count_workers(chosen, 1, on_gpu=True)  # as `train` does
    store = ShardStore(index)
    batch = batch_that_fits(setting, arch)
    stepper = Stepper(setting, arch, RECIPE, batch)
    stepper.warm_up()
    in_memory = min(stepper.seconds(3) for _ in range(3))
    steps = max(6, math.ceil(STEP_SECONDS / in_memory)) if setting.device.type == "cuda" else 6
    with _scratch_folder():
        run = _run(setting, stepper, store, batch=batch, steps=steps, workers=workers)
        waiting = WaitingTime(setting.device)
        began = 0.0
        for step in load_steps(run, 0, waiting):
            stepper.trial.step(step.labels, step.parts, step.inputs)
            if step.number == 1:  # the first two fill the queue
                synchronize(setting.device)
                waiting.read()
                began, waiting.seconds = time.perf_counter(), 0.0
        synchronize(setting.device)
        waiting.read()
        each = (time.perf_counter() - began) / (steps - 2)
    lost = 100 * (1 - in_memory / each)
    section.row(
        "Steps of the recipe, fed by the loader",
        model=arch,
        stored=stored,
        workers=workers,
        clips=batch,
        **{
            "in memory: clips/s": batch / in_memory,
            "fed: clips/s": batch / each,
            "waits for clips %": 100 * waiting.seconds / (each * (steps - 2)),
            "lost to waiting %": lost,
        },
    )
    pays = lost > MOST_LOST_PCT
    section.goal(
        f"at most {MOST_LOST_PCT:g} % of a step lost to waiting, {arch}, frames of {stored}",
        lost,
        f"{lost:.1f} % with {workers} workers; decoding on the GPU would "
        f"{'pay' if pays else 'not pay'}",
        met=not pays,
    )


@contextmanager
def _scratch_folder() -> Iterator[None]:
    """An empty working directory, in which a run would write."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            yield
        finally:
            os.chdir(before)


def _run(
    setting: Setting, stepper: Stepper, store: ShardStore, *, batch: int, steps: int, workers: int
) -> Run:
    """A run of `steps` steps, for `load_steps`."""
    clips = train_clips(store, setting.num_segments, setting.input_px)
    view = ViewTransform(setting.input_px, stepper.params.test.short_side_px, 1)
    return Run(
        params=replace(stepper.params, {"runtime.workers": workers, "runtime.micro_batch": batch}),
        device=setting.device,
        method=stepper.trial.method,
        metadata={},
        clips=clips,
        val_clips=ViewClips(store, clips.records, view, setting.num_segments, 1, False),
        text=stepper.trial.gradients.text,
        plan=Plan(num_clips=batch * steps, batch_size=batch, epochs=1, seed=0, max_steps=None),
        state_dir=Path("state"),
        log_dir=Path("log"),
    )
