"""Do women stay women, and the young young? How a style moves what a face looks like, by FaceRes's heads.

A narrow style set (old men in oil, young women in ink) draws every portrait towards the people in it. The heads say
what a picture looks like, not what anybody is: groups sort photos, as those of ``evaluation.skin`` do. They are of no
network that training asks, though ``models.appearance_probe`` was fitted to what they say of samples of G. They were
trained on photos; on portraits they are as good as their agreement with the eye.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from facestyle.evaluation.judge_specs import APPEARANCE
from facestyle.evaluation.judges import APPEARANCE_NET, FaceNet, load_net

__all__ = ["ADULT", "GROUPS", "AppearanceJudge", "appearance_by_group", "load_appearance"]

ADULT = 15.0
"""Years from which a face is sorted by gender: children's faces do not show it, and the head guesses."""

GROUPS: dict[str, tuple[float, float]] = {"women": (0.0, 0.4), "men": (0.6, 1.0)}
"""Bounds of the probability of "male" in the photo; adults between them are in "all" alone."""


class AppearanceJudge(FaceNet):
    """Says how old a face looks, and whether it looks like a man's; its network gives [B, 2]."""

    def look(self, img: Tensor) -> Tensor:
        """Probability of "male" in [0, 1], and years in [0, 99]: [B, 2], of pictures as :meth:`outputs` takes them.

        Raises:
            ImageError: not a batch of square colour pictures, or too small.
        """
        return self.outputs(img)


def load_appearance(device: str | torch.device = "cpu") -> AppearanceJudge:
    """The judge, its weights fetched at first use and kept in 14 MB.

    Raises:
        DownloadError: its weights could not be fetched.
        CheckpointError: the cached weights are damaged.
        OutputError: the cache cannot be written.
    """
    net = load_net(APPEARANCE_NET, device)
    return AppearanceJudge(APPEARANCE_NET, net, APPEARANCE.preprocess)


def appearance_by_group(
    before: Tensor, after: Tensor, apart: Sequence[float] | None = None
) -> dict[str, dict[str, float]]:
    """How each group of people changed from their photos to their portraits.

    Args:
        before: [N, 2] of the photos, see :meth:`AppearanceJudge.look`.
        after: [N, 2] of the portraits, in the same order.
        apart: identity distance of each portrait to its photo.

    Returns:
        "women", "men" and "children" of the photos, then "all", each with "n"; "kept", the share whose portraits lie
        on their group's side of 0.5 (not of children and all); "delta_male", mean change of the probability;
        "years", the photos' mean, and "delta_years"; "identity_distance" where given. Groups nobody is in are left
        out; empty for nobody.
    """
    male, years = before.double().cpu().unbind(1)
    male_after, years_after = after.double().cpu().unbind(1)
    adult = years >= ADULT
    chosen = {
        name: adult & (male >= low) & (male <= high) for name, (low, high) in GROUPS.items()
    } | {"children": ~adult, "all": torch.ones_like(adult)}
    kept = {"women": male_after < 0.5, "men": male_after >= 0.5}
    table: dict[str, dict[str, float]] = {}
    for name, who in chosen.items():
        if not who.any():
            continue
        row: dict[str, float] = {"n": int(who.sum())}
        if name in kept:
            row["kept"] = float(kept[name][who].double().mean())
        row["delta_male"] = float((male_after - male)[who].mean())
        row["years"] = float(years[who].mean())
        row["delta_years"] = float((years_after - years)[who].mean())
        if apart is not None:
            row["identity_distance"] = float(torch.tensor(apart, dtype=torch.float64)[who].mean())
        table[name] = row
    return table
