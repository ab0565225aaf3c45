"""`clipzoo export`, on the folder of a model with random weights; and the example of docs/export.md
in a process without torch."""

import re
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from clipzoo import config
from clipzoo.methods import METHODS
from clipzoo.models.clip import ClipMetadata, build_clip, describe_clip
from clipzoo.models.text import embed_class_names
from clipzoo.serve import export_formats
from clipzoo.serve.folder import FolderConfig, FramesOfVideos, ModelFolder, write_folder
from clipzoo.serve.model import load
from console import run
from tiny import options
from videos import make_video

ARCH, PX, T = "ViT-demo-16", 32, 2
CLASSES = ["a red ring becoming large", "a blue bar", "a green disc becoming dark"]
PAGE = Path(__file__).parents[2] / "docs/export.md"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two model folders, `open` and `closed`."""
    base = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    towers, again = build_clip(ARCH, PX), build_clip(ARCH, PX)
    again.load_state_dict(towers.state_dict())
    templates = ["a video of {}.", "{}"]
    text = embed_class_names(towers, ARCH, CLASSES, templates)
    chosen = options("text4vis")
    about = FolderConfig(
        format=1,
        kind="open",
        method="text4vis",
        options=chosen.model_dump(),
        num_segments=T,
        clip=ClipMetadata.model_validate(describe_clip(towers, ARCH, PX, "random")),
        frames=FramesOfVideos(size=40, quality=2),
        views=config.TestConfig(clips=1, crops=1, dense=False, short_side_px=PX, precision="fp32"),
        templates=templates,
        class_names=CLASSES,
        recipe="mine",
        weights_sha256="",
        version="0",
    )
    method = METHODS["text4vis"].build(towers, chosen, T).eval().requires_grad_(False)
    model = ModelFolder(config=about, method=method, text=text, towers=again)
    write_folder(model, base / "open", "open")
    write_folder(model, base / "closed", "closed")
    return base


@pytest.fixture(scope="module")
def exported(models: Path) -> Path:
    """A folder with mine.onnx and mine.npz, and what the command printed."""
    folder, printed = models / "exported", StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        assert run(patch, "export", models / "closed", folder / "mine.onnx") == 0
    (folder / "printed.txt").write_text(printed.getvalue())
    return folder


@pytest.fixture
def here(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_says_what_it_wrote(exported: Path):
    out, graph = (exported / "printed.txt").read_text(), re.escape(str(exported / "mine"))
    found = re.fullmatch(
        rf"wrote {graph}\.onnx, {graph}\.npz: text4vis, ViT-demo-16, 3 classes; the largest "
        r"difference .* is (\S+)\n",
        out,
    )
    assert found is not None, out
    assert float(found[1]) < 1e-5
    files = {path.name for path in exported.iterdir()}
    assert files == {"mine.npz", "mine.onnx", "printed.txt"}


@pytest.mark.slow
def test_other_classes_have_the_text_that_predict_embeds(models: Path, here: Path, monkeypatch):
    (here / "mine.txt").write_text("juggling balls\n\nknitting, a scarf\n")
    assert run(monkeypatch, "export", models / "open", "a.pt2", "--classes", "mine.txt") == 0
    names = ["juggling balls", "knitting, a scarf"]
    text = np.load("a.npz")
    assert text["class_names"].tolist() == names
    expected = load(models / "open", "cpu").class_text(names).class_embeddings
    np.testing.assert_allclose(text["class_embeddings"], expected, atol=1e-6)
    about = {export_formats.METADATA_FILE: ""}
    torch.export.load("a.pt2", extra_files=about)
    assert '"knitting, a scarf"' in about[export_formats.METADATA_FILE]


def test_the_example_runs_without_torch(models: Path, exported: Path, tmp_path: Path):
    """It classifies a video as predict does, but for the way in which OpenCV resizes."""
    for name in ("mine.onnx", "mine.npz"):
        (tmp_path / name).symlink_to(exported / name)
    video = make_video(tmp_path / "juggling.mp4", 24, size="120x72")
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    ending = "\nimport sys\nassert not {'torch', 'clipzoo'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", example + ending], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    name, probability, cosine = done.stdout.strip().rsplit(" ", 2)
    found = load(models / "closed", "cpu").predict(video, top=3)
    assert name == found.labels[0]
    assert float(probability) == pytest.approx(found.probabilities[0], abs=0.1)
    assert float(cosine) == pytest.approx(found.cosines[0], abs=0.02)
    assert found.cosines[0] - found.cosines[1] > 0.02  # another class would be seen


def test_the_same_frames_have_the_scores_of_predict(models: Path, exported: Path, tmp_path: Path):
    """With the frames that the pipeline makes of the file, and not those of OpenCV."""
    video = make_video(tmp_path / "a.mkv", 24, size="120x72")
    model = load(models / "closed", "cpu")
    found = model.predict(video, top=3)
    assert len(found.frames) == T
    text = dict(np.load(exported / "mine.npz"))
    names = text.pop("class_names").tolist()
    frames = model.pictures(video, found.frames)[None].numpy()  # [1, T, 3, S, S]
    path = str(exported / "mine.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    probabilities, cosines, embedding = session.run(None, {"frames": frames, **text})
    order = [names.index(label) for label in found.labels]
    np.testing.assert_allclose(np.array(probabilities)[0, order], found.probabilities, atol=1e-5)
    np.testing.assert_allclose(np.array(cosines)[0, order], found.cosines, atol=1e-5)
    np.testing.assert_allclose(np.array(embedding)[0], model.embed(video), atol=1e-5)


@pytest.mark.slow
def test_large_weights_lie_beside_the_graph(models: Path, here: Path, monkeypatch, capsys):
    """A file of ONNX ends at 2 GB; here all weights count as large."""
    save = torch.onnx.ONNXProgram.save
    monkeypatch.setattr(
        torch.onnx.ONNXProgram, "save", lambda self, path: save(self, path, external_data=True)
    )
    assert run(monkeypatch, "export", models / "closed", "mine.onnx") == 0
    assert "wrote mine.onnx, mine.npz, mine.onnx.data: " in capsys.readouterr().out
    size = Path("mine.onnx").stat().st_size
    assert Path("mine.onnx.data").stat().st_size > 5 * size
    onnxruntime.InferenceSession("mine.onnx", providers=["CPUExecutionProvider"])


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "a.pt2"], "nowhere/config.json"),
        (["{open}", "a.txt"], "a.txt: found the ending '.txt'; allowed: OUT.onnx or OUT.pt2"),
        (["{open}"], "found a folder; allowed: OUT.onnx or OUT.pt2"),
        (["a.pt2"], "the last `dvc repro` is used: run that, or give a model folder"),
        (["{open}", "a.pt2", "--class", "a, a"], "class name 'a' appears more than once"),
        (["{open}", "a.pt2", "--class", ""], "class name is empty"),
        (["{open}", "a.pt2", "--classes", "nowhere.txt"], "nowhere.txt"),
        (["{open}", "a.pt2", "--classes", "empty.txt"], "empty.txt: found no class"),
        (["{closed}", "a.pt2", "--class", "a, b"], "the model is closed, without a text tower"),
        (
            ["openclip:ViT-B-32", "a.pt2", "--class", "a"],
            "found no architecture and tag; allowed: openclip:ARCH",
        ),
        (["openclip:ViT-B-32/laion", "a.onnx", "--class", "a"], "found the tag 'laion'"),
        (
            ["openclip:ViT-X-99/openai", "a.onnx", "--class", "a"],
            "found the architecture 'ViT-X-99'",
        ),
        (["openclip:ViT-B-32/openai", "a.onnx"], "class_names: found none, and the model has none"),
        (["{open}", "file/a.pt2"], "file/a.pt2: file is a file; allowed: a file in"),
    ],
)
def test_wrong_arguments_are_errors(
    arguments: list[str], message: str, models: Path, here: Path, project, monkeypatch, capsys
):
    """`project`: a folder without a run."""
    write("empty.txt", "\n")
    write("file", "not a folder")
    given = [a.format(open=models / "open", closed=models / "closed") for a in arguments]
    assert run(monkeypatch, "export", *given) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not list(Path().glob("a.*"))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["m", "a.pt2", "--class", "a", "--classes", "b"],
        ["m", "a.pt2", "--zero-shot", "--trained"],
    ],
)
def test_wrong_usage_shows_the_usage(arguments: list[str], here: Path, monkeypatch, capsys):
    assert run(monkeypatch, "export", *arguments) == 2
    assert "usage: clipzoo export" in capsys.readouterr().err
