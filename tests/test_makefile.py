"""What the Makefile passes on."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ("Experiment", True),
        ("State", True),
        ("train.lr", True),
        ("text4vis.head", True),
        ("summary.top1", True),
        ("summary.demo_unseen.full_top1", True),
        ("summary.demo_unseen.gain", True),
        ("summary.verdict", True),
        ("recipe", True),
        ("seed", True),
        ("metrics/demo/test.json:top1", False),
        ("metrics/demo/head-none/zero_shot_demo_unseen.json:full_top1", False),
        ("top1", False),
        ("image_to_text_top1", False),  # in metrics/clip.json alone
        ("input_px", False),
        ("fused_gain_over_video_ci95_low", False),
        ("Created", False),
        ("metrics/demo/test.json:single_view_top1", False),
        ("metrics/demo/zero_shot_demo_unseen.json:raw_full_top1", False),
        ("metrics/demo/test.json:top1_ci95_low", False),
        ("metrics/demo/train.json:loss_last_epoch", False),
        ("models/model.safetensors", False),
        ("src/clipzoo/models", False),
        ("metrics", False),
        ("plots", False),
    ],
)
def test_make_experiments_shows_changes_and_accuracies(column: str, shown: bool):
    """`dvc exp show --drop` drops the columns that its pattern matches from the beginning."""
    (pattern,) = re.findall("^DROP := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert (re.match(pattern.replace("$$", "$"), column) is None) == shown
