"""A style folder is checked, told apart, cleaned of copies, cut out and written so that a killed run goes on."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import facestyle
from facestyle.errors import ConfigError, DatasetError, OutputError
from facestyle.faces.align import full_image_quad, quad_side_px
from facestyle.faces.detect import Face, FaceDetector
from facestyle.image import load_image
from facestyle.training.data import PictureSet
from facestyle.training.folder import check_folder
from facestyle.training.folder_report import FolderReport
from facestyle.training.prepare import folder_sheet, prepare_pictures, recall_report

# Landmarks of a face whose FFHQ square is [0, 1] x [0, 1].
FFHQ_LANDMARKS = np.array([[0.375, 0.475], [0.625, 0.475], [0.5, 0.6], [0.4, 0.725], [0.6, 0.725]])


class FakeDetector(FaceDetector):
    """Finds a face of a given side at a given middle, in pixels, whatever the picture; counts its calls."""

    def __init__(self, side_px: float = 0.0, middle: tuple[float, float] = (0.0, 0.0)) -> None:
        super().__init__()
        self.side_px_, self.middle = side_px, np.array(middle)
        self.calls = 0

    def detect(self, image: Image.Image) -> list[Face]:
        self.calls += 1
        if not self.side_px_:
            return []
        landmarks = (FFHQ_LANDMARKS - 0.5) * self.side_px_ + self.middle
        return [Face((0, 0, 1, 1), 1.0, landmarks)]


class NoDetector(FaceDetector):
    """Fails the test when it is asked."""

    def detect(self, image: Image.Image) -> list[Face]:
        raise AssertionError("no faces are to be looked for")


@pytest.fixture(scope="module")
def head() -> Image.Image:
    """An aligned head of a person who does not exist, 256 px."""
    path = Path(facestyle.__file__).parent / "assets" / "sample.png"
    return load_image(path).resize((256, 256), Image.Resampling.LANCZOS)


def tinted(image: Image.Image, step: int) -> Image.Image:
    """The picture in another colour and brightness: alike in shape, and no copy."""
    gains = np.array([1.0, 1 - 0.04 * (step % 3), 1 - 0.05 * (step % 4)]) * (1 - 0.06 * step)
    return Image.fromarray((np.asarray(image) * gains).round().astype(np.uint8))


def drawing(seed: int, size: tuple[int, int] = (224, 224)) -> Image.Image:
    """Coloured blocks, no face in them."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)


def fill(folder: Path, pictures: dict[str, Image.Image]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in pictures.items():
        image.save(folder / name)
    return folder


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    return fill(tmp_path / "set", {f"{i}.png": drawing(i) for i in range(6)})


def check(source: Path | list[Path], **settings: object) -> FolderReport:
    settings.setdefault("detector", FakeDetector())
    return check_folder(source, progress=False, **settings)  # type: ignore[arg-type]


def verdicts(report: FolderReport) -> dict[str, str]:
    return {picture.name: picture.verdict for picture in report.pictures}


# ---- which kind of set -------------------------------------------------------------------------------------------


def test_aligned_heads_are_used_whole_and_a_stray_one_is_cut_out(
    tmp_path: Path, head: Image.Image
) -> None:
    far = Image.new("RGB", (700, 700), (90, 120, 160))
    far.paste(head, (380, 60))
    source = fill(tmp_path / "set", {f"{i}.png": tinted(head, i) for i in range(6)})
    fill(source, {"far.png": far})
    report = check(source, detector=None)
    assert report.is_aligned and "6 of 7 faces lie where FFHQ puts them" in report.alignment
    *whole, cut = report.pictures
    assert [picture.reason for picture in whole] == ["whole"] * 6
    assert np.array_equal(whole[0].quad, full_image_quad((256, 256)))
    centre = np.mean(cut.quad, axis=0)
    assert np.abs(centre - [380 + 127.5, 60 + 127.5]).max() < 20
    assert quad_side_px(cut.quad) == pytest.approx(256, rel=0.12)


def test_faces_of_whole_pictures_are_cut_out_where_ffhq_would(
    tmp_path: Path, head: Image.Image
) -> None:
    pictures = {}
    for i in range(5):
        scene = drawing(i, (640, 420))
        scene.paste(tinted(head, i), (20 + 80 * i, 10 + 30 * i))
        pictures[f"{i}.jpg"] = scene
    pictures["nobody.jpg"] = drawing(9, (640, 420))
    report = check(fill(tmp_path / "set", pictures), detector=None)
    assert not report.is_aligned and "only 0 of 6 pictures are square" in report.alignment
    assert verdicts(report) == {**{f"{i}.jpg": "used" for i in range(5)}, "nobody.jpg": "no face"}
    folder = prepare_pictures(report, tmp_path / "out", progress=False)
    assert check(folder, detector=None).is_aligned
    cuts = PictureSet(folder, 128)
    for i in range(5):
        wanted = np.asarray(tinted(head, i).resize((128, 128)), dtype=float)
        gap = np.abs(cuts[i].permute(1, 2, 0).numpy() - wanted)[32:96, 32:96].mean()
        assert gap < 0.2 * wanted.mean()


def test_squares_without_findable_faces_count_as_aligned(drawings: Path) -> None:
    report = check(drawings, detector=None)
    assert report.is_aligned
    assert "a face is found in only 0 of 6, as is usual for drawn ones" in report.alignment
    assert len(report.used) == 6


class WanderingDetector(FakeDetector):
    """As its parent, but each call finds the face further right by a step."""

    step_px = 0.0

    def detect(self, image: Image.Image) -> list[Face]:
        faces = super().detect(image)
        for face in faces:
            face.landmarks[:, 0] += self.step_px * self.calls
        return faces


def test_a_set_whose_heads_agree_on_another_place_is_cut_by_one_square(tmp_path: Path) -> None:
    source = fill(tmp_path / "set", {f"{i:02}.png": drawing(i) for i in range(12)})
    detector = FakeDetector(200, (111.5, 123.5))
    report = check(source, detector=detector)
    assert report.is_aligned and "cut by one square" in report.alignment
    for picture in report.used:
        assert np.allclose(np.mean(picture.quad, axis=0), [111.5, 123.5], atol=0.2)
        assert quad_side_px(picture.quad) == pytest.approx(200, rel=0.01)
        assert picture.reason == "by the set's square"
    folder = prepare_pictures(report, tmp_path / "out", progress=False)
    kept = np.asarray(load_image(min(folder.glob("*.png"))), dtype=float)
    first = np.asarray(drawing(0), dtype=float)[24:, 12:212]
    assert kept.shape == (200, 200, 3)
    assert np.abs(kept[4:196, 4:196] - first[4:196, 4:196]).mean() < 6


def test_few_heads_or_such_as_disagree_move_no_set(tmp_path: Path) -> None:
    source = fill(tmp_path / "set", {f"{i:02}.png": drawing(i) for i in range(12)})
    wandering = WanderingDetector(200, (70.0, 123.5))
    wandering.step_px = 6.0
    at_home = FakeDetector(218, (112.5, 113.5))
    for detector in (wandering, at_home):
        report = check(source, detector=detector)
        assert report.is_aligned and "used whole" in report.alignment
        assert np.array_equal(report.used[0].quad, full_image_quad((224, 224)))
    few = fill(tmp_path / "few", {f"{i}.png": drawing(i) for i in range(6)})
    report = check(few, detector=FakeDetector(200, (111.5, 123.5)))
    assert np.array_equal(report.used[0].quad, full_image_quad((224, 224)))


def test_squares_with_faces_elsewhere_are_cut_out(drawings: Path) -> None:
    report = check(drawings, detector=FakeDetector(100, (60, 60)), min_side_px=64)
    assert not report.is_aligned and "only 0 of 6 faces lie where" in report.alignment
    assert [quad_side_px(picture.quad) for picture in report.used] == pytest.approx([100] * 6)


def test_pictures_cut_closer_than_ffhq_stay_whole_with_a_warning(drawings: Path) -> None:
    report = check(drawings, detector=FakeDetector(330, (111, 100)))
    assert report.is_aligned and len(report.used) == 6
    assert any("cut closer to the face" in warning for warning in report.warnings)


def test_oblong_pictures_of_an_aligned_set_need_a_face(drawings: Path) -> None:
    fill(drawings, {"wide.png": drawing(20, (448, 224))})
    report = check(drawings)
    assert report.is_aligned and verdicts(report)["wide.png"] == "no face"
    everything = check(drawings, aligned="yes", detector=NoDetector())
    assert len(everything.used) == 7
    assert everything.pictures[-1].quad == (
        (111.5, -0.5),
        (111.5, 223.5),
        (335.5, 223.5),
        (335.5, -0.5),
    )


def test_aligned_no_needs_a_face_in_each(drawings: Path) -> None:
    advice = r"only 0 of 6 .* no face: 6: .*\(--aligned yes, in Python aligned=\"yes\"\)"
    with pytest.raises(DatasetError, match=advice):
        check(drawings, aligned="no")
    assert len(check(drawings, aligned="no", detector=FakeDetector(220, (112, 112))).used) == 6


def test_faces_too_small_or_cut_off_are_left_out(drawings: Path) -> None:
    settings = {"aligned": "no", "min_pictures": 0}
    small = check(drawings, detector=FakeDetector(120, (112, 112)), **settings)
    assert small.counts == {"face too small": 6}
    assert "its square has 120 px" in small.format()
    outside = check(drawings, detector=FakeDetector(200, (200, 112)), **settings)
    assert outside.counts == {"face cut off": 6}
    assert "38% of its square is outside" in outside.format()


def test_a_least_side_that_is_too_large_can_be_lowered_as_the_advice_says(tmp_path: Path) -> None:
    source = fill(tmp_path / "set", {f"{i}.png": drawing(i, (150, 150)) for i in range(6)})
    advice = r"allow less than 192 px \(--min-side PX, in Python min_side_px\)"
    with pytest.raises(DatasetError, match=advice):
        check(source)
    assert len(check(source, min_side_px=150).used) == 6


def test_squares_with_faces_elsewhere_may_be_told_to_be_cut_out(drawings: Path) -> None:
    class Sometimes(FakeDetector):
        def detect(self, image: Image.Image) -> list[Face]:
            faces = super().detect(image)
            return faces if self.calls <= 5 else []

    fill(drawings, {f"{i}.png": drawing(i) for i in range(6, 12)})
    report = check(drawings, detector=Sometimes(60, (40, 40)))
    assert any('(--aligned no, in Python aligned="no")' in warning for warning in report.warnings)


# ---- bad folders -------------------------------------------------------------------------------------------------


def test_folders_without_pictures_say_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder or zip"):
        check(tmp_path / "absent")
    with pytest.raises(DatasetError, match=r"no pictures in it; put .*png"):
        check(tmp_path)
    (tmp_path / "IMG_1.HEIC").write_bytes(b"photo")
    (tmp_path / "IMG_2.heic").write_bytes(b"photo")
    advice = "broken: 2: .*What helps: save HEIC photos as JPEG or PNG, or pip install pillow-heif;"
    with pytest.raises(DatasetError, match=advice):
        check(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("notes.txt", "none")
    with pytest.raises(DatasetError, match=r"but 1 \.txt file"):
        check(tmp_path / "x.zip")


def test_one_picture_is_too_few(tmp_path: Path) -> None:
    source = fill(tmp_path / "set", {"only.png": drawing(0)})
    with pytest.raises(
        DatasetError, match=r"only 1 of 1 pictures can be used.*5 or more.*add more"
    ):
        check(source)
    assert len(check(source, min_pictures=1).used) == 1


def test_no_faces_anywhere_is_an_error_with_advice(tmp_path: Path) -> None:
    source = fill(tmp_path / "set", {f"{i}.png": drawing(i, (400, 250)) for i in range(6)})
    with pytest.raises(
        DatasetError, match=r"no face: 6: 0\.png, 1\.png, .*2 more.*crop them"
    ) as caught:
        check(source)
    assert caught.value.path == source


def test_broken_and_small_ones_among_good_ones_are_named(drawings: Path) -> None:
    (drawings / "empty.png").write_bytes(b"")
    (drawings / "half.png").write_bytes((drawings / "0.png").read_bytes()[:900])
    (drawings / "text.jpg").write_text("no picture")
    fill(drawings, {"icon.png": drawing(7, (100, 90)), "dot.png": drawing(8, (8, 8))})
    fill(drawings, {"large.png": drawing(9, (700, 700))})
    report = check(drawings)
    assert report.counts == {"used": 7, "broken": 3, "too small": 2}
    assert verdicts(report)["large.png"] == "used"
    text = report.format()
    assert "7 of 12 pictures are used" in text
    assert "broken: 3: empty.png (the file is empty (0 bytes)), half.png" in text
    assert "icon.png (100 x 90 px)" in text
    assert "6 of 7 are smaller than 256 px" in text


def test_few_pictures_are_warned_of(tmp_path: Path) -> None:
    few = fill(tmp_path / "few", {f"{i}.png": drawing(i) for i in range(19)})
    assert any("19 pictures are few" in warning for warning in check(few).warnings)
    enough = fill(few, {"19.png": drawing(19, (256, 256))})
    assert not any("are few" in warning for warning in check(enough).warnings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"aligned": "perhaps"}, "aligned"), ({"min_side_px": 8}, "min_side_px")],
)
def test_settings_out_of_range(drawings: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(drawings, **settings)
    with pytest.raises(ConfigError, match="no folder"):
        check([])


# ---- near-copies -------------------------------------------------------------------------------------------------


def test_copies_saved_anew_resized_or_mirrored_are_left_out(
    tmp_path: Path, head: Image.Image
) -> None:
    source = fill(
        tmp_path / "set", {"0.png": head, **{f"{i}.png": drawing(i) for i in range(1, 6)}}
    )
    head.save(source / "a.jpg", quality=30)
    head.resize((200, 200), Image.Resampling.BILINEAR).save(source / "b.png")
    head.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(source / "c.jpg", quality=60)
    report = check(source)
    assert report.counts == {"used": 6, "copy": 3}
    reasons = [picture.reason for picture in report.left_out]
    assert reasons == ["copy of 0.png", "copy of 0.png", "mirrored copy of 0.png"]
    assert {picture.copy_of for picture in report.left_out} == {0}


def test_a_larger_copy_stays_in_place_of_the_first(tmp_path: Path, head: Image.Image) -> None:
    source = fill(tmp_path / "set", {f"{i}.png": drawing(i) for i in range(2, 7)})
    mirrored = head.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    fill(source, {"0.png": head, "1.png": mirrored, "8.png": mirrored.resize((512, 512))})
    detector = FakeDetector()
    report = check(source, detector=detector)
    reasons = {picture.name: picture.reason for picture in report.left_out}
    assert reasons == {"0.png": "mirrored copy of 8.png", "1.png": "copy of 8.png"}
    assert {picture.copy_of for picture in report.left_out} == {7}
    assert detector.calls == 7  # not for 1.png


def test_the_first_of_several_sources_stays(drawings: Path, tmp_path: Path) -> None:
    second = fill(tmp_path / "second", {"x.png": drawing(3), "y.png": drawing(30)})
    report = check([second, drawings])
    assert [picture.name for picture in report.pictures[:3]] == ["x.png", "y.png", "0.png"]
    (copy,) = report.left_out
    assert (copy.name, copy.reason, copy.source) == ("3.png", "copy of x.png", str(drawings))


def test_small_changes_and_other_colours_are_no_copies(tmp_path: Path, head: Image.Image) -> None:
    winking = head.copy()
    ImageDraw.Draw(winking).rectangle((80, 105, 120, 125), fill=(230, 180, 150))
    pictures = {"0.png": head, "1.png": winking, "2.png": tinted(head, 1)}
    stretched = {"3.png": head.resize((256, 300))}
    report = check(fill(tmp_path / "set", pictures | stretched), min_pictures=0, aligned="yes")
    assert report.counts == {"used": 4}


def test_more_pictures_than_the_first_table_of_copies_holds(tmp_path: Path) -> None:
    pictures = {f"{i:03d}.png": drawing(i, (64, 64)) for i in range(70)}
    source = fill(tmp_path / "set", pictures | {"zz.png": drawing(66, (64, 64))})
    report = check(source, min_side_px=64, aligned="yes")
    assert report.counts == {"used": 70, "copy": 1}
    assert report.left_out[0].reason == "copy of 066.png"


# ---- the report --------------------------------------------------------------------------------------------------


def test_reports_survive_json(drawings: Path) -> None:
    (drawings / "bad.png").write_bytes(b"bad")
    fill(drawings, {"copy.png": drawing(2)})
    report = check(drawings)
    content = json.loads(json.dumps(report.as_dict()))
    assert content["counts"] == {"used": 6, "broken": 1, "copy": 1}
    assert FolderReport.from_dict(content) == report
    with pytest.raises(ConfigError, match="no report"):
        FolderReport.from_dict({"pictures": []})


def test_the_sheet_frames_left_out_ones_red_and_used_ones_green(drawings: Path) -> None:
    (drawings / "bad.png").write_bytes(b"bad")
    fill(drawings, {"copy.png": drawing(2)})
    sheet = folder_sheet(check(drawings), cell_px=120, per_row=4)
    assert sheet.size == (4 * 124 + 4, 2 * 124 + 4)

    def frame(column: int, row: int) -> str:
        strip = sheet.crop((4 + column * 124, 4 + row * 124, 124 + column * 124, 40 + row * 124))
        colors = {color for _, color in strip.getcolors(1 << 16)}
        return "red" if (205, 45, 45) in colors else "green" if (40, 160, 70) in colors else ""

    # bad.png, then 2.png and its copy, then the others
    assert [frame(i % 4, i // 4) for i in range(8)] == ["red", "green", "red"] + ["green"] * 5
    assert folder_sheet(check(drawings), cell_px=120, per_row=4, limit=3).height == 124 + 4


# ---- prepared pictures -------------------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_squares_keep_their_pixels_and_large_ones_are_reduced(
    drawings: Path, tmp_path: Path
) -> None:
    fill(drawings, {"large one!.png": drawing(9, (700, 700))})
    folder = prepare_pictures(check(drawings), tmp_path / "a" / "out", side_px=300, progress=False)
    names = sorted(path.name for path in folder.glob("*.png"))
    assert names[0] == "00000_0.png" and names[-1] == "00006_large_one_.png" and len(names) == 7
    assert np.array_equal(load_image(folder / names[3]), drawing(3))
    assert load_image(folder / names[-1]).size == (300, 300)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["is_complete"] and manifest["files"][names[3]]["name"] == "3.png"
    assert len(manifest["files"][names[3]]["sha256"]) == 64
    assert len(PictureSet(folder, 64)) == 7


def test_the_same_again_writes_nothing(drawings: Path, tmp_path: Path) -> None:
    folder = prepare_pictures(check(drawings), tmp_path / "out", progress=False)
    before = files_of(folder)
    assert prepare_pictures(check(drawings), folder, progress=False) == folder
    assert files_of(folder) == before


def test_a_killed_run_goes_on(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, replace = check(drawings), os.replace

    def killed_at_the_fourth(source: str, target: str) -> None:
        if Path(target).name.startswith("00003"):
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed_at_the_fourth)
        prepare_pictures(report, tmp_path / "out", progress=False)
    before = files_of(tmp_path / "out")
    assert not json.loads((tmp_path / "out" / "manifest.json").read_text())["is_complete"]
    (tmp_path / "out" / ".00003_3.png.abcd.tmp").write_bytes(b"left by kill -9")
    assert recall_report(tmp_path / "out", drawings) == report
    prepare_pictures(report, tmp_path / "out", progress=False)
    after = files_of(tmp_path / "out")
    assert sorted(after) == [*(f"0000{i}_{i}.png" for i in range(6)), "manifest.json"]
    assert all(after[f"0000{i}_{i}.png"] == before[f"0000{i}_{i}.png"] for i in range(3))


def test_another_set_replaces_the_files_of_the_one_before(drawings: Path, tmp_path: Path) -> None:
    folder = prepare_pictures(check(drawings), tmp_path / "out", progress=False)
    before = files_of(folder)
    drawing(50).save(drawings / "1.png")
    (drawings / "5.png").unlink()
    prepare_pictures(check(drawings), folder, progress=False)
    after = files_of(folder)
    assert "00005_5.png" not in after and len(after) == 6
    assert after["00002_2.png"] == before["00002_2.png"]
    assert np.array_equal(load_image(folder / "00001_1.png"), drawing(50))
    prepare_pictures(check(drawings), folder, side_px=200, progress=False)
    assert load_image(folder / "00002_2.png").size == (200, 200)


def test_a_picture_deleted_from_the_folder_comes_back(drawings: Path, tmp_path: Path) -> None:
    folder = prepare_pictures(check(drawings), tmp_path / "out", progress=False)
    (folder / "00002_2.png").unlink()
    prepare_pictures(check(drawings), folder, progress=False)
    assert (folder / "00002_2.png").is_file()


def test_a_report_is_recalled_as_long_as_nothing_changed(drawings: Path, tmp_path: Path) -> None:
    (drawings / "bad.png").write_bytes(b"bad")
    report = check(drawings)
    folder = tmp_path / "out"
    assert recall_report(folder, drawings) is None
    prepare_pictures(report, folder, progress=False)
    assert recall_report(folder, [drawings]) == report
    assert recall_report(folder, drawings, min_side_px=64) is None
    assert recall_report(folder, drawings, aligned="yes") is None
    assert recall_report(folder, [drawings, drawings]) is None
    drawing(50).save(drawings / "1.png")
    assert recall_report(folder, drawings) is None


def test_pictures_that_changed_since_the_check_are_refused(drawings: Path, tmp_path: Path) -> None:
    report = check(drawings)
    drawing(50).save(drawings / "1.png")
    with pytest.raises(DatasetError, match=r"1\.png has changed since"):
        prepare_pictures(report, tmp_path / "out", progress=False)
    (drawings / "1.png").unlink()
    with pytest.raises(DatasetError, match=r"1\.png is gone since"):
        prepare_pictures(report, tmp_path / "out", progress=False)


@pytest.mark.parametrize("full_at", ["manifest.json", "00002_2.png"])
def test_a_full_disk_ends_in_advice_without_half_a_file(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: str
) -> None:
    report, replace = check(drawings), os.replace

    def full(source: str, target: str) -> None:
        if Path(target).name == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(
            OutputError, match=r"No space left on device.*free some space"
        ) as caught:
            prepare_pictures(report, tmp_path / "out", progress=False)
    assert caught.value.path == tmp_path / "out"
    for path in (tmp_path / "out").iterdir():  # whole pictures and manifests only
        assert path.suffix == ".json" or load_image(path).size == (224, 224)
    prepare_pictures(report, tmp_path / "out", progress=False)
    assert len(PictureSet(tmp_path / "out", 32)) == 6


def test_folders_that_cannot_be_written_end_in_advice(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = check(drawings)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="is a file; name a folder"):
        prepare_pictures(report, tmp_path / "file", progress=False)
    with pytest.raises(OutputError, match=r"cannot be written.*name another folder"):
        prepare_pictures(report, tmp_path / "file" / "out", progress=False)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=r"Permission denied.*make this one writable"):
        prepare_pictures(report, tmp_path / "out", progress=False)


def test_folders_with_other_files_or_inside_the_source_are_left_alone(
    drawings: Path, tmp_path: Path
) -> None:
    report = check(drawings)
    with pytest.raises(OutputError, match="lies inside"):
        prepare_pictures(report, drawings / "out", progress=False)
    with pytest.raises(OutputError, match="lies inside"):
        prepare_pictures(report, drawings, progress=False)
    mine = fill(tmp_path / "mine", {"holiday.png": drawing(1)})
    with pytest.raises(OutputError, match=r"holds files but no manifest\.json"):
        prepare_pictures(report, mine, progress=False)
    (mine / "manifest.json").write_text("{")
    with pytest.raises(OutputError, match="manifest is damaged"):
        prepare_pictures(report, mine, progress=False)
    assert sorted(path.name for path in mine.iterdir()) == ["holiday.png", "manifest.json"]


def test_a_manifest_cannot_name_files_elsewhere(drawings: Path, tmp_path: Path) -> None:
    folder = prepare_pictures(check(drawings), tmp_path / "out", progress=False)
    (tmp_path / "keep.png").write_bytes(b"not ours")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../keep.png"] = {}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    prepare_pictures(check(drawings), folder, progress=False)
    assert (tmp_path / "keep.png").is_file()


def test_side_px_below_the_least_side_is_refused(drawings: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="side_px"):
        prepare_pictures(check(drawings), tmp_path / "out", side_px=100, progress=False)
