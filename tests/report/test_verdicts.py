"""A run next to what was published: videos, settings, verdict."""

import pytest

from clipzoo.config import replace
from clipzoo.report import verdicts
from clipzoo.report.recipes import Authors, Published, Recipe
from clipzoo.report.released import expected_settings

K400 = "k400/kinetics_rgb_val_se320.txt"
UCF = "ucf101/val_rgb_split_1.txt"
UCF_SHA = "9786bbada20940362aae03b58ce6a8affb5a1944060b6bb4148edacd89b835df"
HMDB_SHA = "d377318886e1191fc1c11e66021a90c0b1830fd473671969fb94c5b3e1378220"
OTHER = "0" * 64


def of_set(sha: str, num: int = 3783, expected: int | None = None, expected_sha: str = "") -> dict:
    values = {"videos_sha256": sha, "num_videos": num, "num_expected": expected or num}
    return values | ({"expected_sha256": expected_sha} if expected_sha else {})


@pytest.mark.parametrize(
    ("values", "published", "words", "same"),
    [
        (of_set(UCF_SHA), UCF, f"the published {UCF}", True),
        (of_set(UCF_SHA), "", UCF, False),
        (
            of_set(HMDB_SHA),
            UCF,
            f"hmdb51/val_rgb_split_1.txt, not the published {UCF}",
            False,
        ),
        (of_set(OTHER, 3780, 3783, UCF_SHA), UCF, f"3 videos fewer than {UCF}", False),
        (of_set(OTHER, 3780), UCF, f"at least 3 videos differ from the published {UCF}", False),
        (of_set(OTHER), UCF, f"at least 1 videos differ from the published {UCF}", False),
        (of_set(OTHER), "", "", False),
        (
            of_set("", 19800),
            K400,
            f"19800 rows without ids: as many as the published {K400} and 4 repeated",
            True,
        ),
        (of_set("", 19796), K400, f"19796 rows without ids: as many as the published {K400}", True),
        (
            of_set("", 19801),
            K400,
            f"19801 rows without ids, not the 19796 of the published {K400}",
            False,
        ),
        (of_set("", 7), "", "7 rows without ids", False),
    ],
)
def test_sets_are_known_by_name(values, published, words, same):
    assert verdicts.compare_videos(values, published) == (words, same)


def test_a_list_that_is_not_published_is_an_error():
    with pytest.raises(ValueError, match=r"no list 'ucf101/none\.txt'"):
        verdicts.named_set("ucf101/none.txt")


WANTED = {
    "recipe": "a",
    "model.arch": "ViT-B/32",
    "model.weights": "openai",
    "demo.train_videos": 12,
    "data.allow_missing": 0,
    "data.zero_shot": [],
    "frames.size": 320,
    "frames.shard_videos": 64,
    "train.lr": 5e-5,
    "train.select": "last",
    "train.val_every": 1,
    "train.checkpoint_every": 200,
    "test.clips": 4,
    "test.short_side_px": 256,
    "zero_shot.clips": 1,
}


@pytest.mark.parametrize(
    ("changes", "stem", "keys"),
    [
        ({}, "test", []),
        ({"model.arch": "RN50", "train.lr": 1.0}, "test", ["model.arch", "train.lr"]),
        ({"recipe": "b", "data.allow_missing": 3, "data.zero_shot": ["x"]}, "test", []),
        ({"train.checkpoint_every": 1, "train.val_every": 5}, "test", []),
        ({"train.val_every": 5, "train.select": "best"}, "test", ["train.select", "train.val_ev"]),
        ({"frames.size": 256, "frames.shard_videos": 8}, "test", ["frames.size"]),
        ({"zero_shot.clips": 4}, "test", []),
        ({"zero_shot.clips": 4}, "zero_shot_ucf101", ["zero_shot.clips"]),
        ({"test.clips": 1}, "zero_shot_ucf101", []),
        ({"test.clips": 1}, "test", ["test.clips"]),
        ({"test.short_side_px": 224}, "zero_shot_ucf101", ["test.short_side_px"]),
        ({"demo.train_videos": 3}, "test", []),
        ({"demo.train_videos": 3, "model.weights": "demo"}, "test", ["demo.train", "model.weigh"]),
        ({"train.new": 3}, "test", ["train.new"]),
        ({"model.activation": "auto"}, "test", []),  # older runs have no such key
        ({"model.activation": "gelu"}, "test", []),
        ({"model.activation": "auto", "model.weights": "a.pt"}, "test", ["model.act", "model.w"]),
        ({"model.activation": "gelu", "model.weights": "w/a"}, "test", ["model.act", "model.w"]),
    ],
)
def test_settings_that_matter_are_named(changes, stem, keys):
    found = verdicts.modified(WANTED | changes, WANTED, stem)
    assert len(found) == len(keys)
    assert all(key.startswith(start) for key, start in zip(found, keys, strict=True))


@pytest.mark.parametrize(
    ("used", "expected", "keys"),
    [
        ({}, {"runtime.micro_batch": 32}, []),
        ({"runtime.micro_batch": 16, "runtime.processes": 2}, {}, []),
        ({"runtime.micro_batch": 32, "runtime.processes": 2}, {"runtime.micro_batch": 32}, []),
        ({"runtime.micro_batch": 16}, {"runtime.micro_batch": 32}, ["runtime.micro_batch"]),
    ],
)
def test_the_micro_batch_counts_if_both_the_run_and_the_recipe_say_it(used, expected, keys):
    assert verdicts.modified(WANTED | used, WANTED | expected, "test") == keys


@pytest.mark.parametrize(("gpus", "split"), [(8, {"runtime.micro_batch": 32}), (0, {})])
def test_the_authors_split_is_their_clips_on_a_gpu(gpus, split):
    recipe = Recipe(about="", authors=Authors(config_gpus=gpus))
    assert verdicts.authors_split(recipe, {"train.batch_size": 256}) == split
    assert verdicts.authors_split(None, {}) == {}


ROW = Published(
    metric="top1",
    dataset="ucf101",
    clips=1,
    crops=1,
    value=98.1,
    tolerance=0.4,
    source="a table",
)
RECIPE = Recipe(about="a test", video_sets={"test": "ucf101/val_rgb_split_1.txt"})


@pytest.mark.parametrize(
    ("value", "row", "recipe", "changed", "same", "words"),
    [
        (98.4, ROW, RECIPE, [], True, "reproduced (within 0.4)"),
        (97.0, ROW, RECIPE, [], True, "1.1 below (tolerance 0.4)"),
        (98.6, ROW, RECIPE, [], True, "0.5 above (tolerance 0.4)"),
        (98.1, ROW, RECIPE, ["model.arch"], True, "modified: model.arch"),
        (98.1, None, RECIPE, ["model.arch"], True, "modified: model.arch"),
        (98.1, ROW, RECIPE, list("abcde"), True, "modified: a, b, c and 2 more"),
        (98.1, ROW, RECIPE, None, True, "no verdict: settings not recorded"),
        (98.1, ROW, RECIPE, [], False, "no verdict: other videos"),
        (98.1, ROW, Recipe(about=""), [], False, "no verdict: the set of videos is not published"),
        (98.1, ROW, Recipe(about="", verdict=False), [], True, "no verdict: see the recipe"),
        (98.1, None, RECIPE, [], True, "no published value"),
        (98.1, None, None, None, True, "own run"),
    ],
)
def test_verdicts(value, row, recipe, changed, same, words):
    assert verdicts.verdict(value, row, recipe, changed, same) == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"value": None}, "no published value"),
        ({"clips": None}, "no verdict: views not published"),
    ],
)
def test_an_incomplete_row_gets_no_verdict(changes, words):
    row = replace(ROW, changes)
    assert verdicts.verdict(98.1, row, RECIPE, [], True) == words


def test_the_share_of_the_raw_clip_counts_where_released_weights_are_evaluated():
    """It is a key of `train`, whose others an evaluation does not read."""
    used = {"train.lr": 2.0, "train.raw_clip_share": 0.0, "model.checkpoint": "released.pt"}
    recipe = {"train.lr": 1.0, "train.raw_clip_share": 0.01, "model.checkpoint": ""}
    expected = expected_settings(used, recipe, "test")
    assert expected == {**used, "train.raw_clip_share": 0.01, "train.epochs": 0}
