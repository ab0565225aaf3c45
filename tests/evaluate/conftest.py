"""Figures as objects: what they show, before it becomes pixels."""

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that the test saves, in order; they are written as ever."""
    saved: list[Figure] = []
    save = Figure.savefig

    def savefig(self: Figure, *args: object, **options: object) -> None:
        saved.append(self)
        save(self, *args, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved
