"""Run stages many times to their ends, in forks of this process: `ends.py FOLDER TIMES STAGE...`.

A STAGE is a stage's name and its arguments, with spaces between them. FOLDER/0, FOLDER/1, ... are
folders in which the stages can run, side by side; that many run at a time. A fork has the slow
imports behind it, from a time before any thread was started. Everything after them, and above all
the end of the process, is that of `python stages/STAGE.py`. Prints how often each stage ended with
which code, as JSON.
"""

import functools
import gc
import importlib
import json
import os
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import Any

LIGHT = ("clipzoo.annotations.joining", "clipzoo.frames.extraction", "clipzoo.report.tables")
HEAVY = (
    "clipzoo.clips.encoding",
    "clipzoo.evaluate.fusion",
    "clipzoo.evaluate.lexicon",
    "clipzoo.evaluate.protocols",
    "clipzoo.models.weights",
    "clipzoo.train.log",
    "clipzoo.train.loop",
    "clipzoo.train.setup",
    "dvc.repo",
    "pyarrow.pandas_compat",
)
"""Modules of the stages that use torch; a fork of a process that has imported it takes longer."""
LIGHT_STAGES = {"extract_frames", "build_lists", "report"}


def prepare(folder: Path, heavy: bool) -> None:
    """Import what the stages import; leave out what takes long and starts no thread.

    The architecture ViT-tiny-16 is added, its tokenizer is loaded once, and no figure is drawn.
    """
    for name in (*LIGHT, *HEAVY) if heavy else LIGHT:
        importlib.import_module(name)
    if heavy:
        open_clip: Any = importlib.import_module("open_clip")
        open_clip.add_model_config(folder)
        open_clip.get_tokenizer = functools.cache(open_clip.get_tokenizer)
        open_clip.get_tokenizer("ViT-tiny-16", context_length=12)
        plots: Any = importlib.import_module("clipzoo.evaluate.plots")
        plots.save_figure = lambda *_: None
    threads = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    # The allocator of Arrow has a thread of its own, which knows nothing of Python.
    assert len(threads) == 1 + threads.count("jemalloc_bg_thd\n"), f"{threads}: forks have none"
    gc.freeze()  # a collection would copy the pages of all objects, in every fork


def is_fork() -> bool:
    """Fork; the child's output goes to log.txt in its folder."""
    if os.fork():
        return False
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    return True


def count_ends(folder: Path, times: int) -> Counter[str] | None:
    """Run a stage `times` times; how often it ended with which code.

    Returns:
        None in the forks that are to run the stage: they return, and end as a program does.
    """
    slots, pipes = sorted(folder.glob("[0-9]*")), []
    for number, slot in enumerate(slots):
        pipes.append(os.pipe())
        if os.fork() == 0:
            os.chdir(slot)
            codes = Counter()
            for _ in range(number, times, len(slots)):
                if is_fork():
                    return None
                codes[os.waitstatus_to_exitcode(os.wait()[1])] += 1
            os.write(pipes[-1][1], json.dumps(codes).encode())
            os._exit(0)
        os.close(pipes[-1][1])
    total = Counter()
    for read, _ in pipes:
        with open(read, encoding="utf-8") as file:
            total.update(json.loads(file.read()))
        os.wait()
    return total


if __name__ == "__main__":
    where, count, *stages = sys.argv[1:]
    prepare(Path(where), any(words.split()[0] not in LIGHT_STAGES for words in stages))
    codes = {}
    for words in stages:
        stage, *arguments = words.split()
        codes[stage] = count_ends(Path(where), int(count))
        if codes[stage] is None:
            script = str(Path(f"stages/{stage}.py").resolve())
            sys.argv = [script, *arguments]
            runpy.run_path(script, run_name="__main__")
            break
    else:
        print(json.dumps(codes), flush=True)
