"""train: train the run's method on the training videos of its dataset.

    one machine        dvc repro train                     or  PYTHONPATH=src python stages/train.py
    several machines   the same line on each of them, after
                       export NNODES=2 NODE_RANK=0 RDZV_ENDPOINT=host0:29500    (docs/clusters.md)

Prints the set of videos and a progress bar with loss, rate and speed, and writes
models/model.safetensors, metrics/<recipe>/train.json and curves in plots/<recipe>/train/. After a
kill, the same command continues from the last resume point.
"""

from clipzoo.runtime.launch import run_stage


def main() -> None:
    # Imported here, because the launching process runs this file too and needs none of it.
    from clipzoo.clips.selection import training_records
    from clipzoo.config import load_params
    from clipzoo.data.records import videos_sha256
    from clipzoo.files import write_metrics
    from clipzoo.methods.memory.start import start_run
    from clipzoo.paths import MODEL_FILE, metrics_file
    from clipzoo.runtime.distributed import rank, say, world_size
    from clipzoo.runtime.machine import environment
    from clipzoo.runtime.one_run import check_params
    from clipzoo.train.loop import train
    from clipzoo.train.setup import prepare_run
    from clipzoo.train.state import remove_state

    params, device = start_run(load_params(), training=True)
    records = training_records(params)
    run = prepare_run(params, device, records)
    plan = run.plan
    say(
        f"train: {plan.total_steps} steps ({plan.total_steps / plan.steps_per_epoch:.3g} epochs of "
        f"{plan.num_clips} clips) of {len(records.selected)} videos of {params.data.dataset} "
        f"({len({r.label for r in records.selected})} classes; {len(records.dropped)} shorter than "
        f"{params.data.min_frames} frames dropped), {params.model.method} {params.model.arch}, "
        f"{params.train.precision}, {world_size()} x {device.type}"
    )
    metrics = train(run)
    if rank() == 0:
        ids = [record.video_id for record in records.selected]
        about = {
            "num_videos": len(ids),
            "num_dropped_short": len(records.dropped),
            "videos_sha256": videos_sha256(ids),
            "environment": environment(device.type),
        }
        write_metrics(metrics_file(params.recipe, "train"), {**metrics, **about})
        check_params()  # else the state stays, and the training is not lost
        remove_state(run.state_dir)
    say(f"wrote {MODEL_FILE}, {run.log_dir}; next: test")


if __name__ == "__main__":
    run_stage(main, distributed=True)
