"""Which process stands behind a connection to a loopback port of ours, found by its socket."""

import os
from pathlib import Path

_INODE_FIELD = 9


def process_of(near_port: int, far_port: int) -> int:
    """Process id of whoever holds the connection from 127.0.0.1:`near_port` to `far_port`. Raises LookupError."""
    wanted = f"socket:[{_inode(near_port, far_port)}]"
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.readlink(entry) == wanted for entry in folder.iterdir()):
                return int(folder.parent.name)
        except OSError:
            # It has ended, or is somebody else's.
            continue
    raise LookupError(f"no process holds port {near_port}")


def is_worker(process: int) -> bool:
    """Whether a process is one of our workers; otherwise it is a service, or the test itself."""
    try:
        return b"trainer_service.worker" in Path(f"/proc/{process}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def _inode(near_port: int, far_port: int) -> str:
    local, remote = (f"0100007F:{port:04X}" for port in (near_port, far_port))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == [local, remote]:
            return fields[_INODE_FIELD]
    raise LookupError(f"no connection from port {near_port} to {far_port}")
