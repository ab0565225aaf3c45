"""The training videos of a run beside those of the authors."""

import pytest

from clipzoo.report.recipes import Authors, Recipe
from clipzoo.report.training_sets import describe_training
from clipzoo.report.verdicts import named_set

UCF = named_set("ucf101/train_rgb_split_1.txt")
K400_LOG = "exps/k400/ViT-L/14-336px/f8/log.txt"
UCF_LOG = "exps/ucf101/ViT-L/14/f16/log.txt"


def of(num: int, sha: str = "0" * 64) -> dict:
    return {"num_videos": num, "videos_sha256": sha}


@pytest.mark.parametrize(
    ("values", "recipe", "log", "words"),
    [
        (
            of(240100),
            "text4vis/k400",
            K400_LOG,
            "trained on 240,100 videos; the authors on 240,513 to 240,576, according to their log",
        ),
        (  # 939 whole batches of 256, the last one dropped
            of(240100),
            "bike/k400",
            "exps/k400/ViT-L/14-336px/8f/log.txt",
            "trained on 240,100 videos; the authors on 240,384 to 240,639, according to their log",
        ),
        (
            of(9500),
            "text4vis/ucf",
            UCF_LOG,
            f"trained on 9,500 videos; the authors on 9,537 ({UCF.name})",
        ),
        (
            of(9537, UCF.videos_sha256),
            "text4vis/ucf",
            UCF_LOG,
            f"trained on the authors' 9,537 videos ({UCF.name})",
        ),
        (of(0), "text4vis/ucf", UCF_LOG, ""),
        (of(5), "text4vis/ucf", "", ""),
        (of(5), "demo", UCF_LOG, ""),
    ],
)
def test_training_sets_stand_beside_the_authors(values, recipe, log, words):
    loaded = Recipe(about="", authors=Authors(log=log, log_gpus=32))
    assert describe_training(values, recipe, loaded) == words
    assert describe_training(values, recipe, None) == ""
