"""What every tab shows under a result: the picture before and after, its download, and the calls that make it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from facestyle import StylizeResult, Variation
from space.outputs import before_after
from space.snippets import Call
from space.texts import say, text

__all__ = ["ResultView", "address_of", "photo_name", "shown"]


class ResultView:
    """Lays out a picture before and after, and what belongs to it.

    Args:
        name: of the tab, for the page's identifiers.
        opening: files to begin with.

    Attributes:
        slider: before and after.
        status: what was done, in a line.
        download: the PNG.
        codes: Python, shell and HTTP.
    """

    def __init__(self, name: str, opening: tuple[Path, Path] | None = None) -> None:
        self.name = name
        self.slider = gr.ImageSlider(
            opening and tuple(map(str, opening)), label=text("result"), format="png", max_height=560,
            interactive=False, elem_id=f"{name}-result", elem_classes="result", buttons=["fullscreen"],
        )  # fmt: skip
        with gr.Row(elem_classes="under-result"):
            self.status = gr.Markdown(elem_id=f"{name}-status", elem_classes="status")
            self.download = gr.DownloadButton(
                text("download"), variant="primary", interactive=False, elem_id=f"{name}-download",
                min_width=230, scale=0,
            )  # fmt: skip
        self.codes: list[gr.Code] = []

    def lay_out_codes(self) -> None:
        """Further down the page: the calls that make the result again."""
        with gr.Accordion(text("again"), open=False, elem_id=f"{self.name}-code"), gr.Tabs():
            for way, language in (("python", "python"), ("shell", "shell"), ("http", "shell")):
                with gr.Tab(text(f"code_{way}")):
                    code = gr.Code(
                        language=language, show_label=False, interactive=False, wrap_lines=True,
                        lines=4, elem_id=f"{self.name}-{way}", buttons=["copy"],
                    )  # fmt: skip
                    self.codes.append(code)

    @property
    def outputs(self) -> list[Any]:
        """Components that `shown` gives values for."""
        return [self.slider, self.status, self.download, *self.codes]

    def emptied(self) -> list[Any]:
        """Values of `outputs` that show nothing: what stood there is of another photo."""
        return [None, "", gr.update(value=None, interactive=False), *[""] * len(self.codes)]


def shown(
    request: gr.Request, result: StylizeResult | Variation, call: Call, title: str, seconds: float
) -> list[Any]:
    """Values of `ResultView.outputs`."""
    before, after, download = before_after(
        result, f"facestyle_{Path(call.style).name}", full=call.full
    )
    count = len(result.faces)
    faces = say(request, "one_face") if count == 1 else say(request, "n_faces", count=count)
    status = say(request, "done", faces=faces, seconds=seconds, style=title)
    codes = (call.python(), call.shell(), call.http(address_of(request)))
    return [(before, after), status, gr.update(value=download, interactive=True), *codes]


def photo_name(photo: str) -> str:
    """The visitor's own name of a file."""
    return Path(photo).name


def address_of(request: gr.Request) -> str:
    """Address at which the visitor sees the app."""
    return str(request.headers.get("origin") or request.request.base_url)
