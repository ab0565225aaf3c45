"""Which files may be an annotated video, and which of them is used."""

from collections.abc import Callable, Iterable, Sequence

from clipzoo.annotations.annotation import without_extension
from clipzoo.annotations.class_names import class_key
from clipzoo.data.spec import DatasetSpec


class Lookup:
    """Finds the files of annotated videos, by path or by file name."""

    def __init__(self, video_ids: Iterable[str], spec: DatasetSpec) -> None:
        self._spec = spec
        self._by_name: dict[str, list[str]] = {}
        for video_id in video_ids:
            self._by_name.setdefault(_file_name(video_id), []).append(video_id)
        self._by_key: dict[str, str] = {}

    def copies(self, annotated: str) -> list[str]:
        """Ids of the files that may be an annotated video; empty = none.

        They are the files with its path, below whatever folders, else those with its file name.
        """
        video_id = self._spec.video_id(annotated)
        named = self._by_name.get(_file_name(video_id), [])
        if self._spec.format == "folder":  # the path is the annotation
            return [video_id] if video_id in named else []
        paths = [one for one in named if one == video_id or one.endswith(f"/{video_id}")]
        return paths or named

    def near(self, annotated: str) -> str:
        """The id of a file whose name differs from an annotated one only in case, punctuation or
        extension; '' = none. It is named in messages, never used: two videos of YouTube may have
        ids that differ in case alone.
        """
        if not self._by_key:
            self._by_key = {_loose(name): ids[0] for name, ids in self._by_name.items()}
        return self._by_key.get(_loose(_file_name(self._spec.video_id(annotated))), "")


def describe_near(near: str) -> str:
    """The end of a message on an absent video; empty without a near name."""
    return f"; there is {near}: rename it, or correct the annotation" if near else ""


def choose(copies: Sequence[str], annotated: str, is_readable: Callable[[str], bool]) -> list[str]:
    """The copy of a video to use; several if that cannot be decided.

    A copy that can be read is preferred to one that cannot, then one in a folder like
    replacement/replacement_for_corrupted_k400/ (the mirror of Kinetics has its replacements of
    broken files there), then the one at the annotated path.

    Args:
        copies: the result of `Lookup.copies`.
        annotated: the annotated id, reduced by `id_pattern`.
        is_readable: tells whether a file has frames.
    """
    readable = [one for one in copies if is_readable(one)]
    if not readable:
        return list(copies[:1])
    best = [one for one in readable if "/replacement" in f"/{one.rpartition('/')[0].casefold()}"]
    best = best or readable
    return [one for one in best if one == annotated] or best


def _file_name(video_id: str) -> str:
    return video_id.rpartition("/")[2]


def _loose(name: str) -> str:
    """Example: `v_HandStandPushups_g01` and `v_HandstandPushups_g01.avi` give the same key."""
    return class_key(without_extension(name))
