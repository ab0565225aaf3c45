"""fuse --recipe NAME: add the run's probabilities and those that a video branch has kept.

    one machine        dvc repro fuse, on a CPU and in seconds

Prints the accuracies of both branches and of their weighted sum, and writes
metrics/<recipe>/fused.json and the curve of the weights in plots/<recipe>/fused/.
"""

from clipzoo.runtime.launch import recipe_argument, run_stage
from clipzoo.config import load_params
from clipzoo.evaluate import fusion
from clipzoo.evaluate.provenance import record_provenance
from clipzoo.files import write_metrics
from clipzoo.methods import check_settings, read_model_metadata
from clipzoo.paths import metrics_file, plots_dir, predictions_file


def main() -> None:
    params, recipe = load_params(), recipe_argument()
    weight = params.fusion.video_weight
    check_settings(read_model_metadata(), params)
    video, kept = fusion.read_kept(recipe)
    attributes = fusion.read_scores(predictions_file("test"), params.recipe)
    fusion.check_model(attributes)
    labels = fusion.same_labels(video, attributes)
    values = fusion.compare(video, attributes, labels, weight)
    curves = {"validation": fusion.weight_curve(video, attributes, labels)}
    marked = {"the recipe's weight": weight}
    if video.training and attributes.training:
        training = (video.training, attributes.training)
        curves["training"] = fusion.weight_curve(*training, fusion.same_labels(*training))
        best = fusion.best_weight(curves["training"], weight)
        values |= fusion.measure_best(video, attributes, labels, best)
        marked["the best in training"] = best
    else:
        print("no best weight: score_training of one of the two runs is false")
    plots, path = plots_dir(params.recipe, "fused"), metrics_file(params.recipe, "fused")
    fusion.plot_weights(plots, curves, marked)
    provenance = record_provenance(params, "cpu", plots)
    provenance = fusion.add_video_branch(provenance, kept)
    write_metrics(path, {**fusion.describe(video, attributes, recipe), **provenance, **values})
    print(
        f"fuse: top-1 {values['fused_top1']:.2f} by {weight:g} of {recipe} "
        f"({values['video_top1']:.2f}) and {1 - weight:g} of {params.recipe} "
        f"({values['attributes_top1']:.2f}); wrote {path}, {plots}/; next: report"
    )


if __name__ == "__main__":
    run_stage(main)
