#!/usr/bin/env python3
"""Calls a service of which nothing is known but its address: what there is, it is asked itself (gRPC reflection).

Requests and answers are JSON, as with grpcurl; no stub, no .proto file, nothing of Personae is imported.
"""

import argparse
import sys
from collections.abc import Iterator

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

CALL_S = 600.0


class Refused(Exception):
    """The call cannot be made; the text says what to change."""


class Reflected:
    """A server's services, as it describes them itself."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._database = ProtoReflectionDescriptorDatabase(channel)
        self._pool = DescriptorPool(self._database)

    def methods(self) -> Iterator[MethodDescriptor]:
        """Every method of every service that can be described. Raises Refused where reflection is off."""
        try:
            names = sorted(self._database.get_services())
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise Refused(
                    "the server has reflection switched off (PERSONAE_TRAINER_REFLECTION, "
                    "PERSONAE_INFERENCE_REFLECTION): take the contract from protos/ instead"
                ) from None
            raise
        for name in names:
            # Reflection lists itself, and describes itself on few servers.
            if not name.startswith("grpc."):
                yield from self._pool.FindServiceByName(name).methods

    def call(self, full_name: str, request: str) -> Iterator[str]:
        """The answers, as JSON, to `request`, which is one too. Raises Refused, and grpc.RpcError for a failed call."""
        found = [method for method in self.methods() if method.full_name == full_name.replace("/", ".")]
        if not found:
            raise Refused(f"found no method {full_name!r}; without one, all are listed")
        (method,) = found
        if method.client_streaming:
            raise Refused(f"{full_name} takes a stream of requests; this program sends one")
        asked = GetMessageClass(method.input_type)
        try:
            message = json_format.Parse(request, asked(), descriptor_pool=self._pool)
        except json_format.ParseError as error:
            raise Refused(f"{method.input_type.full_name}: {error}") from None
        path = f"/{method.containing_service.full_name}/{method.name}"
        answered = GetMessageClass(method.output_type)
        if method.server_streaming:
            invoke = self._channel.unary_stream(path, asked.SerializeToString, answered.FromString)
            answers = invoke(message, timeout=CALL_S)
        else:
            unary = self._channel.unary_unary(path, asked.SerializeToString, answered.FromString)
            answers = iter([unary(message, timeout=CALL_S)])
        for answer in answers:
            yield json_format.MessageToJson(answer, preserving_proto_field_name=True, descriptor_pool=self._pool)


def main() -> None:
    parser = argparse.ArgumentParser(description="List a server's methods, or call one with a request in JSON.")
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("method", nargs="?", metavar="SERVICE/METHOD")
    parser.add_argument("request", nargs="?", default="{}", metavar="JSON")
    given = parser.parse_args()
    with grpc.insecure_channel(given.address) as channel:
        reflected = Reflected(channel)
        try:
            if given.method is None:
                for method in reflected.methods():
                    print(f"{method.containing_service.full_name}/{method.name}")
                return
            for answer in reflected.call(given.method, given.request):
                print(answer, flush=True)
        except Refused as error:
            sys.exit(str(error))
        except grpc.RpcError as error:
            sys.exit(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main()
