"""Random damage to a frame store: it is refused, or the frames are exactly the right ones."""

import random
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from clipzoo.commands.scan import scan
from clipzoo.data.index import (
    StoreError,
    index_path,
    open_jpegs,
    part_jpegs,
    read_index,
    read_part,
    read_states,
    write_index,
)
from clipzoo.data.store import ShardStore
from clipzoo.frames.extraction import extract
from clipzoo.frames.parts import split_index
from clipzoo.frames.plan import plan_shards
from videos import make_video

STORE = Path("data/frames/mine")
LONG = "x" * 100  # its members need PAX headers


MADE: list[Path] = []
"""A copy of the stores, which are made once."""


@pytest.fixture
def store(project, params_for, tmp_path_factory) -> Path:
    """Four videos in two shards; and the same ones in another quality, in data/frames/other."""
    if MADE:
        shutil.copytree(MADE[0], project, symlinks=True, dirs_exist_ok=True)
        return STORE
    root = project / "raw"
    for name, num_frames in (("a", 6), ("b", 9), ("ü", 4), (LONG, 5)):
        make_video(root / "c" / f"{name}.mp4", num_frames)
    Path("datasets/other.yaml").write_text("about: x\nformat: folder\n")
    for dataset, quality in (("mine", 3), ("other", 5)):
        scan(dataset, root)
        params = params_for(dataset, frames={"shard_videos": 2, "quality": quality})
        with ThreadPoolExecutor(1) as pool:
            extract(params, dataset, executor=pool)
    MADE.append(tmp_path_factory.mktemp("made"))
    shutil.copytree(project, MADE[0], symlinks=True, dirs_exist_ok=True)
    return STORE


def message_of_frames(expected: dict[str, list[bytes]]) -> str:
    """Read all frames: the message of the error, or '' if they are as expected."""
    try:
        assert frames() == expected
    except StoreError as error:
        return str(error)
    return ""


def frames() -> dict[str, list[bytes]]:
    """All frames of the store."""
    store = ShardStore(index_path("mine"))
    return {v: store.read(v, range(info.num_frames)) for v, info in store.videos.items()}


def flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwrite(content: bytes, rng: random.Random) -> bytes:
    length = rng.choice((1, 4, 64, 512))
    start = rng.randrange(len(content))
    new = rng.choice((bytes(length), rng.randbytes(length)))
    return (content[:start] + new + content[start + length :])[: len(content)]


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def drop(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.choice((1, 8, 512)) :]


def swap(content: bytes, rng: random.Random) -> bytes:
    size = rng.choice((4, 8, 512))
    blocks = [content[i : i + size] for i in range(0, len(content), size)]
    i, j = rng.randrange(len(blocks)), rng.randrange(len(blocks))
    blocks[i], blocks[j] = blocks[j], blocks[i]
    return b"".join(blocks)


@pytest.mark.parametrize("name", ["index.parquet", "jpegs.npy"])
def test_300_random_damages_of_an_index_give_no_wrong_frame(store, name):
    expected, path, rng = frames(), store / name, random.Random(0)
    whole, refused = path.read_bytes(), 0
    for _ in range(30):
        for damage in (flip, flip, flip, overwrite, overwrite, overwrite, cut, drop, swap, swap):
            path.write_bytes(damage(whole, rng))
            message = message_of_frames(expected)
            refused += bool(message)
            if message:
                assert str(path) in message or "/shard-0000" in message
            elif name == "index.parquet":
                assert path.read_bytes() == whole
    path.write_bytes(whole)
    assert frames() == expected
    assert refused > 200


def test_shards_that_are_cut_shifted_or_exchanged_give_no_wrong_frame(store):
    expected, rng = frames(), random.Random(0)
    shards = sorted(store.glob("shard-*.tar"))
    wholes = [shard.read_bytes() for shard in shards]
    others = [(Path("data/frames/other") / shard.name).read_bytes() for shard in shards]
    for shard, whole, *wrong in zip(shards, wholes, wholes[::-1], others, strict=True):
        for content in (*wrong, *(damage(whole, rng) for damage in (cut, drop) * 10)):
            shard.write_bytes(content)
            assert str(shard) in message_of_frames(expected)
        shard.write_bytes(whole)


def test_a_member_of_another_name_is_refused(store):
    """A shard of the right length whose videos are in another order."""
    shard = store / "shard-00000.tar"
    content = shard.read_bytes()
    (store / "shard-00000.tar").write_bytes(content.replace(b"c/a/0000", b"c/z/0000"))
    with pytest.raises(StoreError) as caught:
        ShardStore(index_path("mine")).read("c/a", [2])
    found, allowed = r"found \(b'c/z/00003.jpg'", r"allowed: \(b'c/a/00003.jpg'"
    assert re.search(
        rf"^c/a: {shard} has another member at \d+: {found}.* {allowed}.*run `dvc checkout`",
        str(caught.value),
    )


def test_the_table_of_another_store_is_refused(store):
    shutil.copy("data/frames/other/jpegs.npy", store / "jpegs.npy")
    with pytest.raises(StoreError, match=r"c/a: .*shard-00000.tar has another member at \d+"):
        ShardStore(index_path("mine")).read("c/a", [3])


def test_damaged_parts_are_made_again(store, params_for):
    """What lies there after a killed run."""
    params = params_for("mine", frames={"shard_videos": 2, "quality": 3})
    jobs = plan_shards(params, "mine")
    split_index("mine", jobs)
    part, rng = jobs[0].part_path, random.Random(0)
    whole = part.read_bytes()
    assert len(part_jpegs(read_part(part))) == 15
    for _ in range(50):
        part.write_bytes(rng.choice((flip, cut, swap))(whole, rng))
        assert part.read_bytes() == whole or read_states(part) == {}


def test_texts_in_the_index_are_not_taken_for_its_hash(store):
    """A video's name may contain anything."""
    path, table = index_path("mine"), read_index(index_path("mine"))
    mark = "blake2b-128 of this file with zeros in its place: " + "0" * 32
    paths = table.column("path").to_pylist()
    column = table.schema.get_field_index("path")
    table = table.set_column(column, table.field(column), [[mark, *paths[1:]]])
    write_index(table, read_states(path), path, {"ffmpeg_command": mark})
    assert read_index(path)["path"].to_pylist() == [mark, *paths[1:]]
    assert (np.asarray(open_jpegs(path, 24)) > 0).all()
