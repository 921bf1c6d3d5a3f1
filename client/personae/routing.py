"""Which of several inference servers is asked: with `adapter_affinity`, the one that most likely holds the adapter.

Every call about an adapter says which in the metadata `personae-adapter`. gRPC's own ring hash (gRFC A42, with the
header of A76) sends equal ones to the same address behind the name, the same for every client; where that does not
answer, the next on the ring is asked, and only its adapters move. A proxy or mesh may hash on the same header.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

HEADER = "personae-adapter"

_SERVICE_CONFIG = {"loadBalancingConfig": [{"ring_hash_experimental": {"requestHashHeader": HEADER}}]}
# gRPC reads it whenever it parses such a service config, and ignores `requestHashHeader` without it.
_SWITCH = "GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY"


def channel_options(adapter_affinity: bool) -> list[tuple[str, Any]]:
    """What the channel needs for it."""
    if not adapter_affinity:
        return []
    os.environ.setdefault(_SWITCH, "true")
    return [("grpc.service_config", json.dumps(_SERVICE_CONFIG))]


def key(adapters: Sequence[str]) -> str:
    """What decides: the first adapter, whatever its version. Empty: any server will do."""
    return adapters[0].partition("/versions/")[0] if adapters else ""


def metadata(routing_key: str) -> tuple[tuple[str, str], ...]:
    """What a call carries for it. A name that no header can hold is left for the server to refuse."""
    if not routing_key or not routing_key.isascii() or not routing_key.isprintable():
        return ()
    return ((HEADER, routing_key),)
