"""test: encode every validation video under its views, keep what scores it, measure (torchrun)."""

from clipzoo.runtime.launch import run_stage


def main() -> None:
    # Imported here: torchrun's own process runs this file too and needs none of it.
    from functools import partial

    from clipzoo.clips import encoding as inference
    from clipzoo.config import load_params, write_settings
    from clipzoo.data.records import read_list, training_classes
    from clipzoo.evaluate import predictions
    from clipzoo.evaluate.interpolation import VAL_CURVE, accuracy_curve, write_curve
    from clipzoo.evaluate.plots import draw_examples, plot_test
    from clipzoo.evaluate.protocols import describe_views, evaluate_base_to_novel, evaluate_test
    from clipzoo.files import write_metrics
    from clipzoo.methods.checkpoint import MODEL_FILE, load_classifier, load_model
    from clipzoo.models.text import class_embeddings, load_class_text
    from clipzoo.runtime.distributed import say, start, world_size
    from clipzoo.tensors import file_sha256

    params = load_params()
    device = start(params.runtime.device)
    dataset, views, text = params.data.dataset, params.test, load_class_text(params.data.dataset)
    names = text.class_names
    records = read_list(f"lists/{dataset}/val.csv", len(names))
    protocol = describe_views(views.clips, views.crops, views.dense)
    say(
        f"test: {len(records)} videos of {dataset} ({len(names)} classes), {protocol}; "
        f"{MODEL_FILE} ({params.model.arch}), {views.precision}, {world_size()} x {device.type}"
    )
    model, _ = load_model(params)
    classes = training_classes(dataset, params.data.classes, len(names))
    whole = len(classes) == len(names)
    embeddings = load_classifier() if whole else class_embeddings(model, text).detach()
    clips = inference.open_views(
        params, dataset, records, clips=views.clips, crops=views.crops, dense=views.dense
    )
    features = inference.encode_set(
        model, clips, "test", params=params, device=device, dim=embeddings.shape[-1]
    )
    labels = predictions.label_tensor(records, len(names))
    curve = accuracy_curve(params, device, clips, labels, embeddings, "test")
    if features is None:  # rank 0 has them all
        return
    write_curve(curve, VAL_CURVE)
    score = partial(inference.score_videos, model)
    how = {"view_names": clips.view_names, "dense": views.dense, "seed": params.seed}
    probabilities, values = evaluate_test(score, features, labels, embeddings, **how)
    if not whole:
        values |= evaluate_base_to_novel(score, features, labels, embeddings, classes)
    described = predictions.describe_set(records, dataset=dataset, lists=["val"], protocol=protocol)
    source = {"arch": params.model.arch, "model_sha256": file_sha256(MODEL_FILE)}
    tensors = {"features": features, "probabilities": probabilities, "labels": labels}
    predictions.save("test", tensors, records, clips.view_names, {**described, **source})
    path, plots = f"metrics/{params.recipe}/test.json", f"plots/{params.recipe}/test"
    write_metrics(path, {**described, **values})
    plot_test(plots, probabilities, labels, names)
    draw_examples(clips, probabilities, labels, names, f"{plots}/examples.png")
    write_settings(params, plots)
    say(f"wrote predictions/test.*, {path}, {plots}/; next: zero_shot")


if __name__ == "__main__":
    run_stage(main, distributed=True)
