"""Pictures: sizes, colours, transparency and orientation against pixels worked out by hand."""

import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from klcli.data.dataset import Dataset, split
from klcli.data.pictures import read_picture
from klcli.errors import DataError, ExitCode
from klcli.settings.split_config import SplitConfig
from klcli.text import path_text

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    picture = Image.fromarray(pixels)
    (picture if mode is None else picture.convert(mode)).save(path, **options)
    return path


def stripes(*colours: tuple[int, ...], width: int, height: int) -> np.ndarray:
    """Columns of these colours from left to right, each so wide."""
    row = np.repeat(np.array(colours, np.uint8), width, axis=0)
    return np.repeat(row[None], height, axis=0)


def colour_at(image: np.ndarray, row: int, column: int) -> tuple[int, ...]:
    return tuple(int(value) for value in image.reshape(3, 32, 32)[:, row, column])


def colours(image: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(int(value) for value in colour) for colour in image.reshape(3, 1024).T}


def test_a_picture_of_the_right_size_is_itself(tmp_path: Path, small_dataset: Dataset) -> None:
    image = small_dataset.images[7]
    path = save(tmp_path / "own.png", image.reshape(3, 32, 32).transpose(1, 2, 0).copy())
    np.testing.assert_array_equal(read_picture(path), image)


@pytest.mark.parametrize("size", [1, 5, 31, 33, 100, 400])
def test_one_colour_stays_this_colour_at_any_size(tmp_path: Path, size: int) -> None:
    path = save(tmp_path / "plain.png", stripes((10, 200, 30), width=size, height=size))
    assert colours(read_picture(path)) == {(10, 200, 30)}


def test_only_the_square_in_the_middle_is_seen(tmp_path: Path) -> None:
    pixels = stripes(RED, GREEN, RED, width=64, height=64)
    for name, turned in (("wide.png", pixels), ("tall.png", pixels.transpose(1, 0, 2).copy())):
        assert colours(read_picture(save(tmp_path / name, turned))) == {GREEN}


def test_shrinking_averages_what_a_pixel_covers(tmp_path: Path) -> None:
    board = ((np.indices((320, 320)).sum(axis=0) % 2) * 255).astype(np.uint8)  # a chessboard of single pixels
    image = read_picture(save(tmp_path / "board.png", board))
    assert image.min() >= 126 and image.max() <= 129  # another filter would pick squares and alias


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the left side of the stored pixels is the top of the scene
    stored = stripes(RED, BLUE, width=32, height=64)
    plain = read_picture(save(tmp_path / "plain.jpg", stored, quality=95))
    turned = read_picture(save(tmp_path / "turned.jpg", stored, quality=95, exif=exif.tobytes()))
    assert np.argmax(colour_at(plain, 16, 4)) == 0 and np.argmax(colour_at(plain, 16, 27)) == 2
    assert np.argmax(colour_at(turned, 4, 16)) == 0 and np.argmax(colour_at(turned, 27, 16)) == 2


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_every_orientation_is_turned_upright(tmp_path: Path, suffix: str) -> None:
    corners = np.kron(np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8), np.ones((16, 16, 1), np.uint8))
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = save(tmp_path / f"{orientation}.{suffix}", corners, exif=exif)
        with Image.open(path) as opened:
            expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        np.testing.assert_array_equal(read_picture(path), expected.transpose(2, 0, 1).reshape(-1))


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    pixels = stripes((255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128), (0, 0, 255, 255), width=8, height=32)
    image = read_picture(save(tmp_path / "glass.png", pixels))
    half = round(255 * (1 - 128 / 255))
    assert [colour_at(image, 9, column) for column in (0, 8, 16, 24)] == [RED, WHITE, (half,) * 3, BLUE]


@pytest.mark.parametrize(("depth", "channels"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)])
def test_the_transparent_value_of_a_png_is_white_at_any_depth(tmp_path: Path, depth: int, channels: int) -> None:
    """Pillow compares it with the pixels after their scaling to 8 bits, and ignores it for 16 bits of grey."""
    top = 2**depth - 1
    values = np.array([0, top, top // 3 + depth // 16] if depth > 1 else [0, 1])
    for key in values:
        pixels = np.broadcast_to(values[np.arange(32) % len(values), None], (32, 32, channels))
        rows = pixels.reshape(32, -1)
        if depth < 8:
            packed = np.packbits((rows[..., None] >> np.arange(depth)[::-1]) & 1, axis=None).reshape(32, -1)
        else:
            packed = np.ascontiguousarray(rows, ">u2" if depth == 16 else "u1").view(np.uint8)
        lines = np.insert(packed, 0, 0, axis=1).tobytes()  # each begins with its filter, here none
        chunks = {
            b"IHDR": struct.pack(">IIBBBBB", 32, 32, depth, 0 if channels == 1 else 2, 0, 0, 0),
            b"tRNS": struct.pack(f">{channels}H", *[key] * channels),
            b"IDAT": zlib.compress(lines),
            b"IEND": b"",
        }
        whole = (
            struct.pack(">I", len(own)) + name + own + struct.pack(">I", zlib.crc32(name + own))
            for name, own in chunks.items()
        )
        (tmp_path / "key.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(whole))
        expected = np.where(pixels == key, 255, pixels * 255 // top)
        expected = np.broadcast_to(expected, (32, 32, 3)).transpose(2, 0, 1).reshape(-1)
        np.testing.assert_array_equal(read_picture(tmp_path / "key.png"), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1"])
def test_grey_and_palettes(tmp_path: Path, mode: str) -> None:
    pixels = stripes((0, 0, 0), WHITE, width=16, height=32)
    image = read_picture(save(tmp_path / "grey.png", pixels, mode))
    assert (colour_at(image, 3, 2), colour_at(image, 3, 29)) == ((0, 0, 0), WHITE)


def test_sixteen_bits_of_grey(tmp_path: Path) -> None:
    pixels = np.full((32, 32), 128 * 257, np.uint16)
    assert set(read_picture(save(tmp_path / "deep.png", pixels))) == {128}


@pytest.mark.parametrize(
    ("numbers", "tags"),
    [
        (np.full((32, 32), 0.5, np.float32), {}),
        (np.full((32, 32), np.nan, np.float32), {}),
        (np.full((32, 32), 2**30, np.int32), {}),
        (np.full((32, 32), 2**15, np.uint16), {262: 0}),  # 0 is white
    ],
)
def test_grey_whose_white_is_unknown_is_refused(tmp_path: Path, numbers: np.ndarray, tags: dict[int, int]) -> None:
    """It was black, or white."""
    words = refused(save(tmp_path / "deep.tif", numbers, tiffinfo=tags))
    assert "save it with 8 or 16 bits" in words


def test_twelve_bits_of_grey_are_refused(tmp_path: Path) -> None:
    """Pillow returns numbers up to 4095, and other programs write them."""
    content = b"\xff" * 32 * 48
    tags = {256: 32, 257: 32, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 32, 279: len(content)}
    entries = b"".join(struct.pack("<HHII", key, 4, 1, value) for key, value in tags.items())
    start = struct.pack("<2sHI", b"II", 42, 8 + len(content))
    path = tmp_path / "deep.tif"
    path.write_bytes(start + content + struct.pack("<H", len(tags)) + entries + bytes(4))
    assert "save it with 8 or 16 bits" in refused(path)


def test_sixteen_bits_of_grey_in_other_formats(tmp_path: Path) -> None:
    numbers = np.full((32, 32), 128 * 257, np.uint16)
    assert set(read_picture(save(tmp_path / "deep.tif", numbers))) == {128}
    (tmp_path / "deep.pgm").write_bytes(b"P5 32 32 65535\n" + numbers.byteswap().tobytes())
    assert set(read_picture(tmp_path / "deep.pgm")) == {128}


def test_a_jpeg_in_cmyk(tmp_path: Path) -> None:
    image = read_picture(save(tmp_path / "print.jpg", stripes(WHITE, width=40, height=40), "CMYK"))
    assert set(image) == {255}


def test_pictures_are_standardised_as_the_training_images(small_dataset: Dataset) -> None:
    splits = split(small_dataset, SplitConfig(validation=100))
    train = splits.train
    pixels = [small_dataset.images[i] for i in (3, 1000)]
    pictures = splits.inputs.split(pixels, "pixel")
    X, y = pictures.batch(slice(None), np.float64)
    np.testing.assert_allclose(X, (np.stack(pixels) - train.mean) / splits.inputs.std, rtol=1e-12)
    assert pictures.inverse_std.tobytes() == train.inverse_std.tobytes()  # no bit of a prediction depends on the data
    assert len(y) == 2


def refused(path: Path) -> str:
    with pytest.raises(DataError) as error:
        read_picture(path)
    assert error.value.exit_code == ExitCode.DATA
    assert str(error.value).startswith(f"{path_text(path)}: ") and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + b"\x00" * 50]
)
def test_a_file_that_is_no_picture(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.png"
    path.write_bytes(content)
    assert "not a readable picture" in refused(path)


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg"])
def test_half_a_picture(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    path = save(tmp_path / name, rng.integers(0, 256, (90, 90, 3)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:2000])
    assert "not a readable picture" in refused(path)


def test_damage_beside_the_pixels_is_not_mentioned(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Pillow's warning would be two lines on stderr, with the path of its source."""
    exif = Image.Exif()
    exif[0x0112] = 1
    content = bytearray(exif.tobytes())
    content[15] = 9  # of entries: it has one
    path = save(tmp_path / "cut.jpg", stripes(WHITE, width=32, height=32), exif=bytes(content))
    assert set(read_picture(path)) == {255}
    assert not recwarn.list


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("content", [bytes(8), b"", b"MM", b"II*\0\xff\xff\xff\xff"])
def test_damage_of_the_whole_exif_block_is_not_mentioned(tmp_path: Path, suffix: str, content: bytes) -> None:
    """Pillow passes over it in a JPEG without the resolution, where it has looked there for it."""
    path = save(tmp_path / f"x.{suffix}", stripes(WHITE, width=32, height=32), dpi=(96, 96), exif=b"Exif\0\0" + content)
    assert set(read_picture(path)) == {255}


def test_damage_behind_the_orientation_leaves_the_picture_upright(tmp_path: Path) -> None:
    """Pillow's own function writes the rest of the block again, here a time that is a number, no text."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x0132, 11, 1, 0)
    content = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    path = save(tmp_path / "x.png", stripes(RED, BLUE, width=16, height=32), exif=content)
    image = read_picture(path)
    assert (colour_at(image, 4, 16), colour_at(image, 27, 16)) == (RED, BLUE)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    assert "no such picture" in refused(tmp_path / "cat.png")
    assert "this is a folder" in refused(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and devices with names are POSIX's")
@pytest.mark.timeout(60)
def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "this is a pipe" in refused(tmp_path / "pipe.png")
    assert "this is a device" in refused(Path("/dev/zero"))
    (tmp_path / "link.png").symlink_to("/dev/zero")
    assert "this is a device" in refused(tmp_path / "link.png")


def test_no_other_program_is_started_for_a_picture(tmp_path: Path) -> None:
    """Pillow hands PostScript to Ghostscript."""
    path = tmp_path / "cat.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(x) print\n%%EOF\n")
    assert "not a readable picture" in refused(path)


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="other systems refuse such a name")
def test_a_name_of_any_bytes(tmp_path: Path, small_dataset: Dataset) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    save(path, small_dataset.images[7].reshape(3, 32, 32).transpose(1, 2, 0).copy(), format="PNG")
    np.testing.assert_array_equal(read_picture(path), small_dataset.images[7])
    path.write_text("text")
    assert "caf\\xe9.png: this is not a readable picture" in refused(path)


def test_a_picture_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "huge.png", stripes(RED, width=50, height=50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # 2500 are more, and 1000 would be twice as many
    assert "2000 pixels" in refused(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "1000 pixels" in refused(path)
