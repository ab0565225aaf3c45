"""The rendered world: twins are each other played backwards, and nothing is in both datasets."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from clipzoo.demo import world


def test_all_classes_come_in_pairs_that_differ_in_time_alone():
    for classes in world.DATASETS.values():
        assert len(classes) >= 10
        names = {action.name for action in classes}
        for action in classes:
            other = {**world.CHANGES, **{b: a for a, b in world.CHANGES.items()}}[action.end]
            twin = dataclasses.replace(action, end=other)
            assert twin.name in names
            assert twin.reversed != action.reversed


@pytest.mark.parametrize("pair", [("large", "small"), ("bright", "dark")])
def test_twins_have_the_same_frames(pair: tuple[str, str]):
    """`render` gives the same video for both; the one with `reversed` is written backwards."""
    first, second = (world.ActionClass("red", "ring", end) for end in pair)
    frames = [
        world.render(world.sample_scene(action, np.random.default_rng(3), 9))
        for action in (first, second)
    ]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert (first.reversed, second.reversed) == (False, True)


@pytest.mark.parametrize("end", world.ENDS)
def test_course_has_no_preferred_direction(end: str):
    """Over many scenes, the mean course is symmetric: as far from its start as from its end."""
    scenes = [
        world.sample_scene(world.ActionClass("red", "bar", end), np.random.default_rng(i), 21)
        for i in range(400)
    ]
    course = np.mean([s.radius if end in ("large", "small") else s.light for s in scenes], axis=0)
    share = (course - course[0]) / (course[-1] - course[0])
    np.testing.assert_allclose(share, 1 - share[::-1], atol=0.02)
    drift = np.mean([s.center[-1] - s.center[0] for s in scenes], axis=0)
    assert np.abs(drift).max() < 0.01


def test_an_object_grows_and_a_scene_brightens():
    rng = np.random.default_rng(0)
    scene = world.sample_scene(world.ActionClass("green", "circle", "large"), rng, 8)
    plain = np.full_like(scene.background, 100)
    frames = world.render(dataclasses.replace(scene, noise=0, background=plain))
    ground = frames[0, 0, 0].astype(int)
    areas = (np.abs(frames.astype(int) - ground).sum(-1) > 40).sum((1, 2))
    assert np.all(np.diff(areas) >= 0)
    assert areas[-1] > 3 * areas[0]
    bright = world.sample_scene(world.ActionClass("green", "circle", "bright"), rng, 8)
    means = world.render(bright).mean((1, 2, 3))
    assert np.all(np.diff(means) > -1)
    assert means[-1] > 2 * means[0]


def test_a_still_shows_the_end_that_its_caption_names():
    rng = np.random.default_rng(0)
    stills = {
        end: [world.sample_still(world.ActionClass("red", "pole", end), rng, 64) for _ in range(50)]
        for end in world.ENDS
    }
    radius = {end: [float(s.radius[0]) for s in end_scenes] for end, end_scenes in stills.items()}
    light = {end: [float(s.light[0]) for s in end_scenes] for end, end_scenes in stills.items()}
    assert max(radius["small"]) < min(radius["large"])
    assert max(light["dark"]) < min(light["bright"])


def test_shapes_look_different():
    """Silhouettes of equal radius differ in a good part of their points."""
    u, v = np.meshgrid(*[np.linspace(-1.2, 1.2, 49)] * 2)
    inside = {shape: world.outside(shape, u, v) < 0 for shape in world.SHAPES}
    for a in world.SHAPES:
        assert inside[a].mean() > 0.1
        for b in world.SHAPES:
            union = (inside[a] | inside[b]).sum()
            assert a == b or (inside[a] ^ inside[b]).sum() > 0.3 * union, (a, b)


def test_datasets_share_no_object_but_every_part_of_one():
    first, second = world.DATASETS.values()
    objects = [{(a.color, a.shape) for a in part} for part in (first, second)]
    assert [len(part) for part in objects] == [12, 6]
    assert not objects[0] & objects[1]
    assert {a.name for a in (*first, *second)} < {a.name for a in world.ALL_CLASSES}
    for times in (Counter(c for c, _ in objects[0]), Counter(s for _, s in objects[0])):
        assert set(times.values()) == {2}
    for part in ("color", "shape", "end"):
        assert {getattr(a, part) for a in second} == {getattr(a, part) for a in first}
