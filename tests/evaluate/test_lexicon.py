"""The words that a CLIP finds in the frames of a video."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from clipzoo.config import AttributesConfig, Params, load_params, replace
from clipzoo.data.records import MISSING_COLUMNS, Record
from clipzoo.evaluate import lexicon
from clipzoo.files import ListError, write_csv
from clipzoo.tensors import WeightsError
from tiny import Towers, normalize

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")


def params(**changes: object) -> Params:
    """Those of params.yaml, but for these values of `attributes`."""
    return replace(PARAMS, {f"attributes.{key}": value for key, value in changes.items()})


def options(**changes: object) -> AttributesConfig:
    return params(**changes).attributes


def test_best_words_are_ordered_and_ties_go_to_the_first():
    words = torch.eye(3)[[0, 1, 1, 2]]  # the second and third are the same
    features = torch.tensor([[0.1, 0.5, 0.2], [0.9, 0.0, 0.1]])
    assert lexicon.best_words(features, words, 3).tolist() == [[1, 2, 3], [0, 3, 1]]


class Tower(nn.Module):
    """Its frame embeddings are the mean color of a frame, times 3."""

    def forward(self, frames):
        return 3 * frames.mean(dim=(2, 3))  # [bT, 3, S, S] -> [bT, 3]


def test_a_score_is_the_mean_cosine_of_the_frames():
    """Long and short frame embeddings count the same."""
    frames = torch.zeros(1, 2, 3, 4, 4, dtype=torch.uint8)
    frames[0, 0, 0], frames[0, 1] = 255, 140
    features = lexicon.FrameScorer(Towers(Tower())).encode(frames)[0]
    tower = [Tower()(normalize(frames[0, t : t + 1]))[0] for t in (0, 1)]
    word = nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5]), dim=0)
    cosines = [torch.cosine_similarity(x, word, dim=0) for x in tower]
    assert float(features @ word) == pytest.approx(float(sum(cosines)) / 2, abs=1e-6)
    assert float(tower[0].norm()) > 1.2 * float(tower[1].norm())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\n\na\n", r"words.txt:4: class name 'a' appears more than once"),
        ("\n \n", "there are no words"),
        ("a\u200bb\n", r"words.txt:1: .*U\+200B"),
    ],
)
def test_wrong_lexicons_are_refused_by_line(tmp_path, text, message):
    path = tmp_path / "words.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ListError, match=message):
        lexicon.read_lexicon(str(path), "demo_shapes")


def test_a_lexicon_is_a_file_or_the_classes(project):
    Path("words.txt").write_text("red fish\n\n  dog \n")
    assert lexicon.read_lexicon("words.txt", "mine") == ["red fish", "dog"]
    Path("lists/mine").mkdir(parents=True)
    Path("lists/mine/labels.csv").write_text("id,name\n0,walk\n1,run\n")
    assert lexicon.read_lexicon("", "mine") == ["walk", "run"]
    with pytest.raises(ListError, match=r"no\.txt: cannot be read"):
        lexicon.read_lexicon("no.txt", "mine")
    with pytest.raises(ListError, match="top_k: found 5; allowed: at most the 2 words of words"):
        lexicon.open_scorer(options(lexicon="words.txt"), "mine")
    unknown = options(lexicon="words.txt", top_k=2, arch="ViT-B-32", weights="no-such-tag")
    with pytest.raises(WeightsError, match=r"attributes\.weights: found 'no-such-tag'"):
        lexicon.open_scorer(unknown, "mine")


def test_the_scoring_clip_has_its_own_size_and_frames():
    own = lexicon.scoring_params(params(num_segments=3))
    assert (own.model.num_segments, own.model.input_px) == (3, PARAMS.model.input_px)
    assert own.test.short_side_px == PARAMS.test.short_side_px
    other = lexicon.scoring_params(params(arch="ViT-L/14-336", weights="openai"))
    assert (other.model.arch, other.model.input_px) == ("ViT-L/14-336", 336)
    assert other.test.short_side_px == 336
    assert other.model.method == "raw"
    assert other.options == {"fusion": "mean", "test_sampler": "first"}
    assert PARAMS.model.method == "text4vis"


ID, OTHER, GONE = "-Abc_def123", "0123456789a", "zyxwvutsrq9"
RECORDS = [Record(f"train/abseiling/{ID}", 9, 0), Record(f"train/zumba/{OTHER}", 9, 1)]


def write_keys(*keys: str, words: str = "rope") -> str:
    entries = {key: {"classname_topk": [words, key], "video_label_id": 0} for key in keys}
    Path("released.json").write_text(json.dumps(entries))
    return "released.json"


@pytest.fixture
def kinetics(project):
    Path("datasets").mkdir(exist_ok=True)
    shutil.copy(Path(__file__).parents[2] / "datasets/kinetics400.yaml", "datasets")


def test_released_attributes_are_found_in_the_folders_of_this_copy(kinetics):
    """The authors' keys have times and no `train/`; their order is not that of the list."""
    keys = [f"zumba/{OTHER}_000001_000011", f"abseiling/{ID}_000035_000045"]
    words, note = lexicon.read_published(write_keys(*keys), RECORDS, "kinetics400")
    assert (words, note) == ([["rope", keys[1]], ["rope", keys[0]]], "")
    write_csv(MISSING_COLUMNS, [(GONE, "train", "absent")], "lists/kinetics400/missing.csv")
    path = write_keys(*keys, f"yoga/{GONE}_000001_000011", "yoga/AAAAAAAAAAA_000001_000011")
    assert lexicon.read_published(path, RECORDS, "kinetics400")[1] == (
        "2 keys are not used: 1 are of videos in lists/kinetics400/missing.csv, 1 of videos in no "
        "list (yoga/AAAAAAAAAAA_000001_000011)"
    )


def test_videos_without_attributes_and_ambiguous_keys_are_named(kinetics):
    keys = [f"abseiling/{ID}_000035_000045", f"abseiling/{ID}_000001_000011"]
    with pytest.raises(ListError, match="1 of 2 videos") as caught:
        lexicon.read_published(write_keys(*keys), RECORDS, "kinetics400")
    assert f"{keys[1]} and {keys[0]} are both train/abseiling/{ID}" in str(caught.value)
    assert f"released.json: missing train/zumba/{OTHER}" in str(caught.value)
    two = [*RECORDS, Record(f"train/again/{ID}", 9, 0)]
    with pytest.raises(ListError, match=rf"could be any of train/abseiling/{ID}, train/again/{ID}"):
        lexicon.read_published(write_keys(f"climbing/{ID}"), two, "kinetics400")
