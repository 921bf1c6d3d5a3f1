"""The contact sheet: labelled panels of captioned pictures, side by side, as one PNG. Pillow only.

Every panel has the same grid, so that the same place in two panels is the same prompt and seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_GAP_PX = 14
_CAPTION_LINES = 3
_MARGIN_PX = 40
_PANEL_GAP_PX = 48
# Of one line each; further lines add their own height.
_TITLE_PX, _TITLE_LINE_PX, _TITLE_LINES = 64, 36, 3
_HEADING_PX, _SUBTITLE_LINE_PX, _SUBTITLE_LINES = 62, 18, 3

_PAPER, _INK, _SOFT, _RULE = "#fbfaf7", "#1c1b19", "#6d6a63", "#dcd8cf"


@dataclass(frozen=True)
class Grid:
    """How the pictures of every panel lie: so many side by side, each in a square of that size."""

    columns: int = 4
    picture_px: int = 128
    caption_px: int = 48
    """Height of what is written under each."""


@dataclass(frozen=True)
class Panel:
    """A titled grid of pictures, each with what is written under it."""

    title: str
    subtitle: str
    pictures: Sequence[tuple[Image.Image, str]]


def write(path: Path, title: str, panels: Sequence[Panel], grid: Grid = Grid()) -> Path:
    """Write the sheet of `panels`, from left to right."""
    rows = max(-(-len(panel.pictures) // grid.columns) for panel in panels)
    panel_px = grid.columns * (grid.picture_px + _GAP_PX) - _GAP_PX
    width = 2 * _MARGIN_PX + len(panels) * (panel_px + _PANEL_GAP_PX) - _PANEL_GAP_PX

    font = ImageFont.load_default(30)
    title = _wrapped(title, font, width - 2 * _MARGIN_PX, _TITLE_LINES)
    subtitles = [_wrapped(panel.subtitle, _subtitle_font(), panel_px, _SUBTITLE_LINES) for panel in panels]
    title_px = _TITLE_PX + title.count("\n") * _TITLE_LINE_PX
    heading_px = _HEADING_PX + max(subtitle.count("\n") for subtitle in subtitles) * _SUBTITLE_LINE_PX
    top = _MARGIN_PX + title_px
    height = top + _MARGIN_PX + heading_px + rows * (grid.picture_px + grid.caption_px + _GAP_PX) - _GAP_PX

    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.multiline_text((_MARGIN_PX, _MARGIN_PX), title, _INK, font, spacing=6)
    for place, (panel, subtitle) in enumerate(zip(panels, subtitles, strict=True)):
        left = _MARGIN_PX + place * (panel_px + _PANEL_GAP_PX)
        if place:
            middle = left - _PANEL_GAP_PX // 2
            draw.line((middle, top, middle, height - _MARGIN_PX), _RULE, 1)
        heading_font = ImageFont.load_default(20)
        draw.text((left, top), _wrapped(panel.title, heading_font, panel_px, 1), _INK, heading_font)
        draw.multiline_text((left, top + 28), subtitle, _SOFT, _subtitle_font(), spacing=4)
        _draw_pictures(sheet, draw, panel, grid, left, top + heading_px)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "PNG")
    return path


def _subtitle_font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(14)


def _draw_pictures(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, panel: Panel, grid: Grid, left: int, top: int
) -> None:
    font, side = ImageFont.load_default(12), grid.picture_px
    for place, (picture, caption) in enumerate(panel.pictures):
        row, column = divmod(place, grid.columns)
        x = left + column * (side + _GAP_PX)
        y = top + row * (side + grid.caption_px + _GAP_PX)
        sheet.paste(_scaled(picture, side), (x, y))
        draw.rectangle((x - 1, y - 1, x + side, y + side), outline=_RULE)
        text = _wrapped(caption, font, side, _CAPTION_LINES)
        draw.multiline_text((x, y + side + 4), text, _SOFT, font, spacing=2)


def _scaled(picture: Image.Image, side: int) -> Image.Image:
    """The picture, whole and undistorted, in a square of the sheet."""
    picture = picture.convert("RGB")
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    square = Image.new("RGB", (side, side), _PAPER)
    square.paste(picture.resize(size, Image.Resampling.LANCZOS), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int, most: int) -> str:
    """The text in at most so many lines of that width; what does not fit ends in an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > most:
        lines[most - 1] += " …"
    return "\n".join(_cut(line, font, width_px) for line in lines[:most])


def _cut(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    """The line, without what of it sticks out."""
    kept = line
    while kept and font.getlength(kept) > width_px:
        kept = kept.removesuffix("…")[:-1].rstrip() + "…" if len(kept) > 1 else ""
    return kept
