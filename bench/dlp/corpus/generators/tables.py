"""Numeric tables, coordinates, binary content."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from collections.abc import Callable, Iterator

from .common import (
    ALNUM,
    CITIES,
    Family,
    Message,
    chars,
    digits,
    hexa,
    identifier,
    iso,
    message,
    person,
    pick,
    sentence,
    when,
    written,
)


def tables(rng: random.Random) -> Iterator[Message]:
    """Numeric tables: CSV, matrices, gradients, training logs, histograms, spreadsheets."""
    while True:
        number: Callable[[], object] = pick(
            rng,
            [
                lambda: rng.randrange(10),
                lambda: rng.randrange(10000),
                lambda: round(rng.gauss(0, 100), 4),
                lambda: rng.gauss(0, 1),
                lambda: rng.gauss(0, 1e-5),
                lambda: rng.randrange(10**9),
                lambda: f"{rng.gauss(0, 1):.6e}",
                lambda: rng.randrange(10**16),
                lambda: f"{rng.randrange(10 ** 7):,}",
                lambda: digits(rng, 4),
            ],
        )
        width, height = rng.randint(2, 12), rng.randint(2, 30)
        matrix = [[number() for _ in range(width)] for _ in range(height)]
        text = pick(rng, [",", "\t", " ", ";", " | ", "  "]).join
        yield pick(
            rng,
            [
                lambda: message("table", {"matrix": matrix}),
                lambda: message("tensor", {"shape": [height, width], "data": [v for r in matrix for v in r]}),
                lambda: written(rng, "table", "\n".join(text([str(v) for v in r]) for r in matrix)),
                lambda: written(rng, "table", "[" + ",\n ".join("[" + ", ".join(str(v) for v in r) + "]" for r in matrix) + "]"),
                lambda: message(
                    "training",
                    {
                        "step": rng.randrange(10**6),
                        "grad_norm": rng.random(),
                        "loss": rng.random(),
                        "hidden_layers": pick(rng, ["512-64-1024", "784-64-1024", "256-32-2048"]),
                        "lr": 3e-4,
                        "tokens_seen": rng.randrange(10**12),
                        "gradients": matrix[0],
                    },
                ),
                lambda: written(
                    rng,
                    "training",
                    "\n".join(
                        f"epoch {k} step {rng.randrange(10 ** 6)} loss {rng.random():.16f} tokens/s {rng.random() * 10 ** 5:.1f} batch {rng.randrange(100, 999)}/{rng.randrange(10, 99)}/{rng.randrange(1000, 9999)}"
                        for k in range(height)
                    ),
                ),
                lambda: message("sheet", {"values": [[str(v) for v in r] for r in matrix], "range": f"A1:{chr(65 + width)}{height}"}),
            ],
        )()


def coordinates(rng: random.Random) -> Iterator[Message]:
    """Coordinates and GeoJSON."""
    while True:
        point = lambda: [round(rng.uniform(-180, 180), rng.choice([4, 6, 7, 14])), round(rng.uniform(-90, 90), rng.choice([4, 6, 7, 14]))]  # noqa: E731
        points = [point() for _ in range(rng.randint(1, 40))]
        yield pick(
            rng,
            [
                lambda: message(
                    "geo",
                    {
                        "type": "FeatureCollection",
                        "features": [
                            {
                                "type": "Feature",
                                "geometry": {"type": "LineString", "coordinates": points},
                                "properties": {
                                    "name": pick(rng, CITIES),
                                    "osm_id": rng.randrange(10**11),
                                    "pass": pick(rng, ["mountain", "Brenner", "Gotthard"]),
                                },
                            }
                        ],
                    },
                ),
                lambda: message(
                    "geo",
                    {
                        "lat": points[0][1],
                        "lon": points[0][0],
                        "geohash": chars(rng, "0123456789bcdefghjkmnpqrstuvwxyz", 9),
                        "h3": hexa(rng, 15),
                    },
                ),
                lambda: written(rng, "geo", f"POLYGON(({', '.join(f'{x} {y}' for x, y in points)}))"),
                lambda: written(rng, "geo", "\n".join(f"{y:.6f},{x:.6f}" for x, y in points)),
                lambda: written(
                    rng,
                    "geo",
                    f"{abs(points[0][1]):.0f}°{rng.randrange(60)}'{rng.random() * 60:.2f}\"N {abs(points[0][0]):.0f}°{rng.randrange(60)}'E, UTM 32U {digits(rng, 6)} {digits(rng, 7)}",
                ),
                lambda: written(
                    rng,
                    "geo",
                    "".join(
                        f'<trkpt lat="{y}" lon="{x}"><ele>{rng.random() * 3000:.1f}</ele><time>{iso(when(rng))}</time></trkpt>'
                        for x, y in points
                    ),
                    "track.gpx",
                ),
                lambda: written(
                    rng,
                    "geo",
                    "$GPGGA,{},{}.{},N,0{}.{},E,1,08,0.9,545.4,M,46.9,M,,*47".format(
                        digits(rng, 6), digits(rng, 4), digits(rng, 3), digits(rng, 4), digits(rng, 3)
                    ),
                ),
                lambda: message("geo", {"polyline": chars(rng, ALNUM + "_@?`{}|~\\", rng.randint(30, 300))}),
            ],
        )()


def image(rng: random.Random) -> bytes:
    """A picture as PNG, or bytes that start as JPEG, GIF, WebP do."""
    if rng.random() < 0.5:
        width, height = rng.randint(4, 24), rng.randint(4, 24)

        def chunk(name: bytes, body: bytes) -> bytes:
            return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

        pixels = b"".join(b"\0" + rng.randbytes(width * 3) for _ in range(height))
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(pixels))
            + chunk(b"IEND", b"")
        )
    return pick(
        rng,
        [
            b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0",
            b"GIF89a\x10\0\x10\0",
            b"RIFF\x24\4\0\0WEBPVP8 ",
            b"PK\3\4\x14\0\0\0\x08\0",
            b"\x1f\x8b\x08\0\0\0\0\0\0\3",
            b"ID3\4\0\0\0\0",
            b"\0asm\1\0\0\0",
        ],
    ) + rng.randbytes(rng.randint(100, 4000))


def pdf(rng: random.Random) -> bytes:
    """A PDF of one page."""
    stream = zlib.compress(f"BT /F1 12 Tf ({sentence(rng)}) Tj ET".encode() * rng.randint(1, 40))
    return (
        b"%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n3 0 obj<</Length "
        + str(len(stream)).encode()
        + b"/Filter/FlateDecode>>stream\n"
        + stream
        + b"\nendstream endobj\nxref\n0 4\n0000000000 65535 f \n"
        + b"".join(f"{rng.randrange(10 ** 5):010d} 00000 n \n".encode() for _ in range(3))
        + f"trailer<</Size 4/ID[<{hexa(rng, 32)}><{hexa(rng, 32)}>]>>\nstartxref\n{rng.randrange(9999)}\n%%EOF\n".encode()
    )


def binary(rng: random.Random) -> Iterator[Message]:
    """Pictures, PDFs and other content in base64 and hexadecimal."""
    while True:
        raw = pdf(rng) if rng.random() < 0.3 else image(rng)
        kind = "application/pdf" if raw.startswith(b"%PDF") else "image/png"
        text = base64.b64encode(raw).decode()
        yield message(
            "attachment",
            pick(
                rng,
                [
                    {"image_url": {"url": f"data:{kind};base64,{text}"}},
                    {"type": "image", "source": {"type": "base64", "media_type": kind, "data": text}},
                    {"inlineData": {"mimeType": kind, "data": text}},
                    {"attachments": [{"name": f"{identifier(rng)}.pdf", "content": text, "sha1": hexa(rng, 40), "size": len(raw)}]},
                    {"b64_json": text, "revised_prompt": sentence(rng)},
                    {"text": "\n".join(text[k : k + 76] for k in range(0, len(text), 76))},
                    {"text": f"![{sentence(rng)}](data:{kind};base64,{text})"},
                    {"hex": raw[:600].hex()},
                    {"dump": "\n".join(f"{k:08x}  {raw[k:k + 16].hex(' ')}" for k in range(0, min(len(raw), 400), 16))},
                    {"bytes": list(raw[:300])},
                    {"data": base64.urlsafe_b64encode(raw).decode().rstrip("="), "author": person(rng)},
                ],
            ),
        )


FAMILIES: dict[str, Family] = {
    "numbers_tables": tables,
    "numbers_coordinates": coordinates,
    "binary_base64": binary,
}
