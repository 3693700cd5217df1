"""How fast the networks that encode and draw are, each form beside the plain one: ``facestyle bench --generator``.

Weights of StyleGAN2 are random, as they do not change the time of dense layers; config f at 1024 px.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from facestyle.bench import machine
from facestyle.errors import ConfigError
from facestyle.models.encoder import Encoder
from facestyle.models.generator import Generator
from facestyle.models.mobile import MobileSynthesis
from facestyle.models.psp_encoder import AnyEncoder
from facestyle.models.settled import SettledSynthesis
from facestyle.models.settled_stylegan2 import SettledStyleGAN2
from facestyle.models.stylegan2_generator import StyleGAN2Generator, StyleGAN2Synthesis
from facestyle.models.zoo import load_base_generator, load_encoder
from facestyle.runtime import choose_device, cpu_has_bfloat16, dtype_name
from facestyle.testing.plain_stylegan2 import plain_synthesis
from facestyle.timing import device_name, seconds_in_turns, seconds_of, wait_for

__all__ = ["bench_generators", "format_generators"]

_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_MATRIX = {"cpu": 2048, "cuda": 8192}
PLAIN = "plain"


@dataclass(frozen=True)
class _Case:
    """One way to run a network."""

    form: str
    run: Callable[[Tensor], Tensor]
    dtype: torch.dtype = torch.float32
    batch: int = 1

    @property
    def name(self) -> str:
        return f"{self.form}, {dtype_name(self.dtype)}, batch {self.batch}"


def bench_generators(
    *,
    device: str | None = None,
    runs: int = 5,
    mobile: Generator | None = None,
    stylegan2: Generator | None = None,
    encoder: AnyEncoder | None = None,
) -> dict[str, Any]:
    """Seconds of both generators and of the encoder in every form there is for the device, in one run.

    The forms of a network take turns, as a machine's speed drifts. On CUDA there are batches up to what memory allows,
    torch.compile, and a CUDA graph for one picture.

    Args:
        device: where all run; the best there is when None.
        runs: of which the median counts, behind two warm ones.
        mobile: the small generator; the bundled one when None.
        stylegan2: the large one; config f with random weights when None.
        encoder: the bundled E_w when None.

    Returns:
        "rows" (a mapping for each form: "network", "form", "dtype", "batch", "seconds" a picture, "times_plain" (median
        over rounds), "share" of the ceiling, "difference" (largest, as a share of the plain result's largest number),
        or "why" it did not run), "work" (10^9 operations a picture, by network, of which a multiplication
        and an addition are two), "ceiling" (10^9 operations a second of a square matrix product, by dtype), "device",
        "threads", "machine", "versions", "date".

    Raises:
        ConfigError: ``runs`` is below 1, or there is no such device.
    """
    if runs < 1:
        raise ConfigError(f"runs must be 1 or more, got {runs}")
    place = choose_device(device)
    rows: list[dict[str, Any]] = []
    work = {}
    ceiling: dict[str, float] = {}
    for network, plain, given, cases in _networks(place, mobile, stylegan2, encoder):
        with torch.inference_mode():
            with FlopCounterMode(display=False) as counter:
                wanted = plain(given)
            work[network] = counter.get_total_flops() / 1e9
            timed, failed = _timed([_Case(PLAIN, plain), *cases], given, wanted, place, runs)
        for row in timed:
            if row["dtype"] not in ceiling:
                ceiling[row["dtype"]] = _ceiling(row["dtype"], place, runs)
            speed = work[network] / row["seconds"]
            row |= {
                "share": round(speed / ceiling[row["dtype"]], 3),
                "seconds": round(row["seconds"], 5),
            }
        rows += [{"network": network, **row} for row in timed + failed]
    return {
        "rows": rows,
        "work": work,
        "ceiling": {name: round(value, 4) for name, value in ceiling.items()},
        "device": device_name(place),
        "threads": torch.get_num_threads(),
        "runs": runs,
        "machine": machine(),
        "versions": {"torch": metadata.version("torch")},
        "date": time.strftime("%Y-%m-%d"),
    }


def format_generators(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    lines = [
        "| network | form | number type | batch | s a picture | pictures a second | times the plain form "
        "| share of the ceiling | difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        head = f"| {row['network']} | {row['form']} | {row['dtype']} | {row['batch']} "
        if "why" in row:
            lines.append(head + f"| – | – | – | – | {row['why']} |")
            continue
        lines.append(
            head + f"| {row['seconds']:.4f} | {1 / row['seconds']:.2f} | {row['times_plain']:.2f} "
            f"| {row['share']:.0%} | {row['difference']:.0e} |"
        )
    work = ", ".join(f"{name} {value:.1f}" for name, value in report["work"].items())
    ceiling = ", ".join(f"{name} {value:.0f}" for name, value in report["ceiling"].items())
    return "\n".join(
        [
            *lines,
            "",
            f"Work of the plain form, 10^9 operations a picture: {work}. Ceiling, 10^9 operations a second of a square "
            f"matrix product: {ceiling}. Difference: the largest, to the largest number of the plain result.",
            "",
            f"Medians of {report['runs']} runs in turns on {report['device']}, {report['threads']} threads; "
            f"{report['machine']['processor']}, {report['machine']['cores']} cores, "
            f"torch {report['versions']['torch']}, {report['date']}.",
        ]
    )


def _networks(
    device: torch.device,
    mobile: Generator | None,
    stylegan2: Generator | None,
    encoder: AnyEncoder | None,
) -> Iterator[tuple[str, Callable[[Tensor], Tensor], Tensor, list[_Case]]]:
    """Each network's name, its plain form, an input for it and its other forms."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        large = stylegan2 or _noisy(StyleGAN2Generator())
        small = mobile or load_base_generator()
    for generator in (small, large):
        generator = generator.to(device).eval().requires_grad_(False)
        synthesis = generator.synthesis
        plain: Callable[[Tensor], Tensor] = synthesis
        if isinstance(synthesis, StyleGAN2Synthesis):
            plain = partial(plain_synthesis, synthesis.state_dict())
        rng = torch.Generator().manual_seed(1)
        z = torch.randn(1, generator.w_dim, generator=rng).to(device)
        w_plus = generator.mapping(z)[:, None].expand(-1, generator.num_ws, -1).contiguous()
        name = f"{generator.architecture} {generator.resolution} px"
        yield name, plain, w_plus, _forms(synthesis, device)
    network = (encoder or load_encoder()).to(device).eval()
    side = network.input_px if isinstance(network, Encoder) else 256
    photo = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(2)).to(device)
    yield "encoder", network, photo * 2 - 1, _forms(network, device)


def _noisy(generator: StyleGAN2Generator) -> StyleGAN2Generator:
    """With noise, as trained ones have it; without, its layers would be left out."""
    with torch.no_grad():
        for name, tensor in generator.named_parameters():
            if name.endswith("noise_strength"):
                tensor.fill_(0.1)
    return generator


def _forms(network: nn.Module, device: torch.device) -> list[_Case]:
    """Ways to run a network on a device that may be faster than the plain one."""
    if device.type == "cuda":
        half = _halved(network)
        nhwc = copy.deepcopy(half).to(memory_format=torch.channels_last)
        compiled = torch.compile(copy.deepcopy(nhwc), dynamic=False)
        forms = [_Case("as it is", network)]
        for batch in _BATCHES:
            forms += [
                _Case("as it is", half, torch.bfloat16, batch),
                _Case("channels last", nhwc, torch.bfloat16, batch),
                _Case("compiled", compiled, torch.bfloat16, batch),
            ]
        return [*forms, _Case("CUDA graph", _Graphed(nhwc), torch.bfloat16)]
    if isinstance(network, MobileSynthesis) and device.type == "cpu":
        settled: nn.Module = SettledSynthesis(network)
    elif isinstance(network, StyleGAN2Synthesis) and device.type == "cpu":
        settled = SettledStyleGAN2(network)
    else:
        settled = copy.deepcopy(network).to(memory_format=torch.channels_last)
    form = "settled" if hasattr(network, "resolution") else "channels last"
    return [_Case(form, settled), _Case(form, _halved(settled), torch.bfloat16)]


def _halved(network: nn.Module) -> nn.Module:
    """A copy that computes in bfloat16: a generator wholly, an encoder where torch holds it safe."""
    if hasattr(network, "resolution"):
        return copy.deepcopy(network).to(torch.bfloat16)
    return _Autocast(copy.deepcopy(network))


class _Autocast(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            codes = self.network(x.float())
        assert isinstance(codes, Tensor)
        return codes


class _Graphed:
    """A network whose kernels for one shape are recorded at the first call and played back at the next ones."""

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network)  # recording puts the recorded form in its place
        self.play: Callable[[Tensor], Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.play is None:
            play = torch.cuda.make_graphed_callables(self.network, (x.clone(),))
            self.play = cast("Callable[[Tensor], Tensor]", play)
        return self.play(x)


def _timed(
    cases: list[_Case], given: Tensor, wanted: Tensor, device: torch.device, runs: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the cases that ran, the plain one first, and of those that could not."""
    calls: dict[str, Callable[[], Tensor]] = {}
    rows: dict[str, dict[str, Any]] = {}
    failed = []
    for case in cases:
        row: dict[str, Any] = {
            "form": case.form, "dtype": dtype_name(case.dtype), "batch": case.batch
        }  # fmt: skip
        if case.dtype == torch.bfloat16 and device.type == "cpu" and not cpu_has_bfloat16():
            failed.append(row | {"why": "the processor has no instructions for it"})
            continue
        x = given.to(case.dtype).repeat(case.batch, *[1] * (given.ndim - 1))
        call = partial(case.run, x)
        try:
            result = call()
            call()
            wait_for(device)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            failed.append(row | {"why": f"{type(error).__name__}: {error}".splitlines()[0][:120]})
            torch.cuda.empty_cache()
            continue
        difference = (result[:1].float() - wanted).abs().max() / wanted.abs().max()
        calls[case.name] = call
        rows[case.name] = row | {"difference": float(difference)}
        del result
    taken = seconds_in_turns(calls, device, runs)
    plain = next(iter(taken.values()))
    for name, times in taken.items():
        row = rows[name]
        quotients = [row["batch"] * a / b for a, b in zip(plain, times, strict=True)]
        row["times_plain"] = round(statistics.median(quotients), 2)
        row["seconds"] = statistics.median(times) / row["batch"]
    return list(rows.values()), failed


def _ceiling(dtype: str, device: torch.device, runs: int) -> float:
    """10^9 operations a second of a square matrix product."""
    side = _MATRIX["cuda" if device.type == "cuda" else "cpu"]
    a = torch.randn(side, side, device=device).to(getattr(torch, dtype))
    for _ in range(2):
        a @ a
    return float(2 * side**3 / seconds_of(lambda: a @ a, device, runs) / 1e9)
