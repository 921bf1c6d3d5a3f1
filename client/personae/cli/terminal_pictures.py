"""Pictures in a terminal: by Kitty's or iTerm2's protocol where it has one, else as coloured half blocks.

Its one rule: what a terminal can do is told by its environment; it is never asked, since one that does not know the
question prints it, and a slow one answers into the next prompt.

https://sw.kovidgoyal.net/kitty/graphics-protocol/, https://iterm2.com/documentation-images.html
"""

import base64
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from PIL import Image
from rich.color import Color
from rich.console import Console, ConsoleOptions
from rich.segment import ControlType, Segment
from rich.style import Style

from personae.cli.terminal import out

Means = Literal["kitty", "iterm2", "blocks"]

COLUMNS = 32
"""Width of a single picture, in cells; its height follows, of cells that are twice as high as wide."""
_KITTY_CHUNK = 4096


def means(console: Console, environ: Mapping[str, str]) -> Means | None:
    """How pictures can be drawn there; None: not at all."""
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if not console.is_terminal or console.quiet or term == "dumb":
        return None
    # A multiplexer keeps the cells of its screen and drops what it does not know.
    if not (environ.get("TMUX") or environ.get("STY")):
        if "KITTY_WINDOW_ID" in environ or "kitty" in term or "ghostty" in (term + program):
            return "kitty"
        if program in ("iTerm.app", "WezTerm") or environ.get("LC_TERMINAL") == "iTerm2":
            return "iterm2"
    return "blocks" if console.color_system == "truecolor" else None


def draw(console: Console, picture: Callable[[], Image.Image], columns: int = COLUMNS) -> None:
    """Draw the picture where the terminal can show it and stdout is one; else do nothing, not even decode it."""
    by = means(console, os.environ) if out.is_terminal else None
    if by is not None:
        console.print(Drawn(picture(), by, columns))


@dataclass(frozen=True)
class Drawn:
    """A picture as rich prints it, at most `columns` cells wide and no higher than the screen."""

    picture: Image.Image
    means: Means
    columns: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        cells_per_column = self.picture.height / self.picture.width / 2
        columns = min(self.columns, options.max_width, max(1, int((console.height - 2) / cells_per_column)))
        rows = max(1, round(columns * cells_per_column))
        if self.means == "blocks":
            yield from _half_blocks(self.picture, columns, rows)
            return
        # Make room first, so that nothing scrolls while the picture is placed; then back up to where it begins.
        yield from [Segment.line()] * rows
        placed = _kitty(self.picture, columns, rows) if self.means == "kitty" else _iterm2(self.picture, columns, rows)
        yield Segment(f"\x1b[{rows}A\x1b7{placed}\x1b8\x1b[{rows}B", None, [(ControlType.CURSOR_UP, rows)])


def _half_blocks(picture: Image.Image, columns: int, rows: int) -> Iterator[Segment]:
    """Two pixels a cell: the upper one is the colour of the character, the lower one that of its ground."""
    pixels = picture.convert("RGB").resize((columns, 2 * rows), Image.Resampling.LANCZOS).tobytes()

    def colour(column: int, row: int) -> Color:
        place = 3 * (row * columns + column)
        return Color.from_rgb(*pixels[place : place + 3])

    for row in range(rows):
        for column in range(columns):
            yield Segment("▀", Style(color=colour(column, 2 * row), bgcolor=colour(column, 2 * row + 1)))
        yield Segment.line()


def _kitty(picture: Image.Image, columns: int, rows: int) -> str:
    """Transmit and place (a=T) a PNG (f=100), the cursor unmoved (C=1), no answers (q=2)."""
    content = _png(picture)
    chunks = [content[start : start + _KITTY_CHUNK] for start in range(0, len(content), _KITTY_CHUNK)]
    keys = [f"a=T,f=100,q=2,C=1,c={columns},r={rows},"] + [""] * (len(chunks) - 1)
    more = [1] * (len(chunks) - 1) + [0]
    return "".join(f"\x1b_G{key}m={left};{chunk}\x1b\\" for key, left, chunk in zip(keys, more, chunks, strict=True))


def _iterm2(picture: Image.Image, columns: int, rows: int) -> str:
    return f"\x1b]1337;File=inline=1;width={columns};height={rows};doNotMoveCursor=1:{_png(picture)}\x07"


def _png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.convert("RGB").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
