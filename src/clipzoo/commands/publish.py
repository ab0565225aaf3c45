"""`clipzoo publish RECIPE OUT`: the model of the last run as a folder for others, with its card."""

import argparse
from pathlib import Path

from clipzoo.commands.arguments import Commands, add_command
from clipzoo.commands.use import PARAMS_FILE
from clipzoo.config import ConfigError, load_params


def _run(arguments: argparse.Namespace) -> None:
    from clipzoo.serve import hub  # slow: they import torch
    from clipzoo.serve.publishing import SPACE_DIR, publish

    recipe, folder, repository = arguments.recipe, Path(arguments.folder), arguments.push
    if not PARAMS_FILE.exists():
        raise ConfigError(
            f"publish: found no {PARAMS_FILE} in this folder; it writes the model of the last "
            "`dvc repro`: run it where that ran"
        )
    params = load_params(PARAMS_FILE)
    if repository is not None:
        hub.check_push(repository)
    kind = "closed" if arguments.closed else "open"
    files = publish(recipe, folder, params, kind, repository, arguments.space)
    page = [name for name in files if name.startswith(f"{SPACE_DIR}/")]
    own = [name for name in files if name not in page]
    classes = "its own classes" if arguments.closed else "any classes"
    print(f"wrote {folder}: {recipe}, for {classes}; {', '.join(own)}")
    if page:
        print(f"wrote {folder / SPACE_DIR}: a Gradio page, {len(page)} files")
    if repository is None:
        print(f"next: clipzoo predict VIDEO --model {folder}")
        return
    message = f"clipzoo publish {recipe}"
    print(f"uploaded {hub.push(repository, folder, own, message)}")
    if page:
        names = [name.removeprefix(f"{SPACE_DIR}/") for name in page]
        address = hub.push(repository, folder / SPACE_DIR, names, message, space=True)
        print(f"uploaded {address}")
    print(f"next: clipzoo predict VIDEO --model hf:{repository}")


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "publish",
        "write the model of the last run as a folder for others, with a model card",
        (
            "publish demo models/mine",
            "publish demo models/mine --closed",
            "publish demo models/mine --push OWNER/NAME",
        ),
    )
    parser.add_argument("recipe", metavar="RECIPE", help="the recipe whose model it is")
    parser.add_argument("folder", metavar="OUT", help="the folder to write")
    parser.add_argument(
        "--closed", action="store_true", help="without the text tower: its own classes alone"
    )
    parser.add_argument(
        "--space", action="store_true", help="also write OUT/space, a Gradio page for a Space"
    )
    parser.add_argument(
        "--push", metavar="OWNER/NAME", help="upload it to the model hub (needs a token)"
    )
    parser.set_defaults(run=_run)
