"""test: encode all views of every validation video, save predictions, measure (torchrun)."""

from clipzoo.runtime.launch import run_stage


def main() -> None:
    # Imported here, because the launching process runs this file too and needs none of it.
    from functools import partial

    from clipzoo.clips import encoding, selection
    from clipzoo.config import load_params
    from clipzoo.data.targets import label_tensor
    from clipzoo.evaluate import predictions
    from clipzoo.evaluate.interpolation import VAL_CURVE, accuracy_curve, write_curve
    from clipzoo.evaluate.plots import draw_examples, plot_test
    from clipzoo.evaluate.protocols import describe_views, evaluate_test, single_view
    from clipzoo.evaluate.provenance import record_provenance
    from clipzoo.files import write_metrics
    from clipzoo.methods import MODEL_FILE, load_model
    from clipzoo.models.text import load_class_text
    from clipzoo.runtime.distributed import say, world_size
    from clipzoo.train.memory import start_run

    params, device = start_run(load_params(), training=False)
    dataset, views = params.data.dataset, params.test
    text = load_class_text(dataset, params.text.templates)
    videos = selection.measured(params, dataset, ["val"], text.num_classes)
    records = videos.records
    share = "" if videos.complete else f", {videos.share} videos"
    protocol = describe_views(views.clips, views.crops, views.dense) + share
    say(
        f"test: {len(records)} videos of {dataset} ({text.num_classes} classes), {protocol}; "
        f"{MODEL_FILE} ({params.model.arch}), {views.precision}, {world_size()} x {device.type}"
    )
    model = load_model(params)
    text, classes = predictions.classified_text(params, model, text)
    how = {"clips": views.clips, "crops": views.crops, "dense": views.dense}
    clips = predictions.open_inputs(params, model, text, "val", records, **how)
    features = encoding.encode_set(model, clips, "test", params=params, device=device)
    labels = label_tensor(records, text.num_classes)
    curve = accuracy_curve(params, device, clips, labels, text, "test")
    training, ids = predictions.score_training_videos(params, model, text, device)
    if features is None:  # rank 0 has them all
        return
    write_curve(curve, VAL_CURVE)
    score = partial(encoding.score_videos, model)
    protocols = {"view_names": clips.view_names, "dense": views.dense, "trained_classes": classes}
    authors = {"authors": model.authors_map, "authors_batch": model.authors_batch}
    probabilities, single, values = evaluate_test(
        score, features, labels, text, **protocols, **authors
    )
    described = predictions.describe_set(records, dataset=dataset, lists=["val"], protocol=protocol)
    tensors = {"features": features, "probabilities": probabilities, "labels": labels, **training}
    tensors |= encoding.saliency(model, single_view(features, clips.view_names), text)
    path, plots = f"metrics/{params.recipe}/test.json", f"plots/{params.recipe}/test"
    provenance = record_provenance(params, device.type, plots)
    about = {"recipe": params.recipe, "arch": params.model.arch, **described, **ids}
    about["model_sha256"] = provenance["model_sha256"]
    predictions.save("test", tensors, records, clips.view_names, text.class_names, about)
    write_metrics(path, {**described, **provenance, **values})
    predictions.write_videos(plots, records, tensors, single)
    plot_test(plots, probabilities, labels, text.class_names)
    draw_examples(clips, tensors, text.class_names, plots)
    say(f"wrote predictions/test.*, {path}, {plots}/; next: zero_shot")


if __name__ == "__main__":
    run_stage(main, distributed=True)
