"""Videos in one folder per class."""

import zlib

import numpy as np

from clipzoo.annotations.annotation import Annotation, Annotations, Source
from clipzoo.files import read_rows


def parse_folder(source: Source) -> Annotations:
    """`<class>/<video>`, or train/<class>/<video> and val/<class>/<video>; names in classes.csv.

    Without train/ and val/, `val_fraction` of every class with two videos or more is drawn for
    validation, by a generator seeded by (seed, folder of the class). If a dataset is only evaluated
    on, or its val_fraction is 1, all videos are for validation. classes.csv (folder, name) is
    written by `clipzoo scan`.
    """
    path = source.folder / "classes.csv"
    table = read_rows(path, ("folder", "name"))
    number = {folder: i for i, (_, folder, _) in enumerate(table)}
    result = Annotations([name for _, _, name in table])
    parts = {video_id: video_id.split("/") for video_id in source.video_ids}
    divided = {part[0] for part in parts.values()} == {"train", "val"}
    members: dict[str, list[Annotation]] = {folder: [] for folder in number}
    for video_id, folders in parts.items():
        folder, depth = (folders[1], 3) if divided and len(folders) > 1 else (folders[0], 2)
        if len(folders) < depth:
            result.faults.append(f"{video_id}: is in no class folder; allowed: CLASS/VIDEO")
        elif folder not in number:
            result.faults.append(f"{video_id}: {folder!r} is not in {path}; scan again")
        elif divided:
            target = result.train if folders[0] == "train" else result.val
            target.append(Annotation(video_id, video_id, number[folder]))
        else:
            members[folder].append(Annotation(video_id, video_id, number[folder]))
    for folder, videos in members.items():
        num_val = len(videos)
        if source.trained_on:
            num_val = validation_share(len(videos), source.spec.val_fraction)
        rng = np.random.default_rng([source.seed, zlib.crc32(folder.encode())])
        chosen = set(rng.permutation(len(videos))[: max(0, num_val)].tolist())
        for position, video in enumerate(videos):
            (result.val if position in chosen else result.train).append(video)
    return result


def validation_share(num_videos: int, val_fraction: float) -> int:
    """How many of a class's videos are for validation: at least one, and not all unless
    `val_fraction` is 1; so none of a single video."""
    if val_fraction == 1:
        return num_videos
    return min(max(1, round(num_videos * val_fraction)), num_videos - 1)
