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
    from clipzoo.clips import selection
    from clipzoo.evaluate import interpolation, scoring
    from clipzoo.methods import load_model
    from clipzoo.methods.memory.start import start_run
    from clipzoo.models.text import load_class_text
    from clipzoo.runtime.distributed import rank, say

    params = load_params()
    if not params.zero_shot.interpolation:
        interpolation.write_curve([], interpolation.VAL_CURVE)
        return
    params, device = start_run(params, training=False)
    dataset, views = params.data.dataset, params.test
    text = load_class_text(dataset, params.text.templates)
    records = selection.measured(params, dataset, ["val"], text.num_classes).records
    say(f"interpolation: shares {params.zero_shot.interpolation}, {len(records)} of {dataset}")
    tuned = load_model(params)
    inputs = tuned.open_inputs(params, dataset, text)
    clips = inputs.views(records, "val", clips=views.clips, crops=views.crops, dense=views.dense)
    classes = selection.training_classes(dataset, params.data.classes, text.num_classes)
    text = scoring.class_text(tuned, scoring.trained_text(text, len(classes)), device)
    rows = interpolation.accuracy_curve(params, device, tuned, clips, text, "val")
    if rank() == 0:
        interpolation.write_curve(rows, interpolation.VAL_CURVE)
    say(f"wrote {interpolation.VAL_CURVE}; next: zero_shot")


def interpolates(params: Params) -> bool:
    """Whether there is anything to compute, for which processes are started."""
    return bool(params.zero_shot.interpolation)


if __name__ == "__main__":
    run_stage(main, distributed=interpolates)
