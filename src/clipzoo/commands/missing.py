"""`clipzoo missing DATASET [--accept]`: show, and accept, what a copy lacks."""

import argparse
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipzoo.annotations.joining import short_videos
from clipzoo.annotations.lookup import Lookup
from clipzoo.annotations.wanted import (
    Annotated,
    Joined,
    copies_notes,
    join,
    near_notes,
    unnamed_note,
)
from clipzoo.commands.arguments import Commands, add_command, aligned
from clipzoo.config import ConfigError, Params, load_params
from clipzoo.data.index import FAILURE_COLUMNS, failures_path, index_path, read_failures, read_index
from clipzoo.data.ledger import (
    ABSENT,
    SHORT,
    accept_command,
    describe,
    ledger_path,
    read_ledger,
    reason_kind,
    ways_out,
    write_ledger,
)
from clipzoo.data.spec import load_spec
from clipzoo.files import SHOWN, read_rows, shown
from clipzoo.frames.manifest import manifest_path, read_manifest

MOST_CLASSES = 10
"""Classes in the table of those that lose most."""


@dataclass(frozen=True)
class Lost:
    """An annotated video that this copy lacks."""

    video: Annotated
    ledger_id: str
    """Its id in the ledger: that of the broken file, else the annotated one."""
    reason: str


@dataclass(frozen=True)
class Survey:
    """A dataset's annotations joined with its manifest and with what extraction could not read."""

    dataset: str
    joined: Joined
    lost: list[Lost]
    """Annotated videos that are absent, or whose files are all broken."""
    ledger: dict[str, str]
    """The ledger as it is now."""
    rows: dict[str, str]
    """The ledger that `--accept` writes."""
    unaccepted: list[Lost]
    """Those of `lost` that are not in the ledger."""
    num_files: int
    """Number of files in the manifest."""
    num_wanted: int
    """Number of files that extraction reads."""
    notes: list[str]
    """Notes on files that no annotation names, and on videos with several files."""

    @property
    def absent(self) -> list[Lost]:
        """Annotated videos without a file."""
        return [one for one in self.lost if not one.video.copies]

    @property
    def added(self) -> list[str]:
        """Ids that `--accept` adds to the ledger."""
        return [video_id for video_id in self.rows if video_id not in self.ledger]

    @property
    def removed(self) -> list[str]:
        """Ids that `--accept` removes from the ledger."""
        return [video_id for video_id in self.ledger if video_id not in self.rows]

    @property
    def shortage(self) -> str:
        """What is not accepted: `1,516 of 1,600 annotated videos are not in the manifest`."""
        total = len(self.joined.videos)
        absent = sum(not one.video.copies for one in self.unaccepted)
        on_disk = set(self.added) - {one.ledger_id for one in self.absent}
        short = sum(reason_kind(self.rows[video_id]) == SHORT for video_id in on_disk)
        broken = len(on_disk) - short
        parts = [f"{absent:,} of {total:,} annotated videos are not in the manifest"] * bool(absent)
        parts += [f"{broken:,} files could not be decoded"] * bool(broken)
        parts += [f"{short:,} files are shorter than their annotated segments"] * bool(short)
        return ", ".join(parts)


def survey(params: Params, dataset: str) -> Survey:
    """Compare a dataset's annotations with its manifest, and with its extraction if there is one.

    Raises:
        ListError: the annotation files, the manifest or the ledger are invalid; lists every fault.
        ConfigError: the dataset's file is invalid, or `data.split` does not exist.
        StoreError: the index is damaged.
    """
    spec = load_spec(dataset)
    files = [file.video_id for file in read_manifest(manifest_path(dataset))]
    ledger = read_ledger(dataset)
    failures = known_failures(dataset, files, ledger)
    joined = join(params, dataset, spec, files)
    rows, lost, spare = {}, [], set()
    for video in joined.videos:
        if any(copy not in failures for copy in video.copies):
            spare.update(video.copies)  # one copy can be read, so broken ones lose nothing
            continue
        ledger_id = video.copies[0] if video.copies else video.video_id
        reason = describe(failures[ledger_id]) if video.copies else ABSENT
        if not video.copies and reason_kind(ledger.get(ledger_id, "")) == "absent":
            reason = ledger[ledger_id]  # a person's own words stay
        rows[ledger_id] = reason
        lost.append(Lost(video, ledger_id, reason))
    named = joined.named
    extracted = named if spec.extract == "annotated" else set(files)
    rows |= {
        file: describe(reason)
        for file, reason in failures.items()
        if file in extracted and file not in spare
    }
    rows |= short_videos(params, dataset)
    accepted = Lookup(ledger, spec)
    unaccepted = [one for one in lost if not accepted.copies(one.video.video_id)]
    notes = copies_notes(joined) + near_notes(joined)
    unnamed = [file for file in files if file not in named]
    if unnamed and spec.extract == "annotated":
        notes.append(unnamed_note(dataset, unnamed))
    return Survey(
        dataset=dataset,
        joined=joined,
        lost=lost,
        ledger=ledger,
        rows=dict(sorted(rows.items())),
        unaccepted=unaccepted,
        num_files=len(files),
        num_wanted=len(extracted & set(files)),
        notes=notes,
    )


def known_failures(dataset: str, files: Sequence[str], ledger: Mapping[str, str]) -> dict[str, str]:
    """Files of the manifest that cannot be read: {id: reason}.

    They are those that the last extraction could not read, whether it wrote an index or stopped,
    and those in the ledger, unless the index has their frames.
    """
    index, stopped = index_path(dataset), failures_path(dataset)
    stored: set[str] = set()
    failures = {id_: reason for id_, reason in ledger.items() if reason_kind(reason) != "absent"}
    if index.exists():
        stored = set(read_index(index, ["video_id"])["video_id"].to_pylist())
        failures |= read_failures(index)
    if stopped.exists():
        failures |= {id_: reason for _, id_, reason in read_rows(stopped, FAILURE_COLUMNS)}
    present = set(files) - stored
    return {video_id: reason for video_id, reason in failures.items() if video_id in present}


def describe_survey(found: Survey) -> str:
    """The table of the sets, that of the classes that lose most, and the change of the ledger."""
    path, joined = ledger_path(found.dataset), found.joined
    text = (
        f"missing {found.dataset}: {len(joined.videos):,} annotated videos, "
        f"{len(joined.videos) - len(found.absent):,} on disk, "
        f"{len(found.lost) - len(found.absent):,} of these broken; {len(found.lost):,} missing\n"
    )
    text += "".join(f"{note}\n" for note in found.notes)
    if found.lost:
        text += _sets_table(found) + _classes_table(found)
    text += f"{path}: {len(found.ledger):,} accepted so far"
    text += f", {len(found.added):,} to add, {len(found.removed):,} to remove\n"
    kinds = {one.ledger_id: one.video.kind for one in found.lost}
    lines = [
        f"  + {video_id} ({kinds.get(video_id, 'a file')}): {found.rows[video_id]}"
        for video_id in found.added
    ]
    lines += [f"  - {video_id}: it is there, or not annotated" for video_id in found.removed]
    more = [f"  ... and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    return text + "".join(f"{line}\n" for line in [*lines[:SHOWN], *more])


def _sets_table(found: Survey) -> str:
    """The sets of videos, and a line for each of which no video has a file."""
    totals = Counter(video.kind for video in found.joined.videos)
    absent = Counter(one.video.kind for one in found.absent)
    lost = Counter(one.video.kind for one in found.lost)
    rows = [
        (kind, *(f"{n:,}" for n in (total, absent[kind], lost[kind] - absent[kind], lost[kind])))
        for kind, total in totals.items()
    ]
    return aligned(("Set", "Annotated", "No file", "Broken", "Missing"), rows) + "".join(
        f"no video of the set {kind} has a file: was its folder unpacked, and scanned?\n"
        for kind, total in totals.items()
        if absent[kind] == total
    )


def _classes_table(found: Survey) -> str:
    """The classes that lose most, by number of videos."""
    names = found.joined.class_names
    totals = Counter(video.label for video in found.joined.videos)
    lost = Counter(one.video.label for one in found.lost)
    rows = [
        (
            names[label] if label >= 0 else "(none)",
            f"{n:,}",
            f"{totals[label]:,}",
            f"{n / totals[label]:.0%}",
        )
        for label, n in sorted(lost.items(), key=lambda item: (-item[1], item[0]))[:MOST_CLASSES]
    ]
    shares = sorted(n / totals[label] for label, n in lost.items())
    title = f"{len(lost)} of {len(names)} classes lose videos, up to {shares[-1]:.0%} of one"
    title += f"; the {len(rows)} that lose most:\n" if len(lost) > len(rows) else ":\n"
    return title + aligned(("Class", "Missing", "Annotated", "Share"), rows, indent="  ")


def _run(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for a dataset of the demo; else as `survey`."""
    params, dataset = load_params(), arguments.dataset
    if dataset in params.data.demo:
        raise ConfigError(f"{dataset} is rendered by make_demo, so no video is ever missing")
    found = survey(params, dataset)
    print(shown(describe_survey(found), kept="\n"), end="")
    path = ledger_path(dataset)
    if not found.added and not found.removed:
        print("nothing to accept" if not found.rows else f"all are in {path}")
        return
    if not arguments.accept:
        take_out = f"take them out by {accept_command(dataset)}"
        print(ways_out(dataset) if found.added else take_out)
        return
    if found.rows:
        write_ledger(dataset, found.rows)
        track = shlex.join(["git", "add", str(path)])
        print(f"wrote {path}: {len(found.rows):,} videos; track it: {track}")
    else:
        path.unlink()
        print(f"removed {path}: nothing is missing")
    check = "clipzoo check RECIPE"  # params.yaml may hold another dataset, as at first
    print(f"next: {'dvc repro' if dataset in params.data.datasets else check}")


def register(commands: Commands) -> None:
    command = add_command(
        commands,
        "missing",
        "show what this copy of a dataset lacks, and accept it",
        ("missing kinetics400", "missing kinetics400 --accept"),
    )
    command.add_argument("dataset", help="name of the dataset, e.g. kinetics400")
    command.add_argument(
        "--accept", action="store_true", help="write it to data/annotations/DATASET/missing.csv"
    )
    command.set_defaults(run=_run)
