"""test: measure the trained model on the validation videos of its dataset.

Encodes every view of each video, saves what scores them, and measures accuracy and mAP.

    one machine     dvc repro test
                or  PYTHONPATH=src python stages/test.py
    two machines    export NNODES=2 RDZV_ENDPOINT=host0:29500    # on both (docs/clusters.md)
        on host0    NODE_RANK=0 dvc repro --force --single-item test
        on host1    NODE_RANK=1 PYTHONPATH=src python stages/test.py

Prints the set of videos and a progress bar, and writes predictions/test.{safetensors,parquet},
metrics/<recipe>/test.json and pictures in plots/<recipe>/test/.
"""

from clipzoo.runtime.launch import run_stage


def main() -> None:
    # Imported here, because the launching process runs this file too and needs none of it.
    from clipzoo.clips import selection
    from clipzoo.config import load_params
    from clipzoo.evaluate import plots, predictions, protocols, scoring
    from clipzoo.methods import load_model
    from clipzoo.methods.memory.start import start_run
    from clipzoo.models.text import load_class_text
    from clipzoo.paths import MODEL_FILE

    params, device = start_run(load_params(), training=False)
    dataset, views = params.data.dataset, params.test
    text = load_class_text(dataset, params.text.templates)
    videos = selection.measured(params, dataset, ["val"], text.num_classes)
    protocol = protocols.describe_views(views.clips, views.crops, views.dense)
    protocol += "" if videos.complete else f", {videos.share} videos"
    scoring.announce("test", videos, text, f"{protocol}; {MODEL_FILE}", params, device)
    model = load_model(params)
    inputs = model.open_inputs(params, dataset, text)
    clips = inputs.views(
        videos.records, "val", clips=views.clips, crops=views.crops, dense=views.dense
    )
    classes = selection.training_classes(dataset, params.data.classes, text.num_classes)
    text = scoring.class_text(model, scoring.trained_text(text, len(classes)), device)
    scored = scoring.score_set(model, clips, text, "test", params=params, device=device)
    training = predictions.score_training_videos(params, model, text, device)
    if scored is None:  # rank 0 has the whole set, and writes
        return
    evaluation = protocols.evaluate_test(
        scored,
        trained_classes=classes,
        dense=views.dense,
        authors=model.authors_map,
        authors_batch=model.authors_batch,
    )
    results = predictions.Results(
        name="test",
        videos=videos,
        described=predictions.describe_set(videos, protocol),
        evaluation=evaluation,
        saliency=scoring.saliency(model, scored),
        training=training,
    )
    folder = predictions.write_results(results, params, device)
    plots.plot_test(folder, evaluation.probabilities, scored.labels, text.class_names)
    plots.draw_examples(clips, results.tensors(), text.class_names, folder)


if __name__ == "__main__":
    run_stage(main, distributed=True)
