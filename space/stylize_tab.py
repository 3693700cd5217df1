"""The tab that most visitors need: the photo in the style, with everything that can be turned."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from facestyle.errors import FacestyleError, FaceTooSmallError, NoFaceError
from facestyle.options import MOST_STRENGTH
from space.engine import Engine
from space.examples import OPENING_STYLE, opening
from space.panel import CUTS, Panel, found, toggled, visitor_of
from space.result_view import ResultView, photo_name, shown
from space.snippets import Call
from space.texts import explain, say, text

__all__ = [
    "DRAWING",
    "Redrawing",
    "announcing",
    "build_stylize_tab",
    "follow_style",
    "keeping",
    "with_message",
]

DRAWING = "drawing"
"""Queue of all that draws: one picture at a time, which uses all cores by itself."""

_STATUS = 2
"""Where the status is among what drawing gives: the message, then `ResultView.outputs`."""


@dataclass(frozen=True)
class Redrawing:
    """What another tab needs to have this one draw anew.

    Attributes:
        psi: the slider that follows the style.
        shows: portrait or full picture; the full one at first where a photo holds several people.
        function: draws.
        inputs: what it takes.
        outputs: what it gives values for.
        settings: how its event is to be queued.
    """

    psi: gr.Slider
    shows: gr.Radio
    function: Callable[..., Any]
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    settings: Mapping[str, Any]


def build_stylize_tab(engine: Engine, panel: Panel, demo: gr.Blocks) -> Redrawing:
    """Lay the tab out and wire it to the panel."""
    view = ResultView("stylize", opening() if OPENING_STYLE in engine.styles else None)
    shows = gr.Radio(
        [(text("portrait"), "portrait"), (text("full"), "full")], value="portrait", label=text("view"),
        elem_id="view", show_label=False, elem_classes="segments",
    )  # fmt: skip
    opening_style = panel.style.value
    with gr.Row():
        strength = gr.Slider(
            0, MOST_STRENGTH, 1, step=0.05, label=text("strength"), info=text("strength_info"),
            elem_id="strength", buttons=[],
        )  # fmt: skip
        refine = gr.Slider(
            0, 60, engine.likeness, step=4, label=text("refine"), info=text("refine_info"),
            elem_id="refine", buttons=[],
        )  # fmt: skip
    with gr.Row():
        keep_shape = keeping("keep_shape", elem_id="keep-shape")
        keep_texture = keeping("keep_texture", elem_id="keep-texture")
    with gr.Row():
        keep_color = keeping("keep_color", elem_id="keep-color")
        psi = gr.Slider(
            0, 1.2, engine.psi(opening_style), step=0.05, label=text("psi"), info=text("psi_info"),
            elem_id="psi", buttons=[],
        )  # fmt: skip
    seed = gr.Number(
        0, label=text("strokes"), info=text("strokes_info"), precision=0, minimum=0,
        maximum=2**31, elem_id="strokes",
    )  # fmt: skip
    with gr.Row(elem_classes="under-sliders"):
        reset = gr.Button(text("reset"), size="sm", elem_id="reset", scale=0, min_width=180)
    view.lay_out_codes()

    follow_style(engine, panel.style, keep_shape)
    settings = [shows, strength, keep_color, keep_texture, keep_shape, psi, refine, seed]
    inputs = [panel.photo, panel.style, panel.chosen, panel.cut, *settings]
    outputs = [panel.message, *view.outputs]

    def draw(
        photo: str | None, style: str, chosen: Sequence[int], cut: str, shows: str, strength: float,
        keep_color: float, keep_texture: float, keep_shape: float, psi: float, refine: int, seed: float | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008
    ) -> list[Any]:  # fmt: skip
        if photo is None:
            return with_message(outputs, say(request, "no_photo"))
        progress(0, desc=say(request, "working"))
        try:
            began = time.perf_counter()
            prepared = engine.prepare(
                visitor_of(request), photo, style, int(refine), progress=True, **CUTS[cut]
            )
            several = len(prepared.codes) > 1
            if several and not chosen:
                return with_message(outputs, say(request, "no_faces_chosen"))
            options = _changed(
                strength,
                keep_color,
                keep_texture,
                keep_shape,
                psi,
                engine.psi(style),
                int(seed or 0),
            )
            options |= CUTS[cut]
            faces = sorted(chosen) if several and len(chosen) < len(prepared.codes) else None
            result = engine.stylize(
                visitor_of(request),
                photo,
                style,
                refine=int(refine),
                faces=faces or "all",
                **options,
            )
            if refine:
                options["refine"] = int(refine)
            call = Call(
                style=engine.address_for_people(style),
                photo=photo_name(photo),
                options=options,
                faces=faces,
                full=shows == "full",
            )
            seconds = time.perf_counter() - began
            values = shown(request, result, call, engine.title(style), seconds)
        except FacestyleError as error:
            return with_message(outputs, explain(request, error))
        return [gr.update(visible=False), *values]

    def begin(
        photo: str | None, style: str, cut: str, strength: float, keep_color: float, keep_texture: float,
        keep_shape: float, psi: float, seed: float | None, request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:  # fmt: skip
        """A photo cut out in a new way: its faces, and a first picture of it, as encoded."""
        visitor, way = visitor_of(request), CUTS[cut]
        nothing = [
            None,
            None,
            gr.skip(),
            gr.update(visible=False),
            None,
            gr.update(choices=[], value=[]),
            gr.skip(),
            gr.skip(),
        ]
        if photo is None:
            return [*nothing, gr.update(visible=False), *[gr.skip()] * len(view.outputs)]
        progress(0, desc=say(request, "looking"))
        try:
            prepared = engine.prepare(visitor, photo, style, **way)
            steps = engine.closer(visitor, photo, style, **way).get("refine", 0)
        except FacestyleError as error:
            if isinstance(error, NoFaceError | FaceTooSmallError):
                nothing[2] = gr.update(open=True)
            message, *_ = with_message(outputs, explain(request, error))
            return [*nothing, message, *view.emptied()]
        everybody = list(range(len(prepared.codes)))
        shows = "full" if len(everybody) > 1 else "portrait"
        drawn = draw(
            photo,
            style,
            everybody,
            cut,
            shows,
            strength,
            keep_color,
            keep_texture,
            keep_shape,
            psi,
            0,
            seed,
            request,
            progress,
        )
        if not isinstance(status := drawn[_STATUS], str):
            drawn = [drawn[0], *view.emptied()]
        elif steps:
            drawn[_STATUS] = f"{status} · {say(request, 'closer')}"
        ticket = uuid.uuid4().hex
        owed = (photo, ticket)
        return [owed, ticket, gr.skip(), *found(request, prepared, None), shows, steps, *drawn]

    def begin_anew(
        begun_of: str | None, photo: str | None, style: str, strength: float, keep_color: float,
        keep_texture: float, keep_shape: float, psi: float, seed: float | None, request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:  # fmt: skip
        """A new photo, in which faces are looked for, whatever was said of the last one.

        The page may tell of one change several times, and late: what a visitor has chosen by then stays.
        """
        if photo is not None and photo == begun_of:
            return [gr.skip()] * (2 + len(begin_outputs))
        looks = (strength, keep_color, keep_texture, keep_shape, psi, seed)
        begun = begin(photo, style, "find", *looks, request, progress)
        if photo is None and begun_of is not None:
            begun = [*begun[: -len(view.outputs)], *view.emptied()]
        return [photo, "find", *begun]

    def draw_closer(
        owed: tuple[str, str] | None, ticket: str | None, photo: str | None, style: str,
        chosen: Sequence[int], cut: str, shows: str, strength: float,
        keep_color: float, keep_texture: float, keep_shape: float, psi: float, refine: int, seed: float | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008
    ) -> list[Any]:  # fmt: skip
        """After the first picture, and once: one that is more like the person.

        What the page sends is of that picture only if it sends its ticket too: what follows the
        last photo may come after this one was begun, with the last one's choice of faces.
        """
        if photo is None or (photo, ticket) != owed:
            return [gr.skip()] * (1 + len(outputs))
        if not refine or not engine.has_faces(visitor_of(request), photo, style, **CUTS[cut]):
            return [None, *[gr.skip()] * len(outputs)]
        drawn = draw(
            photo,
            style,
            chosen,
            cut,
            shows,
            strength,
            keep_color,
            keep_texture,
            keep_shape,
            psi,
            refine,
            seed,
            request,
            progress,
        )
        return [None, *drawn]

    owed = gr.State(None)  # the photo whose closer picture is still to come, and its ticket
    ticket = gr.Textbox(visible=False)  # as the page knows it
    begin_outputs = [owed, ticket, panel.cutting, *panel.found, shows, refine, *outputs]
    queue = {"concurrency_id": DRAWING, "concurrency_limit": 1, "api_visibility": "private"}
    drawing = {
        **queue, "trigger_mode": "always_last", "show_progress_on": [view.slider], "show_progress": "minimal",
    }  # fmt: skip
    closer = {**drawing, "show_progress": "hidden"}
    looks = [strength, keep_color, keep_texture, keep_shape, psi, seed]
    begun_of = gr.State(None)
    new_photo, anew = (
        [begun_of, panel.photo, panel.style, *looks],
        [begun_of, panel.cut, *begin_outputs],
    )
    for new, shown_as in ((panel.photo.change, "full"), (demo.load, "hidden")):
        new(
            begin_anew, new_photo, anew, **{**drawing, "show_progress": shown_as}
        ).then(draw_closer, [owed, ticket, *inputs], [owed, *outputs], **closer)  # fmt: skip
    panel.cut.input(
        begin, [panel.photo, panel.style, panel.cut, *looks], begin_outputs, **drawing
    ).then(draw_closer, [owed, ticket, *inputs], [owed, *outputs], **closer)
    gr.on(
        [
            shows.input, strength.input, keep_color.input, keep_texture.input, keep_shape.input, psi.input,
            refine.release, seed.input, panel.chosen.input,
        ],
        draw, inputs, outputs, **drawing,
    )  # fmt: skip

    def choose_style(event: gr.SelectData, request: gr.Request) -> tuple[str, float]:
        names = engine.names(visitor_of(request))
        if event.index >= len(names):
            raise gr.Error(say(request, "StyleNotFoundError"), print_exception=False)
        return names[event.index], engine.psi(names[event.index])

    light = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    picking = {**light, "trigger_mode": "multiple"}  # each with where it was; "once" drops a second
    panel.styles.select(choose_style, None, [panel.style, psi], **picking).then(
        draw, inputs, outputs, **drawing
    )

    def as_at_first(style: str) -> tuple[Any, ...]:
        try:
            psi: Any = engine.psi(style)
        except FacestyleError:  # drawing, which follows, says why
            psi = gr.skip()
        return 1.0, 0.0, 0.0, 0.0, psi, engine.likeness, 0

    reset.click(
        as_at_first, panel.style,
        [strength, keep_color, keep_texture, keep_shape, psi, refine, seed], **light,
    ).then(draw, inputs, outputs, **drawing)  # fmt: skip

    def faces_after(
        photo: str, style: str, chosen: Sequence[int], cut: str, request: gr.Request,
        point: tuple[float, float] | None,
    ) -> list[Any]:  # fmt: skip
        """The faces as they are chosen now; with a point, after a click there."""
        try:
            prepared = engine.prepare(visitor_of(request), photo, style, **CUTS[cut])
        except FacestyleError:  # drawing, which follows, says why
            return [gr.skip()] * len(panel.found)
        now = chosen if point is None else toggled(prepared, chosen, point)
        return found(request, prepared, now)

    def click_face(
        photo: str, style: str, chosen: Sequence[int], cut: str, request: gr.Request, event: gr.SelectData
    ) -> list[Any]:  # fmt: skip
        return faces_after(photo, style, chosen, cut, request, event.index)

    def redraw_faces(
        photo: str, style: str, chosen: Sequence[int], cut: str, request: gr.Request
    ) -> Any:
        """Their picture alone: the boxes may have changed again by the time that it comes."""
        _, picture, _ = faces_after(photo, style, chosen, cut, request, None)
        return picture

    of_faces = [panel.photo, panel.style, panel.chosen, panel.cut]
    panel.chosen.input(redraw_faces, of_faces, panel.faces, trigger_mode="always_last", **light)
    panel.faces.select(click_face, of_faces, panel.found, **picking).then(
        draw, inputs, outputs, **drawing
    )
    return Redrawing(psi, shows, draw, inputs, outputs, drawing)


def follow_style(engine: Engine, style: gr.State, keep_shape: gr.Slider) -> None:
    """Let the slider be moved where it does something, and say so where it does not."""

    def offered(style: str, request: gr.Request) -> Any:
        try:
            moves = engine.moves_shapes(style)
        except FacestyleError:  # drawing says why
            return gr.skip()
        info = "keep_shape_info" if moves else "keep_shape_none"
        return gr.update(interactive=moves, info=say(request, info))

    style.change(
        offered, style, keep_shape, queue=False, show_progress="hidden", api_visibility="private"
    )


def keeping(name: str, elem_id: str | None = None) -> gr.Slider:
    """A slider for how much of the photo's own is kept, 0 to 1."""
    return gr.Slider(
        0, 1, 0, step=0.05, label=text(name), info=text(f"{name}_info"), elem_id=elem_id, buttons=[]
    )


def announcing(key: str) -> Callable[[gr.Request], Any]:
    """An event that shows a text at once, before what takes a while."""

    def announce(request: gr.Request) -> Any:
        return gr.update(value=say(request, key), visible=True)

    return announce


def with_message(outputs: Sequence[Any], message: str) -> list[Any]:
    """The message beside the photo, everything else as it was."""
    return [gr.update(value=message, visible=True), *[gr.skip()] * (len(outputs) - 1)]


def _changed(
    strength: float,
    keep_color: float,
    keep_texture: float,
    keep_shape: float,
    psi: float,
    usual_psi: float,
    seed: int,
) -> dict[str, Any]:
    """Options that are not the defaults."""
    given = {
        "strength": (strength, 1.0), "keep_color": (keep_color, 0.0), "keep_texture": (keep_texture, 0.0),
        "keep_shape": (keep_shape, 0.0),
        "psi": (psi, usual_psi), "seed": (seed, 0),
    }  # fmt: skip
    return {name: value for name, (value, usual) in given.items() if abs(value - usual) > 1e-6}
