"""What a picture shows, as a caption: `a picture of a micah character, short red hair, tan skin, red background`."""

from base_models.toon_64.recipe.pictures import Shown

# Extras and expressions stand between hair and clothes, the view comes last: the order the text encoder learned.
_PLAIN = ("glasses", "beard")


def attribute_phrases(shown: Shown) -> list[str]:
    """One phrase for each thing that a picture says about its character, in the order of a caption."""
    phrases = []
    if shown.get("body"):
        phrases.append(f"{shown['body']} body")
    if shown.get("hair") == "bald":
        phrases.append("bald")
    elif shown.get("hairColor"):
        phrases.append(" ".join(filter(None, (shown.get("hair"), shown["hairColor"], "hair"))))
    if shown.get("skin"):
        phrases.append(f"{shown['skin']} skin")
    phrases += [shown[name] for name in _PLAIN if shown.get(name, "none") != "none"]
    if shown.get("hat", "none") != "none":
        phrases.append(" ".join(filter(None, (shown.get("hatColor"), shown["hat"]))))
    phrases += shown["extras"]
    if shown.get("expression"):
        phrases.append(shown["expression"])
    if shown.get("clothes"):
        phrases.append(f"{shown['clothes']} shirt")
    return phrases


def view_phrases(shown: Shown) -> list[str]:
    """How a picture shows its character, in the order of a caption: the background always, else what is unusual."""
    mirrored = ["mirrored"] if shown["mirrored"] else []
    return [f"{shown['background']} background", *filter(None, (shown["size"], shown["tilt"])), *mirrored]


def caption(shown: Shown) -> str:
    """The whole caption of a picture."""
    return ", ".join([f"a picture of a {shown['style']} character", *attribute_phrases(shown), *view_phrases(shown)])
