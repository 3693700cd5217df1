"""Networks by the files they lie in, loaded: base generator G, encoders, discriminator, and a style's generator."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from facestyle.errors import CheckpointError, ran_out
from facestyle.files import file_sha256
from facestyle.models.checkpoints import (
    bundled,
    load_strict,
    read_metadata,
    read_tensors,
    unfilled,
)
from facestyle.models.encoder import Encoder, Space
from facestyle.models.generator import Generator, Source, weights_between
from facestyle.models.kernel_change import KernelChange
from facestyle.models.latent_map import LatentMap
from facestyle.models.mobile import MobileGenerator
from facestyle.models.psp_encoder import AnyEncoder, PspEncoder, first_row
from facestyle.models.stylegan2 import StyleGAN2Critic
from facestyle.models.stylegan2_generator import StyleGAN2Generator
from facestyle.styles import (
    ADJUSTMENTS,
    HAIR_FILE,
    LIKENESS_FILE,
    OWN_BASE,
    OWN_ENCODER,
    VERSION,
    StyleConfig,
)

__all__ = [
    "BASE_FILE",
    "DISCRIMINATOR_FILE",
    "ENCODER_FILE",
    "ENCODER_FILES",
    "GENERATOR_FILE",
    "REST",
    "Style",
    "base_sha256",
    "is_import",
    "load_base_generator",
    "load_discriminator",
    "load_encoder",
    "load_style",
    "load_style_base",
    "load_style_generator",
    "own_encoders",
    "read_style_tensors",
    "refuse_pickles",
    "sha256_of",
]

BASE_FILE = "generator_ffhq_1024.safetensors"
ENCODER_FILE = "encoder_w.safetensors"
DISCRIMINATOR_FILE = "discriminator.safetensors"
GENERATOR_FILE = "generator.safetensors"
REST = "rest"
"""Key in the header of a style's file: "base" where the tensors that it lacks are G's."""

_PICKLES = {".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}
ENCODER_FILES: dict[Space, str] = {
    "w": ENCODER_FILE,
    "w_plus": "encoder_w_plus.safetensors",
    "z_plus": "encoder_z_plus.safetensors",
}
"""Names of the bundled encoders, and of those that lie beside a base generator of one's own."""

_COUNTS = ("mapping_depth", "rows", "units", "corrections")
_MOST = 100
"""Of these, which a config may ask for: layers are made one by one before their sizes can be compared."""

_MAKERS = (torch.empty, torch.ones, torch.randn, torch.zeros)
"""What modules get memory by."""

Net = TypeVar("Net", bound=nn.Module)

_ARCHITECTURES: dict[str, Callable[..., Generator]] = {
    "mobile": MobileGenerator,
    "stylegan2": StyleGAN2Generator,
}


def load_base_generator(path: str | Path | None = None) -> Generator:
    """G, frozen, in eval mode, float32; its ``source`` says which, where it is not the bundled one.

    Args:
        path: its file, or the folder of an import; the bundled FFHQ 1024 px model when None.

    Raises:
        CheckpointError: the file is damaged or of another architecture.
    """
    is_given = path is not None
    path = bundled(BASE_FILE) if path is None else Path(path)
    if path.is_dir():
        refuse_pickles(path)
        path = path / GENERATOR_FILE
    metadata, tensors = read_metadata(path), read_tensors(path)
    architecture = _architecture(metadata.get("architecture", ""), path)
    generator = _made(architecture, _parsed_config(metadata, path), tensors, path)
    load_strict(generator, tensors, path=path)
    if is_given and (sha256 := file_sha256(path)) != base_sha256():
        generator.source = Source(path, sha256)
    return generator.eval().requires_grad_(False)


@dataclass(frozen=True, slots=True)
class Style:
    """A style's networks.

    Attributes:
        config: what it is.
        generator: G'.
        base: G.
        encoder: E_w.
        others: its own encoders into other spaces.
    """

    config: StyleConfig
    generator: Generator
    base: Generator
    encoder: AnyEncoder
    others: tuple[AnyEncoder, ...] = ()


def load_style(folder: str | Path) -> Style:
    """The networks of a style's folder, or of one that ``facestyle import`` made.

    An imported generator is G and G' in one. The encoder is its own, where a code of W can be had of it, else the
    bundled one, if the generator shares its W, as StyleGAN2 trained on FFHQ does. Its codes are truncated no more than
    those of the bundled styles. Own encoders into other spaces that do not fit are left out, with a warning.

    Raises:
        CheckpointError: a file is damaged, the style was made from another base generator, or no encoder goes with an
            imported one; the message says how to make one.
    """
    from facestyle.models.bases import encoder_for, fitting_encoders

    folder = Path(folder)
    if not is_import(folder):
        config = StyleConfig.from_file(folder / "config.json")
        base = load_style_base(folder)
        own = None if config.encoder == "base" else folder / config.encoder
        generator = load_style_generator(folder, base)
        # The generator has its shares of everything by now; saved again, they must not be taken twice.
        plain: dict[str, Any] = dict(ADJUSTMENTS)
        return Style(replace(config, **plain), generator, base, load_encoder(own))
    base = load_base_generator(folder)
    own_files = own_encoders(folder)
    config = StyleConfig(
        name=re.sub(r"[^a-z0-9._-]+", "-", f"imported-{folder.resolve().name.lower()}")[:64],
        title=folder.resolve().name,
        description="An imported generator.",
        architecture=base.architecture,
        generator=base.config(),
        base_sha256=sha256_of(base),
        psi=1.0,
        encoder=OWN_ENCODER if "w" in own_files else "base",
    )
    encoder = encoder_for(base, "w", own_files.pop("w", None))
    return Style(config, base, base, encoder, fitting_encoders(base, own_files))


def is_import(folder: Path) -> bool:
    """Whether ``facestyle import`` made the folder."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("format") == "facestyle-import"


def own_encoders(folder: Path) -> dict[Space, Path]:
    """Files of the encoders in a folder by the space they lead into: `OWN_ENCODER`, or those of `ENCODER_FILES`.

    e4e's encoder leads into two spaces. A file that is named by its space goes before `OWN_ENCODER`.

    Raises:
        CheckpointError: a file is damaged, or of another program.
    """
    found: dict[Space, Path] = {}
    path = folder / OWN_ENCODER
    if path.is_file():
        metadata = read_metadata(path)
        config = _parsed_config(metadata, path)
        usual: Space = "w_plus" if metadata.get("architecture") == "psp" else "w"
        found = {config.get("space", usual): path}
        if config.get("deltas") is True:
            found["w"] = path
    named = {space: folder / name for space, name in ENCODER_FILES.items()}
    return found | {space: file for space, file in named.items() if file.is_file()}


def load_style_base(folder: str | Path) -> Generator:
    """G of a style's folder: the one that lies in it as `OWN_BASE`, else the bundled one.

    Raises:
        CheckpointError: the style was made from a generator that is neither, or its file is damaged.
    """
    folder = Path(folder)
    config = StyleConfig.from_file(folder / "config.json")
    if config.base_sha256 == base_sha256():
        return load_base_generator()
    path = folder / OWN_BASE
    if not path.is_file():
        raise CheckpointError(
            f"names another base generator than the one this facestyle carries, and there is no {OWN_BASE} beside it; "
            "ask who made the style for that file",
            path=folder / "config.json",
        )
    base = load_base_generator(path)
    if sha256_of(base) != config.base_sha256:
        raise CheckpointError(
            "is not the base generator that config.json names; copy or download it again", path=path
        )
    return base


def load_style_generator(
    folder: str | Path, base: Generator, config: StyleConfig | None = None
) -> Generator:
    """G' of a style's folder: its own synthesis network on the mapping network of ``base``.

    ``config.share``, the map of codes (``config.likeness``) and the change of kernels (``config.hair``) that lie there
    are worked into it; then shapes go back as far as ``config.keep_shape``.

    Args:
        folder: the style's.
        base: G.
        config: in place of the folder's ``config.json``.

    Raises:
        CheckpointError: a file is damaged, or the style was made from another base generator.
    """
    folder = Path(folder)
    config = config or StyleConfig.from_file(folder / "config.json")
    path = folder / GENERATOR_FILE
    refuse_pickles(folder)
    _check_header(read_metadata(path), config, path)
    if config.base_sha256 != sha256_of(base):
        carried = "the one this facestyle carries" if base.source is None else str(base.source.path)
        raise CheckpointError(
            f"was finetuned from another base generator than {carried}", path=path
        )
    tensors = read_style_tensors(path, base.synthesis)
    whole = tensors | {f"mapping.{name}": w for name, w in base.mapping.state_dict().items()}
    origin = folder / "config.json"
    generator = _made(_architecture(config.architecture, origin), config.generator, whole, origin)
    load_strict(generator.synthesis, tensors, path=path)
    synthesis = generator.synthesis
    if config.share != 1:
        synthesis.load_state_dict(weights_between(base.synthesis, synthesis, config.share))
    if config.likeness:
        LatentMap.from_file(folder / LIKENESS_FILE).work_into(synthesis, config.likeness)
    if config.hair:
        KernelChange.from_file(folder / HAIR_FILE).work_into(synthesis, config.hair)
    if config.keep_shape:
        kept = weights_between(base.synthesis, synthesis, 1.0, keep_shape=config.keep_shape)
        synthesis.load_state_dict(kept)
    if config.adjusts:
        synthesis.half().float()  # as a file would store them
    generator.mapping = base.mapping
    return generator.eval().requires_grad_(False)


def read_style_tensors(path: str | Path, base: nn.Module) -> dict[str, Tensor]:
    """Tensors of a style's synthesis network; those that its file leaves out are G's.

    Training may leave whole blocks as they were. `hub.package.write_style` then does not store them, and the file's
    header says ``rest: base``.

    Args:
        path: the style's ``generator.safetensors``, or a snapshot of its training.
        base: G's synthesis network.

    Raises:
        CheckpointError: the file is damaged.
    """
    tensors = read_tensors(path)
    if read_metadata(path).get(REST) == "base":
        return base.state_dict() | tensors
    return tensors


def load_encoder(path: str | Path | None = None, *, space: Space = "w") -> AnyEncoder:
    """The encoder into a space, frozen, in eval mode, float32.

    Args:
        path: its file, or the folder of an import; the bundled one when None.
        space: of the codes. Of e4e's encoder the code of W alone may be asked for, too.

    Raises:
        CheckpointError: the file is damaged, of another architecture, or an encoder into another space.
    """
    is_bundled = path is None
    path = bundled(ENCODER_FILES[space]) if path is None else Path(path)
    if path.is_dir():
        path = path / OWN_ENCODER
    metadata, tensors = read_metadata(path), read_tensors(path)
    config = _parsed_config(metadata, path)
    is_psp = metadata.get("architecture") == "psp"
    if is_psp and space == "w" and config.get("deltas") is True:
        config, tensors = first_row(config, tensors)
    encoder: AnyEncoder = (
        _made(PspEncoder, config, tensors, path)
        if is_psp
        else _made(Encoder, config, tensors, path)
    )
    if encoder.space != space:
        raise CheckpointError(
            f"is an encoder into {encoder.space}, and one into {space} was asked for", path=path
        )
    load_strict(encoder, tensors, path=path)
    if isinstance(encoder, Encoder):
        encoder.is_bundled = is_bundled
    return encoder.eval().requires_grad_(False)


def load_discriminator(path: str | Path) -> StyleGAN2Critic:
    """StyleGAN2's discriminator, float32, to go on training with.

    Args:
        path: its file, or the folder of an import.

    Raises:
        CheckpointError: the file is absent, damaged or of another architecture.
    """
    path = Path(path)
    if path.is_dir():
        path = path / DISCRIMINATOR_FILE
    tensors = read_tensors(path)
    net = _made(StyleGAN2Critic, _parsed_config(read_metadata(path), path), tensors, path)
    load_strict(net, tensors, path=path)
    return net


def refuse_pickles(folder: str | Path, names: Iterable[str] | None = None) -> None:
    """Say so where a style's weights are there as a pickle alone, which may run anything when opened.

    Args:
        folder: of the style, or its repository's name.
        names: of the files that are there; those in the folder when None.

    Raises:
        CheckpointError: there is no `GENERATOR_FILE`; the message names the pickles.
    """
    if names is None:
        names = [path.name for path in Path(folder).iterdir() if path.is_file()]
    names = list(names)
    if GENERATOR_FILE in names:
        return
    if pickles := [name for name in names if Path(name).suffix.lower() in _PICKLES]:
        raise CheckpointError(
            f"holds {', '.join(sorted(pickles)[:3])}, which may run anything when opened, so facestyle never does; ask "
            f"for {GENERATOR_FILE}",
            path=folder,
            unexpected=sorted(pickles),
        )
    raise CheckpointError(f"holds no {GENERATOR_FILE}, so it is no whole style", path=folder)


def _check_header(metadata: dict[str, str], config: StyleConfig, path: Path) -> None:
    """The generator file must say that it is of this style and base."""
    version = metadata.get("version", "")[:9]  # int refuses thousands of digits
    if version.isdecimal() and int(version) > VERSION:
        raise CheckpointError(
            f"has format version {version}, this facestyle reads up to {VERSION}; update facestyle",
            path=path,
        )
    for key, wanted in (
        ("format", config.format),
        ("style", config.name),
        ("base_sha256", config.base_sha256),
    ):
        if metadata.get(key) != wanted:
            raise CheckpointError(
                f"says {key} {metadata.get(key)!r} in its header, and config.json says {wanted!r}; the two files "
                "are not of one style",
                path=path,
            )


@functools.cache
def base_sha256() -> str:
    """Sha256 of the bundled base generator's file, which every style names."""
    return file_sha256(bundled(BASE_FILE))


def sha256_of(generator: Generator) -> str:
    """Sha256 of the base generator's file: the bundled one's, where it was not loaded from another."""
    return base_sha256() if generator.source is None else generator.source.sha256


def _parsed_config(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    try:
        config = json.loads(metadata["config"])
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(
            "has no facestyle config in its header; it is another program's file", path=path
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError("has a damaged config in its header", path=path)
    return config


def _architecture(name: str, path: Path) -> Callable[..., Generator]:
    if name not in list(_ARCHITECTURES):  # it may be anything that JSON holds
        raise CheckpointError(
            f"asks for architecture {name!r}; this facestyle knows {sorted(_ARCHITECTURES)}",
            path=path,
        )
    return _ARCHITECTURES[name]


def _made(
    kind: Callable[..., Net], config: dict[str, Any], tensors: Mapping[str, Tensor], path: Path
) -> Net:
    """The network that a config describes, for `load_strict` to fill.

    Args:
        kind: of the network.
        config: arguments of its constructor.
        tensors: its weights; much more memory than they have is not taken.
        path: file of the config.

    Raises:
        CheckpointError: there is no such network, or it is far larger than its weights.
    """
    what = kind.__name__
    try:
        counts = [number for name in _COUNTS for number in _numbers(dict(config).get(name))]
        if any(count > _MOST for count in counts):
            raise ValueError(f"{max(counts):,} layers, where {_MOST} are the most")
        with _Bounded(sum(tensor.numel() for tensor in tensors.values())):
            return kind(**config)
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError) as error:
        if ran_out(error):
            raise
        raise CheckpointError(f"describes no {what} ({str(error)[:200]})", path=path) from error


def _numbers(value: Any) -> list[float]:
    """The numbers in a number or a list."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, int | float)]


class _Bounded(unfilled):
    """Context in which new modules skip filling their weights, and may not be far larger than the ones they get.

    Args:
        count: numbers in the weights.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = 4 * count + (1 << 20)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run ``func``, or refuse to where it would take too much."""
        if func in _MAKERS:
            shape = args[0] if args and isinstance(args[0], tuple | list) else args
            self.left -= math.prod(shape)
            if self.left < 0:
                raise ValueError(
                    f"its layers are far larger than its weights, such as {list(shape)}"
                )
        return super().__torch_function__(func, types, args, kwargs)
