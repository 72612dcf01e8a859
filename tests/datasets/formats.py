"""Files in every format, depth, orientation and palette that docs/formats.md has a row for."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

HEIGHT, WIDTH = 16, 24
ROWS, COLS = np.mgrid[0:HEIGHT, 0:WIDTH]
COLOURS = np.stack([COLS * 10, ROWS * 15, (COLS + ROWS) * 6], -1).astype(np.uint8)
"""An image that looks different however it is turned."""

IMAGE = Image.fromarray(COLOURS)
PALETTE = IMAGE.convert("P", palette=Image.Palette.ADAPTIVE)
ALPHA = np.minimum(COLS * 20, 255).astype(np.uint8)
GREY16 = (COLS * 2000 + ROWS * 777 + 13).astype(np.uint16)
COLOURS16 = np.stack([COLS * 2000 + 55, ROWS * 4000 + 99, (COLS + ROWS) * 1500], -1)
IDS = (ROWS // 8 + COLS // 12).astype(np.uint8)
"""The ids of every mask: 0, 1, 2."""

TURNED = range(2, 9)
"""The orientations in EXIF that are not upright."""


@dataclass(frozen=True)
class File:
    """A file of a row of the table; ``shown_alike``: its colours are those that browsers show."""

    row: str
    content: bytes
    shown_alike: bool = True


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def xmp(orientation: int) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        'rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        f'tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'
    ).encode()


def png(depth: int, colour: int, values: np.ndarray, *, before=(), behind=()) -> bytes:
    """A PNG made by hand: values (H, W) or (H, W, C), chunks before and behind the pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    flat = values.reshape(len(values), -1).astype(np.uint16)
    if depth < 8:
        bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(len(flat), -1).astype(np.uint8), axis=1)
    else:
        rows = flat.astype(">u2" if depth == 16 else np.uint8)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, colour, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *(chunk(*part) for part in before),
            chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
            *(chunk(*part) for part in behind),
            chunk(b"IEND", b""),
        ]
    )


def bmp(bits: int, values: np.ndarray, masks: bytes = b"") -> bytes:
    """A BMP made by hand, its rows from the top down."""
    data, start = values.tobytes(), 54 + len(masks)
    sizes = struct.pack(
        "<IiiHHIIiiII", 40, WIDTH, -HEIGHT, 1, bits, 3 if masks else 0, 0, 0, 0, 0, 0
    )
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + sizes + masks + data


def _several(kind: str) -> bytes:
    return saved(IMAGE, kind, save_all=True, append_images=[ImageOps.invert(IMAGE)], duration=9000)


def _png_text(text: bytes) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", text.decode())
    return info


def _images() -> dict[str, list[bytes]]:
    grey = IMAGE.convert("L")
    rgba = Image.fromarray(np.dstack([COLOURS, ALPHA]))
    deep_alpha = (ALPHA.astype(int) * 257)[..., None]
    turned = exif(6).tobytes().removeprefix(b"Exif\0\0")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    fives = COLOURS.astype(np.uint16) >> 3
    return {
        "JPEG, 8 bit colour or grey, baseline or progressive": [
            saved(IMAGE, "JPEG", quality=95),
            saved(IMAGE, "JPEG", quality=95, progressive=True, subsampling=0),
            saved(grey, "JPEG", quality=95),
        ],
        "JPEG, CMYK": [saved(IMAGE.convert("CMYK"), "JPEG", quality=95)],
        "JPEG with several images (MPO)": [
            saved(IMAGE, "MPO", save_all=True, append_images=[ImageOps.invert(IMAGE)], quality=95)
        ],
        "PNG, 1, 2, 4 or 8 bit grey": [
            png(depth, 0, (ROWS + COLS) % 2**depth) for depth in (1, 2, 4, 8)
        ],
        "PNG, 8 bit colour": [saved(IMAGE, "PNG")],
        "PNG, 16 bit grey": [png(16, 0, GREY16)],
        "PNG, 16 bit colour": [png(16, 2, COLOURS16)],
        "PNG, palette": [
            saved(PALETTE, "PNG"),
            saved(PALETTE.quantize(4), "PNG", bits=2),
            saved(PALETTE.quantize(16), "PNG", bits=4),
        ],
        "WebP, lossy or lossless": [
            saved(IMAGE, "WEBP", quality=95),
            saved(IMAGE, "WEBP", lossless=True),
        ],
        "GIF": [saved(IMAGE, "GIF")],
        "BMP, 1 to 32 bits": [
            saved(IMAGE.convert("1"), "BMP"),
            saved(grey, "BMP"),
            saved(PALETTE, "BMP"),
            saved(IMAGE, "BMP"),
            bmp(16, (fives[..., 0] << 10 | fives[..., 1] << 5 | fives[..., 2]).astype("<u2")),
            bmp(32, np.dstack([COLOURS[..., ::-1], ALPHA])),
        ],
        "any of these, with an extension of another": [saved(IMAGE, "JPEG", quality=95)],
        "transparent pixels (PNG, WebP, GIF)": [
            saved(rgba, "PNG"),
            saved(rgba.convert("LA"), "PNG"),
            saved(PALETTE, "PNG", transparency=bytes(range(256))),
            saved(IMAGE, "PNG", transparency=(0, 0, 0)),
            png(16, 6, np.dstack([COLOURS16, deep_alpha])),
            png(16, 4, np.dstack([GREY16, deep_alpha])),
            saved(rgba, "WEBP", lossless=True, exact=True),
            saved(PALETTE, "GIF", transparency=3),
        ],
        "EXIF orientation in JPEG": [
            saved(IMAGE, "JPEG", quality=95, exif=exif(number)) for number in (1, *TURNED, 9)
        ],
        "EXIF orientation in PNG, before the pixels": [
            saved(IMAGE, "PNG", exif=exif(number)) for number in TURNED
        ],
        "EXIF orientation in PNG, behind the pixels": [
            png(8, 2, COLOURS, behind=[(b"eXIf", turned)])
        ],
        "EXIF orientation in WebP": [
            saved(IMAGE, "WEBP", lossless=True, exif=exif(number)) for number in TURNED
        ],
        "XMP orientation (JPEG, PNG, WebP)": [
            saved(IMAGE, "JPEG", quality=95, xmp=xmp(6)),
            saved(IMAGE, "JPEG", quality=95, xmp=xmp(6), exif=exif(1)),
            saved(IMAGE, "JPEG", quality=95, xmp=xmp(6), exif=exif(3)),
            saved(IMAGE, "PNG", pnginfo=_png_text(xmp(6))),
            saved(IMAGE, "PNG", pnginfo=_png_text(xmp(6)), exif=exif(3)),
            saved(IMAGE, "WEBP", lossless=True, xmp=xmp(6)),
        ],
        "colour profile or gamma": [
            png(8, 2, COLOURS, before=[(b"gAMA", struct.pack(">I", 100_000))]),
            saved(IMAGE, "PNG", icc_profile=profile),
        ],
    }


def _refused_images() -> dict[str, list[bytes]]:
    return {
        "JPEG or PNG, cut short": [saved(IMAGE, kind)[:-60] for kind in ("JPEG", "PNG")],
        "PNG, 16 bit with one transparent colour": [
            png(16, 0, GREY16, before=[(b"tRNS", struct.pack(">H", 13))]),
            png(16, 2, COLOURS16, before=[(b"tRNS", struct.pack(">HHH", 55, 99, 0))]),
        ],
        "animated PNG, WebP or GIF": [_several(kind) for kind in ("PNG", "WEBP", "GIF")],
        "TIFF, AVIF, JPEG 2000, ICO, PPM, EPS, PDF, SVG and all others": [
            *(
                saved(IMAGE, kind)
                for kind in ("TIFF", "AVIF", "JPEG2000", "ICO", "PPM", "EPS", "PDF")
            ),
            b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        ],
        "more than 8192×8192 pixels": [
            png(8, 0, np.zeros((1, 1))).replace(
                png(8, 0, np.zeros((1, 1)))[16:33],
                (header := struct.pack(">IIBBBBB", 8193, 8192, 8, 0, 0, 0, 0))
                + struct.pack(">I", zlib.crc32(b"IHDR" + header)),
            )
        ],
    }


PROFILED = "colour profile or gamma"
READ_IMAGES = [
    File(row, content, row != PROFILED) for row, all_of in _images().items() for content in all_of
]
REFUSED_IMAGES = [
    File(row, content) for row, all_of in _refused_images().items() for content in all_of
]


def _masks() -> dict[str, list[bytes]]:
    palette = Image.fromarray(IDS)
    palette.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    return {
        "PNG, 8 or 16 bit grey": [png(8, 0, IDS), png(16, 0, IDS)],
        "PNG, 1, 2 or 4 bit grey": [png(1, 0, IDS > 0), png(2, 0, IDS), png(4, 0, IDS)],
        "PNG, palette of 1 to 8 bits, also with transparency": [
            saved(palette, "PNG"),
            saved(palette, "PNG", bits=2),
            saved(palette, "PNG", bits=4, transparency=0),
        ],
    }


def _refused_masks() -> dict[str, list[bytes]]:
    grey = Image.fromarray(IDS)
    return {
        "PNG in colours": [
            saved(grey.convert("RGB"), "PNG"),
            png(16, 2, np.dstack([IDS] * 3)),
        ],
        "PNG with alpha": [saved(grey.convert(mode), "PNG") for mode in ("LA", "RGBA")],
        "EXIF orientation": [saved(grey, "PNG", exif=exif(number)) for number in TURNED],
        "JPEG, WebP, GIF, BMP, TIFF and all others": [
            saved(grey, kind) for kind in ("JPEG", "WEBP", "GIF", "BMP", "TIFF")
        ],
    }


READ_MASKS = [File(row, content) for row, all_of in _masks().items() for content in all_of]
REFUSED_MASKS = [File(row, c) for row, all_of in _refused_masks().items() for c in all_of]
