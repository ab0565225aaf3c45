"""Attributes: words that describe a video, and the sentences made of them as clips of token ids.

`data/attributes/<dataset>/<list>.json` has the form of the files that BIKE's authors
published:

    {"<video_id>": {"classname_topk": ["<best>", "<second>", ...], "video_label_id": 166}, ...}
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clipzoo.clips.clips import SINGLE_VIEW
from clipzoo.data.records import Record
from clipzoo.files import ListError, raise_all, read_json, replacing
from clipzoo.models.text import cut_texts, tokenize
from clipzoo.runtime.distributed import say

ATTRIBUTES_DIR = Path("data/attributes")


def attributes_path(dataset: str, list_name: str) -> Path:
    """Path of the attributes of the videos of a list (`train` or `val`)."""
    return ATTRIBUTES_DIR / dataset / f"{list_name}.json"


def read_attributes(path: str | Path) -> dict[str, list[str]]:
    """The attributes of each video, the best first, by its id.

    Raises:
        ListError: the file is missing or not of the form above; names every wrong entry.
    """
    if not Path(path).exists():
        raise ListError(
            f"{path}: no such file; the stage `attributes` writes such files for "
            "attributes.datasets"
        )
    entries = read_json(path)
    if not isinstance(entries, dict):
        raise ListError(f"{path}: found a {type(entries).__name__}; allowed: an object by video id")
    faults = []
    for video_id, entry in entries.items():
        words = entry.get("classname_topk") if isinstance(entry, dict) else None
        if not isinstance(words, list) or not all(isinstance(w, str) and w.strip() for w in words):
            faults.append(
                f"{path}: {video_id}: classname_topk: found {str(words)[:100]}; allowed: a list of "
                "words, the best first"
            )
    raise_all(f"{path}: {len(faults)} wrong entries", faults)
    return {video_id: entry["classname_topk"] for video_id, entry in entries.items()}


def write_attributes(
    records: Sequence[Record], words: Iterable[Sequence[str]], path: str | Path
) -> None:
    """Write the attributes of some videos, the best first, in the order of the records."""
    entries = {
        record.video_id: {"classname_topk": list(best), "video_label_id": record.label}
        for record, best in zip(records, words, strict=True)
    }
    with replacing(path) as part:
        part.write_text(json.dumps(entries, ensure_ascii=False) + "\n", encoding="utf-8")


def whole_videos(records: Sequence[Record], where: str | Path) -> None:
    """Raise ListError if a list has segments of videos: attributes are those of a whole video."""
    seen: set[str] = set()
    faults = []
    for record in records:
        if record.start_frame or record.video_id in seen:
            faults.append(f"{where}: {record.video_id} from frame {record.start_frame}")
        seen.add(record.video_id)
    raise_all(f"{where}: segments, but attributes are those of whole videos", faults)


def sentence_tokens(
    records: Sequence[Record],
    path: str | Path,
    sentence: Callable[[Sequence[str]], str],
    arch: str,
    length: int,
) -> Tensor:
    """Token ids of the sentence of each record: start, at most `length` - 2 tokens, end, zeros.

    They are int32 [N, L] for N records, with L = `length` of the text tower and the tokenizer of
    `arch`. As in the authors' code, a long sentence is cut.

    Args:
        path: the file with the attributes.
        sentence: attributes of a video -> its sentence (`SentenceInputs.sentence`).

    Raises:
        ListError: some videos have no attributes, or too few; names them.
    """
    if not records:  # train.epochs 0
        return torch.zeros(0, length, dtype=torch.int32)
    attributes = read_attributes(path)
    sentences, faults = [], []
    for record in records:
        try:
            sentences.append(sentence(attributes[record.video_id]))
        except KeyError:
            faults.append(f"{path}: {record.video_id}: no attributes")
        except ValueError as error:
            faults.append(f"{path}: {record.video_id}: {error}")
    raise_all(
        f"{path}: {len(faults)} of {len(records)} videos have no usable attributes; run the stage "
        "`attributes` again",
        faults,
    )
    # 8 bytes a token would be 0.6 GB for a million sentences, in every process.
    token_ids = tokenize(arch, sentences, length)  # [N, L]
    if cut := cut_texts(arch, sentences, token_ids):
        say(
            f"note: {path}: {len(cut)} of {len(sentences)} sentences are longer than the {length} "
            "tokens of the text tower and are cut off there, as in the authors' code"
        )
    return token_ids.int()  # [N, L]


@dataclass(eq=False)
class TrainSentences:
    """The sentences of N training videos, token ids int32 [N, L], without randomness."""

    records: Sequence[Record]
    tokens: Tensor

    def record(self, position: int) -> Record:
        """The record at a position; positions from len(records) on start over."""
        return self.records[position % len(self.records)]

    def load(self, position: int, epoch: int) -> Tensor:
        """Token ids int64 [L] of one sentence, the same in every epoch."""
        return self.tokens[position % len(self.records)].long()


@dataclass(eq=False)
class ViewSentences:
    """The sentence of every video, token ids int32 [N, L], as its only view."""

    records: Sequence[Record]
    tokens: Tensor
    view_names: Sequence[str] = (SINGLE_VIEW,)

    def load(self, position: int) -> Tensor:
        """Token ids int64 [V = 1, L] of one video."""
        return self.tokens[position].long()[None]  # [L] -> [1, L]

    def pictures(self, positions: Sequence[int]) -> list[Tensor]:
        """None: a sentence has no frames."""
        return []
