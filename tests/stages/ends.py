"""Run a stage many times to its end, in forks: `ends.py FOLDER TIMES STAGE [ARGUMENT...]`.

FOLDER/0, FOLDER/1, ... are folders in which the stage can run, side by side; that many run at a
time. A first fork finds out what the stage imports; this process imports it once for all others,
before any thread is started. Everything after the imports, and above all the end of the process, is
that of `python stages/STAGE.py`. Prints how often the stage ended with which code, as JSON.
"""

import atexit
import contextlib
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


def is_fork() -> bool:
    """Fork; the child's output goes to log.txt in its folder."""
    if os.fork():
        return False
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    return True


def leave_out_what_takes_long(folder: Path) -> None:
    """Add the architecture ViT-tiny-16, load its tokenizer once, and draw no figures."""
    if "open_clip" in sys.modules:
        open_clip: Any = sys.modules["open_clip"]
        open_clip.add_model_config(folder)
        open_clip.get_tokenizer = functools.cache(open_clip.get_tokenizer)
        open_clip.get_tokenizer("ViT-tiny-16", context_length=12)
    if "clipzoo.evaluate.plots" in sys.modules:
        plots: Any = sys.modules["clipzoo.evaluate.plots"]
        plots.save_figure = lambda *_: None


def is_run(folder: Path, times: int) -> bool:
    """Whether this is a fork that is to run the stage: it ends then as a program does."""
    slots = sorted(folder.glob("[0-9]*"))
    os.chdir(slots[0])
    names = folder / "modules.json"
    if is_fork():
        with contextlib.suppress(ImportError):
            importlib.import_module("open_clip").add_model_config(folder)
        atexit.register(lambda: names.write_text(json.dumps(list(sys.modules))))
        return True
    os.wait()
    for name in json.loads(names.read_text()):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    leave_out_what_takes_long(folder)
    threads = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    # The allocator of Arrow has a thread of its own, which knows nothing of Python.
    assert len(threads) == 1 + threads.count("jemalloc_bg_thd\n"), f"{threads}: forks have none"
    gc.freeze()  # a collection would copy the pages of all objects, in every fork
    pipes = []
    for number, slot in enumerate(slots):
        pipes.append(os.pipe())
        if os.fork() == 0:
            os.chdir(slot)
            codes = Counter()
            for _ in range(number, times, len(slots)):
                if is_fork():
                    return True
                codes[os.waitstatus_to_exitcode(os.wait()[1])] += 1
            os.write(pipes[-1][1], json.dumps(codes).encode())
            os._exit(0)
        os.close(pipes[-1][1])
    total = Counter()
    for read, _ in pipes:
        with open(read, encoding="utf-8") as file:
            total.update(json.loads(file.read()))
    print(json.dumps(total), flush=True)
    return False


if __name__ == "__main__":
    where, times, stage, *arguments = sys.argv[1:]
    if is_run(Path(where), int(times)):
        script = str(Path(f"stages/{stage}.py").resolve())
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
