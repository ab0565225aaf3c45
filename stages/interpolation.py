"""interpolation: validation accuracy of weights between the raw and the fine-tuned vision tower.

zero_shot chooses the share of the fine-tuned tower on this curve, so it waits for this stage and
not for test. Where `zero_shot.interpolation` is [], an empty curve is written at once.

    one machine     dvc repro interpolation
                or  PYTHONPATH=src python stages/interpolation.py
    two machines    export NNODES=2 RDZV_ENDPOINT=host0:29500    # on both (docs/clusters.md)
        on host0    NODE_RANK=0 dvc repro --force --single-item interpolation
        on host1    NODE_RANK=1 PYTHONPATH=src python stages/interpolation.py

Prints a progress bar for each share, and writes predictions/interpolation.csv.
"""

from clipzoo.runtime.launch import run_stage
from clipzoo.config import Params, load_params


def main() -> None:
    # Imported here, because the launching process runs this file too and needs none of it.
    from clipzoo.evaluate import interpolation, scoring
    from clipzoo.methods.memory.start import start_run
    from clipzoo.runtime.distributed import rank, say

    params = load_params()
    if not params.zero_shot.interpolation:
        interpolation.write_curve([], interpolation.VAL_CURVE)
        return
    params, device = start_run(params, training=False)
    validation = scoring.open_validation(params)
    about = f"shares {params.zero_shot.interpolation}"
    scoring.announce("interpolation", validation.videos, validation.text, about, params, device)
    text = scoring.class_text(validation.model, validation.text, device)
    rows = interpolation.accuracy_curve(
        params, device, validation.model, validation.clips, text, "val"
    )
    if rank() == 0:
        interpolation.write_curve(rows, interpolation.VAL_CURVE)
    say(f"wrote {interpolation.VAL_CURVE}; next: zero_shot")


def interpolates(params: Params) -> bool:
    """Whether there is anything to compute, for which processes are started."""
    return bool(params.zero_shot.interpolation)


if __name__ == "__main__":
    run_stage(main, distributed=interpolates)
