"""Every method on the visitor's face, side by side, with what it takes; and in plain words what cannot run here."""

from __future__ import annotations

import html
import json
import os
from pathlib import Path
from typing import Any

import gradio as gr

from facestyle.errors import FacestyleError
from facestyle.image import load_image
from space.engine import Engine
from space.examples import OPENING_STYLE, comparison
from space.outputs import new_file, save
from space.panel import CUTS, Panel, visitor_of
from space.stylize_tab import DRAWING, announcing
from space.texts import explain, say, text

__all__ = ["build_compare_tab"]

_NAMES = {
    "ours": "facestyle", "ours-ref": "facestyle-ref", "toonify": "Toonify",
    "ugatit": "U-GAT-IT", "ntc": "NTC", "ui2i": "UI2I-style", "dualstylegan": "DualStyleGAN",
    "inst": "InST", "styleid": "StyleID",
}  # fmt: skip

_NEEDS = {
    "ntc": "diffusion", "inst": "diffusion", "styleid": "diffusion", "toonify": "training",
    "ugatit": "training", "ui2i": "training", "dualstylegan": "files",
}  # fmt: skip
"""What a method takes that a machine may lack, in the names of the texts."""

_COLUMNS = ("seconds", "memory", "parameters", "side", "identity", "perceptual")

_RUNS = "FACESTYLE_RUNS"
"""Variable that names a folder with ``METHOD/STYLE``, as ``facestyle compare --runs`` takes it."""

_DIFFUSION = "FACESTYLE_DIFFUSION"
"""Variable that names the model of NTC, InST and StyleID, a folder or a Hub repository."""


def build_compare_tab(engine: Engine, panel: Panel) -> None:
    """Lay the tab out and wire it."""
    gr.Markdown(text("compare_hint"))
    with gr.Row(elem_classes="actions"):
        go = gr.Button(text("compare"), variant="primary", elem_id="compare-go")
        prepared = gr.Button(
            text("compare_prepared"), elem_id="compare-prepared",
            visible=any(comparison(style) for style in engine.styles),
        )  # fmt: skip
    message = gr.Markdown(visible=False, elem_id="compare-message", elem_classes="advice")
    pictures, compared = gr.State({}), gr.State(None)
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
    outputs = [message, block, pictures, pair, slider, table, as_png, as_json, compared]

    def compare(
        photo: str | None, style: str, cut: str, request: gr.Request,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008
    ) -> list[Any]:  # fmt: skip
        rest = [gr.skip()] * (len(outputs) - 1)
        if photo is None:
            return [gr.update(value=say(request, "no_photo"), visible=True), *rest]
        folder = new_file("comparison")
        try:
            report = engine.compare(
                visitor_of(request),
                photo,
                style,
                folder,
                runs=os.environ.get(_RUNS),
                diffusion=os.environ.get(_DIFFUSION),
                **CUTS[cut],
            )
        except FacestyleError as error:
            return [gr.update(value=explain(request, error), visible=True), *rest]
        files = [str(folder / f"comparison.{kind}") for kind in ("png", "json")]
        values = _values(request, report, folder)
        return [gr.update(visible=False), *values, *files, (photo, style)]

    def show_prepared(style: str, request: gr.Request) -> list[Any]:
        """A comparison in this style, or else, saying so, in the one that the demo opens with."""
        own = comparison(style)
        folder = own or comparison(OPENING_STYLE)
        if folder is None:
            missing = gr.update(value=say(request, "not_prepared"), visible=True)
            return [missing, *[gr.skip()] * (len(outputs) - 1)]
        report = json.loads((folder / "comparison.json").read_text("utf-8"))
        title = report["style"].replace("-", " ").title()
        other = gr.update(value=say(request, "not_prepared_but", style=title), visible=True)
        return [
            gr.update(visible=False) if own else other,
            *_values(request, report, folder, measured_in=title),
            save(load_image(folder / "comparison.jpg"), "comparison"),
            str(folder / "comparison.json"),
            None,
        ]

    light = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    comparing = go.click(announcing("comparing"), None, message, **light).then(
        compare, [panel.photo, panel.style, panel.cut], outputs, concurrency_id=DRAWING, concurrency_limit=1,
        show_progress="minimal", show_progress_on=[message, slider], api_visibility="private",
    )  # fmt: skip
    prepared.click(show_prepared, panel.style, outputs, **light)
    pair.input(
        lambda files, name: files[name], [pictures, pair], slider, trigger_mode="always_last", **light,
    )  # fmt: skip

    def hide_another(photo: str | None, style: str, compared: tuple[str, str] | None) -> Any:
        """Only what was measured on another photo or style: the page may tell of a change late."""
        return gr.skip() if compared in (None, (photo, style)) else gr.update(visible=False)

    for later in (panel.photo.change, panel.style.change, comparing.then):
        later(hide_another, [panel.photo, panel.style, compared], block, **light)


def _values(
    request: gr.Request, report: dict[str, Any], folder: Path, *, measured_in: str = ""
) -> list[Any]:
    """Values for the components from the block to the table.

    Args:
        request: the visitor's.
        report: what `compare_photo` found.
        folder: where it left its pictures.
        measured_in: title of the style, of a report made beforehand.
    """
    rows = [row for row in report["methods"] if "picture" in row]
    before = next(str(path) for path in folder.glob("photo.*"))
    files = {row["method"]: (before, str(folder / row["picture"])) for row in rows}
    choices = [(_NAMES.get(name, name), name) for name in files]
    first = next(iter(files), None)
    return [
        gr.update(visible=True),
        files,
        gr.update(choices=choices, value=first),
        files.get(first),
        _table(request, report, measured_in),
    ]


def _table(request: gr.Request, report: dict[str, Any], measured_in: str) -> str:
    """The facts of a comparison as an HTML table."""
    head = "".join(
        f'<th class="number" scope="col">{html.escape(say(request, f"column_{column}"))}</th>'
        for column in _COLUMNS
    )
    rows = []
    for row in sorted(report["methods"], key=lambda row: "why" in row):
        name = html.escape(_NAMES.get(row["method"], row["method"]))
        if "why" in row:
            takes = html.escape(say(request, f"takes_{_NEEDS.get(row['method'], 'else')}"))
            why = html.escape(row["why"])
            cells = (
                f'<td colspan="{len(_COLUMNS)}"><details><summary>{takes}</summary>{why}'
                "</details></td>"
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
        f'<p class="status">{html.escape(_notes(request, report, measured_in))}</p>'
    )


def _notes(request: gr.Request, report: dict[str, Any], measured_in: str) -> str:
    """What measured, when and where."""
    memory = say(request, f"memory_{report['memory_of'].replace(' ', '_')}")
    machine = _machine(report)
    for row in report["methods"]:
        if "machine" in row:  # measured anew, later
            machine += (
                f" ({_NAMES.get(row['method'], row['method'])}: {_machine(row)}, {row['date']})"
            )
    key = "measured_before" if measured_in else "measured_live"
    facts = {"memory": memory, "machine": machine, "date": report["date"], "style": measured_in}
    notes = [say(request, key, **facts)]
    if done := [row for row in report["methods"] if "why" not in row]:
        for key, entry in (
            ("identity_by", done[0]["identity_similarity"]), ("perceptual_by", _distance(done[0])),
        ):  # fmt: skip
            how = entry["by"] if entry.get("value") is not None else entry.get("why", "–")
            notes.append(say(request, key, how=how))
    return " ".join(notes)


def _machine(measured: dict[str, Any]) -> str:
    return f"{measured['machine']['processor']}, {measured['machine']['cores']} cores"


def _distance(row: dict[str, Any]) -> dict[str, Any]:
    """LPIPS, or the distance that stands in for it offline."""
    entries = [row[key] for key in ("lpips", "perceptual") if key in row]
    known = [entry for entry in entries if entry.get("value") is not None]
    return (known or entries or [{"value": None}])[0]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
