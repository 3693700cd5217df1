"""An aligned face to a portrait: ``python stylize.py FACE.png PORTRAIT.png``; needs numpy, pillow and onnxruntime."""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def load(source: str) -> Image.Image:
    """The picture upright, 16 bits of grey in 8, transparency on white."""
    image = ImageOps.exif_transpose(Image.open(source))
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) / 257).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def main(source: str, target: str) -> None:
    """Draw the portrait of an aligned face."""
    from onnxruntime import InferenceSession

    here = Path(__file__).parent
    facts = json.loads((here / "export.json").read_text("utf-8"))
    encoder = InferenceSession(here / "encoder.onnx", providers=["CPUExecutionProvider"])
    generator = InferenceSession(here / "generator.onnx", providers=["CPUExecutionProvider"])
    size = (facts["face_px"], facts["face_px"])
    face = ImageOps.fit(load(source), size, Image.Resampling.LANCZOS)
    pixels = np.asarray(face, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
    psi = np.array(facts["psi"], np.float32)
    w_plus = encoder.run(None, {"face": pixels, "psi": psi})[0]
    portrait = generator.run(None, {"w_plus": w_plus})[0][0].transpose(1, 2, 0)
    levels = ((portrait + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    Image.fromarray(levels).save(target)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
