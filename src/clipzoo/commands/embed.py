"""`clipzoo embed VIDEO... OUT.parquet` and `clipzoo search OUT.parquet TEXT`."""

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from clipzoo.commands.arguments import Commands, add_command
from clipzoo.commands.predict import (
    add_model_arguments,
    check_length,
    each_result,
    open_model,
    raise_if_failed,
    video_files,
)
from clipzoo.commands.use import PARAMS_FILE
from clipzoo.config import ConfigError, load_params
from clipzoo.files import shown
from clipzoo.serve.output import numbered

if TYPE_CHECKING:
    from clipzoo.serve.embeddings import Embedded
    from clipzoo.serve.model import VideoModel


def _check(arguments: argparse.Namespace) -> tuple[list[str], str]:
    """The videos and the file to write; ConfigError for arguments that do not fit."""
    *videos, out = arguments.videos
    if not out.endswith(".parquet"):
        raise ConfigError(f"embed: found {out!r} as the file to write; allowed: OUT.parquet, last")
    if Path(out).is_dir():
        raise ConfigError(f"embed: found {out!r}, which is a folder; allowed: a file, OUT.parquet")
    every, dataset = arguments.every, arguments.dataset
    check_length(every)
    if dataset is None and not videos:
        raise ConfigError("embed: found no video; allowed: VIDEO... OUT.parquet, or --dataset NAME")
    if dataset is not None and videos:
        raise ConfigError(f"--dataset: found {videos[0]!r} too; allowed: a dataset, or files")
    if dataset is not None and every is not None:
        raise ConfigError("--every: found it with --dataset; allowed: with files")
    return videos, out


def _rows_of(model: "VideoModel", path: Path, every: float | None) -> "Iterator[Embedded]":
    """The row of a video file, or those of its windows."""
    from clipzoo.serve.embeddings import Embedded

    if every is None:
        yield Embedded(video=str(path), embedding=model.embed(path).numpy())
        return
    for start, end, embedding in model.embed_windows(path, every=every):
        yield Embedded(video=str(path), embedding=embedding.numpy(), start=start, end=end)


def _rows_of_dataset(model: "VideoModel", dataset: str) -> "Iterator[Embedded]":
    """The rows of the videos of a frame store; ConfigError if its frames are not the model's."""
    from clipzoo.runtime.progress import progress_bar
    from clipzoo.serve.embeddings import Embedded
    from clipzoo.serve.stored import open_frames

    store = open_frames(load_params(PARAMS_FILE), dataset, model.config.frames)
    names = list(store.videos)
    with progress_bar("videos", len(names), "video") as bar:
        for name, embedding in zip(names, model.embed_stored(store, names), strict=True):
            yield Embedded(video=name, embedding=embedding.numpy())
            bar.update()


def _embed(arguments: argparse.Namespace) -> None:
    from clipzoo.serve.embeddings import write_embeddings

    videos, out = _check(arguments)
    files, failed = video_files(videos) if videos else [], []
    model = open_model(arguments.model, arguments.device)
    if arguments.dataset is None:
        found = each_result(files, lambda path: _rows_of(model, path, arguments.every), failed)
        rows = (row for _, row in found)
    else:
        rows = _rows_of_dataset(model, arguments.dataset)
    first = next(rows, None)
    if first is None:  # an earlier file stays
        raise_if_failed(failed, files)
        raise ConfigError(f"--dataset: {arguments.dataset} has no video in its frame store")
    rows = chain([first], rows)
    num_rows = write_embeddings(rows, out, model.text.dim, model.config.weights_sha256)
    rows_written = numbered(num_rows, "video" if arguments.every is None else "window")
    print(f"wrote {out}: {rows_written}; next: clipzoo search {out} 'a sentence'")
    raise_if_failed(failed, files)


def _search(arguments: argparse.Namespace) -> None:
    from clipzoo.serve.embeddings import search

    if arguments.top < 1:
        raise ConfigError(f"--top: found {arguments.top}; allowed: 1 or more")
    if not arguments.text.strip():
        raise ConfigError("search: found an empty sentence; allowed: some words")
    model = open_model(arguments.model, arguments.device)
    query = model.embed_text([arguments.text])[0].numpy()
    for row in search(arguments.file, query, model.config.weights_sha256, arguments.top):
        when = "" if row.start is None else f"  {row.start:.2f} to {row.end:.2f} s"
        print(f"{row.cosine:6.3f}  {shown(row.video)}{when}")


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "embed",
        "write one embedding for each video, or for each window of it",
        (
            "embed videos/ mine.parquet",
            "embed a.mp4 b.mp4 mine.parquet --model models/mine --every 2",
            "embed --dataset demo_unseen unseen.parquet",
        ),
    )
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEO", help="files, folders or - (stdin); OUT.parquet last"
    )
    parser.add_argument(
        "--every", type=float, metavar="SECONDS", help="embed each window of this length"
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="the videos of a frame store, instead of files"
    )
    add_model_arguments(parser)
    parser.set_defaults(run=_embed)
    parser = add_command(
        commands,
        "search",
        "find the videos that a sentence describes",
        ("search mine.parquet 'a man juggles'", "search mine.parquet knitting --top 3"),
    )
    parser.add_argument("file", metavar="FILE", help="a file of `clipzoo embed`")
    parser.add_argument("text", metavar="TEXT", help="a sentence")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="videos (10)")
    add_model_arguments(parser)
    parser.set_defaults(run=_search)
