"""QR codes: what is drawn is read, also from a photograph that is not straight; what is no picture is told."""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter, PngImagePlugin

from floe import qr
from floe.errors import ConfigError, StoreError

TEXT = "FLOE1:" + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ+-./:" * 4


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "code.png"
    qr.save(TEXT, path)
    return path


def test_what_is_saved_as_png_is_read_again(picture: Path) -> None:
    assert qr.read(picture) == TEXT


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    with pytest.raises(ConfigError, match="no regular file"):
        qr.read(tmp_path / "fifo.png")


def tilted(picture: Image.Image) -> Image.Image:
    from_the_side = (1, 0.12, -30, 0.05, 1.1, -40, 0.0002, 0.0002)
    return picture.transform((500, 500), Image.Transform.PERSPECTIVE, from_the_side, fillcolor=255)


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture.rotate(13, Image.Resampling.BICUBIC, expand=True, fillcolor=255),
        lambda picture: picture.rotate(90),
        lambda picture: picture.filter(ImageFilter.GaussianBlur(3)),
        lambda picture: picture.point(lambda value: 255 - value),
        lambda picture: picture.point(lambda value: 90 + value // 4),
        tilted,
    ],
    ids=["rotated", "on its side", "blurred", "inverted", "pale", "from the side"],
)
def test_a_photograph_of_it_is_read(
    picture: Path, change: Callable[[Image.Image], Image.Image], tmp_path: Path
) -> None:
    with Image.open(picture) as straight:
        change(straight.convert("L")).save(tmp_path / "photograph.jpg", quality=60)
    assert qr.read(tmp_path / "photograph.jpg") == TEXT


def test_a_code_in_a_corner_of_a_large_photograph_is_read(picture: Path, tmp_path: Path) -> None:
    photograph = Image.new("RGB", (6000, 4000), "white")
    with Image.open(picture) as code:
        photograph.paste(code.resize((900, 900)), (4800, 2900))
    photograph.save(tmp_path / "photograph.jpg")
    assert qr.read(tmp_path / "photograph.jpg") == TEXT


def test_the_terminal_shows_the_same_code_in_few_lines(tmp_path: Path) -> None:
    lines = qr.in_terminal(TEXT[:190]).splitlines()
    assert len(lines) <= 23, "24 lines are a whole terminal"
    drawn = [re.fullmatch(r"\x1b\[30;107m([ ▄▀█]+)\x1b\[0m", line) for line in lines]
    blocks = [line[1] for line in drawn if line]
    assert len(blocks) == len(lines)
    shown = Image.new("L", (len(blocks[0]), 2 * len(blocks)), 255)
    for y, line in enumerate(blocks):
        for x, block in enumerate(line):
            for half, dark in enumerate((block in "▀█", block in "▄█")):
                shown.putpixel((x, 2 * y + half), 0 if dark else 255)
    shown.resize((shown.width * 8, shown.height * 8), Image.Resampling.NEAREST).save(tmp_path / "shown.png")
    assert qr.read(tmp_path / "shown.png") == TEXT[:190]


def test_an_svg_has_the_same_code_on_white(tmp_path: Path) -> None:
    qr.save(TEXT, tmp_path / "code.SVG")
    text = (tmp_path / "code.SVG").read_text()
    background, modules = re.findall(r'<path .*?d="([^"]+)"', text)
    assert 'fill="#fff"' in text
    drawn = Image.new("L", [int(side) for side in re.findall(r"[0-9]+", background)[2:4]], 255)
    x = y = 0.0
    for kind, first, second in re.findall(r"([Mmh])(-?[0-9.]+)(?: (-?[0-9.]+))?", modules):
        if kind == "h":
            for column in range(int(first)):
                drawn.putpixel((int(x) + column, int(y)), 0)
        x = float(first) + (0 if kind == "M" else x)
        y = y if kind == "h" else float(second) + (0 if kind == "M" else y)
    drawn.resize((drawn.width * 8, drawn.height * 8), Image.Resampling.NEAREST).save(tmp_path / "drawn.png")
    assert qr.read(tmp_path / "drawn.png") == TEXT


def test_digits_and_letters_make_a_smaller_code_than_bytes() -> None:
    assert len(qr.in_terminal(TEXT[:180]).splitlines()) == 23
    with pytest.raises(ConfigError, match="text of 5 characters that fits into no QR code"):
        qr.in_terminal("lower")
    with pytest.raises(ConfigError, match="text of 5000 characters"):
        qr.in_terminal("A" * 5000)


@pytest.mark.parametrize("name", ["code.gif", "code", "png"])
def test_another_kind_of_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a QR code is saved as \.png or \.svg"):
        qr.save(TEXT, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_does_not_take_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/code\.png"):
        qr.save(TEXT, tmp_path / "file" / "code.png")


def test_a_picture_without_a_code_and_one_with_two_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.effect_noise((300, 300), 60).save(path)
    with pytest.raises(ConfigError, match=r"x\.png: no QR code found in it"):
        qr.read(path)
    both = Image.new("L", (900, 450), 255)
    for place, text in ((0, "ONE"), (450, "TWO")):
        qr.save(text, tmp_path / "one.png")
        with Image.open(tmp_path / "one.png") as code:
            both.paste(code.convert("L"), (place, 0))
    both.save(path)
    with pytest.raises(ConfigError, match="2 QR codes found in it"):
        qr.read(path)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a" + bytes(50), b"text"])
def test_what_is_no_picture_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.png: cannot be read: no PNG or JPEG, or damaged"):
        qr.read(tmp_path / "x.png")


def test_a_file_that_is_not_there_or_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        qr.read(tmp_path / "x.png")
    with pytest.raises(ConfigError, match="no regular file"):
        qr.read(tmp_path)


def _claiming(width: int, height: int) -> bytes:
    """The beginning of a PNG that says it has so many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize("side", [7072, 10_000, 50_000, 2**31 - 1])
def test_a_picture_that_claims_too_many_pixels_is_not_decoded(side: int, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(_claiming(side, side))
    with pytest.raises(ConfigError, match="more than 32 MiB or 50 million pixels"):
        qr.read(tmp_path / "x.png")


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(qr.MAX_PICTURE_BYTES + 1)
    with pytest.raises(ConfigError, match="more than 32 MiB"):
        qr.read(tmp_path / "x.png")


def test_a_text_chunk_that_unpacks_to_much_is_refused(picture: Path) -> None:
    information = PngImagePlugin.PngInfo()
    information.add_text("comment", "A" * 100_000_000, zip=True)
    with Image.open(picture) as code:
        code.save(picture, pnginfo=information)
    with pytest.raises(ConfigError, match="cannot be read"):
        qr.read(picture)


def _seed(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("L", (60, 40), 200).save(out, kind)
    return out.getvalue()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.sampled_from([_seed("PNG"), _seed("JPEG")]),
    changes=st.lists(st.tuples(st.integers(0, 700), st.binary(max_size=4)), max_size=5),
)
def test_a_damaged_picture_is_a_configuration_error(
    seed: bytes, changes: list[tuple[int, bytes]], tmp_path: Path
) -> None:
    for place, put in changes:
        seed = seed[:place] + put + seed[place + 1 :]
    (tmp_path / "x").write_bytes(seed)
    with pytest.raises(ConfigError, match=r"x: (cannot be read|no QR code|a picture of more)"):
        qr.read(tmp_path / "x")


@pytest.mark.parametrize("module", ["zxingcpp", "PIL"])
def test_a_package_that_is_absent_is_told_with_the_way_out(
    module: str, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"{module} is needed: pip install 'floe\[qr\]'; or give the code as text"):
        qr.read(picture)
