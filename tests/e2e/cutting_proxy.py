"""A TCP proxy that can cut every connection at once, as a network or a restarted server does."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CuttingProxy:
    """Passes bytes on to `target`, from an address of its own."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = ""
        self.cuts = 0

    def cut(self) -> None:
        """End every connection now; new ones are taken."""
        self.cuts += asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)

    async def _cut(self) -> int:
        writers, self._writers = self._writers, set()
        for writer in writers:
            writer.transport.abort()
        return len(writers)

    async def _serve(self, ready: threading.Event, over: asyncio.Event) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await over.wait()
        server.close()
        await self._cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, int(self._port))
        self._writers |= {writer, far_writer}
        await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


@contextmanager
def cutting_proxy(target: str) -> Iterator[CuttingProxy]:
    """A proxy in a thread, gone when the block is left."""
    proxy = CuttingProxy(target)
    ready, over = threading.Event(), asyncio.Event()
    thread = threading.Thread(target=lambda: proxy._loop.run_until_complete(proxy._serve(ready, over)))
    thread.start()
    try:
        assert ready.wait(10)
        yield proxy
    finally:
        proxy._loop.call_soon_threadsafe(over.set)
        thread.join(10)
        proxy._loop.close()
