"""prepare_clip: put the CLIP that all later stages read at models/clip.safetensors.

    one machine    dvc repro prepare_clip    or  PYTHONPATH=src python stages/prepare_clip.py

Depending on `model.weights`, it trains a small stand-in on stills of the demo world (demo), draws
random weights, reads a file, or looks a pretrained tag up in CLIPZOO_WEIGHTS and in the model hub's
cache before it downloads it: no other stage needs a network. Prints where the weights come from and
which activation they have, and writes metrics/clip.json.
"""

from clipzoo.runtime.launch import run_stage
from clipzoo.config import load_params
from clipzoo.demo.pretraining import pretrain_budget, stand_in_clip
from clipzoo.files import write_metrics
from clipzoo.models.activation import activation_name
from clipzoo.models.architectures import (
    input_size,
    is_elsewhere,
    open_clip_name,
    read_elsewhere,
)
from clipzoo.models.clip import (
    build_clip,
    has_small_budgets,
    num_parameters,
    save_clip,
    uses_quick_gelu,
)
from clipzoo.models.known_pixels import pixels_of_stand_in
from clipzoo.models.pixels import OPENAI, PIXELS, pixels_of
from clipzoo.models.text import check_tokenizer
from clipzoo.models.weights import check_unread, load_weights
from clipzoo.paths import CLIP_FILE, METRICS_DIR
from clipzoo.runtime.machine import environment


def main() -> None:
    import torch  # after the import of run_stage, which reports Ctrl-C

    params = load_params()
    arch, weights, input_px = params.model.arch, params.model.weights, params.model.input_px
    is_loaded = weights not in ("demo", "random")
    setting, pixels = params.model.pixels, OPENAI
    if not is_loaded:
        check_unread(weights, params.model.activation)
        pixels = pixels_of_stand_in(open_clip_name(arch)) if setting == "auto" else PIXELS[setting]
    if is_elsewhere(arch):
        read_elsewhere(arch)  # not what an earlier clip.safetensors keeps
    check_tokenizer(arch)
    side = input_size(arch, input_px)
    rounded = f" (rounded up from {input_px} to a multiple of the patch)"
    title = f"prepare_clip: {arch} at {side} px{rounded if side != input_px else ''}"
    metrics: dict[str, float | int | str] = {"input_px": side}
    torch.manual_seed(params.seed)
    if weights == "demo":
        budget = pretrain_budget(arch, params.demo)
        slow = "; on a CPU, this and later stages take minutes if it is large"
        print(
            f"{title}, stand-in weights from {budget.steps} steps of {budget.batch} captioned "
            f"stills of the demo world, seed {params.seed}"
            f"{slow if has_small_budgets(params) else ''}",
            flush=True,
        )
        towers, training = stand_in_clip(
            arch, side, params.text.templates, budget, params.seed, pixels
        )
        metrics |= training
    else:
        print(f"{title}, weights {weights}", flush=True)
        if is_loaded:
            towers = load_weights(arch, weights, side, params.model.activation, setting)
        else:
            towers = build_clip(arch, side, pixels=pixels)
    computed = "" if is_loaded else environment("cpu")
    save_clip(towers, CLIP_FILE, arch=arch, input_px=side, source=weights, environment=computed)
    metrics |= {"num_parameters": num_parameters(towers), "environment": computed}
    path = METRICS_DIR / "clip.json"
    write_metrics(path, metrics)
    activation = activation_name(uses_quick_gelu(towers))
    print(f"pixels: {pixels_of(towers)} (model.pixels {setting})")
    print(f"wrote {CLIP_FILE} ({activation} towers), {path}; next: embed_labels")


if __name__ == "__main__":
    run_stage(main)
