"""The training loop on a tiny model and clips of noise, in one process."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from clipzoo.config import flatten, load_params, replace
from clipzoo.data.records import Record
from clipzoo.methods import checkpoint
from clipzoo.models.clip import build_clip, save_clip
from clipzoo.models.text import ClassText, class_embeddings, tokenize
from clipzoo.train.loop import Trainer, TrainingError
from clipzoo.train.plan import make_plan

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
NUM_CLASSES, NUM_VIDEOS, STEPS = 3, 10, 6


class NoiseClips:
    """Clips that are a function of (record, epoch), as the real loader's are."""

    view_names = ("clip0-centre",)

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


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A folder with models/clip.safetensors of a tiny CLIP."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_clip(
        build_clip("ViT-demo-16", 16),
        checkpoint.CLIP_FILE,
        arch="ViT-demo-16",
        input_px=16,
        source="test",
    )
    return tmp_path


def tiny_params(options=None, **train):
    values = {
        "model.num_segments": 2,
        "model.input_px": 16,
        "text4vis.head_layers": 1,
        "train.epochs": 2,
        "train.warmup_epochs": 1,
        "train.batch_size": 4,
        "train.val_every": 1,
        "train.checkpoint_every": 2,
        "runtime.micro_batch": 2,
        "runtime.workers": 2,
    }
    return replace(PARAMS, values | flatten({"text4vis": options or {}, "train": train}))


def make_trainer(params, live=None) -> Trainer:
    model, metadata = checkpoint.new_model(params)
    torch.manual_seed(1)
    rows = torch.nn.functional.normalize(torch.randn(1, NUM_CLASSES, 128), dim=-1)
    token_ids = tokenize("ViT-demo-16", ["a dog", "a cat", "two red fish"], 12)[None]
    return Trainer(
        params=params,
        device=torch.device("cpu"),
        model=model,
        metadata=metadata,
        clips=cast(Any, NoiseClips(views=False)),
        val_clips=cast(Any, NoiseClips(views=True)),
        text=ClassText(token_ids=token_ids, class_embeddings=rows, class_names=["a", "b", "c"]),
        plan=make_plan(params, NUM_VIDEOS, NUM_VIDEOS),
        state_dir=checkpoint.STATE_DIR
        / checkpoint.fingerprint(params, [Path(checkpoint.CLIP_FILE)]),
        live=live,
    )


def model_file():
    return checkpoint.load_model(tiny_params())[0].state_dict()


def test_training_lowers_the_loss_and_writes_the_model(workspace):
    trainer = make_trainer(tiny_params(epochs=8, lr=1e-3))
    metrics = trainer.run()
    losses = [row["loss"] for row in trainer.history]
    assert len(losses) == metrics["steps"] == 8 * 3
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])
    assert metrics["val_top1_last"] > 60
    assert not trainer.state_dir.exists()
    own = trainer.model.state_dict()
    assert all(torch.equal(v, own[k]) for k, v in model_file().items())


@pytest.mark.parametrize("killed_after", [2, 3, 5])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    workspace, monkeypatch, killed_after
):
    whole = make_trainer(tiny_params())
    whole.run()
    expected = model_file()
    killed = make_trainer(tiny_params())
    step_of = killed._step

    def step_or_die(step, *args):
        if step == killed_after:
            raise KeyboardInterrupt
        return step_of(step, *args)

    monkeypatch.setattr(killed, "_step", step_or_die)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    seen = []
    live = SimpleNamespace(log_metric=lambda k, v, **_: seen.append((k, v)), next_step=lambda: None)
    resumed = make_trainer(tiny_params(), live)
    taken = []
    monkeypatch.setattr(
        resumed, "_step", lambda s, *a, f=resumed._step: taken.append(s) or f(s, *a)
    )
    resumed.run()
    assert taken[0] == killed_after // 2 * 2, "it goes on from the last resume point"
    assert resumed.history == whole.history
    assert [v for k, v in seen if k == "loss"] == [row["loss"] for row in whole.history]
    assert all(torch.equal(v, expected[k]) for k, v in model_file().items())


def test_a_run_with_other_parameters_never_resumes(workspace):
    trainer = make_trainer(tiny_params())
    trainer._save_state(2)
    assert make_trainer(tiny_params())._resume() == 2
    assert make_trainer(tiny_params(lr=1e-3))._resume() == 0
    with open(checkpoint.CLIP_FILE, "ab") as file:
        file.write(b" ")
    path = Path(checkpoint.CLIP_FILE)
    assert checkpoint.fingerprint(tiny_params(), [path]) != trainer.state_dir.name


def test_runtime_is_no_part_of_a_runs_identity(workspace):
    params, path = tiny_params(), Path(checkpoint.CLIP_FILE)
    other = replace(params, {"runtime.micro_batch": 4, "runtime.workers": 1})
    assert checkpoint.fingerprint(params, [path]) == checkpoint.fingerprint(other, [path])


def test_the_micro_batch_changes_nothing(workspace):
    histories = []
    for micro in (1, 3, 16):
        params = replace(tiny_params(lr=1e-3), {"runtime.micro_batch": micro})
        trainer = make_trainer(params)
        trainer.run()
        histories.append([row["loss"] for row in trainer.history])
    assert histories[0] == pytest.approx(histories[1], rel=1e-5)
    assert histories[0] == pytest.approx(histories[2], rel=1e-5)


def test_a_loss_that_is_not_finite_names_step_and_videos(workspace):
    trainer = make_trainer(tiny_params())
    with torch.no_grad():
        trainer.model.get_parameter("visual.proj").fill_(float("nan"))
    first = [f"v{p}" for p in trainer.plan.step_positions(0)[0]]
    with pytest.raises(TrainingError, match=r"step 0 \(epoch 0\) is nan.*" + ", ".join(first)):
        trainer.run()


def test_select_best_keeps_the_best_validations_weights(workspace, monkeypatch):
    trainer = make_trainer(tiny_params(epochs=3, select="best", lr=1e-3))
    scores, kept = iter([50.0, 90.0, 60.0]), []

    def count_correct(value):
        kept.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
        return [next(scores) * NUM_VIDEOS / 100]

    monkeypatch.setattr("clipzoo.train.loop.gather_objects", count_correct)
    metrics = trainer.run()
    assert (metrics["val_top1_best"], metrics["epoch_best"]) == (90.0, 2.0)
    assert metrics["val_top1_last"] == 60.0
    assert all(torch.equal(v, kept[1][k]) for k, v in model_file().items())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains(workspace, precision):
    trainer = make_trainer(
        tiny_params(precision=precision, grad_clip=1.0, activation_checkpointing=True)
    )
    trainer.run()
    exact = make_trainer(tiny_params(grad_clip=1.0))
    exact.run()
    first = [t.history[0]["loss"] for t in (trainer, exact)]
    assert first[0] == pytest.approx(first[1], rel=0.05)


def test_a_checkpoint_of_another_architecture_is_refused(workspace):
    make_trainer(tiny_params()).run()
    other = replace(tiny_params(), {"model.arch": "ViT-B/32"})
    with pytest.raises(
        ValueError, match=r"model\.safetensors holds ViT-demo-16, but model.arch is ViT-B-32"
    ):
        checkpoint.load_model(other)
    with pytest.raises(
        ValueError, match=r"clip\.safetensors holds ViT-demo-16, but model.arch is ViT-B-32"
    ):
        checkpoint.new_model(other)


def test_a_model_file_is_a_checkpoint_to_go_on_from(workspace):
    make_trainer(tiny_params()).run()
    expected = model_file()
    params = replace(tiny_params(epochs=0), {"model.checkpoint": "models/parent.safetensors"})
    with pytest.raises(
        ValueError, match=r"model\.checkpoint: models/parent\.safetensors is no file"
    ):
        checkpoint.new_model(params)
    Path("models/model.safetensors").rename("models/parent.safetensors")
    metrics = make_trainer(params).run()
    assert metrics["steps"] == 0
    assert all(torch.equal(v, expected[k]) for k, v in model_file().items())


@pytest.mark.parametrize("text_tower", ["frozen", "trained"])
def test_infonce_trains_and_its_text_tower_only_if_asked(workspace, text_tower):
    options = {"loss": "infonce", "text_tower": text_tower}
    trainer = make_trainer(tiny_params(options, epochs=4, lr=1e-3))
    given = trainer.text.class_embeddings.clone()
    start = class_embeddings(trainer.model, trainer.text).detach()
    trainer.run()
    losses = [row["loss"] for row in trainer.history]
    assert sum(losses[-3:]) < sum(losses[:3])
    kept = checkpoint.load_classifier()
    assert torch.equal(kept, given) is (text_tower == "frozen")
    if text_tower == "trained":
        assert not torch.allclose(kept, start, atol=1e-4)


def test_the_mean_of_the_last_epochs_weights_is_kept(workspace, monkeypatch):
    trainer = make_trainer(tiny_params(epochs=3, lr=1e-3, average_epochs=2))
    after = {}
    monkeypatch.setattr(
        trainer,
        "_average",
        lambda step, f=trainer._average: (
            after.update({step: {k: v.clone() for k, v in trainer.model.state_dict().items()}}),
            f(step),
        ),
    )
    metrics = trainer.run()
    for name, value in model_file().items():
        torch.testing.assert_close(value, (after[6][name] + after[9][name]) / 2)
    assert 0 <= metrics["val_top1_average"] <= 100


def test_averaging_survives_a_kill(workspace, monkeypatch):
    params = tiny_params(epochs=3, average_epochs=3)
    make_trainer(params).run()
    expected = model_file()
    killed = make_trainer(params)
    step_of = killed._step

    def step_or_die(step, *args):
        if step == 5:
            raise KeyboardInterrupt
        return step_of(step, *args)

    monkeypatch.setattr(killed, "_step", step_or_die)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    make_trainer(params).run()
    assert all(torch.equal(v, expected[k]) for k, v in model_file().items())
