"""Imports gRPC with its support of `fork()`, so that a Client that was made before a fork works in the child.

gRPC reads the variable once, while it is imported; without it a child's first calls fail or hang. It is taken back at
once, so that other programs that this one starts do not inherit it. Who imported gRPC earlier, or set the variable,
has decided already.
"""

import os

_VARIABLE = "GRPC_ENABLE_FORK_SUPPORT"

if _VARIABLE not in os.environ:
    os.environ[_VARIABLE] = "1"
    import grpc  # noqa: F401

    del os.environ[_VARIABLE]
