"""Which rank is named and when a process exits, by the beats of one rank and written ones."""

import json
from types import SimpleNamespace

import pytest
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]

from clipzoo.runtime import heartbeat
from clipzoo.runtime.heartbeat import Heartbeat

LIMIT = 40


class Exit(BaseException):
    """In place of the end of the process."""


class Run:
    """Rank 0 of a run of three on machine `a`, by its own clock; 1 and 2 are on `b`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def leave(status: int) -> None:
            raise Exit

        self.seconds = 0.0
        self.store = HashStore()
        monkeypatch.setattr(heartbeat, "os", SimpleNamespace(_exit=leave, environ={}))
        monkeypatch.setattr(heartbeat.time, "monotonic", lambda: self.seconds)
        monkeypatch.setattr(heartbeat.socket, "gethostname", lambda: "a")
        monkeypatch.setattr(Heartbeat, "_run", lambda _: None)
        self.pulse = Heartbeat(self.store, 0, 3)
        self.pulse.reached = 7

    def write(self, rank: int, number: int, exchanges: int, *, ended: bool = False) -> None:
        beat = (number, exchanges, "clips/loader.py:61 (load_batches)", "b", ended)
        self.store.set(str(rank), json.dumps(beat))

    def last(self, seconds: int, slow: int | None = None, exchanges: int = 6) -> None:
        """Beat for some time; rank `slow` writes too, that it has reached `exchanges`."""
        for _ in range(0, seconds, 5):
            self.seconds += 5
            if slow is not None:
                self.write(slow, int(self.seconds), exchanges)
            self.pulse._tick()


@pytest.fixture
def run(monkeypatch) -> Run:
    return Run(monkeypatch)


def test_a_beat_tells_exchanges_place_and_machine(run):
    run.pulse.end()
    number, exchanges, place, host, ended = json.loads(run.store.get("0"))
    assert (number, exchanges, host, ended) == (2, 7, "a", True)
    assert isinstance(place, str)


def test_a_rank_that_does_not_write_is_lost(run, capfd):
    run.write(1, 5, 7)
    run.write(2, 5, 6)
    run.last(LIMIT)
    assert capfd.readouterr().err == ""
    with pytest.raises(Exit):
        run.last(15)
    assert "error: rank 2 (machine b) is lost" in capfd.readouterr().err
    assert run.seconds < 60


def test_a_rank_that_writes_is_named_and_waited_for(run, capfd):
    run.write(1, 5, 7)
    run.last(4 * LIMIT + 20, slow=2)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2, "after 1 and 2 limits, next after 4"
    assert "rank 2 (machine b), which is at clips/loader.py:61" in lines[0]
    assert "rank 1" not in lines[0]


def test_the_time_starts_when_the_rank_stops_to_get_on(run, capfd):
    run.write(1, 5, 7)
    for _ in range(10):
        run.pulse.reached += 1
        run.write(1, 5, run.pulse.reached)
        run.last(35, slow=2)
    assert capfd.readouterr().err == ""
    run.last(20, slow=2)
    assert "rank 2" in capfd.readouterr().err


@pytest.mark.parametrize("exchanges", [7, 8])
def test_nobody_is_named_who_is_not_waited_for(run, capfd, exchanges):
    """A rank works alone while others have ended, or has reached a later exchange."""
    run.write(1, 5, 7)
    run.write(2, 5, exchanges, ended=True)
    run.last(20 * LIMIT)
    assert capfd.readouterr().err == ""


def test_at_the_end_of_a_stage_slow_ranks_are_not_named_but_lost_ones_are(run, capfd):
    run.write(1, 5, 7)
    run.pulse.patient = True
    run.last(20 * LIMIT, slow=2)
    assert capfd.readouterr().err == ""
    with pytest.raises(Exit):
        run.last(LIMIT + 15)
    assert "rank 2 (machine b) is lost" in capfd.readouterr().err


def test_a_rank_that_ended_early_has_said_why(run, capfd):
    run.write(1, 5, 7)
    run.write(2, 5, 6, ended=True)
    with pytest.raises(Exit):
        run.last(LIMIT)
    assert "rank 2 (machine b) has ended" in capfd.readouterr().err


def test_a_rank_may_start_late(run, capfd):
    run.write(1, 5, 7)
    run.last(heartbeat.STARTUP * LIMIT)
    assert "rank 2 (machine unknown), which is at its start" in capfd.readouterr().err
    with pytest.raises(Exit):
        run.last(20)


def test_a_launcher_that_is_gone_ends_the_process(run, capfd, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("connection reset")

    monkeypatch.setattr(run.pulse, "_store", SimpleNamespace(set=fail))
    monkeypatch.setattr(run.pulse._over, "wait", lambda _: False)
    with pytest.raises(Exit):
        run.last(5)
    assert "rank 0 (machine a)" in capfd.readouterr().err


def test_one_of_the_waiting_ranks_of_a_machine_prints(run, capfd, monkeypatch):
    monkeypatch.setattr(heartbeat.time, "sleep", lambda _: None)
    monkeypatch.setattr(run.pulse, "_rank", 1)
    run.store.set("0", json.dumps((5, 7, "x", "a", False)))
    run.write(2, 5, 6)
    with pytest.raises(Exit):
        run.last(2 * LIMIT)
    assert capfd.readouterr().err == ""


def test_a_rank_may_go_on_while_its_thread_reads(run, monkeypatch, capfd):
    read = Heartbeat._read

    def read_late(pulse: Heartbeat) -> list[heartbeat.Beat]:
        beats = read(pulse)
        pulse.reached += 1
        return beats

    run.last(10, slow=1)
    monkeypatch.setattr(Heartbeat, "_read", read_late)
    run.last(30, slow=1)
    assert "rank 0" not in capfd.readouterr().err
