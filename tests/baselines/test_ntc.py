"""NTC on a tiny Stable Diffusion: what its disturbance does and does not change."""

import dataclasses
import itertools

import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers", reason="needs the extra diffusion")

from facestyle.baselines.ntc import Ntc, NtcConfig, noised_latents
from facestyle.errors import ConfigError
from facestyle.image import to_pil

STEPS = 5


def stock_picture(pipe, ntc, prompt, seed):
    """What diffusers' own pipeline draws from the same noise."""
    from facestyle.baselines.diffusion_method import crop_noise

    start = crop_noise(torch.empty(1, 4, 8, 8), seed, 0)
    pipe.set_progress_bar_config(disable=True)
    latents = pipe(
        prompt, latents=start, num_inference_steps=ntc.config.steps, eta=0.0,
        guidance_scale=ntc.config.guidance, output_type="latent",
    ).images  # fmt: skip
    with torch.no_grad():
        return ntc.model.decode(latents)


@pytest.mark.parametrize("change", [{"disturbance_time": 0}, {"rollback_time": 0}])
def test_without_disturbance_it_is_stock_classifier_free_guidance(tiny_pipe, tiny_model, change):
    config = NtcConfig(steps=3, **{"disturbance_time": 1000, "rollback_time": 400, **change})
    ntc = Ntc(tiny_model, config)
    mine = ntc.generate("a face", seed=4)
    assert torch.equal(mine, stock_picture(tiny_pipe, ntc, "a face", 4))


def test_a_rollback_changes_the_picture(tiny_model):
    base = NtcConfig(steps=3, disturbance_time=1000, rollback_time=0)
    plain, disturbed = (
        Ntc(tiny_model, config).generate("a face")
        for config in (base, dataclasses.replace(base, rollback_time=400))
    )
    assert (plain - disturbed).abs().max() > 1e-3


def test_with_guidance_1_no_disturbance_matters(tiny_model, crops):
    base = NtcConfig(steps=STEPS, guidance=1.0, disturbance_time=500)
    pictures = [
        Ntc(tiny_model, dataclasses.replace(base, **change)).stylize(crops[:1])
        for change in ({"rollback_time": 0}, {"rollback_time": 400}, {"disturbance": "image"})
    ]
    for picture in pictures[1:]:
        assert (picture - pictures[0]).abs().max() < 1e-4


def test_the_null_text_sees_the_latent_of_an_earlier_step_at_the_same_time(tiny_model, seen, crops):
    config = NtcConfig(steps=10, disturbance_time=500, rollback_time=200)
    latents = []
    ntc = Ntc(tiny_model, config)
    ntc.stylize(crops[:1], on_step=lambda done, total, x: latents.append(x))
    assert [time for _, time, _ in seen] == [401, 301, 201, 101, 1]  # times above 500 cost nothing
    clean = tiny_model.encode(
        torch.nn.functional.interpolate(crops[:1], (64, 64), mode="bilinear", antialias=True)
    )
    rng = torch.Generator().manual_seed(796 * 1_000_003)
    noise = torch.randn(1, 4, 8, 8, generator=rng)
    ways = [tiny_model.ddim.add_noise(clean, noise, t) for t in (601, 501, 401)] + latents
    for i, (both, _, states) in enumerate(seen):
        torch.testing.assert_close(both[:1], ways[i], atol=1e-5, rtol=0)
        torch.testing.assert_close(both[1:], ways[i + 2], atol=1e-5, rtol=0)
        assert torch.equal(states[:1], tiny_model.text([""]))


def test_image_disturbance_shows_the_null_text_the_clean_photo(tiny_model, seen, crops):
    config = NtcConfig(steps=10, disturbance="image", disturbance_time=300)
    Ntc(tiny_model, config).stylize(crops[:1])
    assert [time for _, time, _ in seen] == [201, 101, 1]
    nulls = [both[:1] for both, _, _ in seen]
    assert torch.equal(nulls[0], nulls[1]) and torch.equal(nulls[0], nulls[2])
    assert not torch.equal(seen[0][0][:1], seen[0][0][1:])


def test_the_authors_start_is_a_straight_line_of_steps_up(tiny_model):
    """The closed form equals their loop, with the fixed noise in the network's place."""
    ddim = tiny_model.ddim
    rng = torch.Generator().manual_seed(1)
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=rng)
    config = NtcConfig(steps=100, disturbance_time=400, official_quirks=True)
    x, loop = clean, {1: clean}
    times = ddim.times(100)
    for start, end in itertools.pairwise(times):
        x = ddim.move(x, noise, start, end)
        loop[end] = x
    line = noised_latents(ddim, config, clean, noise)
    before = [t for t in reversed(times) if t > 400]
    assert len(line) == 61  # 991 ... 401, and 391
    for t, latent in zip([*before, 391], line, strict=True):
        torch.testing.assert_close(latent, loop[t], atol=2e-5, rtol=0)


def test_without_quirks_the_start_is_the_noised_photo(tiny_model):
    clean, noise = torch.ones(1, 4, 8, 8), torch.full((1, 4, 8, 8), 2.0)
    line = noised_latents(tiny_model.ddim, NtcConfig(disturbance_time=400), clean, noise)
    a = tiny_model.ddim.alphas[391]
    assert torch.equal(line[-1], a.sqrt() * clean + (1 - a).sqrt() * noise)


def test_the_authors_rollback_is_one_step_shorter():
    assert NtcConfig(rollback_time=200).rollback_steps == 20
    assert NtcConfig(rollback_time=200, official_quirks=True).rollback_steps == 19
    assert NtcConfig(rollback_time=200, steps=50).rollback_steps == 10


@pytest.mark.parametrize("change", [{"rollback_time": 0}, {"steps": 4}])
def test_the_photos_latent_needs_no_rollback(change):
    config = NtcConfig(disturbance="image", official_quirks=True, **change)
    assert config.rollback_steps < 0


def test_a_run_to_400_of_100_steps_takes_40_calls_of_both_texts(tiny_model, seen, crops):
    Ntc(tiny_model, NtcConfig(steps=100, disturbance_time=400)).stylize(crops[:1])
    assert seen.times == [(time, 2) for time in range(391, 0, -10)]
    assert len(seen) == 40


def test_text_alone_draws_by_the_settings_seed(tiny_model):
    ntc = Ntc(tiny_model, NtcConfig(steps=3, seed=5))
    assert torch.equal(ntc.generate("a face"), ntc.generate("a face", seed=5))
    assert not torch.equal(ntc.generate("a face"), ntc.generate("a face", seed=0))


def test_large_seeds_are_seeds(tiny_model, crops):
    ntc = Ntc(tiny_model, NtcConfig(steps=3))
    made = [ntc.stylize(crops[:1], seed=2**63 - 1 - i) for i in (0, 0, 1)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="no whole step"):
        NtcConfig(rollback_time=100, steps=9, official_quirks=True)
    with pytest.raises(ConfigError, match="from 0 to 1000"):
        NtcConfig(disturbance_time=1001)
    with pytest.raises(ConfigError, match="rollback"):
        NtcConfig(disturbance="none")


def test_image_disturbance_needs_a_photo(tiny_model):
    with pytest.raises(ConfigError, match="needs a photo"):
        Ntc(tiny_model, NtcConfig(disturbance="image")).generate("a face")


def test_its_style_is_a_text(tiny_model, seen, crops):
    ntc = Ntc(tiny_model, NtcConfig(steps=STEPS))
    ntc.stylize(crops[:1], "a photo of a cat")
    assert torch.equal(seen[0][2], tiny_model.text(["", "a photo of a cat"]))
    ntc.stylize(crops[:1])
    assert torch.equal(seen[-1][2], tiny_model.text(["", NtcConfig().prompt]))


@pytest.mark.parametrize("style", ["style.PNG", Image.new("RGB", (64, 64))])
def test_a_style_picture_is_refused(tiny_model, crops, style, tmp_path):
    for picture in (style, tmp_path):
        with pytest.raises(ConfigError, match="its style is a text"):
            Ntc(tiny_model).stylize(crops[:1], picture)


def test_quirks_cut_the_levels_of_a_picture_from_text_too(tiny_model, monkeypatch):
    monkeypatch.setattr(
        tiny_model, "decode", lambda latents: torch.full((1, 3, 64, 64), 7.9 / 127.5 - 1)
    )
    made = Ntc(
        tiny_model, NtcConfig(steps=STEPS, rollback_time=400, official_quirks=True)
    ).generate("a face")
    assert to_pil(made).getextrema() == ((7, 7),) * 3


def test_a_photos_picture_depends_on_its_number_alone(tiny_model, crops):
    ntc = Ntc(tiny_model, NtcConfig(steps=STEPS))
    both = ntc.stylize(crops)
    assert both.shape == (2, 3, 64, 64)
    assert -1 <= both.min() <= both.max() <= 1
    assert torch.equal(both[1:], ntc.stylize(crops[1:], first=1))
    assert not torch.equal(both[1:], ntc.stylize(crops[1:], first=0))


def test_there_is_nothing_to_prepare(tiny_model, tmp_path):
    ntc = Ntc(tiny_model)
    assert ntc.prepare(tmp_path, tmp_path) is ntc is ntc.load(tmp_path)
    assert ntc.resolution == 64
    assert ntc.parameters == tiny_model.parameters


def test_an_on_step_that_raises_ends_the_run(tiny_model, crops):
    def stop(done, total, latents):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Ntc(tiny_model, NtcConfig(steps=STEPS)).stylize(crops[:1], on_step=stop)
