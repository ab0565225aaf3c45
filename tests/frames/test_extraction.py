"""Extraction: true counts, the same bytes however it is run, resuming, failures, full disks."""

import builtins
import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
from pyarrow import parquet

from clipzoo.commands.scan import scan
from clipzoo.config import replace
from clipzoo.data.decoding import VideoError, split_jpegs
from clipzoo.data.ffmpeg import ffmpeg_path
from clipzoo.data.index import (
    INDEX_COLUMNS,
    PART_COLUMNS,
    StoreError,
    index_path,
    open_jpegs,
    read_failures,
    read_index,
    read_states,
)
from clipzoo.data.ledger import write_ledger
from clipzoo.data.spec import load_spec
from clipzoo.files import read_rows
from clipzoo.frames import extraction, packing, parts
from clipzoo.frames.extraction import extract
from clipzoo.frames.plan import plan_shards
from videos import make_video, run_ffmpeg

FRAMES = Path("data/frames/mine")


@pytest.fixture
def videos(project) -> Path:
    """Five videos of three codecs and lengths in two classes."""
    root = project / "videos"
    make_video(root / "a" / "one.mp4", 12)
    make_video(root / "a" / "two.avi", 9)
    make_video(root / "a" / "three.webm", 15, "64x96")
    make_video(root / "b" / "four.mp4", 1)
    make_video(root / "b" / "name with späces.mp4", 7)
    scan("mine", root)
    return root


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def files(directory: Path = FRAMES) -> dict[str, str]:
    """sha256 of every file."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.iterdir()}


def test_index_and_tar_agree(videos, params_for, pool):
    summary = extract(params_for("mine", frames={"shard_videos": 2}), "mine", executor=pool)
    index = read_index(index_path("mine")).to_pylist()
    rows = {row["video_id"]: row for row in index}
    counts = {"a/one": 12, "a/two": 9, "a/three": 15, "b/four": 1, "b/name with späces": 7}
    assert {k: row["num_frames"] for k, row in rows.items()} == counts
    assert (summary.num_videos, summary.num_frames, summary.failures) == (5, 44, [])
    assert (rows["a/one"]["width"], rows["a/one"]["height"]) == (72, 48)
    assert (rows["a/three"]["width"], rows["a/three"]["height"]) == (48, 72)
    assert rows["a/one"]["fps"] == 10
    jpegs = open_jpegs(index_path("mine"), 44).tolist()
    places = {(row["video_id"], i): jpegs.pop(0) for row in index for i in range(row["num_frames"])}
    members = {}
    for shard in sorted(FRAMES.glob("shard-*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
                file = tar.extractfile(member)
                assert file is not None
                members[member.name] = file.read()
                video_id, i = member.name.rpartition("/")[0], int(member.name[-9:-4]) - 1
                assert shard.name == f"shard-{rows[video_id]['shard']:05d}.tar"
                assert [member.offset_data, member.size] == [
                    512 * places[video_id, i][0],
                    places[video_id, i][1],
                ]
    assert len(members) == 44
    height, width, _, subsampling = simplejpeg.decode_jpeg_header(members["a/one/00012.jpg"])
    assert (height, width, subsampling) == (48, 72, "420")
    assert sorted(files()) == [
        "index.parquet",
        "jpegs.npy",
        "missing.csv",
        *(f"shard-0000{i}.tar" for i in "012"),
    ]


def test_bytes_do_not_depend_on_how_it_runs(videos, params_for, pool):
    params = params_for("mine", frames={"shard_videos": 2}, runtime={"extract_workers": 2})
    extract(params, "mine", executor=pool)
    expected = files()
    for path in FRAMES.iterdir():
        path.unlink()
    assert extract(params, "mine", share=(2, 2), executor=pool).num_waiting == 2
    assert not index_path("mine").exists()
    assert extract(params, "mine", share=(1, 2), executor=pool).num_waiting == 0
    assert files() == expected
    for path in FRAMES.iterdir():
        path.unlink()
    extract(params, "mine")  # processes
    assert files() == expected


def remade(monkeypatch) -> list[str]:
    """Names of the tars that are made from now on."""
    made, original = [], packing.pack_videos

    def pack(path, *rest):
        made.append(path.name)
        return original(path, *rest)

    monkeypatch.setattr("clipzoo.frames.extraction.pack_videos", pack)
    return made


def test_only_what_is_unfinished_is_made_again(videos, params_for, pool, monkeypatch):
    params = params_for("mine", frames={"shard_videos": 2})
    extract(params, "mine", executor=pool)
    expected = files()
    made = remade(monkeypatch)
    extract(params, "mine", executor=pool)
    assert made == []
    assert files() == expected
    (FRAMES / "shard-00001.tar").write_bytes(b"cut")
    (FRAMES / "shard-00002.tar.77.part").write_bytes(b"left over")
    extract(params, "mine", executor=pool)
    assert made == ["shard-00001.tar"]
    assert files() == expected
    made.clear()
    extract(params_for("mine", frames={"shard_videos": 2, "quality": 9}), "mine", executor=pool)
    assert len(made) == 3
    made.clear()
    make_video(videos / "b" / "four.mp4", 5)
    scan("mine", videos)
    extract(params_for("mine", frames={"shard_videos": 2, "quality": 9}), "mine", executor=pool)
    assert made == ["shard-00001.tar"]
    assert read_index(index_path("mine")).num_rows == 5
    extract(params_for("mine", frames={"shard_videos": 9}), "mine", executor=pool)
    assert sorted(files()) == [
        "index.parquet",
        "jpegs.npy",
        "missing.csv",
        "shard-00000.tar",
    ]


def test_nothing_to_do_leaves_the_index_as_it_is(videos, params_for, pool):
    params = params_for("mine", frames={"shard_videos": 2})
    expected = extract(params, "mine", executor=pool)
    names = ("index.parquet", "jpegs.npy", "shard-00001.tar")
    before, untouched = files(), [(FRAMES / name).stat() for name in names]
    for name in ("shard-00001.parquet", "shard-00003.tar", "shard-00000.tar.77.part"):
        (FRAMES / name).write_bytes(b"of an earlier run")
    assert extract(params, "mine", executor=pool) == expected
    for name, stat in zip(names, untouched, strict=True):
        assert (FRAMES / name).stat().st_mtime_ns == stat.st_mtime_ns, name
        assert (FRAMES / name).stat().st_ino == stat.st_ino, name
    assert files() == before


def test_an_index_of_more_shards_is_written_again(videos, params_for, pool, monkeypatch):
    params = params_for("mine", frames={"shard_videos": 2})
    extract(params, "mine", executor=pool)
    made = remade(monkeypatch)
    (videos / "b" / "name with späces.mp4").unlink()
    scan("mine", videos)
    assert extract(params, "mine", executor=pool).num_frames == 37
    assert made == []
    assert read_index(index_path("mine")).num_rows == 4
    assert open_jpegs(index_path("mine"), 37).shape == (37, 2)
    assert list(read_states(index_path("mine"))) == [0, 1]
    assert len(list(FRAMES.glob("*.tar"))) == 2


@pytest.mark.parametrize("damage", ["gone", "short", "other length", "old index"])
def test_an_index_that_cannot_be_read_counts_as_none(videos, params_for, pool, monkeypatch, damage):
    params = params_for("mine", frames={"shard_videos": 2})
    extract(params, "mine", executor=pool)
    expected, jpegs = files(), FRAMES / "jpegs.npy"
    if damage == "gone":
        jpegs.unlink()
    elif damage == "short":
        jpegs.write_bytes(jpegs.read_bytes()[:-8])
    elif damage == "other length":
        np.save(jpegs, np.load(jpegs)[:-1])
    else:
        table = parquet.read_table(index_path("mine"))
        parquet.write_table(table.append_column("more", [[0] * 5]), index_path("mine"))
    made = remade(monkeypatch)
    extract(params, "mine", executor=pool)
    assert len(made) == 3
    assert files() == expected


def test_the_index_is_its_parts_and_splits_into_them(videos, params_for):
    (videos / "a" / "broken.mp4").write_bytes(b"no video")
    scan("mine", videos)
    jobs = plan_shards(params_for("mine", frames={"shard_videos": 2}), "mine")
    for job in jobs:
        extraction.make_shard(job)
    made = [parquet.read_table(job.part_path) for job in jobs]
    states = [read_states(job.part_path) for job in jobs]
    assert [part.num_rows for part in made] == [1, 2, 2]
    parts.merge_parts("mine", jobs, {job.shard: parts.read_state(job) for job in jobs})
    parts.remove_outdated("mine", jobs)
    whole = pa.concat_tables(made)
    assert read_index(index_path("mine")).equals(whole.select(list(INDEX_COLUMNS)))
    jpegs = open_jpegs(index_path("mine"), 44)
    lists = whole.select(["offsets", "sizes"]).combine_chunks()
    offsets, sizes = (column.chunk(0).flatten().to_numpy() for column in lists.columns)
    assert (512 * jpegs[:, 0].astype(int) == offsets).all()
    assert (jpegs[:, 1] == sizes).all()

    jobs[1].tar_path.write_bytes(b"cut")
    parts.split_index("mine", jobs)
    assert not index_path("mine").exists()
    assert not jobs[1].part_path.exists()
    for number in (0, 2):
        part = parquet.read_table(jobs[number].part_path)
        assert part.schema.names == list(PART_COLUMNS)
        assert part.equals(made[number])
        assert read_states(jobs[number].part_path) == states[number]


def test_parts_are_on_the_disk_before_the_index_that_they_replace_is_gone(
    videos, params_for, pool, monkeypatch
):
    params = params_for("mine", frames={"shard_videos": 2})
    scan("mine", videos)
    extract(params, "mine", executor=pool)
    jobs = plan_shards(params, "mine")
    jobs[1].tar_path.unlink()
    synced, listed = set(), []

    def sync(handle: int) -> None:
        assert index_path("mine").exists()
        synced.add(Path(os.readlink(f"/proc/self/fd/{handle}")).name)

    def glob(folder: Path, pattern: str) -> Iterator[Path]:
        listed.append(pattern)
        return iter(())

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "glob", glob)
    parts.split_index("mine", jobs)
    assert synced == {jobs[0].part_path.name, jobs[2].part_path.name, "mine"}
    assert not listed, "a folder of many shards is not listed for each of them"
    assert not index_path("mine").exists()


def metadata() -> dict[str, str]:
    """Of the index, less what is of single shards."""
    items = (parquet.read_schema(index_path("mine")).metadata or {}).items()
    return {key.decode(): value.decode() for key, value in items if key.startswith(b"ffmpeg")}


def use_another_ffmpeg(folder: Path, monkeypatch) -> None:
    """Put an ffmpeg on PATH that does what ours does, but is version 99."""
    binary = folder / "bin" / "ffmpeg"
    binary.parent.mkdir()
    binary.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = -version ]; then printf "ffmpeg version 99\\nbuilt with x\\n"; exit; fi\n'
        f'exec {ffmpeg_path()} "$@"\n'
    )
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}{os.pathsep}{os.environ['PATH']}")


def times(pattern: str = "shard-*.tar") -> list[int]:
    return [path.stat().st_mtime_ns for path in sorted(FRAMES.glob(pattern))]


def test_another_ffmpeg_remakes_all_shards(videos, params_for, pool, monkeypatch, project):
    params = params_for("mine", frames={"shard_videos": 2})
    extract(params, "mine", executor=pool)
    first, expected = times(), files()
    assert metadata()["ffmpeg_version"].startswith("ffmpeg version ")
    made = remade(monkeypatch)
    extract(params, "mine", executor=pool)
    assert (made, times(), files()) == ([], first, expected)
    use_another_ffmpeg(project, monkeypatch)
    extract(params, "mine", executor=pool)
    assert sorted(made) == ["shard-00000.tar", "shard-00001.tar", "shard-00002.tar"]
    assert not set(times()) & set(first)
    assert metadata()["ffmpeg_version"] == "ffmpeg version 99"
    assert {**files(), "index.parquet": ""} == {**expected, "index.parquet": ""}


def test_another_ffmpeg_command_remakes_all_shards(videos, params_for, pool, monkeypatch):
    params = params_for("mine", frames={"shard_videos": 2})
    extract(params, "mine", executor=pool)
    command, expected = metadata()["ffmpeg_command"], files()
    assert command.startswith("ffmpeg -hide_banner ")
    assert " -i file:VIDEO " in command
    assert "flags=bicubic+accurate_rnd+bitexact" in command
    assert str(videos) not in command
    made, original = remade(monkeypatch), packing.jpeg_command
    planned = []

    def jpeg_command(path, *rest, **options):
        planned.append(str(path))
        return [word.replace("bicubic", "area") for word in original(path, *rest, **options)]

    monkeypatch.setattr(packing, "jpeg_command", jpeg_command)
    extract(params, "mine", executor=pool)
    assert len(made) == 3
    assert planned.count("VIDEO") == 1  # once a run, not once a shard
    assert metadata()["ffmpeg_command"] == command.replace("bicubic", "area")
    assert all(files()[name] != expected[name] for name in made)


def test_counts_of_raw_videos_depend_on_ffmpeg_and_frame_folders_do_not(
    videos, params_for, pool, monkeypatch, project
):
    with Path("datasets/mine.yaml").open("a") as file:
        file.write("reader: video\n")
    params = params_for("mine", frames={"shard_videos": 2})
    described, original = [], extraction.describe_videos

    def describe(root, videos, *rest):
        described.append(len(videos))
        return original(root, videos, *rest)

    monkeypatch.setattr(extraction, "describe_videos", describe)
    extract(params, "mine", executor=pool)
    assert "rawvideo" in metadata()["ffmpeg_command"]
    extract(params, "mine", executor=pool)
    assert sorted(described) == [1, 2, 2]
    use_another_ffmpeg(project, monkeypatch)
    extract(params, "mine", executor=pool)
    assert sorted(described) == [1, 1, 2, 2, 2, 2]
    spec = load_spec("mine")
    assert packing.describe_ffmpeg(replace(spec, {"reader": "directory"}), params.frames) == {}


def test_a_worker_with_another_ffmpeg_is_refused(videos, params_for, monkeypatch, project):
    (job,) = plan_shards(params_for("mine"), "mine")
    use_another_ffmpeg(project, monkeypatch)
    with pytest.raises(StoreError, match="found 'ffmpeg version 99'; the job allows 'ffmpeg vers"):
        extraction.make_shard(job)
    assert not FRAMES.exists()


def test_an_ffmpeg_that_does_not_run_is_named(videos, params_for, monkeypatch, project):
    use_another_ffmpeg(project, monkeypatch)
    (project / "bin" / "ffmpeg").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(OSError, match=r"bin/ffmpeg .*: ended with code 3"):
        extract(params_for("mine"), "mine")


def test_killed_and_restarted(videos, params_for, pool):
    for i in range(6):
        make_video(videos / "b" / f"long{i}.mp4", 150)
    scan("mine", videos)
    params = params_for("mine", frames={"shard_videos": 1}, runtime={"extract_workers": 1})
    code = (
        "from clipzoo.config import load_params, replace\n"
        "from clipzoo.frames.extraction import extract\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "p = replace(load_params(), {'frames.shard_videos': 1, 'frames.size': 48})\n"
        "extract(p, 'mine', executor=ThreadPoolExecutor(1))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL
    )
    while not list(FRAMES.glob("shard-0000[3-9].tar*")):
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {p.name: p.stat().st_mtime_ns for p in FRAMES.glob("shard-*.parquet")}
    assert 0 < len(finished) < 11
    mtimes = {n: (FRAMES / n).with_suffix(".tar").stat().st_mtime_ns for n in finished}
    extract(params, "mine", executor=pool)
    for name, time_ns in mtimes.items():
        assert (FRAMES / name).with_suffix(".tar").stat().st_mtime_ns == time_ns
    restarted = files()
    for path in FRAMES.iterdir():
        path.unlink()
    extract(params, "mine", executor=pool)
    assert files() == restarted


def break_videos(videos: Path) -> list[str]:
    """Add one broken file of each kind; returns their ids."""
    (videos / "a" / "zero.mp4").write_bytes(b"")
    (videos / "a" / "text.mp4").write_text("no video")
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", "-c:a", "aac", videos / "a" / "audio.mp4")
    whole = make_video(videos / "a" / "whole.avi", 30).read_bytes()
    (videos / "a" / "truncated.avi").write_bytes(whole[: len(whole) // 2])
    (videos / "a" / "moovless.mp4").write_bytes((videos / "a" / "one.mp4").read_bytes()[:3000])
    return ["a/audio", "a/moovless", "a/text", "a/truncated", "a/zero"]


def test_broken_videos_are_all_listed_and_accepted_by_the_ledger(
    videos, params_for, pool, monkeypatch
):
    broken = break_videos(videos)
    scan("mine", videos)
    write_ledger("mine", {"a/text": "broken", "a/elsewhere": "absent"})
    with pytest.raises(StoreError, match=r"4 videos of mine cannot be read and are not in") as e:
        extract(params_for("mine"), "mine", executor=pool)
    kinds = {video_id: "broken" for video_id in broken} | {"a/truncated": "cut"}
    for video_id, kind in kinds.items():
        assert (f"\n  {video_id}: {kind}: " in str(e.value)) == (video_id != "a/text")
    assert "`clipzoo missing mine --accept`" in str(e.value)
    assert "it has no video stream" in str(e.value)
    assert not index_path("mine").exists()
    table = read_rows(FRAMES / "missing.csv", ("video_id", "reason"))
    assert [row[1] for row in table] == broken
    write_ledger("mine", {video_id: reason for _, video_id, reason in table})
    made = remade(monkeypatch)
    summary = extract(params_for("mine"), "mine", executor=pool)
    assert made == []  # nothing is tried again
    assert sorted(video_id for video_id, _ in summary.failures) == broken
    assert summary.num_videos == 6
    assert sorted(read_failures(index_path("mine"))) == broken
    assert read_rows(FRAMES / "missing.csv", ("video_id", "reason")) == table
    with tarfile.open(FRAMES / "shard-00000.tar") as tar:
        assert {name.rpartition("/")[0] for name in tar.getnames()}.isdisjoint(broken)


def test_damaged_videos_can_be_kept(videos, params_for, pool):
    broken = break_videos(videos)
    scan("mine", videos)
    with Path("datasets/mine.yaml").open("a") as file:
        file.write("keep_damaged: true\n")
    write_ledger("mine", dict.fromkeys(broken, "broken"))
    summary = extract(params_for("mine"), "mine", executor=pool)
    assert [video_id for video_id, _ in summary.damaged] == ["a/truncated"]
    assert len(summary.failures) == 4


def test_a_file_that_changed_since_the_scan_is_refused(videos, params_for, pool):
    with (videos / "a" / "one.mp4").open("ab") as file:
        file.write(b"x")
    (videos / "b" / "four.mp4").unlink()
    with pytest.raises(StoreError, match="2 videos of mine cannot be read") as caught:
        extract(params_for("mine"), "mine", executor=pool)
    assert "a/one: differs: data/raw/mine/a/one.mp4: has" in str(caught.value)
    assert "changed since" in str(caught.value)
    assert "b/four: absent: data/raw/mine/b/four.mp4: No such file" in str(caught.value)


def test_a_full_disk_leaves_nothing_that_looks_whole(videos, params_for, pool, monkeypatch):
    class FullDisk(io.BufferedWriter):
        def write(self, data, /):
            if self.tell() > 5000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    def open_on_full_disk(path, mode="r", **options):
        if mode == "wb" and path.name.startswith("shard-"):
            return FullDisk(io.FileIO(path, "wb"))
        return builtins.open(path, mode, **options)

    params = params_for("mine", frames={"shard_videos": 2})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_on_full_disk)
        with pytest.raises(OSError, match="No space left"):
            extract(params, "mine", executor=pool)
    assert not list(FRAMES.glob("*.tar"))
    assert not list(FRAMES.glob("*.part"))
    assert not index_path("mine").exists()
    assert extract(params, "mine", executor=pool).num_videos == 5


def test_a_root_that_does_not_exist(project, params_for):
    Path("datasets/mine.yaml").write_text("about: x\nformat: folder\n")
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/mine.csv").write_text("video_id,path,size\na/b,a/b.mp4,1\n")
    with pytest.raises(StoreError, match="data/raw/mine: no such folder; put the videos of mine"):
        extract(params_for("mine"), "mine")


@pytest.mark.parametrize(
    ("size", "width", "height", "expected"),
    [
        (256, 320, 240, (342, 256)),
        (256, 340, 256, (340, 256)),
        (256, 321, 241, (340, 256)),
        (256, 240, 320, (256, 342)),
        (72, 96, 96, (72, 72)),
        ("340x256", 100, 300, (340, 256)),
        ("source", 322, 242, (322, 242)),
        ("source", 97, 131, (97, 131)),
    ],
)
def test_stored_size_is_ffmpegs(project, params_for, pool, size, width, height, expected):
    make_video(project / "v" / "a" / "x.mkv", 1, f"{width}x{height}")
    scan("mine", project / "v")
    extract(params_for("mine", frames={"size": size}), "mine", executor=pool)
    (row,) = read_index(index_path("mine")).to_pylist()
    assert (row["width"], row["height"]) == expected


def test_variable_frame_rate_gives_every_frame_and_fps_a_steady_rate(project, params_for, pool):
    late = "setpts='if(lt(N,10),N,10+(N-10)*4)/10/TB'"  # 10 frames at 10 a second, 10 at 2.5
    path = project / "v" / "a" / "x.mp4"
    path.parent.mkdir(parents=True)
    source = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10", "-frames:v", "20")
    run_ffmpeg(*source, "-vf", late, "-fps_mode", "passthrough", path)
    scan("mine", project / "v")
    assert extract(params_for("mine"), "mine", executor=pool).num_frames == 20
    with Path("datasets/mine.yaml").open("a") as file:
        file.write("fps: 2\n")
    frames = extract(params_for("mine"), "mine", executor=pool).num_frames
    assert 9 <= frames <= 11  # 1 s + 4 s


def test_split_jpegs_over_any_chunks():
    jpegs = [b"\xff\xd8" + bytes([i]) * (i + 1) + b"\xff\xd9" for i in range(5)]
    stream = b"".join(jpegs)
    for step in (1, 2, 3, 7, len(stream)):
        chunks = [stream[i : i + step] for i in range(0, len(stream), step)]
        assert list(split_jpegs(chunks)) == jpegs
    with pytest.raises(VideoError, match="ends within a frame"):
        list(split_jpegs([stream[:-1]]))
