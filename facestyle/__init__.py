"""facestyle: a face photo in, a stylized portrait out.

Nothing heavy is imported until a name is used; importing the package touches no network and no GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "FaceStylizer",
    "FacestyleError",
    "PreparedPhoto",
    "ReferenceCode",
    "StylizeResult",
    "StylizedFace",
    "Variation",
    "Variations",
    "__version__",
    "list_styles",
]

if TYPE_CHECKING:
    from facestyle.errors import FacestyleError
    from facestyle.multimodal import Variation, Variations
    from facestyle.prepared import PreparedPhoto
    from facestyle.reference import ReferenceCode
    from facestyle.results import StylizedFace, StylizeResult
    from facestyle.stylizer import FaceStylizer

_HOME = {
    "FaceStylizer": "facestyle.stylizer",
    "FacestyleError": "facestyle.errors",
    "PreparedPhoto": "facestyle.prepared",
    "ReferenceCode": "facestyle.reference",
    "StylizeResult": "facestyle.results",
    "StylizedFace": "facestyle.results",
    "Variation": "facestyle.multimodal",
    "Variations": "facestyle.multimodal",
}


def list_styles(*, hub: bool = False, token: str | bool | None = None) -> list[str]:
    """Names of styles that ``FaceStylizer.from_pretrained`` takes.

    Args:
        hub: also ask the Hugging Face Hub for repositories tagged "facestyle".
        token: Hub token, to see private ones; the stored one when None.

    Returns:
        The bundled styles, sorted, then "user/name" of those on the Hub, sorted.

    Raises:
        DownloadError: the Hub cannot be asked.
    """
    from facestyle.styles import bundled_styles

    if not hub:
        return bundled_styles()
    from facestyle.hub.download import hub_styles

    return [*bundled_styles(), *hub_styles(token=token)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'facestyle' has no attribute {name!r}")
    import importlib

    from facestyle.tuning import tune_process

    tune_process()  # before torch is there
    return getattr(importlib.import_module(_HOME[name]), name)
