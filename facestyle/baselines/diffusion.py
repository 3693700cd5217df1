"""Stable Diffusion 1.x out of a diffusers folder or Hub repository, and what the diffusion baselines ask of it.

Tested with diffusers 0.42 and transformers 5. Latents are float32 whatever the type of the networks, so that a long
chain of steps does not gather rounding. The autoencoder's mean stands for the sample that the authors' codes draw,
unless a method's ``official_quirks`` ask for one.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from facestyle.baselines.base import count_parameters
from facestyle.baselines.ddim import Ddim
from facestyle.errors import (
    CheckpointError,
    ConfigError,
    DeviceMemoryError,
    DownloadError,
    MissingDependencyError,
    ran_out,
)
from facestyle.runtime import choose_device, parse_dtype

__all__ = [
    "OFFICIAL_MODEL",
    "LatentDiffusion",
    "guarded",
    "need_diffusers",
    "network_dtype",
    "whole",
]

_log = logging.getLogger(__name__)

OFFICIAL_MODEL = "CompVis/stable-diffusion-v1-4"
"""What the authors of all three methods used; its licence is CreativeML OpenRAIL-M."""

_TESTED = {"diffusers": (0, 42), "transformers": (5,)}
_PIPELINE = "StableDiffusionPipeline"
_MEMORY = ("all", "low")
_TIMES = 1000
_SAMPLED = 256
"""Numbers of each tensor that tell a model from others."""


class LatentDiffusion:
    """A text-conditioned latent diffusion model.

    Args:
        pipe: a diffusers ``StableDiffusionPipeline``, already where it should run.
        name: its repository or folder, for reports.
        device: where its networks compute.

    Attributes:
        ddim: its noise levels.
        dtype: of its networks.
        side_px: side of the pictures it was trained on.

    Raises:
        CheckpointError: the networks are not those of a Stable Diffusion 1.x.
    """

    def __init__(self, pipe: Any, *, name: str, device: torch.device) -> None:
        from diffusers import DDIMScheduler

        self.unet, self.vae = pipe.unet, pipe.vae
        self.text_encoder, self.tokenizer = pipe.text_encoder, pipe.tokenizer
        self.name, self.device, self.dtype = name, device, pipe.unet.dtype
        _check_networks(pipe, name)
        for net in (self.unet, self.vae, self.text_encoder):
            net.eval().requires_grad_(False)
        self.ddim = Ddim(DDIMScheduler.from_config(pipe.scheduler.config).alphas_cumprod)
        self.side_px: int = self.unet.config.sample_size * _downscale(self.vae)

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path = OFFICIAL_MODEL,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        memory: str = "all",
        revision: str | None = None,
        variant: str | None = None,
    ) -> Self:
        """The model in a folder or Hub repository; safetensors only.

        Args:
            model_id: a folder that diffusers saved, or ``OWNER/NAME`` on the Hub.
            device: where it runs; the best there is when None.
            dtype: of its networks; float16 on CUDA, else float32, when None.
            memory: "all" keeps every network on the device; "low" keeps there only the one in use, and decodes pictures
                larger than the autoencoder was trained on by tiles: slower, on CUDA only.
            revision: branch, tag or commit of the repository.
            variant: of the weights' files, such as "fp16".

        Raises:
            ConfigError: ``model_id`` is neither a folder nor a repository's name, or an option does not fit the device.
            MissingDependencyError: diffusers or transformers is not installed, or too new a diffusers broke.
            DownloadError: the repository is not there, or could not be fetched.
            CheckpointError: it holds another kind of model, or is damaged.
            DeviceMemoryError: it does not fit into the device's memory.
        """
        need_diffusers()
        place = choose_device(device)
        kind = network_dtype(dtype, place, default=torch.float16)
        if memory not in _MEMORY:
            raise ConfigError(f"memory must be one of {', '.join(_MEMORY)}, got {memory!r}")
        if memory == "low" and place.type != "cuda":
            raise ConfigError(f'memory="low" moves networks to and from CUDA; on {place} use "all"')
        source = str(model_id)
        is_online = _check_index(source, revision)
        with guarded(f"loading {source}"):
            pipe = _load_pipeline(source, kind, revision, variant, is_online)
            _check_room(pipe, place, memory)
            if memory == "low":
                pipe.enable_model_cpu_offload(device=place)
                pipe.vae.enable_tiling()
            else:
                pipe.to(place, silence_dtype_warnings=True)
            name = source if revision is None else f"{source}@{revision}"
            return cls(pipe, name=name, device=place)

    @property
    def parameters(self) -> int:
        """Of the UNet, the autoencoder and the text encoder."""
        return count_parameters(self.unet, self.vae, self.text_encoder)

    @cached_property
    def fingerprint(self) -> str:
        """Of the noise levels, and of every tensor's name, shape and first numbers, in the networks' type.

        The same wherever the model lies; another for another revision, variant or number type, and for one that was
        trained on.
        """
        digest = hashlib.sha256(self.ddim.alphas.numpy().tobytes())
        for net in (self.unet, self.vae, self.text_encoder):
            for name, tensor in sorted(net.state_dict().items()):
                digest.update(f"{name} {list(tensor.shape)}".encode())
                first = tensor.detach().reshape(-1)[:_SAMPLED].float().cpu()
                digest.update(first.numpy().tobytes())
        return digest.hexdigest()[:16]

    def predict_noise(self, latents: Tensor, time: int, states: Tensor) -> Tensor:
        """The noise [B, C, H, W] float32 in latents of a time, by text states [B, tokens, width]."""
        out: Tensor = self.unet(
            latents.to(self.dtype), time, encoder_hidden_states=states, return_dict=False
        )[0]
        return out.float()

    def encode(self, img: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Latents [B, C, H, W] float32 of pictures [B, 3, S, S] in [-1, 1].

        Args:
            img: the pictures.
            rng: on the CPU; draws a sample of the autoencoder's distribution. Its mean is taken when None.
        """
        mean, std = self.posterior(img)
        if rng is None:
            return mean
        return mean + std * torch.randn(mean.shape, generator=rng).to(mean.device)

    def posterior(self, img: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the latents, each [B, C, H, W] float32."""
        found = self.vae.encode(img.to(self.device, self.vae.dtype)).latent_dist
        _rest(self.vae)
        scale = self.vae.config.scaling_factor
        return found.mean.float() * scale, found.std.float() * scale

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures [B, 3, S, S] in [-1, 1], float32, of latents."""
        scaled = (latents / self.vae.config.scaling_factor).to(self.device, self.vae.dtype)
        img: Tensor = self.vae.decode(scaled, return_dict=False)[0]
        _rest(self.vae)
        return img.float().clamp(-1, 1)

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """Token numbers [N, 77] of texts, padded; what goes beyond is cut off."""
        ids: Tensor = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, return_tensors="pt",
            max_length=self.tokenizer.model_max_length,
        ).input_ids  # fmt: skip
        return ids.to(self.device)

    def text(self, prompts: Sequence[str]) -> Tensor:
        """States [N, 77, width] of texts, in the networks' type; "" is the null text."""
        states: Tensor = self.text_encoder(self.token_ids(prompts))[0]
        _rest(self.text_encoder)
        return states.to(self.dtype)

    @contextlib.contextmanager
    def embedding(self, token: int, vector: Tensor) -> Iterator[None]:
        """A context in which ``vector`` [1, width] stands for a token's embedding; gradients reach it."""

        def replace(_: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            return torch.where((inputs[0] == token)[..., None], vector.to(out), out)

        handle = self.text_encoder.get_input_embeddings().register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()


def need_diffusers() -> None:
    """Refuse to begin without the extra ``diffusion``.

    Raises:
        MissingDependencyError: a package of it is not installed.
    """
    for package in ("diffusers", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"diffusion baselines need the package {package}; install facestyle[diffusion]"
            )


@contextlib.contextmanager
def guarded(what: str) -> Iterator[None]:
    """A context that names memory that ran out, and a diffusers or transformers newer than the tested one that broke.

    Raises:
        DeviceMemoryError: memory ran out.
        MissingDependencyError: one of them is newer, and has no longer what is asked of it.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, DeviceMemoryError) or not ran_out(error):
            raise
        raise _too_little(what, str(error)) from error
    except (AttributeError, ImportError, KeyError, TypeError) as error:
        newer = _newer()
        if isinstance(error, MissingDependencyError) or not newer:
            raise
        tested = " ".join(f'"{name}=={".".join(map(str, _TESTED[name]))}.*"' for name in newer)
        found = " and ".join(f"{name} {version}" for name, version in newer.items())
        raise MissingDependencyError(
            f"{what} failed with {found} ({error}); it is known to work with: pip install {tested}"
        ) from error


def _newer() -> dict[str, str]:
    """Version of each package that is newer than the tested one."""
    found = {name: metadata.version(name) for name in _TESTED}
    return {
        name: version
        for name, version in found.items()
        if tuple(map(int, re.findall(r"\d+", version)))[: len(_TESTED[name])] > _TESTED[name]
    }


def _too_little(what: str, why: str) -> DeviceMemoryError:
    return DeviceMemoryError(
        f'{what} took more memory than there is ({why.splitlines()[0] if why else "no details"}); use dtype="float16" '
        'and memory="low" on CUDA, bfloat16 on a CPU, or a machine with more'
    )


def network_dtype(
    dtype: str | torch.dtype | None, device: torch.device, *, default: torch.dtype
) -> torch.dtype:
    """The number type asked for; when None, ``default`` on CUDA and float32 elsewhere.

    Raises:
        ConfigError: there is no such type, or the device does not compute in it.
    """
    kind = parse_dtype(dtype)
    if kind is None:
        return default if device.type == "cuda" else torch.float32
    if kind is torch.float16 and device.type == "cpu":
        raise ConfigError("float16 is for GPUs; on a CPU use float32 or bfloat16")
    return kind


def _check_index(source: str, revision: str | None) -> bool:
    """Look at the small file that tells the kind of model, before gigabytes are fetched; whether the Hub answered."""
    path, is_online = _index_file(source, revision)
    try:
        kind = json.loads(path.read_text())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"names no kind of pipeline ({error})", path=path) from error
    if kind != _PIPELINE:
        raise CheckpointError(
            f"{source} is a {kind}; the diffusion baselines need a Stable Diffusion 1.x ({_PIPELINE}), such as "
            f"{OFFICIAL_MODEL}"
        )
    return is_online


def _index_file(source: str, revision: str | None) -> tuple[Path, bool]:
    from httpx2 import HTTPError
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

    name = "model_index.json"
    if Path(source).is_dir():
        if not (Path(source) / name).is_file():
            raise CheckpointError(
                f"holds no {name}, so it is no model that diffusers saved", path=source
            )
        return Path(source) / name, False
    try:
        try:  # once: the download below would ask a dead network six times, up to a minute each
            get_hf_file_metadata(hf_hub_url(source, name, revision=revision))
        except (OSError, HTTPError) as error:
            with contextlib.suppress(errors.LocalEntryNotFoundError):
                kept = hf_hub_download(source, name, revision=revision, local_files_only=True)
                return Path(kept), False
            raise error
        return Path(hf_hub_download(source, name, revision=revision)), True
    except errors.HFValidationError as error:
        raise ConfigError(
            f"{source!r} is neither a folder nor a Hub repository's name, OWNER/NAME"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DownloadError(
            f"{source} on the Hub has no branch, tag or commit {revision or 'main'!r}; name another (--revision; of a "
            "comparison --set diffusion.revision=)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadError(
            f"the Hub has no repository {source!r} that you may read; check the name, or `hf auth login` for a private "
            "or gated one"
        ) from error
    except errors.RemoteEntryNotFoundError as error:
        raise CheckpointError(f"{source} on the Hub holds no {name}: no diffusers model") from error
    except (OSError, HTTPError) as error:
        raise DownloadError(
            f"{source} is neither a folder here nor in the Hugging Face cache, and could not be fetched "
            f"({_first_line(error)}); name another Stable Diffusion 1.x, a repository or a folder (--model; of a "
            "comparison --set diffusion.model=), or make a small one with `facestyle train-diffusion`"
        ) from error


def _load_pipeline(
    source: str, dtype: torch.dtype, revision: str | None, variant: str | None, is_online: bool
) -> Any:
    from diffusers import StableDiffusionPipeline

    unused = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    with whole(source):
        return StableDiffusionPipeline.from_pretrained(
            source, dtype=dtype, revision=revision, variant=variant, use_safetensors=True,
            local_files_only=not is_online, **unused,
        )  # fmt: skip


@contextlib.contextmanager
def whole(source: str) -> Iterator[None]:
    """A context, in which networks are read out of a folder or repository, that names what is wrong with its files.

    Raises:
        DownloadError: the connection broke, or a repository lacks files.
        CheckpointError: a file is damaged, or does not fit the others.
    """
    from httpx2 import HTTPError
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, HTTPError, SafetensorError, ValueError, RuntimeError) as error:
        if ran_out(error):
            raise
        if isinstance(error, HTTPError) or (
            isinstance(error, OSError) and not Path(source).is_dir()
        ):
            raise DownloadError(
                f"{source} could not be fetched whole ({_first_line(error)}); try again, which goes on where it "
                "stopped, or name a repository or folder that holds its networks as safetensors"
            ) from error
        raise CheckpointError(
            f"{source} cannot be loaded ({_first_line(error)}); a file of it is damaged, is not there, or is of "
            "another model: fetch it again"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check_networks(pipe: Any, name: str) -> None:
    unet, scheduler = pipe.unet.config, pipe.scheduler.config
    channels, width = pipe.vae.config.latent_channels, pipe.text_encoder.config.hidden_size
    if unet.in_channels != channels or unet.cross_attention_dim != width:
        raise CheckpointError(
            f"{name} is no Stable Diffusion 1.x: its UNet takes {unet.in_channels} channels and texts of width "
            f"{unet.cross_attention_dim}, its other networks give {channels} and {width}; name one such as "
            f"{OFFICIAL_MODEL}"
        )
    if scheduler.get("prediction_type", "epsilon") != "epsilon":
        raise CheckpointError(
            f"{name} predicts {scheduler['prediction_type']}; the methods are made for models that predict noise, such "
            f"as {OFFICIAL_MODEL}"
        )
    if scheduler.get("num_train_timesteps") != _TIMES:
        raise CheckpointError(
            f"{name} knows {scheduler.get('num_train_timesteps')} noise levels; the methods' settings are times of "
            f"{_TIMES}, such as those of {OFFICIAL_MODEL}"
        )


def _check_room(pipe: Any, device: torch.device, memory: str) -> None:
    if device.type != "cuda":
        return
    nets = (pipe.unet, pipe.vae, pipe.text_encoder)
    sizes = [sum(p.numel() * p.element_size() for p in net.parameters()) for net in nets]
    needed = max(sizes) if memory == "low" else sum(sizes)
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own
    if needed > free:
        raise _too_little(
            "loading the networks",
            f"{needed / 2**30:.1f} GiB, of which {free / 2**30:.1f} are free",
        )


def _rest(net: Any) -> None:
    """Take a network off the device again, if ``memory="low"``: accelerate waits until the next in its row is used."""
    if (hook := getattr(net, "_hf_hook", None)) is None:
        return
    from accelerate.hooks import CpuOffload

    if isinstance(hook, CpuOffload):
        hook.init_hook(net)


def _downscale(vae: Any) -> int:
    """Pixels a latent's side stands for."""
    return 1 << len(vae.config.block_out_channels) - 1
