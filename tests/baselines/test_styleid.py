"""StyleID on a tiny Stable Diffusion: its attention's edge cases, its inversion, its caches."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("diffusers", reason="needs the extra diffusion")

from facestyle.baselines.ddim import channel_statistics
from facestyle.baselines.diffusion_method import latent_rng, square_crop
from facestyle.baselines.style_injection import StyleInjection, injected_layers
from facestyle.baselines.styleid import StyleId, StyleIdConfig, Trajectory, invert
from facestyle.errors import CheckpointError, ConfigError
from facestyle.image import to_pil

LAYERS = (6, 7, 8, 9, 10, 11)
CONFIG = StyleIdConfig(steps=4)
QUIRKS = dataclasses.replace(CONFIG, official_quirks=True)


@pytest.fixture(scope="module")
def prepared(tiny_model, style_picture, tmp_path_factory):
    return StyleId(tiny_model, CONFIG).prepare(
        style_picture, tmp_path_factory.mktemp("way"), progress=False
    )


@pytest.fixture(scope="module")
def portrait(prepared, crops):
    return prepared.stylize(crops[:1])


def passed(model, injection, latents, mode):
    """The noise that the UNet sees in latents while the attentions do as ``mode`` says."""
    injection.mode = mode
    null = model.text([""]).expand(len(latents), -1, -1)
    with torch.no_grad(), injection.installed(model.unet, LAYERS):
        return model.predict_noise(latents, injection.time, null)


def random_latents(count, seed=0):
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_attentions_that_are_off_change_nothing(tiny_model):
    x = random_latents(1)
    with torch.no_grad():
        plain = tiny_model.predict_noise(x, 0, tiny_model.text([""]))
    assert torch.equal(passed(tiny_model, StyleInjection(0.75, 1.5), x, "off"), plain)


def test_the_unet_is_as_before_afterwards(tiny_model):
    before = dict(tiny_model.unet.attn_processors)
    with pytest.raises(KeyboardInterrupt), StyleInjection(1, 1).installed(tiny_model.unet, LAYERS):
        changed = tiny_model.unet.attn_processors
        assert sum(changed[name] is not before[name] for name in before) == len(LAYERS)
        raise KeyboardInterrupt
    after = tiny_model.unet.attn_processors
    assert all(after[name] is before[name] for name in before)


@pytest.mark.parametrize("gamma", [0.0, 0.75, 1.0])
def test_a_pictures_own_features_change_nothing(tiny_model, gamma):
    x = random_latents(1).expand(3, -1, -1, -1)
    injection = StyleInjection(gamma, 1.0)
    plain = passed(tiny_model, injection, x, "off")
    replayed = passed(tiny_model, injection, x, "replay")
    torch.testing.assert_close(replayed, plain, rtol=0, atol=2e-6)  # rounding, on some processors


def test_photo_and_style_pass_untouched_beside_the_result(tiny_model):
    x = random_latents(3)
    injection = StyleInjection(0.75, 1.5)
    plain, replayed = (passed(tiny_model, injection, x, mode) for mode in ("off", "replay"))
    assert torch.equal(replayed[:2], plain[:2])
    assert (replayed[2] - plain[2]).abs().max() > 1e-4


def attend(gamma, tau, seed=0):
    """Results for two different own queries, and the queries, keys and values they came from."""
    rng = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, 4, 2, 6, 8, generator=rng)
    injection = StyleInjection(gamma, tau)
    injection.mode = "replay"
    first = injection.attend("layer", q[:3], k[:3], v[:3])[2]
    second = injection.attend("layer", q[[0, 1, 3]], k[[0, 1, 3]], v[[0, 1, 3]])[2]
    return first, second, q, k, v


def test_with_gamma_1_the_results_own_queries_do_not_matter():
    first, second, q, k, v = attend(gamma=1.0, tau=1.0)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, F.scaled_dot_product_attention(q[0], k[1], v[1]))


def test_with_gamma_0_the_photos_queries_do_not_matter():
    first, _, q, k, v = attend(gamma=0.0, tau=1.0)
    torch.testing.assert_close(first, F.scaled_dot_product_attention(q[2], k[1], v[1]))


def test_with_tau_0_every_place_gets_the_styles_mean():
    first, _, _, _, v = attend(gamma=0.75, tau=0.0)
    torch.testing.assert_close(first, v[1].mean(1, keepdim=True).expand_as(first))


def test_with_a_large_tau_every_place_gets_the_nearest_keys_value():
    first, _, q, k, v = attend(gamma=1.0, tau=1e4)
    nearest = (q[0] @ k[1].transpose(-1, -2)).argmax(-1)
    torch.testing.assert_close(first, v[1].gather(1, nearest[..., None].expand(-1, -1, 8)))


def test_tau_multiplies_the_logits():
    first, _, q, k, v = attend(gamma=0.75, tau=1.5)
    asked = 0.75 * q[0] + 0.25 * q[2]
    weights = (1.5 * asked @ k[1].transpose(-1, -2) / 8**0.5).softmax(-1)
    torch.testing.assert_close(first, weights @ v[1])


def test_layers_are_named_as_in_stable_diffusion(tiny_model):
    names = injected_layers(tiny_model.unet, LAYERS)
    assert names[0] == "up_blocks.2.attentions.0.transformer_blocks.0.attn1.processor"
    assert names[-1] == "up_blocks.3.attentions.2.transformer_blocks.0.attn1.processor"
    with pytest.raises(ConfigError, match="from 3 to 11"):
        injected_layers(tiny_model.unet, (2,))


def test_a_unet_without_these_layers_is_refused(tiny_pipe):
    class Other:
        attn_processors = ()

    with pytest.raises(CheckpointError, match="not built like"):
        injected_layers(Other(), LAYERS)


def test_stored_features_have_the_shape_of_heads_and_tokens(tiny_model):
    injection = StyleInjection(0.75, 1.5)
    passed(tiny_model, injection, random_latents(1), "queries")
    passed(tiny_model, injection, random_latents(1), "style")
    assert sorted(injection.queries) == sorted(injection.style)
    assert len(injection.queries) == len(LAYERS)
    shapes = {tuple(q.shape) for q in injection.queries.values()}
    assert shapes == {(1, 4, 16, 8), (1, 4, 64, 4)}  # 4 x 4 px of 32 channels, 8 x 8 px of 16


def test_replayed_latents_give_what_stored_features_give(prepared, portrait, tiny_model, crops):
    stored = StyleId(tiny_model, dataclasses.replace(CONFIG, features="store"))
    stored.style = prepared.style
    torch.testing.assert_close(stored.stylize(crops[:1]), portrait, atol=1e-4, rtol=0)
    assert torch.equal(stored.stylize(crops[:1]), stored.stylize(crops[:1]))


def test_the_style_and_its_weights_matter(prepared, portrait, tiny_model, crops, tmp_path):
    assert portrait.shape == (1, 3, 64, 64)
    for change in ({"gamma": 0.0}, {"tau": 0.5}):
        assert not torch.equal(prepared.stylize(crops[:1], **change), portrait)
    other = StyleId(tiny_model, dataclasses.replace(CONFIG, latent_adain=False))
    other.style = prepared.style
    assert not torch.equal(other.stylize(crops[:1]), portrait)


def test_steps_up_and_down_are_the_authors(tiny_model, seen, crops, style_picture, tmp_path):
    StyleId(tiny_model, QUIRKS).stylize(crops[:1], style_picture)
    up = [(t, 1) for t in (1, 251, 501, 751)]
    assert seen.times == up + up + [(501, 3), (251, 3), (1, 3)]


def test_without_quirks_no_step_down_is_left_out(prepared, seen, crops):
    prepared.stylize(crops[:1])
    assert seen.times[4:] == [(751, 3), (501, 3), (251, 3), (1, 3)]


def test_a_run_of_50_steps_has_50_up_and_49_down_from_961(tiny_model):
    config = StyleIdConfig(official_quirks=True)
    ddim = tiny_model.ddim
    up = []
    invert(lambda x, t: up.append(t) or x, ddim, random_latents(1), config)
    down = ddim.down(ddim.times(50))[config.skips_first :]
    assert (len(up), len(down), down[0][0]) == (50, 49, 961)


@pytest.mark.parametrize(("quirks", "end"), [(True, 999), (False, 751)])
def test_the_authors_way_ends_at_999(tiny_model, quirks, end):
    ddim = tiny_model.ddim
    clean, noise = random_latents(2).split(1)
    config = dataclasses.replace(CONFIG, official_quirks=quirks)
    x = invert(lambda x, t: noise, ddim, clean, config).end
    torch.testing.assert_close(x, ddim.move(clean, noise, 1, end), atol=1e-4, rtol=0)


def test_the_authors_statistics_have_no_epsilon(tiny_model, seen, crops):
    """A style without deviation leaves nothing of the photo's noise, where an epsilon leaves a thousandth."""
    way = Trajectory(random_latents(4), torch.full((1, 4, 8, 8), 0.5))
    left = []
    for config in (CONFIG, QUIRKS):
        method = StyleId(tiny_model, config)
        method.style = way
        seen.clear()
        method.stylize(crops[:1])
        first_down = next(latents for latents, _, _ in seen if len(latents) == 3)
        left.append(channel_statistics(first_down[2:], eps=0.0)[1].max().item())
    assert left[1] == 0 < left[0] < 2e-3


def test_the_authors_samples_depend_on_seed_and_number(
    tiny_model, seen, crops, style_picture, monkeypatch
):
    """Seen by the UNet at the first time up, which is that of the clean latent."""
    method = StyleId(tiny_model, QUIRKS)
    method.stylize(crops[:1], style_picture, seed=5, first=2)
    method.stylize(crops[:1], style_picture, first=2)
    clean = [latents for latents, time, _ in seen if time == 1 and len(latents) == 1]
    assert len(clean) == 4  # style and photo, by either seed
    photo = F.interpolate(crops[:1], (64, 64), mode="bilinear", antialias=True)
    style = square_crop(style_picture, 64)
    expected = [(style, 5, -1), (photo, 5, 2), (style, 22, -1), (photo, 22, 2)]
    with torch.no_grad():
        for latents, (img, seed, number) in zip(clean, expected, strict=True):
            assert torch.equal(latents, tiny_model.encode(img, rng=latent_rng(seed, number)))


def test_without_quirks_a_seed_changes_nothing(prepared, portrait, crops):
    assert torch.equal(prepared.stylize(crops[:1], seed=5), portrait)


def oracle_error(ddim, config):
    """Relative error of the way up and down again, if latents are Gaussian and the network knows."""

    def predict(x, time):
        return (1 - ddim.alphas[time]).sqrt() * x

    clean = random_latents(1, seed=3)
    x = invert(predict, ddim, clean, config).end
    for time, target in ddim.down(ddim.times(config.steps))[config.skips_first :]:
        x = ddim.move(x, predict(x, time), time, target)
    return float((x - clean).norm() / clean.norm())


@pytest.mark.parametrize(
    ("change", "bounds"),
    [
        ({"official_quirks": True}, (0.2, 0.104, 0.054)),
        ({}, (0.2, 0.104, 0.054)),
        ({"inversion": "diffusers"}, (0.0064, 0.0017, 0.0004)),
    ],
)
def test_the_way_up_is_undone_the_better_the_more_steps(tiny_model, change, bounds):
    errors = [
        oracle_error(tiny_model.ddim, StyleIdConfig(steps=n, **change)) for n in (25, 50, 100)
    ]
    assert errors == sorted(errors, reverse=True)
    assert all(error < bound for error, bound in zip(errors, bounds, strict=True))


@pytest.mark.parametrize("inversion", ["original", "diffusers"])
def test_a_constant_noise_is_undone_exactly(tiny_model, inversion):
    ddim = tiny_model.ddim
    clean, noise = random_latents(2).split(1)
    config = StyleIdConfig(inversion=inversion)
    x = invert(lambda x, t: noise, ddim, clean, config).end
    times = ddim.times(50)
    back = ddim.move(x, noise, times[-1], times[0] if inversion == "original" else 0)
    torch.testing.assert_close(back, clean, atol=1e-4, rtol=0)


def test_the_second_inversion_is_diffusers(tiny_model, tiny_pipe):
    from diffusers import DDIMInverseScheduler

    inverse = DDIMInverseScheduler.from_config(tiny_pipe.scheduler.config)
    inverse.set_timesteps(10)
    clean = x = random_latents(1)
    for time in inverse.timesteps:
        x = inverse.step(0.3 * x, int(time), x).prev_sample
    config = StyleIdConfig(steps=10, inversion="diffusers")
    mine = invert(lambda x, t: 0.3 * x, tiny_model.ddim, clean, config)
    torch.testing.assert_close(mine.end, x, atol=1e-4, rtol=1e-5)


def test_a_style_is_inverted_once_and_read_back_exactly(
    prepared, portrait, tiny_model, seen, crops, style_picture, tmp_path
):
    method = StyleId(tiny_model, CONFIG, cache=tmp_path)
    assert torch.equal(method.stylize(crops[:1], style_picture), portrait)
    first = len(seen)
    method.stylize(crops[:1], style_picture)
    assert len(seen) - first == first - CONFIG.steps
    (folder,) = tmp_path.iterdir()
    again = StyleId(tiny_model, CONFIG).load(folder)
    assert torch.equal(again.style.latents, prepared.style.latents)
    assert torch.equal(again.stylize(crops[:1]), portrait)


def test_a_method_out_of_a_folder_keeps_ways_by_their_steps(
    tiny_diffusion_folder, crops, style_picture, tmp_path, monkeypatch
):
    import facestyle.baselines.styleid as module

    def method():
        return StyleId.from_pretrained(
            tiny_diffusion_folder, config=CONFIG, cache=tmp_path, device="cpu"
        )

    made = [method().stylize(crops[:1], style_picture, steps=steps) for steps in (None, 3)]
    assert len(list(tmp_path.iterdir())) == 2
    saves = []
    monkeypatch.setattr(module, "save_tensors", lambda *args, **options: saves.append(args))
    again = [method().stylize(crops[:1], style_picture, steps=steps) for steps in (None, 3)]
    assert saves == []
    assert all(torch.equal(a, b) for a, b in zip(again, made, strict=True))


def test_another_number_of_steps_is_inverted_once_too(tiny_model, seen, crops, style_picture):
    method = StyleId(tiny_model, CONFIG)
    for _ in range(2):
        method.stylize(crops[:1], style_picture, steps=3)
    assert len(seen) == 3 + 2 * (3 + 3)


def test_a_way_of_other_settings_is_refused(tiny_model, prepared, style_picture, crops, tmp_path):
    StyleId(tiny_model, CONFIG).prepare(style_picture, tmp_path, progress=False)
    other = StyleId(tiny_model, QUIRKS)
    with pytest.raises(
        CheckpointError, match=r"official_quirks: False there, True here.*set them alike"
    ):
        other.load(tmp_path)
    with pytest.raises(ConfigError, match="other settings"):
        other.prepare(style_picture, tmp_path, progress=False)
    with pytest.raises(ConfigError, match="inverted in 4 steps"):
        prepared.stylize(crops[:1], steps=3)


def test_a_way_of_another_model_or_number_type_is_refused(tiny_model, style_picture, tmp_path):
    from facestyle.baselines.diffusion import LatentDiffusion
    from facestyle.baselines.random_diffusion import random_pipeline

    StyleId(tiny_model, CONFIG).prepare(style_picture, tmp_path, progress=False)
    for change in ({"seed": 1}, {"dtype": torch.bfloat16}):
        pipe = random_pipeline("tiny", **change)
        other = LatentDiffusion(pipe, name=tiny_model.name, device=torch.device("cpu"))
        with pytest.raises(CheckpointError, match="model: "):
            StyleId(other, CONFIG).load(tmp_path)
        with pytest.raises(ConfigError, match="another picture, model"):
            StyleId(other, CONFIG).prepare(style_picture, tmp_path, progress=False)


def test_a_way_is_taken_by_the_same_model_from_elsewhere(
    tiny_model, tiny_diffusion_folder, style_picture, tmp_path
):
    StyleId(tiny_model, CONFIG).prepare(style_picture, tmp_path, progress=False)
    again = StyleId.from_pretrained(tiny_diffusion_folder, config=CONFIG, device="cpu")
    assert again.model.name != tiny_model.name
    assert torch.equal(
        again.load(tmp_path).style.end, StyleId(tiny_model, CONFIG).load(tmp_path).style.end
    )


def test_several_style_pictures_are_refused(tiny_model, style_picture, tmp_path):
    with pytest.raises(ConfigError, match=r"one style picture.*got 2"):
        StyleId(tiny_model, CONFIG).prepare([style_picture, style_picture], tmp_path)


def test_without_injection_and_adain_it_is_ddim_up_and_down(
    prepared, tiny_model, crops, monkeypatch
):
    photo = square_crop(to_pil(crops[0]), 64)
    with torch.no_grad():
        clean = tiny_model.encode(photo)
        null = tiny_model.text([""])

        def predict(x, time):
            return tiny_model.predict_noise(x, time, null)

        x = invert(predict, tiny_model.ddim, clean, CONFIG).end
        for time, target in tiny_model.ddim.down(tiny_model.ddim.times(CONFIG.steps)):
            x = tiny_model.ddim.move(x, predict(x, time), time, target)
        plain = tiny_model.decode(x)
    method = StyleId(tiny_model, dataclasses.replace(CONFIG, latent_adain=False))
    method.style = prepared.style
    assert (method.stylize(to_pil(crops[0])) - plain).abs().max() > 1e-3
    monkeypatch.setattr(
        StyleInjection, "attend", lambda self, layer, *qkv: F.scaled_dot_product_attention(*qkv)
    )
    torch.testing.assert_close(method.stylize(to_pil(crops[0])), plain, atol=1e-4, rtol=0)


def test_a_style_set_gives_its_first_picture(tiny_model, style_folder, tmp_path):
    from_set = StyleId(tiny_model, CONFIG).prepare(style_folder, tmp_path / "a", progress=False)
    named = StyleId(tiny_model, CONFIG)
    named.prepare(style_folder / "00.png", tmp_path / "b", progress=False)
    assert torch.equal(from_set.style.end, named.style.end)


def test_without_a_style_it_says_so(tiny_model, crops):
    with pytest.raises(ConfigError, match="no style yet"):
        StyleId(tiny_model).stylize(crops)


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 1.5},
        {"inversion": "exact"},
        {"features": "none"},
        {"layers": (2,)},
        {"layers": ()},
        {"official_quirks": True, "steps": 1},
    ],
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ConfigError):
        StyleIdConfig(**change)
