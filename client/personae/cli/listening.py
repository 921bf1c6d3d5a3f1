"""Who listens on a port of this machine, as far as Linux lets us know."""

from pathlib import Path

_LISTENING = "0A"
_SHOWN = 80


def listener(port: int) -> str:
    """The process, as `pid 12: command line`; where that is somebody else's to know, `another process`."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in inodes for link in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return f"pid {process.name}: {words if len(words) <= _SHOWN else words[:_SHOWN] + '…'}"
        except OSError:
            # It ended in the meantime, or is another user's.
            continue
    return "another process"


def _listening_inodes(port: int) -> list[str]:
    """Of /proc/net/tcp: the address in hexadecimal is the second field, the state the fourth, the inode the tenth."""
    found = []
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.append(fields[9])
    return found
