"""zero_shot: measure the trained model, and the raw CLIP, on the videos of an unseen dataset.

Encodes each video once by each model and measures every protocol of `zero_shot.protocols`.

    one machine     dvc repro zero_shot@NAME
                or  PYTHONPATH=src python stages/zero_shot.py --dataset NAME
    two machines    export NNODES=2 RDZV_ENDPOINT=host0:29500    # on both (docs/clusters.md)
        on host0    NODE_RANK=0 dvc repro --force --single-item zero_shot@NAME
        on host1    NODE_RANK=1 PYTHONPATH=src python stages/zero_shot.py --dataset NAME

Prints the set of videos and a progress bar for each model, and writes
predictions/zero_shot_NAME.{safetensors,parquet}, metrics/<recipe>/zero_shot_NAME.json and
plots/<recipe>/zero_shot_NAME/. With `zero_shot.interpolation` also the curve of mixed weights.
"""

from functools import partial

from clipzoo.runtime.launch import dataset_argument, run_stage


def main() -> None:
    # Imported here, because the launching process runs this file too and needs none of it.
    from clipzoo.clips import selection
    from clipzoo.config import load_params
    from clipzoo.evaluate import interpolation, plots, predictions, protocols, scoring
    from clipzoo.methods import load_model, raw_model
    from clipzoo.methods.memory.start import start_run
    from clipzoo.models.text import load_class_text
    from clipzoo.paths import CLIP_FILE, MODEL_FILE, plots_dir

    dataset, (params, device) = dataset_argument(), start_run(load_params(), training=False)
    name, views = f"zero_shot_{dataset}", params.zero_shot
    text = load_class_text(dataset, params.text.templates)
    videos = selection.whole_set(params, dataset, text.num_classes)
    tuned, raw = load_model(params).for_zero_shot(), raw_model()
    protocol = protocols.describe_zero_shot(views, videos, tuned.test_sampling)
    about = f"{' and '.join(views.protocols)}, {protocol}; {MODEL_FILE} and {CLIP_FILE}"
    scoring.announce(f"zero_shot {dataset}", videos, text, about, params, device)
    inputs = tuned.open_inputs(params, dataset, text)
    clips = inputs.views(videos.records, "whole", clips=views.clips, crops=views.crops)
    tuned_text = scoring.class_text(tuned, text, device)
    scored = scoring.score_set(tuned, clips, tuned_text, name, params=params, device=device)
    scored_raw = scoring.score_set(raw, clips, text, f"raw_{name}", params=params, device=device)
    curve = interpolation.accuracy_curve(params, device, tuned, clips, tuned_text, name)
    if scored is None or scored_raw is None:  # rank 0 has the whole set, and writes
        return
    described = predictions.describe_set(videos, protocol)
    evaluate = partial(
        protocols.evaluate_zero_shot,
        protocols=views.protocols,
        splits=predictions.read_splits(videos),
        listed=predictions.read_listed(videos),
        num_missing=int(described["num_expected"]) - int(described["num_videos"]),
    )
    results = predictions.Results(
        name=name,
        videos=videos,
        described=described,
        evaluation=evaluate(scored),
        raw=evaluate(scored_raw),
        interpolated=interpolation.describe_choice(curve, plots_dir(params.recipe, name)),
    )
    folder = predictions.write_results(results, params, device)
    plots.draw_examples(clips, results.tensors(), text.class_names, folder)


if __name__ == "__main__":
    run_stage(main, distributed=True)
