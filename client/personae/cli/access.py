"""The options before the command that say who calls, and the client that is made with them.

A token is taken from the environment or from a file, never from the command line, which others on the machine can read.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import personae

_TOKEN = "PERSONAE_TOKEN"


def access(
    context: typer.Context,
    token_file: Annotated[
        Path | None,
        typer.Option(envvar="PERSONAE_CLIENT_TOKEN_FILE", help=f"File of the token; else {_TOKEN} is it."),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Use TLS, with the usual authorities.")] = False,
    tls_ca: Annotated[
        Path | None, typer.Option(envvar="PERSONAE_CLIENT_TLS_CA", help="Use TLS, with these authorities (PEM).")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(envvar="PERSONAE_CLIENT_TLS_CERTIFICATE", help="Client certificate (PEM), for mTLS.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar="PERSONAE_CLIENT_TLS_KEY", help="Its private key (PEM).")
    ] = None,
    tls_server_name: Annotated[
        str, typer.Option(envvar="PERSONAE_CLIENT_TLS_SERVER_NAME", help="Name in the server's certificate.")
    ] = "",
) -> None:
    """Train a LoRA adapter from sixteen pictures and generate with it."""
    context.obj = said_before(context.params)


def said_before(params: Mapping[str, Any]) -> dict[str, Any]:
    """What a client is made with, of the options before the command."""
    roots, certificate, key = (params.get(name) for name in ("tls_ca", "tls_certificate", "tls_key"))
    server_name, file = params.get("tls_server_name") or "", params.get("token_file")
    given = params.get("tls") or roots or certificate or key or server_name
    return {
        "tls": personae.Tls(roots, certificate, key, server_name) if given else None,
        # Read before every call, so that it can be rotated meanwhile.
        "token": (lambda: file.read_text().strip()) if file else os.environ.get(_TOKEN) or None,
    }


def connected(
    context: typer.Context, trainer: str | None = None, inference: str | None = None, **options: Any
) -> personae.Client:
    """The client of a command, with what was said before it."""
    return personae.Client(trainer, inference, **context.obj, **options)
