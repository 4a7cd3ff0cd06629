"""Read picture files as 32 x 32 images, the input of the networks."""

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from klcli.data.augmentation import SIDE
from klcli.data.dataset import PIXELS
from klcli.errors import DataError
from klcli.files import open_regular
from klcli.text import one_line, path_text

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # for EPS, Pillow would start Ghostscript
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
    6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # by the orientation of EXIF  # fmt: skip
BACKGROUND = (255, 255, 255)  # background of transparent pixels
SIXTEEN_BITS = {258: (16,), 339: (1,), 262: 1}  # tags of a TIFF: bits, an integer without a sign, 0 is black


def read_picture(path: Path) -> np.ndarray:
    """Return a picture as (3072,) uint8, channel-major: rotated by its EXIF data, drawn on white, its central square
    resampled by Lanczos. Raises DataError for a file that is no picture.
    """
    from PIL import Image, UnidentifiedImageError  # slow to import, and only one command needs it

    where = path_text(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damage beside the pixels, as in the data of the camera
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open_regular(path) as file, Image.open(file, formats=FORMATS) as opened:
                _scale_transparent_value(opened)
                opened.load()  # which turns a TIFF
                turn = None
                with suppress(Exception):  # ImageOps.exif_transpose would raise one for a damaged block
                    turn = UPRIGHT.get(opened.getexif()[0x0112])
                picture: Any = opened.transpose(Image.Transpose[turn]) if turn else opened
                if picture.mode.startswith(("I", "F")):  # more than 8 bits of grey, which Pillow would clip at 255
                    _require_sixteen_bits(where, opened)
                    grey = np.asarray(picture, dtype=np.float64)
                    picture = Image.fromarray(np.clip(grey / 257, 0, 255).round().astype(np.uint8))
                    is_opaque = grey != opened.info.get("transparency")
                    picture.putalpha(Image.fromarray(np.uint8(255) * is_opaque))
                layer = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", layer.size, BACKGROUND), layer).convert("RGB")
    except FileNotFoundError:
        raise DataError(f"{where}: there is no such picture, name a PNG or JPEG file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(f"{where}: more than {Image.MAX_IMAGE_PIXELS} pixels, give a smaller picture") from None
    except (MemoryError, DataError):
        raise
    except Exception as error:  # the decoder of a damaged picture can raise almost any exception
        reason = "" if isinstance(error, UnidentifiedImageError) else f" ({one_line(error)})"
        raise DataError(f"{where}: this is not a readable picture{reason}, give a PNG or JPEG") from None
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    # Crop first: the filter would include pixels outside the square.
    square = picture.crop((left, top, left + side, top + side))
    small = square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(small).transpose(2, 0, 1).reshape(PIXELS)


def _scale_transparent_value(picture: Any) -> None:
    """Scale the transparent grey or colour of a PNG to 8 bits, as Pillow scales its pixels, and leaves this value."""
    value, bits = picture.info.get("transparency"), picture.tile[0].args if picture.format == "PNG" else ""
    if value is not None and bits in ("L;2", "L;4"):
        picture.info["transparency"] = value * 255 // (2 ** int(bits[-1]) - 1)
    elif value is not None and bits == "RGB;16B":
        picture.info["transparency"] = tuple(one >> 8 for one in value)


def _require_sixteen_bits(where: str, picture: Any) -> None:
    """Raise DataError for grey of other numbers than 0 to 65535: the white of 12 or 32 bits or floats is unknown."""
    tags = getattr(picture, "tag_v2", {})
    if picture.mode == "F" or any(tags.get(key, usual) != usual for key, usual in SIXTEEN_BITS.items()):
        raise DataError(f"{where}: it is unknown which of its numbers is white, save it with 8 or 16 bits of grey")
