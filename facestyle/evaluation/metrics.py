"""How near a generator's portraits come to a style, and how much of the person they keep.

=================== ==================================================================== =============
entry               what it is                                                           better
=================== ==================================================================== =============
fid, kid_x1000      distance of the portraits, as a set, to the style set, in Inception  lower
cmmd                the same in CLIP                                                     lower
lpips               mean LPIPS (AlexNet) of each portrait to its source                  lower
perceptual          the same by a network that is always to be had; not LPIPS            lower
identity_distance   mean 1 - cosine of each portrait to its source                       lower
identity_spread     mean 1 - cosine of two portraits: do all begin to look alike?        as the sources
hair_color          change of colours around the forehead, see ``evaluation.hair``       near 0
by_skin             change of skin tone, and identity distance, by the source's skin     near 0
by_appearance       change of apparent gender and age, and the same, of women and men    near 0
=================== ==================================================================== =============

With G(w) as sources, lpips (or perceptual) is the paper's semantic distance between G and G'. An entry is a dict with
"value", the numbers of pictures "n" and "n_style", and "by", the network; or "value" None and "why".
"""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from facestyle.bench import machine
from facestyle.errors import ConfigError, DownloadError, ImageError
from facestyle.evaluation.appearance import AppearanceJudge, appearance_by_group, load_appearance
from facestyle.evaluation.cmmd import cmmd, load_clip
from facestyle.evaluation.features import FeatureNet, Pictures, as_rgb, set_features
from facestyle.evaluation.hair import HairDrift, hair_drift
from facestyle.evaluation.inception import load_inception
from facestyle.evaluation.judges import IdentityJudge, load_judge
from facestyle.evaluation.kid import fid, kid
from facestyle.evaluation.people import People, pil_pictures, to_levels
from facestyle.evaluation.perceptual import PerceptualDistance, load_perceptual
from facestyle.evaluation.skin import THREE_GROUPS, SkinDrift, drift_by_group, skin_drift
from facestyle.files import write_whole
from facestyle.image import to_tensor
from facestyle.models.generator import Generator

__all__ = [
    "MEASURES",
    "QUICK",
    "StyleJudge",
    "portrait_metrics",
    "read_metrics",
    "save_metrics",
    "style_metrics",
]

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Entry = dict[str, Any]
_Net = TypeVar("_Net")

SET_MEASURES = ("fid", "kid", "cmmd")
PAIR_MEASURES = ("lpips", "perceptual", "identity", "hair", "skin", "appearance")
MEASURES = (*SET_MEASURES, *PAIR_MEASURES)
"""All there is to measure."""

QUICK = ("kid", "perceptual", "identity")
"""Enough to compare the checkpoints of a run, from weights that are small."""

BATCH = 4
_PERCEPTUAL = {"lpips": "lpips-alex", "perceptual": "hed-vgg16"}


class StyleJudge:
    """The networks that judge, and the style set's features: made once, used for many generators.

    Args:
        style: the style set's features by "inception" and "clip".
        inception: gives features for FID and KID.
        clip: gives features for CMMD.
        distances: by "lpips" and "perceptual".
        identity: no network of the training.
        appearance: likewise, says gender and age.
        measures: what is measured, of :data:`MEASURES`.
        missing: what of it cannot be, and why: "inception", "clip", "lpips", "perceptual", "identity" or "appearance"
            to a sentence.

    Attributes:
        measures: as given.
        missing: as given.
    """

    def __init__(
        self,
        style: Mapping[str, Array],
        *,
        inception: FeatureNet | None = None,
        clip: FeatureNet | None = None,
        distances: Mapping[str, PerceptualDistance] | None = None,
        identity: IdentityJudge | None = None,
        appearance: AppearanceJudge | None = None,
        measures: Sequence[str] = MEASURES,
        missing: Mapping[str, str] | None = None,
    ) -> None:
        self.measures = _checked(measures)
        self.missing = dict(missing or {})
        self._style = dict(style)
        self._sets = {key: net for key, net in (("inception", inception), ("clip", clip)) if net}
        self._distances = dict(distances or {})
        self._identity = identity
        self._appearance = appearance

    @property
    def identity_name(self) -> str | None:
        """Of the identity network; None where there is none."""
        return None if self._identity is None else self._identity.name

    @classmethod
    def load(
        cls,
        pictures: Pictures,
        *,
        measures: Sequence[str] = MEASURES,
        judge_name: str = "auto",
        cache: str | Path | None = None,
        device: str | torch.device = "cpu",
        allow_download: bool = False,
    ) -> StyleJudge:
        """The judge of a style set, its networks loaded and its features computed.

        A network that cannot be had leaves its entries without a value and with the reason.

        Args:
            pictures: the style set: a folder or zip, several, or pictures.
            measures: of :data:`MEASURES`; :data:`QUICK` while training.
            judge_name: identity network, see ``load_judge``; one asked for by name must be there.
            cache: safetensors file that keeps the style set's features from one run to the next.
            device: where networks run.
            allow_download: fetch CLIP, 1.7 GB, for "cmmd". The others, 5 to 110 MB each, are fetched when needed.

        Raises:
            ConfigError: unknown measures or judge.
            DownloadError: the judge asked for by name could not be had.
            DatasetError: the pictures cannot be used.
            CheckpointError: cached weights are damaged.
            OutputError: a cache cannot be written.
        """
        measures = _checked(measures)
        missing: dict[str, str] = {}

        def attempt(key: str, load: Callable[[], _Net]) -> _Net | None:
            try:
                return load()
            except (ConfigError, DownloadError) as error:
                log.info("%s is not available: %s", key, error)
                missing[key] = str(error)
                return None

        identity = appearance = inception = clip = None
        if "identity" in measures:
            if judge_name != "auto":
                identity = load_judge(judge_name, device)
            else:
                identity = attempt("identity", lambda: load_judge("auto", device))
        if "appearance" in measures:
            appearance = attempt("appearance", lambda: load_appearance(device))
        if {"fid", "kid"} & set(measures):
            inception = attempt("inception", lambda: load_inception(device))
        if "cmmd" in measures:
            clip = attempt("clip", lambda: load_clip(device, allow_download=allow_download))
        distances = {}
        for key, network in _PERCEPTUAL.items():
            if key in measures:
                found = attempt(key, lambda network=network: load_perceptual(network, device))  # type: ignore[misc]
                if found is not None:
                    distances[key] = found
        networks = cls(
            {},
            inception=inception,
            clip=clip,
            distances=distances,
            identity=identity,
            appearance=appearance,
            measures=measures,
            missing=missing,
        )
        return networks.of_style(pictures, cache=cache)

    def of_style(self, pictures: Pictures, *, cache: str | Path | None = None) -> StyleJudge:
        """The judge of another style set, with the same networks; what could not be had is not asked for again.

        Args:
            pictures: the style set.
            cache: see :meth:`load`.

        Raises:
            DatasetError: the pictures cannot be used.
            OutputError: the cache cannot be written.
        """
        other = copy.copy(self)
        other._style = set_features(pictures, self._sets, cache)
        return other

    def score(
        self,
        pictures: Tensor | Sequence[Image.Image],
        sources: Tensor | Sequence[Image.Image] | None = None,
        *,
        measures: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Entries for portraits, and for what they were made from.

        Pictures are rounded to 8 bits first, as they would be saved.

        Args:
            pictures: the portraits: [N, 3, S, S] RGB, floats in [-1, 1] or uint8, or N PIL squares.
            sources: as many, in the same order, of what each should still be: the photos, or G's pictures; None
                leaves the entries of pairs without a value.
            measures: fewer than the judge's own.

        Returns:
            The entries of the table above that were asked for.

        Raises:
            ImageError: other shapes, NaN, or fewer than 128 px where identity is asked for.
            ConfigError: no pictures, not as many sources, or a measure the judge has not.
        """
        wanted = self.measures if measures is None else _checked(measures)
        if unknown := set(wanted) - set(self.measures):
            raise ConfigError(
                f"this judge was made without {', '.join(sorted(unknown))}; it has {', '.join(self.measures)}"
            )
        if len(pictures) == 0 or (sources is not None and len(sources) != len(pictures)):
            raise ConfigError(
                f"expected 1 picture or more and as many sources, got {len(pictures)} and "
                f"{'none' if sources is None else len(sources)}"
            )
        entries: dict[str, Any] = {}
        if {"fid", "kid", "cmmd"} & set(wanted):
            entries |= self._set_entries(pictures, wanted)
        if set(PAIR_MEASURES) & set(wanted):
            entries |= self._pair_entries(pictures, sources, wanted)
        return entries

    def score_generator(self, generator: Generator, people: People) -> dict[str, Any]:
        """Entries of G' for people drawn by G: see :meth:`score_portraits`."""
        return self.score_portraits(people.drawn_by(generator), people)

    def score_portraits(self, portraits: Tensor, people: People) -> dict[str, Any]:
        """Entries beside G(w), "who" was drawn, and "to_photo": entries beside the photos, where there are some.

        Args:
            portraits: of all the people, see ``People.drawn_by``.
            people: drawn by G.
        """
        scores = {"who": people.who, **self.score(portraits, people.sources)}
        pairs = [name for name in PAIR_MEASURES if name in self.measures]
        if people.photos is not None and pairs:
            scores["to_photo"] = self.score(portraits, people.photos, measures=pairs)
        return scores

    def _set_entries(
        self, pictures: Tensor | Sequence[Image.Image], wanted: Sequence[str]
    ) -> dict[str, Any]:
        n = len(pictures)
        entries: dict[str, Any] = {}

        def entry(key: str, needed: int, measure: Callable[[Array, Array], Entry]) -> Entry:
            if key not in self._sets:
                return _nothing(self.missing.get(key, f"no {key} network was given"))
            style = self._style[key]
            if min(n, len(style)) < needed:
                return _nothing(
                    f"needs {needed} pictures or more in both sets, got {n} and {len(style)}"
                )
            if key not in found:
                found[key] = self._sets[key](_each(pictures))
            facts = {"n": n, "n_style": len(style), "by": self._sets[key].name}
            return {**measure(found[key], style), **facts}

        found: dict[str, Array] = {}
        if "fid" in wanted:
            entries["fid"] = entry("inception", 2, lambda a, b: {"value": fid(a, b).value})
        if "kid" in wanted:
            entries["kid_x1000"] = entry("inception", 2, _kid_entry)
        if "cmmd" in wanted:
            entries["cmmd"] = entry("clip", 1, lambda a, b: {"value": cmmd(a, b).value})
        return entries

    def _pair_entries(
        self,
        pictures: Tensor | Sequence[Image.Image],
        sources: Tensor | Sequence[Image.Image] | None,
        wanted: Sequence[str],
    ) -> dict[str, Any]:
        names = {
            "identity": "identity_distance", "hair": "hair_color", "skin": "by_skin",
            "appearance": "by_appearance",
        }  # fmt: skip
        if sources is None:
            why = "there is nothing to compare the pictures with"
            return {names.get(m, m): _nothing(why) for m in PAIR_MEASURES if m in wanted}
        n = len(pictures)
        distances: dict[str, list[float]] = {m: [] for m in wanted if m in self._distances}
        drifts: list[SkinDrift] = []
        hair: list[HairDrift] = []
        who: list[list[Tensor]] = [[], []]
        looks: list[list[Tensor]] = [[], []]
        for start in range(0, n, BATCH):
            a, b = (_floats(x[start : start + BATCH]) for x in (pictures, sources))
            for name, values in distances.items():
                values += self._distances[name](a, b).tolist()
            if "identity" in wanted and self._identity is not None:
                for side, img in zip(who, (a, b), strict=True):
                    side.append(self._identity.embed(img).cpu())
            if "appearance" in wanted and self._appearance is not None:
                for side, img in zip(looks, (a, b), strict=True):
                    side.append(self._appearance.look(img).cpu())
            if "hair" in wanted:
                hair += map(hair_drift, _each(sources[start : start + BATCH]),
                            _each(pictures[start : start + BATCH]))  # fmt: skip
            if "skin" in wanted:
                drifts += map(skin_drift, _each(sources[start : start + BATCH]),
                              _each(pictures[start : start + BATCH]))  # fmt: skip
        entries: dict[str, Any] = {}
        for name in _PERCEPTUAL:
            if name in distances:
                value = float(np.mean(distances[name]))
                entries[name] = {"value": value, "n": n, "by": self._distances[name].name}
            elif name in wanted:
                entries[name] = _nothing(self.missing.get(name, f"no {name} network was given"))
        apart: list[float] | None = None
        if "identity" in wanted and self._identity is None:
            why = self.missing.get("identity", "no identity network was given")
            entries |= dict.fromkeys(("identity_distance", "identity_spread"), _nothing(why))
        elif "identity" in wanted:
            assert self._identity is not None
            portraits, originals = (torch.cat(side) for side in who)
            apart = (1 - (portraits * originals).sum(1)).tolist()
            entries |= _identity_entries(self._identity, apart, portraits, originals)
        if "hair" in wanted:
            entries["hair_color"] = {
                "value": float(np.mean([drift.delta_e for drift in hair])),
                "delta_l": float(np.mean([drift.delta_l for drift in hair])),
                "n": n,
                "by": "CIE76 around the forehead",
            }
        if "skin" in wanted:
            entries["by_skin"] = _skin_entry(drifts, apart)
        if "appearance" in wanted and self._appearance is None:
            why = self.missing.get("appearance", "no network for it was given")
            entries["by_appearance"] = _nothing(why)
        elif "appearance" in wanted:
            after, before = (torch.cat(side) for side in looks)
            entries["by_appearance"] = appearance_by_group(before, after, apart)
        return entries


def style_metrics(
    judge: StyleJudge,
    generator: Generator,
    people: Mapping[str, People],
    *,
    style: str,
    variant: str = "",
    with_plain: bool = False,
    portraits: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """The metrics of one generator, as they are saved in ``metrics.json``.

    Args:
        judge: of the style set.
        generator: G'.
        people: groups to measure it on: "samples" (see ``sample_people``), and "photos" (``encode_people``) if wanted.
        style: its name.
        variant: how it was trained, for a table of several.
        with_plain: also "plain", the set distances of G's own samples, for scale.
        portraits: groups that G' has drawn already, see ``People.drawn_by``.

    Returns:
        "format", "version", "style", "variant", "machine", "date", "seconds" by stage, and the groups: their entries
        under the groups' names.
    """
    metrics = _header(judge, style, variant)
    seconds: dict[str, float] = {}
    for name, group in people.items():
        start = time.perf_counter()
        drawn = (portraits or {}).get(name)
        drawn = group.drawn_by(generator) if drawn is None else drawn
        metrics[name] = judge.score_portraits(drawn, group)
        seconds[name] = round(time.perf_counter() - start, 1)
    sets = [name for name in SET_MEASURES if name in judge.measures]
    if with_plain and sets and "samples" in people:
        start = time.perf_counter()
        metrics["plain"] = judge.score(people["samples"].sources, measures=sets)
        seconds["plain"] = round(time.perf_counter() - start, 1)
    return {**metrics, "seconds": seconds}


def portrait_metrics(
    judge: StyleJudge, portraits: Tensor, photos: Tensor, *, style: str, variant: str, who: str
) -> dict[str, Any]:
    """The metrics of a method's portraits beside the photos they were made from, likewise: the group "photos".

    Args:
        judge: of the style set.
        portraits: uint8 [N, 3, S, S].
        photos: the same people's, likewise.
        style: its name.
        variant: the method.
        who: the photos in words.
    """
    scores = {"who": who, **judge.score(portraits, photos)}
    return {**_header(judge, style, variant), "photos": scores}


def save_metrics(metrics: Mapping[str, Any], path: str | Path) -> Path:
    """The path, once it holds the metrics as JSON.

    Raises:
        OutputError: it cannot be written.
    """
    text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
    return write_whole(text.encode(), Path(path))


def read_metrics(path: str | Path) -> dict[str, Any]:
    """Metrics that :func:`save_metrics` wrote.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    try:
        metrics = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as metrics ({error})") from error
    if not isinstance(metrics, dict) or metrics.get("format") != "facestyle-metrics":
        raise ConfigError(f"{path} holds no metrics of facestyle evaluate")
    return metrics


def _header(judge: StyleJudge, style: str, variant: str) -> dict[str, Any]:
    return {
        "format": "facestyle-metrics",
        "version": 1,
        "style": style,
        "variant": variant,
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "missing": judge.missing,
    }


def _checked(measures: Sequence[str]) -> tuple[str, ...]:
    if not measures or set(measures) - set(MEASURES):
        raise ConfigError(
            f"expected measures of {', '.join(MEASURES)}, got {', '.join(measures) or 'none'}"
        )
    return tuple(name for name in MEASURES if name in measures)


def _nothing(why: str) -> Entry:
    return {"value": None, "why": why}


def _kid_entry(a: Array, b: Array) -> Entry:
    result = kid(a, b)
    std = None if result.std is None else 1000 * result.std
    return {"value": 1000 * result.mean, "std": std, "block_size": result.block_size}


def _identity_entries(
    judge: IdentityJudge, apart: Sequence[float], portraits: Tensor, originals: Tensor
) -> dict[str, Entry]:
    n = len(apart)
    scale = {
        name: None if cosine is None else round(1 - cosine, 3)
        for name, cosine in (("same", judge.same), ("different", judge.different))
    }
    entries = {
        "identity_distance": {"value": float(np.mean(apart)), "n": n, "by": judge.name, **scale}
    }
    if n < 2:
        entries["identity_spread"] = _nothing("needs 2 pictures or more, got 1")
        return entries
    spread = [
        1 - (float((x @ x.T).sum()) - float(x.square().sum())) / (n * (n - 1))
        for x in (portraits.double(), originals.double())
    ]
    facts = {"value": spread[0], "of_sources": spread[1], "n": n, "by": judge.name}
    return {**entries, "identity_spread": facts}


def _skin_entry(
    drifts: Sequence[SkinDrift], apart: Sequence[float] | None
) -> dict[str, dict[str, float]]:
    table = drift_by_group(drifts, THREE_GROUPS)
    if apart is not None:
        for name, row in table.items():
            keys = THREE_GROUPS.get(name)
            members = [
                distance
                for drift, distance in zip(drifts, apart, strict=True)
                if keys is None or drift.before.group in keys
            ]
            row["identity_distance"] = float(np.mean(members))
    return table


def _floats(pictures: Tensor | Sequence[Image.Image]) -> Tensor:
    """[B, 3, H, W] in [-1, 1], of 8-bit levels.

    Raises:
        ImageError: the pictures differ in size, or are none.
    """
    if isinstance(pictures, Tensor):
        return _levels(pictures).float().div(127.5).sub(1)
    if len({image.size for image in pictures}) > 1:
        sizes = sorted({f"{image.width}x{image.height}" for image in pictures})
        raise ImageError(f"expected pictures of one size, got {', '.join(sizes[:3])}; resize them")
    return torch.cat([to_tensor(image) for image in pictures])


def _each(pictures: Tensor | Sequence[Image.Image]) -> Iterator[Image.Image]:
    if not isinstance(pictures, Tensor):
        yield from map(as_rgb, pictures)
        return
    for start in range(0, len(pictures), BATCH):
        yield from pil_pictures(_levels(pictures[start : start + BATCH]))


def _levels(pictures: Tensor) -> Tensor:
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ImageError(f"expected pictures [N, 3, H, W], got {list(pictures.shape)}")
    return pictures.cpu() if pictures.dtype == torch.uint8 else to_levels(pictures)
