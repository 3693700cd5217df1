"""Every method by its name, from the command line's options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from facestyle.baselines.base import Baseline, PictureSources
from facestyle.baselines.diffusion import OFFICIAL_MODEL, LatentDiffusion
from facestyle.baselines.diffusion_method import DiffusionBaseline
from facestyle.baselines.dualstylegan import DualStyle, DualStyleConfig
from facestyle.baselines.inst import Inst, InstConfig
from facestyle.baselines.ntc import Ntc, NtcConfig
from facestyle.baselines.star import DEFAULT_STAR
from facestyle.baselines.styleid import StyleId, StyleIdConfig
from facestyle.baselines.toonify import Toonify, ToonifyConfig
from facestyle.baselines.ugatit import Ugatit
from facestyle.baselines.ugatit_training import UgatitConfig
from facestyle.baselines.ui2i import Ui2i, Ui2iConfig
from facestyle.errors import ConfigError
from facestyle.models.generator import Generator
from facestyle.models.zoo import load_base_generator
from facestyle.runtime import choose_device

__all__ = [
    "DIFFUSION",
    "DiffusionModel",
    "check_draw_settings",
    "check_train_settings",
    "make_baseline",
    "stylize_config",
    "train_config",
]

DIFFUSION: dict[str, type[DiffusionBaseline[Any]]] = {"ntc": Ntc, "inst": Inst, "styleid": StyleId}
"""Methods that draw with a Stable Diffusion."""

_STYLIZE: dict[str, Callable[[], Any]] = {
    "dualstylegan": DualStyleConfig, "toonify": ToonifyConfig, "ui2i": Ui2iConfig,
    "inst": InstConfig, "ntc": NtcConfig, "styleid": StyleIdConfig,
}  # fmt: skip

_LEARNED_BY = {
    "inst": ("training.", "official_quirks"),
    "styleid": ("steps", "inversion", "official_quirks", "seed"),
}
"""How settings begin by which a style picture is learned; `_key` of the methods has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionModel:
    """The Stable Diffusion that methods draw with; see `LatentDiffusion.from_pretrained`.

    Attributes:
        model: a Hub repository, or a folder that diffusers saved.
        dtype: of its networks; "auto" is float16 on CUDA, else float32.
        memory: "all" or "low".
        revision: branch, tag or commit of a repository; "" is its main branch.
        variant: of the weights' files, such as "fp16"; "" are those without a name of their own.
    """

    model: str = OFFICIAL_MODEL
    dtype: str = "auto"
    memory: str = "all"
    revision: str = ""
    variant: str = ""

    def load(self, device: str | None = None) -> LatentDiffusion:
        """Its networks on a device, the best there is when None; errors of `LatentDiffusion.from_pretrained`."""
        return LatentDiffusion.from_pretrained(
            self.model, device=device, dtype=self.dtype, memory=self.memory,
            revision=self.revision or None, variant=self.variant or None,
        )  # fmt: skip


def stylize_config(name: str) -> Any:
    """Settings that decide how the method makes a picture of a photo; None where it has none.

    Raises:
        ConfigError: there is no such method.
    """
    if name == "ugatit":
        return None
    if name not in _STYLIZE:
        raise ConfigError(
            f"no method {name!r}; there are {', '.join(sorted([*_STYLIZE, 'ugatit']))}"
        )
    return _STYLIZE[name]()


def train_config(name: str) -> Any:
    """Settings that decide how the method is trained; of InST and StyleID they are those of ``stylize_config``.

    Raises:
        ConfigError: it is not trained here.
    """
    if name == "ugatit":
        return UgatitConfig()
    if name in ("toonify", "ui2i"):
        return DEFAULT_STAR
    if name in ("inst", "styleid"):
        return _STYLIZE[name]()
    raise ConfigError(f"{name} is not trained here; import its authors' files")


def check_train_settings(name: str, paths: Iterable[str]) -> None:
    """Refuse settings, such as "training.steps", of which what InST or StyleID learn does not depend.

    Raises:
        ConfigError: there is one among them; the message says where it is read.
    """
    read = _LEARNED_BY.get(name)
    if unread := [p for p in paths if read is not None and not p.startswith(read)]:
        raise ConfigError(
            f"{', '.join(unread)}: {name} does not learn by it; give it to `facestyle baseline stylize` or `compare`"
        )


def check_draw_settings(name: str, paths: Iterable[str]) -> None:
    """Refuse settings of what a method learned before it draws.

    Raises:
        ConfigError: there is one among them.
    """
    if name == "inst" and (unread := [p for p in paths if p.startswith("training.")]):
        raise ConfigError(
            f"{', '.join(unread)}: inst draws with what it learned; give it to `facestyle baseline train inst`"
        )


def make_baseline(
    name: str,
    *,
    stylize: Any = None,
    train: Any = None,
    base: Generator | None = None,
    device: str | None = None,
    faces: PictureSources | None = None,
    minutes: float | None = None,
    model: DiffusionModel | LatentDiffusion | None = None,
) -> Baseline:
    """The method, without a style yet.

    Args:
        name: of the method.
        stylize: its ``stylize_config``, with changes; the defaults when None.
        train: its ``train_config``, likewise.
        base: G; the bundled one when None.
        device: where it runs; the best there is when None.
        faces: photos to train U-GAT-IT on; samples of G when None.
        minutes: of U-GAT-IT's training at most.
        model: what a diffusion method draws with; the official one when None. One that is loaded may serve several.

    Raises:
        ConfigError: there is no such method, or it takes no photos or minutes.
        FacestyleError: a diffusion model cannot be had; see `LatentDiffusion.from_pretrained`.
    """
    stylize = stylize or stylize_config(name)
    if name == "ugatit":
        return Ugatit(train, faces=faces, base=base, minutes=minutes, device=device)
    if faces is not None or minutes is not None:
        raise ConfigError(f"photos and minutes are for ugatit; {name} trains by steps on its own")
    if name in DIFFUSION:
        if not isinstance(model, LatentDiffusion):
            model = (model or DiffusionModel()).load(device)
        return DIFFUSION[name](model, stylize)
    if name == "dualstylegan":
        return DualStyle(stylize, device=device)
    base = (base or load_base_generator()).to(choose_device(device))
    star = train or DEFAULT_STAR
    if name == "toonify":
        return Toonify(base, stylize, star=star)
    return Ui2i(base, stylize, star=star)
