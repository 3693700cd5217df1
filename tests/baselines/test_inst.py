"""InST on a tiny Stable Diffusion: its inverter, its training, its stochastic inversion."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers", reason="needs the extra diffusion")

from facestyle.baselines.ddim import adain, channel_statistics
from facestyle.baselines.diffusion_method import STYLE_NUMBER, latent_rng, squashed
from facestyle.baselines.inst import Inst, InstConfig, InstStyle, _levels, stochastic_inversion
from facestyle.baselines.inst_training import (
    InstInverter,
    InstTraining,
    clip_levels,
    style_token,
    train_embedding,
    training_loss,
    view_style,
)
from facestyle.errors import CheckpointError, ConfigError, DownloadError, OutputError
from facestyle.image import to_tensor
from facestyle.models.checkpoints import read_tensors


@pytest.fixture(scope="module")
def config(tiny_clip_folder):
    training = InstTraining(steps=4, save_every=2, lr=1e-2, clip=str(tiny_clip_folder))
    return InstConfig(steps=5, training=training)


@pytest.fixture(scope="module")
def run(tiny_model, config, style_picture, tmp_path_factory):
    """A trained style and its folder."""
    path = tmp_path_factory.mktemp("inst")
    return Inst(tiny_model, config).prepare(style_picture, path, progress=False), path


def random_latents(count, seed=0):
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_the_inverter_has_the_authors_size():
    assert sum(p.numel() for p in InstInverter().parameters()) == 3_737_856


def test_the_inverter_is_an_affine_map():
    """Attention over one token passes its value on, so queries, keys and all of attn1 have no effect."""
    net = InstInverter(32, heads=2, head_width=8).eval()
    u = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mapped = net.net[1](net.attn2.to_out[0](net.attn2.to_v(u)))
        torch.testing.assert_close(net(u), mapped)
    net(u).sum().backward()
    idle = [*net.attn1.parameters(), net.attn2.to_q.weight, net.attn2.to_k.weight]
    assert max(p.grad.abs().max() for p in idle) < 1e-6
    assert net.attn2.to_v.weight.grad.abs().max() > 1e-3


def test_training_lowers_the_loss_of_fixed_draws_and_moves_the_inverter_alone(tiny_model):
    torch.manual_seed(0)
    inverter = InstInverter(32).eval()
    u = torch.nn.functional.normalize(torch.randn(1, 32), dim=1)
    clean, *noises = random_latents(5, seed=2).split(1)
    draws = list(zip(noises, (100, 300, 600, 900), strict=True))
    optimizer = torch.optim.AdamW(inverter.parameters(), lr=5e-3)
    losses = []
    for _ in range(6):
        vector = inverter(u)
        loss = sum(training_loss(tiny_model, vector, clean, n, t) for n, t in draws)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 1e-3
    for net in (tiny_model.unet, tiny_model.text_encoder, tiny_model.vae):
        assert all(p.grad is None for p in net.parameters())


def test_a_style_is_one_vector_that_reads_back_exactly(run, tiny_model, config, crops):
    method, folder = run
    assert method.style.vector.shape == (1, 32)
    again = Inst(tiny_model, config).load(folder)
    for name in ("vector", "mean", "std"):
        assert torch.equal(getattr(again.style, name), getattr(method.style, name))
    assert torch.equal(again.stylize(crops[:1]), method.stylize(crops[:1]))


def test_diffusers_own_loader_reads_the_file(run, tmp_path):
    from facestyle.baselines.random_diffusion import random_pipeline

    method, folder = run
    pipe = random_pipeline("tiny")
    pipe.load_textual_inversion(str(folder / "embedding.safetensors"), token="<inst-style>")
    token = pipe.tokenizer.convert_tokens_to_ids("<inst-style>")
    row = pipe.text_encoder.get_input_embeddings().weight[token]
    assert torch.equal(row.detach(), method.style.vector[0])
    assert list(read_tensors(folder / "embedding.safetensors")) == ["style"]


def test_an_interrupted_training_ends_where_an_unbroken_one_does(
    run, tiny_model, config, style_picture, tmp_path, monkeypatch
):
    from facestyle.training.state import TrainingState

    keep = TrainingState.save

    def die(state, stage, step, parts):
        keep(state, stage, step, parts)
        if step == 2:
            raise OutputError("the disk is full", path=tmp_path)

    monkeypatch.setattr(TrainingState, "save", die)
    with pytest.raises(OutputError):
        Inst(tiny_model, config).prepare(style_picture, tmp_path, progress=False)
    monkeypatch.setattr(TrainingState, "save", keep)
    resumed = Inst(tiny_model, config).prepare(style_picture, tmp_path, progress=False)
    assert torch.equal(resumed.style.vector, run[0].style.vector)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) == config.training.steps


def test_a_folder_of_another_style_is_refused(run, tiny_model, config, style_folder):
    with pytest.raises(ConfigError, match="another picture"):
        Inst(tiny_model, config).prepare(style_folder, run[1], progress=False)


def test_a_learned_picture_is_not_learned_again(
    run, tiny_model, config, style_picture, crops, tmp_path, monkeypatch
):
    import facestyle.baselines.inst as module

    with torch.inference_mode():  # as a comparison runs its methods
        Inst(tiny_model, config, cache=tmp_path).stylize(crops[:1], style_picture)
    monkeypatch.setattr(module, "train_embedding", None)
    again = Inst(tiny_model, config, cache=tmp_path).stylize(crops[:1], style_picture)
    assert torch.equal(again, run[0].stylize(crops[:1]))


def test_a_method_out_of_a_folder_keeps_what_it_learns(
    tiny_diffusion_folder, config, style_picture, crops, tmp_path, monkeypatch
):
    import facestyle.baselines.inst as module

    def method():
        return Inst.from_pretrained(
            tiny_diffusion_folder, config=config, cache=tmp_path, device="cpu"
        )

    made = method().stylize(crops[:1], style_picture)
    (folder,) = tmp_path.iterdir()
    assert (folder / "embedding.safetensors").is_file()
    monkeypatch.setattr(module, "train_embedding", None)
    assert torch.equal(method().stylize(crops[:1], style_picture), made)


def test_a_picture_needs_a_folder_to_keep_its_training(tiny_model, config, style_picture, crops):
    with pytest.raises(ConfigError, match="cache="):
        Inst(tiny_model, config).stylize(crops, style_picture)


def test_a_unet_that_knows_the_noise_leaves_the_latent_as_it_was(tiny_model, monkeypatch):
    clean, noise = random_latents(2).split(1)
    monkeypatch.setattr(tiny_model, "predict_noise", lambda x, time, states: noise)
    states = tiny_model.text(["*"])
    noised = tiny_model.ddim.add_noise(clean, noise, 681)
    assert torch.equal(stochastic_inversion(tiny_model, clean, noise, 681, states), noised)


def test_noising_goes_to_where_denoising_begins(run, seen, crops):
    run[0].stylize(crops[:1])  # 3 of 5 steps at strength 0.7
    assert seen.times == [(401, 1), (401, 2), (201, 2), (1, 2)]


def test_the_authors_noise_beyond_where_denoising_begins(run, tiny_model, seen, crops):
    quirky = Inst(tiny_model, dataclasses.replace(run[0].config, official_quirks=True))
    quirky.style = run[0].style
    quirky.stylize(crops[:1])
    assert seen.times == [(700, 1), (401, 2), (201, 2), (1, 2)]
    seen.clear()
    quirky.stylize(crops[:1], strength=1.0)
    assert seen.times[0] == (999, 1)  # theirs asks for time 1000, which is not there


def test_the_authors_dropout_is_on_when_the_vector_is_computed(
    tiny_model, config, style_picture, tmp_path
):
    """By the same trained inverter: dropout is all that differs."""
    img = squashed(style_picture, 64, Image.Resampling.LANCZOS)
    views = view_style(img, tiny_model, config.training.clip, quirks=True)
    vectors = []
    for dropout in (False, True, True):
        torch.rand(())  # random numbers outside have no part in it
        vectors.append(
            train_embedding(
                tiny_model, views, tmp_path, config.training, {}, dropout=dropout, progress=False
            )
        )
    assert not torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[1], vectors[2])
    assert (vectors[0] - vectors[1]).abs().max() < vectors[0].abs().max()


def test_quirks_learn_of_a_squeezed_picture_with_dropout_and_a_sample(
    tiny_model, config, style_picture, tmp_path, monkeypatch
):
    import facestyle.baselines.inst as module

    asked = {}

    def train(*args, **options):
        asked.update(options)
        return torch.zeros(1, 32)

    monkeypatch.setattr(module, "train_embedding", train)
    for quirks in (False, True):
        method = Inst(tiny_model, dataclasses.replace(config, official_quirks=quirks))
        method.prepare(style_picture, tmp_path / str(quirks), progress=False)
        assert asked["dropout"] is quirks
    img = squashed(style_picture, 64, Image.Resampling.LANCZOS)
    with torch.no_grad():
        sample = tiny_model.encode(img, rng=latent_rng(config.training.seed, STYLE_NUMBER))
        assert not torch.equal(sample, tiny_model.encode(img))
    mean, std = channel_statistics(sample, eps=1e-5)
    torch.testing.assert_close(method.style.mean, mean)
    torch.testing.assert_close(method.style.std, std)


def test_strength_0_draws_nothing(run, tiny_model, seen, crops):
    method = Inst(tiny_model, run[0].config)
    method.style = run[0].style
    assert method.config.latent_adain
    made = method.stylize(crops[:1], strength=0.0)
    assert seen.times == []
    resized = torch.nn.functional.interpolate(crops[:1], (64, 64), mode="bilinear", antialias=True)
    with torch.no_grad():
        assert torch.equal(made, tiny_model.decode(tiny_model.encode(resized)))


def test_no_step_is_lost_to_rounding(tiny_model):
    config = InstConfig(strength=0.58)
    assert len(_levels(tiny_model, config)[0]) == 29
    quirks = dataclasses.replace(config, official_quirks=True)
    assert len(_levels(tiny_model, quirks)[0]) == 28, "as the authors' code has it"


def test_the_latent_takes_over_the_styles_statistics(run):
    style = run[0].style
    given = adain(random_latents(1), style.mean, style.std, eps=1e-5)
    torch.testing.assert_close(given.mean((2, 3)), style.mean[..., 0, 0], atol=1e-5, rtol=0)


def test_the_style_reaches_the_picture(run, tiny_model, crops):
    method, _ = run
    other = Inst(tiny_model, method.config)
    other.style = dataclasses.replace(method.style, vector=method.style.vector + 1)
    assert not torch.equal(other.stylize(crops[:1]), method.stylize(crops[:1]))


@pytest.mark.parametrize("prompt", ["", "a face"])
def test_a_prompt_without_the_style_is_refused(run, tiny_model, crops, prompt):
    method = Inst(tiny_model, dataclasses.replace(run[0].config, prompt=prompt))
    method.style = run[0].style
    with pytest.raises(ConfigError, match="must hold the style"):
        method.stylize(crops[:1])


def test_clip_sees_the_picture_or_what_the_authors_cast_makes_of_it():
    img = torch.tensor([-1.0, -0.5, 0.0, 0.999, 1.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert clip_levels(img, quirks=False)[0, 0, 0].tolist() == [0, 64, 128, 255, 255]
    assert clip_levels(img, quirks=True)[0, 0, 0].tolist() == [255, 0, 0, 0, 1]


def test_with_the_authors_cast_styles_look_alike_to_clip(tiny_model, config, astronaut):
    """Two pictures without black or white: CLIP tells them apart only without the cast."""
    photo = astronaut.resize((64, 64)).point(lambda level: 20 + level // 2)
    pictures = [to_tensor(photo), to_tensor(photo).flip(-1) * 0.5]
    clip = config.training.clip
    seen, cast = (
        [view_style(img, tiny_model, clip, quirks=quirks).clip[0] for img in pictures]
        for quirks in (False, True)
    )
    assert torch.equal(*cast)
    assert not torch.equal(*seen)
    assert np.isclose(float(seen[0].norm()), 1)


def test_the_mirrored_view_is_of_the_mirrored_picture(tiny_model, config, crops):
    img = torch.nn.functional.interpolate(crops[:1], (64, 64))
    views = view_style(img, tiny_model, config.training.clip, quirks=False)
    mirrored = view_style(img.flip(-1), tiny_model, config.training.clip, quirks=False)
    assert torch.equal(views.clip[1], mirrored.clip[0])
    assert torch.equal(views.latents[1][0], mirrored.latents[0][0])


def test_the_style_token_is_one_of_the_tokenizers(tiny_model):
    assert tiny_model.tokenizer.convert_ids_to_tokens(style_token(tiny_model)) == "*</w>"


def test_checkpointing_trains_the_same(run, tiny_model, config, style_picture, tmp_path):
    training = dataclasses.replace(config.training, checkpointing=True)
    method = Inst(tiny_model, dataclasses.replace(config, training=training))
    method.prepare(style_picture, tmp_path, progress=False)
    torch.testing.assert_close(method.style.vector, run[0].style.vector, atol=1e-5, rtol=0)
    assert not tiny_model.unet.is_gradient_checkpointing


def test_a_clip_that_is_not_there_is_named(tiny_model, config, style_picture, tmp_path):
    training = dataclasses.replace(config.training, clip="nobody/nothing")
    method = Inst(tiny_model, dataclasses.replace(config, training=training))
    with pytest.raises(DownloadError, match=r"through CLIP: nobody/nothing .*try again"):
        method.prepare(style_picture, tmp_path, progress=False)


def test_a_clip_of_another_width_is_refused(tiny_model, config, style_picture, tmp_path):
    from facestyle.baselines.random_diffusion import random_clip

    random_clip("tiny", projection_dim=16).save_pretrained(tmp_path / "clip")
    training = dataclasses.replace(config.training, clip=str(tmp_path / "clip"))
    method = Inst(tiny_model, dataclasses.replace(config, training=training))
    with pytest.raises(CheckpointError, match="with 16 numbers"):
        method.prepare(style_picture, tmp_path / "run", progress=False)


def test_a_style_of_another_width_is_refused(tiny_model, tmp_path):
    flat = torch.zeros(1, 4, 1, 1)
    InstStyle(torch.zeros(1, 16), flat, flat).save(
        tmp_path / "embedding.safetensors", {"model": "another"}
    )
    with pytest.raises(CheckpointError, match="learned on another"):
        Inst(tiny_model).load(tmp_path)


@pytest.mark.parametrize("change", [{"steps": 0}, {"lr": 0.0}, {"lr": -1e-3}, {"flip_share": 2.0}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        InstTraining(**change)
    with pytest.raises(ConfigError, match="strength"):
        InstConfig(strength=1.2)


@pytest.mark.parametrize("strength", [0.0, 0.1])
def test_quirks_noise_a_photo_that_takes_no_step_down(run, tiny_model, seen, crops, strength):
    """0.1 of 5 steps is none; the authors' code still leaves the latent at the level it noised to."""
    method = Inst(tiny_model, dataclasses.replace(run[0].config, official_quirks=True))
    method.style = run[0].style
    made = method.stylize(crops[:1], strength=strength)
    assert seen.times == [(int(1000 * strength), 1)]
    assert made.isfinite().all()
    assert not torch.equal(made, run[0].stylize(crops[:1], strength=0.0))


def test_a_style_learned_with_quirks_is_not_drawn_without(run, tiny_model, config):
    with pytest.raises(CheckpointError, match="learned with official_quirks False, and True"):
        Inst(tiny_model, dataclasses.replace(config, official_quirks=True)).load(run[1])


def test_a_style_of_another_model_is_taken_with_a_warning(run, tiny_model, config, caplog):
    from facestyle.baselines.diffusion import LatentDiffusion
    from facestyle.baselines.random_diffusion import random_pipeline

    Inst(tiny_model, config).load(run[1])
    assert not caplog.records
    pipe = random_pipeline("tiny", seed=1)
    other = LatentDiffusion(pipe, name="tiny", device=torch.device("cpu"))
    Inst(other, config).load(run[1])
    assert "learned on another model" in caplog.text


def test_how_often_it_saves_is_not_part_of_a_run(
    run, tiny_model, config, style_picture, monkeypatch
):
    import facestyle.baselines.inst as module

    monkeypatch.setattr(module, "train_embedding", None)
    training = dataclasses.replace(config.training, save_every=1, checkpointing=True)
    method = Inst(tiny_model, dataclasses.replace(config, training=training))
    method.prepare(style_picture, run[1], progress=False)
    assert torch.equal(method.style.vector, run[0].style.vector)


def test_a_loss_that_is_no_number_ends_training_by_name(
    tiny_model, config, style_picture, tmp_path, monkeypatch
):
    predict = tiny_model.predict_noise
    seen = []

    def overflow(latents, time, states):
        seen.append(time)
        return predict(latents, time, states) * (float("inf") if len(seen) == 3 else 1)

    monkeypatch.setattr(tiny_model, "predict_noise", overflow)
    with pytest.raises(ConfigError, match=r"loss of step 3 is no finite number.*bfloat16"):
        Inst(tiny_model, config).prepare(style_picture, tmp_path, progress=False)
    assert not (tmp_path / "embedding.safetensors").exists()
    assert (tmp_path / "training.pt").is_file()


def test_weights_that_are_no_numbers_are_not_kept(tiny_model, config, style_picture, tmp_path):
    training = dataclasses.replace(config.training, lr=float("inf"), save_every=1)
    method = Inst(tiny_model, dataclasses.replace(config, training=training))
    with pytest.raises(ConfigError, match=r"diverged in stage training, step 1: .*inverter"):
        method.prepare(style_picture, tmp_path, progress=False)
    assert not (tmp_path / "training.pt").exists()


def test_the_text_encoder_trains_in_float32_and_is_itself_again(config, tmp_path):
    from facestyle.baselines.diffusion import LatentDiffusion
    from facestyle.baselines.random_diffusion import random_pipeline

    pipe = random_pipeline("tiny", dtype=torch.bfloat16)
    model = LatentDiffusion(pipe, name="half", device=torch.device("cpu"))
    before = {k: v.clone() for k, v in model.text_encoder.state_dict().items()}
    kinds = []
    model.text_encoder.register_forward_hook(lambda net, *_: kinds.append(net.dtype))
    views = view_style(torch.zeros(1, 3, 64, 64), model, config.training.clip, quirks=False)
    train_embedding(model, views, tmp_path, config.training, {}, progress=False)
    assert kinds and set(kinds) == {torch.float32}
    after = model.text_encoder.state_dict()
    assert all(torch.equal(after[k], v) and after[k].dtype == v.dtype for k, v in before.items())


def test_with_little_memory_nothing_is_fetched_before_training_is_refused(
    tiny_model, config, style_picture, tmp_path, monkeypatch
):
    import facestyle.baselines.inst as module

    monkeypatch.setattr(module, "view_style", None)
    monkeypatch.setattr(tiny_model.unet, "_hf_hook", object(), raising=False)
    with pytest.raises(ConfigError, match='memory="all"'):
        Inst(tiny_model, config).prepare(style_picture, tmp_path, progress=False)


def test_a_style_without_its_origin_is_named(run, tiny_model, config, tmp_path):
    from facestyle.models.checkpoints import save_tensors

    path = tmp_path / "embedding.safetensors"
    save_tensors({"style": torch.zeros(1, 32)}, path, metadata={"format": "facestyle-inst"})
    with pytest.raises(CheckpointError, match="holds no style"):
        Inst(tiny_model, config).load(tmp_path)
    metadata = {"format": "facestyle-inst", "origin": {}}
    save_tensors({"style": torch.zeros(1, 32)}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="lacks 'latent'"):
        Inst(tiny_model, config).load(tmp_path)
