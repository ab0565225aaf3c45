import json
import re
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from clipzoo.clips import encoding
from clipzoo.config import load_params, replace
from clipzoo.data.records import Record
from clipzoo.data.store import StoreError
from tiny import normalize

PARAMS = replace(
    load_params(Path(__file__).parents[2] / "params.yaml"),
    {"runtime.micro_batch": 4, "runtime.workers": 1},
)
CPU = torch.device("cpu")
NUM_VIDEOS, DIM = 23, 5


class FakeClips:
    """Videos with pixels that depend on position and view; `broken` ones cannot be read."""

    def __init__(self, num_videos: int = NUM_VIDEOS, broken: tuple[int, ...] = ()) -> None:
        self.records = [Record(f"v{i}", 9, i % 3) for i in range(num_videos)]
        self.view_names = ["clip0-center", "clip1-center"]
        self.broken = broken

    def load(self, position: int) -> Tensor:
        if position in self.broken:
            raise StoreError(f"v{position}: broken")
        generator = torch.Generator().manual_seed(position)
        return torch.randint(0, 256, (2, 3, 3, 4, 4), generator=generator, dtype=torch.uint8)


class FakeModel(nn.Module):
    """Not linear and with dropout, so that order, mode and precision all show."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.layer = nn.Linear(3 * 3 * 4 * 4, DIM)
        self.dropout = nn.Dropout(0.5)
        self.batches: list[int] = []

    def encode(self, frames: Tensor) -> Tensor:
        self.batches.append(len(frames))
        return self.dropout(self.layer(normalize(frames).flatten(1))).tanh()


def encode(model: encoding.Encoder, clips: Any, positions: list[int], **changes: Any) -> Tensor:
    options: dict[str, Any] = {"micro_batch": 4, "precision": "fp32", "workers": 1, **changes}
    return encoding.encode_videos(model, clips, positions, device=CPU, **options)


def encode_set(clips: Any, model: encoding.Encoder | None = None) -> Tensor | None:
    model = model or FakeModel()
    return encoding.encode_set(model, clips, "test", params=PARAMS, device=CPU)


def by_hand(clips: FakeClips, positions: list[int]) -> Tensor:
    model = FakeModel().eval()
    with torch.no_grad():
        return torch.stack([model.encode(clips.load(p)) for p in positions])  # [n, V, D]


def test_features_come_in_the_order_of_the_positions():
    clips, model = FakeClips(), FakeModel()
    positions = [5, 0, 22, 3, 9]
    features = encode(model, clips, positions)
    assert features.shape == (5, 2, DIM)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, by_hand(clips, positions))
    assert model.training  # as it was before


@pytest.mark.parametrize(("micro_batch", "batches"), [(1, [1] * 10), (4, [4, 4, 2]), (99, [10])])
def test_micro_batches_bound_the_clips_at_once(micro_batch: int, batches: list[int]):
    clips, model = FakeClips(), FakeModel()
    features = encode(model, clips, [0, 1, 2, 3, 4], micro_batch=micro_batch, workers=2)
    assert model.batches == batches
    torch.testing.assert_close(features, by_hand(clips, [0, 1, 2, 3, 4]))


def test_autocast_lowers_the_precision_of_arithmetic_only():
    clips = FakeClips()
    exact, rough = (encode(FakeModel(), clips, [0, 1], precision=p) for p in ("fp32", "bf16"))
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.05


def test_no_positions_give_an_empty_share_of_the_right_shape():
    assert encode(FakeModel(), FakeClips(), []).shape == (0, 2, DIM)


def test_shares_are_whole_batches_in_turn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoding, "world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(encoding, "rank", lambda rank=rank: rank)
        shares.append(encoding.local_positions(7, num_views=2, micro_batch=4))
    assert shares == [[0, 1, 4, 5], [2, 3, 6]]
    assert encoding.local_positions(1, num_views=2, micro_batch=4) == []


def test_large_sets_are_in_float16(monkeypatch: pytest.MonkeyPatch):
    whole = encode_set(FakeClips())
    monkeypatch.setattr(encoding, "FLOAT32_LIMIT_BYTES", 4 * NUM_VIDEOS * 2 * DIM - 1)
    half = encode_set(FakeClips())
    assert whole is not None
    assert half is not None
    assert (whole.dtype, half.dtype) == (torch.float32, torch.float16)
    torch.testing.assert_close(half, whole.half())


def test_an_empty_set_is_refused():
    with pytest.raises(encoding.InferenceError, match="no videos"):
        encode_set(FakeClips(0))


def test_the_next_batch_is_encoded_before_the_features_of_one_are_kept():
    """One batch behind, not more."""
    model, batches = FakeModel().eval(), [FakeClips().load(p)[None] for p in range(4)]
    encoded = encoding._encode_batches(model, ((None, b) for b in batches), CPU, 4, "fp32")
    ahead = []
    for part, batch in zip(encoded, batches, strict=True):
        ahead.append(len(model.batches))
        with torch.no_grad():
            torch.testing.assert_close(part[0], FakeModel().eval().encode(batch[0]))
    assert ahead == [2, 3, 4, 4]


def test_a_video_that_can_be_read_later_is_reported_too():
    class Flaky(FakeClips):
        def load(self, position: int) -> Tensor:
            if position == 3 and self.broken:
                self.broken = ()
                raise StoreError("v3: stale file handle")
            return super().load(position)

    with pytest.raises(encoding.InferenceError, match="v3: stale file handle\nNow all"):
        encode_set(Flaky(broken=(3,)))


def run_rank(rank: int, folder: str) -> Tensor | None:
    """One of two processes: the whole set, then a set with broken videos."""
    torch.set_num_threads(1)
    meet = {"init_method": f"file://{folder}/meet", "timeout": timedelta(seconds=120)}
    dist.init_process_group("gloo", rank=rank, world_size=2, **meet)
    try:
        encoding.ENCODING_STATE_DIR = Path(folder) / "state"
        features = encode_set(FakeClips())
        with pytest.raises(encoding.InferenceError) as caught:
            encode_set(FakeClips(broken=(2, 9, 16)))
    finally:
        dist.destroy_process_group()
    result = {"whole": features is not None, "fault": str(caught.value)}
    Path(folder, f"{rank}.json").write_text(json.dumps(result))
    return features


@pytest.mark.slow
def test_two_processes_give_the_features_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        encoding, "ENCODING_STATE_DIR", encoding.ENCODING_STATE_DIR
    )  # restored afterwards
    threads = torch.get_num_threads()
    second = get_context("spawn").Process(target=run_rank, args=(1, str(tmp_path)))
    second.start()
    try:
        both = run_rank(0, str(tmp_path))
        one = encode_set(FakeClips())
    finally:
        torch.set_num_threads(threads)
        second.join()
    assert second.exitcode == 0
    assert one is not None
    assert both is not None
    assert torch.equal(both, one)
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [r["whole"] for r in results] == [True, False]
    for result in results:  # both processes know of all broken videos
        assert re.findall(r"v\d+", result["fault"]) == ["v16", "v2", "v9"]
    assert not (tmp_path / "state" / "test").exists()
