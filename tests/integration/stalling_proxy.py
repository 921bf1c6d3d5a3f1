"""A proxy before the object store that, while told to, swallows every request for a picture: its answer never comes.

Its one rule: everything else passes, so that leases are renewed while a stage hangs.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PICTURE = re.compile(rb"GET /\S*/images/\S+ HTTP")


class StallingProxy:
    """Passes bytes on to `host:port`, from an address of its own. `stalls`: whether pictures are held back now."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._connections: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self.stalls = True
        self.endpoint = ""

    async def serve(self, ready: threading.Event, over: asyncio.Event) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await over.wait()
        server.close()
        for writers in self._connections.values():
            for writer in writers:
                writer.transport.abort()
        await asyncio.gather(*self._connections)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, int(self._port))
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = (writer, far_writer)
        await asyncio.gather(self._pass(reader, far_writer, True), self._pass(far_reader, writer, False))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_store: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65536):
                # One request at a time is under way on a connection, and each fits into a chunk but for its body.
                if to_store and self.stalls and _PICTURE.match(chunk):
                    continue
                writer.write(chunk)
                await writer.drain()
        writer.close()


@contextmanager
def stalling_proxy(endpoint: str) -> Iterator[StallingProxy]:
    """A proxy before `http://host:port`, in a thread, gone when the block is left."""
    proxy = StallingProxy(endpoint.removeprefix("http://"))
    ready, over, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    thread = threading.Thread(target=lambda: loop.run_until_complete(proxy.serve(ready, over)))
    thread.start()
    try:
        assert ready.wait(10)
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()
