"""Loading a Stable Diffusion, its failures by name, DDIM's arithmetic, and the call that all methods share."""

import importlib.util
import inspect
import json
import shutil
from importlib import metadata

import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers", reason="needs the extra diffusion")

from facestyle.baselines.ddim import Ddim, adain, channel_statistics
from facestyle.baselines.diffusion import LatentDiffusion, _check_room, guarded
from facestyle.baselines.diffusion_method import crop_noise, latent_rng, square_crop, squashed
from facestyle.baselines.inst import Inst, InstConfig, InstStyle
from facestyle.baselines.inst_training import InstTraining
from facestyle.baselines.ntc import Ntc, NtcConfig
from facestyle.baselines.random_diffusion import random_pipeline
from facestyle.baselines.styleid import StyleId, StyleIdConfig, Trajectory
from facestyle.errors import (
    CheckpointError,
    ConfigError,
    DeviceMemoryError,
    DownloadError,
    ImageError,
    MissingDependencyError,
)
from facestyle.image import load_image, to_pil, to_tensor

METHODS = {"ntc": Ntc, "inst": Inst, "styleid": StyleId}


def settings_of(name, tiny_clip_folder, **changes):
    if name == "ntc":
        return NtcConfig(**{"steps": 10, **changes})
    if name == "styleid":
        return StyleIdConfig(**{"steps": 3, **changes})
    training = InstTraining(steps=2, save_every=2, clip=str(tiny_clip_folder))
    return InstConfig(**{"steps": 5, "training": training, **changes})


def with_a_style(name, model, **changes):
    """A method whose style is made up."""
    method = METHODS[name](model, settings_of(name, "", **changes))
    rng = torch.Generator().manual_seed(1)
    flat = torch.zeros(1, 4, 1, 1)
    if name == "inst":
        method.style = InstStyle(torch.randn(1, 32, generator=rng), flat, flat + 1)
    if name == "styleid":
        latents = torch.randn(4, 4, 8, 8, generator=rng)
        method.style = Trajectory(latents[:3], latents[3:])
    return method


def test_the_call_is_the_same_for_every_method():
    calls = [inspect.signature(method.stylize).parameters for method in METHODS.values()]
    shared = [list(call.values())[:8] for call in calls]
    assert shared[0] == shared[1] == shared[2]
    names = ["self", "content", "style", "seed", "steps", "first", "progress", "on_step"]
    assert [parameter.name for parameter in shared[0]] == names


@pytest.mark.parametrize("name", METHODS)
def test_one_call_runs_every_method(
    name, tiny_diffusion_folder, tiny_clip_folder, style_picture, astronaut, tmp_path
):
    photo = tmp_path / "photo.png"
    astronaut.resize((96, 64)).save(photo)
    method = METHODS[name].from_pretrained(
        model_id=tiny_diffusion_folder, config=settings_of(name, tiny_clip_folder),
        cache=tmp_path / "cache", device="cpu",
    )  # fmt: skip
    style = "a photo of a face" if name == "ntc" else style_picture
    steps = []
    made = method.stylize(
        photo, style, seed=3, steps=4, on_step=lambda done, total, x: steps.append((done, total))
    )
    assert made.shape == (1, 3, 64, 64) and made.isfinite().all()
    assert steps[-1][0] == steps[-1][1] == len(steps) > 0
    for same in (load_image(photo), square_crop(photo, 64), str(photo)):
        assert torch.equal(method.stylize(same, style, seed=3, steps=4), made)
    assert not torch.equal(method.stylize(photo, style, seed=3, steps=6), made)
    other_seed = method.stylize(photo, style, seed=4, steps=4)
    assert torch.equal(other_seed, made) == (name == "styleid")  # which draws nothing


@pytest.mark.parametrize("name", METHODS)
def test_content_that_is_no_picture_is_refused(name, tiny_model, tmp_path):
    method = with_a_style(name, tiny_model)
    with pytest.raises(ConfigError, match="expected crops"):
        method.stylize(torch.zeros(1, 3, 64, 48))
    with pytest.raises(ImageError, match="no such file"):
        method.stylize(tmp_path / "photo.png")


@pytest.mark.parametrize("name", METHODS)
def test_quirks_begin_with_a_sample_in_place_of_the_mean(name, tiny_model, crops, monkeypatch):
    mean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    drawn = {}
    for quirks in (False, True):
        method = with_a_style(name, tiny_model, official_quirks=quirks)
        for std in (0.0, 3.0):
            posterior = mean, torch.full_like(mean, std)
            monkeypatch.setattr(tiny_model, "posterior", lambda img, found=posterior: found)
            drawn[quirks, std] = method.stylize(crops[:1])
    assert torch.equal(drawn[False, 0.0], drawn[False, 3.0])
    assert not torch.equal(drawn[True, 0.0], drawn[True, 3.0])
    again = with_a_style(name, tiny_model, official_quirks=True).stylize(crops[:1])
    assert torch.equal(again, drawn[True, 3.0])


def test_a_sample_lies_around_the_mean_and_is_not_the_photos_noise(tiny_model, crops):
    img = torch.nn.functional.interpolate(crops[:1], (64, 64))
    with torch.no_grad():
        mean, std = tiny_model.posterior(img)
        sample = tiny_model.encode(img, rng=latent_rng(7, 2))
        assert torch.equal(tiny_model.encode(img), mean)
    noise = torch.randn(mean.shape, generator=latent_rng(7, 2))
    assert torch.equal(sample, mean + std * noise)
    assert not torch.equal(noise, crop_noise(mean, 7, 2))
    assert not torch.equal(noise, torch.randn(mean.shape, generator=latent_rng(7, 3)))


@pytest.mark.parametrize("name", METHODS)
def test_quirks_cut_levels_off_as_the_authors_savers_do(name, tiny_model, crops, monkeypatch):
    level = torch.full((1, 3, 64, 64), 100.9 / 127.5 - 1)
    monkeypatch.setattr(tiny_model, "decode", lambda latents: level)
    for quirks, expected in ((False, 101), (True, 100)):
        made = with_a_style(name, tiny_model, official_quirks=quirks).stylize(crops[:1])
        assert to_pil(made).getextrema() == ((expected, expected),) * 3


@pytest.mark.parametrize(
    ("name", "filter"),
    [("ntc", Image.Resampling.BICUBIC), ("inst", Image.Resampling.LANCZOS), ("styleid", None)],
)
def test_quirks_squeeze_where_the_authors_do(name, filter, tiny_model, style_picture, monkeypatch):
    encoded = []
    posterior = tiny_model.posterior
    monkeypatch.setattr(
        tiny_model, "posterior", lambda img: encoded.append(img.clone()) or posterior(img)
    )
    for quirks in (False, True):
        with_a_style(name, tiny_model, official_quirks=quirks).stylize(style_picture)
    cut = square_crop(style_picture, 64)
    whole = cut
    if filter is not None:
        whole = to_tensor(load_image(style_picture).resize((64, 64), filter))
        assert not torch.equal(whole, cut)
        assert torch.equal(squashed(style_picture, 64, filter), whole)
    assert torch.equal(encoded[0], cut)
    assert torch.equal(encoded[1], whole)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "memory"),
    [("float32", "all"), ("float16", "all"), ("bfloat16", "all"), ("float16", "low")],
)
@pytest.mark.parametrize("quirks", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_on_cuda(
    name, quirks, dtype, memory, tiny_diffusion_folder, tiny_clip_folder, style_picture, crops, tmp_path
):  # fmt: skip
    """Near to what a CPU draws, of the same style; bfloat16 is too coarse for random weights to be compared."""
    config = settings_of(name, tiny_clip_folder, official_quirks=quirks)

    def method(**options):
        return METHODS[name].from_pretrained(tiny_diffusion_folder, config=config, **options)

    on_cpu = method(device="cpu").prepare(style_picture, tmp_path / "style", progress=False)
    on_cuda = method(device="cuda", dtype=dtype, memory=memory)
    if name == "styleid" and dtype != "float32":  # whose way up is one number type's
        on_cuda.prepare(style_picture, tmp_path / "own", progress=False)
    else:
        on_cuda.load(tmp_path / "style")
    made = on_cuda.stylize(crops)
    assert made.device.type == "cuda" and made.dtype is torch.float32 and made.isfinite().all()
    if dtype != "bfloat16":
        assert (made.cpu() - on_cpu.stylize(crops)).abs().mean() < 0.05
    if memory == "all":
        on_cuda.prepare(style_picture, tmp_path / "trained", progress=False)
        assert on_cuda.stylize(crops[:1]).isfinite().all()


def test_a_saved_folder_gives_the_same_pictures(tiny_diffusion_folder, tiny_model, crops):
    config = NtcConfig(steps=4)
    loaded = Ntc.from_pretrained(tiny_diffusion_folder, config=config, device="cpu")
    assert torch.equal(loaded.stylize(crops[:1]), Ntc(tiny_model, config).stylize(crops[:1]))


def test_bfloat16_networks_keep_float32_latents(tiny_diffusion_folder, crops):
    ntc = Ntc.from_pretrained(
        tiny_diffusion_folder, config=NtcConfig(steps=4), device="cpu", dtype="bfloat16"
    )
    latents = []
    picture = ntc.stylize(crops[:1], on_step=lambda done, total, x: latents.append(x))
    assert ntc.model.unet.dtype is torch.bfloat16
    assert {x.dtype for x in latents} == {torch.float32}
    assert picture.dtype is torch.float32 and picture.isfinite().all()


def test_a_repository_that_is_not_there_is_named():
    with pytest.raises(DownloadError, match="nobody/nothing"):
        LatentDiffusion.from_pretrained("nobody/nothing", device="cpu")


@pytest.fixture
def dead_network(monkeypatch, tmp_path):
    """An empty cache and a Hub that does not answer; lists what it was asked."""
    import httpx2
    import huggingface_hub

    asked = []

    def fail(url):
        asked.append(url)
        raise httpx2.ConnectTimeout("")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return asked


def test_a_dead_network_is_asked_once(dead_network):
    with pytest.raises(DownloadError, match=r"could not be fetched \(ConnectTimeout\)"):
        LatentDiffusion.from_pretrained("anybody/anything", device="cpu")
    assert len(dead_network) == 1


def test_what_was_fetched_before_needs_no_network(
    dead_network, tiny_diffusion_folder, tiny_model, tmp_path
):
    repo = tmp_path / "models--anybody--anything"
    shutil.copytree(tiny_diffusion_folder, repo / "snapshots" / ("a" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    kept = LatentDiffusion.from_pretrained("anybody/anything", device="cpu")
    assert torch.equal(kept.text(["a face"]), tiny_model.text(["a face"]))
    assert len(dead_network) == 1


def test_a_name_that_no_repository_can_have_is_refused():
    with pytest.raises(ConfigError, match="neither a folder nor"):
        LatentDiffusion.from_pretrained("./no/such/folder", device="cpu")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no model_index"):
        LatentDiffusion.from_pretrained(tmp_path, device="cpu")


def test_another_kind_of_model_is_refused_before_it_is_loaded(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(CheckpointError, match=r"is a FluxPipeline.*Stable Diffusion 1\.x"):
        LatentDiffusion.from_pretrained(tmp_path, device="cpu")


def test_a_model_index_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(CheckpointError, match="names no kind"):
        LatentDiffusion.from_pretrained(tmp_path, device="cpu")


def test_a_folder_without_weights_is_refused(tiny_diffusion_folder, tmp_path):
    shutil.copytree(tiny_diffusion_folder, tmp_path / "model")
    for path in (tmp_path / "model" / "unet").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        LatentDiffusion.from_pretrained(tmp_path / "model", device="cpu")


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_a_truncated_file_is_named(part, tiny_diffusion_folder, tmp_path):
    shutil.copytree(tiny_diffusion_folder, tmp_path / "model")
    (path,) = (tmp_path / "model" / part).glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"cannot be loaded .*fetch it again"):
        LatentDiffusion.from_pretrained(tmp_path / "model", device="cpu")


def test_networks_that_do_not_fit_their_description_are_named(tiny_diffusion_folder, tmp_path):
    shutil.copytree(tiny_diffusion_folder, tmp_path / "model")
    described = tmp_path / "model" / "text_encoder" / "config.json"
    described.write_text(json.dumps({**json.loads(described.read_text()), "vocab_size": 99}))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        LatentDiffusion.from_pretrained(tmp_path / "model", device="cpu")


def test_a_connection_that_breaks_is_named(monkeypatch, tiny_diffusion_folder):
    import diffusers
    import httpx2

    from facestyle.baselines import diffusion

    def broken(*_, **__):
        raise httpx2.ReadError("the peer is gone")

    monkeypatch.setattr(
        diffusion, "_index_file", lambda *_: (tiny_diffusion_folder / "model_index.json", True)
    )
    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "from_pretrained", broken)
    with pytest.raises(DownloadError, match=r"\(the peer is gone\); try again, which goes on"):
        LatentDiffusion.from_pretrained("anybody/anything", device="cpu")


@pytest.mark.parametrize(
    ("refusal", "error", "told"),
    [
        ("RepositoryNotFoundError", DownloadError, "no repository 'a/b'"),
        ("GatedRepoError", DownloadError, "gated"),
        ("RevisionNotFoundError", DownloadError, "no branch, tag or commit 'v2'"),
        ("RemoteEntryNotFoundError", CheckpointError, "no diffusers model"),
    ],
)
def test_what_the_hub_refuses_is_named(refusal, error, told, monkeypatch, tmp_path):
    import httpx2
    import huggingface_hub

    answer = httpx2.Response(404, request=httpx2.Request("HEAD", "https://hub/a/b"))

    def refuse(*_, **__):
        raise getattr(huggingface_hub.errors, refusal)("no", response=answer)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(error, match=told):
        LatentDiffusion.from_pretrained("a/b", device="cpu", revision="v2")


def test_the_scheduler_that_the_hub_ships_gives_the_same_levels(tiny_pipe, tmp_path):
    """Its repositories name PNDM; the methods take its noise levels alone."""
    from diffusers import PNDMScheduler

    shipped = random_pipeline("tiny")
    shipped.scheduler = PNDMScheduler.from_config(
        {**tiny_pipe.scheduler.config, "skip_prk_steps": True}
    )
    shipped.save_pretrained(tmp_path)
    loaded = LatentDiffusion.from_pretrained(tmp_path, device="cpu")
    own = LatentDiffusion(tiny_pipe, name="own", device=torch.device("cpu"))
    assert torch.equal(loaded.ddim.alphas, own.ddim.alphas)


def test_other_noise_levels_are_refused():
    pipe = random_pipeline(scheduler={"num_train_timesteps": 100})
    with pytest.raises(CheckpointError, match="knows 100 noise levels"):
        LatentDiffusion(pipe, name="short", device=torch.device("cpu"))


def test_a_fingerprint_is_of_the_networks_wherever_they_lie(tiny_model, tiny_diffusion_folder):
    again = LatentDiffusion.from_pretrained(tiny_diffusion_folder, device="cpu")
    assert again.fingerprint == tiny_model.fingerprint
    others = [random_pipeline("tiny", seed=1), random_pipeline("tiny", dtype=torch.bfloat16)]
    found = {
        LatentDiffusion(pipe, name="tiny", device=torch.device("cpu")).fingerprint
        for pipe in others
    }
    assert len(found | {tiny_model.fingerprint}) == 3


def test_a_model_for_inpainting_is_refused():
    with pytest.raises(CheckpointError, match="takes 9 channels"):
        LatentDiffusion(
            random_pipeline(unet={"in_channels": 9}), name="nine", device=torch.device("cpu")
        )


def test_a_model_that_predicts_velocity_is_refused():
    pipe = random_pipeline(scheduler={"prediction_type": "v_prediction"})
    with pytest.raises(CheckpointError, match="predicts v_prediction"):
        LatentDiffusion(pipe, name="velocity", device=torch.device("cpu"))


@pytest.mark.parametrize("package", ["diffusers", "transformers"])
def test_a_missing_package_names_the_extra(package, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest)
    )  # fmt: skip
    with pytest.raises(MissingDependencyError, match=rf"{package}; install facestyle\[diffusion\]"):
        LatentDiffusion.from_pretrained("anybody/anything")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    ],
)
def test_memory_that_runs_out_says_what_takes_less(tiny_model, crops, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(tiny_model.unet, "forward", fail)
    with pytest.raises(DeviceMemoryError, match=r'ntc took more memory.*dtype="float16"'):
        Ntc(tiny_model, NtcConfig(steps=4)).stylize(crops[:1])


def test_memory_that_torch_holds_unused_counts_as_free(tiny_pipe, monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 1 << 30))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 << 20)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1 << 30)
    _check_room(tiny_pipe, cuda, "all")
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1 << 20)
    with pytest.raises(DeviceMemoryError, match="loading the networks"):
        _check_room(tiny_pipe, cuda, "all")


def test_with_little_memory_networks_leave_the_device_when_done(tiny_model, crops, monkeypatch):
    from accelerate.hooks import CpuOffload

    moves = []

    class Hook(CpuOffload):
        def __init__(self, name):
            super().__init__("cpu")
            self.name = name

        def pre_forward(self, net):
            moves.append((self.name, "on"))

        def init_hook(self, net):
            moves.append((self.name, "off"))

    for name in ("vae", "text_encoder"):
        monkeypatch.setattr(getattr(tiny_model, name), "_hf_hook", Hook(name), raising=False)
    with torch.no_grad():
        tiny_model.text([""])
        tiny_model.decode(tiny_model.encode(torch.nn.functional.interpolate(crops, (64, 64))))
    assert moves == [("text_encoder", "off"), *[("vae", "on"), ("vae", "off")] * 2]


def test_other_runtime_errors_pass_as_they_are():
    with pytest.raises(RuntimeError, match="shapes differ"), guarded("nothing"):
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        ({"diffusers": "0.99.0", "transformers": "5.1"}, r'diffusers 0\.99\.0 .*install "diffusers==0\.42'),
        ({"diffusers": "0.42.1", "transformers": "6.0"}, r'transformers 6\.0 .*install "transformers==5\.'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("error", [AttributeError, KeyError, TypeError])
def test_a_newer_package_that_breaks_is_named(versions, told, error, monkeypatch):
    monkeypatch.setattr(metadata, "version", versions.__getitem__)
    with pytest.raises(MissingDependencyError, match=told), guarded("loading"):
        raise error("no longer there")


def test_our_own_mistakes_are_not_blamed_on_the_tested_packages(monkeypatch):
    versions = {"diffusers": "0.42.1", "transformers": "5.24.0"}
    monkeypatch.setattr(metadata, "version", versions.__getitem__)
    with pytest.raises(AttributeError), guarded("loading"):
        raise AttributeError("ours")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "float16 is for GPUs"),
        ({"dtype": "int8"}, "unknown dtype"),
        ({"memory": "low"}, "CUDA"),
        ({"memory": "little"}, "memory must be one of"),
    ],
)
def test_options_that_do_not_fit_the_device_are_refused(tiny_diffusion_folder, options, message):
    with pytest.raises(ConfigError, match=message):
        LatentDiffusion.from_pretrained(tiny_diffusion_folder, device="cpu", **options)


def test_times_are_those_of_the_authors_and_of_diffusers(tiny_model, tiny_pipe):
    ddim, scheduler = tiny_model.ddim, tiny_pipe.scheduler
    for steps in (3, 10, 50, 100):
        scheduler.set_timesteps(steps)
        assert ddim.times(steps) == scheduler.timesteps.flip(0).tolist()
    assert ddim.times(50)[-1] == 981
    for steps in (0, 1000):
        with pytest.raises(ConfigError, match="from 1 to 999"):
            ddim.times(steps)


def test_noise_levels_are_stable_diffusions(tiny_model):
    alphas = tiny_model.ddim.alphas
    assert alphas[0].item() == pytest.approx(0.99915)
    assert [round(alphas[t].item(), 5) for t in (961, 981, 999)] == [0.00728, 0.00578, 0.00466]


def test_a_step_down_is_diffusers_step_to_the_bit(tiny_model, tiny_pipe):
    scheduler = tiny_pipe.scheduler
    scheduler.set_timesteps(10)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 8, 8, generator=rng)
    for start, end in tiny_model.ddim.down(tiny_model.ddim.times(10)):
        noise = torch.randn(x.shape, generator=rng)
        assert torch.equal(
            tiny_model.ddim.move(x, noise, start, end),
            scheduler.step(noise, start, x).prev_sample,
        )


def test_moving_down_and_up_with_one_noise_is_no_move():
    ddim = Ddim(torch.linspace(0.99, 0.01, 100))
    x, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    back = ddim.move(ddim.move(x, noise, 60, 20), noise, 20, 60)
    torch.testing.assert_close(back, x, atol=1e-5, rtol=0)


def test_adain_takes_over_statistics_and_keeps_its_own():
    x, y = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    own = adain(x, *channel_statistics(x, eps=1e-6), eps=1e-6)
    torch.testing.assert_close(own, x, atol=1e-6, rtol=0)
    given = adain(x, *channel_statistics(3 * y + 1, eps=1e-6), eps=1e-6)
    torch.testing.assert_close(given.mean((2, 3)), (3 * y + 1).mean((2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(given.std((2, 3)), 3 * y.std((2, 3)), atol=1e-4, rtol=0)


def test_adain_of_a_flat_channel_is_finite():
    flat = torch.zeros(1, 4, 8, 8)
    assert torch.equal(adain(flat, *channel_statistics(flat, eps=1e-6), eps=1e-6), flat)


def test_an_embedding_reaches_the_text_from_its_place_on(tiny_model):
    token = int(tiny_model.token_ids(["*"])[0, 1])
    plain = tiny_model.text(["*"])
    with tiny_model.embedding(token, torch.ones(1, 32)):
        changed = tiny_model.text(["*"])
    assert torch.equal(changed[:, 0], plain[:, 0])  # the text before it cannot look ahead
    assert not torch.equal(changed[:, 1], plain[:, 1])
    assert torch.equal(tiny_model.text(["*"]), plain)


def test_pictures_are_cut_to_their_middle_square(astronaut):
    wide = astronaut.resize((512, 256))
    assert square_crop(wide, 64).shape == (1, 3, 64, 64)
    middle = square_crop(wide.crop((128, 0, 384, 256)), 64)
    inside = (..., slice(4, -4))  # at its border the filter sees what was cut off
    assert torch.equal(square_crop(wide, 64)[inside], middle[inside])
