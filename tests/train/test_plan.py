"""Which clips each optimizer step takes."""

from pathlib import Path

import numpy as np

from clipzoo.config import load_params, replace
from clipzoo.train.plan import Plan, make_plan

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")


def small_plan(**changes) -> Plan:
    values = {"num_clips": 10, "batch_size": 4, "epochs": 3, "seed": 7}
    return Plan(**{**values, "max_steps": None, **changes})


def test_every_clip_of_an_epoch_is_taken_once_and_no_partial_window_is_lost():
    plan = small_plan()
    steps = plan.step_positions(0)
    assert [len(step) for step in steps] == [4, 4, 2]
    assert sorted(p for step in steps for p in step) == list(range(10))
    assert plan.steps_per_epoch == 3
    assert plan.total_steps == 9


def test_epochs_and_seeds_differ_and_repeat():
    assert small_plan().step_positions(0) != small_plan().step_positions(1)
    assert small_plan().step_positions(0) != small_plan(seed=8).step_positions(0)
    assert small_plan().step_positions(2) == small_plan().step_positions(2)


def test_steps_after_the_end_of_the_run_are_left_out():
    plan = small_plan(max_steps=4)
    assert [len(plan.step_positions(epoch)) for epoch in range(3)] == [3, 1, 0]


def test_few_shot_picks_are_repeated_as_the_authors_do():
    plan = make_plan(replace(PARAMS, {"data.shots": 2}), num_records=8, num_all=50)
    assert plan.num_clips == 8 * 6


def test_stand_in_weights_of_another_architecture_stop_early():
    params = replace(PARAMS, {"model.arch": "ViT-L/14"})
    other = make_plan(params, num_records=480, num_all=480)
    assert other.total_steps == PARAMS.demo.other_archs.train_steps
    own = make_plan(PARAMS, num_records=480, num_all=480)
    assert own.total_steps == own.steps_per_epoch * PARAMS.train.epochs


def test_validation_follows_every_n_epochs_and_the_end():
    plan = small_plan(epochs=5)
    assert [s for s in range(1, 16) if plan.validates(s, 2)] == [6, 12, 15]


def test_templates_are_drawn_by_seed_epoch_and_position():
    plan, positions = small_plan(), list(range(2000))
    drawn = plan.draw_templates(0, positions, 16)
    counts = [drawn.count(template) for template in range(16)]
    assert sum(counts) == 2000
    assert min(counts) > 90
    assert max(counts) < 160
    assert plan.draw_templates(0, positions[500:520], 16) == drawn[500:520]
    for other in (
        plan.draw_templates(1, positions, 16),
        small_plan(seed=8).draw_templates(0, positions, 16),
    ):
        assert sum(a == b for a, b in zip(drawn, other, strict=True)) < 200
    # Not the numbers that choose the frames of the same clip.
    frames = [int(np.random.default_rng([7, 0, p]).integers(16)) for p in positions]
    assert sum(a == b for a, b in zip(drawn, frames, strict=True)) < 200
