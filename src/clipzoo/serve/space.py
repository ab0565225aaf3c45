"""The folder of a Space: a page on the hub on which anybody can try a published model.

app.py              the page, written with Gradio
README.md           the settings of the Space, in its front matter
requirements.txt    the packages that app.py needs, in the versions that clipzoo allows
clipzoo/            the source, because no package index has it
"""

import re
import shutil
from importlib.metadata import requires
from pathlib import Path

from huggingface_hub import SpaceCardData

from clipzoo.files import named_disk_errors, replacing
from clipzoo.serve.folder import FolderConfig

PACKAGES = (
    *("ffmpeg-python", "imageio-ffmpeg", "numpy", "open_clip_torch", "opencv-python-headless"),
    *("pillow", "pyarrow", "pydantic", "pyyaml", "ruamel.yaml", "safetensors", "simplejpeg"),
    *("torch", "torchvision", "tqdm"),
)
"""What predicting imports, of the packages that clipzoo depends on."""

APP = '''\
"""A page that classifies a video."""

from pathlib import Path

import gradio as gr

import clipzoo
from clipzoo.data.decoding import VideoError

TOP = 5
MODEL = {model!r}  # a model folder, or hf:OWNER/NAME on the hub


def open_model():
    if MODEL.startswith("hf:"):
        from clipzoo.serve.hub import fetch_folder

        return clipzoo.load(fetch_folder(MODEL))
    return clipzoo.load(Path(__file__).parent / MODEL)


model = open_model()


def classify(video, names=""):
    """The probabilities of the most likely classes, and a sentence on what was seen."""
    if not video:
        raise gr.Error("Choose a video first.")
    classes = [name.strip() for name in names.splitlines() if name.strip()] or None
    try:
        found = model.predict(video, classes, top=TOP)
    except (VideoError, ValueError) as error:
        raise gr.Error(str(error)) from error
    seen = (
        f"{{len(found.frames)}} frames, {{found.seconds[0]:.1f}} to {{found.seconds[-1]:.1f}} s; "
        f"cosine of the first class {{found.cosines[0]:.3f}}. Probabilities are those of the "
        "classes that compete, and sum to 1 for a video of none of them, too."
    )
    return dict(zip(found.labels, found.probabilities, strict=True)), seen


inputs = [gr.Video(label="Video")]
if model.is_open:
    inputs.append(
        gr.Textbox(label="Classes, one a line; empty: those of the training", lines=5)
    )
page = gr.Interface(
    fn=classify,
    inputs=inputs,
    outputs=[gr.Label(label="Classes", num_top_classes=TOP), gr.Textbox(label="Seen")],
    title={title!r},
    flagging_mode="never",
)

if __name__ == "__main__":
    page.launch()
'''


def write_space(folder: Path, about: FolderConfig, repository: str | None) -> None:
    """Write the folder of a Space; equal bytes in one environment.

    Args:
        repository: OWNER/NAME of the model on the hub; None = the model is in the folder above.
    """
    model = f"hf:{repository}" if repository else ".."
    text = repository or "the folder above, which `MODEL` in app.py names"
    card = SpaceCardData(
        title=about.recipe,
        sdk="gradio",
        app_file="app.py",
        models=[repository] if repository else None,
    )
    texts = {
        "app.py": APP.format(model=model, title=about.recipe),
        "README.md": f"---\n{card.to_yaml()}\n---\n\nA page that classifies videos with {text}.\n",
        "requirements.txt": "".join(f"{line}\n" for line in requirements()),
    }
    for name, text in texts.items():
        with replacing(folder / name) as part:
            part.write_text(text, encoding="utf-8")
    package, left_out = Path(__file__).parents[1], shutil.ignore_patterns("__pycache__", "*.part")
    with named_disk_errors(folder):
        shutil.copytree(package, folder / "clipzoo", ignore=left_out)


def requirements() -> list[str]:
    """The packages with clipzoo's own lower bounds, as `numpy>=2`.

    Exact versions might be those of one kind of machine (`+cpu`), or not fit Gradio's own.
    """
    lines = requires("clipzoo") or []
    bounds = {re.split(r"[^\w.-]", line, maxsplit=1)[0]: line for line in lines if ";" not in line}
    return [bounds[name] for name in PACKAGES]
