"""`clipzoo embed VIDEO... OUT.parquet` and `clipzoo search OUT.parquet TEXT`."""

import argparse

from clipzoo.commands.arguments import Commands, add_command
from clipzoo.commands.predict import (
    add_model_arguments,
    each_video,
    open_model,
    raise_if_failed,
    video_files,
)
from clipzoo.config import ConfigError
from clipzoo.files import shown


def _embed(arguments: argparse.Namespace) -> None:
    from clipzoo.serve.embeddings import write_embeddings

    *videos, out = arguments.videos
    if not videos or not out.endswith(".parquet"):
        raise ConfigError(f"embed: found {out!r} as the file to write; allowed: OUT.parquet, last")
    files, failed = video_files(videos), []
    model = open_model(arguments.model, arguments.device)
    found = each_video(files, lambda path: model.embed(path).numpy(), failed)
    rows = ((str(path), embedding) for path, embedding in found)
    num_rows = write_embeddings(rows, out, model.text.dim, model.config.weights_sha256)
    print(f"wrote {out}: {num_rows} videos; next: clipzoo search {out} 'a sentence'")
    raise_if_failed(failed, files)


def _search(arguments: argparse.Namespace) -> None:
    from clipzoo.serve.embeddings import search

    if arguments.top < 1:
        raise ConfigError(f"--top: found {arguments.top}; allowed: 1 or more")
    model = open_model(arguments.model, arguments.device)
    query = model.embed_text([arguments.text])[0].numpy()
    for video, cosine in search(arguments.file, query, model.config.weights_sha256, arguments.top):
        print(f"{cosine:6.3f}  {shown(video)}")


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "embed",
        "write one embedding for each video",
        ("embed videos/ mine.parquet", "embed a.mp4 b.mp4 mine.parquet --model models/mine"),
    )
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEO", help="files, folders or - (stdin); OUT.parquet last"
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
