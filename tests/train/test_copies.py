"""Clips on their way to a GPU; streams are stand-ins, since a CPU has none."""

from contextlib import contextmanager

import torch

from clipzoo.train.copies import Copies

CPU = torch.device("cpu")


class Streams:
    """In the place of torch.cuda: notes in which order streams wait for each other."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.kernels = Stream("kernels", self.done)

    def Stream(self, device: torch.device) -> "Stream":
        return Stream("copies", self.done)

    def current_stream(self, device: torch.device) -> "Stream":
        return self.kernels

    @contextmanager
    def stream(self, stream: "Stream"):
        yield
        self.done.append(f"{stream.name}: copy")


class Stream:
    def __init__(self, name: str, done: list[str]) -> None:
        self.name, self._done, self._events = name, done, 0

    def record_event(self) -> str:
        self._events += 1
        self._done.append(f"{self.name}: event {self._events}")
        return f"event {self._events}"

    def wait_event(self, event: str) -> None:
        self._done.append(f"{self.name}: wait for {event}")

    def wait_stream(self, other: "Stream") -> None:
        self._done.append(f"{self.name}: wait for {other.name}")


def test_two_buffers_take_turns_and_none_is_overwritten_in_use():
    streams = Streams()
    copies = Copies(CPU, streams)
    given = [torch.randint(0, 255, (size, 2, 3), dtype=torch.uint8) for size in (4, 4, 4, 3, 4)]
    before, places = torch.empty(0), []
    for number, clips in enumerate(given):
        streams.done.clear()
        sent = copies.send(clips)
        assert torch.equal(sent, clips)
        assert sent.data_ptr() != clips.data_ptr()
        if number:
            assert torch.equal(before, given[number - 1]), "it may still be read"
        before = sent
        places.append(sent.data_ptr())
        if number > 1:
            # Event n + 1 marks, at the beginning of call n, the end of all work with clips n - 1.
            assert streams.done == [
                f"kernels: event {number + 1}",
                f"copies: wait for event {number}",
                "copies: copy",
                "kernels: wait for copies",
            ]
    assert places == [*places[:2], *places[:2], places[0]]
    assert places[0] != places[1]


def test_new_memory_is_not_written_before_its_earlier_use_has_ended():
    streams = Streams()
    copies = Copies(CPU, streams)
    for size in (2, 2, 5):  # a larger micro-batch
        streams.done.clear()
        clips = torch.arange(size * 3).view(size, 3)
        assert torch.equal(copies.send(clips), clips)
        waits = streams.done.index("copies: wait for kernels")
        assert waits < streams.done.index("copies: copy")
