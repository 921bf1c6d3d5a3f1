"""The contact sheet: labelled panels of captioned pictures, side by side, as one PNG. Pillow only.

Every panel has the same grid, so that the same place in two panels is the same prompt and seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_COLUMNS = 4
_PICTURE_PX = 128
_GAP_PX = 14
_CAPTION_LINES = 3
_CAPTION_PX = 48
_MARGIN_PX = 40
_PANEL_GAP_PX = 48
_TITLE_PX = 64
_HEADING_PX = 62

_PAPER, _INK, _SOFT, _RULE = "#fbfaf7", "#1c1b19", "#6d6a63", "#dcd8cf"


@dataclass(frozen=True)
class Panel:
    """A titled grid of pictures, each with what is written under it."""

    title: str
    subtitle: str
    pictures: Sequence[tuple[Image.Image, str]]


def write(path: Path, title: str, panels: Sequence[Panel]) -> Path:
    """Write the sheet of `panels`, from left to right."""
    rows = max(-(-len(panel.pictures) // _COLUMNS) for panel in panels)
    panel_px = _COLUMNS * (_PICTURE_PX + _GAP_PX) - _GAP_PX
    width = 2 * _MARGIN_PX + len(panels) * (panel_px + _PANEL_GAP_PX) - _PANEL_GAP_PX
    height = 2 * _MARGIN_PX + _TITLE_PX + _HEADING_PX + rows * (_PICTURE_PX + _CAPTION_PX + _GAP_PX) - _GAP_PX

    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN_PX, _MARGIN_PX), title, _INK, ImageFont.load_default(30))
    for place, panel in enumerate(panels):
        left = _MARGIN_PX + place * (panel_px + _PANEL_GAP_PX)
        if place:
            middle = left - _PANEL_GAP_PX // 2
            draw.line((middle, _MARGIN_PX + _TITLE_PX, middle, height - _MARGIN_PX), _RULE, 1)
        _draw_panel(sheet, draw, panel, left, _MARGIN_PX + _TITLE_PX)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "PNG")
    return path


def _draw_panel(sheet: Image.Image, draw: ImageDraw.ImageDraw, panel: Panel, left: int, top: int) -> None:
    draw.text((left, top), panel.title, _INK, ImageFont.load_default(20))
    draw.text((left, top + 28), panel.subtitle, _SOFT, ImageFont.load_default(14))
    font = ImageFont.load_default(12)
    for place, (picture, caption) in enumerate(panel.pictures):
        row, column = divmod(place, _COLUMNS)
        x = left + column * (_PICTURE_PX + _GAP_PX)
        y = top + _HEADING_PX + row * (_PICTURE_PX + _CAPTION_PX + _GAP_PX)
        sheet.paste(_scaled(picture), (x, y))
        draw.rectangle((x - 1, y - 1, x + _PICTURE_PX, y + _PICTURE_PX), outline=_RULE)
        draw.multiline_text((x, y + _PICTURE_PX + 4), _wrapped(caption, font), _SOFT, font, spacing=2)


def _scaled(picture: Image.Image) -> Image.Image:
    """The picture, whole and undistorted, in a square of the sheet."""
    picture = picture.convert("RGB")
    scale = _PICTURE_PX / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    square = Image.new("RGB", (_PICTURE_PX, _PICTURE_PX), _PAPER)
    square.paste(
        picture.resize(size, Image.Resampling.LANCZOS), ((_PICTURE_PX - size[0]) // 2, (_PICTURE_PX - size[1]) // 2)
    )
    return square


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text in lines that fit under a picture; what does not fit ends in an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > _PICTURE_PX:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > _CAPTION_LINES:
        lines[_CAPTION_LINES - 1] += " …"
    return "\n".join(lines[:_CAPTION_LINES])
