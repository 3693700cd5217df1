"""The measuring instruments: who is it, how different does it look, how far apart are two sets.

Each module stands alone; names are imported when they are first used, so that laying out
a sheet does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facestyle.evaluation.appearance import (
        AppearanceJudge,
        appearance_by_group,
        load_appearance,
    )
    from facestyle.evaluation.cmmd import CmmdResult
    from facestyle.evaluation.features import set_features
    from facestyle.evaluation.inception import InceptionFeatures, load_inception
    from facestyle.evaluation.judges import IdentityJudge, load_judge
    from facestyle.evaluation.kid import FidResult, KidResult, fid, frechet_distance
    from facestyle.evaluation.metrics import (
        StyleJudge,
        read_metrics,
        save_metrics,
        style_metrics,
    )
    from facestyle.evaluation.people import People, encode_people, sample_people
    from facestyle.evaluation.perceptual import PerceptualDistance, load_perceptual
    from facestyle.evaluation.sheets import before_after, contact_sheet, save_sheet
    from facestyle.evaluation.skin import SkinDrift, SkinTone, drift_by_group, skin_drift, skin_tone
    from facestyle.evaluation.tables import comparison_table, metrics_table

__all__ = [
    "AppearanceJudge",
    "CmmdResult",
    "FidResult",
    "IdentityJudge",
    "InceptionFeatures",
    "KidResult",
    "People",
    "PerceptualDistance",
    "SkinDrift",
    "SkinTone",
    "StyleJudge",
    "appearance_by_group",
    "before_after",
    "comparison_table",
    "contact_sheet",
    "drift_by_group",
    "encode_people",
    "fid",
    "frechet_distance",
    "load_appearance",
    "load_inception",
    "load_judge",
    "load_perceptual",
    "metrics_table",
    "read_metrics",
    "sample_people",
    "save_metrics",
    "save_sheet",
    "set_features",
    "skin_drift",
    "skin_tone",
    "style_metrics",
]

# kid() and cmmd() stay in their modules: names of their own here would hide the modules.
_MODULES = {
    "appearance": ("AppearanceJudge", "appearance_by_group", "load_appearance"),
    "cmmd": ("CmmdResult",),
    "features": ("set_features",),
    "inception": ("InceptionFeatures", "load_inception"),
    "judges": ("IdentityJudge", "load_judge"),
    "kid": ("FidResult", "KidResult", "fid", "frechet_distance"),
    "metrics": ("StyleJudge", "read_metrics", "save_metrics", "style_metrics"),
    "people": ("People", "encode_people", "sample_people"),
    "perceptual": ("PerceptualDistance", "load_perceptual"),
    "sheets": ("before_after", "contact_sheet", "save_sheet"),
    "skin": ("SkinDrift", "SkinTone", "drift_by_group", "skin_drift", "skin_tone"),
    "tables": ("comparison_table", "metrics_table"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
