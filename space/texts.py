"""What the demo says, in English, German and Spanish."""

from __future__ import annotations

import gradio as gr

from facestyle.errors import FacestyleError
from space.translations import ENGLISH, GERMAN, SPANISH

__all__ = ["I18N", "LANGUAGES", "explain", "say", "text"]

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


def explain(request: gr.Request | None, error: FacestyleError) -> str:
    """An error with advice in the visitor's language; in English, facestyle's own words."""
    language = _language(request)
    key = type(error).__name__
    if language != "en" and key in LANGUAGES[language]:
        return LANGUAGES[language][key]
    path = getattr(error, "path", None)
    words = str(error) if path is None else str(error).removeprefix(f"{path}: ")  # not our folders
    return words[:1].upper() + words[1:]


def _language(request: gr.Request | None) -> str:
    """First of the browser's languages that there is; English otherwise."""
    header = "" if request is None else str(request.headers.get("accept-language", ""))
    for part in header.split(","):
        language = part.strip()[:2].lower()
        if language in LANGUAGES:
            return language
    return "en"
