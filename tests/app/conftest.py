"""One app for all tests here, on tiny networks; and a browser, where there is one."""

import contextlib
import gc
import os
import shutil
from pathlib import Path

import pytest

gr = pytest.importorskip("gradio", reason="the demo needs gradio: pip install 'facestyle[app]'")

from facestyle import FaceStylizer  # noqa: E402
from facestyle.models.bases import save_encoder  # noqa: E402
from facestyle.models.checkpoints import save_tensors  # noqa: E402
from facestyle.models.encoder import Encoder  # noqa: E402
from facestyle.models.importers.checkpoints.folder import FORMAT  # noqa: E402
from facestyle.models.zoo import ENCODER_FILES, GENERATOR_FILE  # noqa: E402
from facestyle.training.state import write_json  # noqa: E402
from space.app import build_app, launch  # noqa: E402
from space.engine import Engine  # noqa: E402

_SETTINGS = (
    "star.coarse_steps=1", "star.coarse_batch=1", "pairs.level=1", "pairs.count=1", "pairs.steps=1",
    "style.pair_level=1", "style.coarse_steps=1", "style.coarse_batch=1", "style.pair_batch=1",
    "style.full_steps=0",
)  # fmt: skip
_ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in Path(item.path).parents:
            # Gradio's queue uses pandas in a way that pandas 3 warns of.
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(autouse=True, scope="module")
def nothing_left():
    """What a demo leaves in cycles goes here, not in a later test that minds warnings."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def stylizers(tiny_stylizer) -> dict[str, FaceStylizer]:
    """Two styles under names that have thumbnails; the second draws with the base generator."""
    other = FaceStylizer(
        tiny_stylizer.base, tiny_stylizer.base, tiny_stylizer.encoder, tiny_stylizer.config,
        device="cpu", dtype="float32",
    )  # fmt: skip
    return {"cartoon": tiny_stylizer, "illustration": other}


@pytest.fixture(scope="session")
def quick() -> list[str]:
    """Arguments of the shortest training there is."""
    return ["--preset", "fast", *(part for one in _SETTINGS for part in ("--set", one))]


@pytest.fixture(scope="session")
def tiny_quick(quick, tiny_stylizer, tmp_path_factory) -> list[str]:
    """The same from a tiny base generator, which saves most of a minute."""
    base, folder = tiny_stylizer.base, tmp_path_factory.mktemp("base")
    metadata = {"architecture": base.architecture, "config": base.config()}
    save_tensors(dict(base.state_dict()), folder / GENERATOR_FILE, metadata=metadata)
    into_z = Encoder(
        space="z_plus", rows=base.num_ws, w_dim=8, input_px=32, hidden=16, row_channels=8
    )
    for encoder in (tiny_stylizer.encoder, into_z):
        save_encoder(encoder, folder / ENCODER_FILES[encoder.space])
    write_json(folder / "config.json", {"format": FORMAT})
    return [*quick, "--base", str(folder)]


@pytest.fixture(scope="session")
def engine(stylizers) -> Engine:
    return Engine(list(stylizers), stylizers.__getitem__, likeness=1)


@pytest.fixture(scope="session")
def served_demo(engine, tiny_quick, tmp_path_factory):
    """The app, served for the whole session."""
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("gradio"))
    demo = build_app(engine, {"fast": tiny_quick})
    launch(demo, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield demo
    demo.close()
    os.environ.pop("GRADIO_TEMP_DIR")


@pytest.fixture(scope="session")
def address(served_demo) -> str:
    """Where it is served."""
    return served_demo.local_url


@pytest.fixture(scope="session")
def chromium():
    """A real browser; skips, saying why, where there is none."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="NO BROWSER TESTS: playwright is not installed"
    )
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("NO BROWSER TESTS: neither chromium nor google-chrome is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory) -> Path:
    """Folder for screenshots: ``$FACESTYLE_SCREENSHOTS``, else a temporary one."""
    folder = os.environ.get("FACESTYLE_SCREENSHOTS")
    path = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def visit(chromium, address, screenshots, request):
    """Opens the app for a new visitor; a screenshot of each page is kept."""
    with contextlib.ExitStack() as stack:

        def open_page(width: int = 1280, height: int = 900, **settings):
            context = chromium.new_context(viewport={"width": width, "height": height}, **settings)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(90_000)
            name = f"{request.node.name}_{len(stack._exit_callbacks)}.png"
            stack.callback(lambda: page.screenshot(path=screenshots / name, full_page=True))
            page.goto(address)
            page.locator("#stylize-status").get_by_text(" s · ").wait_for()
            return page

        yield open_page
