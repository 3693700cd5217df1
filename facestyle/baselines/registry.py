"""Every method by its name, from the command line's options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facestyle.baselines.base import Baseline, PictureSources
from facestyle.baselines.dualstylegan import DualStyle, DualStyleConfig
from facestyle.baselines.star import DEFAULT_STAR
from facestyle.baselines.toonify import Toonify, ToonifyConfig
from facestyle.baselines.ugatit import Ugatit
from facestyle.baselines.ugatit_training import UgatitConfig
from facestyle.baselines.ui2i import Ui2i, Ui2iConfig
from facestyle.errors import ConfigError
from facestyle.models.generator import Generator
from facestyle.models.zoo import load_base_generator
from facestyle.runtime import choose_device

__all__ = ["make_baseline", "stylize_config", "train_config"]

_STYLIZE: dict[str, Callable[[], Any]] = {
    "dualstylegan": DualStyleConfig, "toonify": ToonifyConfig, "ui2i": Ui2iConfig,
}  # fmt: skip


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
    """Settings that decide how the method is trained.

    Raises:
        ConfigError: it is not trained here.
    """
    if name == "ugatit":
        return UgatitConfig()
    if name in ("toonify", "ui2i"):
        return DEFAULT_STAR
    raise ConfigError(f"{name} is not trained here; import its authors' files")


def make_baseline(
    name: str,
    *,
    stylize: Any = None,
    train: Any = None,
    base: Generator | None = None,
    device: str | None = None,
    faces: PictureSources | None = None,
    minutes: float | None = None,
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

    Raises:
        ConfigError: there is no such method, or it takes no photos or minutes.
    """
    stylize = stylize or stylize_config(name)
    if name == "ugatit":
        return Ugatit(train, faces=faces, base=base, minutes=minutes, device=device)
    if faces is not None or minutes is not None:
        raise ConfigError(f"photos and minutes are for ugatit; {name} trains by steps on its own")
    if name == "dualstylegan":
        return DualStyle(stylize, device=device)
    base = (base or load_base_generator()).to(choose_device(device))
    star = train or DEFAULT_STAR
    if name == "toonify":
        return Toonify(base, stylize, star=star)
    return Ui2i(base, stylize, star=star)
