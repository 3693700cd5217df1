"""What the demo says, in English, German and Spanish."""

from __future__ import annotations

import gradio as gr

from facestyle.errors import FacestyleError
from space.translations import ENGLISH, GERMAN, SPANISH

__all__ = ["I18N", "LANGUAGES", "explain", "own_words", "say", "text"]

LANGUAGES = {"en": ENGLISH, "de": GERMAN, "es": SPANISH}

I18N = gr.I18n(**LANGUAGES)


def text(key: str) -> str:
    """A text that the browser shows in its own language."""
    assert key in ENGLISH, key
    translated: str = I18N(key)
    return translated


def say(request: gr.Request | None, key: str, **values: object) -> str:
    """A text in the visitor's language with values filled in."""
    return LANGUAGES[_language(request)][key].format(**values)


def explain(request: gr.Request | None, error: FacestyleError, of: str = "") -> str:
    """An error with advice that names what the page has, in the visitor's language; else facestyle's own words.

    Args:
        request: the visitor's.
        error: what was wrong.
        of: "reference" where it is about the reference, not the photo.
    """
    texts = LANGUAGES[_language(request)]
    name = type(error).__name__
    for key in (f"{name}_{of}", name):
        if key in texts:
            return texts[key]
    return own_words(error)


def own_words(error: FacestyleError) -> str:
    """What facestyle says of an error, but for where the file lies here."""
    path = getattr(error, "path", None)
    words = str(error) if path is None else str(error).removeprefix(f"{path}: ")
    return words[:1].upper() + words[1:]


def _language(request: gr.Request | None) -> str:
    """First of the browser's languages that there is; English otherwise."""
    header = "" if request is None else str(request.headers.get("accept-language", ""))
    for part in header.split(","):
        language = part.strip()[:2].lower()
        if language in LANGUAGES:
            return language
    return "en"
