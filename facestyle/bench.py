"""``facestyle bench`` and ``facestyle info``: how fast, how much memory, on what, with which weights."""

from __future__ import annotations

import io
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facestyle import __version__
from facestyle.errors import ConfigError, FacestyleError
from facestyle.files import file_sha256
from facestyle.tuning import usable_cores

if TYPE_CHECKING:
    from facestyle.stylizer import FaceStylizer

__all__ = ["describe", "format_bench", "known_speed", "machine", "run_bench", "sample_photo"]

_STAGES = ("load", "detect", "align", "encode", "synthesize", "paste")

_LARGE_PX = (4000, 3000)
"""Width and height of the large photo, as phones take them."""

_LICENSES = {
    "appearance_probe.safetensors": "Apache-2.0 (ours, fitted to answers of FaceRes, MIT)",
    "generator_ffhq_1024.safetensors": "Apache-2.0 (random-face, a MobileStyleGAN of FFHQ)",
    "encoder_w.safetensors": "non-commercial research (trained on CelebA; trunk Apache-2.0)",
    "encoder_w_plus.safetensors": "non-commercial research (trained on CelebA; trunk Apache-2.0)",
    "encoder_z_plus.safetensors": "non-commercial research (trained on CelebA; trunk Apache-2.0)",
    "lite0_features.safetensors": "Apache-2.0 (EfficientNet-Lite0)",
    "mobilefacenet.safetensors": "MIT (package; its training data is not stated)",
}


def sample_photo() -> Path:
    """The picture that comes with the package: a sample of the base generator, 1024 px."""
    return Path(__file__).resolve().parent / "assets" / "sample.png"


def known_speed() -> list[dict[str, Any]]:
    """What `run_bench` gave on some machines, each with a "note" in its "machine": for cards and ``facestyle info``."""
    path = Path(__file__).resolve().parent / "assets" / "speed.json"
    known: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return known


def describe() -> dict[str, dict[str, Any]]:
    """Styles with their shares, all bundled weights with licence, size and sha256, device, measured speed, versions."""
    import torch

    from facestyle.runtime import choose_device
    from facestyle.styles import StyleConfig, bundled_style, bundled_styles

    root = Path(__file__).resolve().parent / "weights"
    styles: dict[str, Any] = {}
    for name in bundled_styles():
        config = StyleConfig.from_file(bundled_style(name) / "config.json")
        styles[name] = {
            "title": config.title,
            "license": config.license,
            **config.adjustments,
        }
    weights = {
        path.relative_to(root).as_posix(): {
            "license": styles[path.parent.name]["license"]
            if path.parent.name in styles
            else _LICENSES.get(path.name, "see NOTICE"),
            "MB": round(path.stat().st_size / 1e6, 2),
            "sha256": file_sha256(path),
        }
        for path in sorted(root.rglob("*.safetensors"))
    }
    packages = ("torch", "facenet-pytorch", "numpy", "pillow", "safetensors", "huggingface_hub")
    versions = {name: metadata.version(name) for name in packages}
    return {
        "styles": styles,
        "weights": weights,
        "device": {"device": str(choose_device()), **machine(), "threads": torch.get_num_threads()},
        "speed": {
            f"{row['machine']['note']}, {row['dtype']}": {
                "photo_s": row["total"],
                "refined_s": row["closer"]["total"],
                "cold_start_s": row["cold_start"],
                "peak_memory_mb": row["peak_memory_mb"],
                "date": row["date"],
            }
            for row in known_speed()
        },
        "versions": {"facestyle": __version__, "python": platform.python_version(), **versions},
    }


def run_bench(
    style: str = "cartoon",
    *,
    device: str | None = None,
    dtype: str | None = None,
    runs: int = 9,
) -> dict[str, Any]:
    """Seconds by stage on the 1024 px sample photo, warm; cold start and peak memory in a fresh process.

    Returns:
        "stages" (medians, seconds), "total" (median, seconds), "closer" (likewise "total", with "steps" of refine),
        "large" (the same face in a large photo: its width and height "photo_px", and medians of "detect" and "total"),
        "cold_start" (seconds from starting the command to the written picture), "peak_memory_mb" of that process, or of
        the GPU where there is one, 0 where the system does not tell,
        "batch" (pictures a second at 1 and at 8, measured in turn), "device" (a GPU by its name), "machine".

    Raises:
        ConfigError: ``runs`` is below 1.
    """
    if runs < 1:
        raise ConfigError(f"runs must be 1 or more, got {runs}")
    from facestyle.inversion import QUICK_STEPS
    from facestyle.runtime import dtype_name
    from facestyle.stylizer import FaceStylizer
    from facestyle.timing import device_name, seconds_of

    stylizer = FaceStylizer.from_pretrained(style, device=device, dtype=dtype)
    cold, peak = _cold_run(style, device, dtype)
    photo = sample_photo()
    for _ in range(2):
        stylizer(photo)
    stages = _stage_seconds(stylizer, photo, runs)
    total = stages.pop("total")
    large_photo = _large_photo()
    stylizer(large_photo)
    large = _stage_seconds(stylizer, large_photo, max(1, runs // 3))
    stylizer(photo, refine=QUICK_STEPS)
    closer = seconds_of(
        lambda: stylizer(photo, refine=QUICK_STEPS), stylizer.device, max(min(runs, 3), runs // 3)
    )
    stylizer([photo] * 8)
    singly, batched = [], []
    for _ in range(max(min(runs, 3), runs // 2)):  # in turn, as a machine's speed drifts
        start = time.perf_counter()
        for _ in range(8):
            stylizer(photo)
        between = time.perf_counter()
        stylizer([photo] * 8)
        singly.append((between - start) / 8)
        batched.append((time.perf_counter() - between) / 8)
    gains = [alone / each for alone, each in zip(singly, batched, strict=True)]
    return {
        "style": style,
        "device": device_name(stylizer.device),
        "dtype": dtype_name(stylizer.dtype),
        "photo_px": 1024,
        "runs": runs,
        "stages": stages,
        "total": total,
        "large": {"photo_px": list(_LARGE_PX), "detect": large["detect"], "total": large["total"]},
        "closer": {"steps": QUICK_STEPS, "total": round(closer, 3)},
        "cold_start": round(cold, 2),
        "peak_memory_mb": round(_gpu_peak_mb(stylizer, photo) or peak),
        "batch": {
            "per_second_1": round(1 / statistics.median(singly), 3),
            "per_second_8": round(1 / statistics.median(batched), 3),
            "gain": round(statistics.median(gains), 3),
        },
        "machine": machine(),
        "versions": {"facestyle": __version__, "torch": metadata.version("torch")},
        "date": time.strftime("%Y-%m-%d"),
    }


def _stage_seconds(stylizer: FaceStylizer, photo: Path | bytes, runs: int) -> dict[str, float]:
    """Median seconds of a photo by stage, and of it all as "total"."""
    rows: dict[str, list[float]] = {name: [] for name in (*_STAGES, "total")}
    for _ in range(runs):
        start = time.perf_counter()
        result = stylizer(photo)
        rows["total"].append(time.perf_counter() - start)
        for name in _STAGES:
            rows[name].append(result.seconds.get(name, 0.0))
    return {name: round(statistics.median(values), 4) for name, values in rows.items()}


def _large_photo() -> bytes:
    """The sample photo before soft blobs, as a large JPEG."""
    import numpy as np
    from PIL import Image

    blobs = np.random.default_rng(0).integers(256, size=(75, 100, 3), dtype=np.uint8)
    photo = Image.fromarray(blobs).resize(_LARGE_PX)
    with Image.open(sample_photo()) as sample:
        photo.paste(sample, (1488, 988))
    buffer = io.BytesIO()
    photo.save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def _gpu_peak_mb(stylizer: FaceStylizer, photo: Path) -> float | None:
    """MB of the GPU that a photo takes, with the networks; None on other devices."""
    from facestyle.memory import PeakMemory

    if stylizer.device.type != "cuda":
        return None
    with PeakMemory(stylizer.device) as memory:
        stylizer(photo)
    return None if memory.bytes is None else memory.bytes / 1e6


def format_bench(report: dict[str, Any]) -> str:
    """The report for people."""
    large = report["large"]
    width, height = large["photo_px"]
    lines = [f"{report['style']}, {report['device']}, {report['dtype']}, one face, 1024 px, warm"]
    lines += [f"  {name:<12} {value:7.3f} s" for name, value in report["stages"].items()]
    lines += [
        f"  {'total':<12} {report['total']:7.3f} s",
        f"  {'refine=' + str(report['closer']['steps']):<12} {report['closer']['total']:7.3f} s   (with so many steps)",
        f"  {'large':<12} {large['total']:7.3f} s   ({width} x {height} px; to find the face {large['detect']:.3f} s)",
        f"cold start     {report['cold_start']:7.2f} s   (start of the command to the written picture)",
        f"peak memory    {report['peak_memory_mb']:7d} MB",
        f"batch of 8     {report['batch']['gain']:7.2f} times the throughput of one by one",
        f"{report['machine']['processor']}, {report['machine']['cores']} cores, {report['date']}",
    ]
    return "\n".join(lines)


_CHILD = """
import json, sys
from facestyle.cli import main
code = main(json.loads(sys.argv[1]))
try:
    import resource
except ImportError:  # Windows
    print("PEAK", 0)
else:
    scale = 1 if sys.platform == "darwin" else 1024
    print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale)
sys.exit(code)
"""


def _cold_run(style: str, device: str | None, dtype: str | None) -> tuple[float, float]:
    """Seconds and peak MB of ``facestyle stylize`` in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["stylize", str(sample_photo()), "-o", f"{folder}/out.png", "--style", style]
        arguments += ["--device", device] if device else []
        arguments += ["--dtype", dtype] if dtype else []
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, json.dumps(arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - start
    if done.returncode:
        raise FacestyleError(f"the cold run failed: {done.stderr.strip()[-500:]}")
    peak = int(done.stdout.rsplit("PEAK", 1)[1])
    return seconds, peak / 1e6


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, and system, for reports."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(
                line.split(":")[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        pass
    return {"processor": name, "cores": usable_cores(), "system": platform.system()}
