"""A dataset's annotations joined with its files, before anything is decoded.

An extraction may take days, so three faults are reported before it: which videos are absent, which
have several files, and which files no annotation names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipzoo.annotations.joining import read_annotations
from clipzoo.annotations.lookup import Lookup, choose, describe_near
from clipzoo.config import Params
from clipzoo.data.ledger import read_ledger, ways_out
from clipzoo.data.spec import RAW_DIR, DatasetSpec
from clipzoo.files import few, raise_all, read_rows

SETS = ("val", "train", "whole", "splits")
"""The sets of annotations; a video in several of them counts for the first, as in build_lists."""


@dataclass(frozen=True, slots=True)
class Annotated:
    """One annotated video, whatever the number of its segments, and its files."""

    video_id: str
    """The annotated id, reduced by `id_pattern`."""
    where: str
    """`file:line` of its first annotation."""
    kind: str
    """Its set, the first of SETS that has it."""
    label: int
    """The class of its first annotation; -1 = none."""
    copies: tuple[str, ...]
    """Ids of the files that may be this video; empty = it is absent."""
    near: str = ""
    """A file of nearly the same name as an absent video (`Lookup.near`); '' = none."""


@dataclass(frozen=True)
class Joined:
    """The annotations of a dataset and its files."""

    class_names: list[str]
    videos: list[Annotated]
    notes: list[str]
    """Notes on the annotation files."""

    @property
    def named(self) -> set[str]:
        """Ids of the files that are annotated."""
        return {copy for video in self.videos for copy in video.copies}

    def absent(self, ledger: Mapping[str, str], spec: DatasetSpec) -> list[Annotated]:
        """Videos without a file that are not in the ledger either."""
        accepted = Lookup(ledger, spec)
        return [
            video
            for video in self.videos
            if not video.copies and not accepted.copies(video.video_id)
        ]


def join(params: Params, dataset: str, spec: DatasetSpec, video_ids: Sequence[str]) -> Joined:
    """Join a dataset's annotations with the ids of its files; raises as `read_annotations`."""
    annotations = read_annotations(params, dataset, spec, sorted(video_ids))
    lookup = Lookup(video_ids, spec)
    videos: dict[str, Annotated] = {}
    splits = [one for part in annotations.splits.values() for one in part]
    sets = zip(SETS, (annotations.val, annotations.train, annotations.whole, splits), strict=True)
    for kind, annotation in ((kind, one) for kind, part in sets for one in part):
        video_id = spec.video_id(annotation.video_id)
        if video_id not in videos:
            videos[video_id] = Annotated(
                video_id,
                annotation.where,
                kind,
                annotation.label,
                copies := tuple(lookup.copies(annotation.video_id)),
                "" if copies else lookup.near(annotation.video_id),
            )
    return Joined(annotations.class_names, list(videos.values()), annotations.notes)


def wanted_videos(
    params: Params, dataset: str, spec: DatasetSpec, video_ids: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The files to extract, in the given order, and notes on the others.

    Files that no annotation names are left out, unless datasets/<dataset>.yaml has `extract: all`.

    Args:
        video_ids: ids of the files in the manifest.

    Raises:
        ListError, ConfigError: as `read_annotations`; or lists every annotated video that has no
            file and is not in the ledger.
    """
    joined = join(params, dataset, spec, video_ids)
    absent = joined.absent(read_ledger(dataset), spec)
    raise_all(
        f"{len(absent)} of {len(joined.videos)} annotated videos of {dataset} are not in the "
        f"manifest; {ways_out(dataset)}:",
        [f"{v.where}: {v.video_id} ({v.kind}){describe_near(v.near)}" for v in absent],
    )
    named, notes = joined.named, copies_notes(joined)
    unnamed = [video_id for video_id in video_ids if video_id not in named]
    if spec.extract == "all" or not unnamed:
        return list(video_ids), notes
    return [one for one in video_ids if one in named], [*notes, unnamed_note(dataset, unnamed)]


def check_wanted(params: Params, dataset: str, spec: DatasetSpec) -> None:
    """Raise what `wanted_videos` raises, for the videos of the manifest, if there is one."""
    path = RAW_DIR / f"{dataset}.csv"
    if path.exists():
        rows = read_rows(path, ("video_id", "path", "size"))
        wanted_videos(params, dataset, spec, [video_id for _, video_id, *_ in rows])


def near_notes(joined: Joined) -> list[str]:
    """A note on absent videos that may only be spelled differently; empty if there are none."""
    near = [f"{video.near} for {video.video_id}" for video in joined.videos if video.near]
    note = (
        f"{len(near)} absent videos differ from a file only in case, punctuation or extension "
        f"({few(near)}): rename the files, or correct the annotations"
    )
    return [note] if near else []


def unnamed_note(dataset: str, video_ids: Sequence[str]) -> str:
    """The note on files that no annotation names."""
    return (
        f"{len(video_ids)} files are left out, as no annotation names them ({few(video_ids)}); "
        f"`extract: all` in datasets/{dataset}.yaml extracts them too"
    )


def copies_notes(joined: Joined) -> list[str]:
    """The notes on annotated videos that have several files."""
    clear, unclear = [], []
    for video in joined.videos:
        if len(video.copies) > 1:
            is_clear = len(choose(video.copies, video.video_id, lambda _: True)) == 1
            (clear if is_clear else unclear).append(" or ".join(video.copies))
    rules = {
        "one that can be read is used, and of several the replacement, else the one at the "
        "annotated path": clear,
        "the one that can be read is used; if several can, build_lists stops: keep one": unclear,
    }
    return [
        f"{len(files)} annotated videos have several files ({few(files, separator='; ')}): {rule}"
        for rule, files in rules.items()
        if files
    ]


def excused(
    params: Params,
    dataset: str,
    spec: DatasetSpec,
    video_ids: Sequence[str],
    failures: Mapping[str, str],
) -> dict[str, str]:
    """Files that could not be extracted and are not needed: {id: why}.

    They are in the ledger, another file of the same video could be extracted, or no annotation
    names them (such files may be there from earlier: `wanted_videos` leaves them out).

    Args:
        video_ids: ids of all files in the manifest.
        failures: {id: reason} of the files that extraction could not read.
    """
    if not failures:
        return {}
    ledger = read_ledger(dataset)
    result = {video_id: "in the ledger" for video_id in failures if video_id in ledger}
    joined = join(params, dataset, spec, video_ids)
    for video in joined.videos:
        used = next((copy for copy in video.copies if copy not in failures), None)
        for copy in video.copies:
            if used is not None and copy in failures:
                result.setdefault(copy, f"{used} is used instead")
    if spec.extract == "annotated":
        unnamed = failures.keys() - joined.named - result.keys()
        result |= dict.fromkeys(unnamed, "no annotation names it")
    return result
