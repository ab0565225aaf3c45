"""prepare_clip: put the CLIP that all later stages read at models/clip.safetensors."""

import torch

from clipzoo.config import Params, load_params
from clipzoo.demo.pretraining import is_demo_arch, pretrain_budget, stand_in_clip
from clipzoo.files import write_metrics
from clipzoo.models.clip import (
    CLIP_FILE,
    build_clip,
    input_size,
    num_parameters,
    save_clip,
    uses_quick_gelu,
)
from clipzoo.models.weights import load_weights
from clipzoo.runtime.launch import run_stage


def main() -> None:
    params = load_params()
    arch, weights, input_px = params.model.arch, params.model.weights, params.model.input_px
    side = input_size(arch, input_px)
    rounded = (
        f" (rounded up from {input_px} to a multiple of the patch)" if side != input_px else ""
    )
    print(f"prepare_clip: {arch} at {side} px{rounded}, {_plan(params)}", flush=True)
    metrics: dict[str, float | int] = {"input_px": side}
    torch.manual_seed(params.seed)
    if weights == "demo":
        budget = pretrain_budget(arch, params.demo)
        templates = params.text.templates
        model, training_metrics = stand_in_clip(arch, side, templates, budget, params.seed)
        metrics |= training_metrics
    elif weights == "random":
        model = build_clip(arch, side)
    else:
        model = load_weights(arch, weights, side)
    save_clip(model, CLIP_FILE, arch=arch, input_px=side, source=weights)
    path = "metrics/clip.json"
    write_metrics(path, {**metrics, "num_parameters": num_parameters(model)})
    activation = "QuickGELU" if uses_quick_gelu(model) else "GELU"
    print(f"wrote {CLIP_FILE} ({activation} towers), {path}; next: embed_labels")


def _plan(params: Params) -> str:
    if params.model.weights != "demo":
        return f"weights {params.model.weights}"
    budget = pretrain_budget(params.model.arch, params.demo)
    small = is_demo_arch(params.model.arch, params.demo)
    return (
        f"stand-in weights from {budget.steps} steps of {budget.batch} captioned stills of the "
        f"demo world, seed {params.seed}"
        + ("" if small else "; on a CPU, this and later stages take minutes for a large model")
    )


if __name__ == "__main__":
    run_stage(main)
