"""StyleGAN2's generator (arXiv:1912.04958, config f: skip pictures, resampled convolutions), in plain PyTorch.

Weights are stored near N(0, 1) and scaled when used (equalised learning rate). Modulated convolutions scale their
input, run one convolution for the whole batch, and scale their output, which is the same as a convolution a sample.

Rows of w_plus: ``b4.conv1`` reads row 0 and ``b4.torgb`` row 1; with r = 8 << i, ``b{r}.conv0`` reads row 2i+1,
``b{r}.conv1`` 2i+2 and ``b{r}.torgb`` 2i+3, so that a head shares its row with the first convolution of the next block.

In half precision styles, demodulation and the sum of the heads are float32 all the same, and so is everything up to
64 px. float16 ends at 65504: there weights and styles are divided by their largest, which demodulation takes back, and
features are cut at +-256. In float32 nothing is divided, and features are cut where `conv_clamp` says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from facestyle.errors import CheckpointError, ConfigError, LatentShapeError
from facestyle.models.generator import Generator, Noise, sample_z

__all__ = [
    "CUT",
    "EqualLinear",
    "StyleGAN2Generator",
    "StyleGAN2Mapping",
    "StyleGAN2Synthesis",
    "check_filter",
    "estimate_w_avg",
    "from_rosinality",
    "limit_of",
    "scaled_leaky_relu",
    "sizes_of",
]

AfterConv = Callable[[int, Tensor], Tensor]
"""Changes the features behind the convolution that reads row i: (i, [B, C, H, W]) -> the same shape."""

_WHOLE_PX = 64
"""Largest side whose features are float32 in a network of half precision: most of the time goes into larger ones."""
CUT = 256.0
"""What features of a float16 network are cut at, with either sign."""


def scaled_leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2, times sqrt 2, which keeps the variance of normal inputs about the same."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2.0)


def limit_of(conv_clamp: float | None, dtype: torch.dtype) -> float | None:
    """What features of a network of this number type are cut at; None for nothing."""
    if dtype != torch.float16:
        return conv_clamp
    return CUT if conv_clamp is None else min(CUT, conv_clamp)


def _fir() -> Tensor:
    """[4, 4] of sum 4: the filter [1, 3, 3, 1] in both directions, for pictures of twice the side."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) * (4 / taps.sum().square())


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate.

    Args:
        before: numbers in.
        after: numbers out.
        bias: what it starts as.
        rate: learning-rate multiplier: weights are stored larger, and scaled down, by this.
    """

    def __init__(self, before: int, after: int, *, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before) / rate)
        self.bias = nn.Parameter(torch.full((after,), bias / rate))
        self.rate = rate
        self.gain = rate / math.sqrt(before)

    def forward(self, x: Tensor) -> Tensor:
        """[..., before] -> [..., after], in the wider number type of ``x`` and the weights."""
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        weight, bias = self.weight.to(dtype) * self.gain, self.bias.to(dtype) * self.rate
        return F.linear(x.to(dtype), weight, bias)


class StyleGAN2Mapping(nn.Module):
    """z to w: each z to length sqrt(w_dim), then ``depth`` layers, the last one activated too.

    Attributes:
        w_avg: [w_dim], mean of W.
    """

    w_avg: Tensor

    def __init__(self, w_dim: int = 512, depth: int = 8) -> None:
        super().__init__()
        self.fc = nn.ModuleList(EqualLinear(w_dim, w_dim, rate=0.01) for _ in range(depth))
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor) -> Tensor:
        """[..., w_dim] -> [..., w_dim]."""
        x = z * torch.rsqrt(z.square().mean(dim=-1, keepdim=True) + 1e-8)
        for layer in self.fc:
            x = scaled_leaky_relu(layer(x))
        return x


class _Kernel(NamedTuple):
    """What a modulated convolution needs of its weight.

    Attributes:
        weight: [after, before, 3, 3] in the number type of the features.
        power: [after, before], float32 or wider, the undivided weight's sums of squares over its 3x3 places.
        divisor: [after], what each output's weights were divided by; None for nothing.
    """

    weight: Tensor
    power: Tensor
    divisor: Tensor | None


class _Kept(NamedTuple):
    """A kernel beside what it was made of: it holds as long as the weight is the same memory, not written to since.

    Attributes:
        source: the weight's memory, which cannot be given to another tensor while it is held here.
        version: of ``source`` when the kernel was made.
        stream: of CUDA, in whose order it was made; None elsewhere.
    """

    source: Tensor
    version: int
    stream: torch.cuda.Stream | None
    kernel: _Kernel

    def is_of(self, weight: Tensor) -> bool:
        """Whether the kernel is still that of ``weight``."""
        return (
            self.source.data_ptr() == weight.data_ptr()
            and self.source.dtype == weight.dtype
            and self.source.device == weight.device
            and self.version == weight._version
            and self.stream == _stream_of(weight)
        )


def _kernel_of(weight: Tensor, resolution: int) -> _Kernel:
    """The kernel of a weight [after, before, 3, 3] whose output has side ``resolution``."""
    dtype = _features_dtype(weight, resolution)
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
    power = exact.square().sum((2, 3))
    if dtype != torch.float16:
        return _Kernel(weight.to(dtype), power, None)
    # Features are cut at 256 and styles at 1, so 512 channels sum up to 256 * sqrt(4608) at most.
    divisor = exact.detach().abs().amax((1, 2, 3)) * math.sqrt(exact[0].numel())
    divisor = divisor.clamp(min=1e-8)
    return _Kernel((exact / divisor[:, None, None, None]).to(dtype), power, divisor)


def _features_dtype(weight: Tensor, resolution: int) -> torch.dtype:
    """Number type of the features at a side, in a network whose weights are of that of ``weight``."""
    is_half = weight.dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if is_half and resolution <= _WHOLE_PX else weight.dtype


def _can_be_kept(weight: Tensor) -> bool:
    """Whether a kernel may outlive the call: not what a graph records, nor of a weight whose changes go unnoticed.

    A recorded graph must read the weight itself. Training changes weights, some optimisers without counting it as a
    version, and tensors of inference mode count none.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return False
    if weight.requires_grad or weight.is_inference() or not isinstance(weight, nn.Parameter):
        return False
    return not (weight.is_cuda and torch.cuda.is_current_stream_capturing())


def _stream_of(weight: Tensor) -> torch.cuda.Stream | None:
    return torch.cuda.current_stream(weight.device) if weight.is_cuda else None


def _style(affine: EqualLinear, w: Tensor) -> Tensor:
    """[B, before], how much each channel counts, in float32 at least."""
    style: Tensor = affine(w.to(torch.promote_types(w.dtype, torch.float32)))
    return style


def _largest(style: Tensor) -> Tensor:
    """[B, 1], each sample's largest, which is divided out and multiplied in again: gradients see a constant."""
    return style.detach().abs().amax(1, keepdim=True).clamp(min=1e-8)


class _StyledConv(nn.Module):
    """Modulated, demodulated 3x3 convolution, to twice the side where ``up``; then noise, bias, activation.

    What demodulation needs of a frozen weight is kept from call to call. A weight changed through its ``.data`` in
    place is not noticed; through itself, by loading, moving or converting it is.
    """

    noise_const: Tensor
    fir: Tensor
    _kept: _Kept | None = None

    def __init__(
        self,
        before: int,
        after: int,
        w_dim: int,
        resolution: int,
        *,
        up: bool = False,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.affine = EqualLinear(w_dim, before, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after, before, 3, 3))
        self.bias = nn.Parameter(torch.zeros(after))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("fir", _fir(), persistent=False)
        self.resolution = resolution
        self.up = up
        self.conv_clamp = conv_clamp

    def forward(self, x: Tensor, w: Tensor, noise: Noise) -> Tensor:
        weight, power, divisor = self._kernel()
        dtype = weight.dtype
        style = _style(self.affine, w)
        scale = torch.rsqrt(style.square() @ power.T + 1e-8)
        if divisor is not None:
            largest = _largest(style)
            style, scale = style / largest, scale * largest * divisor
        x = x.to(dtype) * style.to(dtype)[:, :, None, None]
        if self.up:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            fir = self.fir.to(dtype).expand(x.shape[1], 1, 4, 4)
            x = F.conv2d(x, fir, padding=1, groups=x.shape[1])
        else:
            x = F.conv2d(x, weight, padding=1)
        x = x * scale.to(dtype)[:, :, None, None]
        if noise == "const":
            x = x + self.noise_const.to(dtype) * self.noise_strength.to(dtype)
        x = scaled_leaky_relu(x + self.bias.to(dtype)[:, None, None])
        limit = limit_of(self.conv_clamp, self.weight.dtype)
        return x if limit is None else x.clamp(-limit, limit)

    def _kernel(self) -> _Kernel:
        """The weight's kernel, kept where it can be; threads that come at once make the same one."""
        weight = self.weight
        if not _can_be_kept(weight):
            if not torch.compiler.is_compiling():
                self._kept = None  # a weight in training may come back frozen, changed unnoticed
            return _kernel_of(weight, self.resolution)
        kept = self._kept
        if kept is None or not kept.is_of(weight):
            with torch.inference_mode(False), torch.no_grad():
                source, version = weight.detach(), weight._version
                kernel = _kernel_of(source, self.resolution)
                kept = self._kept = _Kept(source, version, _stream_of(weight), kernel)
        return kept.kernel

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        self._kept = None  # so that the memory of weights that move is free at once
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}


class _ToRgb(nn.Module):
    """Modulated 1x1 convolution to colours, not demodulated, without activation."""

    def __init__(
        self, before: int, w_dim: int, resolution: int, *, conv_clamp: float | None = None
    ) -> None:
        super().__init__()
        self.affine = EqualLinear(w_dim, before, bias=1.0)
        self.weight = nn.Parameter(torch.randn(3, before, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.gain = 1 / math.sqrt(before)
        self.resolution = resolution
        self.conv_clamp = conv_clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        color = self._colored(x, w)
        return color if self.conv_clamp is None else color.clamp(-self.conv_clamp, self.conv_clamp)

    def _colored(self, x: Tensor, w: Tensor) -> Tensor:
        dtype = _features_dtype(self.weight, self.resolution)
        style, weight = _style(self.affine, w), self.weight.to(dtype)
        if dtype == torch.float16:
            largest = _largest(style)
            style = (style / largest * self.gain).to(dtype)
            color = F.conv2d(x.to(dtype) * style[:, :, None, None], weight).float()
            return color * largest[:, :, None, None] + self.bias.float()[:, None, None]
        style = (style * self.gain).to(dtype)
        return F.conv2d(x.to(dtype) * style[:, :, None, None], weight, self.bias.to(dtype))


class _Block(nn.Module):
    """The layers of one resolution; the first has no ``conv0``."""

    def __init__(
        self, before: int, after: int, w_dim: int, resolution: int, conv_clamp: float | None
    ) -> None:
        super().__init__()
        sizes: dict[str, Any] = {
            "w_dim": w_dim, "resolution": resolution, "conv_clamp": conv_clamp
        }  # fmt: skip
        if resolution > 4:
            self.conv0 = _StyledConv(before, after, **sizes, up=True)
        self.conv1 = _StyledConv(after, after, **sizes)
        self.torgb = _ToRgb(after, **sizes)


class StyleGAN2Synthesis(nn.Module):
    """w_plus to picture.

    Args:
        resolution: side of the full picture, a power of two from 8.
        w_dim: numbers in a row of w_plus.
        channel_base: a resolution r has ``channel_base / r`` channels, but at most ``channel_max``.
        channel_max: most channels.
        conv_clamp: see `StyleGAN2Generator`.
    """

    fir: Tensor

    def __init__(
        self,
        resolution: int,
        *,
        w_dim: int,
        channel_base: int,
        channel_max: int,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.w_dim = w_dim
        self.sides = [4 << i for i in range(round(math.log2(resolution)) - 1)]
        self.num_ws = 2 * len(self.sides)
        self.channels = [min(channel_base // side, channel_max) for side in self.sides]
        self.const = nn.Parameter(torch.randn(self.channels[0], 4, 4))
        befores = self.channels[:1] + self.channels
        for side, before, after in zip(self.sides, befores, self.channels, strict=False):
            self.add_module(f"b{side}", _Block(before, after, w_dim, side, conv_clamp))
        self.register_buffer("fir", _fir(), persistent=False)

    def forward(
        self,
        w_plus: Tensor,
        *,
        noise: Noise = "const",
        resolution: int | None = None,
        after_conv: AfterConv | None = None,
    ) -> Tensor:
        """Picture [B, 3, R, R] in about [-1, 1] (not clamped) from w_plus [B, num_ws, w_dim].

        Args:
            w_plus: one row a layer, coarse first.
            noise: "const" adds the stored noise planes, "none" leaves them out.
            resolution: None for the full side, or the side of an earlier block.
            after_conv: changes the features behind each convolution, given in the weights' number type.

        Raises:
            LatentShapeError: ``w_plus`` has another shape.
            ConfigError: there is no block of that resolution, or the noise mode is unknown.
        """
        last = self.check_request(w_plus, noise, resolution)
        rows = w_plus.unbind(1)
        x = self.const.expand(w_plus.shape[0], -1, -1, -1)
        img: Tensor | None = None
        for side in self.sides[: self.sides.index(last) + 1]:
            block = self.get_submodule(f"b{side}")
            assert isinstance(block, _Block)
            first = 0 if side == 4 else 2 * self.sides.index(side) - 1
            convs = [block.conv1] if side == 4 else [block.conv0, block.conv1]
            for row, conv in enumerate(convs, start=first):
                x = conv(x, rows[row], noise)
                if after_conv is not None:
                    x = after_conv(row, x.to(self.const.dtype))
            color = block.torgb(x, rows[first + len(convs)]).float()
            img = color if img is None else self._doubled(img) + color
        assert img is not None
        return img

    def _doubled(self, img: Tensor) -> Tensor:
        """Twice the side; as bilinear, except that the border fades to 0."""
        kernel = self.fir.to(img.dtype).expand(3, 1, 4, 4)
        return F.conv_transpose2d(img, kernel, stride=2, padding=1, groups=3)

    def check_request(self, w_plus: Tensor, noise: Noise, resolution: int | None) -> int:
        """Side of the last block to draw, or the errors that ``forward`` names."""
        if w_plus.ndim != 3 or w_plus.shape[1:] != (self.num_ws, self.w_dim):
            raise LatentShapeError(
                f"expected w_plus [B, {self.num_ws}, {self.w_dim}] for a {self.resolution} px StyleGAN2, "
                f"got {list(w_plus.shape)}; give a [B, {self.w_dim}] code to facestyle.latents.broadcast first"
            )
        if noise not in ("const", "none"):
            raise ConfigError(f'noise must be "const" or "none", got {noise!r}')
        if resolution is not None and resolution not in self.sides:
            raise ConfigError(f"this generator draws at {self.sides} px, not {resolution}")
        return resolution or self.resolution


class StyleGAN2Generator(Generator):
    """StyleGAN2 behind the generator contract.

    Args:
        resolution: side of the full picture, a power of two from 8.
        w_dim: numbers in z, w and a row of w_plus.
        channel_base: a resolution r has ``channel_base / r`` channels: 32768 in config f.
        channel_max: but at most so many.
        mapping_depth: layers of the mapping network.
        conv_clamp: what the results of convolutions and heads are cut at, with either sign, as NVIDIA trains generators
            whose fine layers are float16; None leaves them as they are.

    Raises:
        ConfigError: the sizes cannot be built, or ``conv_clamp`` is not above 0.
    """

    architecture: ClassVar[str] = "stylegan2"

    def __init__(
        self,
        resolution: int = 1024,
        *,
        w_dim: int = 512,
        channel_base: int = 32_768,
        channel_max: int = 512,
        mapping_depth: int = 8,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        if resolution not in [8 << i for i in range(8)]:
            raise ConfigError(f"resolution must be a power of two from 8 to 1024, got {resolution}")
        if channel_base < resolution or min(channel_max, w_dim, mapping_depth) < 1:
            raise ConfigError(
                f"expected channel_base of {resolution} or more and other sizes of 1 or more, got {channel_base}, "
                f"{channel_max}, {w_dim}, {mapping_depth}"
            )
        if conv_clamp is not None and not 0 < conv_clamp < math.inf:
            raise ConfigError(f"conv_clamp must be above 0, or None, got {conv_clamp}")
        self.resolution = resolution
        self.preview_resolution = min(256, resolution)
        self.w_dim = w_dim
        self.channel_base, self.channel_max = channel_base, channel_max
        self.mapping_depth = mapping_depth
        self.conv_clamp = conv_clamp
        self.mapping: nn.Module = StyleGAN2Mapping(w_dim, mapping_depth)
        self.synthesis: nn.Module = StyleGAN2Synthesis(
            resolution,
            w_dim=w_dim,
            channel_base=channel_base,
            channel_max=channel_max,
            conv_clamp=conv_clamp,
        )
        self.num_ws = 2 * round(math.log2(resolution)) - 2

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-able; ``conv_clamp`` only where there is one."""
        config: dict[str, Any] = {
            "resolution": self.resolution,
            "w_dim": self.w_dim,
            "channel_base": self.channel_base,
            "channel_max": self.channel_max,
            "mapping_depth": self.mapping_depth,
        }
        return config if self.conv_clamp is None else config | {"conv_clamp": self.conv_clamp}


def estimate_w_avg(generator: Generator, count: int = 10_000, *, seed: int = 0) -> Tensor:
    """[w_dim], the mean of ``count`` mapped z's, for checkpoints that do not store it."""
    z = sample_z(count, seed, generator.w_dim).to(generator.w_avg.device)
    with torch.no_grad():
        w = torch.cat([generator.mapping(part) for part in z.split(1000)])
    return w.mean(0)


def from_rosinality(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Arguments and tensors of a :class:`StyleGAN2Generator`, from a ``g_ema`` of rosinality's PyTorch code.

    The resolution, widths and depth are read off the tensors. ``mapping.w_avg`` is not among them: such files keep it
    beside ``g_ema``, or not at all. Files of old versions have no noise planes; theirs are drawn from seed 0.

    Raises:
        CheckpointError: a tensor has no place in the generator, or one that tells its size is absent.
    """
    names = {name: _clean_name(name) for name in tensors}
    if unknown := sorted(name for name, clean in names.items() if clean is None):
        raise CheckpointError(
            f"has {len(unknown)} tensors with no place in a StyleGAN2 generator: {unknown[:3]}",
            unexpected=unknown,
        )
    for name, new in names.items():
        if not new:
            check_filter(name, tensors[name], 4.0)
    clean = {new: _clean_shape(new, tensors[name]) for name, new in names.items() if new}
    config = sizes_of(clean)
    if not any(name.endswith("noise_const") for name in clean):
        rng = torch.Generator().manual_seed(0)
        for name in sorted(name for name in clean if name.endswith("noise_strength")):
            match = re.search(r"\.b(\d+)\.", name)
            assert match is not None
            if (side := int(match[1])) > min(config["resolution"], 1024):
                continue  # no layer of a generator
            plane = torch.randn(side, side, generator=rng)
            clean[name.replace("noise_strength", "noise_const")] = plane
    return config, clean


def check_filter(name: str, kernel: Tensor, gain: float, path: Path | None = None) -> None:
    """Whether a resampling filter is the one that facestyle has built in, times a gain.

    Raises:
        CheckpointError: it is another.
    """
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    wanted = gain * torch.outer(taps, taps)
    if kernel.shape != (4, 4) or not torch.allclose(kernel.float(), wanted, rtol=1e-3):
        raise CheckpointError(
            f"{name} is another filter than [1, 3, 3, 1], which facestyle does not have", path=path
        )


def sizes_of(clean: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of the :class:`StyleGAN2Generator` whose tensors these are, read off their shapes.

    Raises:
        CheckpointError: one that tells a size is absent.
    """
    sides = [
        int(match[1]) for name in clean if (match := re.search(r"\.b(\d+)\.torgb\.bias", name))
    ]
    try:
        side = max(sides)
        top = clean[f"synthesis.b{side}.conv1.weight"].shape[0]
        return {
            "resolution": side,
            "w_dim": clean["mapping.fc.0.weight"].shape[1],
            "channel_base": top * side,
            "channel_max": clean["synthesis.const"].shape[0],
            "mapping_depth": sum(
                re.fullmatch(r"mapping\.fc\.\d+\.weight", name) is not None for name in clean
            ),
        }
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"holds no StyleGAN2 generator ({error})") from error


_LAYER = {
    "conv.weight": "weight", "conv.modulation.weight": "affine.weight",
    "conv.modulation.bias": "affine.bias", "activate.bias": "bias",
    "noise.weight": "noise_strength", "bias": "bias",
    "conv.blur.kernel": "", "upsample.kernel": "",
}  # fmt: skip


def _clean_name(name: str) -> str | None:
    """Our name of a tensor of rosinality's; empty for constants, None where there is no such layer."""
    if name == "input.input":
        return "synthesis.const"
    if match := re.fullmatch(r"style\.(\d\d?)\.(weight|bias)", name):
        return f"mapping.fc.{int(match[1]) - 1}.{match[2]}"
    if match := re.fullmatch(r"noises\.noise_(\d\d?)", name):
        number = int(match[1])
        conv = "b4.conv1" if number == 0 else f"b{8 << (number - 1) // 2}.conv{(number - 1) % 2}"
        return f"synthesis.{conv}.noise_const"
    match = re.fullmatch(r"(conv1|to_rgb1|convs\.(\d\d?)|to_rgbs\.(\d\d?))\.(.+)", name)
    if match is None or match[4] not in _LAYER:
        return None
    if not (part := _LAYER[match[4]]):
        return ""
    if match[2] is not None:
        place = f"b{8 << int(match[2]) // 2}.conv{int(match[2]) % 2}"
    elif match[3] is not None:
        place = f"b{8 << int(match[3])}.torgb"
    else:
        place = "b4.conv1" if match[1] == "conv1" else "b4.torgb"
    return f"synthesis.{place}.{part}"


def _clean_shape(name: str, tensor: Tensor) -> Tensor:
    """The tensor without the leading axes of length 1 that only rosinality's has."""
    if name.endswith("noise_strength"):
        return tensor.reshape(())
    if name.endswith("noise_const"):
        return tensor.reshape(tensor.shape[-2:])
    if name.endswith("torgb.bias"):
        return tensor.reshape(-1)
    is_conv = name.endswith(("conv0.weight", "conv1.weight", "torgb.weight"))
    if not is_conv and name != "synthesis.const":
        return tensor
    if tensor.shape[:1] != (1,):
        raise CheckpointError(f"{name} is {list(tensor.shape)}, with no leading axis of length 1")
    return tensor[0]
