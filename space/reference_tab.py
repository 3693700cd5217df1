"""Portraits like a reference (paper section 3.3): it is studied once, then the sliders answer at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import gradio as gr

from facestyle.errors import FacestyleError
from facestyle.options import MOST_STRENGTH
from facestyle.reference import STEPS
from space.engine import Engine
from space.examples import references
from space.panel import CUTS, Panel, visitor_of
from space.photo_input import photo_input
from space.result_view import ResultView, photo_name, shown
from space.snippets import Call
from space.stylize_tab import DRAWING, follow_style, with_message
from space.texts import explain, say, text
from space.variations_tab import level_choices

__all__ = ["build_reference_tab"]


def build_reference_tab(engine: Engine, panel: Panel, shown_first: gr.Radio) -> None:
    """Lay the tab out and wire it; it shows portrait or full picture as the first tab does, until told otherwise."""
    stops: dict[str, threading.Event] = {}
    chosen_since: dict[
        str, str
    ] = {}  # the style of a visitor who changed it while a reference is studied
    gr.Markdown(text("reference_hint"))
    with gr.Row():
        with gr.Column(min_width=260):
            reference = photo_input(
                label=text("reference"), sources=["upload", "clipboard"], height=230, buttons=[],
                elem_id="reference", alt_text=text("reference_alt"),
            )  # fmt: skip
        with gr.Column(min_width=260):
            gr.Markdown(text("references"), elem_classes="heading")
            gallery = gr.Gallery(
                _files(panel.style.value), show_label=False, columns=3, rows=1, height="auto",
                allow_preview=False, object_fit="cover", elem_id="references", elem_classes="strip",
                buttons=[], interactive=False,
            )  # fmt: skip
            whole = gr.Checkbox(label=text("whole"), elem_id="whole")
    message = gr.Markdown(visible=False, elem_id="reference-message", elem_classes="advice")
    with gr.Row():
        follow = gr.Button(text("follow"), variant="primary", elem_id="follow")
        stop = gr.Button(text("stop"), variant="stop", elem_id="stop")
    view = ResultView("reference")
    shows = gr.Radio(
        [(text("portrait"), "portrait"), (text("full"), "full")], value="portrait", label=text("view"),
        elem_id="reference-view", show_label=False, elem_classes="segments",
    )  # fmt: skip
    level = gr.Radio(
        level_choices(3, 6, 9), value=6, label=text("level"), elem_id="reference-level"
    )
    with gr.Row():
        alpha = gr.Slider(0, 1, 1, step=0.05, label=text("alpha"), elem_id="alpha", buttons=[])
        strength = gr.Slider(0, MOST_STRENGTH, 1, step=0.05, label=text("strength"), buttons=[])
    with gr.Row():
        keep_color = gr.Slider(0, 1, 0, step=0.05, label=text("keep_color"), buttons=[])
        keep_texture = gr.Slider(0, 1, 0, step=0.05, label=text("keep_texture"), buttons=[])
        keep_shape = gr.Slider(0, 1, 0, step=0.05, label=text("keep_shape"), buttons=[])
    view.lay_out_codes()
    asked = gr.State(None)  # with what the last study was begun

    follow_style(engine, panel.style, keep_shape)
    looks = [shows, level, alpha, strength, keep_color, keep_texture, keep_shape]
    inputs = [panel.photo, panel.style, panel.chosen, panel.cut, reference, whole, *looks]
    outputs = [message, *view.outputs]

    def draw(
        photo: str | None, style: str, chosen: Sequence[int], cut: str, reference: str | None, whole: bool,
        shows: str, level: int, alpha: float, strength: float, keep_color: float, keep_texture: float,
        keep_shape: float, request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:  # fmt: skip
        if photo is None or reference is None:
            missing = "no_photo" if photo is None else "no_reference"
            return with_message(outputs, say(request, missing))
        visitor = visitor_of(request)
        stopped = stops.get(visitor, threading.Event())
        made = 0

        def step(number: int) -> bool | None:
            nonlocal made
            made = number
            progress((number, STEPS["encoder"]), desc=say(request, "studying"))
            return False if stopped.is_set() else None

        given = {
            "alpha": (alpha, 1.0),
            "strength": (strength, 1.0),
            "keep_color": (keep_color, 0.0),
            "keep_texture": (keep_texture, 0.0),
            "keep_shape": (keep_shape, 0.0),
        }
        options = {name: value for name, (value, usual) in given.items() if value != usual}
        options |= {"mixing_level": level, **CUTS[cut]}
        began = time.perf_counter()
        try:
            prepared = engine.prepare(visitor, photo, style, **CUTS[cut])
        except FacestyleError as error:
            return with_message(outputs, explain(request, error))
        several = len(prepared.codes) > 1
        if several and not chosen:
            return with_message(outputs, say(request, "no_faces_chosen"))
        faces = sorted(chosen) if several and len(chosen) < len(prepared.codes) else None
        try:
            aligned = whole or engine.is_example(reference, style)
            code = engine.code(visitor, reference, style, aligned=aligned, on_step=step)
        except FacestyleError as error:
            return with_message(outputs, explain(request, error, "reference"))
        if chosen_since.get(visitor, style) != style:
            return [gr.skip()] * len(outputs)
        try:
            options |= engine.closer(visitor, photo, style, **CUTS[cut])
            result = engine.with_code(visitor, photo, style, code, faces=faces or "all", **options)
            call = Call(
                style=engine.address_for_people(style), photo=photo_name(photo), way="reference",
                options=options, faces=faces, reference=photo_name(reference),
                reference_aligned=aligned, full=shows == "full",
            )  # fmt: skip
            seconds = time.perf_counter() - began
            values = shown(request, result, call, engine.title(style), seconds)
        except FacestyleError as error:
            return with_message(outputs, explain(request, error))
        if stopped.is_set() and made:
            note = gr.update(value=say(request, "stopped", steps=made), visible=True)
            return [note, *values]
        return [gr.update(visible=False), *values]

    def redraw_if_studied(
        photo: str | None, style: str, chosen: Sequence[int], cut: str, reference: str | None, whole: bool,
        shows: str, level: int, alpha: float, strength: float, keep_color: float, keep_texture: float,
        keep_shape: float, request: gr.Request,
    ) -> list[Any]:  # fmt: skip
        """The same, where the reference was studied already; else nothing, for what stood there is of another."""
        nothing = [gr.skip(), *view.emptied()]
        if photo is None or reference is None:
            return nothing
        try:
            if not engine.has_code(visitor_of(request), reference, style, aligned=whole):
                return nothing
        except FacestyleError as error:
            return with_message(outputs, explain(request, error))
        return draw(
            photo,
            style,
            chosen,
            cut,
            reference,
            whole,
            shows,
            level,
            alpha,
            strength,
            keep_color,
            keep_texture,
            keep_shape,
            request,
        )

    def redraw_if_changed(given: dict[Any, Any], request: gr.Request) -> list[Any]:
        """After a study, which takes a while: once more, if it was asked for with other sliders or another photo."""
        now = [given[one] for one in inputs]
        return (
            [gr.skip()] * len(outputs) if now == given[asked] else redraw_if_studied(*now, request)
        )

    def leave_photo(photo: str | None, seen: str | None) -> list[Any]:
        """The page may tell of a change again, and late."""
        return [photo, *([gr.skip()] * len(view.outputs) if photo == seen else view.emptied())]

    def begin(request: gr.Request) -> None:
        """From now on Stop is heard, also while the study waits for its turn."""
        visitor = visitor_of(request)
        if visitor not in stops or stops[visitor].is_set():
            stops[visitor] = threading.Event()

    def forget_study(request: gr.Request) -> None:
        stops.pop(visitor_of(request), None)
        chosen_since.pop(visitor_of(request), None)

    def leave_style(style: str, request: gr.Request) -> None:
        """A study in the style before is for nothing."""
        visitor = visitor_of(request)
        if visitor in stops:
            chosen_since[visitor] = style
            stops[visitor].set()

    def end(request: gr.Request) -> None:
        if event := stops.get(visitor_of(request)):
            event.set()

    queue = {"concurrency_limit": 1, "api_visibility": "private", "show_progress_on": [view.slider]}
    light = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    study = follow.click(begin, None, None, **light)
    study = study.then(lambda *given: list(given), inputs, asked, **light)
    study = study.then(draw, inputs, outputs, concurrency_id="studying", **queue)
    stop.click(end, None, None, **light)
    panel.style.change(leave_style, panel.style, None, **light)
    seen = gr.State(None)
    panel.photo.change(leave_photo, [panel.photo, seen], [seen, *view.outputs], **light)
    redrawing = {
        **queue, "concurrency_id": DRAWING, "trigger_mode": "always_last", "show_progress": "minimal",
    }  # fmt: skip
    study.then(forget_study, None, None, **light).then(
        redraw_if_changed, {asked, *inputs}, outputs, **redrawing
    )
    shown_first.change(lambda shows: shows, shown_first, shows, **light)
    gr.on(
        [*(one.input for one in looks), reference.change],
        redraw_if_studied,
        inputs,
        outputs,
        **redrawing,
    )

    def take(style: str, event: gr.SelectData) -> str:
        return str(references(style)[event.index])

    picking = {**light, "trigger_mode": "multiple"}
    gallery.select(take, panel.style, reference, **picking)

    def show_references(style: str) -> tuple[Any, None]:
        """Those of the style, also of one that was taken up without a click; a visitor's own has none."""
        return gr.update(value=_files(style), selected_index=None), None

    panel.style.change(show_references, panel.style, [gallery, reference], **light)


def _files(style: str) -> list[str]:
    return [str(path) for path in references(style)]
