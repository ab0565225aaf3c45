"""How fast the loader feeds a GPU: threads, processes, and the share of a step spent waiting.

Frames are rendered (benchmarks/workspace.py) and small enough to stay in the page cache, so that
this measures processors, not disks. Torch's own threads (those inside an operator) are as `train`
has them: left alone in one process; in several, the launcher's number, cores / processes.
"""

import itertools
import math
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gpu_loading import SHORT_SIDE_PX, servers, train_clips
from gpu_report import Section
from gpu_setting import Setting, free_memory, synchronize
from gpu_steps import RECIPE, Stepper, batch_that_fits, params_for
from workspace import extracted, inside, render

from clipzoo.clips.clips import ViewClips
from clipzoo.clips.transforms import ViewTransform
from clipzoo.config import replace
from clipzoo.data.store import Store
from clipzoo.runtime.machine import count_workers, usable_cores
from clipzoo.train.log import WaitingTime
from clipzoo.train.loop import load_steps
from clipzoo.train.plan import Plan
from clipzoo.train.setup import Run

SIZES = {"340x256": "340x256", "320": "426x320"}
"""`frames.size` -> size of the rendered videos; short side 320 is how Kinetics is often stored."""
MOST_LOST_PCT = 5.0
"""Above it, decoding on the GPU would pay."""
STEP_SECONDS = 3.0


def fed(section: Section, setting: Setting) -> None:
    """Loader rates, then steps with a real loader."""
    with tempfile.TemporaryDirectory() as name:
        stores = prepare(Path(name), setting)
        for size in stores:
            if section.enough_time(15, f"{size}: loader"):
                with section.attempt(f"{size}: loader"):
                    _load(section, setting, Path(name) / size, size)
        for arch, size in itertools.product(setting.archs[:2], stores):
            if section.enough_time(8, f"{arch}: fed with {size}"):
                with section.attempt(f"{arch}: fed with {size}"):
                    _feed(section, setting, arch, stores[size], size)
                free_memory(setting.device)


def prepare(folder: Path, setting: Setting) -> dict[str, Store]:
    """Render and extract videos of both sizes, each under `folder`/<size>."""

    def render_size(size: str) -> None:
        (folder / size).mkdir()
        render(folder / size / "videos", setting.videos, SIZES[size], setting.frames)

    sizes = list(SIZES)[: setting.stored_sizes]
    with ThreadPoolExecutor(len(sizes)) as pool:
        list(pool.map(render_size, sizes))
    return {size: extracted(folder / size, folder / size / "videos", size) for size in sizes}


def counts(cores: int) -> list[int]:
    """1, 2, 4, ... and the number of cores."""
    return sorted({2**i for i in range(cores.bit_length()) if 2**i <= cores} | {cores})


def _load(section: Section, setting: Setting, folder: Path, size: str) -> None:
    """Clips a second of N threads in one process, and of N processes of one thread."""
    most = setting.loaders or usable_cores()
    options = (setting.num_segments, setting.input_px)
    with servers(folder, size, *options, most) as running:
        for number in counts(most):
            running[0].ask(number, setting.load_seconds, 0)
            _add_rate(section, size, "threads", number, running[0].answer())
        running[0].ask(most, setting.load_seconds, 1)
        _add_rate(section, size, "threads (torch's own: 1)", most, running[0].answer())
        for number in counts(most):
            for server in running[:number]:
                server.ask(1, setting.load_seconds, max(1, most // number))
            rate = sum(server.answer() for server in running[:number])
            _add_rate(section, size, "processes", number, rate)


def _add_rate(section: Section, size: str, kind: str, number: int, rate: float) -> None:
    values = {"stored": size, "loading": kind, "number": number, "clips/s": rate}
    section.row("Clips a second of the loader", **values, **{"each": rate / number})


def _feed(section: Section, setting: Setting, arch: str, store: Store, size: str) -> None:
    """Steps on clips in memory, then the same steps on clips from the loader."""
    chosen = replace(params_for(setting, arch, RECIPE), {"runtime.workers": 0}).runtime
    workers = count_workers(chosen, 1, on_gpu=True)  # as `train` does
    batch = batch_that_fits(setting, arch)
    stepper = Stepper(setting, arch, RECIPE, batch)
    stepper.warm_up()
    in_memory = min(stepper.seconds(3) for _ in range(3))
    steps = max(6, math.ceil(STEP_SECONDS / in_memory)) if setting.device.type == "cuda" else 6
    with tempfile.TemporaryDirectory() as name, inside(Path(name)):
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
        "Steps fed by the loader (ours, not compiled)",
        model=arch,
        stored=size,
        threads=workers,
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
        f"at most {MOST_LOST_PCT:g} % of a step lost to waiting, {arch}, frames of {size}",
        lost,
        f"{lost:.1f} % with {workers} threads; decoding on the GPU would "
        f"{'pay' if pays else 'not pay'}",
        met=not pays,
    )


def _run(
    setting: Setting, stepper: Stepper, store: Store, *, batch: int, steps: int, workers: int
) -> Run:
    """A run of `steps` steps, for `load_steps`."""
    clips = train_clips(store, setting.num_segments, setting.input_px)
    view = ViewTransform(setting.input_px, SHORT_SIDE_PX, 1)
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
