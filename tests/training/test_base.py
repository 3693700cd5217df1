"""A base generator of one's own: an import becomes pairs, a style, a report and an export."""

import argparse
import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch

from facestyle import FaceStylizer
from facestyle.cli import main
from facestyle.errors import CheckpointError, ConfigError, LatentShapeError
from facestyle.evaluation.comparison import compare
from facestyle.evaluation.comparison_methods import ComparisonConfig
from facestyle.evaluation.metrics import StyleJudge, style_metrics
from facestyle.evaluation.people import sample_people
from facestyle.evaluation.report import encoder_report
from facestyle.export import export_style
from facestyle.hub.package import complete
from facestyle.hub.push import plan_push
from facestyle.image import to_pil
from facestyle.latents import broadcast
from facestyle.models.bases import encoder_for, find_encoder, open_base, save_encoder, shares_w
from facestyle.models.checkpoints import read_metadata, read_tensors, save_tensors
from facestyle.models.encoder import Encoder
from facestyle.models.importers.checkpoints import import_checkpoint
from facestyle.models.psp_encoder import PspEncoder
from facestyle.models.stylegan2_generator import StyleGAN2Generator
from facestyle.models.zoo import load_base_generator, load_encoder, load_style
from facestyle.styles import StyleConfig
from facestyle.training.ablation import ablate
from facestyle.training.data import PictureSet
from facestyle.training.encoder import EncoderConfig, train_encoder
from facestyle.training.finetune import finetune
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.pairs import PairsConfig, PairStore
from facestyle.training.pipeline import TrainConfig, find_pairs, train_style
from facestyle.training.preview import fit_preview
from facestyle.training.style_cli import add_parsers

STAR = FinetuneConfig(
    coarse_steps=2, coarse_batch=2, full_steps=0, sem_weight=0, pair_weight=0, preview_every=2
)
STYLE = FinetuneConfig(
    coarse_steps=2, coarse_batch=2, coarse_lr=0.2, full_steps=1, full_batch=2, preview_every=2,
    pair_batch=1, ema_half_life_nimg=1,
)  # fmt: skip
CONFIG = TrainConfig(star=STAR, pairs=PairsConfig(level=3, count=3, steps=2, batch=3), style=STYLE)


def imported(folder, *, seed=0, resolution=128, channel_base=512):
    """The folder that an import leaves of a random StyleGAN2, as NVIDIA's code names its tensors."""
    torch.manual_seed(seed)
    net = StyleGAN2Generator(
        resolution, w_dim=8, channel_base=channel_base, channel_max=8, mapping_depth=2
    )
    net.w_avg.copy_(net.mapping(torch.randn(512, 8)).mean(0))
    state = {
        name.replace("mapping.fc.", "mapping.fc").replace(
            "synthesis.const", "synthesis.b4.const"
        ): t
        for name, t in net.state_dict().items()
    }
    file = folder.with_suffix(".pt")
    torch.save(state, file)
    import_checkpoint(file, folder)
    return folder


def tiny_encoder(space, rows, w_dim=8):
    torch.manual_seed(1)
    return Encoder(
        space=space, rows=1 if space == "w" else rows, w_dim=w_dim, input_px=32, hidden=16,
        row_channels=8,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An import without encoders."""
    return imported(tmp_path_factory.mktemp("bare") / "sg2")


@pytest.fixture(scope="module")
def equipped(bare, tmp_path_factory):
    """The same with encoders into all spaces."""
    folder = tmp_path_factory.mktemp("equipped") / "sg2"
    shutil.copytree(bare, folder)
    for space in ("w", "w_plus", "z_plus"):
        save_encoder(tiny_encoder(space, 12), folder / f"encoder_{space}.safetensors")
    return folder


@pytest.fixture(scope="module")
def other(equipped, tmp_path_factory):
    """Another import, with the same encoders."""
    folder = imported(tmp_path_factory.mktemp("other") / "sg2", seed=5)
    for path in equipped.glob("encoder_*"):
        shutil.copy(path, folder)
    return folder


def train(base, pictures, out, config=CONFIG, **more):
    return train_style(
        open_base(base), pictures, out, config, name="red", data_license="ours", aligned="yes",
        progress=False, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(equipped, large_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    train(equipped, large_folder, out)
    return out


def command(*words):
    """What a training command returns."""
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers())
    args = parser.parse_args(list(map(str, words)))
    return args.run(args)


def test_a_style_of_an_import_holds_all_it_needs(run, equipped, astronaut, tmp_path):
    style = tmp_path / "moved"
    shutil.copytree(run / "style", style)
    base = style / "base.safetensors"
    assert base.read_bytes() == (equipped / "generator.safetensors").read_bytes()
    config = StyleConfig.from_file(style / "config.json")
    source = open_base(equipped).source
    assert (config.architecture, config.encoder) == ("stylegan2", "encoder.safetensors")
    assert config.base_sha256 == source.sha256
    origin = json.loads((style / "training.json").read_text())["base"]
    assert origin["sha256"] == source.sha256 and origin["origin"]["file"] == "sg2.pt"

    stylizer = FaceStylizer.from_pretrained(style, device="cpu", dtype="float32")
    photo = astronaut.crop((100, 0, 356, 256))
    face = stylizer(photo, aligned=True, psi=1.0).faces[0]
    networks = load_style(style)
    with torch.no_grad():
        drawn = to_pil(networks.generator.synthesis(face.w_plus[None]))
        plain = to_pil(networks.base.synthesis(face.w_plus[None]))
    levels = np.abs(np.asarray(face.portrait, int) - np.asarray(drawn, int))
    assert face.portrait.size == (128, 128) and levels.max() <= 1
    assert np.abs(np.asarray(drawn, int) - np.asarray(plain, int)).max() > 1
    assert len(stylizer.variations(photo, n=2, aligned=True, mixing_level=4)) == 2
    with pytest.raises(CheckpointError, match="no encoder into z_plus"):
        stylizer(photo, aligned=True, content_space="z_plus")


def test_the_style_is_saved_again_and_pushed_whole(run, tmp_path):
    stylizer = FaceStylizer.from_pretrained(run / "style", device="cpu", dtype="float32")
    stylizer.save_pretrained(tmp_path / "again", samples=False)
    names = {path.name for path in (tmp_path / "again").iterdir()}
    assert {"base.safetensors", "encoder.safetensors", "generator.safetensors"} <= names
    for name in names - {"README.md", "LICENSE.md", "training.json"}:
        if name.endswith(".safetensors"):
            before, after = (read_tensors(f / name) for f in (run / "style", tmp_path / "again"))
            assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert "base.safetensors" in (tmp_path / "again" / "LICENSE.md").read_text()
    plan = plan_push(tmp_path / "again", "ada/red")
    assert {"base.safetensors", "encoder.safetensors"} <= plan.files.keys()
    assert "base.safetensors" in plan.card and "MobileStyleGAN" not in plan.card
    complete(tmp_path / "again", None)
    FaceStylizer.from_pretrained(tmp_path / "again", device="cpu")


@pytest.mark.parametrize("damage", ["gone", "other"])
def test_a_style_without_its_base_is_refused(run, other, tmp_path, damage):
    style = tmp_path / "style"
    shutil.copytree(run / "style", style)
    (style / "base.safetensors").unlink()
    if damage == "other":
        shutil.copy(other / "generator.safetensors", style / "base.safetensors")
    says = {"gone": r"no base\.safetensors", "other": "not the base generator"}[damage]
    with pytest.raises(CheckpointError, match=says):
        FaceStylizer.from_pretrained(style)


def test_a_run_goes_on_with_its_base_and_no_other(run, other, equipped, large_folder, tmp_path):
    before = read_tensors(run / "style" / "generator.safetensors")
    train(equipped, large_folder, run)
    after = read_tensors(run / "style" / "generator.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert PairStore.load(run / "pairs").w_plus.keys() == {1, 2, 3}
    with pytest.raises(ConfigError, match=r"other settings \(base_sha256\)"):
        train(other, large_folder, run)
    for part in ("star", "pairs", "run"):
        config = json.loads((run / part / "config.json").read_text())
        assert config["base_sha256"] == open_base(equipped).source.sha256
    pictures = run / "pictures"
    with pytest.raises(ConfigError, match="base_sha256"):
        finetune(open_base(other), pictures, run / "star", STAR, progress=False)
    with pytest.raises(ConfigError, match="base_sha256"):
        find_pairs(
            open_base(other), pictures, run / "pairs", CONFIG.pairs, star=tmp_path / "star",
            star_config=STAR, progress=False,
        )  # fmt: skip


def test_a_run_of_the_bundled_base_says_nothing_of_it(tiny, folder, tmp_path):
    config = dataclasses.replace(STAR, coarse_steps=0)
    finetune(tiny, folder, tmp_path, config, progress=False)
    kept = json.loads((tmp_path / "config.json").read_text())
    assert kept == dataclasses.asdict(config) | {"pictures": PictureSet(folder, 32).digest()}


@pytest.mark.parametrize(
    ("files", "level", "space"),
    [
        ((), 2, "z_plus"),
        (("z_plus",), 3, "w_plus"),
        (("z_plus",), 2, "w"),
    ],
)
def test_a_missing_encoder_is_named_before_any_work(
    bare, equipped, large_folder, tmp_path, files, level, space
):
    folder = tmp_path / "base"
    shutil.copytree(bare, folder)
    for name in files:
        shutil.copy(equipped / f"encoder_{name}.safetensors", folder)
    pairs = dataclasses.replace(CONFIG.pairs, level=level)
    says = rf"into {space}, .*train-encoder --base {folder} --space {space}"
    with pytest.raises(CheckpointError, match=says):
        train(folder, large_folder, tmp_path / "out", dataclasses.replace(CONFIG, pairs=pairs))
    assert not (tmp_path / "out").exists()


def test_encoders_that_do_not_fit_are_named(bare, tiny_encoders, tmp_path):
    base = open_base(bare)
    save_encoder(tiny_encoder("z_plus", 16), tmp_path / "rows.safetensors")
    save_encoder(tiny_encoder("w", 1, w_dim=16), tmp_path / "width.safetensors")
    with pytest.raises(CheckpointError, match=r"16 x 8 numbers, and .* takes 12 x 8"):
        encoder_for(base, "z_plus", tmp_path / "rows.safetensors")
    with pytest.raises(CheckpointError, match=r"1 x 16 numbers, and .* takes 1 x 8"):
        encoder_for(base, "w", tmp_path / "width.safetensors")


def test_the_bundled_encoder_serves_who_shares_its_w(bare, tmp_path):
    bundled = load_base_generator()
    net = StyleGAN2Generator(8, channel_base=8, channel_max=8)
    for ours, theirs in zip(net.mapping.fc, bundled.mapping.layers, strict=True):
        ours.weight.data = theirs.weight / ours.gain
        ours.bias.data = theirs.bias / ours.rate
    assert shares_w(net)
    net.source = open_base(bare).source
    assert find_encoder(net, "w") is None
    with torch.no_grad():
        net.mapping.fc[0].weight.mul_(0.5)
    assert not shares_w(net) and not shares_w(open_base(bare))


def test_an_e4e_encoder_beside_the_base_leads_into_two_spaces(bare, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(bare, folder)
    sizes = {"code_dim": 8, "input_px": 32, "widths": (2, 3, 4, 8), "units": (1, 1, 2, 1)}
    net = PspEncoder(12, **sizes, deltas=True)
    save_encoder(net, folder / "encoder.safetensors")
    base = open_base(folder)
    assert encoder_for(base, "w").space == "w" and encoder_for(base, "w_plus").rows == 12
    save_encoder(encoder_for(base, "w"), tmp_path / "w.safetensors")
    assert load_encoder(tmp_path / "w.safetensors").rows == 1
    net.start[0, 0] = 1e5  # more than float16 holds
    save_encoder(net, tmp_path / "large.safetensors")
    assert read_tensors(tmp_path / "large.safetensors")["start"].dtype == torch.float32


def test_1024_px_has_18_rows_and_a_preview_of_256(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("facestyle.training.finetune._preview", lambda *_: None)  # 32 full pictures
    base = open_base(imported(tmp_path / "sg2", resolution=1024, channel_base=1024))
    assert (base.num_ws, base.preview_resolution) == (18, 256)
    save_encoder(tiny_encoder("z_plus", 18), tmp_path / "z.safetensors")
    pairs = find_pairs(
        base, folder, tmp_path / "pairs", PairsConfig(level=1, count=2, batch=2),
        star=tmp_path / "star", encoder_z=tmp_path / "z.safetensors", progress=False,
    )  # fmt: skip
    assert pairs.codes(1).shape == (2, 18, 8)
    config = dataclasses.replace(STYLE, coarse_steps=1, full_batch=1, pair_level=1)
    net = finetune(base, folder, tmp_path / "run", config, pairs=pairs, progress=False)
    with torch.no_grad():
        w_plus = broadcast(base.w_avg[None], 18)
        change = (net.synthesis(w_plus) - base.synthesis(w_plus)).abs().mean()
    assert change > 1e-4
    after, before = net.synthesis.state_dict(), base.synthesis.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(after[name], before[name])}
    assert "b256" in changed and not changed & {"b512", "b1024"}
    with pytest.raises(LatentShapeError, match="16"):
        narrow = dataclasses.replace(pairs, w_plus={1: pairs.codes(1)[:, :16]})
        finetune(base, folder, tmp_path / "narrow", config, pairs=narrow, progress=False)


def test_both_stages_run_where_the_preview_is_the_picture(equipped, folder, tmp_path):
    net = open_base(equipped)
    assert net.preview_resolution == net.resolution
    rows = []
    for coarse, full in ((1, 0), (0, 1)):
        config = dataclasses.replace(
            STYLE, coarse_steps=coarse, full_steps=full, adversarial_ramp=1.0, pair_weight=0.0
        )
        finetune(net, folder, tmp_path / str(full), config, progress=False)
        (line,) = (tmp_path / str(full) / "log.jsonl").read_text().splitlines()
        rows.append(json.loads(line))
    assert math.isfinite(rows[0]["adv"]) and rows[0]["d"] != rows[1]["d"]


def test_an_encoder_is_trained_for_it(bare, folder, tmp_path):
    config = EncoderConfig(
        space="z_plus", pool_size=4, code_steps=1, code_batch=2, photo_steps=1, photo_batch=2,
        pool_batch=1, checkpoint_every=1,
    )  # fmt: skip
    base = open_base(bare)
    train_encoder(base, tmp_path / "run", [folder], folder, config, progress=False)
    made = tmp_path / "run" / "encoder.safetensors"
    assert read_metadata(made)["base_sha256"] == base.source.sha256
    shutil.copytree(bare, tmp_path / "base")
    shutil.copy(made, tmp_path / "base" / "encoder_z_plus.safetensors")
    found = encoder_for(open_base(tmp_path / "base"), "z_plus")
    assert (found.rows, found.w_dim) == (12, 8)
    other = imported(tmp_path / "other", seed=3)
    with pytest.raises(ConfigError, match="base_sha256"):
        train_encoder(open_base(other), tmp_path / "run", [folder], folder, config, progress=False)


def test_an_encoder_of_another_base_is_warned_of(bare, other, tmp_path, caplog):
    path, net = tmp_path / "w.safetensors", tiny_encoder("w", 1)
    save_tensors(
        net.state_dict(), path,
        metadata={"config": net.config(), "base_sha256": open_base(bare).source.sha256},
    )  # fmt: skip
    encoder_for(open_base(bare), "w", path)
    assert not caplog.records
    encoder_for(open_base(other), "w", path)
    assert "another base generator" in caplog.text


def test_a_start_from_another_base_is_refused(run, other, large_folder, tmp_path):
    with pytest.raises(CheckpointError, match="another base generator"):
        train(other, large_folder, tmp_path, init=run / "style")


def test_the_commands_take_a_base(equipped, bare, large_folder, tmp_path, capsys):
    sets = [
        word
        for setting in (
            "star.coarse_steps=1", "star.coarse_batch=2", "pairs.level=1", "pairs.count=2",
            "style.coarse_steps=1", "style.full_steps=0", "style.pair_level=1",
            "style.coarse_batch=2", "style.held_out=0",
        )
        for word in ("--set", setting)
    ]  # fmt: skip
    out = tmp_path / "run"
    words = ["train", large_folder, "-o", out, "--name", "red", "--data-license", "MIT",
             "--aligned", "yes", "--device", "cpu", *sets]  # fmt: skip
    assert command(*words, "--base", equipped) == 0
    assert (out / "style" / "base.safetensors").is_file()
    with pytest.raises(ConfigError, match="is no folder that facestyle import made"):
        command(*words, "--base", out / "style")
    pairs = ["pairs", large_folder, "-o", tmp_path / "pairs", "--level", "1", "--device", "cpu"]
    assert command(*pairs, "--base", equipped, "--set", "count=2") == 0
    assert PairStore.load(tmp_path / "pairs").codes(1).shape == (2, 12, 8)
    of_style = [word for word in sets if word.startswith("style.")]
    chosen = [*words[:2], "-o", tmp_path / "chosen", *words[4:8], "--device", "cpu"]
    chosen += [word for setting in of_style for word in ("--set", setting)]
    assert command(*chosen, "--base", equipped, "--pairs", tmp_path / "pairs") == 0
    begun = json.loads((tmp_path / "chosen" / "run" / "config.json").read_text())
    assert begun["pair_level"] == 1
    with pytest.raises(CheckpointError, match="--encoder-z"):
        command(*pairs[:3], tmp_path / "no", *pairs[4:], "--base", bare)
    with pytest.raises(ConfigError, match="is not there"):
        command(*pairs, "--base", tmp_path / "absent")
    save_tensors({"w": torch.zeros(12, 8)}, tmp_path / "w.safetensors", metadata={})
    known = ["pairs", large_folder, "-o", tmp_path / "known", "--codes", tmp_path / "w.safetensors"]
    assert command(*known, "--base", bare) == 0
    assert PairStore.load(tmp_path / "known").codes(0).shape == (12, 12, 8)


def test_ablation_of_an_import(equipped, folder, tmp_path):
    short = dataclasses.replace(STYLE, coarse_steps=1, full_steps=0)
    config = dataclasses.replace(CONFIG, style=short)
    report = ablate(
        open_base(equipped), {"red": folder}, tmp_path, config, variants=("baseline", "W1+"),
        samples=2, measures=("perceptual",), sheet_faces=2, progress=False,
    )  # fmt: skip
    assert "W1+" in report.read_text()
    assert not (tmp_path / "red" / "star").exists()  # level 1 needs no G*


@pytest.mark.slow
def test_the_encoder_of_an_import_is_measured(equipped, large_folder, tmp_path):
    base = open_base(equipped)
    report = encoder_report(
        large_folder, tmp_path, generator=base, limit=2, optimise=1, refine_steps=1,
        ceiling_steps=2,
    )  # fmt: skip
    assert report["base_sha256"] == base.source.sha256
    assert report["rows"]["encoder"]["photos"] == 2


def test_evaluation_takes_a_base(equipped, other, run, tmp_path, monkeypatch, capsys):
    """Which networks the command hands on; what the reports make of them is tested elsewhere."""
    handed = {}

    def keep(name):
        return lambda *given, **more: handed.update({name: (given, more)})

    monkeypatch.setattr("facestyle.evaluation.report.encoder_report", keep("encoder"))
    monkeypatch.setattr("facestyle.evaluation.report.style_report", keep("style"))
    monkeypatch.setattr("facestyle.evaluation.gallery.styles_gallery", keep("styles"))
    sha256 = open_base(equipped).source.sha256
    words = ["-o", str(tmp_path / "o"), "--base"]
    for what, more in (("encoder", ["--faces", "x"]), ("styles", [])):
        assert main(["evaluate", what, *more, *words, str(equipped)]) == 0
        assert handed[what][1]["generator"].source.sha256 == sha256
    style = ["--style", str(run / "style"), "--pictures", "x", "--device", "cpu"]
    assert main(["evaluate", "style", *style, *words, str(equipped)]) == 0
    assert handed["style"][0][0].base.source.sha256 == sha256
    assert main(["evaluate", "style", *style, *words, str(other)]) == 2
    assert "was not made from the generator" in capsys.readouterr().err


def test_a_style_of_an_import_is_measured(run, large_folder, tmp_path):
    stylizer = FaceStylizer.from_pretrained(run / "style", device="cpu", dtype="float32")
    people = {"samples": sample_people(stylizer.base, 4, psi=0.8, side_px=128)}
    judge = StyleJudge.load(large_folder, measures=("perceptual", "identity"))
    found = style_metrics(judge, stylizer.generator, people, style="red", variant="ours")
    assert math.isfinite(found["samples"]["perceptual"]["value"])


def test_comparison_on_an_import(equipped, other, run, large_folder, tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    shutil.copytree(run / "style", runs / "ours" / "red")
    config = ComparisonConfig(photos=2, side_px=128, sheet_faces=2)

    def made(base, out):
        return compare(
            {"red": large_folder}, out, config, base=open_base(base), methods=["ours"], runs=runs,
            measures=("perceptual",), device="cpu", progress=False,
        )  # fmt: skip

    report = made(equipped, tmp_path / "table")
    assert "ours" in report.read_text() and (tmp_path / "table" / "red" / "ours").is_dir()
    with pytest.raises(ConfigError, match="base_sha256"):
        made(other, tmp_path / "table")

    handed = []
    monkeypatch.setattr(
        "facestyle.evaluation.comparison.compare", lambda *_, base, **__: handed.append(base)
    )
    words = ["compare", "--table", "--pictures", "red=x", "-o", str(tmp_path / "o"), "--base"]
    assert main([*words, str(equipped)]) == 0
    assert handed[0].source.sha256 == open_base(equipped).source.sha256


def test_baselines_on_an_import(equipped, folder, tmp_path, capsys):
    words = ["baseline", "train", "toonify", folder, "-o", tmp_path / "run", "--device", "cpu",
             "--set", "coarse_steps=1", "--set", "full_steps=0", "--set", "coarse_batch=2"]  # fmt: skip
    assert main(list(map(str, [*words, "--base", equipped]))) == 0
    kept = json.loads((tmp_path / "run" / "star" / "config.json").read_text())
    assert kept["base_sha256"] == open_base(equipped).source.sha256
    words = ["baseline", "train", "inst", str(folder), "-o", str(tmp_path / "i")]
    assert main([*words, "--base", str(equipped)]) == 2
    assert "--base is for toonify" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["torchscript", pytest.param("onnx", marks=pytest.mark.slow)])
def test_its_style_is_exported(run, tmp_path, format):
    stylizer = FaceStylizer.from_pretrained(run / "style", device="cpu", dtype="float32")
    report = export_style(stylizer, tmp_path, format, progress=False)
    assert (report["num_ws"], report["portrait_px"], report["face_px"]) == (12, 128, 32)
    assert len(report["files"]) == 3


def test_only_the_mobile_generator_has_a_preview_head(bare):
    with pytest.raises(ConfigError, match="preview head"):
        fit_preview(open_base(bare))
