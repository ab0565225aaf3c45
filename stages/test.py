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
    from clipzoo.config import load_params
    from clipzoo.evaluate import plots, predictions, protocols, scoring
    from clipzoo.methods.memory.start import start_run
    from clipzoo.paths import MODEL_FILE

    params, device = start_run(load_params(), training=False)
    validation = scoring.open_validation(params)
    model, clips = validation.model, validation.clips
    protocol = protocols.describe_test(params.test, validation.videos, model.test_sampling)
    about = f"{protocol}; {MODEL_FILE}"
    scoring.announce("test", validation.videos, validation.text, about, params, device)
    text = scoring.class_text(model, validation.text, device)
    scored = scoring.score_set(model, clips, text, "test", params=params, device=device)
    training = predictions.score_training_videos(params, model, text, device)
    if scored is None:  # rank 0 has the whole set, and writes
        return
    evaluation = protocols.evaluate_test(
        scored,
        trained_classes=validation.trained_classes,
        dense=params.test.dense,
        authors=model.authors_map,
        authors_batch=model.authors_batch,
    )
    results = predictions.Results(
        name="test",
        videos=validation.videos,
        described=predictions.describe_set(validation.videos, protocol),
        evaluation=evaluation,
        saliency=scoring.saliency(model, scored),
        training=training,
    )
    folder = predictions.write_results(results, params, device)
    plots.plot_test(folder, evaluation.probabilities, scored.labels, text.class_names)
    plots.draw_examples(clips, results.tensors(), text.class_names, folder)


if __name__ == "__main__":
    run_stage(main, distributed=True)
