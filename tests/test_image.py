"""Pictures in and out: every kind of input, every kind of failure, exact conversions."""

import io
import os
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms

from facestyle import image as subject
from facestyle.errors import (
    ConfigError,
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    NotAnImageError,
    OutputError,
)
from facestyle.image import iter_image_files, load_image, save_png, to_pil, to_tensor


def encoded(image: Image.Image, fmt: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=fmt, **options)
    return buffer.getvalue()


def gradient(dtype=np.uint8, top=255) -> np.ndarray:
    """[48, 64] rising from 0 on the left to ``top`` on the right."""
    return np.broadcast_to(np.linspace(0, top, 64).round().astype(dtype), (48, 64)).copy()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def named_profile(name: str, gamma: float) -> bytes:
    """An ICC profile of that description, with sRGB's primaries and a gamma."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    text = name.encode() + b"\0"
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text\0\0\0\0-\0",
        b"wtpt": xyz(0.9642, 1, 0.8249),
        b"rXYZ": xyz(0.4360, 0.2225, 0.0139),
        b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        at = 128 + 4 + 12 * len(tags) + len(body)
        table += tag + struct.pack(">II", at, len(value))
        body += value + bytes(-len(value) % 4)
    header = bytearray(128)
    header[:4] = struct.pack(">I", 128 + len(table) + len(body))
    header[8:24] = b"\x02\x40\0\0mntrRGB XYZ "
    header[36:40] = b"acsp"
    header[68:80] = xyz(0.9642, 1, 0.8249)[8:]
    return bytes(header) + table + body


# What comes in


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF", "JPEG"])
def test_reads_files_bytes_and_pictures_alike(tmp_path, fmt):
    picture = Image.fromarray(gradient()).convert("RGB")
    data = encoded(picture, fmt, **({"lossless": True} if fmt == "WEBP" else {}))
    path = tmp_path / f"picture.{fmt.lower()}"
    path.write_bytes(data)
    with Image.open(path) as opened:
        results = [load_image(source) for source in (path, str(path), data, opened)]
    for result in results:
        assert result.mode == "RGB" and result.size == (64, 48) and type(result) is Image.Image
        assert np.array_equal(np.asarray(result), np.asarray(results[0]))
    assert np.abs(np.int16(results[0]) - np.int16(picture)).max() <= (12 if fmt == "JPEG" else 0)


def test_16_bit_grey_is_scaled_not_clipped():
    values = gradient(np.uint16, 65535)
    result = np.asarray(load_image(encoded(Image.fromarray(values))))
    assert np.array_equal(result[..., 0], (values / 257).round().astype(np.uint8))
    assert np.array_equal(result[..., 0], result[..., 2])


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0, 1e6])
def test_float_grey_keeps_its_range(top):
    values = np.linspace(0, top, 64, dtype=np.float32) * np.ones((48, 1), np.float32)
    result = np.asarray(load_image(encoded(Image.fromarray(values), "TIFF")))
    assert np.abs(result[0, :, 0].astype(float) - np.linspace(0, 255, 64)).max() <= 0.5


def test_transparency_is_laid_on_white():
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[..., 0], rgba[:, :32, 3], rgba[:, 48:, 3] = 200, 255, 128
    for result in (load_image(encoded(Image.fromarray(rgba))), load_image(rgba)):
        pixels = np.asarray(result)
        assert pixels[0, 0].tolist() == [200, 0, 0]
        assert pixels[0, 40].tolist() == [255, 255, 255]
        assert np.abs(pixels[0, 60].astype(int) - [227, 127, 127]).max() <= 1


def test_grey_with_alpha_and_palettes():
    grey = np.stack([np.full((48, 64), 80, np.uint8), np.zeros((48, 64), np.uint8)], axis=-1)
    grey[:, :32, 1] = 255
    pixels = np.asarray(load_image(encoded(Image.fromarray(grey, "LA"))))
    assert pixels[0, 0].tolist() == [80] * 3 and pixels[0, 63].tolist() == [255] * 3

    palette = Image.new("P", (64, 48), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.paste(1, (32, 0, 64, 48))
    pixels = np.asarray(load_image(encoded(palette)))
    assert pixels[0, 0].tolist() == [10, 20, 30] and pixels[0, 63].tolist() == [200, 100, 50]
    pixels = np.asarray(load_image(encoded(palette, transparency=0)))
    assert pixels[0, 0].tolist() == [255] * 3 and pixels[0, 63].tolist() == [200, 100, 50]

    rgba = Image.new("RGBA", (64, 48), (0, 0, 0, 0))
    rgba.paste((200, 100, 50, 255), (32, 0, 64, 48))
    pixels = np.asarray(load_image(rgba.quantize()))  # transparency in the palette itself
    assert pixels[0, 0].tolist() == [255] * 3 and pixels[0, 63].tolist() == [200, 100, 50]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_premultiplied_transparency_reads_like_any(mode):
    picture = Image.fromarray(gradient()).convert(mode)
    picture.putalpha(200)
    plain = np.asarray(load_image(picture), int)
    premultiplied = np.asarray(load_image(picture.convert(mode[:-1] + "a")), int)
    assert np.abs(premultiplied - plain).max() <= 1


def test_colour_key_transparency_and_1_bit():
    rgb = Image.new("RGB", (64, 48), (1, 2, 3))
    assert np.asarray(load_image(encoded(rgb, transparency=(1, 2, 3)))).min() == 255
    assert np.asarray(load_image(encoded(Image.new("1", (64, 48), 1)))).min() == 255


def test_cmyk_becomes_rgb():
    rgb = Image.new("RGB", (64, 48), (220, 30, 60))
    pixels = np.asarray(load_image(encoded(rgb.convert("CMYK"), "JPEG", quality=95)))
    assert np.abs(pixels[24, 32].astype(int) - [220, 30, 60]).max() <= 6


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (64, 48), color) for color in ((255, 0, 0), (0, 255, 0))]
    for fmt in ("GIF", "PNG", "WEBP"):
        data = encoded(frames[0], fmt, save_all=True, append_images=frames[1:])
        pixel = np.asarray(load_image(data))[24, 32].astype(int)
        assert np.abs(pixel - [255, 0, 0]).max() <= 4, fmt


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    )
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = load_image(encoded(stored, exif=exif))
    assert np.array_equal(np.asarray(result), np.asarray(upright))
    assert not result.info and not result.getexif()


def test_damaged_exif_and_profile_do_not_stop_a_picture():
    picture = Image.fromarray(gradient()).convert("RGB")
    data = encoded(picture, exif=b"Exif\0\0broken", icc_profile=b"no profile")
    assert np.array_equal(np.asarray(load_image(data)), np.asarray(picture))


def test_an_embedded_profile_is_converted_to_srgb():
    rgb = Image.new("RGB", (64, 48), (200, 100, 50))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.asarray(load_image(encoded(rgb, icc_profile=srgb)))[0, 0].tolist() == [200, 100, 50]
    # sRGB's bytes with its red and blue primaries exchanged: red must come out as blue.
    swapped = srgb.replace(b"rXYZ", b"----").replace(b"bXYZ", b"rXYZ").replace(b"----", b"bXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "BGRs".encode("utf-16-be"))
    pixel = np.asarray(load_image(encoded(rgb, icc_profile=swapped)))[0, 0].astype(int)
    assert np.abs(pixel - [50, 100, 200]).max() <= 2


@pytest.mark.parametrize("name", ["GIMP built-in Linear sRGB", "sRGB-elle-V2-g10.icc"])
def test_a_profile_is_not_srgb_for_its_name_alone(name):
    dark = Image.new("RGB", (64, 48), (55, 55, 55))
    for gamma, level in ((1.0, 128), (1.8, 71), (2.2, 55)):  # the last is left as it is
        pixel = load_image(encoded(dark, icc_profile=named_profile(name, gamma))).getpixel((0, 0))
        assert np.abs(np.subtract(pixel, level)).max() <= 1, gamma


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, ">u2", np.float16, np.float32, np.float64, ">f8"]
)
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_arrays_of_every_kind(dtype, channels):
    top = {"u": np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 0, "f": 1}[
        np.dtype(dtype).kind
    ]
    shape = (40, 64) if channels is None else (40, 64, channels)
    result = np.asarray(load_image(np.full(shape, top, dtype)))
    assert result.shape == (40, 64, 3) and result.min() == 255
    array = np.full(shape, top // 2 if top > 1 else 0.5, dtype)
    if channels == 4:
        array[..., 3] = top
    assert set(np.unique(np.asarray(load_image(array)))) <= {127, 128}


def test_a_picture_given_in_memory_is_not_touched():
    source = Image.new("RGB", (64, 48), (1, 2, 3))
    source.info["comment"] = "mine"
    result = load_image(source)
    result.putpixel((0, 0), (9, 9, 9))
    assert source.getpixel((0, 0)) == (1, 2, 3) and source.info == {"comment": "mine"}


# What is refused


def test_unreadable_paths(tmp_path):
    with pytest.raises(ImageError, match="no such file") as caught:
        load_image(tmp_path / "missing.jpg")
    assert caught.value.path == tmp_path / "missing.jpg"
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        load_image("nul\0byte.png")
    for address in ("https://example.org/me.jpg", "HTTP://x/y.png", "data:image/png;base64,AAAA"):
        with pytest.raises(ImageError, match="download the picture"):
            load_image(address)
    with pytest.raises(ImageError, match="got int"):
        load_image(7)


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(subject.MAX_FILE_BYTES + 1)  # takes no room on the disk
    with pytest.raises(ImageTooLargeError, match=r"716 MB, and at most 716 MB are read") as caught:
        load_image(path)
    assert caught.value.path == path

    def full(self, mode):
        raise MemoryError

    path.write_bytes(b"some")
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ImageTooLargeError, match="does not fit into memory"):
        load_image(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such devices")
def test_a_pipe_is_read_to_its_end_and_a_device_without_one_is_refused(monkeypatch):
    receiving, sending = os.pipe()
    with open(sending, "wb") as file:
        Image.new("RGB", (60, 40), "red").save(file, format="PNG")
    assert load_image(f"/dev/fd/{receiving}").size == (60, 40)
    os.close(receiving)

    monkeypatch.setattr(subject, "MAX_FILE_BYTES", 4 << 20)
    with pytest.raises(ImageTooLargeError, match="at most 4 MB are read"):
        load_image("/dev/zero")


def test_a_folder_whose_files_may_not_be_seen_is_named(tmp_path, monkeypatch):
    def hidden(self):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.png").touch()
    monkeypatch.setattr(Path, "is_file", hidden)
    with pytest.raises(ImageError, match="cannot list the folder: Permission denied"):
        iter_image_files(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes"),
        (b"just some text, long enough to look at", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "not a picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
    ],
)
def test_files_that_are_no_pictures(tmp_path, data, message):
    path = tmp_path / "file.jpg"
    path.write_bytes(data)
    with pytest.raises(NotAnImageError, match=message) as caught:
        load_image(path)
    assert caught.value.path == path
    with pytest.raises(NotAnImageError, match=message):
        load_image(data)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_truncated_files_are_refused(fmt, share):
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), fmt)
    with pytest.raises(NotAnImageError):
        load_image(data[: int(len(data) * share)])


def test_a_decompression_bomb_is_refused_by_its_header():
    for side in (14_000, 60_000):
        with pytest.raises(ImageTooLargeError, match="million"):
            load_image(png_header(side, side))
    # Just below the limit the header passes, and only the missing data is noticed.
    with pytest.raises(NotAnImageError):
        load_image(png_header(10_000, 10_000))


def test_tiny_pictures_are_refused():
    for size in ((1, 1), (31, 400), (400, 31)):
        with pytest.raises(ImageTooSmallError, match="at least 32 x 32"):
            load_image(Image.new("RGB", size))
    with pytest.raises(ImageTooSmallError):
        load_image(np.zeros((1, 1, 3), np.uint8))
    assert load_image(Image.new("RGB", (32, 32))).size == (32, 32)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 64, 64), np.uint8), "channels come last"),
        (np.zeros((1, 64, 64, 3), np.uint8), "one by one"),
        (np.zeros(64, np.uint8), r"\[64\]"),
        (np.zeros((64, 64, 2), np.uint8), r"\[64, 64, 2\]"),
        (np.zeros((64, 64, 3), np.int64), "int64"),
        (np.zeros((64, 64, 3), bool), "bool"),
        (np.full((64, 64, 3), np.nan), "NaN"),
        (np.full((64, 64, 3), np.inf), "NaN or infinite"),
        (np.full((64, 64, 3), 128.0), "by 255"),
        (np.full((64, 64, 3), -0.5), r"\(x \+ 1\) / 2"),
    ],
)
def test_arrays_that_are_no_pictures(array, message):
    with pytest.raises(ImageError, match=message):
        load_image(array)


# Tensors


@settings(max_examples=25)
@given(arrays(np.uint8, st.tuples(st.integers(32, 36), st.integers(32, 36), st.just(3))))
def test_uint8_to_tensor_to_uint8_is_identity(pixels):
    tensor = to_tensor(Image.fromarray(pixels))
    assert tensor.shape == (1, 3, *pixels.shape[:2]) and tensor.dtype == torch.float32
    assert tensor.min() >= -1 and tensor.max() <= 1
    for view in (tensor, tensor[0], tensor.contiguous(), tensor.double()):
        assert np.array_equal(np.asarray(to_pil(view)), pixels)


def test_all_levels_survive_and_the_ends_are_exact():
    levels = np.arange(256, dtype=np.uint8).repeat(12).reshape(32, 32, 3)
    tensor = to_tensor(Image.fromarray(levels))
    assert tensor.min() == -1 and tensor.max() == 1
    assert np.array_equal(np.asarray(to_pil(tensor)), levels)


def test_to_pil_rounds_and_clamps():
    values = torch.tensor([-2.0, -1.0, 0.0, 100.4 / 127.5 - 1, 100.6 / 127.5 - 1, 1.0, 3.0])
    image = to_pil(values.expand(3, 1, 7))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 128, 100, 101, 255, 255]
    with pytest.raises(ConfigError, match="one by one"):
        to_pil(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ConfigError, match="uint8"):
        to_pil(torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_channels_and_axes_keep_their_places():
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[3, 7, 1] = 255
    tensor = to_tensor(Image.fromarray(pixels))
    assert (tensor == 1).nonzero().tolist() == [[0, 1, 3, 7]]


# Out


def test_png_carries_our_metadata_and_nothing_else(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    source = Image.new("RGB", (64, 48), (1, 2, 3))
    source.info.update(exif=exif.tobytes(), icc_profile=b"x", comment="secret", dpi=(300, 300))
    path = save_png(source, tmp_path / "new" / "folder" / "a.png", {"style": "cartoon", "név": "ő"})
    with Image.open(path) as saved:
        saved.load()
        assert saved.info == {"style": "cartoon", "név": "ő"}
        assert not saved.getexif()
        assert np.array_equal(np.asarray(saved), np.asarray(source))
    assert source.info["comment"] == "secret"
    assert os.listdir(path.parent) == ["a.png"]
    with pytest.raises(ConfigError, match="Latin-1"):
        save_png(source, path, {"ő": "x"})


def test_unwritable_outputs(tmp_path):
    picture = Image.new("RGB", (64, 48))
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="is a folder") as caught:
        save_png(picture, tmp_path / "folder.png")
    assert caught.value.path == tmp_path / "folder.png"
    with pytest.raises(OutputError, match="cannot be written"):
        save_png(picture, tmp_path / "file" / "a.png")
    with pytest.raises(OutputError, match=r"name it a\.png"):
        save_png(picture, tmp_path / "a.jpg")
    with pytest.raises(OutputError, match="cannot be written"):
        save_png(picture, tmp_path / ("x" * 300 + ".png"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        save_png(Image.new("RGB", (64, 48)), tmp_path / "a.png")


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path):
    resource = pytest.importorskip("resource")
    path = save_png(Image.new("RGB", (64, 48)), tmp_path / "a.png")
    before = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # writing stops after 50 kB
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            save_png(Image.fromarray(noise), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.png"]


def test_listing_a_folder(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.webp", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "sub.png").mkdir()
    assert [p.name for p in iter_image_files(tmp_path)] == ["a.jpg", "b.PNG", "c.webp"]
    with pytest.raises(ImageError, match="cannot list"):
        iter_image_files(tmp_path / "missing")
    with pytest.raises(ImageError, match="cannot list"):
        iter_image_files(tmp_path / "a.jpg")


def test_the_surface_is_sorted_and_complete():
    names = subject.__all__
    assert list(names) == sorted(names) and all(hasattr(subject, name) for name in names)
    assert Path(subject.__file__).name == "image.py"


def test_heic_photos_are_listed_and_read_where_a_plugin_is_installed(tmp_path, monkeypatch):
    """The plugin itself is not part of the tests: a stand-in tells whether it is asked."""
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert [path.name for path in iter_image_files(tmp_path)] == ["IMG_1.HEIC"]
    with pytest.raises(NotAnImageError, match="pip install pillow-heif"):
        load_image(tmp_path / "IMG_1.HEIC")
    asked = []
    plugin = SimpleNamespace(register_heif_opener=lambda: asked.append("register"))
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    subject._register_heif.cache_clear()
    for _ in range(2):
        with pytest.raises(NotAnImageError):
            load_image(tmp_path / "IMG_1.HEIC")
    subject._register_heif.cache_clear()
    assert asked == ["register"]
