"""Name the process that the others wait for: lost, or only slow.

Every process counts the exchanges (collectives) that it has reached. Every few seconds one of its
threads writes the count, and the place of the main thread in the code, to a store that all
processes share. A process whose count has stopped reads what the others wrote:

    rank 0   exchange 17   train/gradients.py:204   waits
    rank 1   exchange 17   train/gradients.py:204   waits
    rank 2   exchange 16   clips/loader.py:61       is waited for

If rank 2 still writes, it is slow: its name and place are printed and nothing else happens, since
it may have a reason (a checkpoint to write, a slower GPU). If it has stopped writing, its process
or machine is lost: the waiting processes print its name and exit, so the launcher can restart the
run. A process that works long without an exchange, while nobody waits for it, is never named.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from dataclasses import astuple, dataclass
from pathlib import Path

from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

LIMIT_SECONDS = 40.0
"""Time until a slow process is named, or a silent one counts as lost. Python never holds its lock
that long, which stops the thread; and the message still comes within a minute."""
BEATS = 8
"""Number of beats within the limit."""
STARTUP = 10
"""Factor on the limit for a process that has not begun to write: it may still import torch."""
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Beat:
    """What a process wrote last."""

    number: int = 0
    """Number of the beat, from 1; 0 = the process has written none."""
    exchanges: int = 0
    """Number of exchanges that it has reached."""
    place: str = "its start"
    """Place of its main thread in the code."""
    host: str = "unknown"
    ended: bool = False


class Heartbeat:
    """The heartbeat of this process; the constructor makes the first beat and starts the thread.

    Only the thread may use the store, which holds no keys of an earlier start of the run.
    CLIPZOO_HEARTBEAT_SECONDS replaces the limit, for tests.
    """

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self.reached = 0
        """Number of exchanges, which the main thread counts."""
        self.patient = False
        """Whether slow processes are not named."""
        self._store, self._rank, self._world_size = store, rank, world_size
        self._limit = float(os.environ.get("CLIPZOO_HEARTBEAT_SECONDS", LIMIT_SECONDS))
        self._main, self._host = threading.get_ident(), socket.gethostname()
        self._number = 0
        self._over = threading.Event()
        self._seen, self._stalled, self._named = 0, time.monotonic(), 0.0
        self._last: dict[int, tuple[int, float]] = {}
        """For other ranks: number of the last beat, and the time when it was first seen."""
        self._write()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Write the last beat, which says that this process ends."""
        self._over.set()
        self._thread.join(self._limit)
        if not self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the launcher may have ended
                self._write()

    def _run(self) -> None:
        while not self._over.wait(self._limit / BEATS):
            self._tick()

    def _tick(self) -> None:
        """Write a beat; if no exchange was reached since the last one, look at the other ranks."""
        # A store whose machine has lost its power gives no error, but never answers.
        timer = threading.Timer(self._limit, self._no_store, ["does not answer"])
        timer.daemon = True
        timer.start()
        stalled = self.reached == self._seen
        try:
            self._write()
            beats = self._read() if stalled else []
        except RuntimeError:
            if not self._over.wait(1):  # at the end of a run the launcher may be faster
                self._no_store("is gone")
            return
        finally:
            timer.cancel()
        if stalled:
            self._judge(beats)
        else:
            self._seen, self._stalled, self._named = self.reached, time.monotonic(), 0.0
            self._last.clear()

    def _write(self) -> None:
        self._number += 1
        place, over = _place(self._main), self._over.is_set()
        beat = Beat(self._number, self.reached, place, self._host, over)
        self._store.set(str(self._rank), json.dumps(astuple(beat)))

    def _read(self) -> list[Beat]:
        """The last beat of every rank."""
        keys = [str(rank) for rank in range(self._world_size)]
        if self._store.check(keys):
            return [Beat(*json.loads(value)) for value in self._store.multi_get(keys)]
        return [  # some process has not started
            Beat(*json.loads(self._store.get(key))) if self._store.check([key]) else Beat()
            for key in keys
        ]

    def _judge(self, beats: list[Beat]) -> None:
        """Name the slow ranks that this one waits for; exit if one of them is lost."""
        now = time.monotonic()
        waited = now - self._stalled
        # Not `reached`: the main thread may have reached more since this rank's beat was written.
        behind = {rank: b for rank, b in enumerate(beats) if b.exchanges < self._seen}
        first = min(
            rank
            for rank, beat in enumerate(beats)
            if rank not in behind and beat.host == self._host
        )
        is_first = first == self._rank  # of those that wait on this machine, one prints
        for rank, beat in behind.items():
            if self._last.get(rank, (-1, 0.0))[0] != beat.number:
                self._last[rank] = (beat.number, now)
            silent = now - self._last[rank][1]
            if beat.ended and silent > self._limit / 2:
                self._exit(f"{_name(rank, beat)} has ended; its output says why", is_first)
            if silent > self._limit * (1 if beat.number else STARTUP):
                self._exit(
                    f"{_name(rank, beat)} is lost: no sign of life for {silent:.0f} s; it was at "
                    f"{beat.place}. The others wait for it at {_place(self._main)}",
                    is_first,
                )
        if behind and waited > max(self._limit, 2 * self._named) and not self.patient:
            self._named = waited
            names = ", ".join(f"{_name(r, b)}, which is at {b.place}" for r, b in behind.items())
            if is_first:
                print(f"waited {waited:.0f} s for {names}", file=sys.stderr, flush=True)

    def _no_store(self, fault: str) -> None:
        self._exit(
            f"the launcher that rank {self._rank} (machine {self._host}) reports to {fault}: the "
            "run has ended there, or that machine is lost",
            os.environ.get("LOCAL_RANK", "0") == "0",
        )

    def _exit(self, text: str, is_first: bool) -> None:
        """End this process, whose main thread waits in an exchange and cannot."""
        if is_first:
            print(f"error: {text}", file=sys.stderr, flush=True)
        else:
            time.sleep(2)  # the launcher ends all processes as soon as the first has ended
        os._exit(1)


def _name(rank: int, beat: Beat) -> str:
    return f"rank {rank} (machine {beat.host})"


def _place(thread: int) -> str:
    """The place of a thread: the innermost line of the script, or of clipzoo but this folder.

    Example: `clips/loader.py:61 (load_batches)`.
    """
    frame = sys._current_frames().get(thread)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        line = f":{frame.f_lineno} ({frame.f_code.co_name})"
        if path.is_relative_to(PACKAGE) and path.parent != Path(__file__).parent:
            return f"{path.relative_to(PACKAGE)}{line}"
        if path.name == Path(sys.argv[0]).name:
            return f"{path.name}{line}"
        frame = frame.f_back
    return Beat.place
