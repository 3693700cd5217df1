"""Every method on the visitor's face, side by side, with what it takes; and in plain words what cannot run here."""

from __future__ import annotations

import html
import os
from typing import Any

import gradio as gr

from facestyle.errors import FacestyleError
from facestyle.evaluation.photo_comparison import compare_photo
from space.engine import Engine
from space.outputs import delete_later, new_file
from space.panel import Panel
from space.stylize_tab import DRAWING
from space.texts import explain, say, text

__all__ = ["build_compare_tab"]

_NAMES = {
    "ours": "facestyle", "ours-ref": "facestyle, like pictures", "toonify": "Toonify",
    "ugatit": "U-GAT-IT", "ntc": "NTC", "ui2i": "UI2I-style", "dualstylegan": "DualStyleGAN",
    "inst": "InST", "styleid": "StyleID",
}  # fmt: skip

_COLUMNS = ("s a face", "memory, MB", "parameters, M", "side, px", "identity ↑", "perceptual ↓")

_RUNS = "FACESTYLE_RUNS"
"""Variable that names a folder with ``METHOD/STYLE``, as ``facestyle compare --runs`` takes it."""


def build_compare_tab(engine: Engine, panel: Panel) -> None:
    """Lay the tab out and wire it."""
    gr.Markdown(text("compare_hint"))
    go = gr.Button(text("compare"), variant="primary", elem_id="compare-go")
    message = gr.Markdown(visible=False, elem_id="compare-message", elem_classes="advice")
    pictures = gr.State({})
    with gr.Column(visible=False, elem_id="compared") as block:
        pair = gr.Radio([], label=text("pair"), elem_id="pair", elem_classes="segments")
        slider = gr.ImageSlider(
            label=text("result"), format="png", max_height=520, interactive=False, elem_id="compare-result",
            elem_classes="result", buttons=["fullscreen"],
        )  # fmt: skip
        table = gr.HTML(elem_id="compare-table")
        with gr.Row():
            as_png = gr.DownloadButton(text("table_png"), elem_id="compare-png")
            as_json = gr.DownloadButton(text("table_json"), elem_id="compare-json")
    outputs = [message, block, pictures, pair, slider, table, as_png, as_json]

    def compare(
        photo: str | None, style: str, request: gr.Request,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008
    ) -> list[Any]:  # fmt: skip
        rest = [gr.skip()] * (len(outputs) - 1)
        if photo is None:
            return [gr.update(value=say(request, "no_photo"), visible=True), *rest]
        folder = new_file("comparison")
        try:
            report = compare_photo(
                photo,
                folder,
                style=engine.address(style),
                base=engine.stylizer(style).base,
                runs=os.environ.get(_RUNS),
            )
        except FacestyleError as error:
            return [gr.update(value=explain(request, error), visible=True), *rest]
        finally:
            delete_later(folder, slider)  # also those that are never looked at
        before = str(folder / "photo.png")
        files = {
            row["method"]: (before, str(folder / row["picture"]))
            for row in report["methods"]
            if "picture" in row
        }
        choices = [(_NAMES.get(name, name), name) for name in files]
        first = next(iter(files), None)
        return [
            gr.update(visible=False),
            gr.update(visible=True),
            files,
            gr.update(choices=choices, value=first),
            files.get(first),
            _table(report),
            *(str(folder / f"comparison.{kind}") for kind in ("png", "json")),
        ]

    go.click(
        compare, [panel.photo, panel.style], outputs, concurrency_id=DRAWING, concurrency_limit=1,
        show_progress_on=[go, slider], api_visibility="private",
    )  # fmt: skip
    pair.input(
        lambda files, name: files[name], [pictures, pair], slider, queue=False,
        show_progress="hidden", api_visibility="private",
    )  # fmt: skip
    panel.photo.change(
        lambda: gr.update(visible=False), None, block, queue=False, show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip


def _table(report: dict[str, Any]) -> str:
    """The facts of a comparison as an HTML table."""
    head = "".join(f'<th class="number" scope="col">{column}</th>' for column in _COLUMNS)
    rows = []
    for row in report["methods"]:
        name = html.escape(_NAMES.get(row["method"], row["method"]))
        if "why" in row:
            cells = (
                f'<td colspan="{len(_COLUMNS)}">Cannot run here: {html.escape(row["why"])}.</td>'
            )
        else:
            values = (
                _number(row["seconds"], ".2f"), _number(row["peak_memory_mb"], ".0f"),
                _number(row["parameters"] / 1e6, ".1f"), str(row["resolution"]),
                _number(row["identity_similarity"]["value"], ".2f"), _number(_distance(row)["value"], ".3f"),
            )  # fmt: skip
            cells = "".join(f'<td class="number">{value}</td>' for value in values)
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return (
        '<div class="scroll"><table class="methods"><thead><tr><th scope="col"></th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="status">{html.escape(_notes(report))}</p>'
    )


def _notes(report: dict[str, Any]) -> str:
    """What measured, and where."""
    done = [row for row in report["methods"] if "why" not in row]
    notes = [f"Measured live on this machine; memory of the {report['memory_of']}."]
    if done:
        for what, entry in (
            ("Identity", done[0]["identity_similarity"]),
            ("Perceptual distance", _distance(done[0])),
        ):
            how = f"by {entry['by']}" if entry.get("value") is not None else entry.get("why", "–")
            notes.append(f"{what} to the photo: {how}.")
    return " ".join(notes)


def _distance(row: dict[str, Any]) -> dict[str, Any]:
    """LPIPS, or the distance that stands in for it offline."""
    entries = [row[key] for key in ("lpips", "perceptual") if key in row]
    known = [entry for entry in entries if entry.get("value") is not None]
    return (known or entries or [{"value": None}])[0]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
