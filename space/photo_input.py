"""The input for photos: it hands the visitor's own file over, so that the demo sees what the library would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from facestyle.errors import FacestyleError, ImageError
from facestyle.image import load_image
from space.outputs import delete_later
from space.texts import explain, say

__all__ = ["PhotoInput", "check_photo", "photo_input"]


class PhotoInput(gr.Image):
    """An image component whose value is the path of the file as it was uploaded; `photo_input` makes one.

    Gradio's own would decode the picture, apply its rotation and save it anew; it also fails without advice on files
    that are no pictures.
    """

    is_template = True  # drawn as an Image

    def preprocess(self, payload: ImageData | None) -> str | None:
        """Path of the file."""
        if payload is None:
            return None
        if (payload.url or "").startswith("data:"):
            path = super().preprocess(payload)
            delete_later(Path(path))  # Gradio forgets it
            return str(path)
        return payload.path


def photo_input(**settings: Any) -> PhotoInput:
    """A `PhotoInput`; ``settings`` as of ``gr.Image``."""
    return PhotoInput(type="filepath", image_mode=None, format="png", **settings)


def check_photo(photo: str | None, request: gr.Request) -> dict[str, Any]:
    """Whether a photo can be read; asked before a visitor joins the queue."""
    if photo is None:
        return gr.validate(False, say(request, "no_photo"))
    try:
        load_image(photo)
    except ImageError as error:
        return gr.validate(False, explain(request, error))
    except FacestyleError as error:
        return gr.validate(False, str(error))
    return gr.validate(True, "")
