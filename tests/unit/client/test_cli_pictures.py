"""Pictures in the terminal: which terminals are shown them and how, and that nothing else ever is."""

import base64
import io
import re

import pytest
from client_fakes import png
from command_process import command, environment, on_a_terminal
from fake_inference import FakeInference
from PIL import Image
from rich.console import Console

from personae.cli.terminal_pictures import Drawn, means

TRUECOLOUR = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}


class Drawing(FakeInference):
    """Its images are pictures."""

    def Generate(self, request, context):
        for message in super().Generate(request, context):
            if message.WhichOneof("kind") == "image":
                message.image.content = png()
            yield message


@pytest.fixture
def inference():
    return Drawing()


def console(environ, **options):
    options = {"force_terminal": True, "width": 80, "height": 24, "_environ": environ} | options
    return Console(file=io.StringIO(), **options)


@pytest.mark.parametrize(
    ("environ", "by"),
    [
        (TRUECOLOUR, "blocks"),
        (TRUECOLOUR | {"KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        (TRUECOLOUR | {"KITTY_WINDOW_ID": "1", "TMUX": "x"}, "blocks"),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}, None),
    ],
)
def test_the_environment_says_what_a_terminal_can_do(environ, by):
    assert means(console(environ), environ) == by
    assert means(console(environ, force_terminal=False), environ) is None
    assert means(console(environ, quiet=True), environ) is None


def drawn(picture, by, columns):
    screen = console(TRUECOLOUR)
    screen.print(Drawn(picture, by, columns))
    return screen.file.getvalue()


def test_half_blocks_show_two_pixels_a_cell():
    picture = Image.new("RGB", (1, 2))
    picture.putdata([(255, 0, 0), (0, 0, 255)])
    assert drawn(picture, "blocks", 1) == "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m\n"


def test_a_picture_is_no_wider_and_no_higher_than_the_screen():
    lines = drawn(Image.new("RGB", (640, 640)), "blocks", 400).splitlines()
    assert (len(lines), {line.count("▀") for line in lines}) == (22, {44})
    lines = drawn(Image.new("RGB", (640, 64)), "blocks", 400).splitlines()
    assert (len(lines), {line.count("▀") for line in lines}) == (4, {80})


def test_kitty_is_sent_the_picture_in_chunks_above_the_next_line():
    picture = Image.effect_noise((90, 90), 80).convert("RGB")
    said = drawn(picture, "kitty", 20)
    assert said.startswith("\n" * 10 + "\x1b[10A\x1b7")
    assert said.endswith("\x1b8\x1b[10B")
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", said)
    assert chunks[0][0] == "a=T,f=100,q=2,C=1,c=20,r=10,m=1"
    assert {keys for keys, _ in chunks[1:-1]} == {"m=1"}
    assert chunks[-1][0] == "m=0"
    assert max(len(content) for _, content in chunks) == 4096
    sent = Image.open(io.BytesIO(base64.b64decode("".join(content for _, content in chunks))))
    assert sent.tobytes() == picture.tobytes()


def test_iterm2_is_sent_one_file():
    said = drawn(Image.new("RGB", (4, 2)), "iterm2", 8)
    (content,) = re.findall(r"\x1b]1337;File=inline=1;width=8;height=2;doNotMoveCursor=1:([^\x07]+)\x07", said)
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (4, 2)


def test_generate_draws_on_a_terminal_beside_its_bar(inference_address, tmp_path):
    env = environment(PERSONAE_INFERENCE_ADDRESS=inference_address, **TRUECOLOUR)
    code, said = on_a_terminal("generate", "a", "--seed=3", "--output", tmp_path, env=env)
    assert code == 0
    assert "38;2;254;0;0;48;2;254;0;0m▀" in said or "38;2;255;0;0;48;2;255;0;0m▀" in said
    assert str(tmp_path / "000-3.png") in said.replace("\r\n", "")
    code, said = on_a_terminal("generate", "a", "--seed=3", "--no-pictures", "--output", tmp_path, env=env)
    assert (code, "▀" in said) == (0, False)


def test_a_pipe_is_sent_paths_alone(inference_address, tmp_path):
    env = environment(PERSONAE_INFERENCE_ADDRESS=inference_address, KITTY_WINDOW_ID="1", **TRUECOLOUR)
    with command("generate", "a", "--seed=3", "--output", tmp_path, env=env) as process:
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, f"{tmp_path / '000-3.png'}\n")
