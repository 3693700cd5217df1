"""An aligned face to a portrait: ``python stylize.py FACE.png PORTRAIT.png``; needs numpy, pillow and onnxruntime."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

here = Path(__file__).parent
facts = json.loads((here / "export.json").read_text("utf-8"))
encoder, generator = (
    onnxruntime.InferenceSession(here / f"{name}.onnx", providers=["CPUExecutionProvider"])
    for name in ("encoder", "generator")
)
size = (facts["face_px"], facts["face_px"])
face = Image.open(sys.argv[1]).convert("RGB").resize(size, Image.Resampling.LANCZOS)
pixels = np.asarray(face, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
w_plus = encoder.run(None, {"face": pixels, "psi": np.array(facts["psi"], np.float32)})[0]
portrait = generator.run(None, {"w_plus": w_plus})[0][0].transpose(1, 2, 0)
levels = ((portrait + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
Image.fromarray(levels).save(sys.argv[2])
