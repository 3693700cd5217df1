"""The call behind a result, as Python, as shell and over HTTP; run on the same photo, each gives the same picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Call"]

_FLAGS = {
    "mixing_level": "--mixing-level", "keep_color": "--keep-color", "keep_texture": "--keep-texture",
    "keep_shape": "--keep-shape", "psi_content": "--psi-content", "aligned": "--already-aligned",
    "on_no_face": "--on-no-face",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Call:
    """What made a result.

    Attributes:
        style: its name; "./NAME" for a visitor's own, in the folder that was downloaded.
        photo: name of the visitor's file.
        way: "stylize", "variations" or "reference".
        options: arguments that are not the defaults.
        faces: numbers of the faces, from 0; None for all of them.
        full: the full photo was asked for, not the portrait.
        reference: name of the reference's file.
        reference_aligned: it is a cropped portrait already.
    """

    style: str
    photo: str
    way: str = "stylize"
    options: Mapping[str, Any] = field(default_factory=dict)
    faces: Sequence[int] | None = None
    full: bool = False
    reference: str = ""
    reference_aligned: bool = False

    @property
    def _settings(self) -> dict[str, Any]:
        chosen = {} if self.faces is None else {"faces": list(self.faces)}
        return {**self.options, **chosen}

    def python(self) -> str:
        """The call in Python."""
        arguments = [repr(self.photo)]
        lines = [
            "from facestyle import FaceStylizer",
            "from facestyle.image import save_png",
            "",
            f"stylizer = FaceStylizer.from_pretrained({self.style!r})",
        ]
        settings = [f"{name}={value!r}" for name, value in self._settings.items()]
        if self.way == "stylize":
            lines.append(f"result = stylizer({', '.join([*arguments, *settings])})")
        elif self.way == "variations":
            call = ", ".join([*arguments, "n=1", *settings])
            lines.append(f"result = stylizer.variations({call})[0]")
        else:
            aligned = ", aligned=True" if self.reference_aligned else ""
            lines.append(f"code = stylizer.encode_reference({self.reference!r}{aligned})")
            call = ", ".join([*arguments, "code", *settings])
            lines.append(f"result = stylizer.with_reference({call})")
        picture = "result.image" if self.full else "result.faces[0].portrait"
        lines.append(f'save_png({picture}, "result.png", result.metadata())')
        return "\n".join(lines)

    def shell(self) -> str:
        """The command; it leaves the portraits beside the full photo."""
        words = ["facestyle", self.way, _quoted(self.photo), "--style", self.style]
        for name, value in self._settings.items():
            if name == "faces":
                value = ",".join(map(str, value))
            words.append(_FLAGS.get(name, f"--{name}"))
            words += [] if value is True else [str(value)]
        if self.way == "variations":
            words += ["-n", "1", "-o", "result"]
            return " ".join([*words, "--photos"] if self.full else words)
        if self.way == "reference":
            words += ["--reference", _quoted(self.reference)]
            words += ["--reference-aligned"] if self.reference_aligned else []
        words += ["-o", "result.png"] if self.full else ["-o", "result.png", "--portraits"]
        return " ".join(words)

    def http(self, address: str) -> str:
        """The call over HTTP: upload, ask, wait; the answer holds the address of the picture."""
        if self.style.startswith("./"):
            return "# Your own style is not served over HTTP; Python and the shell have it."
        uploads = [("PHOTO", self.photo)]
        if self.way == "reference":
            uploads.append(("REFERENCE", self.reference))
        lines = [f"ADDRESS={address.rstrip('/')}/gradio_api"]
        for name, file in uploads:
            escaped = file.replace("\\", r"\\").replace('"', r"\"")
            # Without the inner quotes curl would end the name at a comma or semicolon.
            form = _quoted(f'files=@"{escaped}"')
            lines.append(f"{name}=$(curl -s -F {form} $ADDRESS/upload | cut -d'\"' -f2)")
        data = json.dumps(self._data()).replace('"', '\\"')
        for name, _ in uploads:
            data = data.replace(f"@{name}", f"${name}")
        lines += [
            f'EVENT=$(curl -s -H "Content-Type: application/json" -d "{{\\"data\\": {data}}}" \\',
            f"  $ADDRESS/call/{self.way} | cut -d'\"' -f4)",
            f"curl -sN $ADDRESS/call/{self.way}/$EVENT",
        ]
        return "\n".join(lines)

    def _data(self) -> list[Any]:
        """Arguments of the endpoint, in its order."""
        photo = _file("@PHOTO")
        faces = "all" if self.faces is None else ",".join(map(str, self.faces))
        given = self.options
        looks = [given.get("strength", 1.0), given.get("keep_color", 0.0)]
        last = [
            given.get("aligned", False), given.get("on_no_face", "error"), given.get("keep_texture", 0.0),
            given.get("keep_shape", 0.0),
        ]  # fmt: skip
        if self.way == "variations":
            return [
                photo, self.style, given.get("mixing_level", 6), given.get("seed", 0), 1, *looks, faces,
                given.get("refine", 0), *last,
            ]  # fmt: skip
        if self.way == "reference":
            return [
                photo, _file("@REFERENCE"), self.style, given.get("mixing_level", 6),
                given.get("alpha", 1.0), *looks, faces, not self.full, self.reference_aligned,
                given.get("refine", 0), *last,
            ]  # fmt: skip
        return [
            photo, self.style, *looks, given.get("psi", -1.0), given.get("refine", 0), faces, not self.full,
            given.get("seed", 0), *last,
        ]  # fmt: skip


def _file(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)
