"""Lists as published by Text4Vis, BIKE, ActionCLIP, ViFi-CLIP and X-CLIP, instead of the official
annotation files: exactly the sets that their numbers were measured on."""

from clipzoo.annotations.annotation import Annotation, Annotations, Source
from clipzoo.annotations.peer_lists import guess_format, read_entries
from clipzoo.files import ListError


def parse_peer_lists(source: Source) -> Annotations:
    """train.txt and val.txt, each `path num_frames label` or `path label`.

    Labels are positions in the chosen label file. The frame counts in the lists are not used, but
    those of the stored frames. A dataset that is only evaluated on needs no train.txt.
    """
    result = Annotations([], numbered=True)
    for kind, target in (("train", result.train), ("val", result.val)):
        path = source.folder / f"{kind}.txt"
        if not path.exists():
            if kind == "val" or (source.trained_on and not source.spec.evaluation_only):
                raise ListError(f"{path}: no such file; allowed: lists train.txt and val.txt")
            continue
        entries, _ = read_entries(path, guess_format(path), allow_empty=True)
        target += [Annotation(entry.where, entry.video_id, entry.label) for entry in entries]
    return result
