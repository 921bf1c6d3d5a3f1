"""The command `delete`."""

from typing import Annotated

import typer

import personae
from personae import requests
from personae.cli import json_output
from personae.cli.access import connected
from personae.cli.defaults import TRAINER
from personae.cli.options import Project, Trainer
from personae.cli.terminal import err

_TAKEN_ALONG = {
    "datasets": "its pictures, the trainings on it, the adapters they made, and the images in the bucket of those",
    "trainings": "its events, samples and checkpoints; its adapter stays",
    "adapters": "its files and exports, and the images in the bucket made with it",
}


def delete(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="datasets/ID, trainings/ID, adapters/ID or adapters/ID/versions/N.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    trainer: Trainer = TRAINER,
    project: Project = "default",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON alone: {deleted: NAME}. Needs --yes: it cannot ask.")
    ] = False,
) -> None:
    """Delete something and all that was made from it. There is no way back.

    An adapter without a version means all its versions. What is deleted stops being served within 5 seconds.
    """
    collection, _, own = (name.split("/", 2)[-1] if name.startswith("projects/") else name).partition("/")
    if collection not in _TAKEN_ALONG or not own:
        allowed = f"{', '.join(f'{known}/…' for known in _TAKEN_ALONG)}, or a full name"
        raise personae.InvalidRequest([personae.Violation("NAME", f"found {name!r}; allowed is {allowed}")])
    full_name = name if name.startswith("projects/") else requests.resource_name(project, collection, own)
    if as_json and not yes:
        raise personae.InvalidRequest([personae.Violation("--yes", "needed with --json, which cannot ask")])
    if not yes:
        typer.confirm(f"Delete {full_name} with {_TAKEN_ALONG[collection]}?", abort=True, err=True)
    with connected(context, trainer, project=project) as client:
        match collection:
            case "datasets":
                client.delete_dataset(full_name)
            case "trainings":
                client.delete_training(full_name)
            case _:
                client.delete_adapter(full_name)
    if as_json:
        json_output.write({"deleted": full_name})
    err.print(f"deleted {full_name}")
