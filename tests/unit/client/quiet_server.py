"""An inference service in a process of its own, with the services' own channel options, that lets its callers wait.

`quiet_server.py SECONDS`: says its port, then `asked` for each call, and answers it after that many seconds.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from fake_inference import FakeInference

from personae.v1 import inference_pb2_grpc
from service_kit import serving


def wait(context: grpc.ServicerContext) -> None:
    """Be quiet."""
    print("asked", flush=True)
    threading.Event().wait(float(sys.argv[1]))


def main() -> None:
    """Serve until somebody ends the process."""
    service = FakeInference()
    service.instead["Generate"] = [wait]
    server = grpc.server(ThreadPoolExecutor(2), options=serving._OPTIONS)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
