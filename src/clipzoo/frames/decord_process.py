"""decord in a process of its own: `python -m clipzoo.frames.decord_process`.

`clipzoo.frames.comparison` starts it, sends requests to its standard input, a socket, and kills it
when decord hangs.
"""

import importlib
import os
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from clipzoo.data.index import StoreError
from clipzoo.data.video import Kept, play_by_decord, read_by_decord


@dataclass(frozen=True)
class Request:
    path: Path
    kept: Kept
    size: tuple[int, int]
    """Width and height of the stored frames (px)."""


def main() -> None:
    """Answer requests until the other end is closed.

    The first answer is True, when decord is loaded. To each request the answers are the thumbnails
    of its frames, uint8 [k, 16, 32, 3] each, its first frame in the stored size, uint8 [H, W, 3],
    and why decord cannot be trusted with it ('' = it can be).
    """
    importlib.import_module("decord")  # if this fails, the reason is printed and the process ends
    connection = Connection(os.dup(0))
    connection.send(True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decord's ffmpeg prints every oddity
    while True:
        try:
            request: Request = connection.recv()
        except EOFError:
            return
        connection.send(_answer(request, connection))


def _answer(request: Request, connection: Connection) -> str:
    path, kept = request.path, request.kept
    try:
        for thumbnails in play_by_decord(path, kept):
            connection.send(thumbnails)
        first = read_by_decord(path, [0], size=request.size, kept=kept)
        connection.send(first[0])
    except StoreError as error:
        return str(error).removeprefix(f"{path}: ")
    except Exception as error:  # whatever it is, decord cannot be trusted with this video
        return f"decord cannot decode it ({type(error).__name__}: {error})"
    return ""


if __name__ == "__main__":
    main()
