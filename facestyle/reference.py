"""References: the code with which a style's generator G' draws a given picture (paper sections 3.3 and 6.3).

The code is found by gradient descent in one of four spaces: V, W, W+, Z+. V is W turned to the axes along which the
generator's modulations vary most ("closed-form factorisation", arXiv:2007.06600; UI2I inverts there): every w has a v,
but Adam, which scales each coordinate by itself, takes other paths. A code belongs to the G' it was found in.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from facestyle.errors import CheckpointError, ConfigError, LatentShapeError
from facestyle.inversion import Inverter, OnStep, ReconstructionLoss
from facestyle.models.checkpoints import read_metadata, read_tensors, save_tensors
from facestyle.models.generator import Generator, sample_z
from facestyle.models.mobile import MobileSynthesis
from facestyle.models.psp_encoder import AnyEncoder
from facestyle.models.stylegan2_generator import StyleGAN2Synthesis
from facestyle.options import check_steps
from facestyle.seeds import check_seed
from facestyle.styles import StyleConfig

__all__ = [
    "STEPS",
    "Init",
    "ReferenceCode",
    "ReferenceSpace",
    "check_search",
    "encode_reference",
    "modulation_weights",
    "naturalness",
    "synthesis_sha256",
    "v_basis",
]

_log = logging.getLogger(__name__)

ReferenceSpace = Literal["v", "w", "w_plus", "z_plus"]
"""Where a code is searched: one w in V's or W's coordinates; one w a layer; one z a layer."""

Init = Literal["mean", "encoder"]
"""Where the search starts: at the mean face, or at the encoder's code of the picture."""

STEPS: dict[Init, int] = {"mean": 64, "encoder": 32}
"""Steps of a search when none are asked for."""

_FORMAT = "facestyle-reference"
_VERSION = 1
_START_SAMPLES = 256
_PRIOR_SAMPLES = 4096


@dataclass(frozen=True, eq=False)
class ReferenceCode:
    """What G' of one style needs to draw a reference picture.

    Attributes:
        w_plus: [num_ws, w_dim], float32, on the CPU.
        style: name of the style.
        style_sha256: of the weights of its synthesis network, as float16.
        base_sha256: of the base generator's file.
        space: where it was searched.
        init: where the search started.
        steps: that were made.
        seed: of the start in Z+.
        loss: of the full picture, with what holds the code near natural ones; on a scale of its own, lower is closer.
    """

    w_plus: Tensor
    style: str
    style_sha256: str
    base_sha256: str
    space: ReferenceSpace
    init: Init
    steps: int
    seed: int
    loss: float

    @property
    def digest(self) -> str:
        """Eight characters that tell this code from others, for a picture's metadata."""
        return hashlib.sha256(self.w_plus.numpy().tobytes()).hexdigest()[:8]

    def check(
        self, generator: Generator, config: StyleConfig, style_sha256: str | None = None
    ) -> None:
        """Refuse a code of another style; warn where only the weights have changed since.

        Args:
            generator: G' that is to draw it.
            config: of its style.
            style_sha256: ``synthesis_sha256`` of ``generator``, where it is known already.

        Raises:
            ConfigError: the code is of another style or base generator.
            LatentShapeError: it has other rows than ``generator``.
        """
        expected = (generator.num_ws, generator.w_dim)
        if self.w_plus.shape != expected:
            raise LatentShapeError(
                f"expected a reference code {list(expected)} for this style, got {list(self.w_plus.shape)}; "
                "encode the reference picture again with this style"
            )
        if self.style_sha256 == (style_sha256 or synthesis_sha256(generator)):
            return
        if (self.style, self.base_sha256) != (config.name, config.base_sha256):
            raise ConfigError(
                f"the reference code is of the style {self.style!r}, and this is {config.name!r}: a code says what one "
                "style's generator draws; encode the reference picture again with this style"
            )
        _log.warning(
            "the reference code was made with other weights of %r; encode it again", self.style
        )

    def save(self, path: str | Path) -> None:
        """Write one small safetensors file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        facts = {name: getattr(self, name) for name in _FACTS}
        metadata = {"format": _FORMAT, "version": str(_VERSION), **facts}
        save_tensors({"w_plus": self.w_plus}, path, metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> ReferenceCode:
        """Read what ``save`` wrote, strictly.

        Raises:
            CheckpointError: the file is absent, damaged, something else, or of a newer format.
        """
        metadata, tensors = read_metadata(path), read_tensors(path)
        if metadata.pop("format", None) != _FORMAT:
            raise CheckpointError("is no facestyle reference code", path=path)
        version = metadata.pop("version", "")
        if not version.isdecimal() or int(version) > _VERSION:
            raise CheckpointError(
                f"has format version {version!r}, this facestyle reads up to {_VERSION}; update facestyle",
                path=path,
            )
        facts = _read_facts(metadata, path)
        w_plus = tensors.pop("w_plus", torch.empty(0))
        if tensors or w_plus.ndim != 2 or not bool(torch.isfinite(w_plus).all()):
            raise CheckpointError(
                f"should hold the finite tensor w_plus [num_ws, w_dim] alone, but has {list(w_plus.shape)} "
                f"and {sorted(tensors)}; the file is damaged",
                path=path,
                unexpected=sorted(tensors),
            )
        return cls(w_plus.float(), **facts)


_FACTS: dict[str, type] = {
    "style": str, "style_sha256": str, "base_sha256": str, "space": str, "init": str,
    "steps": int, "seed": int, "loss": float,
}  # fmt: skip


def _read_facts(metadata: dict[str, str], path: str | Path) -> dict[str, Any]:
    """The header's strings as the attributes they are."""
    if metadata.keys() != _FACTS.keys():
        raise CheckpointError(
            f"should say {sorted(_FACTS)} in its header, but says {sorted(metadata)}", path=path
        )
    try:
        facts = {name: kind(metadata[name]) for name, kind in _FACTS.items()}
    except ValueError as error:
        raise CheckpointError(f"has a damaged header ({error})", path=path) from error
    if facts["space"] not in get_args(ReferenceSpace) or facts["init"] not in get_args(Init):
        raise CheckpointError(
            f"was searched in {facts['space']!r} from {facts['init']!r}, which nobody knows",
            path=path,
        )
    return facts


def check_search(space: str, init: str, steps: int | None) -> None:
    """Refuse what `encode_reference` cannot do.

    Raises:
        ConfigError: ``space`` or ``init`` is unknown, or ``steps`` negative or not whole.
    """
    if space not in get_args(ReferenceSpace):
        raise ConfigError(
            f"space must be one of {', '.join(get_args(ReferenceSpace))}, got {space!r}"
        )
    if init not in get_args(Init):
        raise ConfigError(f'init must be "mean" or "encoder", got {init!r}')
    if steps is not None:
        check_steps("steps", steps)


@torch.inference_mode(False)
def encode_reference(
    generator: Generator,
    picture: Tensor,
    config: StyleConfig,
    *,
    space: ReferenceSpace = "v",
    encoder: AnyEncoder | None = None,
    steps: int | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
    loss: ReconstructionLoss | None = None,
) -> ReferenceCode:
    """The code with which ``generator`` draws ``picture``: the best one met, by the look of the full picture.

    Args:
        generator: G' of a style.
        picture: [1, 3, S, S] in [-1, 1], an aligned face.
        config: the style's.
        space: where to search.
        encoder: into the space, whose code of the picture to start from, E_w for "v"; None starts at the mean face, in
            Z+ at the most average one of some samples.
        steps: of Adam; None takes `STEPS`.
        seed: of these samples.
        on_step: see `facestyle.inversion.OnStep`.
        loss: built when None.

    Raises:
        ConfigError: ``space`` is unknown, ``steps`` negative, or ``seed`` is none.
    """
    init: Init = "mean" if encoder is None else "encoder"
    check_search(space, init, steps)
    seed = check_seed(seed)
    steps = STEPS[init] if steps is None else steps
    start = generator.w_avg[None]
    with torch.no_grad():
        if encoder is not None:
            start = encoder(picture)
        elif space == "z_plus":
            start = _average_z(generator, seed)
    if loss is None:
        loss = ReconstructionLoss(**_LOSS, device=generator.w_avg.device)
    to_rows: Callable[[Tensor], Tensor] | None = generator.mapping if space == "z_plus" else None
    if space == "v":
        basis = v_basis(generator)
        start = start @ basis.T
        to_rows = lambda v: v @ basis  # noqa: E731
    prior: Callable[[Tensor], Tensor] | None = None
    if space in ("v", "w"):
        measure = naturalness(generator)
        prior = lambda w_plus: _PRIOR_WEIGHT * measure(w_plus)  # noqa: E731
    inverter = Inverter(
        generator, loss, look_every=_LOOK_EVERY, to_rows=to_rows, prior=prior, **_SEARCHES[space]
    )
    found = inverter.search(picture, start, steps, on_step=on_step)
    return ReferenceCode(
        w_plus=found.w_plus[0].float().cpu(),
        style=config.name,
        style_sha256=synthesis_sha256(generator),
        base_sha256=config.base_sha256,
        space=space,
        init=init,
        steps=found.steps,
        seed=seed,
        loss=float(found.score[0]),
    )


_LOSS: dict[str, float] = {"perceptual_weight": 1.0, "identity_weight": 0.1, "pixel_weight": 8.0}
"""Identity counts little, colours much: a reference lends its look, and drawn faces hardly show who it is."""

_LOOK_EVERY = 8

_PRIOR_WEIGHT = 0.05
"""Of `naturalness` in V and W: without it codes end 4 standard deviations out, in glaring colours and flat faces."""

_SEARCHES: dict[str, dict[str, Any]] = {
    "v": {"lr": 0.3, "offset_weight": None},
    "w": {"lr": 0.3, "offset_weight": None},
    "w_plus": {"lr": 0.2, "offset_weight": 0.0},
    "z_plus": {"lr": 0.1, "std": 1.0, "offset_weight": 1.0},
}
"""By space, arguments of the `Inverter`."""


def _average_z(generator: Generator, seed: int) -> Tensor:
    """[1, w_dim], of some samples the one whose w is nearest to the mean."""
    z = sample_z(_START_SAMPLES, seed, generator.w_dim).to(generator.w_avg.device)
    distance = (generator.mapping(z) - generator.w_avg).square().sum(1)
    nearest = int(distance.argmin())
    return z[nearest : nearest + 1]


def naturalness(generator: Generator) -> Callable[[Tensor], Tensor]:
    """A measure of w_plus [B, num_ws, w_dim]: mean squared distance from w_avg, [B], in W's standard deviations.

    It is taken along the axes on which the mapping network's output varies independently; there a sample has about
    1 (W's covariance as a prior: arXiv:2012.09036).
    """
    z = sample_z(_PRIOR_SAMPLES, 0, generator.w_dim).to(generator.w_avg.device)
    with torch.no_grad():
        offsets = generator.mapping(z) - generator.w_avg
    variances, axes = torch.linalg.eigh((offsets.T @ offsets / len(z)).cpu().double())
    scales = axes / variances.clamp_min(float(variances.mean()) * 1e-4).sqrt()
    whiten = scales.to(generator.w_avg)

    def measure(w_plus: Tensor) -> Tensor:
        distance: Tensor = ((w_plus - generator.w_avg) @ whiten).square().mean((1, 2))
        return distance

    return measure


def v_basis(generator: Generator) -> Tensor:
    """[w_dim, w_dim], orthogonal: ``w = v @ basis`` and ``v = w @ basis.T``.

    Rows are the right singular vectors of the stacked modulation weights, the largest singular value first.
    """
    stacked = torch.cat(modulation_weights(generator.synthesis)).detach().cpu().double()
    _, vectors = torch.linalg.eigh(stacked.T @ stacked)  # ascending
    basis: Tensor = vectors.T.flip(0).to(generator.w_avg)
    return basis


@functools.singledispatch
def modulation_weights(synthesis: nn.Module) -> list[Tensor]:
    """The matrices [C, w_dim] that turn w into a layer's style, without biases, of every layer of the full picture.

    Another generator's synthesis network is made known with ``@modulation_weights.register``.

    Raises:
        ConfigError: the network is unknown here.
    """
    raise ConfigError(
        f"the modulations of a {type(synthesis).__name__} are not known, so it has no V space; search in w"
    )


@modulation_weights.register
def _(synthesis: MobileSynthesis) -> list[Tensor]:
    return [
        weight
        for name, weight in synthesis.named_parameters()
        if name.endswith(("affine.weight", "up.weight")) and not name.startswith("to_preview.")
    ]


@modulation_weights.register
def _(synthesis: StyleGAN2Synthesis) -> list[Tensor]:
    return [  # of the convolutions and of the first head, as UI2I takes them: 6560 rows at 1024 px
        weight
        for name, weight in synthesis.named_parameters()
        if name.endswith("affine.weight") and (".torgb." not in name or name.startswith("b4."))
    ]


def synthesis_sha256(generator: Generator) -> str:
    """Sha256 of the synthesis network's weights as a style's file stores them, in float16."""
    digest = hashlib.sha256()
    for name, tensor in sorted(generator.synthesis.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().half().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
