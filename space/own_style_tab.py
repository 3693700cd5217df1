"""A style of the visitor's own: pictures looked at, a training to watch and to stop, the style used, kept or pushed."""

from __future__ import annotations

import contextlib
import html
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from facestyle.errors import FacestyleError
from space.engine import Engine
from space.examples import people
from space.outputs import save
from space.own_training import PRESETS, NoTokenError, OwnTraining, Progress
from space.panel import Panel, visitor_of
from space.stylize_tab import Redrawing, announcing
from space.texts import explain, say, text

__all__ = ["build_own_style_tab"]

_LOOK_S = 1.0
_PREVIEW_PX, _THUMBNAIL_PX = 1280, 256

_SWITCH = "FACESTYLE_TRAINING"
"""Variable that switches training off where it is "off", for servers that have no time for it."""


def build_own_style_tab(
    engine: Engine,
    panel: Panel,
    tabs: gr.Tabs,
    redrawing: Redrawing,
    presets: Mapping[str, Sequence[str]] = PRESETS,
) -> None:
    """Lay the tab out and wire it.

    Args:
        engine: what trains and draws.
        panel: where the finished style can be chosen.
        tabs: to go to the first one with it.
        redrawing: how that one draws.
        presets: lengths of training by name, each with the arguments of ``facestyle train``.
    """
    gr.Markdown(text("own_hint"))
    if os.environ.get(_SWITCH, "").lower() == "off":
        gr.Markdown(text("own_off"), elem_classes="advice")
        return
    files = gr.File(
        file_count="multiple", file_types=["image", ".zip"], type="filepath", height=150,
        label=text("own_files"), elem_id="own-files",
    )  # fmt: skip
    with gr.Row():
        name = gr.Textbox("my-style", label=text("own_name"), max_lines=1, elem_id="own-name")
        data_license = gr.Textbox(
            label=text("own_license"), placeholder="CC-BY-4.0", max_lines=1, elem_id="own-license"
        )
    preset = gr.Radio(
        [(text(f"preset_{one}"), one) for one in presets], value=next(iter(presets)),
        label=text("own_length"), elem_id="own-length",
    )  # fmt: skip
    with gr.Row(elem_classes="actions"):
        look = gr.Button(text("own_look"), elem_id="own-look")
        train = gr.Button(text("own_train"), variant="primary", elem_id="own-train")
        stop = gr.Button(text("stop"), variant="stop", elem_id="own-stop")
    message = gr.Markdown(visible=False, elem_id="own-message", elem_classes="advice")
    found = gr.Markdown(visible=False, elem_id="own-found")
    sheet = gr.Image(
        visible=False, show_label=False, format="png", interactive=False, elem_id="own-sheet",
        buttons=["fullscreen"], alt_text=text("own_sheet_alt"),
    )  # fmt: skip
    status = gr.HTML(visible=False, elem_id="own-status")
    preview = gr.Image(
        visible=False, label=text("own_preview"), format="png", interactive=False,
        elem_id="own-preview", buttons=["fullscreen"], alt_text=text("own_preview_alt"),
    )  # fmt: skip
    with gr.Column(visible=False, elem_id="own-done") as finished:
        with gr.Row(elem_classes="actions"):
            use = gr.Button(text("own_use"), variant="primary", elem_id="own-use")
            download = gr.DownloadButton(text("own_download"), elem_id="own-download")
        with gr.Accordion(text("own_push"), open=False, elem_id="own-push"):
            with gr.Row():
                repo = gr.Textbox(
                    label=text("own_repo"),
                    placeholder="user/my-style",
                    max_lines=1,
                    elem_id="own-repo",
                )
                token = gr.Textbox(
                    label=text("own_token"), info=text("own_token_info"), type="password", max_lines=1,
                    elem_id="own-token",
                )  # fmt: skip
            private = gr.Checkbox(True, label=text("own_private"), elem_id="own-private")
            push = gr.Button(text("own_push_go"), elem_id="own-push-go")
            pushed = gr.Markdown(visible=False, elem_id="own-pushed", elem_classes="advice")
    asked = [files, name, data_license, preset]
    hidden = gr.update(visible=False)

    stops: dict[str, threading.Event] = {}

    def look_at(
        files: Sequence[str] | None, name: str, data_license: str, preset: str, request: gr.Request
    ) -> list[Any]:
        """What is used of the pictures; a training, or the style that came of one, stays as it is."""
        try:
            with contextlib.closing(OwnTraining(files or [], name, data_license)) as looked_at:
                report, picture = looked_at.look()
        except FacestyleError as error:
            return [_words(explain(request, error)), hidden, hidden]
        lines = [
            say(request, "own_found", used=len(report.used), total=len(report.pictures)),
            *(f"- {html.escape(line)}" for line in (*report.left_out_lines(), *report.warnings)),
        ]
        shown = gr.update(value=save(picture, "pictures"), visible=True)
        return [hidden, _words("\n".join([lines[0], "", *lines[1:]])), shown]

    def ask(request: gr.Request) -> list[Any]:
        """Said at once, also where others train; from now on Stop is heard."""
        visitor = visitor_of(request)
        if visitor not in stops or stops[visitor].is_set():
            stops[visitor] = threading.Event()
        own = engine.running(visitor)
        is_mine = own is not None and own.is_running
        if engine.is_training() and not is_mine:
            words = html.escape(say(request, "own_waiting"))
            return [hidden, gr.update(value=f'<p class="status">{words}</p>', visible=True)]
        return [hidden, _bar(request, Progress())]

    def learn(
        files: Sequence[str] | None, name: str, data_license: str, preset: str, request: gr.Request
    ) -> Iterator[list[Any]]:
        """Status and preview until the process ends."""
        visitor, rest = visitor_of(request), [gr.skip()] * 3
        stopped, left = stops.get(visitor, threading.Event()), engine.leaving(visitor)
        halted = [_words(say(request, "own_stopped")), hidden, *rest]
        yield [hidden, _bar(request, Progress()), *rest]
        try:
            if left.is_set():  # meanwhile
                return
            OwnTraining.check(name, data_license)
            training = engine.training(visitor, files or [], name, data_license, presets[preset])
            if training.style is None and not training.is_running and not stopped.is_set():
                training.start()
            if stopped.is_set():  # meanwhile
                training.stop()
            yield [hidden, _bar(request, training.progress()), gr.skip(), hidden, gr.skip()]
            shown = None
            while not training.wait(_LOOK_S):
                progress = training.progress()
                is_new = progress.preview is not None and progress.preview != shown
                shown = progress.preview
                picture = _picture(progress) if is_new else gr.skip()
                yield [gr.skip(), _bar(request, progress), picture, gr.skip(), gr.skip()]
            if training.is_stopped and training.style is None:
                yield halted
                return
            archive = str(training.zipped(Path(get_upload_folder())))
            download.keep_in_cache.add(archive)  # it goes with the training
            picture = _picture(training.progress())
        except FacestyleError as error:
            yield [_words(explain(request, error)), hidden, *rest]
            return
        finally:
            if stops.get(visitor) is stopped and not stopped.is_set():
                del stops[visitor]
        yield [hidden, hidden, picture, gr.update(visible=True), archive]

    def end(request: gr.Request) -> list[Any]:
        """Stop a training; one that waits for its turn is taken out of the queue."""
        visitor = visitor_of(request)
        asked_for, training = stops.get(visitor), engine.running(visitor)
        if asked_for is None or asked_for.is_set():
            return [gr.skip(), gr.skip()]
        asked_for.set()
        if training is not None and training.is_running:
            training.stop()
        return [_words(say(request, "own_stopped")), hidden]

    def take_up(request: gr.Request) -> list[Any]:
        """The style among the others, chosen, and the first tab."""
        visitor = visitor_of(request)
        try:
            style = engine.adopt(visitor)
        except FacestyleError as error:
            return [_words(explain(request, error)), *[gr.skip()] * 4]
        names = engine.names(visitor)
        thumbnails = list(panel.thumbnails)
        for own in names[len(engine.styles) :]:
            face = engine.stylize(visitor, people()[0], own).faces[0].portrait
            small = face.resize((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS)
            thumbnails.append((save(small, "thumbnail"), engine.title(own)))
        styles = gr.update(
            value=thumbnails, selected_index=names.index(style), columns=min(6, len(names))
        )
        return [hidden, styles, style, engine.psi(style), gr.Tabs(selected="stylize")]

    def give(repo: str, token: str, private: bool, request: gr.Request) -> tuple[Any, str]:
        """The style to the visitor's account, by the visitor's token and no other."""
        try:
            if not token.strip():
                raise NoTokenError("give a token of your Hub account that may write")
            address = engine.push(
                visitor_of(request), repo.strip(), token=token.strip(), private=private
            )
        except FacestyleError as error:
            return _words(explain(request, error)), ""
        return _words(say(request, "own_pushed", address=address)), ""

    light = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    slow = {"concurrency_limit": 1, "api_visibility": "private"}
    look.click(announcing("looking"), None, message, **light).then(
        look_at, asked, [message, found, sheet], concurrency_id="looking", show_progress="minimal",
        show_progress_on=[message], **slow,
    )  # fmt: skip
    learning = train.click(ask, None, [message, status], **light).then(
        learn, asked, [message, status, preview, finished, download], concurrency_id="training",
        show_progress="hidden", **slow,
    )  # fmt: skip
    stop.click(end, None, [message, status], cancels=[learning], **light)
    use.click(
        take_up, None, [message, panel.styles, panel.style, redrawing.psi, tabs], **light
    ).then(redrawing.function, redrawing.inputs, redrawing.outputs, **redrawing.settings)
    push.click(announcing("working"), None, pushed, **light).then(
        give, [repo, token, private], [pushed, token], concurrency_id="pushing", show_progress="minimal",
        show_progress_on=[pushed], **slow,
    )  # fmt: skip


def _words(message: str) -> Any:
    return gr.update(value=message, visible=True)


def _bar(request: gr.Request, progress: Progress) -> Any:
    """Stage, steps and time left, and a bar."""
    words = say(request, f"stage_{progress.stage}")
    if progress.number:
        words += f" ({progress.number}/{progress.stages})"
    if progress.total:
        words += " · " + say(
            request, "own_steps", done=progress.done, total=progress.total, left=progress.left
        )
    bar = f'<progress max="1" value="{progress.share:.3f}" aria-label="{html.escape(words)}"></progress>'
    return gr.update(value=f'<p class="status">{html.escape(words)}</p>{bar}', visible=True)


def _picture(progress: Progress) -> Any:
    """The newest preview, not larger than a page is wide."""
    if progress.preview is None:
        return gr.skip()
    try:
        with Image.open(progress.preview) as image:
            image.load()
    except OSError:  # it is being written
        return gr.skip()
    if image.width > _PREVIEW_PX:
        height = round(image.height * _PREVIEW_PX / image.width)
        image = image.resize((_PREVIEW_PX, height), Image.Resampling.LANCZOS)
    return gr.update(value=save(image, "preview"), visible=True)
