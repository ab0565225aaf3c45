"""prepare_clip: put the CLIP that all later stages read at models/clip.safetensors."""

from clipzoo.config import load_params
from clipzoo.demo.pretraining import caption_tokens, pretrain, pretrain_budget, retrieval
from clipzoo.launch import run_stage
from clipzoo.metrics import write_metrics
from clipzoo.models.clip import CLIP_FILE, build_clip, input_size, num_parameters, save_clip


def main() -> None:
    params = load_params()
    arch, side = params.model.arch, input_size(params.model.arch, params.model.input_px)
    budget = pretrain_budget(arch, params.demo)
    rounded = f" (rounded up from {params.model.input_px})" if side != params.model.input_px else ""
    print(
        f"prepare_clip: {arch} at {side} px{rounded}, stand-in weights by {budget.steps} steps of "
        f"{budget.batch} stills, seed {params.seed}",
        flush=True,
    )
    import torch

    torch.manual_seed(params.seed)
    model = build_clip(arch, side)
    tokens = caption_tokens(model, arch, params.text.templates)
    loss = pretrain(model, tokens, side, budget, params.seed)
    save_clip(model, CLIP_FILE, arch=arch, input_px=side, source=params.model.weights)
    values = retrieval(model, tokens, side, params.seed)
    path = f"metrics/{params.recipe}/clip.json"
    write_metrics(path, {"loss": loss, **values, "num_parameters": num_parameters(model)})
    print(f"wrote {CLIP_FILE}, {path}; next: embed_labels")


if __name__ == "__main__":
    run_stage(main)
