"""The dry run of a recipe."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from annotating import store_index
from clipzoo.__main__ import main
from clipzoo.commands import check, trial_steps
from clipzoo.commands.planned import Options, plan
from clipzoo.config import load_params, replace
from clipzoo.data.ledger import write_ledger
from clipzoo.methods import build
from clipzoo.methods.memory import estimates
from clipzoo.models.clip import build_clip
from clipzoo.report import kept
from clipzoo.report.recipes import load_recipe
from clipzoo.runtime import machine

ROOT = Path(__file__).parents[2]
NAME = "own/one"
RECIPE = """
about: a test
video_sets: {test: ucf101/val_rgb_split_1.txt}
gpu_hours: 3
params:
  data: {dataset: videos, datasets: [videos], demo: [], zero_shot: []}
  train: {batch_size: 24}
"""
DATASET = "{about: from somewhere, format: ucf101, num_classes: 2, num_train: [50], num_val: [10]}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with everything for the recipe own/one."""
    for name in ("params.yaml", "recipes/demo.yaml", "datasets/demo_shapes.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "datasets/demo_unseen.yaml", tmp_path / "datasets")
    (tmp_path / "recipes/own").mkdir()
    (tmp_path / f"recipes/{NAME}.yaml").write_text(RECIPE)
    (tmp_path / "datasets/videos.yaml").write_text(DATASET)
    (tmp_path / "data/raw/videos").mkdir(parents=True)
    names = [f"{'ab'[i % 2]}/v{i}" for i in range(60)]
    rows = [f"{name},{name}.mp4,1000" for name in names]
    (tmp_path / "data/raw/videos.csv").write_text("\n".join(["video_id,path,size", *rows, ""]))
    train = "".join(f"{name}.avi {'ab'.index(name[0]) + 1}\n" for name in names[:50])
    test = "".join(f"{name}.avi\n" for name in names[50:])
    files = {"classInd": "1 a\n2 b\n", "trainlist01": train, "testlist01": test}
    (tmp_path / "data/annotations/videos").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / f"data/annotations/videos/{name}.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIPZOO_DATA", raising=False)
    return tmp_path


def findings(name: str = NAME) -> dict[str, check.Finding]:
    return {finding.topic: finding for finding in check.check_recipe(name)}


def missing(name: str = NAME) -> list[str]:
    return [finding.text for finding in check.check_recipe(name) if finding.ok is False]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def with_gpus(patch: pytest.MonkeyPatch, num_gpus: int, *, cores: int, free_bytes: float) -> None:
    """A machine with GPUs."""
    patch.setattr(machine, "count_gpus", lambda _: num_gpus)
    patch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(cores)))
    patch.setattr(estimates, "free_gpu_bytes", lambda _: free_bytes)
    patch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    patch.setattr(trial_steps, "largest_on_gpu", lambda params, limit, device: limit)


def test_a_complete_set_up_has_no_missing_parts(here):
    assert missing() == []
    all_findings = findings()
    assert all_findings["steps"].text == (
        "50 training videos, 50 clips an epoch, 3 steps x 20 epochs = 60"
    )
    assert all_findings["batch"].text == "24 clips a step = 2 processes x 3 micro-batches of 4"
    assert "about 3 of training" in all_findings["GPU hours"].text
    assert missing("demo") == []


def test_the_command_prints_one_screen(here, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["clipzoo", "check", NAME])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert 8 <= len(lines) <= 24
    assert lines[0] == "check own/one: ready"
    assert lines[1].strip() == "a test"


def test_what_is_lacking_is_told_and_the_exit_status_is_1(here, capsys, monkeypatch):
    shutil.rmtree(here / "data")
    monkeypatch.setattr("sys.argv", ["clipzoo", "check", NAME])
    with pytest.raises(SystemExit, match="1"):
        main()
    printed = capsys.readouterr()
    fault = "videos of videos: no data/raw/videos.csv; get the videos and run `clipzoo scan"
    lines = printed.out.splitlines()
    assert lines[0].startswith(f"check own/one: not ready: {fault}")
    assert lines[0].endswith("(and 1 more)")
    assert len(lines[0]) < 200
    assert f"MISSING {fault} videos FOLDER` (from somewhere)" in lines
    assert (
        "MISSING annotations of videos: annotation files in data/annotations/videos/" in printed.out
    )
    assert "error: 2 things are missing: videos of videos, annotations of videos" in printed.err


def remove_from_manifest(here: Path, number: int) -> None:
    """The last videos, which are test videos."""
    manifest = here / "data/raw/videos.csv"
    manifest.write_text("\n".join(manifest.read_text().splitlines()[:-number]) + "\n")


def test_annotated_videos_without_a_file_are_counted_before_anything_is_decoded(
    here, capsys, monkeypatch
):
    remove_from_manifest(here, 7)
    (text,) = missing()
    assert text.startswith("7 of 60 annotated videos are not in the manifest (a/v54, a/v56, a/v58,")
    assert "`clipzoo missing videos --accept`" in text
    monkeypatch.setattr("sys.argv", ["clipzoo", "check", NAME])
    with pytest.raises(SystemExit, match="1"):
        main()
    first = capsys.readouterr().out.splitlines()[0]
    assert "not ready: videos of videos: 7 of 60 annotated videos are not in the man" in first
    ids = ["b/v53", "a/v54", "b/v55", "a/v56", "b/v57", "a/v58", "b/v59"]
    write_ledger("videos", dict.fromkeys(ids, "absent"))
    assert missing() == []
    texts = [f.text for f in check.check_recipe(NAME) if f.topic == "videos of videos"]
    ledger = "data/annotations/videos/missing.csv"
    assert texts[0] == f"53 videos in data/raw/videos.csv, 60 annotated, 7 missing, all in {ledger}"


def test_videos_of_the_ledger_that_are_there_are_a_note(here):
    write_ledger("videos", {"b/v53": "absent", "a/v54": "absent: private"})
    notes = [f for f in check.check_recipe(NAME) if f.topic == "files of videos"]
    assert [note.ok for note in notes] == [None]
    assert notes[0].text.startswith("2 videos in data/annotations/videos/missing.csv are there")


def test_surplus_files_do_not_hide_missing_videos(here):
    """60 files, 7 of which no annotation names."""
    remove_from_manifest(here, 7)
    with (here / "data/raw/videos.csv").open("a") as file:
        file.writelines(f"test/x{i},test/x{i}.mp4,1000\n" for i in range(7))
    (text,) = missing()
    assert text.startswith("7 of 60 annotated videos are not in the manifest")
    assert findings()["files of videos"].text.startswith("7 files are left out")


def test_broken_videos_of_an_extraction_are_counted(here):
    stopped = here / "data/frames/videos/missing.csv"
    stopped.parent.mkdir(parents=True)
    stopped.write_text("video_id,reason\na/v0,moov atom not found\n")
    (text,) = missing()
    assert text.startswith("1 files could not be decoded (a/v0)")


def test_faults_of_annotation_files_are_told(here):
    with (here / "data/annotations/videos/testlist01.txt").open("a") as file:
        file.write("c/v.avi\n")
    (text,) = missing()
    assert "testlist01.txt:11: class 'c' is not in classInd.txt" in text


def test_segments_are_not_counted_as_videos(here):
    """Charades: 49,802 segments of 7,811 videos to train on, of 9,848 videos in all."""
    (here / "data/raw/videos.csv").unlink()
    shutil.copy(ROOT / "datasets/charades.yaml", here / "datasets/videos.yaml")
    edit(here / f"recipes/{NAME}.yaml", "ucf101/val_rgb_split_1.txt", "''")
    # 300 frames a video; 14.06 KB a frame at the size of recipes/demo.yaml, 72 px
    expected = 9848 * check.DEFAULT_FRAMES * check.frame_bytes("72") / 1e9
    assert findings()["disk"].text.startswith(f"about {expected:.0f} GB of frames")


def test_frames_are_estimated_for_the_files_to_extract(here, monkeypatch):
    monkeypatch.setattr(check, "frame_bytes", lambda _: 1e9)
    monkeypatch.setattr(check, "_frames_a_video", lambda _: 1)
    with (here / "data/raw/videos.csv").open("a") as file:
        file.writelines(f"test/x{i},test/x{i}.mp4,1000\n" for i in range(7))
    assert findings()["disk"].text.startswith("about 60 GB of frames")


def test_an_absent_root_is_told(here):
    (here / "data/raw/videos").rmdir()
    (text,) = missing()
    assert "videos at data/raw/videos: no such folder; set CLIPZOO_DATA" in text


def test_an_unknown_dataset_is_told(here):
    (here / "datasets/videos.yaml").unlink()
    assert "unknown dataset 'videos'" in missing()[0]


def test_too_little_disk_is_told(here, monkeypatch):
    monkeypatch.setattr(check.shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000_000))
    (text,) = missing()
    assert text.startswith("about 0 GB of frames to extract")
    store_index({f"{'ab'[i % 2]}/v{i}": 9 for i in range(60)})
    (here / "data/frames/mine").rename(here / "data/frames/videos")
    assert missing() == []


@pytest.mark.parametrize(
    ("size", "kilobytes"),
    [("340x256", 14.0), ("256", 14.06), ("320", 21.96), ("680x512", 56.0), ("source", 49.41)],
)
def test_frames_on_disk_are_in_proportion_to_their_area(size, kilobytes):
    assert check.frame_bytes(size) / 1000 == pytest.approx(kilobytes, abs=0.01)


def test_weights_and_checkpoints_are_looked_for(here):
    recipe = here / f"recipes/{NAME}.yaml"
    recipe.write_text(RECIPE + "  model: {weights: weights/clip.pt, checkpoint: other.pt}\n")
    assert missing() == ["weights/clip.pt", "other.pt"]
    (here / "weights").mkdir()
    for name in ("weights/clip.pt", "other.pt"):
        (here / name).touch()
    assert missing() == []
    parent_model = kept.kept_model("demo")
    recipe.write_text(
        f"{RECIPE}  model: {{arch: ViT-B/16, weights: openai, checkpoint: {parent_model}}}\n"
        "parent: demo\n"
    )
    all_findings = findings()
    assert all_findings["parent's model"].ok is None
    assert "`make zoo` runs its recipe demo first" in all_findings["parent's model"].text
    assert all_findings["CLIP weights"].ok is None


def test_a_released_file_is_read(here):
    """The stage train, which comes after the download of the videos, would refuse it too."""
    path, options = here / "released.pt", Options(released=here / "released.pt")
    path.touch()
    params = plan("demo", options, load_params().runtime.model_dump()).params
    model = build(params, build_clip(params.model.arch, params.model.input_px))
    state = model.state_dict()

    def found(content: object) -> check.Finding:
        torch.save(content, path)
        all_findings = check.check_recipe("demo", options)
        return next(f for f in all_findings if f.topic == "content of the checkpoint")

    assert found({"model_state_dict": state}).ok is True
    part = {name: value for name, value in state.items() if name != "visual.proj"}
    fault = found({"model_state_dict": part})
    assert fault.ok is False
    assert f"model.checkpoint {path} does not fit the model: 1 tensors are missing" in fault.text
    fault = found({"model": {"image_encoder.proj": torch.zeros(2)}})
    assert fault.ok is False
    assert "ViFi-CLIP (model.method vificlip)" in fault.text
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-1000])
    [fault] = check.released_findings(replace(params, {"model.checkpoint": str(path)}))
    assert fault.ok is False
    assert f"{path}: " in fault.text


def test_batches_that_cannot_be_split_are_told(here):
    recipe = here / f"recipes/{NAME}.yaml"
    edit(recipe, "batch_size: 24", "batch_size: 1")
    assert findings()["batch"].ok is False
    edit(recipe, "batch_size: 1", "batch_size: 100")
    text = findings()["batch"].text
    assert text.startswith("100 clips a step = 2 processes x 13 micro-batches of 4 at most")
    edit(recipe, "batch_size: 100", "epochs: 0")
    assert "no training" in findings()["batch"].text


@pytest.mark.parametrize(
    ("micro_batch", "ok", "offered"), [(4, True, "4"), (8, False, "4"), (3, True, "4")]
)
def test_a_gpu_takes_real_steps(here, monkeypatch, micro_batch, ok, offered):
    """24 clips a step on one GPU, which takes at most 4 at once."""
    asked = []
    with_gpus(monkeypatch, 1, cores=8, free_bytes=80e9)
    monkeypatch.setattr(trial_steps, "largest_on_gpu", lambda p, n, device: asked.append(n) or 4)
    edit(here / "params.yaml", "  processes: 0", "  processes: 1")
    edit(here / "params.yaml", "  micro_batch: 0", f"  micro_batch: {micro_batch}")
    found = findings()["micro-batch"]
    assert asked == [24]
    assert found.ok is ok
    assert found.text.startswith("4 of a process's 24 clips")
    assert (f"runtime.micro_batch {offered} would" in found.text) is (micro_batch != 4)


def test_few_shot_epochs_are_as_long_as_full_ones(here):
    edit(here / f"recipes/{NAME}.yaml", "zero_shot: []", "zero_shot: [], shots: 4")
    # 8 picked videos, repeated 50 // 8 = 6 times
    assert "50 training videos, 48 clips an epoch, 2 steps" in findings()["steps"].text


def test_what_the_run_will_use_is_told(here):
    assert findings()["machine"].text == (
        "processes 2, workers 1, micro_batch 4, no GPU "
        "(chosen for this machine: processes, workers, micro_batch)"
    )
    edit(here / "params.yaml", "workers: 0", "workers: 3")
    edit(here / "params.yaml", "micro_batch: 0", "micro_batch: 6")
    text = findings()["machine"].text
    assert text.startswith("processes 2, workers 3, micro_batch 6, no GPU (chosen")
    assert findings()["batch"].text == "24 clips a step = 2 processes x 2 micro-batches of 6"


def test_a_gpu_machine_is_used_without_an_edit(here, monkeypatch):
    with_gpus(monkeypatch, 8, cores=64, free_bytes=22e9)
    recipe = here / f"recipes/{NAME}.yaml"
    edit(recipe, "batch_size: 24", "batch_size: 256, precision: fp16")
    recipe.write_text(recipe.read_text() + "  model: {arch: ViT-B/16, input_px: 224}\n")
    all_findings = findings()
    text = all_findings["machine"].text
    assert text.startswith("processes 8, workers 8, micro_batch 32, 8 GPUs (chosen")
    assert all_findings["batch"].text == "256 clips a step = 8 processes x 1 micro-batches of 32"
    assert all_findings["GPU memory"].ok
    assert "32 clips of 0.53 GB" in all_findings["GPU memory"].text
    edit(here / "params.yaml", "micro_batch: 0", "micro_batch: 64")
    assert findings()["GPU memory"].ok, "no more than the 32 clips of its share"
    edit(here / "params.yaml", "processes: 0", "processes: 4")
    finding = findings()["GPU memory"]
    assert finding.ok is False
    assert "runtime.micro_batch 33 would fit" in finding.text


def test_the_authors_memory_stands_beside_the_estimate(here):
    assert "authors' memory" not in findings()
    path = here / f"recipes/{NAME}.yaml"
    edit(path, "gpu_hours: 3", "authors: {config_gpus: 8, memory_gb: 6.5}")
    text = findings()["authors' memory"].text
    assert "6.5 GB on each of 8 GPUs, for 3 clips" in text
    assert "about 1.5 GB here" in text
    edit(path, "batch_size: 24", "batch_size: 24, epochs: 0")
    assert "authors' memory" not in findings()


def test_unknown_gpu_hours_are_not_called_none(here):
    path = here / f"recipes/{NAME}.yaml"
    assert findings()["GPU hours"].text.startswith("about 3 ")
    edit(path, "gpu_hours: 3\n", "")
    assert findings()["GPU hours"].text.startswith("not known")
    edit(path, "batch_size: 24", "batch_size: 24, epochs: 0")
    assert findings()["GPU hours"].text == "none for training"


def test_more_processes_than_gpus_are_told(here, monkeypatch):
    with_gpus(monkeypatch, 2, cores=8, free_bytes=22e9)
    edit(here / "params.yaml", "processes: 0", "processes: 3")
    assert missing() == [findings()["machine"].text]
    assert "runtime.processes: found 3; allowed: 1 to 2" in findings()["machine"].text


def test_a_tag_is_looked_up_in_the_folder_of_weights(here, monkeypatch):
    def found() -> tuple[bool | None, str]:
        params = replace(load_params("params.yaml"), {"model.arch": "ViT-B/32", **tag})
        finding = next(check.weights_findings(params, load_recipe(NAME)[0]))
        return finding.ok, finding.text

    tag = {"model.weights": "openai"}
    ok, text = found()
    assert (ok, "CLIPZOO_WEIGHTS" in text) == (None, True)
    path = here / "clips/timm/vit_base_patch32_clip_224.openai/open_clip_model.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setenv("CLIPZOO_WEIGHTS", str(here / "clips"))
    ok, text = found()
    assert (ok, str(path) in text) == (True, True)
    (here / "clips/ViT-B-32.pt").write_text("broken")
    path.unlink()
    ok, text = found()
    assert (ok, "ViT-B-32.pt has sha256" in text) == (False, True)
    (here / "clips/ViT-B-32.pt").unlink()
    assert "not among the 0 weights files" in found()[1]


def test_a_tag_of_another_architecture_is_missing(here):
    (here / f"recipes/{NAME}.yaml").write_text(RECIPE + "  model: {weights: openai}\n")
    assert missing() == ["openai: ViT-demo-16 has no such tag, and there is no such file"]


def test_fp16_on_a_cpu_is_noted(here):
    recipe = here / f"recipes/{NAME}.yaml"
    assert "precision" not in findings()
    recipe.write_text(RECIPE + "  test: {precision: fp16}\n")
    edit(here / "params.yaml", "device: auto", "device: cpu")
    assert "-S test.precision=fp32" in findings()["precision"].text
