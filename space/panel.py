"""The left column: the photo, the people to try, the styles, and the faces that were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from facestyle import PreparedPhoto
from space.engine import Engine
from space.examples import OPENING_STYLE, people, style_thumbnail
from space.outputs import faces_drawn, save
from space.photo_input import PhotoInput, photo_input
from space.texts import say, text

__all__ = ["CUTS", "Panel", "build_panel", "found", "toggled", "visitor_of"]

CUTS: Mapping[str, Mapping[str, Any]] = {
    "find": {}, "center": {"on_no_face": "center"}, "aligned": {"aligned": True},
}  # fmt: skip
"""How faces may be cut out of the photo, and the options of the library for it."""


@dataclass(frozen=True)
class Panel:
    """The column's components that tabs read or change.

    Attributes:
        photo: path of the visitor's photo.
        style: name of the style.
        styles: the gallery in which it is picked.
        thumbnails: what that shows: files and titles.
        message: what is wrong with the photo, in words.
        cutting: holds the next one; opened where no face is found.
        cut: one of `CUTS`.
        faces: picture of the faces found.
        chosen: numbers of the faces to stylize, from 0.
        faces_group: holds both; seen when there are several faces.
    """

    photo: PhotoInput
    style: gr.State
    styles: gr.Gallery
    thumbnails: Sequence[tuple[str, str]]
    message: gr.Markdown
    cutting: gr.Accordion
    cut: gr.Radio
    faces: gr.Image
    chosen: gr.CheckboxGroup
    faces_group: gr.Group

    @property
    def found(self) -> list[Any]:
        """Components that `found` gives values for."""
        return [self.faces_group, self.faces, self.chosen]


def visitor_of(request: gr.Request | None) -> str:
    """The browser session of a call."""
    session = None if request is None else request.session_hash
    return session or "nobody"


def build_panel(engine: Engine) -> Panel:
    """Lay the column out."""
    opening = OPENING_STYLE if OPENING_STYLE in engine.styles else engine.styles[0]
    photos = people()
    style = gr.State(opening)
    photo = photo_input(
        value=str(photos[0]), label=text("photo"), sources=["upload", "webcam", "clipboard"],
        height=300, elem_id="photo", alt_text=text("photo_alt"), buttons=[],
    )  # fmt: skip
    message = gr.Markdown(visible=False, elem_id="photo-message", elem_classes="advice")
    with gr.Accordion(text("cut"), open=False, elem_id="cutting") as cutting:
        cut = gr.Radio(
            [(text(f"cut_{name}"), name) for name in CUTS], value="find", show_label=False,
            label=text("cut"), elem_id="cut", container=False,
        )  # fmt: skip
    gr.Markdown(text("people"), elem_classes="heading")
    gallery = gr.Gallery(
        [str(path) for path in photos], show_label=False, columns=len(photos), rows=1, height="auto",
        allow_preview=False, object_fit="cover", elem_id="people", elem_classes="strip", buttons=[],
        interactive=False,
    )  # fmt: skip
    thumbnails = [
        (str(style_thumbnail(name) or photos[0]), name.replace("-", " ").title())
        for name in engine.styles
    ]
    gr.Markdown(text("style"), elem_classes="heading")
    styles = gr.Gallery(
        thumbnails, show_label=False, columns=min(5, len(thumbnails)), height="auto", allow_preview=False,
        object_fit="cover", elem_id="styles", elem_classes="strip",
        selected_index=engine.styles.index(opening), buttons=[], interactive=False,
    )  # fmt: skip
    with gr.Group(visible=False, elem_id="faces-group") as faces_group:
        gr.Markdown(text("faces"), elem_classes="heading inside")
        faces = gr.Image(
            show_label=False,
            format="png",
            interactive=False,
            elem_id="faces",
            buttons=[],
            alt_text=text("faces_alt"),
        )
        chosen = gr.CheckboxGroup(
            [],
            label=text("faces_chosen"),
            show_label=False,
            interactive=True,
            elem_id="chosen",
            type="value",
        )
    gr.Markdown(text("consent"), elem_classes="fine-print")

    def take(event: gr.SelectData) -> str:
        return str(photos[event.index])

    gallery.select(
        take, None, photo, queue=False, show_progress="hidden", api_visibility="private", trigger_mode="multiple",
    )  # fmt: skip
    return Panel(
        photo, style, styles, thumbnails, message, cutting, cut, faces, chosen, faces_group
    )


def found(request: gr.Request, prepared: PreparedPhoto, chosen: Sequence[int] | None) -> list[Any]:
    """Values of `Panel.found`: the faces of a photo, all of them chosen when ``chosen`` is None."""
    count = len(prepared.codes)
    numbers = list(range(count)) if chosen is None else list(chosen)
    if count < 2:
        return [gr.update(visible=False), None, gr.update(choices=[], value=[])]
    picture, _ = faces_drawn(prepared.photo, prepared.faces, numbers)
    choices = [(say(request, "face", number=i + 1), i) for i in range(count)]
    return [
        gr.update(visible=True), save(picture, "faces"), gr.update(choices=choices, value=numbers),
    ]  # fmt: skip


def toggled(
    prepared: PreparedPhoto, chosen: Sequence[int], point: tuple[float, float]
) -> list[int]:
    """The chosen faces after a click on the picture of faces, which concerns the one nearest to it."""
    _, scale = faces_drawn(prepared.photo, prepared.faces, chosen)

    def distance(i: int) -> float:
        face = prepared.faces[i]
        assert face is not None
        left, upper, right, lower = (value * scale for value in face.box)
        return (point[0] - (left + right) / 2) ** 2 + (point[1] - (upper + lower) / 2) ** 2

    nearest = min((i for i, face in enumerate(prepared.faces) if face is not None), key=distance)
    return sorted(set(chosen) ^ {nearest})
