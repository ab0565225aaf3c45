"""ActionCLIP's heads against measured numbers and torch's own modules."""

import pytest
import torch
from torch import Tensor, nn

from clipzoo.methods.parts import actionclip_heads
from clipzoo.methods.parts.actionclip_heads import video_head
from clipzoo.methods.parts.dropout import clip_keys, drop
from parity.inputs import fill, noise

UNUSED = "frame_position_embeddings.weight"


def head(name: str, width: int = 64, num_segments: int = 8, layers: int = 6) -> nn.Module:
    return video_head(
        name, width=width, heads=1, layers=layers, positions=77, num_segments=num_segments
    )


def filled(name: str, **sizes: int) -> nn.Module:
    module = head(name, **sizes).eval()
    fill(module, "fusion_model.")
    return module


def assert_measured(output: Tensor, first: list[float], last: list[float], total: float):
    """The first and last four numbers and the sum of [2, 64] that the authors' code gives."""
    torch.testing.assert_close(output[0, :4], torch.tensor(first), rtol=0, atol=2e-6)
    torch.testing.assert_close(output[1, -4:], torch.tensor(last), rtol=0, atol=2e-6)
    assert float(output.sum()) == pytest.approx(total, abs=2e-5)


@torch.no_grad()
def test_conv_1d_meets_the_reference():
    output = filled("Conv_1D")(noise(64, 2, 8, 64))
    first = [-0.5610962, -0.2942193, 0.3224912, 0.1770493]
    last = [0.8593791, -0.8967474, -0.2214205, -0.4718457]
    assert_measured(output, first, last, -10.520075)
    assert float(output.abs().sum()) == pytest.approx(48.359164, abs=2e-5)
    untrained = head("Conv_1D")(noise(64, 2, 8, 64))
    expected = torch.tensor([-0.2145645, -0.3693832, -0.5992471, 0.1883919])
    torch.testing.assert_close(untrained[0, :4], expected, rtol=0, atol=2e-6)
    assert float(untrained.sum()) == pytest.approx(-15.03667, abs=2e-5)


@torch.no_grad()
def test_transf_cls_meets_the_reference():
    module = filled("Transf_cls")
    output = module(noise(65, 2, 8, 64))
    first = [0.3738377, -0.5317963, -0.3529887, 1.050816]
    last = [-0.6342577, -2.24176, -0.488198, -0.4865813]
    assert_measured(output, first, last, -0.464728)
    assert float(output.abs().sum()) == pytest.approx(104.75904, abs=5e-5)
    state = module.state_dict()
    assert len(state) == 77
    assert state["transformer.transformer_enc.layers.5.linear1.weight"].shape == (2048, 64)


@torch.no_grad()
@pytest.mark.parametrize(("width", "num_segments"), [(64, 8), (48, 5), (12, 3)])
def test_conv_1d_re_reads_the_memory_of_a_video(width: int, num_segments: int):
    module, frames = filled("Conv_1D", width=width), noise(1, 2, num_segments, width)
    weight = module.get_parameter("shift.weight")[:, 0]  # [D, 3]
    for video, found in zip(frames, module(frames), strict=True):
        rows = torch.tensor(video.flatten().tolist()).reshape(width, num_segments)  # [D, T]
        before, after = torch.zeros_like(rows), torch.zeros_like(rows)
        before[:, 1:], after[:, :-1] = rows[:, :-1], rows[:, 1:]
        mixed = weight[:, :1] * before + weight[:, 1:2] * rows + weight[:, 2:] * after
        torch.testing.assert_close(found, mixed.mean(dim=1) + video.mean(dim=0))
    # A transpose, as was meant, gives something else; so does memory in another order.
    transposed = frames.transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(module(transposed), module(frames))


def test_conv_1d_starts_as_a_shift():
    weight = head("Conv_1D", width=48).get_parameter("shift.weight")[:, 0]
    taps = [0] * 12 + [1] * 24 + [2] * 12
    torch.testing.assert_close(weight, nn.functional.one_hot(torch.tensor(taps), 3).float())


@torch.no_grad()
@pytest.mark.parametrize(
    ("width", "num_segments", "heads"), [(64, 8, 8), (48, 5, 8), (36, 3, 6), (7, 2, 7)]
)
def test_transf_cls_is_torchs_encoder(width: int, num_segments: int, heads: int):
    module = filled("Transf_cls", width=width, num_segments=num_segments, layers=2)
    layer = nn.TransformerEncoderLayer(width, heads, 2048, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
    encoder.eval()
    encoder.load_state_dict(module.get_submodule("transformer.transformer_enc").state_dict())
    frames = noise(2, 3, num_segments, width)
    token = module.get_parameter("transformer.cls_token").expand(3, 1, width)
    x = torch.cat([token, frames], dim=1) + module.get_parameter("transformer.pos_embed")
    torch.testing.assert_close(module(frames), encoder(x)[:, 0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("width", "num_segments"), [(64, 1), (48, 5)])
def test_the_lstm_is_added_to_the_frames(width: int, num_segments: int):
    module, frames = filled("LSTM", width=width), noise(3, 2, num_segments, width)
    w_in, w_hidden, b_in, b_hidden = module.get_submodule("lstm_visual").parameters()
    hidden = memory = torch.zeros(2, width)
    outputs = []
    for t in range(num_segments):
        gates = frames[:, t] @ w_in.T + b_in + hidden @ w_hidden.T + b_hidden
        enter, forget, new, leave = gates.chunk(4, dim=1)
        memory = forget.sigmoid() * memory + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * memory.tanh()
        outputs.append(hidden + frames[:, t])
    torch.testing.assert_close(module(frames), torch.stack(outputs).mean(dim=0))


def test_heads_start_as_the_authors_do():
    torch.manual_seed(0)
    state = head("Transf_cls").state_dict()
    layer = "transformer.transformer_enc.layers.{}.{}"
    for name in ("linear1.weight", "linear2.weight", "self_attn.out_proj.weight"):
        weights = state[layer.format(1, name)] / 0.02
        # Beyond 2 (4.6 %) a normal number wraps around: the spread is 0.866, if truncated 0.880.
        assert weights.abs().max() < 2
        limit = 0.004 if weights.numel() > 1e5 else 0.03  # two standard errors or more
        assert weights.std().item() == pytest.approx(0.866, abs=limit)
        assert not torch.equal(weights, state[layer.format(2, name)] / 0.02)
    for name in ("linear1.bias", "linear2.bias", "self_attn.in_proj_bias"):
        assert state[layer.format(3, name)].abs().max() == 0
    packed = [state[layer.format(i, "self_attn.in_proj_weight")] for i in range(6)]
    assert all(torch.equal(packed[0], other) for other in packed)
    assert packed[0].abs().max().item() == pytest.approx((6 / (4 * 64)) ** 0.5, rel=0.01)
    for name in ("pos_embed", "cls_token"):
        assert 0 < state[f"transformer.{name}"].abs().max() < 0.04
    lstm = head("LSTM").state_dict()["lstm_visual.weight_hh_l0"]
    assert lstm.abs().max().item() == pytest.approx(1 / 8, rel=0.01)


@pytest.mark.parametrize("name", ["Conv_1D", "LSTM", "Transf_cls"])
def test_positions_that_no_head_uses_are_kept_and_not_trained(name: str):
    torch.manual_seed(0)
    module = head(name, width=48)
    positions = module.get_parameter(UNUSED)
    assert positions.shape == (77, 48)
    assert positions.std().item() == pytest.approx(0.02, rel=0.1)
    module(noise(1, 2, 8, 48)).square().sum().backward()
    without = {n for n, p in module.named_parameters() if p.grad is None}
    assert without == {UNUSED} == {n for n, p in module.named_parameters() if not p.requires_grad}
    assert head("Transf").get_parameter(UNUSED).requires_grad
    assert head("meanP").state_dict() == {}


@torch.no_grad()
@pytest.mark.parametrize("name", ["Conv_1D", "LSTM"])
def test_a_head_is_computed_in_float32_under_autocast(name: str):
    module, frames = filled(name), noise(1, 2, 8, 64).bfloat16()
    residual = module(frames.float()) - frames.float().mean(dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(frames)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(
        output.float(), residual + frames.float().mean(dim=1), rtol=0.02, atol=0.02
    )
    seen: list[torch.dtype] = []
    inner = module.get_submodule("shift" if name == "Conv_1D" else "lstm_visual")
    inner.register_forward_hook(
        lambda _, __, out: seen.append((out if isinstance(out, Tensor) else out[0]).dtype)
    )
    with torch.autocast("cpu", torch.bfloat16):
        module(frames)
    assert seen == [torch.float32]


def test_dropout_is_a_function_of_the_clip():
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (6, 2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    keys = clip_keys(clips)
    assert len(set(keys.tolist())) == 6
    torch.testing.assert_close(clip_keys(clips[3:5]), keys[3:5])
    flipped = clips.clone()
    flipped[:, 0] = clips[:, 0].flip(-1)
    assert not set(clip_keys(flipped).tolist()) & set(keys.tolist())
    x = torch.ones(6, 9, 2048)
    kept = drop(x, keys, 2, 0.1) > 0
    torch.testing.assert_close(drop(x, keys, 2, 0.1).max(), torch.tensor(1 / 0.9))
    shares = kept.float().flatten(1).mean(dim=1)
    assert ((shares - 0.9).abs() < 0.01).all()  # 4.5 standard errors
    assert torch.equal(drop(x[3:5], keys[3:5], 2, 0.1) > 0, kept[3:5])
    # Independent of each other: both of two masks drop 1 % of the units.
    other_place = drop(x, keys, 3, 0.1) > 0
    for other in (other_place, kept.roll(1, dims=0), kept.roll(1, dims=1), kept.roll(1, dims=2)):
        assert (~kept & ~other).float().mean().item() == pytest.approx(0.01, abs=0.002)


def test_transf_cls_drops_units_in_training_alone(monkeypatch: pytest.MonkeyPatch):
    module, frames = filled("Transf_cls", layers=2), noise(4, 3, 8, 64)
    keys = torch.tensor([5, 6, 7])
    plain = module(frames)
    torch.testing.assert_close(module(frames, keys), plain)
    module.train()
    dropped = module(frames, keys)
    assert ((dropped - plain).abs().amax(dim=1) > 0.01).all()
    torch.testing.assert_close(module(frames[1:], keys[1:]), dropped[1:])
    shapes = {}

    def note(x: Tensor, _: Tensor, place: int, share: float) -> Tensor:
        shapes[place] = (*x.shape, share)
        return x

    monkeypatch.setattr(actionclip_heads, "drop", note)
    torch.testing.assert_close(module(frames, keys), plain)
    weights, branch, hidden = (3, 8, 9, 9, 0.1), (3, 9, 64, 0.1), (3, 9, 2048, 0.1)
    assert shapes == dict(enumerate([weights, branch, hidden, branch] * 2))


@pytest.mark.parametrize("name", ["meanP", "Conv_1D", "LSTM", "Transf", "Transf_cls"])
def test_heads_run_on_the_meta_device(name: str):
    """train estimates there how many clips fit into memory."""
    module, frames = head(name).to("meta").train(), torch.empty(2, 8, 64, device="meta")
    keys = [clip_keys(torch.zeros(2, 8, 3, 4, 4, dtype=torch.uint8, device="meta"))]
    output = module(frames, *(keys if name == "Transf_cls" else []))
    assert output.shape == (2, 64)
