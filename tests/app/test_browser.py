"""What a visitor sees and does, in a real browser."""

import functools
import io
import json
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from same_pixels import same_pixels

from facestyle import FaceStylizer
from facestyle.photo_reader import PhotoReader
from space import engine
from space import panel as panel_module
from space.engine import Engine
from space.examples import references
from space.own_training import OwnTraining

ONE_FACE, GREY, TEXT = "me.png", "grey.png", "text.jpg"
LIKENESS = 1  # steps of refine that the app under test takes on every photo


@pytest.fixture(scope="module")
def files(astronaut, tmp_path_factory):
    """Files that visitors bring."""
    folder = tmp_path_factory.mktemp("files")
    astronaut.save(folder / ONE_FACE)
    pair = Image.new("RGB", (1000, 520), "white")
    pair.paste(astronaut, (0, 0))
    pair.paste(astronaut.resize((400, 400)), (560, 0))
    pair.save(folder / "two.png")
    ImageOps.mirror(astronaut).save(folder / "other.png")
    Image.new("RGB", (300, 300), "grey").save(folder / GREY)
    (folder / TEXT).write_text("no picture")
    return folder


def bring(page, path) -> None:
    """Take the photo away and upload another; ends when the page holds it."""
    page.locator("#photo button.icon-button").first.click()  # its label is translated
    with page.expect_response(lambda response: "/upload" in response.url):
        page.locator("#photo input[type=file]").set_input_files(path)
    if path.name != TEXT:
        page.locator("#photo img").wait_for()


def open_tab(page, name: str) -> None:
    """Also one that a narrow screen keeps in the menu at the end of the row."""
    tab = page.get_by_role("tab", name=name)
    if not tab.is_visible():
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown button", has_text=name)
    tab.click()


def saved(page, button: str) -> bytes:
    """The file that a button gives; a click while it is changed, which no person is quick enough for, gives none."""
    from playwright.sync_api import TimeoutError

    until = time.monotonic() + 90
    while True:
        try:
            with page.expect_download(timeout=10_000) as event:
                page.locator(f"#{button}").click(timeout=10_000)
            return Path(event.value.path()).read_bytes()
        except TimeoutError:
            if time.monotonic() > until:
                raise


def downloaded(page, name: str = "stylize") -> bytes:
    """Pixels of what the download button gives."""
    picture = Image.open(io.BytesIO(saved(page, f"{name}-download")))
    return picture.convert("RGB").tobytes()


def slide(page, name: str, value: float) -> None:
    box = page.locator(f"#{name} input[type=number]")
    box.fill(str(value))
    box.press("Enter")


def wait_for_pixels(page, wanted: bytes, name: str = "stylize") -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        if same_pixels(downloaded(page, name), wanted):
            return
        page.wait_for_timeout(250)
    raise AssertionError("the download never became the picture of the Python API")


def portrait(style, photo, *, refine=LIKENESS, **options) -> bytes:
    """Pixels of the largest face's portrait as the page draws it."""
    return style(photo, refine=refine, **options).faces[0].portrait.tobytes()


def test_an_uploaded_photo_follows_its_sliders_to_the_librarys_pixels(visit, files, stylizers):
    page = visit()
    bring(page, files / ONE_FACE)
    style = stylizers["cartoon"]
    seen, like = (portrait(style, files / ONE_FACE, refine=steps) for steps in (0, LIKENESS))
    assert not same_pixels(seen, like)
    wait_for_pixels(page, like)
    slide(page, "strength", 1.5)
    wait_for_pixels(page, portrait(style, files / ONE_FACE, strength=1.5))
    page.locator("#stylize-code").get_by_role("button").first.click()
    python = page.locator("#stylize-python").inner_text()
    assert "strength=1.5" in python and f"refine={LIKENESS}" in python
    slide(page, "refine", 0)
    page.locator("#refine input[type=range]").dispatch_event("pointerup")
    wait_for_pixels(page, portrait(style, files / ONE_FACE, strength=1.5, refine=0))
    slide(page, "keep-texture", 1)
    kept = portrait(style, files / ONE_FACE, strength=1.5, refine=0, keep_texture=1)
    assert not same_pixels(kept, portrait(style, files / ONE_FACE, strength=1.5, refine=0))
    wait_for_pixels(page, kept)
    slide(page, "keep-shape", 1)
    shaped = portrait(style, files / ONE_FACE, strength=1.5, refine=0, keep_texture=1, keep_shape=1)
    assert not same_pixels(shaped, kept)
    wait_for_pixels(page, shaped)
    page.locator("#reset").click()
    wait_for_pixels(page, like)


def test_the_first_picture_of_a_photo_is_not_waited_for(visit, files, stylizers, monkeypatch):
    waiting = threading.Event()

    def slow(self, *args, **options):
        waiting.wait(30)
        return refined(self, *args, **options)

    page = visit()
    refined = PhotoReader.refine
    monkeypatch.setattr(PhotoReader, "refine", slow)
    try:
        bring(page, files / "other.png")
        style = stylizers["cartoon"]
        wait_for_pixels(page, portrait(style, files / "other.png", refine=0))
    finally:
        waiting.set()
    monkeypatch.undo()
    wait_for_pixels(page, portrait(style, files / "other.png"))


def test_a_style_is_picked_from_the_gallery(visit, files, stylizers):
    page = visit()
    bring(page, files / ONE_FACE)
    page.locator("#styles button").nth(1).click()
    wait_for_pixels(page, portrait(stylizers["illustration"], files / ONE_FACE))


def test_the_last_of_two_quick_clicks_on_styles_counts(visit, files, stylizers, monkeypatch):
    page = visit()
    bring(page, files / ONE_FACE)
    wait_for_pixels(page, portrait(stylizers["cartoon"], files / ONE_FACE))
    monkeypatch.setattr(Engine, "names", rested(Engine.names))
    page.locator("#styles button").nth(1).click()
    page.wait_for_timeout(300)
    page.locator("#styles button").nth(0).click()
    page.wait_for_timeout(4000)
    wait_for_pixels(page, portrait(stylizers["cartoon"], files / ONE_FACE))


def rested(function):
    """The same, a second later."""

    def later(*args, **options):
        time.sleep(1)
        return function(*args, **options)

    return later


def test_a_face_is_left_out(visit, files, stylizers):
    page = visit()
    bring(page, files / "two.png")
    page.locator("#chosen input").nth(1).wait_for()
    style = stylizers["cartoon"]
    both, one = (
        style(files / "two.png", faces=faces, refine=LIKENESS).image.tobytes()
        for faces in ("all", [0])
    )
    assert not same_pixels(both, one)
    wait_for_pixels(page, both)
    page.locator("#chosen input").nth(1).uncheck()
    wait_for_pixels(page, one)


@pytest.mark.parametrize(
    ("file", "advice"), [(TEXT, "expected a JPEG"), (GREY, "upright, in focus")]
)
def test_advice_stands_beside_the_photo(visit, files, file, advice):
    page = visit()
    bring(page, files / file)
    page.locator("#panel").get_by_text(advice).first.wait_for()


def choose_cut(page, number: int) -> None:
    """How the face is to be found; opens the choice first, if it is closed."""
    choice = page.locator("#cut input").nth(number)
    if not choice.is_visible():
        page.locator("#cutting button").first.click()
    choice.check()


def test_a_photo_without_a_face_found_is_drawn_from_its_middle(
    visit, files, stylizers, monkeypatch
):
    ours_alone = functools.partial(engine.compare_photo, methods=("ours",))
    monkeypatch.setattr(engine, "compare_photo", ours_alone)  # another test draws with them all
    page = visit()
    assert not page.locator("#cut").is_visible()
    bring(page, files / GREY)
    page.locator("#photo-message").get_by_text("Finding the face").wait_for()
    page.locator("#cut").wait_for()  # it is opened beside the advice
    choose_cut(page, 1)
    style, cut = stylizers["cartoon"], {"on_no_face": "center"}
    wait_for_pixels(page, portrait(style, files / GREY, **cut))
    page.locator("#photo-message").wait_for(state="hidden")
    page.locator("#stylize-code").get_by_role("button").first.click()
    assert "on_no_face='center'" in page.locator("#stylize-python").inner_text()
    page.get_by_role("tab", name="Variations").click()
    page.locator("#draw-eight").click()
    page.locator("#variations button img").nth(7).wait_for()
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-go").click()
    page.locator("#compare-table").get_by_text("Measured live").wait_for(timeout=300_000)


def test_a_photo_cut_out_already_is_taken_as_it_is_and_the_next_one_is_not(visit, files, stylizers):
    page = visit()
    style = stylizers["cartoon"]
    bring(page, files / ONE_FACE)
    found, whole = (portrait(style, files / ONE_FACE, **cut) for cut in ({}, {"aligned": True}))
    assert not same_pixels(found, whole)
    wait_for_pixels(page, found)
    choose_cut(page, 2)
    wait_for_pixels(page, whole)
    slide(page, "strokes", 5)
    wait_for_pixels(page, portrait(style, files / ONE_FACE, aligned=True, seed=5))
    page.locator("#reset").click()
    wait_for_pixels(page, whole)
    bring(page, files / "other.png")
    wait_for_pixels(page, portrait(style, files / "other.png"))
    assert page.locator("#cut input").nth(0).is_checked()


def test_a_training_waits_says_so_and_is_stopped_meanwhile(visit, monkeypatch):
    started = []

    def start(self):
        started.append(self)
        self._process = subprocess.Popen(["sleep", "300"], start_new_session=True)

    monkeypatch.setattr(OwnTraining, "start", start)
    pages = ada, grace = visit(), visit()
    for page in pages:
        open_tab(page, "Your style")
        page.locator("#own-files input[type=file]").set_input_files(references("cartoon"))
        page.locator("#own-license input").fill("CC0-1.0")
        page.locator("#own-files").get_by_text("KB").nth(2).wait_for()
    ada.locator("#own-train").click()
    ada.locator("#own-status progress").wait_for()
    for _ in range(100):
        if started:
            break
        ada.wait_for_timeout(100)
    grace.locator("#own-train").click()
    grace.locator("#own-status").get_by_text("Another visitor").wait_for()
    grace.locator("#own-stop").click()
    grace.locator("#own-message").get_by_text("Stopped").wait_for()
    grace.locator("#own-status").wait_for(state="hidden")
    grace.locator("#own-train").click()  # and in the queue again
    grace.locator("#own-status").get_by_text("Another visitor").wait_for()
    ada.locator("#own-stop").click()
    ada.locator("#own-message").get_by_text("Stopped").wait_for()
    grace.locator("#own-status progress").wait_for()
    for _ in range(100):
        if len(started) == 2:
            break
        grace.wait_for_timeout(100)
    grace.locator("#own-stop").click()
    grace.locator("#own-message").get_by_text("Stopped").wait_for()
    grace.wait_for_timeout(1500)
    assert len(started) == 2
    assert [training.is_running for training in started] == [False, False]


def test_a_variation_is_picked_and_gone_on_with(visit, files, stylizers):
    page = visit()
    bring(page, files / ONE_FACE)
    page.get_by_role("tab", name="Variations").click()
    page.locator("#seed input").fill("40")
    page.locator("#draw-eight").click()
    page.locator("#variations button img").nth(7).wait_for()
    page.locator("#variations button").nth(2).click()
    page.locator("#variation-status").get_by_text("seed 42").wait_for()
    direct = stylizers["cartoon"].variations(files / ONE_FACE, 1, seed=42, refine=LIKENESS)[0]
    assert same_pixels(downloaded(page, "variation"), direct.faces[0].portrait.tobytes())


def test_variations_of_a_style_left_meanwhile_are_not_shown(visit, files, monkeypatch):
    left, drawn = threading.Event(), threading.Event()

    def slow(self, *args, **options):
        left.wait(30)
        made = variations(self, *args, **options)
        drawn.set()
        return made

    variations = Engine.variations
    page = visit()
    bring(page, files / ONE_FACE)
    page.get_by_role("tab", name="Variations").click()
    monkeypatch.setattr(Engine, "variations", slow)
    page.locator("#draw-eight").click()
    page.wait_for_timeout(1000)
    page.locator("#styles button").nth(1).click()
    page.wait_for_timeout(1000)
    left.set()
    assert drawn.wait(60)
    page.wait_for_timeout(3000)
    assert page.locator("#variations button img").count() == 0


def bring_two(page, files) -> None:
    """A photo of two people, and the page has seen both."""
    bring(page, files / "two.png")
    page.locator("#chosen input").nth(1).wait_for()


def study(page, reference) -> None:
    """Bring a reference of one's own and follow it."""
    open_tab(page, "Reference")
    page.locator("#reference input[type=file]").set_input_files(reference)
    page.locator("#reference img").first.wait_for()
    page.locator("#follow").click()


def test_a_reference_of_ones_own_is_followed_and_its_sliders_answer(visit, files, stylizers):
    page = visit()
    bring_two(page, files)
    study(page, files / "other.png")
    page.locator("#reference-status").get_by_text(" s · ").wait_for()
    style = stylizers["cartoon"]
    code = style.encode_reference(files / "other.png")
    like = [
        style.with_reference(files / "two.png", code, mixing_level=level, refine=LIKENESS)
        for level in (6, 3)
    ]
    portraits = [one.faces[0].portrait.tobytes() for one in like]
    assert not same_pixels(*portraits)
    wait_for_pixels(page, like[0].image.tobytes(), "reference")  # both people
    page.locator("#reference-view label").first.click()
    wait_for_pixels(page, portraits[0], "reference")
    page.locator("#reference-level label", has_text="3").first.click()
    wait_for_pixels(page, portraits[1], "reference")
    page.locator("#reference-code").get_by_role("button").first.click()
    assert "mixing_level=3" in page.locator("#reference-python").inner_text()
    for box in page.locator("#chosen input").all():
        box.uncheck()
    page.locator("#reference-level label", has_text="9").first.click()
    page.locator("#reference-message").get_by_text("No face is chosen").wait_for()


def test_faces_left_out_one_right_after_another_stay_out(visit, files, monkeypatch):
    """The picture of the first has not been drawn yet when the second is left out."""
    drawn = panel_module.faces_drawn

    def slow(*args):
        time.sleep(1)
        return drawn(*args)

    page = visit()
    bring_two(page, files)
    monkeypatch.setattr(panel_module, "faces_drawn", slow)
    boxes = page.locator("#chosen input")
    page.wait_for_timeout(3000)
    boxes.nth(0).uncheck()
    page.wait_for_timeout(900)
    boxes.nth(1).uncheck()
    page.wait_for_timeout(4000)
    assert not any(box.is_checked() for box in boxes.all())


def test_the_study_of_a_reference_is_stopped(visit, files, monkeypatch):
    page = in_a_slow_study(visit, files, monkeypatch)
    page.locator("#stop").click()
    page.locator("#reference-message").get_by_text("Stopped").wait_for()
    page.locator("#reference-status").get_by_text("2 faces").wait_for()
    with Image.open(files / "two.png") as photo:
        assert len(downloaded(page, "reference")) == photo.width * photo.height * 3


def in_a_slow_study(visit, files, monkeypatch):
    """A page on which the study of a reference for two faces has begun, and takes its time."""
    monkeypatch.setattr(Engine, "code", slowly(Engine.code))
    page = visit()
    bring_two(page, files)
    study(page, files / "other.png")
    page.locator(
        "#reference-result .progress-text, #reference-result .progress-level"
    ).first.wait_for()
    return page


def slowly(code):
    """`Engine.code` that rests at every step, so that there is time to stop it."""

    def rested(self, *args, on_step, **options):
        def step(number):
            time.sleep(0.3)
            return on_step(number)

        return code(self, *args, on_step=step, **options)

    return rested


def test_a_slider_moved_during_a_study_counts_when_it_ends(visit, files, stylizers, monkeypatch):
    page = in_a_slow_study(visit, files, monkeypatch)
    page.locator("#reference-level label", has_text="3").first.click()
    style = stylizers["cartoon"]
    code = style.encode_reference(files / "other.png")
    like = style.with_reference(files / "two.png", code, mixing_level=3, refine=LIKENESS)
    wait_for_pixels(page, like.image.tobytes(), "reference")


def test_methods_are_compared_on_the_visitors_photo_and_on_one_measured_before(visit, files):
    page = visit()
    open_tab(page, "Compare")
    page.locator("#compare-prepared").click()
    page.locator("#compare-table th", has_text="Toonify").wait_for()
    bring_two(page, files)  # what was measured before stays
    page.locator("#pair label", has_text="Toonify").click()
    page.locator("#compare-result img").first.wait_for()
    known = Image.open(io.BytesIO(saved(page, "compare-png")))
    assert known.format == "PNG" and known.width > 1000
    page.locator("#compare-go").click()
    page.locator("#compare-table").get_by_text("Measured live").wait_for(timeout=300_000)
    report = json.loads(saved(page, "compare-json"))
    ours, *others = report["methods"]
    assert ours["method"] == "ours"
    assert ours["seconds"] > 0
    assert {row["method"] for row in others if row.get("why")} >= {"toonify", "ntc", "styleid"}
    assert Image.open(io.BytesIO(saved(page, "compare-png"))).width > 128
    bring(page, files / ONE_FACE)
    page.locator("#compare-table").wait_for(state="hidden")


def test_two_visitors_see_their_own_pictures(visit, files, stylizers):
    ada, grace = visit(), visit()
    bring(ada, files / ONE_FACE)
    bring(grace, files / "two.png")
    style = stylizers["cartoon"]
    wait_for_pixels(ada, portrait(style, files / ONE_FACE))
    wait_for_pixels(grace, style(files / "two.png", refine=LIKENESS).image.tobytes())


def test_a_phone_shows_it_whole_and_in_its_own_language(visit):
    page = visit(390, 844, locale="de-DE")
    page.get_by_text("Ihr Foto").first.wait_for()
    for tab in ("Varianten", "Vorbild", "Vergleich", "Eigener Stil"):
        open_tab(page, tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_style_of_ones_own_is_trained_used_and_never_pushed_without_a_token(
    visit, files, monkeypatch, tmp_path
):
    given = []
    monkeypatch.setattr(
        FaceStylizer, "push_to_hub", lambda self, repo, **how: given.append((repo, how)) or "there"
    )
    page = visit()
    bring(page, files / ONE_FACE)
    open_tab(page, "Your style")
    pictures = [path for style in ("cartoon", "anime") for path in references(style)]
    page.locator("#own-files input[type=file]").set_input_files(pictures)
    page.locator("#own-license input").fill("CC0-1.0")
    page.locator("#own-look").click()
    page.locator("#own-found").get_by_text("6 of 6 pictures").wait_for()
    page.locator("#own-sheet img").wait_for()
    page.locator("#own-train").click()
    page.locator("#own-status progress").wait_for()
    page.locator("#own-done").wait_for(timeout=480_000)
    page.locator("#own-preview img").wait_for()
    with page.expect_download() as event:
        page.locator("#own-download").click()
    with zipfile.ZipFile(event.value.path()) as archive:
        archive.extractall(tmp_path)

    page.locator("#own-push button").first.click()
    page.locator("#own-repo input").fill("ada/my-style")
    page.locator("#own-push-go").click()
    page.locator("#own-pushed").get_by_text("give a token").wait_for()
    page.locator("#own-token input").fill("hf_mine")
    page.locator("#own-push-go").click()
    page.locator("#own-pushed").get_by_text("there").wait_for()
    assert given == [("ada/my-style", {"token": "hf_mine", "private": True})]
    assert page.locator("#own-token input").input_value() == ""

    page.locator("#own-use").click()
    mine = FaceStylizer.from_pretrained(tmp_path / "my-style", device="cpu")
    wait_for_pixels(page, portrait(mine, files / ONE_FACE))
    assert page.locator("#styles button").count() == 3
    page.locator("#styles button").first.click()  # and back


def test_pictures_have_words_for_those_who_do_not_see_them(visit):
    page = visit()
    for image in page.locator("#photo img, #styles img").all():
        assert image.get_attribute("alt")
