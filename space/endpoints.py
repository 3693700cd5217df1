"""The same over HTTP, for ``gradio_client``, curl and MCP clients: one endpoint for each way of stylizing.

Convention: a new argument goes behind those that are there, so that calls by position stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from facestyle import StylizeResult, Variation
from facestyle.errors import ConfigError, FacestyleError
from facestyle.options import OnNoFace
from space.engine import Engine
from space.outputs import save
from space.panel import visitor_of
from space.photo_input import check_photo, photo_input
from space.stylize_tab import DRAWING
from space.texts import own_words

__all__ = ["build_endpoints"]

_MOST_VARIATIONS = 16


def build_endpoints(engine: Engine) -> None:
    """Add the endpoints; nothing of them is seen on the page."""
    with gr.Column(visible=False):
        photo = photo_input(label="photo: the picture file, any size, faces are found in it")
        reference = photo_input(label="reference: the picture whose look is taken over")
        style = gr.Dropdown(engine.styles, value=engine.styles[0], label="style: name of a style")
        strength = gr.Number(
            1.0, label="strength: 0 the photo drawn anew, 1 the full style, to 2: exaggerated"
        )
        keep_color = gr.Number(0.0, label="keep_color: 0 to 1, share of the photo's own colours")
        keep_texture = gr.Number(
            0.0, label="keep_texture: 0 to 1, share of the natural texture of hair, beard and skin"
        )
        keep_shape = gr.Number(0.0, label="keep_shape: 0 to 1, share of the face's own shapes")
        psi = gr.Number(-1.0, label="psi: truncation, 0 to 1; below 0 the style's own")
        refine = gr.Number(0, precision=0, label="refine: steps of optimisation, at most 60")
        faces = gr.Textbox(
            "all", label='faces: "all", "largest" or numbers like "0,2", largest first'
        )
        portrait = gr.Checkbox(
            False, label="portrait: give the first face's portrait, not the photo"
        )
        level = gr.Number(
            6, precision=0, label="level: first row that follows the style code: 3, 6, 9, 12"
        )
        seed = gr.Number(0, precision=0, label="seed: of the first portrait")
        count = gr.Number(8, precision=0, label=f"count: of portraits, 1 to {_MOST_VARIATIONS}")
        alpha = gr.Number(1.0, label="alpha: 0 to 1, share of the reference")
        strokes = gr.Number(
            0, precision=0, label="seed: any but 0 lays brush strokes and strands of hair elsewhere"
        )
        square = gr.Checkbox(
            False, label="aligned: the photo is cut out already, a square as FFHQ's are"
        )
        photo_square = gr.Checkbox(
            False, label="photo_aligned: the photo is cut out already, a square as FFHQ's are"
        )
        on_no_face = gr.Dropdown(
            ["error", "skip", "center"], value="error",
            label='on_no_face: "skip" gives the photo back, "center" takes its middle',
        )  # fmt: skip
        aligned = gr.Checkbox(False, label="aligned: the reference is a cropped portrait already")
        picture = gr.Image(label="the picture, PNG", format="png", type="filepath")
        pictures = gr.Gallery(label="the portraits, PNG", format="png", type="filepath")
        facts = gr.JSON(label="what it was made with")
        button = gr.Button()

    def looking_for_faces(photo: str, request: gr.Request) -> dict[str, Any]:
        """The faces in a photo, largest first: boxes (left, top, right, bottom) in pixels, and scores."""
        with _as_gradio_errors():
            prepared = engine.prepare(visitor_of(request), photo, engine.styles[0])
        found = [face for face in prepared.faces if face is not None]
        return {
            "size": list(prepared.photo.size),
            "faces": [
                {"box": [round(value, 1) for value in face.box], "score": round(face.score, 4)}
                for face in found
            ],
        }

    def stylize(
        photo: str, style: str, strength: float, keep_color: float, psi: float, refine: int,
        faces: str, portrait: bool, seed: int, aligned: bool, on_no_face: OnNoFace,
        keep_texture: float, keep_shape: float, request: gr.Request,
    ) -> tuple[str, dict[str, Any]]:  # fmt: skip
        """A photo in a style: every face is found, drawn anew and put back into the photo."""
        with _as_gradio_errors():
            result = engine.stylize(
                visitor_of(request), photo, style, refine=_refine(refine), strength=strength,
                keep_color=keep_color, psi=psi if psi >= 0 else None, faces=_faces(faces), seed=int(seed),
                aligned=aligned, on_no_face=on_no_face, keep_texture=keep_texture, keep_shape=keep_shape,
            )  # fmt: skip
            return _picture(result, style, portrait), _facts(result)

    def variations(
        photo: str, style: str, level: int, seed: int, count: int, strength: float, keep_color: float,
        faces: str, refine: int, aligned: bool, on_no_face: OnNoFace, keep_texture: float, keep_shape: float,
        request: gr.Request,
    ) -> tuple[list[str], dict[str, Any]]:  # fmt: skip
        """Portraits of one photo that differ in hair, clothes or colours; one seed each, counted up."""
        with _as_gradio_errors():
            if not 1 <= count <= _MOST_VARIATIONS:
                raise ConfigError(f"count must be 1 to {_MOST_VARIATIONS}, got {count}")
            chosen = _faces(faces)
            made = engine.variations(
                visitor_of(request), photo, style, int(count), refine=_refine(refine),
                mixing_level=int(level), seed=int(seed), strength=strength, keep_color=keep_color,
                faces="largest" if chosen == "all" else chosen, aligned=aligned, on_no_face=on_no_face,
                keep_texture=keep_texture, keep_shape=keep_shape,
            )  # fmt: skip
            return [_picture(one, style, True) for one in made], _facts(made[0])

    def like_a_reference(
        photo: str, reference: str, style: str, level: int, alpha: float, strength: float, keep_color: float,
        faces: str, portrait: bool, aligned: bool, refine: int, photo_aligned: bool, on_no_face: OnNoFace,
        keep_texture: float, keep_shape: float, request: gr.Request,
    ) -> tuple[str, dict[str, Any]]:  # fmt: skip
        """A photo drawn like a reference picture; a new reference is studied first, half a minute on a CPU."""
        visitor = visitor_of(request)
        with _as_gradio_errors():
            code = engine.code(visitor, reference, style, aligned=aligned)
            result = engine.with_code(
                visitor, photo, style, code, refine=_refine(refine), mixing_level=int(level), alpha=alpha,
                strength=strength, keep_color=keep_color, faces=_faces(faces), aligned=photo_aligned,
                on_no_face=on_no_face, keep_texture=keep_texture, keep_shape=keep_shape,
            )  # fmt: skip
            return _picture(result, style, portrait), _facts(result)

    def add(function: Callable[..., Any], name: str, inputs: list[Any], outputs: list[Any]) -> None:
        def check(photo: str | None, *rest: Any) -> list[dict[str, Any]]:
            given = zip(inputs[1:], rest, strict=True)
            return [check_photo(photo, None), *(_check_given(*one) for one in given)]

        button.click(
            function, inputs, outputs, api_name=name, api_description=function.__doc__,
            validator=check, concurrency_id=DRAWING,
            concurrency_limit=1,
        )  # fmt: skip

    add(looking_for_faces, "faces", [photo], [facts])
    add(
        stylize, "stylize",
        [
            photo, style, strength, keep_color, psi, refine, faces, portrait, strokes, square, on_no_face,
            keep_texture, keep_shape,
        ],
        [picture, facts],
    )  # fmt: skip
    add(
        variations, "variations",
        [
            photo, style, level, seed, count, strength, keep_color, faces, refine, square, on_no_face,
            keep_texture, keep_shape,
        ],
        [pictures, facts],
    )  # fmt: skip
    add(
        like_a_reference, "reference",
        [
            photo, reference, style, level, alpha, strength, keep_color, faces, portrait, aligned, refine,
            photo_square, on_no_face, keep_texture, keep_shape,
        ],
        [picture, facts],
    )  # fmt: skip


class _as_gradio_errors:
    """Context that gives facestyle's errors, with their advice, to the caller."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FacestyleError):
            raise gr.Error(own_words(error), print_exception=False) from error


def _check_given(component: Any, value: object) -> dict[str, Any]:
    """Whether an argument has a value; a checkbox that has none is not ticked."""
    name = component.label.split(":")[0]
    is_given = value is not None or isinstance(component, gr.Checkbox)
    return gr.validate(is_given, f"{name} must be given, got null; see /gradio_api/info")


def _refine(steps: int) -> int:
    if not 0 <= steps <= 60:
        raise ConfigError(f"refine must be 0 to 60 steps here, got {steps}")
    return int(steps)


def _faces(text: str) -> str | list[int]:
    if text in ("all", "largest"):
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f'faces must be "all", "largest" or numbers like "0,2", got {text!r}'
        ) from None


def _picture(result: StylizeResult | Variation, style: str, portrait: bool) -> str:
    image = result.faces[0].portrait if portrait and result.faces else result.image
    return save(image, f"facestyle_{style}", result.metadata())


def _facts(result: StylizeResult | Variation) -> dict[str, Any]:
    return {
        **result.settings,
        "faces": [[round(value, 1) for value in face.box] for face in result.faces],
    }
