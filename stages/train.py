"""train: records and class embeddings -> models/model.safetensors (torchrun, DDP)."""

from clipzoo.runtime.launch import run_stage


def main() -> None:
    # Imported here: torchrun's own process runs this file too and needs none of it.
    from pathlib import Path

    from dvclive.live import Live

    from clipzoo.config import load_params
    from clipzoo.data.records import videos_sha256
    from clipzoo.files import write_metrics
    from clipzoo.methods.checkpoint import MODEL_FILE
    from clipzoo.runtime.distributed import rank, say, start, world_size
    from clipzoo.train.plan import make_plan
    from clipzoo.train.setup import build_trainer, load_training_records

    params = load_params()
    device = start(params.runtime.device)
    records, num_all, dropped = load_training_records(params)
    plan = make_plan(params, len(records), num_all)
    say(
        f"train: {plan.total_steps} steps ({plan.total_steps / plan.steps_per_epoch:.3g} epochs of "
        f"{plan.num_clips} clips) of {len(records)} videos of {params.data.dataset} "
        f"({len({r.label for r in records})} classes; {len(dropped)} shorter than "
        f"{params.data.min_frames} frames dropped), {params.model.method} {params.model.arch} "
        f"head {params.options['head']}, {params.train.precision}, {world_size()} x {device.type}"
    )
    directory = Path("plots") / params.recipe / "train"
    live = (
        Live(str(directory), dvcyaml=None, save_dvc_exp=False, report=None) if rank() == 0 else None
    )
    trainer = build_trainer(params, device, records, num_all, live)
    metrics = trainer.run()
    if live is not None:
        live.end()
        path = Path("metrics") / params.recipe / "train.json"
        ids = [record.video_id for record in records]
        counts = {"num_videos": len(records), "num_dropped_short": len(dropped)}
        write_metrics(path, {**metrics, **counts, "videos_sha256": videos_sha256(ids)})
    say(f"wrote {MODEL_FILE}, {directory}; next: test")


if __name__ == "__main__":
    run_stage(main, distributed=True)
