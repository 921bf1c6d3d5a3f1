"""What can happen to a request: the actions of a store proxy's rules."""

import contextlib
import hashlib
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace

from tests.faults.store_proxy import Action, Answer, Exchange, pass_on

_HELD_FOR_AT_MOST_S = 240.0
_SLICES_A_SECOND = 10


def killed_before(exchange: Exchange) -> None:
    """The sender dies (kill -9) and the request never arrives."""
    _kill(exchange)
    exchange.hang_up()


def killed_half_way(exchange: Exchange) -> None:
    """The sender dies when half of the body is on its way."""
    exchange.forward_half()
    killed_before(exchange)


def lost_body(exchange: Exchange) -> None:
    """Of a request with a body the store sees the head alone, as where the sender dies in between."""
    exchange.forward_head()
    exchange.hang_up()


def killed_after(exchange: Exchange) -> None:
    """The sender dies when the store has done what it was asked, before it learns that."""
    exchange.forward()
    killed_before(exchange)


def lost(exchange: Exchange) -> None:
    """The request never arrives."""
    exchange.hang_up()


def answer_lost(exchange: Exchange) -> None:
    """The store does it; the answer never arrives."""
    exchange.forward()
    exchange.hang_up()


def refused(exchange: Exchange) -> None:
    """503 Slow Down."""
    body = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
    exchange.reply(Answer(503, (("Content-Type", "application/xml"),), body if exchange.method != "HEAD" else b""))


def truncated(exchange: Exchange) -> None:
    """The connection ends in the middle of the answer's body."""
    answer = exchange.forward()
    exchange.begin_reply(answer)
    exchange.write(answer.body[: len(answer.body) // 2])
    exchange.hang_up()


def garbled(exchange: Exchange) -> None:
    """The answer has the right length and one wrong bit, in its middle."""
    answer = exchange.forward()
    body = bytearray(answer.body)
    body[len(body) // 2] ^= 1
    exchange.reply(replace(answer, body=bytes(body)))


def slowed(bytes_per_second: int) -> Action:
    """The answer's body trickles in."""

    def trickle(exchange: Exchange) -> None:
        answer = exchange.forward()
        exchange.begin_reply(answer)
        step = max(1, bytes_per_second // _SLICES_A_SECOND)
        for start in range(0, len(answer.body), step):
            # The pace of a slow network is what is simulated here.
            threading.Event().wait(1 / _SLICES_A_SECOND)
            exchange.write(answer.body[start : start + step])

    return trickle


def outage(seconds: float) -> Action:
    """After this request the store is away for so long: connections are refused."""

    def away(exchange: Exchange) -> None:
        pass_on(exchange)
        exchange.hang_up()
        exchange.proxy.be_away_for(seconds)

    return away


def held(until: threading.Event) -> Action:
    """The request is under way until told, and then arrives."""

    def hold(exchange: Exchange) -> None:
        assert until.wait(_HELD_FOR_AT_MOST_S), f"nobody let {exchange.key} go"
        answer = exchange.forward()
        # The sender may have given up.
        with contextlib.suppress(OSError):
            exchange.reply(answer)

    return hold


def frozen_while_held(until: threading.Event, frozen: list[int]) -> Action:
    """The sender is stopped (SIGSTOP) while its request is under way; the request arrives when told."""

    def freeze(exchange: Exchange) -> None:
        frozen.append(exchange.requester)
        os.kill(frozen[-1], signal.SIGSTOP)
        held(until)(exchange)

    return freeze


def one_in(share: float, seed: int) -> Callable[[str, int], bool]:
    """Choose this share of requests, by seed, key and count: the same ones in every run, whatever the order."""

    def chosen(key: str, count: int) -> bool:
        digest = hashlib.sha256(f"{seed}/{key}/{count}".encode()).digest()
        return int.from_bytes(digest[:8]) < share * 2**64

    return chosen


def _kill(exchange: Exchange) -> None:
    os.kill(exchange.requester, signal.SIGKILL)
