"""``facestyle variations`` and ``facestyle reference``: what they write, and how they end."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from same_pixels import same_pixels
from skimage import data

from facestyle import ReferenceCode
from facestyle.bench import sample_photo
from facestyle.cli import main
from facestyle.errors import StyleNotFoundError


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "me.png"
    Image.open(sample_photo()).resize((300, 300)).save(path)
    return path


def test_variations_writes_portraits_with_their_seeds_and_a_grid(photo, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    arguments = ["variations", str(photo), "-o", str(out), "-n", "2", "--seed", "4", "--photos",
                 "--mixing-level", "3", "--psi-style", "0.5", "--latent", "z", "--json"]  # fmt: skip
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    names = ["me_grid", "me_seed4", "me_seed4_photo", "me_seed5", "me_seed5_photo"]
    assert [p.rsplit("/", 1)[-1] for p in summary["outputs"]] == [f"{n}.png" for n in names]
    assert sorted(p.name for p in out.iterdir()) == sorted(f"{n}.png" for n in names)
    for seed in (4, 5):
        with Image.open(out / f"me_seed{seed}.png") as portrait:
            assert portrait.size == (1024, 1024)
            text = portrait.text["facestyle"]
        assert f"seed={seed}" in text and "mixing_level=3" in text and "latent=z," in text
        assert pixels(out / f"me_seed{seed}_photo.png").shape == (300, 300, 3)
    assert pixels(out / "me_grid.png").shape == (4 + 260, 4 + 2 * 260, 3)
    again = ["variations", str(photo), "-o", str(tmp_path / "again"), "-n", "1", "--seed", "5",
             "--mixing-level", "3", "--psi-style", "0.5", "--latent", "z"]  # fmt: skip
    assert main(again) == 0
    assert "1 face(s)" in capsys.readouterr().out
    alone = pixels(tmp_path / "again" / "me_seed5.png")
    assert same_pixels(pixels(out / "me_seed5.png").tobytes(), alone.tobytes())
    assert not same_pixels(pixels(out / "me_seed4.png").tobytes(), alone.tobytes())


def test_reference_encodes_keeps_and_reuses_a_code(photo, tmp_path, capsys):
    kept, out = tmp_path / "codes" / "c.safetensors", tmp_path / "a.png"
    common = ["--already-aligned", "--mixing-level", "6"]
    first = ["reference", str(photo), "--reference", str(sample_photo()), "-o", str(out), *common,
             "--reference-aligned", "--steps", "1", "--save-code", str(kept), "--portraits"]  # fmt: skip
    assert main(first) == 0
    assert "a.png" in capsys.readouterr().out
    assert ReferenceCode.load(kept).steps == 1
    assert pixels(tmp_path / "a_face0.png").shape == (1024, 1024, 3)
    second = ["reference", str(photo), "--reference", str(kept), str(kept), "--weights", "1", "3",
              "-o", str(tmp_path / "b"), *common, "--json"]  # fmt: skip
    assert main(second) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["faces"] == 1
    with Image.open(summary["outputs"][0]) as again:
        assert "weights=1+3" in again.text["facestyle"]
    assert np.array_equal(pixels(summary["outputs"][0]), pixels(out))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["variations", "{photo}", "-o", "{out}", "-n", "0"], 2, "n must be"),
        (["variations", "{photo}", "-o", "{out}.png"], 2, "folder"),
        (["variations", "{photo}", "-o", "{out}", "--mixing-level", "-2"], 2, "mixing level"),
        (["variations", "{absent}", "-o", "{out}"], 1, "absent"),
        (["reference", "{photo}", "--reference", "{absent}", "-o", "{out}"], 1, "absent"),
        (["reference", "{photo}", "--reference", "{nocode}", "-o", "{out}"], 3, "nocode"),
        (["reference", "{photo}", "--reference", "{nocode}", "-o", "{out}", "--save-code", "x"],
         2, "--save-code"),
        (["reference", "{photo}", "--reference", "a.png", "b.png", "-o", "{out}",
          "--save-code", "c.safetensors"], 2, "folder"),
        (["reference", "{photo}", "--reference", "x/a.png", "y/a.png", "-o", "{out}",
          "--save-code", "codes"], 2, "share a name"),
        (["reference", "{photo}", "--reference", "{out}/me.png", "-o", "{out}"], 2, "references"),
        (["reference", "{photo}", "--reference", "{photo}", "-o", "{photo}"], 2, "inputs"),
        (["reference", "{photo}", "--reference", "{photo}", "-o", "{out}.jpg"], 2, "written as PNG"),
        (["variations", "{photo}", "-o", "{out}.webp"], 2, "written as PNG"),
        (["reference", "{photo}", "--reference", "{faceless}", "-o", "{out}", "--steps", "1"],
         1, "--reference-aligned"),
        (["reference", "{photo}", "--reference", "{faceless}", "-o", "{out}", "--alpha", "2"],
         2, "alpha"),
        (["reference", "{photo}", "--reference", "{faceless}", "-o", "{out}", "--weights", "1", "1"],
         2, "weight"),
        (["reference", "{photo}", "--reference", "{rows}", "-o", "{out}"], 2, "encode the reference"),
        (["variations", "{faceless}", "-o", "{out}"], 1, "no face found"),
        (["variations", "{photo}", "-o", "{long}.png"], 2, "name a folder"),
        (["reference", "{photo}", "--reference", "a.png", "b.png", "-o", "{out}",
          "--save-code", "{long}.safetensors"], 2, "name a folder"),
        (["stylize", "{long}", "-o", "{out}"], 1, "xxx"),
        *[(["reference", "{photo}", "--reference", "{nocode}", "-o", "{out}", *words], 2,
           f"{words[0]} is not read: all references are codes")
          for words in (["--space", "w"], ["--init", "mean"], ["--steps", "9"], ["--reference-aligned"])],
    ],
)  # fmt: skip
def test_mistakes_end_in_one_line_and_their_code(photo, arguments, code, says, tmp_path, capsys):
    (tmp_path / "nocode.safetensors").write_bytes(b"no code")
    names = {"photo": photo, "out": tmp_path / "out", "absent": tmp_path / "absent.png",
             "nocode": tmp_path / "nocode.safetensors", "faceless": tmp_path / "faceless.png",
             "rows": tmp_path / "rows.safetensors", "long": tmp_path / ("x" * 300)}  # fmt: skip
    Image.fromarray(data.coffee()).crop((0, 0, 256, 256)).save(names["faceless"])
    code_of_another = {"style": "x", "style_sha256": "0", "base_sha256": "0", "space": "w"}
    code_of_another |= {"init": "mean", "steps": 1, "seed": 0, "loss": 0.0}
    ReferenceCode(torch.zeros(3, 512), **code_of_another).save(names["rows"])
    assert main([part.format(**names) for part in arguments]) == code
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("facestyle: ") and says in line
    assert not (tmp_path / "out").exists()


@pytest.fixture
def inputs(photo, tmp_path, monkeypatch):
    """Bytes of the inputs in the working folder, by name: pictures, codes and links to pictures."""
    monkeypatch.chdir(tmp_path)
    for name in ("grid.png", "grid_seed7.png", "me.png", "me_face0.png", "ref.png"):
        (tmp_path / name).write_bytes(photo.read_bytes())
    for name in ("ref.safetensors", "other.safetensors"):
        (tmp_path / name).write_bytes(b"a code")
    (tmp_path / "link.png").symlink_to("me_face0.png")
    (tmp_path / "ref_grid.png").symlink_to("ref.png")
    (tmp_path / "sub").symlink_to(photo.parent)
    (tmp_path / "again").symlink_to(".")
    return {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["variations", "ref.png", "-o", "."], "ref_grid.png is one of the inputs"),
        (["variations", "ref.png", "-o", "again"], "ref_grid.png is one of the inputs"),
        (["variations", "grid.png", "-o", "."], "grid_seed7.png is there already"),
        (["reference", "sub/me.png", "--reference", "other.safetensors", "-o", "."],
         "me.png is there already"),
        (["stylize", "me_face0.png", "-o", "me.png", "--portraits"], "me_face0.png is one of the inputs"),
        (["stylize", "link.png", "-o", "me.png", "--portraits"], "me_face0.png is one of the inputs"),
        (["stylize", "grid.png", "-o", "me_face0.png"], None),
        (["stylize", "me_face0.png", "-o", "me.png"], None),
        (["reference", "me_face0.png", "--reference", "ref.png", "-o", "me.png", "--portraits"], "of the inputs"),
        (["reference", "grid.png", "--reference", "me_face0.png", "-o", "me.png", "--portraits"],
         "me_face0.png is one of the references"),
        (["reference", "grid.png", "--reference", "ref.png", "-o", "again/ref.png"], "of the references"),
        (["reference", "grid.png", "--reference", "ref.png", "other.safetensors", "-o", "out",
          "--save-code", "again/other.safetensors"], "other.safetensors is one of the references"),
        (["reference", "grid.png", "--reference", "ref.png", "ref.safetensors", "-o", "out",
          "--save-code", "."], "ref.safetensors is one of the references"),
        (["reference", "grid.png", "--reference", "ref.png", "other.safetensors", "-o", "out",
          "--save-code", "."], None),
    ],
)  # fmt: skip
def test_no_input_is_written_over(inputs, arguments, says, tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise StyleNotFoundError("nothing is loaded here", name="", available=())

    monkeypatch.setattr("facestyle.stylizer.FaceStylizer.from_pretrained", refuse)
    assert main(arguments) == (3 if says is None else 2)
    assert (says or "nothing is loaded here") in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == inputs


def test_a_reference_without_a_face_is_taken_as_aligned(photo, tmp_path, capsys):
    faceless = tmp_path / "faceless.png"
    Image.fromarray(data.coffee()).crop((0, 0, 256, 256)).save(faceless)
    arguments = ["reference", str(photo), "--reference", str(faceless), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--steps", "1", "--reference-aligned", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["faces"] == 1
