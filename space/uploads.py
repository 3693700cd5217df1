"""Uploads deleted in time. Gradio's own schedule ends for good where a file arrives while it looks."""

from __future__ import annotations

import threading
import time
import weakref
from pathlib import Path

import gradio as gr

__all__ = ["delete_uploads", "keep_deleting"]

_LOOK_S = 60.0


def delete_uploads(demo: gr.Blocks, age_s: float) -> None:
    """Delete the files that visitors gave a demo as soon as they are so old, but for those that it keeps."""
    kept: set[str] = set().union(*(block.keep_in_cache for block in tuple(demo.blocks.values())))
    for files in tuple(demo.temp_file_sets):
        for file in files.copy() - kept:  # Gradio adds to the set itself meanwhile
            try:
                if time.time() - Path(file).stat().st_ctime >= age_s:
                    Path(file).unlink()
                    files.discard(file)
            except FileNotFoundError:
                files.discard(file)


def keep_deleting(demo: gr.Blocks, age_s: float, look_s: float = _LOOK_S) -> None:
    """Have a timer do so as long as there is the demo, which it keeps no longer, nor the process."""
    timer = threading.Timer(look_s, _look, [weakref.ref(demo), age_s, look_s])
    timer.daemon = True
    timer.start()


def _look(ref: weakref.ref[gr.Blocks], age_s: float, look_s: float) -> None:
    demo = ref()
    if demo is None:
        return
    try:
        delete_uploads(demo, age_s)
    finally:  # whatever it stumbles over, it looks again
        keep_deleting(demo, age_s, look_s)
