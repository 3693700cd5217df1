"""The demo put together: header, photo and styles, a tab for every way of stylizing, and the endpoints."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction

from space.compare_tab import build_compare_tab
from space.endpoints import build_endpoints
from space.engine import Engine
from space.kept import PICTURES_S
from space.own_style_tab import build_own_style_tab
from space.own_training import PRESETS
from space.panel import build_panel, visitor_of
from space.reference_tab import build_reference_tab
from space.stylize_tab import build_stylize_tab
from space.texts import I18N, text
from space.uploads import keep_deleting
from space.variations_tab import build_variations_tab

__all__ = ["build_app", "launch"]

_HERE = Path(__file__).resolve().parent
_NEVER_S = 365 * 24 * 3600
_WAITING = 40
_LARGEST_FILE = "200mb"  # a zip of pictures to learn from

_THEME = gr.themes.Soft(
    primary_hue="teal",
    secondary_hue="teal",
    neutral_hue="stone",
    radius_size="lg",
    font=["Inter", "ui-sans-serif", "system-ui", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
).set(
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_text_color="white",
    body_background_fill="*neutral_50",
    body_text_color_subdued="*neutral_600",
    block_info_text_color="*neutral_600",
    block_label_text_color="*neutral_700",
    block_label_background_fill="*neutral_100",
    block_title_text_color="*neutral_800",
    block_title_background_fill="none",
    block_title_padding="0",
    slider_color="*primary_600",
    checkbox_label_background_fill_selected="*primary_700",
    checkbox_label_text_color_selected="white",
    checkbox_background_color_selected="*primary_700",
    block_border_width="1px",
    block_shadow="none",
    checkbox_border_color="*neutral_500",
    checkbox_border_radius="4px",
    input_border_width="1px",
    input_border_color="*neutral_300",
)


class _Demo(gr.Blocks):
    """Blocks whose endpoints may be called without their last arguments, over bare HTTP too, and as often as one likes.

    Gradio fills in defaults for its own clients alone; by this an endpoint that learns an argument keeps its callers.
    It also opens a session for every call of curl, and closes the oldest, which may be an open page's, where they are
    too many; by this that of a call goes with its answer.
    """

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], *args: Any, **settings: Any
    ) -> list[Any]:
        """The inputs with the values of the components that are left out behind them."""
        left_out = block_fn.inputs[len(inputs) :]
        rest = [getattr(component, "value", None) for component in left_out]
        values: list[Any] = await super().preprocess_data(
            block_fn, [*inputs, *rest], *args, **settings
        )
        return values

    async def process_api(
        self, block_fn: BlockFunction | int, inputs: list[Any], *args: Any, **settings: Any
    ) -> dict[str, Any]:
        """What a call gives; after that of an endpoint its session is dropped, if no page has put a state there."""
        try:
            done: dict[str, Any] = await super().process_api(block_fn, inputs, *args, **settings)
        finally:
            function = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
            state, session = settings.get("state"), settings.get("session_hash")
            if function.api_visibility == "public" and state is not None and not state.state_data:
                self.state_holder.session_data.pop(session, None)
                self.state_holder.time_last_used.pop(session, None)
        return done


def build_app(
    engine: Engine | None = None, presets: Mapping[str, Sequence[str]] = PRESETS
) -> gr.Blocks:
    """The app, not yet launched.

    Args:
        engine: what it computes with; all bundled styles when None.
        presets: how long visitors may train, see `space.own_training.PRESETS`.
    """
    engine = engine or Engine()
    with _Demo(
        title="facestyle",
        analytics_enabled=False,
        delete_cache=(_NEVER_S, PICTURES_S),  # only at the end; `keep_deleting` does until then
        fill_width=False,
    ) as demo:
        gr.Markdown("# facestyle", elem_id="title")
        gr.Markdown(text("lead"), elem_id="lead")
        with gr.Row(elem_id="page"):
            with gr.Column(scale=4, min_width=320, elem_id="panel"):
                panel = build_panel(engine)
            with gr.Column(scale=7, min_width=320), gr.Tabs(elem_id="tabs") as tabs:
                with gr.Tab(text("tab_stylize"), id="stylize"):
                    redrawing = build_stylize_tab(engine, panel, demo)
                with gr.Tab(text("tab_variations"), id="variations"):
                    build_variations_tab(engine, panel)
                with gr.Tab(text("tab_reference"), id="reference"):
                    build_reference_tab(engine, panel, redrawing.shows)
                with gr.Tab(text("tab_compare"), id="compare"):
                    build_compare_tab(engine, panel)
                with gr.Tab(text("tab_own"), id="own"):
                    build_own_style_tab(engine, panel, tabs, redrawing, presets)
        build_endpoints(engine)

        def forget(request: gr.Request) -> None:
            engine.forget(visitor_of(request))

        demo.unload(forget)
    keep_deleting(demo, PICTURES_S)
    return demo.queue(max_size=_WAITING, default_concurrency_limit=1)


def launch(demo: gr.Blocks, **settings: Any) -> tuple[Any, str, str]:
    """Serve the app; ``settings`` go to Gradio's ``launch``.

    Environment: ``GRADIO_MCP_SERVER=true`` also serves the endpoints to MCP clients, where the extra ``mcp`` is
    installed.
    """
    wanted = os.environ.get("GRADIO_MCP_SERVER", "").lower() == "true"
    if wanted and importlib.util.find_spec("mcp") is None:
        print(
            "No MCP server, as the package mcp is not installed: pip install '.[mcp]'", flush=True
        )
        settings.setdefault("mcp_server", False)  # Gradio would not start at all
    served: tuple[Any, str, str] = demo.launch(
        theme=_THEME,
        css_paths=_HERE / "style.css",
        i18n=I18N,
        footer_links=["api"],
        run_history=False,
        max_file_size=_LARGEST_FILE,
        allowed_paths=[str(_HERE / "examples")],
        state_session_capacity=200,
        **settings,
    )
    return served
