"""prepare_clip: put the CLIP that all later stages read at models/clip.safetensors."""

from clipzoo.runtime.launch import run_stage
from clipzoo.config import Params, load_params
from clipzoo.demo.pretraining import pretrain_budget, stand_in_clip
from clipzoo.files import write_metrics
from clipzoo.models.activation import activation_name
from clipzoo.models.clip import (
    build_clip,
    has_small_budgets,
    input_size,
    num_parameters,
    save_clip,
    uses_quick_gelu,
)
from clipzoo.models.weights import check_unread, load_weights
from clipzoo.paths import CLIP_FILE, METRICS_DIR
from clipzoo.runtime.machine import environment


def main() -> None:
    import torch  # after the import of run_stage, which reports Ctrl-C

    params = load_params()
    arch, weights, input_px = params.model.arch, params.model.weights, params.model.input_px
    activation = params.model.activation
    if weights in ("demo", "random"):
        check_unread(weights, activation)
    side = input_size(arch, input_px)
    rounded = (
        f" (rounded up from {input_px} to a multiple of the patch)" if side != input_px else ""
    )
    print(f"prepare_clip: {arch} at {side} px{rounded}, {_plan(params)}", flush=True)
    metrics: dict[str, float | int | str] = {"input_px": side}
    torch.manual_seed(params.seed)
    if weights == "demo":
        budget = pretrain_budget(arch, params.demo)
        templates = params.text.templates
        model, training_metrics = stand_in_clip(arch, side, templates, budget, params.seed)
        metrics |= training_metrics
    elif weights == "random":
        model = build_clip(arch, side)
    else:
        model = load_weights(arch, weights, side, activation)
    computed = environment("cpu") if weights in ("demo", "random") else ""
    save_clip(model, CLIP_FILE, arch=arch, input_px=side, source=weights, environment=computed)
    path = METRICS_DIR / "clip.json"
    metrics |= {"num_parameters": num_parameters(model), "environment": computed}
    write_metrics(path, metrics)
    towers = activation_name(uses_quick_gelu(model))
    print(f"wrote {CLIP_FILE} ({towers} towers), {path}; next: embed_labels")


def _plan(params: Params) -> str:
    if params.model.weights != "demo":
        return f"weights {params.model.weights}"
    budget = pretrain_budget(params.model.arch, params.demo)
    slow = "; on a CPU, this and later stages take minutes if it is large"
    return (
        f"stand-in weights from {budget.steps} steps of {budget.batch} captioned stills of the "
        f"demo world, seed {params.seed}"
        f"{slow if has_small_budgets(params) else ''}"
    )


if __name__ == "__main__":
    run_stage(main)
