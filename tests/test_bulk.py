"""Folders of photos: shares of several processes, going on after a kill, and the report."""

import contextlib
import copy
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from facestyle.bulk import stylize_files
from facestyle.bulk_report import Report
from facestyle.cli import main
from facestyle.errors import OutputError
from facestyle.models.bases import save_encoder, write_base
from facestyle.models.checkpoints import save_tensors
from facestyle.models.encoder import Encoder
from facestyle.models.mobile import MobileGenerator
from facestyle.models.zoo import load_base_generator
from facestyle.options import Options
from facestyle.processes import Processes
from facestyle.styles import OWN_ENCODER, StyleConfig
from facestyle.stylizer import FaceStylizer

pytestmark = pytest.mark.usefixtures("two_threads")


@pytest.fixture(scope="module")
def style(tmp_path_factory):
    """A style's folder with networks of its own, of 64 px."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("style")
    net = MobileGenerator((8, 8, 8, 8), w_dim=8, mapping_depth=2, preview_resolution=32)
    net.w_avg.copy_(net.mapping(torch.randn(256, 8)).mean(0).detach())
    given = folder / "given.safetensors"
    metadata = {"architecture": net.architecture, "config": net.config()}
    save_tensors(net.state_dict(), given, metadata=metadata)
    base = load_base_generator(given)
    write_base(base, folder)
    save_encoder(Encoder(w_dim=8, input_px=32, hidden=16), folder / OWN_ENCODER)
    write_weights(base, folder, base)
    return folder


def write_weights(generator, folder, base):
    from facestyle.hub.package import write_style

    config = StyleConfig(
        name="tiny", title="", description="", generator=base.config(), encoder=OWN_ENCODER,
        base_sha256=base.source.sha256,
    )  # fmt: skip
    write_style(generator, config, folder, base)


@pytest.fixture
def photos(tmp_path):
    """Five photos, 0.png to 4.png."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        add_photo(folder, i)
    return folder


def add_photo(folder, i, name=None):
    pixels = np.random.default_rng(i).integers(255, size=(4, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((64, 64))
    picture.save(folder / (name or f"{i}.png"))


def arguments(photos, out, style, *more):
    return ["stylize", str(photos), "-o", str(out), "--style", str(style), "--device", "cpu",
            "--dtype", "float32", "--already-aligned", "--json", *more]  # fmt: skip


@pytest.fixture
def run(style, capsys):
    """Runs the command on a folder; exit code and what it printed."""

    def command(photos, out, *more, style=style):
        code = main(arguments(photos, out, style, *more))
        captured = capsys.readouterr()
        assert captured.out, captured.err
        return code, json.loads(captured.out)

    return command


def counts(printed):
    return printed["done"], printed["kept"], printed["failed"]


def written(out):
    """Time of writing, of each picture."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}


def redrawn(before, out):
    return {name for name, time_ns in written(out).items() if before.get(name) != time_ns}


def test_a_second_run_draws_what_is_new_or_changed_or_gone(photos, style, tmp_path, run, capsys):
    out = tmp_path / "out"
    (photos / "broken.jpg").write_bytes(b"no picture")
    code, printed = run(photos, out)
    assert code == 1 and counts(printed) == (5, 0, 1)
    assert {path.name for path in out.iterdir()} == {*(f"{i}.png" for i in range(5)), "report.json"}
    report = json.loads((out / "report.json").read_text())
    assert (report["done"], report["failed"], len(report["settings"])) == (5, 1, 1)
    assert report["settings"][0]["style"] == "tiny"
    assert report["pictures"]["broken.png"]["error"] == "NotAnImageError"
    assert report["pictures"]["3.png"]["files"] == {"3.png": (out / "3.png").stat().st_size}
    before = written(out)

    code, printed = run(photos, out)
    assert code == 1 and counts(printed) == (5, 5, 1)
    assert not redrawn(before, out)

    add_photo(photos, 5)
    add_photo(photos, 6, "1.png")
    (out / "2.png").unlink()
    (out / "3.png").write_bytes(b"cut")
    (photos / "broken.jpg").unlink()
    code, printed = run(photos, out)
    assert code == 0 and counts(printed) == (6, 2, 0)
    assert redrawn(before, out) == {"1.png", "2.png", "3.png", "5.png"}
    assert [os.path.basename(row["outputs"][0]) for row in printed["results"]] == [
        f"{i}.png" for i in range(6)
    ]
    report = json.loads((out / "report.json").read_text())
    assert sorted(report["pictures"]) == [f"{i}.png" for i in range(6)]

    assert main([word for word in arguments(photos, out, style) if word != "--json"]) == 0
    assert capsys.readouterr().out.startswith("6 of 6 stood already")


def test_pictures_of_other_settings_or_weights_are_drawn_anew(photos, style, tmp_path, run):
    out = tmp_path / "out"
    run(photos, out)
    assert counts(run(photos, out, "--psi", "0.7")[1]) == (5, 5, 0)  # the style's own
    assert counts(run(photos, out, "--psi", "0.5")[1]) == (5, 0, 0)
    assert counts(run(photos, out, "--psi", "0.5", "--portraits")[1]) == (5, 0, 0)
    (out / "4_face0.png").unlink()
    assert counts(run(photos, out, "--psi", "0.5", "--portraits")[1]) == (5, 4, 0)
    retrained = shutil.copytree(style, tmp_path / "retrained")
    base = load_base_generator(retrained / "base.safetensors")
    generator = copy.deepcopy(base)
    generator.synthesis.const.mul_(2)
    write_weights(generator, retrained, base)
    again = run(photos, out, "--psi", "0.5", "--portraits", style=retrained)[1]
    assert counts(again) == (5, 0, 0)
    report = json.loads((out / "report.json").read_text())
    assert [row["psi"] for row in report["settings"]] == [0.5]


def test_pictures_of_earlier_settings_do_not_stay_among_the_new_ones(photos, tmp_path, run):
    out = tmp_path / "out"
    run(photos, out, "--portraits")
    (out / "1_face0.png").write_bytes(b"mine")
    (out / "3_face0.png").rename(out / "kept_face0.png")
    (photos / "2.png").write_bytes(b"no picture")
    code, printed = run(photos, out, "--strength", "0.5")
    assert code == 1 and counts(printed) == (4, 0, 1)
    names = {"0.png", "1.png", "1_face0.png", "3.png", "4.png", "kept_face0.png"}
    assert set(written(out)) == names
    assert (out / "1_face0.png").read_bytes() == b"mine"
    run(photos, out, "--portraits")
    assert counts(run(photos, out, "--portraits")[1]) == (4, 4, 1)
    assert set(written(out)) == names | {"0_face0.png", "3_face0.png", "4_face0.png"}


def test_what_is_not_the_pictures_own_is_not_removed(photos, tmp_path, run):
    """An input, a file of another picture, or one outside of the folder that a report was made to name."""
    out = tmp_path / "out"
    run(photos, out, "--portraits")
    outside = tmp_path / "5.png"
    shutil.copy(out / "3.png", outside)
    path = out / "report.json"
    report = json.loads(path.read_text())
    report["pictures"]["3.png"]["files"]["../5.png"] = outside.stat().st_size
    report["pictures"]["4.png"]["files"]["3_face0.png"] = (out / "3_face0.png").stat().st_size
    path.write_text(json.dumps(report))
    (photos / "0_face0.png").symlink_to(out / "0_face0.png")
    os.rename(photos / "0_face0.png", photos / "a.png")
    assert counts(run(photos, out, "--psi", "0.5")[1]) == (6, 0, 0)
    assert outside.is_file()
    kept = {"0_face0.png", "3_face0.png"}
    assert set(written(out)) == {"a.png", *(f"{i}.png" for i in range(5)), *kept}


def test_files_that_are_to_be_removed_and_cannot_be_are_named(
    photos, style, tmp_path, run, monkeypatch, capsys
):
    out = tmp_path / "out"
    run(photos, out, "--portraits")

    def refused(path, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.unlink", refused)
    assert main(arguments(photos, out, style)) == 4
    assert "_face0.png: cannot be removed: Permission denied" in capsys.readouterr().err


def test_folders_that_share_an_output_share_its_report(photos, tmp_path, run):
    other, out = tmp_path / "other", tmp_path / "out"
    other.mkdir()
    for i in (4, 5):
        add_photo(other, 10 + i, f"{i}.png")
    run(photos, out)
    assert counts(run(other, out)[1]) == (2, 0, 0)  # its 4.png takes the place of the first
    assert len(json.loads((out / "report.json").read_text())["pictures"]) == 6
    assert counts(run(photos, out)[1]) == (5, 4, 0)


def test_a_single_photo_is_drawn_every_time_and_needs_no_report(photos, tmp_path, run):
    out = tmp_path / "out"
    for _ in range(2):
        assert counts(run(photos / "1.png", out)[1]) == (1, 0, 0)
    assert [path.name for path in out.iterdir()] == ["1.png"]


def test_refined_photos_go_together_past_a_broken_one(photos, tmp_path, run):
    (photos / "1.png").write_bytes(b"no picture")
    for i in (2, 3):
        (photos / f"{i}.png").unlink()
    code, printed = run(photos, tmp_path / "out", "--refine", "1")
    assert code == 1 and counts(printed) == (2, 0, 1)


def test_a_face_that_one_photo_lacks_does_not_stop_the_others(
    photos, astronaut, style, tmp_path, capsys
):
    astronaut.save(photos / "a.png")
    words = arguments(photos, tmp_path / "out", style, "--faces", "0", "--on-no-face", "error")
    words.remove("--already-aligned")
    assert main(words) == 1
    assert counts(json.loads(capsys.readouterr().out)) == (1, 0, 5)
    words[words.index("0")] = "3"
    assert main(words) == 1
    printed = json.loads(capsys.readouterr().out)
    (row,) = (row for row in printed["results"] if row["input"].endswith("a.png"))
    assert row["error"] == "ConfigError" and "no face [3]" in row["message"]
    assert row["message"].startswith(row["input"])


@pytest.mark.parametrize("content", ['{"fid": 3}', "[]", "no JSON", '{"format": "other"}'])
def test_a_report_of_another_program_is_left_alone(content, photos, style, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text(content)
    assert main(arguments(photos, out, style)) == 4
    assert "another folder" in capsys.readouterr().err
    assert (out / "report.json").read_text() == content
    assert not list(out.glob("*.png"))


class Killed(Processes):
    """One of several processes, none of which comes to the end; the first one's plan is that of all."""

    def __init__(self, rank, count, plans):
        super().__init__("cpu")
        self.rank, self.count, self.plans = rank, count, plans

    def share(self, found):
        self.plans.append(found)
        return self.plans[0]

    def wait(self):
        raise KeyboardInterrupt


def leave_parts(style, photos, out, count):
    """What ``count`` processes leave that are killed just before their lines are merged."""
    stylizer = FaceStylizer.from_pretrained(style, device="cpu", dtype="float32")
    targets = {path: out / path.name for path in sorted(photos.iterdir())}
    plans = []
    for rank in range(count):
        with pytest.raises(KeyboardInterrupt):
            stylize_files(
                stylizer, targets, Report(out, rank), Killed(rank, count, plans),
                Options(aligned=True), dtype="float32",
            )  # fmt: skip


def names_in(part):
    return [json.loads(line)[0] for line in part.read_text().splitlines() if line.endswith("]")]


def test_shares_are_interleaved_and_taken_up_by_one_process(style, photos, tmp_path, run):
    out = tmp_path / "out"
    leave_parts(style, photos, out, 3)
    shares = [names_in(out / f"report.part{rank}.jsonl") for rank in range(3)]
    assert [sorted(share) for share in shares] == [
        ["0.png", "3.png"],
        ["1.png", "4.png"],
        ["2.png"],
    ]
    part = out / "report.part1.jsonl"
    part.write_text(part.read_text()[:-30])  # killed within a line
    before = written(out)
    assert counts(run(photos, out)[1]) == (5, 4, 0)
    assert redrawn(before, out) == {shares[1][-1]}
    assert not list(out.glob("*.jsonl"))


class Alone(Killed):
    """The first of two; the second works on another machine, in another folder of that name."""

    def wait(self):
        """Whatever the other does."""


def test_lines_that_do_not_arrive_are_told_of(style, photos, tmp_path):
    stylizer = FaceStylizer.from_pretrained(style, device="cpu", dtype="float32")
    targets = {path: tmp_path / "out" / path.name for path in sorted(photos.iterdir())}
    with pytest.raises(OutputError, match=r"2 of 5 pictures.*1\.png"):
        stylize_files(
            stylizer, targets, Report(tmp_path / "out"), Alone(0, 2, []), Options(aligned=True)
        )


def test_a_row_of_an_earlier_run_does_not_stand_for_lines_that_do_not_arrive(
    style, photos, tmp_path, run
):
    out = tmp_path / "out"
    (photos / "5.png").write_bytes(b"no picture")
    assert counts(run(photos, out)[1]) == (5, 0, 1)
    (out / "1.png").unlink()
    add_photo(photos, 7, "3.png")
    stylizer = FaceStylizer.from_pretrained(style, device="cpu", dtype="float32")
    targets = {path: out / path.name for path in sorted(photos.iterdir())}

    def draw_alone():
        stylize_files(
            stylizer, targets, Report(out), Alone(0, 2, []), Options(aligned=True), dtype="float32"
        )

    with pytest.raises(OutputError, match=r"1 of 3 pictures are not told of, 3\.png"):
        draw_alone()
    assert counts(run(photos, out)[1]) == (5, 4, 1)
    draw_alone()  # the broken one is told of, with the error that it had before


TORCHRUN = ["torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d",
            "--rdzv_endpoint", "localhost:0"]  # fmt: skip
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
              "--main_process_port", "0"]  # fmt: skip


@contextlib.contextmanager
def launched(launcher, *words):
    """The command in two processes, all of which are killed in the end, if they still run."""
    process = subprocess.Popen(
        [sys.executable, "-m", *launcher, "-m", "facestyle", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        process.communicate()


def test_one_process_goes_on_after_two_were_killed(style, tmp_path, run):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for i in range(400):
        add_photo(photos, i, f"{i:03}.png")
    parts = [out / f"report.part{rank}.jsonl" for rank in range(2)]
    with launched(TORCHRUN, *arguments(photos, out, style)) as process:
        while not all(part.exists() and part.stat().st_size > 3000 for part in parts):
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
    before = written(out)
    assert len(before) < 400
    shares = [names_in(part) for part in parts]
    assert [sorted({int(name[:3]) % 2 for name in share}) for share in shares] == [[0], [1]]

    kept = {name for share in shares for name in share}
    last = max(kept)
    for path in photos.iterdir():
        if path.name > last:
            path.unlink()  # enough is left to be drawn
    _, printed = run(photos, out)
    assert printed["kept"] == len(kept) and printed["failed"] == 0
    assert printed["done"] == len(list(photos.iterdir()))
    assert not redrawn(before, out) & kept
    assert not list(out.glob("*.jsonl"))


def test_two_processes_go_on_after_three_and_merge_one_report(style, photos, tmp_path):
    out = tmp_path / "out"
    leave_parts(style, photos, out, 3)
    before = written(out)
    (photos / "broken.jpg").write_bytes(b"no picture")
    for i in range(5, 9):
        add_photo(photos, i)
    with launched(ACCELERATE, *arguments(photos, out, style)) as process:
        printed, said = process.communicate()
    assert process.returncode == 1
    assert counts(json.loads(printed)) == (9, 5, 1), said  # of all, and printed once
    assert "facestyle: NotAnImageError" in said and "broken.jpg" in said
    assert redrawn(before, out) == {f"{i}.png" for i in range(5, 9)}
    report = json.loads((out / "report.json").read_text())
    assert (report["done"], report["failed"], len(report["pictures"])) == (9, 1, 10)
    assert not list(out.glob("*.jsonl"))


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    from facestyle.processes import _own_device

    chosen = []
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    found = [str(_own_device(None, rank)) for rank in range(3)]
    assert found == ["cuda:0", "cuda:1", "cuda:0"] == [str(device) for device in chosen]
    assert str(_own_device("cuda", 1)) == "cuda:1"
    assert str(_own_device("cuda:0", 1)) == "cuda:0"
    assert str(_own_device("cpu", 1)) == "cpu"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert str(_own_device(None, 1)) == "cpu"
