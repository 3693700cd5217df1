"""The measuring instruments: who is it, how different does it look, how far apart are two sets.

Each module stands alone; names are imported when they are first used, so that reading pictures or
laying out a sheet does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facestyle.evaluation.images import iter_images, read_images
    from facestyle.evaluation.inception import InceptionFeatures, load_inception
    from facestyle.evaluation.judges import IdentityJudge, load_judge
    from facestyle.evaluation.kid import FidResult, KidResult, fid, frechet_distance
    from facestyle.evaluation.perceptual import PerceptualDistance, load_perceptual
    from facestyle.evaluation.sheets import before_after, contact_sheet, save_sheet
    from facestyle.evaluation.skin import SkinDrift, SkinTone, drift_by_group, skin_drift, skin_tone

__all__ = [
    "FidResult",
    "IdentityJudge",
    "InceptionFeatures",
    "KidResult",
    "PerceptualDistance",
    "SkinDrift",
    "SkinTone",
    "before_after",
    "contact_sheet",
    "drift_by_group",
    "fid",
    "frechet_distance",
    "iter_images",
    "load_inception",
    "load_judge",
    "load_perceptual",
    "read_images",
    "save_sheet",
    "skin_drift",
    "skin_tone",
]

# kid() itself stays in its module: a name of its own here would hide the module facestyle.evaluation.kid.
_MODULES = {
    "images": ("iter_images", "read_images"),
    "inception": ("InceptionFeatures", "load_inception"),
    "judges": ("IdentityJudge", "load_judge"),
    "kid": ("FidResult", "KidResult", "fid", "frechet_distance"),
    "perceptual": ("PerceptualDistance", "load_perceptual"),
    "sheets": ("before_after", "contact_sheet", "save_sheet"),
    "skin": ("SkinDrift", "SkinTone", "drift_by_group", "skin_drift", "skin_tone"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
