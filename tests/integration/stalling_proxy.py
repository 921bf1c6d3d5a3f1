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
        self.stalls = True
        self.endpoint = ""

    async def serve(self, ready: threading.Event, over: asyncio.Event) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await over.wait()
        server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, int(self._port))
        with contextlib.suppress(ConnectionError):
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

    def serve() -> None:
        loop.run_until_complete(proxy.serve(ready, over))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ready.wait(10)
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()
