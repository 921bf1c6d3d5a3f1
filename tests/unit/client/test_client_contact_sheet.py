"""The contact sheet's geometry; its looks are judged by eye."""

from PIL import Image

from personae.cli.contact_sheet import Panel, write


def panel(count, size=(64, 64)):
    colours = [(16 * place, 255 - 16 * place, 100) for place in range(count)]
    return Panel("Title", "subtitle", [(Image.new("RGB", size, colour), "happy, blue") for colour in colours])


def test_three_panels_of_sixteen_make_a_landscape_sheet(tmp_path):
    path = write(tmp_path / "deep" / "sheet.png", "Personae", [panel(16)] * 3)
    with Image.open(path) as sheet:
        assert (sheet.format, sheet.size) == ("PNG", (1838, 952))


def test_a_panel_that_is_short_of_pictures_keeps_the_grid(tmp_path):
    path = write(tmp_path / "sheet.png", "Personae", [panel(16), panel(3)])
    with Image.open(path) as sheet:
        assert sheet.height == 952


def test_pictures_of_any_shape_are_shown_whole(tmp_path):
    path = write(tmp_path / "sheet.png", "Personae", [panel(1, size=(200, 50))])
    with Image.open(path) as sheet:
        assert sheet.height < 952


def test_a_long_caption_ends_within_its_lines(tmp_path):
    long = Panel("Title", "subtitle", [(Image.new("RGB", (64, 64)), "surprised, " * 30)])
    short = Panel("Title", "subtitle", [(Image.new("RGB", (64, 64)), "sad")])
    with (
        Image.open(write(tmp_path / "long.png", "", [long])) as one,
        Image.open(write(tmp_path / "short.png", "", [short])) as other,
    ):
        assert one.size == other.size
