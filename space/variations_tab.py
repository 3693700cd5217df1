"""Many portraits of one photo (paper section 3.3, multimodal): draw eight, pick one, go on with it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

import gradio as gr
from PIL import Image

from facestyle.errors import FacestyleError
from facestyle.options import MOST_STRENGTH
from space.engine import Engine
from space.outputs import save
from space.panel import CUTS, Panel, visitor_of
from space.result_view import ResultView, photo_name, shown
from space.snippets import Call
from space.stylize_tab import DRAWING, follow_style, keeping, with_message
from space.texts import explain, say, text

__all__ = ["build_variations_tab", "level_choices"]

_COUNT = 8
_SMALL_PX = 384
_SEEDS = 100_000


def level_choices(*levels: int) -> list[tuple[str, int]]:
    """Mixing levels in words."""
    return [(text(f"level_{level}"), level) for level in levels]


def build_variations_tab(engine: Engine, panel: Panel) -> None:
    """Lay the tab out and wire it."""
    gr.Markdown(text("variations_hint"))
    level = gr.Radio(level_choices(3, 6, 9, 12), value=6, label=text("level"), elem_id="level")
    with gr.Row(elem_classes="actions"):
        surprise = gr.Button(text("surprise"), variant="primary", elem_id="surprise")
        draw = gr.Button(text("draw"), elem_id="draw-eight")
        seed = gr.Number(
            0,
            label=text("seed"),
            precision=0,
            minimum=0,
            maximum=2**31,
            elem_id="seed",
            min_width=120,
        )
    gr.Markdown(text("variations"), elem_classes="heading")
    gallery = gr.Gallery(
        show_label=False, columns=4, height="auto", allow_preview=False, format="png",
        elem_id="variations", elem_classes="strip", interactive=False, buttons=[], object_fit="cover",
    )  # fmt: skip
    first, picked, drawn_of = gr.State(0), gr.State(None), gr.State(None)
    with gr.Column(visible=False, elem_id="picked") as block:
        view = ResultView("variation")
        with gr.Row():
            strength = gr.Slider(
                0, MOST_STRENGTH, 1, step=0.05, label=text("strength"), info=text("strength_info"),
                buttons=[],
            )  # fmt: skip
            keep_shape = keeping("keep_shape")
        with gr.Row():
            keep_color, keep_texture = keeping("keep_color"), keeping("keep_texture")
        view.lay_out_codes()

    follow_style(engine, panel.style, keep_shape)
    looks = [level, strength, keep_color, keep_texture, keep_shape]
    outputs = [panel.message, *view.outputs]
    queue = {"concurrency_id": DRAWING, "concurrency_limit": 1, "api_visibility": "private"}

    def draw_all(
        photo: str | None, style: str, chosen: Sequence[int], cut: str, level: int, seed: float | None,
        request: gr.Request, progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008
    ) -> list[Any]:  # fmt: skip
        if photo is None:
            return [gr.update(value=say(request, "no_photo"), visible=True), *[gr.skip()] * 5]
        visitor, way, first = visitor_of(request), CUTS[cut], int(seed or 0)
        try:
            made = engine.variations(
                visitor, photo, style, _COUNT, mixing_level=level, seed=first, faces=_face(chosen),
                progress=True, **way, **engine.closer(visitor, photo, style, **way),
            )  # fmt: skip
        except FacestyleError as error:
            return [gr.update(value=explain(request, error), visible=True), *[gr.skip()] * 5]
        size = (_SMALL_PX, _SMALL_PX)
        pictures = [
            (
                save(one.faces[0].portrait.resize(size, Image.Resampling.LANCZOS), "variation"),
                f"{say(request, 'seed')} {one.seed}",
            )
            for one in made
        ]
        values = gr.update(value=pictures, selected_index=None)
        made_of = (photo, style)
        return [gr.update(visible=False), values, first, None, gr.update(visible=False), made_of]

    def draw_one(
        photo: str | None, style: str, chosen: Sequence[int], cut: str, seed: int | None, level: int,
        strength: float, keep_color: float, keep_texture: float, keep_shape: float, request: gr.Request,
    ) -> list[Any]:  # fmt: skip
        if photo is None or seed is None:
            return [gr.skip()] * len(outputs)
        given = {
            "strength": (strength, 1.0), "keep_color": (keep_color, 0.0), "keep_texture": (keep_texture, 0.0),
            "keep_shape": (keep_shape, 0.0),
        }  # fmt: skip
        options = {name: value for name, (value, usual) in given.items() if value != usual}
        options |= {"mixing_level": level, "seed": seed, **CUTS[cut]}
        face, visitor = _face(chosen), visitor_of(request)
        try:
            began = time.perf_counter()
            options |= engine.closer(visitor, photo, style, **CUTS[cut])
            made = engine.variations(visitor, photo, style, 1, faces=face, **options)
            call = Call(
                style=engine.address_for_people(style), photo=photo_name(photo), way="variations", options=options,
                faces=face if isinstance(face, list) else None,
            )  # fmt: skip
            seconds = time.perf_counter() - began
            values = shown(request, made[0], call, engine.title(style), seconds)
        except FacestyleError as error:
            return with_message(outputs, explain(request, error))
        values[1] = say(request, "picked", seed=seed)
        return [gr.update(visible=False), *values]

    all_inputs = [panel.photo, panel.style, panel.chosen, panel.cut, level, seed]
    all_outputs = [panel.message, gallery, first, picked, block, drawn_of]
    drawing = {**queue, "show_progress_on": [gallery]}
    light = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    drawn = [
        draw.click(draw_all, all_inputs, all_outputs, **drawing),
        surprise.click(lambda: secrets.randbelow(_SEEDS), None, seed, **light).then(
            draw_all, all_inputs, all_outputs, **drawing
        ),
    ]

    def pick(first: int, event: gr.SelectData) -> tuple[int, Any]:
        return first + event.index, gr.update(visible=True)

    one_inputs = [panel.photo, panel.style, panel.chosen, panel.cut, picked, *looks]
    one = {
        **queue,
        "trigger_mode": "always_last",
        "show_progress_on": [view.slider],
        "show_progress": "minimal",
    }
    picking = {**light, "trigger_mode": "multiple"}
    gallery.select(pick, first, [picked, block], **picking).then(
        draw_one, one_inputs, outputs, **one
    )
    gr.on([one_.input for one_ in looks], draw_one, one_inputs, outputs, **one)

    def start_anew(
        photo: str | None = None, style: str | None = None, drawn_of: tuple[str, str] | None = None
    ) -> tuple[Any, Any, Any]:
        """No variations yet, unless they are of this very photo and style: the page may tell of a change late."""
        if photo is not None and (photo, style) == drawn_of:
            return gr.skip(), gr.skip(), gr.skip()
        return None, None, gr.update(visible=False)

    anew = [gallery, picked, block]
    for later in (panel.photo.change, *(done.then for done in drawn)):  # both may change meanwhile
        later(start_anew, [panel.photo, panel.style, drawn_of], anew, **light)
    panel.style.change(start_anew, None, anew, **light)


def _face(chosen: Sequence[int]) -> str | list[int]:
    """The largest of the chosen faces."""
    return [min(chosen)] if chosen and min(chosen) > 0 else "largest"
