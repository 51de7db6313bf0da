"""Image decoding: every mode to the RGB that a person sees, and nothing but ``InputError`` for what is broken."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ovskit.core.formats.photographs.decoding import decode_image, image_size
from ovskit.core.runtime.errors import InputError

# pytest puts its own filters in place of the one that the module sets
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")

# 40 × 56 pixels in blocks of 8, so that JPEG keeps the colours; no symmetry
BLOCKS = np.kron(np.random.default_rng(0).integers(0, 256, (5, 7, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def save(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    out = io.BytesIO()
    (image or Image.fromarray(BLOCKS)).save(out, kind, **options)
    return out.getvalue()


def png(samples: NDArray[Any], colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand: ``samples`` (H, W, channels) of 1 or 2 bytes, extra ``chunks`` before the data."""
    height, width = samples.shape[:2]
    depth = samples.dtype.itemsize * 8
    rows = samples.astype(samples.dtype.newbyteorder(">")).reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    out = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">2L5B", width, height, depth, colour, 0, 0, 0)
    for name, body in [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]:
        out += struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))
    return out


def decoded(data: bytes) -> NDArray[np.uint8]:
    rgb = decode_image(data, "a.img")
    assert rgb.dtype == np.uint8
    assert rgb.ndim == 3
    assert rgb.shape[2] == 3
    assert rgb.flags.c_contiguous
    assert rgb.flags.writeable
    assert image_size(data, "a.img") == (rgb.shape[1], rgb.shape[0])
    assert image_size(io.BytesIO(data), "a.img") == (rgb.shape[1], rgb.shape[0])
    return rgb


def error_of(data: bytes, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        decode_image(data, "dir/a.img", **options)
    message = str(caught.value)
    assert message.startswith("dir/a.img ")
    assert "\n" not in message
    return message


FILES = {
    "jpeg": save("JPEG", quality=95, subsampling=0),
    "progressive": save("JPEG", quality=95, subsampling=0, progressive=True),
    "png": save("PNG"),
    "indexed": save("PNG", Image.fromarray(BLOCKS).quantize(64)),
    "webp": save("WEBP", quality=95),
    "webp-lossless": save("WEBP", lossless=True),
    "bmp": save("BMP"),
    "gif": save("GIF", Image.fromarray(BLOCKS).quantize(64)),
    **{f"tiff-{name}": save("TIFF", compression=name) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")},
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_picture(name: str) -> None:
    tolerance = {"jpeg": 6, "progressive": 6, "webp": 12}.get(name, 0)
    centres = np.s_[4::8, 4::8]  # lossy WebP halves the resolution of colour, which shows at the blocks' edges
    np.testing.assert_allclose(decoded(FILES[name]).astype(int)[centres], BLOCKS[centres], atol=tolerance)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (9, 5), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = save(kind, frames[0], save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decoded(data), np.full((5, 9, 3), (255, 0, 0)))


def test_a_jpeg_of_several_pictures_gives_the_first() -> None:
    data = save("MPO", save_all=True, append_images=[Image.new("RGB", (56, 40))], quality=95, subsampling=0)
    np.testing.assert_allclose(decoded(data).astype(int), BLOCKS, atol=6)


# Orientation: where row 0 and column 0 of the file belong in the upright picture (Exif 2.32, tag 0x0112)
SIDES = {
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}  # fmt: skip


def upright(stored: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    sides = SIDES[orientation]
    shown = stored.transpose(1, 0, 2) if sides[0] in ("left", "right") else stored
    if "right" in sides:
        shown = shown[:, ::-1]
    if "bottom" in sides:
        shown = shown[::-1]
    return shown


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    got = decoded(save(kind, exif=exif, **options)).astype(int)
    np.testing.assert_allclose(got, upright(BLOCKS, orientation), atol=6 if kind == "JPEG" else 0)


@pytest.mark.parametrize("orientation", [0, 9, 4242])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decoded(save("PNG", exif=exif)), BLOCKS)


def test_broken_exif_does_not_spoil_the_pixels() -> None:
    np.testing.assert_array_equal(decoded(save("PNG", exif=b"Exif\0\0MM\0*\0\0\xff\xff")), BLOCKS)
    np.testing.assert_array_equal(decoded(save("PNG", exif=b"II?")), BLOCKS)


def test_orientation_of_16_bit_tiff() -> None:
    gray = (np.arange(6 * 4, dtype=np.uint16) * 2500).reshape(6, 4)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = save("TIFF", Image.fromarray(gray), exif=exif)
    want = np.rint(gray / 257)[..., None].repeat(3, 2).astype(np.uint8)
    np.testing.assert_array_equal(decoded(data), upright(want, 6))


# Modes


def test_gray_and_one_bit() -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    want = gray[..., None].repeat(3, 2)
    for kind in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(decoded(save(kind, Image.fromarray(gray))), want)
        np.testing.assert_array_equal(decoded(save(kind, Image.fromarray(gray > 99))), np.where(want > 99, 255, 0))


@pytest.mark.parametrize("levels", [2, 4, 16, 200])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
def test_palette(kind: str, levels: int) -> None:
    indexed = Image.fromarray(BLOCKS).quantize(levels)
    palette = np.array(indexed.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(decoded(save(kind, indexed)), palette[np.asarray(indexed)])


def over_white(rgb: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    share = alpha[..., None] / 255
    return rgb * share + 255 * (1 - share)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_blended_over_white(kind: str) -> None:
    alpha = np.broadcast_to(np.linspace(0, 255, 56).astype(np.uint8), (40, 56))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = save(kind, Image.fromarray(np.dstack([BLOCKS, alpha])), **options)
    np.testing.assert_allclose(decoded(data), over_white(BLOCKS, alpha), atol=1)


def test_gray_with_alpha() -> None:
    pair = np.dstack([BLOCKS[..., 0], BLOCKS[..., 1]])
    data = save("PNG", Image.fromarray(pair))
    np.testing.assert_allclose(decoded(data), over_white(BLOCKS[..., :1].repeat(3, 2), BLOCKS[..., 1]), atol=1)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_a_transparent_entry(kind: str) -> None:
    indexed = Image.new("P", (2, 2))
    indexed.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 0])
    indexed.putdata([0, 1, 2, 1])
    data = save(kind, indexed, transparency=1)
    np.testing.assert_array_equal(decoded(data), [[[10, 20, 30], [255] * 3], [[0, 0, 0], [255] * 3]])


def test_palette_with_alpha_per_entry() -> None:
    indexed = Image.new("P", (3, 1))
    indexed.putpalette([0, 0, 0, 0, 0, 0, 200, 100, 0])
    indexed.putdata([0, 1, 2])
    np.testing.assert_allclose(decoded(save("PNG", indexed, transparency=b"\x00\x80\xff")), [[[255] * 3, [127] * 3, [200, 100, 0]]], atol=1)


def test_colour_key() -> None:
    rgb = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    data = png(rgb, 2, (b"tRNS", struct.pack(">3H", 4, 5, 6)))
    np.testing.assert_array_equal(decoded(data), [[[1, 2, 3], [255, 255, 255]]])
    gray = np.array([[[7], [8]]], np.uint8)
    np.testing.assert_array_equal(decoded(png(gray, 0, (b"tRNS", struct.pack(">H", 8)))), [[[7] * 3, [255] * 3]])


def test_cmyk_jpeg_as_adobe_writes_it() -> None:
    ink = np.zeros((16, 32, 4), np.uint8)
    ink[:, :16] = (200, 30, 60, 40)
    ink[:, 16:] = (0, 0, 0, 255)
    data = save("JPEG", Image.fromarray(ink, "CMYK"), quality=98)
    assert b"Adobe" in data
    want = (255 - ink[..., :3].astype(float)) * (255 - ink[..., 3:]) / 255
    np.testing.assert_allclose(decoded(data), want, atol=5)
    np.testing.assert_allclose(decoded(save("TIFF", Image.fromarray(ink, "CMYK"))), want, atol=1)


def test_ycck_jpeg() -> None:
    # Adobe's YCCK holds YCbCr of the inks' amounts and the inverted black; Pillow's encoder inverts what it is given.
    cyan, magenta, yellow, black = 200.0, 30.0, 60.0, 40.0
    luma = 0.299 * cyan + 0.587 * magenta + 0.114 * yellow
    stored = [luma, 128 + (yellow - luma) * 0.564, 128 + (cyan - luma) * 0.713, 255 - black]
    flat = np.tile(np.rint(255 - np.array(stored)).astype(np.uint8), (16, 16, 1))
    data = bytearray(save("JPEG", Image.fromarray(flat, "CMYK"), quality=98))
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    data[transform] = 2
    want = [(255 - ink) * (255 - black) / 255 for ink in (cyan, magenta, yellow)]
    np.testing.assert_allclose(decoded(bytes(data)), np.tile(want, (16, 16, 1)), atol=5)


# More than 8 bits

DEEP = np.concatenate([np.arange(0, 65536, 257), [1, 128, 129, 255, 256, 65279, 65406, 65407, 65534, 65535]]).astype(np.uint16)[
    None, :, None
]


def test_16_bit_gray_png_and_tiff() -> None:
    want = np.rint(DEEP / 257).repeat(3, 2)
    np.testing.assert_array_equal(decoded(png(DEEP, 0)), want)
    np.testing.assert_array_equal(decoded(save("TIFF", Image.fromarray(DEEP[..., 0]))), want)
    assert want.max() == 255
    big_endian = save("TIFF", Image.frombytes("I;16B", DEEP.shape[1::-1], DEEP.astype(">u2").tobytes()))
    np.testing.assert_array_equal(decoded(big_endian), want)


def test_16_bit_gray_png_with_a_colour_key() -> None:
    data = png(np.array([[[1000], [1001]]], np.uint16), 0, (b"tRNS", struct.pack(">H", 1001)))
    np.testing.assert_array_equal(decoded(data), [[[4] * 3, [255] * 3]])


def test_16_bit_white_is_zero_tiff() -> None:
    data = bytearray(save("TIFF", Image.fromarray(DEEP[..., 0])))
    at = data.index(struct.pack("<HHL", 262, 3, 1)) + 8
    assert data[at] == 1
    data[at] = 0
    np.testing.assert_array_equal(decoded(bytes(data)), np.rint((65535 - DEEP.astype(int)) / 257).repeat(3, 2))


def test_16_bit_rgb_and_alpha_png() -> None:
    rgb = np.dstack([DEEP, DEEP[:, ::-1], DEEP // 2])
    np.testing.assert_allclose(decoded(png(rgb, 2)), rgb / 257, atol=1)
    assert decoded(png(np.full((1, 1, 3), 65535, np.uint16), 2)).tolist() == [[[255, 255, 255]]]
    rgba = np.dstack([rgb, np.full_like(DEEP, 65535)])
    np.testing.assert_allclose(decoded(png(rgba, 6)), rgb / 257, atol=1)
    gray_alpha = np.dstack([DEEP, np.zeros_like(DEEP)])
    assert (decoded(png(gray_alpha, 4)) == 255).all()


def test_16_bit_colour_key_does_not_hit_other_colours() -> None:
    rgb = np.full((1, 1, 3), 100 * 257, np.uint16)
    assert decoded(png(rgb, 2, (b"tRNS", struct.pack(">3H", 100, 100, 100)))).tolist() == [[[100, 100, 100]]]


def test_32_bit_integers_are_read_as_16() -> None:
    data = save("TIFF", Image.fromarray(DEEP[..., 0].astype(np.int32)))
    np.testing.assert_array_equal(decoded(data), np.rint(DEEP / 257).repeat(3, 2))


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_floats(white: int) -> None:
    values = np.linspace(0, white, 300, dtype=np.float32).reshape(3, 100)
    np.testing.assert_allclose(decoded(save("TIFF", Image.fromarray(values))), (values / white * 255)[..., None].repeat(3, 2), atol=0.51)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 70000.0])
def test_floats_without_a_range_are_refused(value: float) -> None:
    values = np.array([[0.5, value]], np.float32)
    assert "scale them first" in error_of(save("TIFF", Image.fromarray(values)))


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_beyond_16_bits_are_refused(value: int) -> None:
    assert "scale them first" in error_of(save("TIFF", Image.fromarray(np.array([[0, value]], np.int32))))


# Limits and broken input


def test_the_pixel_limit_is_checked_before_decoding() -> None:
    header = struct.pack(">2L5B", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n"
    for name, body in [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000)))]:
        bomb += struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))
    message = error_of(bomb)
    for words in ("100000 × 100000", "10000000000 pixels", "178956970", "--max-pixels"):
        assert words in message
    assert "--max-pixels" in error_of(FILES["jpeg"], max_pixels=40 * 56 - 1)
    assert decode_image(FILES["jpeg"], "a", max_pixels=40 * 56).shape == (40, 56, 3)


@pytest.mark.parametrize("name", FILES)
def test_pillows_own_limit_has_no_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = decode_image(FILES[name], "a")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(FILES[name]))
    np.testing.assert_array_equal(decode_image(FILES[name], "a"), wanted)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello world", "not an image"),
        (b"\xff\xd8\xff", "cannot be decoded"),
        (b"BM", "cannot be decoded"),
        (b"\0\0\0\x20ftypheic" + bytes(40), "HEIC"),
        (save("PPM"), "JPEG, PNG, WebP, TIFF, BMP or GIF"),
        (save("JPEG2000") if "JPEG2000" in Image.SAVE else b"\0\0\0\x0cjP  ", "JPEG, PNG, WebP, TIFF, BMP or GIF"),
        (save("ICO"), "not an image"),
    ],
)
def test_what_is_not_an_image_is_refused(data: bytes, words: str) -> None:
    assert words in error_of(data)
    if words != "cannot be decoded":
        with pytest.raises(InputError, match=r"^dir/a\.img "):
            image_size(data, "dir/a.img")


@pytest.mark.parametrize("name", FILES)
def test_truncation_never_gives_another_picture(name: str) -> None:
    data = FILES[name]
    whole = decode_image(data, "a")
    refused = 0
    for size in {*range(0, len(data), max(1, len(data) // 150)), *range(len(data) - 12, len(data))}:
        try:
            got = decode_image(data[:size], "a")
        except InputError:
            refused += 1
        else:  # only what follows the pixels is missing
            assert len(data) - size < 30
            np.testing.assert_array_equal(got, whole)
    assert refused > 100


@given(st.sampled_from(sorted(FILES)), st.data())
@settings(deadline=None, max_examples=400)
def test_changed_bytes_give_a_picture_or_an_input_error(name: str, data: st.DataObject) -> None:
    broken = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        near_the_start = data.draw(st.integers(0, min(len(broken), 200) - 1))
        at = data.draw(st.sampled_from([near_the_start, data.draw(st.integers(0, len(broken) - 1))]))
        broken[at] = data.draw(st.integers(0, 255))
    del broken[data.draw(st.one_of(st.just(len(broken)), st.integers(0, len(broken)))) :]
    message = None
    try:
        rgb = decode_image(bytes(broken), "a.img", max_pixels=1_000_000)
    except InputError as error:
        message = str(error)
    if message is not None:
        assert message.startswith("a.img ")
        assert "\n" not in message
    else:
        assert rgb.dtype == np.uint8
        assert rgb.shape[2] == 3
        assert image_size(bytes(broken), "a.img") == (rgb.shape[1], rgb.shape[0])


def test_threads_get_the_same_pictures() -> None:
    wanted = {name: decode_image(data, name) for name, data in FILES.items()}
    broken = FILES["jpeg"][:-200]

    def work(name: str) -> bool:
        with pytest.raises(InputError):
            decode_image(broken, "broken")
        return bool((decode_image(FILES[name], name) == wanted[name]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, sorted(FILES) * 20))


def test_pillows_warnings_stay_silent() -> None:
    data = bytearray(save("TIFF"))
    at = data.index(struct.pack("<HHL", 277, 3, 1)) + 4  # SamplesPerPixel, which takes one value, gets two
    data[at] = 2
    script = (
        "import sys, io\n"
        "from ovskit.core.formats.photographs.decoding import decode_image\n"
        "data = sys.stdin.buffer.read()\n"
        "print(decode_image(data, 'a').shape, flush=True)\n"
        "import warnings; warnings.resetwarnings()\n"
        "decode_image(data, 'a')\n"
    )
    done = subprocess.run([sys.executable, "-W", "default", "-c", script], input=bytes(data), capture_output=True, check=True)
    assert done.stdout.split() == b"(40, 56, 3)".split()
    # Without the filter the same file does warn, once: the test would notice if Pillow no longer did.
    assert done.stderr.count(b"UserWarning") == 1
