"""Attribute files, and sentences as clips of token ids."""

import json
from pathlib import Path

import pytest
import torch

from clipzoo.clips.attributes import (
    TrainSentences,
    ViewSentences,
    read_attributes,
    sentence_tokens,
    whole_videos,
    write_attributes,
)
from clipzoo.data.records import Record
from clipzoo.files import ListError
from clipzoo.models.text import tokenize

ARCH = "ViT-demo-16"
RECORDS = [Record("a b/1", 9, 3), Record("-x", 9, 0)]
WORDS = [["climbing", "red fish"], ["a dog", "ünï"]]
START, END = 49406, 49407


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_attributes(RECORDS, WORDS, tmp_path / "train.json")
    return tmp_path / "train.json"


def test_files_have_the_authors_form(path):
    assert json.loads(path.read_text()) == {
        "a b/1": {"classname_topk": ["climbing", "red fish"], "video_label_id": 3},
        "-x": {"classname_topk": ["a dog", "ünï"], "video_label_id": 0},
    }
    assert read_attributes(path) == dict(zip(["a b/1", "-x"], WORDS, strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"v": {"classname_topk": "dog"}}', "v: classname_topk: found dog"),
        ('{"v": {"classname_topk": ["dog", 3]}, "w": {}}', r"2 wrong entries\n.*v: .*\n.*w: "),
        ('{"v": ["dog"]}', "v: classname_topk: found None"),
        (
            '{"v": {"classname_topk": []}, "v": {"classname_topk": []}}',
            "set twice: 'v'",
        ),
        ("[]", "found a list; allowed: an object"),
        ("{", "is not JSON"),
    ],
)
def test_wrong_files_are_refused_by_key(path, text, message):
    path.write_text(text)
    with pytest.raises(ListError, match=message):
        read_attributes(path)


def test_segments_are_refused():
    whole_videos(RECORDS, "train.csv")
    for segment in (Record("a b/1", 4, 1), Record("other", 4, 1, start_frame=5)):
        with pytest.raises(ListError, match=f"{segment.video_id} from frame"):
            whole_videos([*RECORDS, segment], "train.csv")


def test_tokens_are_cut_with_the_end_token_last(path):
    tokens = sentence_tokens(RECORDS, path, lambda words: ",".join(words), ARCH, 77)
    assert tokens.dtype == torch.int32
    assert torch.equal(tokens.long(), tokenize(ARCH, ["climbing,red fish", "a dog,ünï"], 77))
    assert tokens[0, 0] == START
    assert tokens[0].tolist().index(END) == 5  # climbing , red fish
    long = sentence_tokens(RECORDS[:1], path, lambda words: "red " * 200, ARCH, 77)[0]
    assert (long[0], long[76], int(long[1:76].unique().numel())) == (START, END, 1)
    assert int(long.argmax()) == 76  # where the text tower reads the sentence
    assert sentence_tokens([], "no file", str, ARCH, 12).shape == (0, 12)


def test_videos_without_usable_attributes_are_named(path):
    def two(words):
        if len(words) < 2:
            raise ValueError("found 1 attributes")
        return ",".join(words)

    path.write_text('{"-x": {"classname_topk": ["dog"]}}')
    with pytest.raises(ListError, match=r"2 of 2 .*\n.*a b/1: no attributes\n.*-x: found 1"):
        sentence_tokens(RECORDS, path, two, ARCH, 12)
    with pytest.raises(ListError, match=r"other\.json: no such file.*stage `attributes`"):
        sentence_tokens(RECORDS, path.with_name("other.json"), two, ARCH, 12)


def test_clips_are_tokens_by_position():
    tokens = torch.tensor([[1, 2, 0], [3, 4, 5]], dtype=torch.int32)
    clips = TrainSentences(RECORDS, tokens)
    assert clips.load(3, epoch=7).tolist() == [3, 4, 5]
    assert clips.load(0, epoch=0).dtype == torch.int64
    assert clips.record(3) == RECORDS[1]
    views = ViewSentences(RECORDS, tokens)
    assert views.load(1).tolist() == [[3, 4, 5]]
    assert list(views.view_names) == ["clip0-center"]
