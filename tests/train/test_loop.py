"""The training loop on a tiny model and clips of noise, in one process."""

import dataclasses
import functools
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from clipzoo import methods
from clipzoo.clips.clips import TrainClips
from clipzoo.config import ConfigError, Params, load_params, replace
from clipzoo.data.records import Record
from clipzoo.files import DiskError
from clipzoo.methods.parts.losses import soft_cross_entropy
from clipzoo.methods.text4vis import Text4Vis
from clipzoo.models.clip import build_clip, load_clip, save_clip
from clipzoo.models.text import ClassText, tokenize
from clipzoo.paths import CLIP_FILE, MODEL_FILE
from clipzoo.train import loop
from clipzoo.train.plan import make_plan
from clipzoo.train.setup import Run, TrainingError, check_classifier, check_targets
from clipzoo.train.state import TRAIN_STATE_DIR, Progress, fingerprint, remove_state

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
NUM_CLASSES, NUM_VIDEOS = 3, 10


class NoiseClips:
    """Clips that are a function of (record, epoch), as the real loader's are."""

    view_names = ("clip0-center",)
    record = TrainClips.record

    def __init__(self, views: bool) -> None:
        labels = [i % NUM_CLASSES for i in range(NUM_VIDEOS)]
        self.records = [Record(f"v{i}", 20, label) for i, label in enumerate(labels)]
        self.views = views

    def load(self, position: int, epoch: int = 0) -> torch.Tensor:
        rng = torch.Generator().manual_seed(1000 * epoch + position)
        label = self.records[position].label
        clip = torch.randint(0, 255, (2, 3, 16, 16), generator=rng) // 2 + 40 * label
        clip = clip.to(torch.uint8)
        return clip[None] if self.views else clip


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory) -> Path:
    """A tiny CLIP."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_clip(build_clip("ViT-demo-16", 16), path, arch="ViT-demo-16", input_px=16, source="test")
    return path


@pytest.fixture(autouse=True)
def workspace(clip_file, tmp_path, monkeypatch):
    """A folder with models/clip.safetensors."""
    monkeypatch.chdir(tmp_path)
    CLIP_FILE.parent.mkdir()
    shutil.copy(clip_file, CLIP_FILE)
    return tmp_path


@functools.cache
def token_ids() -> torch.Tensor:
    """The prompts of the classes, [1, K, L] int64."""
    return tokenize("ViT-demo-16", ["a dog", "a cat", "two red fish"], 12)[None]


def tiny_params(**changes: Any) -> Params:
    """Two epochs of three steps; `changes` by key, with `__` for the dot or of `train`."""
    values: dict[str, Any] = {
        "train.epochs": 2,
        "train.warmup_epochs": 1,
        "train.batch_size": 4,
        "train.val_every": 1,
        "train.checkpoint_every": 2,
        "model.num_segments": 2,
        "model.input_px": 16,
        "text4vis.head_layers": 1,
        "runtime.micro_batch": 2,
        "runtime.workers": 1,
    }
    for key, value in changes.items():
        values[key.replace("__", ".") if "__" in key else f"train.{key}"] = value
    return replace(PARAMS, values)


def make_run(params: Params) -> Run:
    method, metadata = methods.new_model(params)
    torch.manual_seed(1)
    rows = torch.nn.functional.normalize(torch.randn(1, NUM_CLASSES, 128), dim=-1)
    return Run(
        params=params,
        device=torch.device("cpu"),
        method=method,
        metadata=metadata,
        clips=cast(Any, NoiseClips(views=False)),
        val_clips=cast(Any, NoiseClips(views=True)),
        text=ClassText(token_ids=token_ids(), class_embeddings=rows, class_names=["a", "b", "c"]),
        plan=make_plan(params, NUM_VIDEOS, NUM_VIDEOS),
        state_dir=TRAIN_STATE_DIR / fingerprint(params, [CLIP_FILE], {}),
        log_dir=Path("plots/train"),
    )


def train(run: Run) -> dict[str, float]:
    """As the stage does."""
    metrics = loop.train(run)
    remove_state(run.state_dir)
    return metrics


def curve(name: str) -> list[float]:
    lines = Path(f"plots/train/plots/metrics/{name}.tsv").read_text().splitlines()
    assert lines[0] == f"step\t{name}"
    return [float(line.split("\t")[1]) for line in lines[1:]]


def model_file() -> dict[str, torch.Tensor]:
    """The tensors of the model that a run wrote, as that run loads it."""
    settings = methods.read_model_metadata().settings
    return methods.load_model(replace(PARAMS, settings)).state_dict()


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int, params: Params) -> None:
    """Start a run that dies before it takes this step."""
    original = loop.set_learning_rate

    def die(optimizer, run, number):
        if number == step:
            raise KeyboardInterrupt
        return original(optimizer, run, number)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "set_learning_rate", die)
        with pytest.raises(KeyboardInterrupt):
            train(make_run(params))


def test_training_lowers_the_loss_and_writes_the_model():
    run = make_run(tiny_params(epochs=8, lr=1e-3))
    metrics = train(run)
    losses = curve("loss")
    assert len(losses) == metrics["steps"] == 8 * 3
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])
    assert metrics["loss_last_epoch"] == pytest.approx(sum(losses[-3:]) / 3)
    assert metrics["val_top1_last"] == curve("val_top1")[-1] > 60
    assert not run.state_dir.exists()
    assert_same(model_file(), run.method.state_dict())


@pytest.mark.parametrize(
    ("changes", "factors"),
    [
        ({"steps_per_lr_update": 1, "schedule": "cosine"}, [0, 1 / 3, 2 / 3, 1, 0.75, 0.25]),
        ({"steps_per_lr_update": 2, "schedule": "cosine"}, [0, 1 / 3, 1 / 3, 1, 0.75, 0.75]),
        (
            {"steps_per_lr_update": 1, "schedule": "multistep", "milestones": [1.5], "gamma": 0.2},
            [0, 1 / 3, 2 / 3, 1, 1, 0.2],
        ),
        (
            {"steps_per_lr_update": 1, "schedule": "constant", "warmup_epochs": 2},
            [0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6],
        ),
    ],
)
def test_the_rate_follows_the_schedule(changes: dict[str, Any], factors: list[float]):
    train(make_run(tiny_params(lr=1e-3, **changes)))
    assert curve("lr") == pytest.approx([1e-3 * factor for factor in factors])


def test_the_optimizer_has_the_settings_of_the_run(monkeypatch):
    """None of them the default: of AdamW, or of params.yaml."""
    groups = []
    original = loop.set_learning_rate

    def record(optimizer, run, number):
        rate = original(optimizer, run, number)
        assert isinstance(optimizer, torch.optim.AdamW)
        groups.append([dict(group) for group in optimizer.param_groups])
        return rate

    monkeypatch.setattr(loop, "set_learning_rate", record)
    changes = {
        "beta1": 0.8,
        "beta2": 0.95,
        "eps": 1e-5,
        "weight_decay": 0.3,
        "tower_lr_ratio": 0.25,
    }
    train(make_run(tiny_params(lr=1e-3, warmup_epochs=0, schedule="constant", **changes)))
    assert [[group["lr"] for group in step] for step in groups] == [[2.5e-4, 1e-3]] * 6
    for group in itertools.chain(*groups):
        found = (group["betas"], group["eps"], group["weight_decay"])
        assert found == ((0.8, 0.95), 1e-5, 0.3)


def test_weight_decay_shrinks_what_has_no_gradient():
    """AdamW decays every parameter, those that the loss does not reach too."""
    ends = {}
    for decay in (0.0, 0.5):
        run = make_run(tiny_params(lr=1e-2, weight_decay=decay))
        unused = run.method.get_parameter("fusion_model.frame_position_embeddings.weight")
        start = unused.detach().clone()
        train(run)
        ends[decay] = unused.detach()[5] / start[5]  # position 5 of clips of 2 frames
    assert float(ends[0.0].mean()) == pytest.approx(1.0, abs=1e-6)
    rates = curve("lr")
    expected = torch.tensor([1 - 0.5 * rate for rate in rates]).prod()
    torch.testing.assert_close(ends[0.5], expected.expand(128))


def test_clipping_bounds_the_gradient(monkeypatch):
    norms = []
    original = torch.nn.utils.clip_grad_norm_

    def record(parameters, limit):
        parameters = list(parameters)
        original(parameters, limit)
        gradients = [p.grad for p in parameters if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", record)
    train(make_run(tiny_params(grad_clip=0.01)))
    assert norms == pytest.approx([0.01] * 6, rel=1e-3)


def test_gradients_are_unscaled_before_they_are_clipped(monkeypatch):
    scaler = functools.partial(torch.amp.GradScaler, init_scale=8.0)  # never skips a step
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    original, norms = torch.nn.utils.clip_grad_norm_, []
    monkeypatch.setattr(
        torch.nn.utils,
        "clip_grad_norm_",
        lambda parameters, limit: norms.append(float(original(parameters, limit))),
    )
    for precision in ("fp32", "fp16"):
        train(make_run(tiny_params(epochs=1, precision=precision, grad_clip=1.0)))
    assert norms[3:] == pytest.approx(norms[:3], rel=0.05)


def test_validations_are_as_far_apart_as_asked():
    metrics = train(make_run(tiny_params(epochs=3, val_every=2)))
    lines = Path("plots/train/plots/metrics/val_top1.tsv").read_text().splitlines()[1:]
    assert [int(line.split("\t")[0]) for line in lines] == [5, 8]
    assert metrics["val_top1_last"] == curve("val_top1")[-1]


def test_multi_label_sets_are_validated_by_map(monkeypatch):
    run = make_run(tiny_params(select="best"))
    labels = [(), (0,), (0, 2), (1,), (1, 2), (2,), (0, 1, 2), (), (0,), (1,)]
    records = [
        Record(f"v{i}", 20, known[0] if known else -1, labels=known)
        for i, known in enumerate(labels)
    ]
    monkeypatch.setattr(run.val_clips, "records", records)
    metrics = train(run)
    values = curve("val_map")
    assert metrics["val_map_last"] == values[-1]
    assert metrics["val_map_best"] == max(values)
    assert not [key for key in metrics if "top1" in key]
    # the weights are those of the best validation again
    clips = [run.val_clips.load(i) for i in range(NUM_VIDEOS)]
    with torch.no_grad():
        run.method.eval()
        features = torch.stack([run.method.encode(clip) for clip in clips])
        scores = run.method.score(features, run.text)
    targets = torch.zeros(NUM_VIDEOS, NUM_CLASSES)
    for row, known in enumerate(labels):
        targets[row, list(known)] = 1
    order = scores.argsort(dim=0, descending=True)
    hits = targets.gather(0, order)  # [N, K], by rank
    precisions = hits.cumsum(0) / torch.arange(1, NUM_VIDEOS + 1)[:, None]
    by_hand = (hits * precisions).sum(0) / targets.sum(0)
    assert metrics["val_map_best"] == pytest.approx(100 * float(by_hand.mean()), 1e-5)


def test_a_run_may_end_within_its_first_epoch():
    """As one with a stand-in of another architecture does: demo.other_archs.train_steps."""
    run = make_run(tiny_params(epochs=4))
    run.plan = dataclasses.replace(run.plan, max_steps=2)
    metrics = train(run)
    assert metrics["steps"] == len(curve("loss")) == 2
    assert "val_top1_last" in metrics


@pytest.mark.parametrize("killed_after", [2, 3, 5])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(monkeypatch, killed_after):
    train(make_run(tiny_params()))
    expected, losses, rates = model_file(), curve("loss"), curve("lr")
    tops = curve("val_top1")
    summary = Path("plots/train/metrics.json").read_bytes()
    kill_at(monkeypatch, killed_after, tiny_params())
    taken = []
    original = loop.set_learning_rate
    monkeypatch.setattr(
        loop, "set_learning_rate", lambda o, r, n: taken.append(n) or original(o, r, n)
    )
    train(make_run(tiny_params()))
    assert taken == list(range(killed_after // 2 * 2, 6)), "from the last resume point on"
    assert (curve("loss"), curve("lr"), curve("val_top1")) == (losses, rates, tops)
    assert Path("plots/train/metrics.json").read_bytes() == summary
    assert_same(model_file(), expected)


@pytest.mark.parametrize("changes", [{"select": "best"}, {"average_epochs": 2}])
def test_a_model_that_cannot_be_written_loses_no_training(monkeypatch, changes):
    params = tiny_params(**changes)
    metrics = train(make_run(params))
    expected, losses, tops = model_file(), curve("loss"), curve("val_top1")
    summary = Path("plots/train/metrics.json").read_bytes()
    shutil.rmtree("plots")
    MODEL_FILE.unlink()
    save_model = methods.save_model

    def fail(model, path, metadata):
        if path == MODEL_FILE:
            raise DiskError("full")
        save_model(model, path, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(methods, "save_model", fail)
        with pytest.raises(DiskError):
            loop.train(make_run(params))
    monkeypatch.setattr(loop, "set_learning_rate", None)  # no step is taken
    run = make_run(params)
    assert loop.train(run) == metrics
    assert (curve("loss"), curve("val_top1")) == (losses, tops)
    assert Path("plots/train/metrics.json").read_bytes() == summary
    assert_same(model_file(), expected)
    assert (run.state_dir / "state.pt").is_file(), "the stage still has to write the metrics"


def test_a_damaged_resume_point_costs_the_steps_since_the_one_before(monkeypatch, capsys):
    train(make_run(tiny_params(epochs=3)))
    expected, losses = model_file(), curve("loss")
    kill_at(monkeypatch, 7, tiny_params(epochs=3))
    (state,) = TRAIN_STATE_DIR.glob("*/state.pt")
    state.write_bytes(state.read_bytes()[:-1000])
    train(make_run(tiny_params(epochs=3)))
    out = capsys.readouterr().out
    assert f"{state}: is damaged" in out
    assert "resuming after step 4 of 9" in out
    assert curve("loss") == losses
    assert_same(model_file(), expected)


def test_a_run_with_other_parameters_never_resumes(monkeypatch):
    kill_at(monkeypatch, 3, tiny_params())
    (state,) = TRAIN_STATE_DIR.iterdir()
    assert state.name == fingerprint(tiny_params(), [CLIP_FILE], {})
    other_runtime = replace(tiny_params(), {"runtime.processes": 3, "runtime.micro_batch": 1})
    assert fingerprint(other_runtime, [CLIP_FILE], {}) == state.name
    assert fingerprint(tiny_params(lr=1e-3), [CLIP_FILE], {}) != state.name
    with open(CLIP_FILE, "ab") as file:
        file.write(b" ")
    assert fingerprint(tiny_params(), [CLIP_FILE], {}) != state.name


@pytest.mark.parametrize("loss", ["ce", "infonce"])
def test_the_micro_batch_changes_nothing(loss):
    losses = []
    for micro in (1, 3, 16):
        train(make_run(tiny_params(lr=1e-3, text4vis__loss=loss, runtime__micro_batch=micro)))
        losses.append(curve("loss"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)


def test_loader_processes_change_nothing():
    train(make_run(tiny_params()))
    expected, losses, tops = model_file(), curve("loss"), curve("val_top1")
    train(make_run(tiny_params(runtime__workers=3)))
    assert (curve("loss"), curve("val_top1")) == (losses, tops)
    assert_same(model_file(), expected)


def test_a_loss_that_is_not_finite_names_step_and_videos():
    run = make_run(tiny_params())
    with torch.no_grad():
        run.method.get_parameter("visual.proj").fill_(float("nan"))
    first = [f"v{p}" for p in run.plan.step_positions(0)[0]]
    with pytest.raises(TrainingError, match=r"step 0 \(epoch 0\) is nan.*" + ", ".join(first)):
        train(run)


@pytest.mark.parametrize("last", [60.0, 90.0])
def test_select_best_keeps_the_weights_of_the_first_of_the_best_validations(monkeypatch, last):
    run = make_run(tiny_params(epochs=3, select="best", lr=1e-3))
    scores, kept = iter([50.0, 90.0, last]), []

    def scripted_top1(run):
        kept.append({k: v.clone() for k, v in run.method.state_dict().items()})
        return next(scores)

    monkeypatch.setattr(loop, "single_view_score", scripted_top1)
    metrics = train(run)
    assert (metrics["val_top1_best"], metrics["epoch_best"]) == (90.0, 2.0)
    assert metrics["val_top1_last"] == last
    assert_same(model_file(), kept[1])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains(precision):
    changes = {"grad_clip": 1.0, "activation_checkpointing": True}
    train(make_run(tiny_params(precision=precision, **changes)))
    reduced = curve("loss")
    train(make_run(tiny_params(grad_clip=1.0)))
    exact = curve("loss")
    steps = slice(1) if precision == "fp16" else slice(None)  # the scaler skips steps at first
    assert reduced[steps] == pytest.approx(exact[steps], rel=0.05)
    assert abs(reduced[0] - exact[0]) > 1e-7 * exact[0], "autocast rounds"


def test_a_checkpoint_of_another_architecture_is_refused():
    train(make_run(tiny_params()))
    other = tiny_params(model__arch="ViT-B/32")
    for load, file in ((methods.load_model, "model"), (methods.new_model, "clip")):
        with pytest.raises(
            ValueError, match=rf"{file}\.safetensors holds ViT-demo-16, but model.arch is ViT-B-32"
        ):
            load(other)


def test_a_model_file_is_a_checkpoint_to_go_on_from():
    train(make_run(tiny_params()))
    expected = model_file()
    params = tiny_params(epochs=0, model__checkpoint="models/parent.safetensors")
    with pytest.raises(
        ValueError, match=r"model\.checkpoint: models/parent\.safetensors is not a file"
    ):
        methods.new_model(params)
    Path("models/model.safetensors").rename("models/parent.safetensors")
    assert train(make_run(params)) == {"steps": 0, "epochs": 0}
    assert_same(model_file(), expected)


@pytest.mark.parametrize("text_tower", ["frozen", "trained"])
def test_infonce_trains_and_its_text_tower_only_if_asked(text_tower):
    run = make_run(
        tiny_params(epochs=4, lr=1e-3, text4vis__loss="infonce", text4vis__text_tower=text_tower)
    )
    start = run.method.class_text(run.text).class_embeddings.detach().clone()
    train(run)
    losses = curve("loss")
    assert sum(losses[-3:]) < sum(losses[:3])
    assert torch.equal(methods.load_classifier(3), run.text.class_embeddings)
    end = run.method.class_text(run.text).class_embeddings
    assert torch.allclose(end, start, atol=1e-4) is (text_tower == "frozen")


def states_after(monkeypatch: pytest.MonkeyPatch, run: Run) -> dict[int, dict]:
    """The weights after each step of a run that is about to start."""
    after = {}
    original = loop.average_weights

    def record(progress, run):
        after[progress.step] = {k: v.clone() for k, v in run.method.state_dict().items()}
        original(progress, run)

    monkeypatch.setattr(loop, "average_weights", record)
    return after


@pytest.mark.parametrize(("epochs", "steps"), [(3, (6, 9)), (2, (3, 6)), (1, (3,))])
def test_the_mean_of_the_last_epochs_weights_is_kept(monkeypatch, epochs, steps):
    """Of the last 2, or of the only one."""
    run = make_run(tiny_params(epochs=epochs, warmup_epochs=0, lr=1e-3, average_epochs=2))
    after = states_after(monkeypatch, run)
    metrics = train(run)
    for name, value in model_file().items():
        torch.testing.assert_close(value, sum(after[step][name] for step in steps) / len(steps))
    assert metrics["val_top1_average"] == loop.single_view_score(run)


def test_averaging_survives_a_kill(monkeypatch):
    params = tiny_params(epochs=3, average_epochs=3)
    train(make_run(params))
    expected = model_file()
    kill_at(monkeypatch, 5, params)
    train(make_run(params))
    assert_same(model_file(), expected)


def test_losses_read_every_few_steps_are_those_read_in_every_step(monkeypatch):
    train(make_run(tiny_params()))
    expected, losses, rates, tops = model_file(), curve("loss"), curve("lr"), curve("val_top1")
    stacked, original = [], torch.stack
    monkeypatch.setattr(loop, "read_every", lambda device: 4)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "stack", lambda t: stacked.append(len(t)) or original(t))
        train(make_run(tiny_params(checkpoint_every=100)))
    assert stacked == [3, 1, 2], "at the ends of epochs, and after every fourth step"
    assert (curve("loss"), curve("lr"), curve("val_top1")) == (losses, rates, tops)
    assert_same(model_file(), expected)


def test_a_loss_that_is_read_late_is_named_and_nothing_after_it_is_kept(monkeypatch):
    """Step 3 is not finite, 3 to 5 are read together: a resume point at 2, none later."""
    monkeypatch.setattr(loop, "read_every", lambda device: 100)
    original = loop.set_learning_rate

    def poison(optimizer, run, number):
        if number == 3:
            torch.nn.init.constant_(run.method.get_parameter("visual.proj"), float("nan"))
        return original(optimizer, run, number)

    monkeypatch.setattr(loop, "set_learning_rate", poison)
    run = make_run(tiny_params(checkpoint_every=2, val_every=2, average_epochs=2))
    videos = [f"v{p}" for p in run.plan.step_positions(1)[0]]
    with pytest.raises(TrainingError, match=r"step 3 \(epoch 1\) is nan.*" + ", ".join(videos)):
        train(run)
    state = torch.load(run.state_dir / "state.pt", weights_only=True)
    assert (state["progress"]["step"], len(state["progress"]["history"])) == (2, 2)
    assert all(value.isfinite().all() for value in state["model"].values())


def raw_clip() -> dict[str, torch.Tensor]:
    names = ("visual.", "logit_scale")
    return {k: v for k, v in load_clip()[0].state_dict().items() if k.startswith(names)}


@pytest.mark.parametrize("changes", [{}, {"average_epochs": 2}, {"select": "best"}])
def test_a_share_of_the_raw_clip_is_added_to_the_model_at_the_end(changes):
    """To its vision tower and logit_scale alone, after the choice or mean of the weights."""
    metrics = train(make_run(tiny_params(lr=1e-2, **changes)))
    trained, losses = model_file(), curve("loss")
    assert train(make_run(tiny_params(lr=1e-2, raw_clip_share=0.25, **changes))) == metrics
    assert curve("loss") == losses, "training and validations do without it"
    raw, patched = raw_clip(), model_file()
    for name, value in trained.items():
        expected = 0.25 * raw[name] + 0.75 * value if name in raw else value
        torch.testing.assert_close(patched[name], expected, msg=name)
    assert not torch.equal(patched["logit_scale"], trained["logit_scale"])
    assert any(name not in raw for name in trained)


def test_a_share_of_the_raw_clip_is_added_to_a_checkpoint_that_is_only_evaluated():
    train(make_run(tiny_params(lr=1e-2)))
    trained = model_file()
    MODEL_FILE.rename("checkpoint.safetensors")
    evaluated = {"epochs": 0, "model__checkpoint": "checkpoint.safetensors"}
    train(make_run(tiny_params(raw_clip_share=0.5, **evaluated)))
    patched = model_file()
    expected = (trained["logit_scale"] + raw_clip()["logit_scale"]) / 2
    torch.testing.assert_close(patched["logit_scale"], expected)
    # That file is not patched again, and a run cannot say that it has another share.
    MODEL_FILE.rename("checkpoint.safetensors")
    train(make_run(tiny_params(raw_clip_share=0.5, **evaluated)))
    assert_same(model_file(), patched)
    for share in (0.25, 0.0):
        with pytest.raises(ConfigError, match=rf"raw_clip_share: found {share}; allowed: 0\.5"):
            make_run(tiny_params(raw_clip_share=share, **evaluated))


def test_a_resumed_run_draws_the_same_interpolated_weights(monkeypatch):
    params = tiny_params(lr=1e-2, interpolated_loss_weight=0.5, warmup_epochs=0)
    train(make_run(tiny_params(lr=1e-2, warmup_epochs=0)))
    without = curve("loss")
    train(make_run(params))
    expected, losses = model_file(), curve("loss")
    # At first both weights are the raw CLIP's.
    assert losses[0] == pytest.approx(1.5 * without[0])
    assert losses[5] != pytest.approx(1.5 * without[5], rel=1e-4)
    kill_at(monkeypatch, 3, params)
    train(make_run(params))
    assert curve("loss") == losses
    assert_same(model_file(), expected)


@pytest.mark.parametrize("key", ["mixup_alpha", "cutmix_alpha", "label_smoothing"])
def test_mixed_targets_are_refused_where_the_loss_does_not_take_them(key):
    method = make_run(tiny_params()).method
    params = tiny_params(**{f"augment__{key}": 0.5})
    with pytest.raises(ConfigError, match=rf"augment.{key}: found 0.5; allowed: 0, .*text4vis"):
        check_targets(params, method)
    check_targets(tiny_params(epochs=0, **{f"augment__{key}": 0.5}), method)
    method.takes_soft_targets = True
    check_targets(params, method)


def test_a_classifier_is_refused_where_a_trained_text_tower_would_replace_it():
    options = {"text4vis__loss": "infonce", "text4vis__text_tower": "trained"}
    trained, frozen = make_run(tiny_params(**options)).method, make_run(tiny_params()).method
    params = tiny_params(text__classifier="random")
    check_classifier(params, frozen)
    with pytest.raises(ConfigError, match=r"text.classifier: found random; allowed: text, .*tower"):
        check_classifier(params, trained)
    check_classifier(tiny_params(), trained)


def test_mixed_clips_are_what_a_run_trains_on(monkeypatch):
    """Groups of 2 in micro-batches of 1: each is encoded at once, and its targets are soft."""
    seen = []

    def loss(self, features, batch, text):
        seen.append(batch.targets)
        logits = self.logits(features, text.class_embeddings)
        return soft_cross_entropy(logits, batch.targets)

    monkeypatch.setattr(Text4Vis, "takes_soft_targets", True)
    monkeypatch.setattr(Text4Vis, "loss", loss)
    changes = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "mix_group": 2, "label_smoothing": 0.1}
    mixed = {f"augment__{key}": value for key, value in changes.items()}
    train(make_run(tiny_params(runtime__micro_batch=1, epochs=1, **mixed)))
    losses = curve("loss")
    # 10 clips in batches of 4: groups of 2 alone.
    assert [len(targets) for targets in seen] == [2] * 5
    torch.testing.assert_close(torch.cat(seen).sum(dim=1), torch.ones(10))
    assert any(((targets > 0.05).sum(dim=1) == 2).any() for targets in seen), "of two classes"
    train(make_run(tiny_params(runtime__micro_batch=4, epochs=1, **mixed)))
    assert curve("loss") == pytest.approx(losses, rel=1e-5)


# torch hides this warning while it compiles, though not where warnings are errors.
HIDDEN_BY_TORCH = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


class CountingCompiler:
    """Stands for the compiler, which not every machine has: runs what dynamo has traced."""

    def __init__(self) -> None:
        self.num_graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        self.num_graphs += 1
        return graph.forward


@pytest.fixture
def compiler(monkeypatch) -> Iterator[CountingCompiler]:
    counting = CountingCompiler()
    monkeypatch.setattr(
        loop, "compile_tower", functools.partial(loop.compile_tower, backend=counting)
    )
    torch.compiler.reset()
    yield counting
    torch.compiler.reset()


@HIDDEN_BY_TORCH
@pytest.mark.parametrize("compiled_first", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_run_goes_on_without_the_compiler_or_with_it(monkeypatch, compiler, compiled_first):
    train(make_run(tiny_params(lr=1e-3)))
    names, losses = model_file().keys(), curve("loss")
    on, off = tiny_params(lr=1e-3, compile=True, fused=True), tiny_params(lr=1e-3)
    kill_at(monkeypatch, 3, on if compiled_first else off)
    assert compiler.num_graphs == compiled_first
    taken, original = [], loop.set_learning_rate

    def record(optimizer, run, number):
        taken.append((number, *(group["fused"] for group in optimizer.param_groups)))
        return original(optimizer, run, number)

    monkeypatch.setattr(loop, "set_learning_rate", record)
    train(make_run(off if compiled_first else on))
    fused = None if compiled_first else True
    assert taken == [(number, fused, fused) for number in range(2, 6)]
    assert compiler.num_graphs == 1, "all blocks share one, and validations need none"
    assert curve("loss") == pytest.approx(losses, rel=1e-5)
    assert model_file().keys() == names


@HIDDEN_BY_TORCH
@pytest.mark.parametrize("loss", ["ce", pytest.param("infonce", marks=pytest.mark.slow)])
def test_smaller_micro_batches_are_compiled_once_more(compiler, loss):
    """10 clips: 3 + 1, 3 + 1 and 2. infonce encodes all twice, first without a graph; when the
    second pass is compiled, it is known that sizes differ."""
    changes = {"text4vis__loss": loss, "runtime__micro_batch": 3, "activation_checkpointing": True}
    train(make_run(tiny_params(epochs=1, **changes)))
    expected = curve("loss")
    train(make_run(tiny_params(epochs=1, compile=True, **changes)))
    assert curve("loss") == pytest.approx(expected, rel=1e-5)
    assert compiler.num_graphs == {"ce": 2, "infonce": 3}[loss]


@HIDDEN_BY_TORCH
def test_a_failing_compiler_is_an_error_that_names_the_parameter(monkeypatch):
    def fail(graph, inputs):
        raise RuntimeError("no C++ compiler")

    patched = functools.partial(loop.compile_tower, backend=fail)
    monkeypatch.setattr(loop, "compile_tower", patched)
    with pytest.raises(TrainingError, match=r"train\.compile: .*no C\+\+ compiler"):
        train(make_run(tiny_params(compile=True)))
    torch.compiler.reset()


@HIDDEN_BY_TORCH
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_the_compiled_tower_trains_alike():
    train(make_run(tiny_params(lr=1e-3)))
    expected = curve("loss")
    train(make_run(tiny_params(lr=1e-3, compile=True, fused=True)))
    torch.compiler.reset()
    assert curve("loss") == pytest.approx(expected, rel=1e-4)


def test_validations_have_a_precision_of_their_own(monkeypatch):
    precisions, original = [], loop.encode_videos
    monkeypatch.setattr(
        loop,
        "encode_videos",
        lambda *a, precision, **k: (
            precisions.append(precision) or original(*a, precision=precision, **k)
        ),
    )
    train(make_run(tiny_params(val_precision="bf16", precision="fp16", test__precision="fp32")))
    assert precisions == ["bf16", "bf16"]


@pytest.mark.parametrize("fused", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_steps_that_the_scaler_skips_are_counted(monkeypatch, fused):
    scaler = functools.partial(torch.amp.GradScaler, init_scale=2.0**100, growth_interval=1)
    scaler = functools.partial(scaler, backoff_factor=2.0**-90, growth_factor=2.0**90)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)  # skips every second step
    params = tiny_params(precision="fp16", warmup_epochs=0, fused=fused)
    run = make_run(params)
    start = run.method.get_parameter("visual.proj").detach().clone()
    after = states_after(monkeypatch, run)
    assert train(run)["skipped_steps"] == 3
    weights = [start, *(after[step]["visual.proj"] for step in range(1, 7))]
    same = [torch.equal(a, b) for a, b in itertools.pairwise(weights)]
    assert same == [True, False] * 3
    kill_at(monkeypatch, 5, params)
    assert train(make_run(params))["skipped_steps"] == 3
    assert "skipped_steps" not in train(make_run(tiny_params(precision="bf16")))


def test_the_model_file_says_how_its_steps_were_split_if_that_changes_it():
    run = make_run(tiny_params())
    train(run)
    assert methods.read_model_metadata().split == {}
    split = {"runtime.micro_batch": 2, "runtime.processes": 1}
    run.metadata["split"] = split
    loop.finish(run, Progress())
    assert methods.read_model_metadata().split == split
    names = {fingerprint(tiny_params(), [CLIP_FILE], part) for part in ({}, split)}
    assert len(names) == 2
