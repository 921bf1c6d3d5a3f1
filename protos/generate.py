"""Generates client/personae/v1 from protos/personae/v1, or says whether what is committed is stale.

Runs in an environment of its own that holds the oldest protobuf the client supports (`make protos`, `make check`).
"""

import difflib
import sys
import tempfile
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).parent
COMMITTED = PROTOS.parent / "client" / "personae" / "v1"


def generate(into: Path) -> None:
    """Write the generated modules and their type stubs below `into`, in the folder `personae/v1`."""
    plugins = {name: Path(sys.executable).with_name(name) for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")}
    failed = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--proto_path={files('grpc_tools').joinpath('_proto')}",
            *(f"--plugin={name}={path}" for name, path in plugins.items()),
            f"--python_out={into}",
            f"--grpc_python_out={into}",
            f"--mypy_out=quiet:{into}",
            f"--mypy_grpc_out=quiet:{into}",
            *(str(path.relative_to(PROTOS)) for path in sorted((PROTOS / "personae" / "v1").glob("*.proto"))),
        ]
    )
    if failed:
        raise SystemExit("protoc failed")
    services = into / "personae" / "v1"
    for stub in services.glob("*_pb2_grpc.py*"):
        # protoc writes a grpc module for every file; those without a service say nothing.
        if "Stub" not in stub.read_text():
            stub.unlink()


def main(verb: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = {path.name: path.read_text() for path in (Path(scratch) / "personae" / "v1").iterdir()}
    committed = {path.name: path.read_text() for path in COMMITTED.glob("*_pb2*.py*")}
    if verb == "write":
        for name in committed.keys() - fresh.keys():
            (COMMITTED / name).unlink()
        for name, text in fresh.items():
            (COMMITTED / name).write_text(text)
        return
    stale = [name for name in sorted(fresh.keys() | committed.keys()) if fresh.get(name) != committed.get(name)]
    for name in stale:
        diff = difflib.unified_diff(
            committed.get(name, "").splitlines(), fresh.get(name, "").splitlines(), lineterm="", n=0
        )
        print(f"stale: {name}", *list(diff)[:6], sep="\n  ")
    if stale:
        raise SystemExit("run `make protos` and commit what it writes")
    print(f"generated code is fresh (grpcio-tools {distribution('grpcio-tools').version})")


if __name__ == "__main__":
    main(sys.argv[1])
