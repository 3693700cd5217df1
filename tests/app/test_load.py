"""Twenty visitors at a time: each is answered with the own picture, knows the own place, and memory stays bounded."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from gradio_client import Client, handle_file
from PIL import Image, ImageEnhance

from facestyle.memory import PeakMemory
from space.app import build_app, launch
from space.engine import Engine

VISITORS, PHOTOS_EACH = 20, 2


def crowd(url, photos, style):
    """Portraits by visitor, seconds until the last one, and the places that were told."""
    ready = threading.Barrier(VISITORS)
    places = []

    def visit(i):
        client = Client(url, verbose=False, httpx_kwargs={"timeout": 300})
        ready.wait()
        made = []
        for photo in photos[i]:
            job = client.submit(
                handle_file(str(photo)), style, 1.0, 0.0, -1.0, 0, "largest", True,
                api_name="/stylize",
            )  # fmt: skip
            while not job.done():
                status = job.status()
                if status.rank is not None:
                    places.append(status.rank)
                time.sleep(0.05)
            with Image.open(job.result()[0]) as image:
                made.append(image.convert("RGB").tobytes())
        return made

    began = time.monotonic()
    with ThreadPoolExecutor(VISITORS) as pool:
        portraits = list(pool.map(visit, range(VISITORS)))
    return portraits, time.monotonic() - began, places


def photos_of(image, folder):
    """Photos that differ from visitor to visitor."""
    rows = []
    for i in range(VISITORS):
        row = []
        for j in range(PHOTOS_EACH):
            path = folder / f"{i}_{j}.png"
            ImageEnhance.Brightness(image).enhance(0.7 + 0.015 * (i * PHOTOS_EACH + j)).save(path)
            row.append(path)
        rows.append(row)
    return rows


def test_twenty_visitors_get_their_own_pictures(address, astronaut, stylizers, tmp_path):
    photos = photos_of(astronaut, tmp_path)
    photos = [row[:1] for row in photos]
    portraits, _, places = crowd(address, photos, "cartoon")
    style = stylizers["cartoon"]
    for row, made in zip(photos, portraits, strict=True):
        wanted = [style(p, faces="largest").faces[0].portrait.tobytes() for p in row]
        assert made == wanted
    assert max(places) > 1  # somebody waited, and was told where


@pytest.mark.slow
def test_twenty_visitors_on_the_bundled_styles_in_bounded_memory(astronaut, tmp_path, capsys):
    engine = Engine()
    demo = build_app(engine)
    _, url, _ = launch(demo, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    try:
        photos = photos_of(astronaut, tmp_path)
        crowd(url, [row[:1] for row in photos], "cartoon")  # all that is kept is there
        with PeakMemory(torch.device("cpu")) as memory:
            portraits, seconds, places = crowd(url, photos, "cartoon")
    finally:
        demo.close()
    assert len({one for row in portraits for one in row}) == VISITORS * PHOTOS_EACH
    assert max(places) > 1
    assert memory.bytes < 3e9
    with capsys.disabled():
        count = VISITORS * PHOTOS_EACH
        print(f"\n{VISITORS} visitors, {count} portraits in {seconds:.1f} s, ", end="")
        print(f"longest queue {max(places)}, peak {memory.bytes / 1e6:.0f} MB")
