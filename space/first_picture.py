"""How long a visitor waits for the first picture, in Chromium: ``python -m space.first_picture``.

The demo starts in a process of its own. Cold is the first photo that it is given, warm are those after it; "closer" is
the second picture of a photo, which is more like the person and takes the first one's place.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from facestyle.bench import machine
from facestyle.errors import FacestyleError, MissingDependencyError
from space.examples import people
from space.translations import ENGLISH

__all__ = ["measure"]

_APP = Path(__file__).resolve().parent.parent / "app.py"
_START_S = 180
_SHOWN_MS = 120_000
_PICTURES = """[...document.querySelectorAll("#stylize-result img")].map(img => img.src).join()"""
_SHOWN = f"""([was, isClosest]) => {{
    const pictures = [...document.querySelectorAll("#stylize-result img")];
    const status = document.querySelector("#stylize-status").innerText;
    return {_PICTURES} !== was && pictures.length > 1 && !document.querySelector(".generating")
        && pictures.every(img => img.complete && img.naturalWidth > 0)
        && status.includes(" s · ") && isClosest !== status.includes({json.dumps(ENGLISH["closer"])});
}}"""
"""Whether the page shows the first picture of a photo, or else the closest, and no longer those that were there."""


def measure(photos: Sequence[str | Path], *, port: int = 7899) -> dict[str, Any]:
    """Seconds to what a visitor sees, of a demo just started.

    Args:
        photos: files to upload, one after another; the first one is the cold one.
        port: of this machine, where the demo is served for as long.

    Returns:
        "start" (from the command to the first answer), "opened" (from the address to the page with its example),
        "cold" and "warm" (median; from choosing a photo to its first portrait on the page), "closer" (median; from
        choosing it to the second one), "photos", "machine", "date".

    Raises:
        MissingDependencyError: there is no Playwright or no Chromium.
        FacestyleError: the demo does not start, or shows no portrait.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise MissingDependencyError("needs playwright; pip install 'facestyle[dev]'") from error
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        raise MissingDependencyError("needs chromium or google-chrome; install one of them")
    address = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        began = time.perf_counter()
        stack.enter_context(_demo(address, port))
        seconds: dict[str, Any] = {"start": time.perf_counter() - began}
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=path, args=["--no-sandbox"]
        )
        stack.callback(browser.close)
        page = browser.new_page(viewport={"width": 1280, "height": 900}, locale="en-US")
        page.set_default_timeout(_SHOWN_MS)
        try:
            began = time.perf_counter()
            page.goto(address)
            page.locator("#stylize-status").get_by_text(" s · ").wait_for()
            seconds["opened"] = time.perf_counter() - began
            page.wait_for_function(_SHOWN, arg=["", True], polling=20)
            taken = [_shown(page, photo) for photo in photos]
        except Error as error:
            raise FacestyleError(f"the page shows no portrait ({error})") from error
    first, second = ([both[i] for both in taken] for i in (0, 1))
    seconds |= {"cold": first[0], "warm": statistics.median(first[1:] or first)}
    seconds["closer"] = statistics.median(second[1:] or second)
    return {
        **{name: round(value, 2) for name, value in seconds.items()},
        "photos": len(photos),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }


@contextlib.contextmanager
def _demo(address: str, port: int) -> Iterator[None]:
    """The demo, served until the context ends."""
    settings = os.environ | {
        "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
    }  # fmt: skip
    with tempfile.TemporaryFile() as output:
        demo = subprocess.Popen(
            [sys.executable, str(_APP)], env=settings, stdout=output, stderr=subprocess.STDOUT,
            cwd=_APP.parent,
        )  # fmt: skip
        try:
            _wait(address, demo, output)
            yield
        finally:
            demo.terminate()
            demo.wait()


def _wait(address: str, demo: subprocess.Popen[bytes], output: Any) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and demo.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.1)
    output.seek(0)
    raise FacestyleError(f"the demo did not start: {output.read().decode()[-500:]}")


def _shown(page: Any, photo: str | Path) -> tuple[float, float]:
    """Seconds from choosing a photo to its first portrait, and to the second."""
    was = page.evaluate(_PICTURES)
    if (away := page.locator("#photo button.icon-button").first).is_visible():
        away.click()
    began = time.perf_counter()
    page.locator("#photo input[type=file]").set_input_files(photo)
    seconds = []
    for is_closest in (False, True):
        page.wait_for_function(_SHOWN, arg=[was, is_closest], polling=20)
        seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1]


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m space.first_picture", description=__doc__)
    parser.add_argument("photos", nargs="*", help="default: the demo's own examples, twice")
    parser.add_argument("--port", type=int, default=7899)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = args.photos or _rotated(Path(folder))
        print(json.dumps(measure(photos, port=args.port), indent=2))


def _rotated(folder: Path) -> list[Path]:
    """The single people, and then their mirror images, so that no code is known already."""
    made = []
    for path in people()[:-1]:
        with Image.open(path) as photo:
            for name, picture in (
                ("", photo),
                ("mirror_", photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
            ):
                made.append(folder / f"{name}{path.stem}.png")
                picture.convert("RGB").save(made[-1])
    return made


if __name__ == "__main__":
    _main()
