"""The whole training of a style on a tiny generator: stages, kill -9, several processes, the choice of a snapshot."""

import copy
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load as load_safetensors
from safetensors.torch import save_file

from facestyle.cli import main
from facestyle.errors import CheckpointError, ConfigError, DatasetError, OutputError
from facestyle.hub.package import write_style
from facestyle.image import load_image
from facestyle.models.checkpoints import read_tensors
from facestyle.models.zoo import sha256_of
from facestyle.processes import Processes
from facestyle.styles import StyleConfig, style_folder
from facestyle.training import pipeline, state, style_cli
from facestyle.training.data import PictureSet
from facestyle.training.derive import place_of
from facestyle.training.finetune import SHARES, finetune
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.hair import HairConfig
from facestyle.training.likeness import LikenessConfig
from facestyle.training.pairs import PairsConfig, PairStore, given_pairs
from facestyle.training.pipeline import PRESETS, TrainConfig, train_style
from facestyle.training.state import TrainingState

CONFIG = TrainConfig(
    star=FinetuneConfig(
        coarse_steps=3, coarse_batch=2, full_steps=0, sem_weight=0, pair_weight=0, preview_every=1
    ),
    pairs=PairsConfig(count=4, steps=2, batch=2),
    style=FinetuneConfig(
        coarse_steps=3, coarse_batch=2, full_steps=2, full_batch=2, preview_every=1, held_out=4
    ),
    hair=HairConfig(steps=2, batch=2, full_steps=2, full_batch=2, preview_every=1),
    likeness=LikenessConfig(steps=3, batch=2, rank=2, preview_every=1),
)


@pytest.fixture(scope="module")
def files(tiny, encoder_files):
    """The tiny networks as files, for another process."""
    save_file(dict(tiny.state_dict()), encoder_files / "g.safetensors")
    return encoder_files


def train(tiny, folder, files, out, config=CONFIG, **more):
    return train_style(
        tiny, folder, out, config, name="red", data_license="ours",
        encoder_z=files / "z_plus.safetensors", aligned="yes", progress=False, **more,
    )  # fmt: skip


SCRIPT = """
    import os, signal, sys, traceback
    import torch
    import torch._dynamo, torch.utils.tensorboard  # once, and not in every child
    torch.set_num_threads(1)
    from pathlib import Path
    from facestyle.models.mobile import MobileGenerator
    from facestyle.models.checkpoints import load_strict, read_tensors
    from facestyle.styles import StyleConfig, style_folder
    from facestyle.training import folder, pairs, pipeline, prepare, state
    from tests.training.test_pipeline import train
    files, pictures, out = map(Path, sys.argv[1:4])
    net = MobileGenerator((8, 8, 8, 8), w_dim=8, mapping_depth=2, preview_resolution=32)
    load_strict(net, read_tensors(files / "g.safetensors"))
    net.eval().requires_grad_(False)

    def killed(owner, name, is_now, before=False):
        real = getattr(owner, name)
        def call(*args, **more):
            if is_now(*args) and before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **more)
            if is_now(*args):
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        setattr(owner, name, call)

    def logged(run, stage, step):
        return state.TrainingState, "log", lambda self, row: (
            self.folder.name == run and (row["stage"], row["step"]) == (stage, step)
        )

    stages = {
        "check": (folder, "_opened", lambda source, name, *_: name.startswith("05")),
        "pictures": (prepare, "save_png", lambda image, path: path.name.startswith("00003")),
        "star": logged("star", "coarse", 2),
        "pairs": (pairs, "save_tensors", lambda tensors, path: path.name == "00000.safetensors"),
        "sheet": (pairs, "draw_pairs", lambda *_: True),
        "coarse": logged("run", "coarse", 2),
        "full": logged("run", "full", 2),
        "hair": logged("hair", "full", 2),
        "likeness": logged("likeness", "likeness", 2),
        "style": (StyleConfig, "save", lambda *_: True, True),
    }
    for stage, where in stages.items():
        child = os.fork()
        if child == 0:
            try:
                killed(*where)
                train(net, pictures, files, out)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, stage
        try:
            raise SystemExit(f"there is {style_folder(out)} after {stage}")
        except pipeline.CheckpointError as error:
            assert ("has not finished" in str(error)) == (stage != "check"), error
        print(stage)
"""


def run_script(text, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.getcwd()} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def same(a, b):
    """Whether two states are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def test_killed_in_every_stage_it_ends_in_the_same_style(tiny, large_folder, files, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order, here and there
    try:
        whole = train(tiny, large_folder, files, tmp_path / "whole")
        ended = run_script(SCRIPT, files, large_folder, tmp_path / "cut")
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.split()[-3:] == ["hair", "likeness", "style"]
        resumed = train(tiny, large_folder, files, tmp_path / "cut")
    finally:
        torch.set_num_threads(threads)
    assert style_folder(tmp_path / "cut") == resumed
    for name in (
        "style/generator",
        "style/likeness",
        "style/hair",
        "pairs/pairs",
        "run/snapshots/full_00001",
    ):
        ours, theirs = (
            read_tensors(run.parent / f"{name}.safetensors") for run in (resumed, whole)
        )
        assert same(ours, theirs), name
    for name in ("star/coarse.pt", "run/coarse.pt", "run/full.pt"):
        ours, theirs = (torch.load(run.parent / name)["parts"] for run in (resumed, whole))
        for part in theirs:  # float32: networks, their averages, and the optimisers' memories
            assert same(ours[part], theirs[part]), (name, part)
    log = [json.loads(line) for line in (tmp_path / "cut/run/log.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in log] == [
        ("coarse", 1), ("coarse", 2), ("coarse", 3), ("full", 1), ("full", 2),
    ]  # fmt: skip
    assert StyleConfig.from_file(resumed / "config.json").license == "unknown"
    assert (tmp_path / "cut/pairs/report.json").read_text() == (
        tmp_path / "whole/pairs/report.json"
    ).read_text()


def test_the_best_scored_snapshot_is_packaged_with_its_origin(tiny, large_folder, files, tmp_path):
    style = train(tiny, large_folder, files, tmp_path, license="CC-BY-4.0")
    assert StyleConfig.from_file(style / "config.json").license == "CC-BY-4.0"
    origin = json.loads((style / "training.json").read_text())
    choice = json.loads((tmp_path / "run" / "choice.json").read_text())
    assert origin["chosen"] == choice["chosen"]
    assert len(choice["scored"]) == 5 + len(SHARES)
    assert choice["chosen"]["score"] == min(row["score"] for row in choice["scored"])
    name = f"{choice['chosen']['stage']}_{choice['chosen']['step']:05d}.safetensors"
    chosen = read_tensors(tmp_path / "run" / "snapshots" / name)
    first = read_tensors(tmp_path / "run" / "snapshots" / "coarse_00001.safetensors")
    share = choice["chosen"].get("share", 1.0)
    for key, tensor in read_tensors(style / "generator.safetensors").items():
        wanted = first[key].float().lerp(chosen[key].float(), share)
        torch.testing.assert_close(tensor.float(), wanted, rtol=1e-3, atol=1e-4, msg=key)
    assert any(tensor.any() for tensor in read_tensors(style / "hair.safetensors").values())
    assert StyleConfig.from_file(style / "config.json").hair == 1
    place = place_of(Processes().device)
    assert {name: origin[name] for name in place} == place
    assert {name: origin["hair"][name] for name in place} == place
    assert origin["settings"]["pairs"]["steps"] == 2
    assert origin["data"]["count"] == 12 and origin["data"]["license"] == "ours"
    assert set(origin["seconds"]) == {"star", "pairs", "style", "hair", "likeness"}
    assert origin["likeness"]["settings"]["rank"] == 2
    assert origin["hair"]["settings"]["full_batch"] == 2
    assert (tmp_path / "pairs" / "sheet.png").is_file()
    assert (tmp_path / "pictures.png").is_file()
    for stage in ("coarse", "full"):
        assert list((tmp_path / "run" / "tensorboard" / stage).glob("events*"))


def test_the_paired_loss_teaches_what_the_pairs_show(tiny, tmp_path):
    """Pairs whose picture is the negative of the face: supervision alone must turn the generator."""
    from PIL import Image

    from facestyle.image import to_pil
    from facestyle.latents import broadcast
    from facestyle.models.generator import sample_z

    w = tiny.mapping(sample_z(6, 0, 8))
    faces = tiny.synthesis(broadcast(w, tiny.num_ws), resolution=32)
    (tmp_path / "set").mkdir()
    for i, face in enumerate(faces):
        negative = to_pil(-face.clamp(-1, 1)).resize((32, 32), Image.Resampling.BOX)
        negative.save(tmp_path / "set" / f"{i}.png")
    pictures = PictureSet(tmp_path / "set", 32)
    pairs = given_pairs(pictures, w, tiny.num_ws)
    config = FinetuneConfig(
        coarse_steps=30, full_steps=0, adversarial_weight=0, sem_weight=0, pair_level=0,
        pair_batch=6, pair_pixel_weight=10.0, coarse_lr=0.02, preview_every=30,
        replace_background="no", ema_half_life_nimg=1,
    )  # fmt: skip
    net = finetune(tiny, tmp_path / "set", tmp_path / "run", config, pairs=pairs, progress=False)
    wanted = pictures.batch(range(6))
    drawn = net.synthesis(broadcast(w, tiny.num_ws), resolution=32)
    before, after = ((img - wanted).abs().mean().item() for img in (faces, drawn))
    assert after < 0.8 * before


def test_pairs_of_other_pictures_are_refused(tiny, folder, tmp_path):
    pairs = given_pairs(PictureSet(folder, 32), torch.zeros(12, 8), tiny.num_ws)
    renamed = dataclasses.replace(pairs, names=tuple(f"x{name}" for name in pairs.names))
    config = FinetuneConfig(coarse_steps=1, full_steps=0, pair_level=0)
    with pytest.raises(DatasetError, match="other pictures"):
        finetune(tiny, folder, tmp_path, config, pairs=renamed, progress=False)


def test_a_style_to_start_from_is_taken_as_it_is_used(tiny, folder, tmp_path, monkeypatch):
    styled = copy.deepcopy(tiny)
    with torch.no_grad():
        styled.synthesis.to_image.bias.add_(0.5)
    card = StyleConfig(
        name="warm", title="", description="", generator=tiny.config(), base_sha256=sha256_of(tiny),
    )  # fmt: skip
    started = []
    monkeypatch.setattr(
        pipeline,
        "finetune",
        lambda *_, init, **__: started.append(Path(init).read_bytes()) or 1 / 0,
    )

    def start(share):
        write_style(styled, dataclasses.replace(card, share=share), tmp_path / "warm", tiny)
        with pytest.raises(ZeroDivisionError):
            train_style(
                tiny, folder, tmp_path / f"run {share}", PRESETS["patches"], name="red", data_license="ours",
                aligned="yes", min_side_px=40, init=tmp_path / "warm", progress=False,
            )  # fmt: skip
        return load_safetensors(started[-1])

    plain, twice, _ = (start(share) for share in (1.0, 2.0, 2.0))
    assert plain.keys() == {"to_image.bias"}
    bias = tiny.synthesis.to_image.bias
    assert torch.allclose(twice["to_image.bias"].float(), bias + 1, atol=1e-3)
    assert twice.keys() == tiny.synthesis.state_dict().keys()
    assert started[-1] == started[-2]  # a run that goes on knows its start by its bytes


def test_an_encoder_of_another_space_is_refused(tiny, large_folder, files, tmp_path):
    config = dataclasses.replace(
        CONFIG,
        pairs=dataclasses.replace(CONFIG.pairs, level=1),
        style=dataclasses.replace(CONFIG.style, pair_level=1),
    )
    with pytest.raises(CheckpointError, match="into w_plus, and one into z_plus"):
        train_style(
            tiny, large_folder, tmp_path, config, name="red", data_license="ours",
            encoder_z=files / "w_plus.safetensors", aligned="yes", progress=False,
        )  # fmt: skip


def test_a_finished_run_that_is_run_again_keeps_what_was_added_to_its_style(
    tiny, large_folder, files, tmp_path
):
    style = train(tiny, large_folder, files, tmp_path / "out")
    first = json.loads((style / "training.json").read_text())
    assert set(first["seconds"]) == {"star", "pairs", "style", "hair", "likeness"}
    assert "scores" not in first
    card = StyleConfig.from_file(style / "config.json")
    assert (card.likeness, card.hair) == (1, 1)
    shares = {"share": 1.3, "likeness": 0.7, "hair": 0.6, "keep_shape": 0.5}
    dataclasses.replace(card, **shares).save(style / "config.json")
    measured = first | {"scores": {"kid": 1.0}, "seconds": {name: 1e4 for name in first["seconds"]}}
    (style / "training.json").write_text(json.dumps(measured))
    train(tiny, large_folder, files, tmp_path / "out")
    again = json.loads((style / "training.json").read_text())
    assert again["scores"] == {"kid": 1.0} and set(again["seconds"].values()) == {1e4}
    card = StyleConfig.from_file(style / "config.json")
    assert {name: getattr(card, name) for name in shares} == shares
    for more, is_same in (({"keep_shape": 0.5}, True), ({"keep_shape": 0.0}, False)):
        train(tiny, large_folder, files, tmp_path / "out", **more)
        card = StyleConfig.from_file(style / "config.json")
        assert {name: getattr(card, name) for name in shares} == shares | more
        assert ("scores" in json.loads((style / "training.json").read_text())) == is_same
    (style / "training.json").write_text(json.dumps(measured))
    train(tiny, large_folder, files, tmp_path / "out", psi=0.5)
    assert "scores" not in json.loads((style / "training.json").read_text()), "of another psi"


def test_what_was_turned_off_by_hand_stays_off_and_can_be_turned_on(
    tiny, large_folder, files, tmp_path
):
    style = train(tiny, large_folder, files, tmp_path / "out")
    for shares in ({"likeness": 0.0, "hair": 0.0}, {"likeness": 0.4, "hair": 0.5}):
        card = StyleConfig.from_file(style / "config.json")
        dataclasses.replace(card, **shares).save(style / "config.json")
        train(tiny, large_folder, files, tmp_path / "out")
        card = StyleConfig.from_file(style / "config.json")
        assert {name: getattr(card, name) for name in shares} == shares
        assert (style / "hair.safetensors").is_file() and (style / "likeness.safetensors").is_file()


def test_a_command_that_is_refused_changes_nothing_of_the_run_there(
    tiny, large_folder, files, tmp_path, monkeypatch
):
    out, other = tmp_path / "out", tmp_path / "other"
    shutil.copytree(large_folder, other)
    (other / "00.png").unlink()
    plain = dataclasses.replace(
        CONFIG, hair=HairConfig(steps=0, full_steps=0), likeness=LikenessConfig(steps=0)
    )
    train(tiny, large_folder, files, out, plain)

    def there():
        return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    before = there()
    longer = dataclasses.replace(plain, star=dataclasses.replace(plain.star, coarse_steps=4))
    with pytest.raises(ConfigError, match=r"other settings \(star\)"):
        train(tiny, other, files, out, longer)
    monkeypatch.setattr(state, "_locked", locked)
    with pytest.raises(OutputError, match="another process"):
        train(tiny, other, files, out, plain)
    level = dataclasses.replace(plain, style=dataclasses.replace(plain.style, pair_level=1))
    with pytest.raises(OutputError, match="another process"):
        train(tiny, large_folder, files, out, level)
    assert there() == before


def locked(folder):
    raise OutputError("another process is at work there", path=folder)


def test_blocks_that_leave_nothing_to_train_are_refused_at_once(
    tiny, large_folder, files, tmp_path
):
    blocks = tiny.synthesis.preview_blocks
    config = dataclasses.replace(
        CONFIG, style=dataclasses.replace(CONFIG.style, early_blocks=blocks, coarse_steps=0)
    )
    with pytest.raises(ConfigError, match=f"early_blocks {blocks} leaves nothing to train"):
        train(tiny, large_folder, files, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()
    # No steps of a stage that has nothing to train is no mistake.
    style = dataclasses.replace(config.style, coarse_steps=2, full_steps=0, early_blocks=0)
    finetune(tiny, large_folder, tmp_path / "run", style, progress=False)


def test_pairs_take_a_g_star_of_any_settings(tiny, large_folder, files, tmp_path):
    short = dataclasses.replace(CONFIG.star, coarse_steps=2, coarse_batch=3)
    for name, config in (("made", short), ("found", None)):
        pipeline.find_pairs(
            tiny, large_folder, tmp_path / name, CONFIG.pairs, star=tmp_path / "star",
            star_config=config, encoder_z=files / "z_plus.safetensors", progress=False,
        )  # fmt: skip


def test_a_style_keeps_as_much_of_shapes_as_was_asked_for(tiny, large_folder, files, tmp_path):
    style = train(tiny, large_folder, files, tmp_path / "out", keep_shape=0.25)
    assert StyleConfig.from_file(style / "config.json").keep_shape == 0.25
    with pytest.raises(ConfigError, match="keep_shape must be in"):
        train(tiny, large_folder, files, tmp_path / "other", keep_shape=1.5)
    assert not (tmp_path / "other" / "run").exists(), "refused before hours of work"


def test_the_command_passes_its_options_on(large_folder, tmp_path, monkeypatch, capsys):
    asked = {}

    def trained(generator, pictures, out, config, **options):
        asked.update(options)
        (Path(out) / "style").mkdir(parents=True)
        return Path(out) / "style"

    monkeypatch.setattr(pipeline, "train_style", trained)
    monkeypatch.setattr(style_cli, "load_base", lambda args: None)
    monkeypatch.chdir(tmp_path)
    named = ["--name", "red", "--data-license", "ours", "--device", "cpu"]
    assert main(["train", str(large_folder), "-o", "out", *named]) == 0
    usual = (asked["license"], asked["min_side_px"], asked["keep_shape"])
    assert usual == (None, 192, None)
    assert capsys.readouterr().out.endswith('FaceStylizer.from_pretrained("./out")\n')
    more = ["--license", "CC-BY-4.0", "--min-side", "64", "--keep-shape", "0.5"]
    assert main(["train", str(large_folder), "-o", "other", *named, *more]) == 0
    given = (asked["license"], asked["min_side_px"], asked["keep_shape"])
    assert given == ("CC-BY-4.0", 64, 0.5)


def test_a_dry_run_checks_with_the_least_side(large_folder, tmp_path, capsys):
    arguments = ["train", str(large_folder), "-o", str(tmp_path / "out"), "--name", "red"]
    arguments += ["--data-license", "ours", "--aligned", "yes", "--dry-run"]
    assert main([*arguments, "--min-side", "200"]) == 0
    assert "12 of 12 pictures are used" in capsys.readouterr().out
    assert main([*arguments, "--min-side", "201"]) == 2
    assert "allow less than 201 px (--min-side PX" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_least_side_above_the_usual_size_is_kept(tmp_path):
    (tmp_path / "large").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        blocks = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        blocks.resize((640, 640)).save(tmp_path / "large" / f"{i}.png")
    sources = [str(tmp_path / "large")]
    made = pipeline._prepared(sources, tmp_path / "out", "yes", 600, Processes("cpu"), False)
    assert {load_image(path).size for path in made.glob("*.png")} == {(600, 600)}


@pytest.mark.parametrize(
    ("group", "change"),
    [
        ("star", {"sem_weight": 1.0}),
        ("star", {"pair_weight": 1.0}),
        ("style", {"pair_level": 3}),
        ("style", {"discriminator": "none"}),
        ("style", {"adversarial_ramp": 2.0}),
        ("style", {"held_out": 1}),
    ],
)
def test_settings_that_contradict_each_other_are_refused(group, change):
    with pytest.raises(ConfigError):
        TrainConfig(**{group: dataclasses.replace(getattr(TrainConfig(), group), **change)})


def test_presets_grow():
    fast, default, quality = (PRESETS[name] for name in ("fast", "default", "quality"))
    for smaller, larger in ((fast, default), (default, quality)):
        assert smaller.style.coarse_steps < larger.style.coarse_steps
        assert smaller.pairs.steps * smaller.pairs.count < larger.pairs.steps * larger.pairs.count


def test_every_preset_can_be_asked_for_and_portrait_does_more_than_patches(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "{" + ",".join(PRESETS) + "}" in capsys.readouterr().out
    assert not PRESETS["patches"].hair.learns and not PRESETS["patches"].likeness.steps
    portrait = PRESETS["portrait"]
    assert portrait.hair.learns and portrait.likeness.steps and not portrait.uses_pairs
    assert portrait.style == PRESETS["patches"].style


WORKERS = """
    import dataclasses
    import sys
    import torch
    from pathlib import Path
    from facestyle.training import finetune
    from facestyle.models.mobile import MobileGenerator
    from facestyle.models.checkpoints import load_strict, read_tensors, save_tensors
    from facestyle.processes import Processes
    from tests.training.test_pipeline import CONFIG, train
    files, folder, out = map(Path, sys.argv[1:4])
    net = MobileGenerator((8, 8, 8, 8), w_dim=8, mapping_depth=2, preview_resolution=32)
    load_strict(net, read_tensors(files / "g.safetensors"))
    processes = Processes()
    assert processes.count == 2
    gradient = torch.nn.Parameter(torch.zeros(3))
    gradient.grad = torch.full((3,), float(processes.rank))
    processes.average_gradients([gradient])
    assert gradient.grad.tolist() == [0.5] * 3
    runs = []
    begin = finetune._Finetuning.__init__
    def kept(self, *args):
        begin(self, *args)
        runs.append(self)
    finetune._Finetuning.__init__ = kept
    config = dataclasses.replace(CONFIG, style=dataclasses.replace(CONFIG.style, noise_share=0.3))
    train(net.eval().requires_grad_(False), folder, files, out, config=config, processes=processes)
    mine = torch.cat([t.flatten() for t in runs[-1].target.synthesis.state_dict().values()])
    both = [torch.empty_like(mine) for _ in range(2)]
    torch.distributed.all_gather(both, mine)
    assert torch.equal(*both)  # weights and noise planes
    processes.end()
"""


def test_two_processes_train_one_style(tiny, large_folder, files, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKERS))
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
         "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0",
         str(script), str(files), str(large_folder), str(tmp_path / "out")],
        env=os.environ
        | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true",
           "PYTHONFAULTHANDLER": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    made = read_tensors(tmp_path / "out" / "style" / "generator.safetensors")
    alone = train(tiny, large_folder, files, tmp_path / "alone")
    other = read_tensors(alone / "generator.safetensors")
    # Twice the pictures in every step: another result, and both went somewhere.
    assert not torch.equal(made["const"], other["const"])
    assert not torch.equal(made["const"], tiny.synthesis.const.half())
    origin = json.loads((tmp_path / "out" / "style" / "training.json").read_text())
    assert origin["processes"] == 2
    lines = (tmp_path / "out" / "run" / "log.jsonl").read_text().splitlines()
    assert len(lines) == 5  # one process writes


def test_one_process_needs_no_accelerate(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    alone = Processes("cpu")
    assert alone.is_main and alone.count == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ImportError, match=r"facestyle\[train\]"):
        Processes()


def test_processes_wait_for_the_main_one_as_long_as_it_takes(monkeypatch):
    """NCCL gives up after ten minutes unless told otherwise, and a large folder takes longer to check."""
    import accelerate

    asked = []
    monkeypatch.setattr(accelerate, "Accelerator", lambda **options: asked.append(options) or 1 / 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for is_coupled in (True, False):
        with pytest.raises(ZeroDivisionError):
            Processes("cpu", is_coupled=is_coupled)
    waits = [options["kwargs_handlers"][0].timeout for options in asked]
    assert len(waits) == 2 and min(waits).days >= 1


def test_the_gpu_is_recorded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU, {device}")
    assert place_of(torch.device("cuda:1"))["device"] == "a GPU, cuda:1"
    assert place_of(torch.device("cpu"))["device"] == "cpu"
    assert place_of(torch.device("cpu"))["torch"] == torch.__version__


SHORT = TrainConfig(
    pairs=PairsConfig(level=2, count=4, steps=1, batch=4),
    star=dataclasses.replace(CONFIG.star, coarse_steps=1),
    style=FinetuneConfig(coarse_steps=1, coarse_batch=2, full_steps=0),
)


def test_another_level_of_pairs_can_be_chosen_until_g_prime_has_begun(
    tiny, large_folder, files, tmp_path
):
    out = tmp_path / "out"
    train(tiny, large_folder, files, out, SHORT)
    made = (out / "pairs" / "pairs.safetensors").stat().st_mtime_ns
    other = dataclasses.replace(SHORT, style=dataclasses.replace(SHORT.style, pair_level=1))
    with pytest.raises(ConfigError, match=rf"level 2; to choose level 1 delete {out}/run and run"):
        train(tiny, large_folder, files, out, other)
    shutil.rmtree(out / "run")
    faster = dataclasses.replace(other, pairs=dataclasses.replace(SHORT.pairs, steps=2))
    with pytest.raises(ConfigError, match=r"other settings \(pairs, style\)"):
        train(tiny, large_folder, files, out, faster)
    train(tiny, large_folder, files, out, other)
    assert json.loads((out / "run" / "config.json").read_text())["pair_level"] == 1
    assert TrainConfig.from_run(out) == other
    assert (out / "pairs" / "pairs.safetensors").stat().st_mtime_ns == made
    pairs = PairStore.load(out / "pairs")
    known = train(tiny, out / "pictures", files, tmp_path / "known", other, pairs=pairs)
    ours, theirs = (read_tensors(made / "generator.safetensors") for made in (out / "style", known))
    assert same(ours, theirs)


def test_level_0_is_of_known_pairs(tiny, large_folder, files, tmp_path):
    config = dataclasses.replace(SHORT, style=dataclasses.replace(SHORT.style, pair_level=0))
    with pytest.raises(ConfigError, match=r"pair_level 0 is of known pairs.*--pairs"):
        train(tiny, large_folder, files, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()
    without = dataclasses.replace(config.style, pair_weight=0)
    dataclasses.replace(config, style=without).check_pairs(are_known=False)


@pytest.fixture
def command(large_folder, tmp_path):
    """Exit code of ``facestyle train`` on pictures, dry."""
    pictures = PictureSet(large_folder, 32)
    for level in (0, 3):
        store = given_pairs(pictures, torch.zeros(12, 8), 6)
        PairStore(store.indices, store.names, {level: store.codes(0)}, {}, {}).save(
            tmp_path / f"{level}.safetensors"
        )

    def run(*words):
        named = ["-o", str(tmp_path / "out"), "--name", "red", "--data-license", "ours"]
        known = [str(tmp_path / f"{w}.safetensors") if w in ("0", "3") else w for w in words]
        return main(["train", str(large_folder), *named, "--dry-run", *known])

    return run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pairs", "0", "--set", "style.pair_level=0", "--aligned", "yes"], "--aligned is not read"),
        (["--pairs", "0", "--set", "style.pair_level=0", "--min-side", "99"], "--min-side is not read"),
        (["--pairs", "0", "--set", "style.pair_level=0", "--encoder-z", "x"], "--encoder-z is not"),
        (["--pairs", "3", "--set", "style.pair_level=3", "--set", "pairs.level=3"], "pairs.level is not"),
        (["--pairs", "3", "--set", "style.pair_level=3", "--set", "star.seed=1"], "star.seed is not"),
        (["--pairs", "3"], "these pairs have levels [3], not 2"),
        (["--pairs", "0", "--preset", "patches"], "--pairs is not read where style.pair_weight is 0"),
        (["--set", "style.pair_level=0"], "name them with --pairs"),
        (["--set", "hair.strands=0.02"], "hair.strands is not read: hair is learned where hair.steps"),
        (["--set", "likeness.rank=4", "--set", "likeness.steps=0"], "likeness.rank is not read"),
        (["--preset", "patches", "--set", "pairs.count=3"], "pairs.count is not read: no pairs"),
        (["--preset", "patches", "--encoder-z", "x"], "--encoder-z is not read: no pairs"),
        (["--encoder-w-plus", "x"], "--encoder-w-plus is not read: it is for pairs of level 3"),
        (["--set", "style.coarse_lr=0"], "coarse_lr must be above 0"),
    ],
)  # fmt: skip
def test_what_would_not_be_read_is_refused_by_name(command, capsys, words, said):
    assert command(*words) == 2
    told = capsys.readouterr()
    assert said in told.err and not told.out


def test_what_is_read_is_taken(command, capsys):
    for words, shown in (
        (["--pairs", "3", "--set", "style.pair_level=3"], "pairs.level=3\n"),
        (["--pairs", "0", "--set", "style.pair_level=0"], "pairs.level=2\n"),
        (["--set", "hair.steps=3", "--set", "hair.strands=0.02"], "hair.strands=0.02\n"),
        (["--preset", "portrait", "--set", "hair.steps=0", "--set", "hair.full_steps=0"], "hair.steps=0\n"),
        (["--set", "pairs.level=1", "--set", "style.pair_level=1", "--set", "star.seed=1"], "star.seed=1\n"),
    ):  # fmt: skip
        assert command(*words, *([] if "--pairs" in words else ["--aligned", "yes"])) == 0
        assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pairs", "x", "--codes", "w", "--level", "3"], "--level is not read: --codes names known codes"),
        (["pairs", "x", "--codes", "w", "--star", "s"], "--star is not read"),
        (["pairs", "x", "--codes", "w", "--set", "count=3"], "--set is not read"),
        (["pairs", "x", "--codes", "w", "--encoder-z", "e"], "--encoder-z is not read"),
        (["pairs", "x", "--codes", "w", "--encoder-w-plus", "e"], "--encoder-w-plus is not read"),
        (["pairs", "x", "--level", "1", "--star", "s"], "--star is not read: G* is for levels 2 and 3"),
        (["pairs", "x", "--encoder-w-plus", "e"], "--encoder-w-plus is not read: it is for level 3"),
        (["ablate", "a=x", "--set", "hair.steps=3"], "hair.steps is not read: ablate trains G' alone"),
        (["ablate", "a=x", "--set", "likeness.rank=3"], "likeness.rank is not read"),
        (["ablate", "a=x", "--set", "pairs.level=3"], "pairs.level is not read: variants say"),
        (["ablate", "a=x", "--set", "style.held_out=4"], "style.held_out is not read"),
        (["ablate", "a=x", "--variants", "+SC", "--encoder-w-plus", "e"], "--encoder-w-plus is for pairs of level 3"),
    ],
)  # fmt: skip
def test_pairs_and_ablate_refuse_what_they_would_not_read(tmp_path, capsys, words, said):
    assert main([*words, "-o", str(tmp_path / "out"), "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_a_run_from_before_hair_and_likeness_has_their_defaults(tmp_path):
    begun = dataclasses.asdict(dataclasses.replace(CONFIG, hair=TrainConfig().hair))
    for name in ("hair", "likeness"):
        begun.pop(name)
    begun["style"].pop("full_px")
    (tmp_path / "config.json").write_text(json.dumps(begun))
    assert TrainConfig.from_run(tmp_path) == TrainConfig(
        star=CONFIG.star, pairs=CONFIG.pairs, style=CONFIG.style
    )
    assert TrainConfig.from_run(tmp_path).stages == ("star", "pairs", "run")


def test_a_run_of_an_older_version_goes_on_with_the_defaults_of_what_it_did_not_know(tmp_path):
    settings = {"steps": 3, "pairs": {"psi": 0.5, "new": "a"}, "newer": 1}
    defaults = {"steps": 9, "pairs": {"psi": 0.7, "new": "a"}, "newer": 1}
    TrainingState(tmp_path, {"steps": 3, "pairs": {"psi": 0.5}})
    TrainingState(tmp_path, settings, defaults=defaults)
    for changed in (
        settings | {"newer": 2},
        settings | {"pairs": {"psi": 0.5, "new": "b"}},
        settings | {"init": "of another kind"},
        settings | {"steps": 9},
    ):
        with pytest.raises(ConfigError, match="other settings"):
            TrainingState(tmp_path, changed, defaults=defaults)
    with pytest.raises(ConfigError, match="newer"):
        TrainingState(tmp_path, settings)


def test_the_log_forgets_steps_that_are_run_again(tmp_path):
    state = TrainingState(tmp_path, {})
    for stage, step in (("a", 1), ("a", 2), ("b", 1), ("a", 3)):
        state.log({"stage": stage, "step": step, "loss": 1.0})
    state.forget_after("a", 1)
    assert [(row["stage"], row["step"]) for row in state.rows()] == [("a", 1), ("b", 1)]
