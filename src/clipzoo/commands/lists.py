"""`clipzoo lists ...`: convert lists between projects, compare two lists."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from clipzoo.annotations.peer_lists import FORMATS, Entry, guess_format, read_entries, write_entries
from clipzoo.commands.arguments import Commands, add_command
from clipzoo.data.index import index_path, read_index
from clipzoo.data.records import videos_sha256
from clipzoo.files import ListError, raise_all
from clipzoo.frames.manifest import manifest_path, read_manifest
from clipzoo.report.verdicts import video_sets

SHOWN = 10


def register(commands: Commands) -> None:
    """Add `lists convert` and `lists diff`."""
    diff = "lists diff lists/ucf101/val.csv val_rgb_split_1.txt"
    convert = "lists convert lists/ucf101/val.csv val.txt --from clipzoo --to text4vis-frames"
    lists = add_command(commands, "lists", "convert or compare lists of videos", (convert, diff))
    kinds = lists.add_subparsers(required=True, metavar="KIND")
    command = add_command(kinds, "convert", "write a list in another project's format", (convert,))
    command.add_argument("source", type=Path, help="list to read")
    command.add_argument("target", type=Path, help="list to write")
    command.add_argument("--from", dest="source_format", choices=FORMATS, required=True)
    command.add_argument("--to", dest="target_format", choices=FORMATS, required=True)
    command.add_argument("--dataset", help="take file names and frame counts from this dataset")
    command.add_argument("--extension", default="", help="of video files, e.g. .mp4")
    command.add_argument("--strip", default="", help="prefix to remove from paths")
    command.add_argument("--drop-empty", action="store_true", help="skip videos of 0 frames")
    command.set_defaults(run=_convert)
    command = add_command(kinds, "diff", "show the videos that only one of two lists has", (diff,))
    command.add_argument("first", type=Path, help="a list in any of the formats")
    command.add_argument("second", type=Path, help="another one")
    command.set_defaults(run=_diff)


def _convert(arguments: argparse.Namespace) -> None:
    if arguments.extension and not arguments.extension.startswith("."):
        raise ListError(f"--extension: found {arguments.extension!r}; allowed: like .mp4")
    entries, empty = read_entries(
        arguments.source,
        arguments.source_format,
        strip=arguments.strip,
        allow_empty=arguments.drop_empty,
    )
    files, frames = _dataset(arguments.dataset, entries) if arguments.dataset else ({}, {})
    left_out = write_entries(
        entries,
        arguments.target,
        arguments.target_format,
        extension=arguments.extension,
        files=files,
        frames=frames,
    )
    print(f"wrote {len(entries)} lines to {arguments.target} ({arguments.target_format})")
    for note in left_out:
        print(f"note: {note}")
    if empty:
        print(f"left out {len(empty)} videos of 0 frames: {'; '.join(empty[:SHOWN])}")


def _dataset(dataset: str, entries: Sequence[Entry]) -> tuple[dict[str, str], dict[str, int]]:
    """Video files and frame counts from a dataset's manifest and index, under the ids of `entries`,
    with or without the video's folder."""
    files = {video.video_id: video.path for video in read_manifest(manifest_path(dataset))}
    frames = {}
    if index_path(dataset).exists():
        table = read_index(index_path(dataset), ["video_id", "num_frames"])
        frames = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
    counts = Counter(_name(video_id) for video_id in files)
    by_name = {_name(v): v for v in files if counts[_name(v)] == 1}
    matches = {}
    for entry in entries:
        video_id = entry.video_id if entry.video_id in files else by_name.get(_name(entry.video_id))
        if video_id is not None:
            matches[entry.video_id] = video_id
    missing = [f"{e.where}: {e.video_id!r}" for e in entries if e.video_id not in matches]
    raise_all(f"{len(missing)} videos are not in {manifest_path(dataset)}:", missing)
    return (
        {entry_id: files[video_id] for entry_id, video_id in matches.items()},
        {entry_id: frames[id_] for entry_id, id_ in matches.items() if id_ in frames},
    )


def _name(video_id: str) -> str:
    return video_id.rpartition("/")[2]


def set_ids(path: Path) -> list[str]:
    """Ids of a list as in published fingerprints: without folders and extensions, sorted.

    Segments (lists with start frames) are `<video>_0`, `<video>_1`, ... in the order of the list.

    Raises:
        ListError: the list is invalid.
    """
    entries, _ = read_entries(path, guess_format(path), allow_empty=True)
    names = [_name(entry.video_id) for entry in entries]
    if any(entry.start_frame for entry in entries):
        seen: Counter[str] = Counter()
        for i, name in enumerate(names):
            names[i] = f"{name}_{seen[name]}"
            seen[name] += 1
    return sorted(set(names))


def known_sets(sha256: str) -> str:
    """The published lists with this fingerprint, in words; '' = none."""
    methods: dict[str, list[str]] = {}
    for known in video_sets():
        if known.videos_sha256 == sha256:
            methods.setdefault(known.name, []).append(known.method)
    return "; ".join(
        f"{name}, the set {' and '.join(by)} published on" for name, by in methods.items()
    )


def _diff(arguments: argparse.Namespace) -> None:
    paths = (arguments.first, arguments.second)
    sets = [set_ids(path) for path in paths]
    for path, ids in zip(paths, sets, strict=True):
        sha = videos_sha256(ids)
        print(f"{path}: {len(ids)} videos, {sha}")
        print(f"  {known_sets(sha) or 'no published list'}")
    for path, ids, others in zip(paths, sets, reversed(sets), strict=True):
        only = sorted(set(ids) - set(others))
        more = f" ... and {len(only) - SHOWN} more" if len(only) > SHOWN else ""
        print(
            f"only in {path}: {len(only)}" + (f": {' '.join(only[:SHOWN])}{more}" if only else "")
        )
    print("the sets are the same" if sets[0] == sets[1] else "the sets differ")
