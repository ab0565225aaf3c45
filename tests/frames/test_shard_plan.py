"""A shard keeps its videos: what edits of the manifest make again, and what the store reads then.

ffmpeg is replaced by a function that makes frames of text, `<content of the file> <number>`, so
that every frame tells which file it was made from, and in which state.
"""

import random
import runpy
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from clipzoo.__main__ import main
from clipzoo.data.index import (
    StoreError,
    index_path,
    read_failures,
    read_index,
    read_metadata,
    read_states,
    write_index,
)
from clipzoo.data.ledger import read_ledger, write_ledger
from clipzoo.data.store import ShardStore, open_store
from clipzoo.frames import extraction
from clipzoo.frames.executors import Workers
from clipzoo.frames.extraction import extract
from clipzoo.frames.manifest import RawVideo, manifest_path, write_manifest
from clipzoo.frames.plan import divide, is_divided_by, plan_path, plan_shards

ROOT = Path(__file__).parents[2]
FRAMES, RAW = Path("data/frames/mine"), Path("data/raw/mine")
BROKEN = "broken"


def jpeg(text: str) -> bytes:
    """A small JPEG with a comment."""
    picture = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    comment = text.encode()
    return picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]


def frames_of(content: str) -> list[bytes]:
    """The frames of a file, one to seven."""
    return [jpeg(f"{content} {number}") for number in range(len(content) % 7 + 1)]


class Inline(Executor):
    """Runs a task when it is submitted."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class KilledError(BaseException):
    """Ends a run where nothing expects it; it does nothing more."""


@dataclass
class Dataset:
    """The dataset `mine`: its files, and runs of its extraction."""

    params_for: object
    monkeypatch: pytest.MonkeyPatch
    contents: dict[str, str] = field(default_factory=dict)
    """Of each file, by path."""
    made: list[int] = field(default_factory=list)
    """Shards that were made since this was last emptied."""
    num_reads: int = 0
    """Of files, by the decoder."""
    num_edits: int = 0

    def write(self, **contents: str) -> None:
        """Change files; their names have the extension .mp4."""
        for name, content in contents.items():
            path = f"{name}.mp4"
            (RAW / path).parent.mkdir(parents=True, exist_ok=True)
            (RAW / path).write_text(content)
            self.contents[path] = content

    def remove(self, *names: str) -> None:
        for name in names:
            (RAW / f"{name}.mp4").unlink()
            del self.contents[f"{name}.mp4"]

    def scan(self) -> list[RawVideo]:
        """The manifest as `scan` writes it, with ids of the paths up to a dash."""
        videos = [
            RawVideo(path[:-4].partition("-")[0], path, len(content))
            for path, content in sorted(self.contents.items())
        ]
        write_manifest(videos, manifest_path("mine"))
        return videos

    def extract(self, *, share: tuple[int, int] = (1, 1), **frames: object):
        self.made.clear()
        params = self.params_for("mine", frames={"shard_videos": 3, **frames})  # pyright: ignore[reportCallIssue]
        return extract(params, "mine", share=share, executor=Inline())

    def plan(self) -> dict[int, list[str]]:
        params = self.params_for("mine", frames={"shard_videos": 3})  # pyright: ignore[reportCallIssue]
        return {j.shard: [v.video_id for v in j.videos] for j in plan_shards(params, "mine")}

    def check(self) -> None:
        """Every frame of every file is the right one, and nothing else is in the store."""
        store, readable = ShardStore(index_path("mine")), {}
        for path, content in self.contents.items():
            if not content.startswith(BROKEN):
                readable[path[:-4].partition("-")[0]] = frames_of(content)
        assert store.videos.keys() == readable.keys()
        for video_id, frames in readable.items():
            assert store.read(video_id, range(store.videos[video_id].num_frames)) == frames
        failed = {path[:-4] for path, text in self.contents.items() if text.startswith(BROKEN)}
        assert {video_id for video_id in read_failures(index_path("mine"))} == {
            name.partition("-")[0] for name in failed
        }
        tars = {int(path.name[6:11]) for path in FRAMES.glob("shard-*")}
        assert tars == read_states(index_path("mine")).keys()
        assert not plan_path("mine").exists()


@pytest.fixture
def dataset(project, params_for, monkeypatch) -> Dataset:
    """Seven videos, in shards of three."""
    made = Dataset(params_for, monkeypatch)
    original = extraction.pack_videos

    def run_ffmpeg(command, outcome) -> Iterator[bytes]:
        made.num_reads += 1
        content = Path(command[command.index("-i") + 1].removeprefix("file:")).read_text()
        if content.startswith(BROKEN):
            outcome.damage = "it is broken"
        else:
            yield b"".join(frames_of(content))

    def pack_videos(path, *rest):
        if path.suffix == ".tar":
            made.made.append(int(path.name[6:11]))
        return original(path, *rest)

    monkeypatch.setattr("clipzoo.frames.packing.run_ffmpeg", run_ffmpeg)
    monkeypatch.setattr("clipzoo.frames.extraction.pack_videos", pack_videos)
    monkeypatch.setattr("clipzoo.files._sync", lambda _: None)
    Path("datasets/mine.yaml").write_text("about: x\nformat: folder\n")
    made.write(**{name: name * 3 for name in "abcdefg"})
    made.scan()
    return made


def stats() -> dict[str, tuple[int, int]]:
    """Of each tar: when it was changed, and its inode."""
    tars = sorted(FRAMES.glob("*.tar"))
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tars}


def test_one_video_more_or_less_or_changed_makes_at_most_one_shard(dataset):
    dataset.extract()
    assert dataset.made == [0, 1, 2]
    first = stats()
    for edit, made in (
        (lambda: dataset.remove("b"), []),
        (lambda: dataset.write(b2="new"), [3]),
        (lambda: dataset.write(e="longer"), [1]),
        (lambda: dataset.remove("g"), []),  # the only one of its shard
        (lambda: dataset.write(b="back again"), [4]),
    ):
        edit()
        dataset.scan()
        before = stats()
        dataset.extract()
        dataset.check()
        assert dataset.made == made
        names = [f"shard-{number:05d}.tar" for number in made]
        kept = {name: stat for name, stat in before.items() if name in stats()}
        assert {name for name, stat in kept.items() if stats()[name] != stat} <= set(names)
        assert len(dataset.made) <= 1
    assert stats()["shard-00000.tar"] == first["shard-00000.tar"]
    assert dataset.plan() == {0: ["a", "c"], 1: ["d", "e", "f"], 3: ["b2"], 4: ["b"]}
    assert b"bbb" in (FRAMES / "shard-00000.tar").read_bytes()  # until that shard is made again
    dataset.write(c="changed")
    dataset.scan()
    dataset.extract()
    assert dataset.made == [0]
    assert b"bbb" not in (FRAMES / "shard-00000.tar").read_bytes()
    dataset.check()


def test_a_file_with_another_path_makes_its_shard_again(dataset):
    dataset.extract()
    dataset.remove("e")
    dataset.write(**{"e-2": "eee"})
    dataset.scan()
    dataset.extract()
    assert dataset.made == [1]
    rows = {row["video_id"]: row["path"] for row in read_index(index_path("mine")).to_pylist()}
    assert rows["e"] == "e-2.mp4"
    dataset.check()


def test_a_video_that_is_not_wanted_any_more_keeps_its_frames(dataset):
    dataset.extract()
    before = (FRAMES / "index.parquet").stat().st_mtime_ns
    dataset.write(test1="x", test2="y")
    videos = dataset.scan()
    wanted = [video for video in videos if video.video_id not in ("b", "test1", "test2")]
    params = dataset.params_for("mine", frames={"shard_videos": 3})  # pyright: ignore[reportCallIssue]
    jobs = plan_shards(params, "mine", videos, wanted)
    extract(params, "mine", jobs, executor=Inline())
    assert len(dataset.made) == 3
    assert (FRAMES / "index.parquet").stat().st_mtime_ns == before
    assert "b" in ShardStore(index_path("mine")).videos
    index_path("mine").unlink()
    with pytest.raises(StoreError, match="found 9 videos, none of which is to be extracted"):
        plan_shards(params, "mine", videos, [])


def test_folders_of_frames_have_parts_and_no_shards(project, params_for, monkeypatch):
    """Rows tell no shard, so their numbers of frames do."""
    described, original = [], extraction.describe_videos

    def describe(root, videos, *rest):
        described.append("".join(video.path for video in videos))
        return original(root, videos, *rest)

    def write(**counts: int) -> None:
        for name, count in counts.items():
            for i in range(count):
                (RAW / name).mkdir(parents=True, exist_ok=True)
                (RAW / name / f"img_{i + 1:05d}.jpg").write_bytes(jpeg(f"{name} {i}"))

    def run_on(names: str) -> dict[str, int]:
        videos = [RawVideo(name, name, len(list((RAW / name).iterdir()))) for name in names]
        write_manifest(videos, manifest_path("mine"))
        described.clear()
        params = params_for("mine", frames={"shard_videos": 2})
        extract(params, "mine", executor=Inline())
        store = open_store(params, "mine")
        for video_id, info in store.videos.items():
            frames = store.read(video_id, range(info.num_frames))
            assert frames == [jpeg(f"{video_id} {i}") for i in range(info.num_frames)]
        return {video_id: info.num_frames for video_id, info in store.videos.items()}

    monkeypatch.setattr(extraction, "describe_videos", describe)
    Path("datasets/mine.yaml").write_text("about: x\nformat: folder\nreader: directory\n")
    write(a=3, b=1, c=2, d=5, e=1)
    assert run_on("abcde") == {"a": 3, "b": 1, "c": 2, "d": 5, "e": 1}
    assert described == ["ab", "cd", "e"]
    write(c=4, f=2)
    assert run_on("acdef") == {"a": 3, "c": 4, "d": 5, "e": 1, "f": 2}
    assert described == ["cd", "f"]
    assert run_on("def") == {"d": 5, "e": 1, "f": 2}
    assert described == []


def test_another_setting_divides_all_videos_again(dataset):
    dataset.extract()
    dataset.remove("a", "d")
    dataset.write(h="hhh")
    dataset.scan()
    dataset.extract()
    assert dataset.plan() == {0: ["b", "c"], 1: ["e", "f"], 2: ["g"], 3: ["h"]}
    dataset.extract(quality=9)
    assert dataset.made == [0, 1]
    params = dataset.params_for("mine", frames={"shard_videos": 3, "quality": 9})  # pyright: ignore[reportCallIssue]
    assert [len(job.videos) for job in plan_shards(params, "mine")] == [3, 3]


def test_another_number_of_videos_in_a_shard_divides_them_again(dataset):
    dataset.extract()
    dataset.extract(shard_videos=2)
    assert dataset.made == [0, 1, 2, 3]
    dataset.remove("a", "c", "e", "g")  # no shard tells any more how many it may have
    dataset.scan()
    for name in "bdf":
        dataset.write(**{name: name * 5})
    dataset.scan()
    dataset.extract(shard_videos=2)
    assert dataset.made == [0, 1, 2]
    assert read_metadata(index_path("mine"))[b"shard_videos"] == b"2"
    dataset.extract(shard_videos=2)
    assert dataset.made == []
    dataset.extract(shard_videos=3)
    assert dataset.made == [0]
    assert b"shard_videos" not in read_metadata(index_path("mine"))
    dataset.check()


@pytest.mark.parametrize(
    ("size", "lengths", "expected"),
    [
        (3, [3, 3, 1], True),
        (3, [3, 2, 3], True),
        (3, [2], True),
        (3, [], True),
        (3, [2, 2], False),
        (3, [4], False),
    ],
)
def test_lengths_that_a_value_of_shard_videos_gives(size, lengths, expected):
    assert is_divided_by(size, lengths) == expected


def test_planning_again_changes_nothing():
    rng = random.Random(0)
    runs: dict[int, tuple[RawVideo, ...]] = {}
    for _ in range(200):
        names = sorted(rng.sample(range(30), rng.randint(1, 30)))
        videos = [RawVideo(str(n), str(n), rng.choice((1, 1, 1, 2))) for n in names]
        wanted = [video for video in videos if rng.random() < 0.8]
        before, runs = runs, divide(videos, wanted, runs, 4)
        assert divide(videos, wanted, runs, 4) == runs
        planned = [video for run in runs.values() for video in run]
        assert len(planned) == len(set(planned))
        assert set(wanted) <= set(planned) <= set(videos)
        for shard, run in runs.items():
            old = [video.video_id for video in before.get(shard, ())]
            ids = [video.video_id for video in run]
            assert ids == [i for i in old if i in ids] if shard in before else len(run) <= 4


def test_machines_that_start_at_any_time_have_one_plan(dataset):
    """The first one removes the index and makes its shards; a third one reads a damaged plan."""
    dataset.extract()
    dataset.remove("b", "g")
    dataset.write(e="longer", **{name: name * 2 for name in "hijk"})
    dataset.scan()
    expected = {0: ["a", "c"], 1: ["d", "e", "f"], 3: ["h", "i", "j"], 4: ["k"]}
    assert dataset.plan() == expected
    assert dataset.extract(share=(1, 2)).num_waiting == 2
    assert dataset.made == [3]
    assert not index_path("mine").exists()
    assert dataset.plan() == expected
    assert dataset.extract(share=(2, 2)).num_waiting == 0
    assert dataset.made == [1, 4]
    assert dataset.plan() == expected
    dataset.check()


def test_edits_before_the_first_index_keep_what_is_finished(dataset):
    """The first extraction ends with broken videos; they are removed or fixed."""
    dataset.write(b=BROKEN, e=BROKEN + " too")
    dataset.scan()
    with pytest.raises(StoreError, match="2 videos of mine cannot be read"):
        dataset.extract()
    assert dataset.made == [0, 1, 2]
    dataset.remove("b")
    dataset.write(e="fixed")
    dataset.scan()
    dataset.extract()
    assert dataset.made == [1]
    dataset.check()


def test_failures_are_tried_again_until_they_are_accepted(dataset):
    dataset.write(b=BROKEN, e=BROKEN)
    dataset.scan()
    for _ in range(2):
        dataset.num_reads = 0
        with pytest.raises(StoreError, match=r"b: broken: data/raw/mine/b\.mp4: it is broken"):
            dataset.extract()
    assert (dataset.made, dataset.num_reads) == ([], 2)  # the broken ones alone
    dataset.write(b="better")  # as many bytes as before
    write_ledger("mine", {"e": "broken"})
    dataset.num_reads = 0
    dataset.extract()
    assert (dataset.made, dataset.num_reads) == ([0], 4)  # b alone, then its shard
    dataset.extract()
    assert (dataset.made, dataset.num_reads) == ([], 4)
    dataset.check()


def test_an_accepted_file_that_is_as_scanned_again_is_read(dataset):
    text = "fffffffff"
    dataset.write(f=text)
    dataset.scan()
    (RAW / "f.mp4").write_text("cut")
    write_ledger("mine", {"f": "differs", "g": "absent"})
    (RAW / "g.mp4").unlink()
    dataset.extract()
    assert read_failures(index_path("mine")).keys() == {"f", "g"}
    assert [reason.partition(":")[0] for reason in read_failures(index_path("mine")).values()] == [
        "differs",
        "absent",
    ]
    dataset.extract()
    assert dataset.made == []
    (RAW / "f.mp4").write_text(text)
    (RAW / "g.mp4").write_text("ggg")
    dataset.extract()
    assert dataset.made == [1, 2]
    dataset.check()


def test_an_index_of_an_earlier_version_stays_valid(dataset):
    """It does not tell the path and size of a video that failed."""
    dataset.write(b=BROKEN, e=BROKEN)
    dataset.scan()
    write_ledger("mine", {"b": "broken", "e": "broken"})
    dataset.extract()
    path, states = index_path("mine"), read_states(index_path("mine"))
    assert [state.absent for state in states.values()] == [
        [[1, "b", "b.mp4", 6]],
        [[1, "e", "e.mp4", 6]],
        [],
    ]
    more = {k.decode(): v.decode() for k, v in read_metadata(path).items() if k[:6] == b"ffmpeg"}
    for state in states.values():
        state.absent.clear()
    write_index(read_index(path), states, path, more)
    assert b"absent" not in read_metadata(path)[b"clipzoo"]
    dataset.extract()
    assert dataset.made == []
    dataset.remove("b", "g")
    dataset.scan()
    dataset.extract()
    assert dataset.made == []
    dataset.check()
    dataset.write(e="fixed")
    dataset.scan()
    dataset.extract()
    assert dataset.made == [1]
    dataset.check()


def annotate(train: str, val: str) -> None:
    """Annotation files in the form of Kinetics; every letter is a video of the class `x`."""
    pattern = r"id_pattern: (.)(?:_\d{6}_\d{6})?"
    Path("datasets/mine.yaml").write_text(f"about: x\nformat: kinetics\n{pattern}\n")
    Path("data/annotations/mine").mkdir(parents=True)
    for kind, names in (("train", train), ("val", val)):
        lines = [f"x,{name},0,10,{kind}" for name in names]
        text = "\n".join(["label,youtube_id,time_start,time_end,split", *lines, ""])
        Path(f"data/annotations/mine/{kind}.csv").write_text(text)


def test_the_road_from_a_broken_video_to_an_index(dataset, monkeypatch, capsys):
    """The stage extracts what is annotated, stops, and ends at once after `missing --accept`."""
    text = Path("params.yaml").read_text().replace("demo_shapes", "mine")
    text = text.replace("  - demo_unseen\n", "").replace("  demo:\n  - mine\n", "  demo: []\n")
    text = text.replace("  zero_shot:\n", "  zero_shot: []\n").replace("videos: 64", "videos: 3")
    Path("params.yaml").write_text(text)
    annotate("abcd", "ef")
    dataset.write(b=BROKEN)
    dataset.scan()
    monkeypatch.setattr(
        extraction, "local_processes", lambda _: nullcontext(Workers(Inline().submit))
    )
    monkeypatch.setattr(sys, "argv", ["extract_frames.py", "--dataset", "mine"])
    stage = runpy.run_path(str(ROOT / "stages/extract_frames.py"))["main"]
    with pytest.raises(StoreError, match=r"1 videos of mine .*`clipzoo missing mine"):
        stage()
    assert "note: 1 files are left out, as no annotation names them (g)" in capsys.readouterr().out
    assert (dataset.made, dataset.num_reads) == ([0, 1], 6)
    monkeypatch.setattr(sys, "argv", ["clipzoo", "missing", "mine", "--accept"])
    main()
    assert read_ledger("mine")["b"].startswith("broken: data/raw/mine/b.mp4: it is broken")
    monkeypatch.setattr(sys, "argv", ["extract_frames.py", "--dataset", "mine"])
    stage()
    assert "skipped b: broken: data/raw/mine/b.mp4: it is broken (in the ledger)" in (
        capsys.readouterr().out
    )
    assert (dataset.made, dataset.num_reads) == ([0, 1], 6)
    assert list(ShardStore(index_path("mine")).videos) == list("acdef")


def kill_after(monkeypatch: pytest.MonkeyPatch, num_changes: int) -> None:
    """End the run before or after one of its renames and removals."""
    left = num_changes

    def ending(original):
        def change(self, *args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError
            result = original(self, *args, **kwargs)
            left -= 1
            if left < 0:
                raise KilledError
            return result

        return change

    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, ending(getattr(Path, name)))


def edit(dataset: Dataset, rng: random.Random) -> None:
    """Add, remove, change, move, break and fix a few files; no two contents have one size."""
    for _ in range(rng.randint(0, 3)):
        dataset.num_edits += 1
        more = "x" * dataset.num_edits
        names = sorted(path[:-4] for path in dataset.contents)
        name = rng.choice(names)
        if rng.random() < 0.4 or len(names) < 3:
            new = rng.choice("abcdefghijklmnop")
            if new in {other.partition("-")[0] for other in names}:
                continue
            dataset.write(**{new: new + more})
        elif rng.random() < 0.5:
            dataset.remove(name)
        elif rng.random() < 0.3:
            content = dataset.contents[f"{name}.mp4"]
            dataset.remove(name)
            dataset.write(**{f"{name[0]}-{rng.randint(1, 3)}": content})
        else:
            dataset.write(**{name: rng.choice(["y" * len(BROKEN), BROKEN]) + more})


def run(dataset: Dataset, rng: random.Random) -> bool:
    """One extraction, which may be killed, be one of two machines or end with broken videos;
    whether the store is complete."""
    share = rng.choice([(1, 1), (1, 1), (1, 2), (2, 2)])
    with pytest.MonkeyPatch.context() as patch:
        if rng.random() < 0.4:
            kill_after(patch, rng.randrange(30))
        try:
            return dataset.extract(share=share).num_waiting == 0
        except KilledError:
            return False
        except StoreError as error:
            if "cannot be read and are not in" not in str(error):
                raise
    if rng.random() < 0.5:
        failed = [path[:-4] for path, text in dataset.contents.items() if text.startswith(BROKEN)]
        write_ledger("mine", {name.partition("-")[0]: "broken" for name in failed})
    return False


def many_edits(dataset: Dataset, seed: int, num_edits: int) -> None:
    """Edit, kill and run; whenever the store is complete, it is right."""
    rng, num_complete = random.Random(seed), 0
    for _ in range(num_edits):
        edit(dataset, rng)
        dataset.scan()
        for _ in range(rng.randint(1, 4)):
            if run(dataset, rng):
                dataset.check()
                num_complete += 1
    assert num_complete > num_edits / 4


def test_many_edits_and_kills_give_the_right_frames(dataset):
    many_edits(dataset, 0, 10)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 13))
def test_very_many_edits_and_kills_give_the_right_frames(dataset, seed):
    many_edits(dataset, seed, 150)
