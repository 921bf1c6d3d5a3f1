"""Whether a service says that it serves, by gRPC's health protocol, without its package: two messages of one field.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from typing import Literal

import grpc

from personae.access import Access

Health = Literal["serving", "not serving", "silent", "unreachable", "another service", "no health"]

SERVICES = {"trainer": "personae.v1.TrainerService", "inference": "personae.v1.InferenceService"}
"""What each is called there."""
_METHOD = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"


def health(address: str, service: str, timeout_s: float, access: Access = Access()) -> Health:  # noqa: B008 - frozen
    """What the server at `host:port` says of `service`. Raises OSError for a certificate that cannot be read."""
    credentials, options = access.credentials(), access.options()
    name = service.encode()
    channel = (
        grpc.secure_channel(address, credentials, options) if credentials else grpc.insecure_channel(address, options)
    )
    with channel:
        check = channel.unary_unary(_METHOD, request_serializer=bytes, response_deserializer=bytes)
        try:
            answer = check(b"\x0a" + bytes([len(name)]) + name, timeout=timeout_s)
        except grpc.RpcError as error:
            match error.code():
                case grpc.StatusCode.DEADLINE_EXCEEDED:
                    return "silent"
                case grpc.StatusCode.NOT_FOUND:
                    return "another service"
                case grpc.StatusCode.UNAVAILABLE:
                    return "unreachable"
            return "no health"
    return "serving" if answer == _SERVING else "not serving"
