"""A page in a headless Chromium, over the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/).

with open_page(path, width=400) as page:
    assert page.complaints == []
"""

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import pytest

_ANSWERS_WITHIN_S = 120.0
_HEIGHT_PX = 1000
# Chromium wants its pipes at descriptors 3 and 4, where either may lie already.
_LAUNCHER = (
    "import fcntl, os, sys\n"
    "away = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]\n"
    "os.dup2(away[0], 3), os.dup2(away[1], 4)\n"
    "os.execvp(sys.argv[3], sys.argv[3:])"
)
# Without a sandbox, because root has none; the pages are our own files.
_FLAGS = (
    *(
        "--headless",
        "--hide-scrollbars",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
    ),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
)


@cache
def chromium() -> str:
    """The program. Skips the test, saying so, where there is none that starts."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    # Some systems have a stand-in that only says where to get it.
    if subprocess.run([found, "--version"], capture_output=True, timeout=_ANSWERS_WITHIN_S).returncode:
        pytest.skip(f"{found} does not start")
    return found


class Page:
    """A page that has been loaded. `complaints`: console messages, exceptions, and what its policy refused."""

    def __init__(self, commands: BufferedWriter, answers: BufferedReader) -> None:
        self._commands, self._answers = commands, answers
        self._received = bytearray()
        self._ids = itertools.count(1)
        self._session: str | None = None
        self._deadline_s = time.monotonic() + _ANSWERS_WITHIN_S
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._loaded = False

    def load(self, path: Path, width: int, *, dark: bool) -> None:
        """Open a file in a window of this width."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=_HEIGHT_PX, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._receive()

    def value(self, expression: str) -> Any:
        """What a JavaScript expression says about the page. The page's policy does not bind it."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self) -> bytes:
        """The whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """The result of a command; what happens meanwhile is noted."""
        number = next(self._ids)
        message: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._receive()).get("id") != number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        assert time.monotonic() < self._deadline_s, "Chromium takes too long"
        while (end := self._received.find(b"\0")) < 0:
            part = self._answers.read1()
            assert part, "Chromium has ended"
            self._received += part
        message: dict[str, Any] = json.loads(self._received[:end])
        del self._received[: end + 1]
        self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        said = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(said["request"]["url"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                self.complaints.append(json.dumps(said))
            case "Page.javascriptDialogOpening":
                self.complaints.append(f"dialog: {said['message']}")


@contextmanager
def open_page(path: Path, width: int = 1280, *, dark: bool = False) -> Iterator[Page]:
    """The file at `path`, loaded in a Chromium of its own with an empty profile."""
    program = chromium()
    commands_read, commands_write = os.pipe()
    answers_read, answers_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        launcher = [sys.executable, "-c", _LAUNCHER, str(commands_read), str(answers_write)]
        process = subprocess.Popen(
            [*launcher, program, *_FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(commands_read, answers_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands_read)
        os.close(answers_write)
        with open(commands_write, "wb") as commands, open(answers_read, "rb") as answers:
            try:
                page = Page(commands, answers)
                page.load(path, width, dark=dark)
                yield page
                # What was said until now comes before the answer.
                page.value("0")
            finally:
                process.kill()
                process.wait()
