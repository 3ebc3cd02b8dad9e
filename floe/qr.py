"""QR codes of join codes (ISO/IEC 18004): drawn in a terminal, saved as PNG or SVG, read from a photograph.

segno draws; zxing-cpp and Pillow read, which are the extra `floe[qr]`. All are imported when they are called.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from floe.errors import ConfigError
from floe.files import write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image
    from segno import QRCode

MAX_PICTURE_BYTES = 32 * 1024 * 1024
MAX_PIXELS = 50_000_000  # what a phone takes at most, but for its special modes; 50 MB as grey, 150 MB as colours
MAX_SIDE = 3000  # a larger picture is made smaller: a code that fills a tenth of it still has 5 pixels a module
_FORMATS = ("PNG", "JPEG")
_TERMINAL_BORDER = 2  # modules; half of what the standard asks for, which readers do not need on a screen
_INK = "\x1b[30;107m{}\x1b[0m"  # black on bright white, whatever the terminal's colours are


def in_terminal(text: str) -> str:
    """The code as lines of half blocks, two rows of modules to a line: 23 lines for a usual join code.

    Raises `ConfigError` for what fits into no code in alphanumeric mode.
    """
    rows = [bytes(row) for row in _code(text).matrix_iter(border=_TERMINAL_BORDER)]
    rows += [bytes(len(rows[0]))] * (len(rows) % 2)
    lines = (
        "".join(" ▄▀█"[2 * upper + lower] for upper, lower in zip(rows[at], rows[at + 1], strict=True))
        for at in range(0, len(rows), 2)
    )
    return "\n".join(_INK.format(line) for line in lines)


def save(text: str, path: Path) -> None:
    """The code as a PNG or SVG picture, as the name ends. Raises `ConfigError`, and `StoreError` of the disk."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise ConfigError(f"{path}: a QR code is saved as .png or .svg: let the name end in one of them")
    write_atomically(path, picture(text, kind))


def picture(text: str, kind: str) -> bytes:
    """The code as the content of a picture file, `png` or `svg`. Raises `ConfigError` as above."""
    content = io.BytesIO()
    _code(text).save(content, kind=kind, scale=8, light="#fff")
    return content.getvalue()


def read(path: Path) -> str:
    """The text of the one QR code in a PNG or JPEG picture. Raises `ConfigError`: no picture, too large, none or more
    than one code in it, packages missing.
    """
    try:
        import zxingcpp
        from PIL import Image
    except ImportError as error:
        raise ConfigError(
            f"{path}: to read a QR code from a picture, {error.name} is needed: pip install 'floe[qr]'; or give the "
            "code as text"
        ) from None
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: no regular file; give a photograph or a screenshot of the code as PNG or JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with path.open("rb") as file, Image.open(io.BytesIO(_content(file, path)), formats=_FORMATS) as picture:
                grey = _grey(picture, path)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ConfigError(_too_large(path)) from None
        except (OSError, SyntaxError, ValueError) as error:
            cause = error.strerror if isinstance(error, OSError) and error.strerror else "no PNG or JPEG, or damaged"
            raise ConfigError(
                f"{path}: cannot be read: {cause}; take a photograph or a screenshot of the code as PNG or JPEG, or "
                "give the code as text"
            ) from None
    kind = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)
    found = zxingcpp.read_barcodes(grey, formats=kind, text_mode=zxingcpp.TextMode.Plain)
    texts = sorted({code.text for code in found})
    if len(texts) != 1:
        raise ConfigError(
            f"{path}: {len(texts) or 'no'} QR code{'s' * (len(texts) > 1)} found in it; photograph one from the front, "
            "with its white border, or give the code as text"
        )
    return texts[0]


def _code(text: str) -> QRCode:
    import segno

    try:
        return segno.make_qr(text, error="l", mode="alphanumeric")
    except (ValueError, segno.DataOverflowError):
        raise ConfigError(f"a text of {len(text)} characters that fits into no QR code of digits and letters") from None


def _content(file: io.BufferedReader, path: Path) -> bytes:
    content = file.read(MAX_PICTURE_BYTES + 1)
    if len(content) > MAX_PICTURE_BYTES:
        raise ConfigError(_too_large(path))
    return content


def _grey(picture: Image, path: Path) -> Image:
    """Decoded, in grey, and small enough to be looked through. Nothing is decoded before its size is known."""
    if picture.width * picture.height > MAX_PIXELS:
        raise ConfigError(_too_large(path))
    picture.draft("L", (MAX_SIDE, MAX_SIDE))  # a JPEG is decoded at half or a quarter of its size
    grey = picture.convert("L")
    grey.thumbnail((MAX_SIDE, MAX_SIDE))
    return grey


def _too_large(path: Path) -> str:
    size = f"{MAX_PICTURE_BYTES // 1024**2} MiB or {MAX_PIXELS // 1_000_000} million pixels"
    return f"{path}: a picture of more than {size}: cut the code out of it, or give the code as text"
