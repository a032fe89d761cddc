"""Numbers and identifiers of all kinds, tables, coordinates, binary content."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from collections.abc import Callable, Iterator

from .common import (ADJECTIVES, ALNUM, BASE32, CITIES, COMPANIES, NOUNS, SERVICES, Family, Message, base64_text, base64url, chars, digits, hexa, identifier, iso, message,
                     person, pick, semver, sentence, uuid, when, with_luhn, written)


def listing(kind: str, names: list[str], value: Callable[[random.Random], object]) -> Family:
    """A family of values: under keys, in lists, in columns, in sentences, in tables."""
    def generate(rng: random.Random) -> Iterator[Message]:
        while True:
            name, values = pick(rng, names), [value(rng) for _ in range(rng.randint(1, 12))]
            label = name.replace("_", " ")
            yield pick(rng, [
                lambda: message(kind, {name: values[0]}), lambda: message(kind, {name + "s": values}), lambda: message(kind, {"items": [{name: v, "name": identifier(rng)} for v in values]}), lambda: written(rng, kind, "\n".join(str(v) for v in values)), lambda: written(rng, kind, f"{label}: {values[0]}\n{sentence(rng)}"),
                lambda: written(rng, kind, f"{sentence(rng)} The {label} is {values[0]}. {sentence(rng)}"), lambda: written(rng, kind, f"no,{name},text\n" + "\n".join(f"{k},{v},{pick(rng, NOUNS)}" for k, v in enumerate(values))), lambda: written(rng, kind, f"| {label} | |\n|---|---|\n" + "\n".join(f"| {v} | {pick(rng, ADJECTIVES)} |" for v in values)),
                lambda: written(rng, kind, " ".join(f"{name}={v}" for v in values[:4])), lambda: written(rng, kind, f"{pick(rng, COMPANIES)}: " + ", ".join(str(v) for v in values)), lambda: message(kind, {pick(rng, SERVICES): {name: values[0], "ok": True}}), lambda: written(rng, kind, "\n".join(f"{k}. {v}" for k, v in enumerate(values, 1)))])()
    return generate


def mod10(body: str) -> str:
    """A GS1 number: the body and its check digit."""
    total = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(body)))
    return body + str(-total % 10)


def isbn10(rng: random.Random) -> str:
    """An ISBN of ten characters."""
    body = digits(rng, 9)
    check = sum(int(digit) * place for place, digit in enumerate(body, 1)) % 11
    return body + ("X" if check == 10 else str(check))


def product(rng: random.Random) -> object:
    """EAN, UPC, ISBN, IMEI, ICCID, tracking numbers, VIN, serial numbers."""
    ean = mod10(pick(rng, ["40", "42", "30", "50", "76", "87", "978", "979"]) + digits(rng, 10))[:13]
    return pick(rng, [
        lambda: ean, lambda: int(ean), lambda: mod10("978" + digits(rng, 9)), lambda: "-".join(["978", "3", digits(rng, 4), digits(rng, 4), digits(rng, 1)]), lambda: isbn10(rng), lambda: mod10(digits(rng, 11)), lambda: mod10("0" + digits(rng, 12)), lambda: mod10("3" + digits(rng, 16)), lambda: with_luhn(rng, pick(rng, ["35", "86", "01", "99"]), 15), lambda: with_luhn(rng, "8949", pick(rng, [19, 20])),
        lambda: f"1Z{chars(rng, '0123456789ABCDEFGHJKLMNPRSTVWXYZ', 16)}", lambda: digits(rng, 12), lambda: digits(rng, 20), lambda: "9400" + digits(rng, 18), lambda: f"{chars(rng, 'ABCDEFGHJKLMNPRSTUVWXYZ', 2)}{digits(rng, 9)}{pick(rng, ['DE', 'US', 'CN', 'GB'])}", lambda: "JJD" + digits(rng, 15), lambda: f"W{chars(rng, '0123456789ABCDEFGHJKLMNPRSTUVWXYZ', 16)}", lambda: f"SN{digits(rng, 10)}", lambda: chars(rng, "0123456789ABCDEFGH", 12),
        lambda: digits(rng, 14), lambda: digits(rng, 16), lambda: f"{digits(rng, 4)}-{digits(rng, 4)}-{digits(rng, 4)}", lambda: f"{digits(rng, 3)}-{digits(rng, 3)}-{digits(rng, 4)}"])()


def part_number(rng: random.Random) -> object:
    """Part numbers, sizes and ranges that look like phone and social security numbers."""
    return pick(rng, ["{a3}-{a2}-{a4}", "{a3}/{a2}/{a4}", "{a3}.{a2}.{a4}", "{a3} {a2} {a4}", "{a3}-{a3}-{a4}", "{a2}-{a4}-{a4}", "{a1}-{a3}-{a3}-{a4}", "({a3}) {a3}-{a4}", "{a3}-{a2}-{a4}-{L}", "{L}{a3}-{a2}-{a4}", "{a4} {a4} {a4}", "{a4}.{a4}", "{a2}.{a3}.{a3}/{a4}-{a2}", "+{a2} mm / {a4}", "{a5}-{a4}", "{a9}", "{a2}-{a7}", "{a3}x{a2}x{a4}", "{a3},{a2},{a4}", "{a3}:{a2}:{a4}"]).format(
        L=chars(rng, "ABCDEFGHKLM", 2), **{f"a{k}": digits(rng, k) for k in range(1, 10)})


def hash_or_id(rng: random.Random) -> object:
    """UUIDs, ULIDs, snowflakes, hashes, object ids, nano ids."""
    return pick(rng, [lambda: uuid(rng), lambda: uuid(rng).replace("-", ""), lambda: "01" + chars(rng, "0123456789ABCDEFGHJKMNPQRSTVWXYZ", 24), lambda: rng.getrandbits(63), lambda: str(rng.getrandbits(62)), lambda: hexa(rng, 24), lambda: hexa(rng, 32), lambda: hexa(rng, 40), lambda: hexa(rng, 64), lambda: "sha256:" + hexa(rng, 64), lambda: "sha512-" + base64_text(rng, 64), lambda: base64url(rng, 21),
                       lambda: "c" + chars(rng, "abcdefghijklmnopqrstuvwxyz0123456789", 24), lambda: base64url(rng, 11), lambda: "0x" + hexa(rng, 40), lambda: chars(rng, BASE32, 26).lower(), lambda: "Qm" + chars(rng, ALNUM, 44), lambda: rng.randrange(10 ** 16), lambda: str(rng.randrange(10 ** 15, 10 ** 16)), lambda: f"arn:aws:iam::{digits(rng, 12)}:role/{identifier(rng)}", lambda: f"i-0{hexa(rng, 16)}", lambda: "$argon2id$v=19$m=65536,t=3,p=4$"[:9] + "…", lambda: f"urn:uuid:{uuid(rng)}", lambda: ":".join(hexa(rng, 2) for _ in range(6))])()


def timestamp(rng: random.Random) -> object:
    """Moments in all units."""
    moment = when(rng)
    seconds = moment.timestamp()
    return pick(rng, [int(seconds), int(seconds * 1e3), int(seconds * 1e6), int(seconds * 1e9), seconds, str(int(seconds * 1e6)), iso(moment), f"{moment:%Y%m%d%H%M%S}", f"{moment:%Y%m%d%H%M%S%f}", f"{moment:%Y-%m-%d %H:%M:%S.%f}", int(seconds * 1e7) + 116444736000000000, int(seconds / 86400) + 25569, f"{moment:%d/%m/%Y}", f"{moment:%m/%d/%y}", 2440587.5 + seconds / 86400, int((seconds - 978307200) * 1e9), f"{int(seconds * 1000)}-{rng.randrange(9)}", f"P{rng.randrange(9)}DT{rng.randrange(24)}H", f"{moment:%Y%m%dT%H%M%SZ}"])


def version(rng: random.Random) -> object:
    """Versions, builds, user agents, addresses."""
    return pick(rng, [lambda: semver(rng), lambda: f"{rng.randrange(100, 999)}.{rng.randrange(10, 99)}.{rng.randrange(1000, 9999)}", lambda: f"{rng.randrange(20)}.{rng.randrange(9)}.{rng.randrange(99999)}.{rng.randrange(9999)}", lambda: f"{when(rng):%Y.%m.%d}.{rng.randrange(99)}", lambda: f"build {rng.randrange(100, 999)}.{rng.randrange(10, 99)}.{rng.randrange(1000, 9999)}", lambda: f"Chrome/{rng.randrange(90, 140)}.0.{rng.randrange(9999)}.{rng.randrange(200)}",
                       lambda: f"{rng.randrange(9)}.{rng.randrange(99)}.dev{rng.randrange(999)}+g{hexa(rng, 7)}", lambda: f"{chars(rng, 'ABCDEFGH', 2)}{digits(rng, 2)}{chars(rng, 'ABC', 1)}{digits(rng, 3)}", lambda: f"go1.{rng.randrange(25)}.{rng.randrange(9)}", lambda: f"linux {rng.randrange(7)}.{rng.randrange(20)}.0-{rng.randrange(999)}-generic", lambda: digits(rng, rng.randint(4, 16)), lambda: f"{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}", lambda: f"2001:db8:{hexa(rng, 4)}::{hexa(rng, 4)}"])()


def science(rng: random.Random) -> object:
    """Identifiers of chemistry, genomics, medicine, libraries, astronomy."""
    return pick(rng, [lambda: f"{digits(rng, rng.randint(2, 7))}-{digits(rng, 2)}-{digits(rng, 1)}", lambda: f"{chars(rng, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 14)}-{chars(rng, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 10)}-N", lambda: f"CC(=O)O{pick(rng, ['c1ccccc1', 'CCN', 'C1CCC1'])}C(=O)N{digits(rng, 1)}", lambda: f"ENSG{digits(rng, 11)}", lambda: f"rs{digits(rng, 8)}", lambda: f"NM_{digits(rng, 6)}.{rng.randrange(9)}", lambda: f"chr{rng.randrange(1, 23)}:{digits(rng, 8)}-{digits(rng, 8)}", lambda: chars(rng, "ACGT", rng.randint(20, 120)),
                       lambda: chars(rng, "ACDEFGHIKLMNPQRSTVWY", rng.randint(20, 90)), lambda: f"P{digits(rng, 5)}", lambda: f"{rng.randrange(1, 9)}{pick(rng, 'ABCDEFGHIJ')}{chars(rng, ALNUM.upper(), 2)}", lambda: f"10.{digits(rng, 4)}/{identifier(rng)}.{digits(rng, 7)}", lambda: f"arXiv:{digits(rng, 4)}.{digits(rng, 5)}", lambda: f"PMC{digits(rng, 7)}", lambda: f"0000-000{rng.randrange(4)}-{digits(rng, 4)}-{digits(rng, 4)}", lambda: f"CHEMBL{digits(rng, 6)}", lambda: f"CID {digits(rng, rng.randint(3, 9))}", lambda: f"HMDB{digits(rng, 7)}", lambda: f"NCT{digits(rng, 8)}", lambda: f"J{digits(rng, 6)}.{digits(rng, 2)}+{digits(rng, 6)}.{digits(rng, 1)}", lambda: f"C{rng.randrange(1, 40)}H{rng.randrange(1, 70)}N{rng.randrange(9)}O{rng.randrange(9)}"])()


def tables(rng: random.Random) -> Iterator[Message]:
    """Numeric tables: CSV, matrices, gradients, training logs, histograms, spreadsheets."""
    number: Callable[[], object] = pick(rng, [lambda: 0])
    while True:
        number = pick(rng, [lambda: rng.randrange(10), lambda: rng.randrange(10000), lambda: round(rng.gauss(0, 100), 4), lambda: rng.gauss(0, 1), lambda: rng.gauss(0, 1e-5), lambda: rng.randrange(10 ** 9), lambda: f"{rng.gauss(0, 1):.6e}", lambda: rng.randrange(10 ** 16), lambda: f"{rng.randrange(10 ** 7):,}", lambda: digits(rng, 4)])
        width, height = rng.randint(2, 12), rng.randint(2, 30)
        matrix = [[number() for _ in range(width)] for _ in range(height)]
        text = pick(rng, [",", "\t", " ", ";", " | ", "  "]).join
        yield pick(rng, [lambda: message("table", {"matrix": matrix}), lambda: message("tensor", {"shape": [height, width], "data": [v for r in matrix for v in r]}), lambda: written(rng, "table", "\n".join(text([str(v) for v in r]) for r in matrix)), lambda: written(rng, "table", "[" + ",\n ".join("[" + ", ".join(str(v) for v in r) + "]" for r in matrix) + "]"), lambda: message("training", {"step": rng.randrange(10 ** 6), "grad_norm": rng.random(), "loss": rng.random(), "hidden_layers": pick(rng, ["512-64-1024", "784-64-1024", "256-32-2048"]), "lr": 3e-4, "tokens_seen": rng.randrange(10 ** 12), "gradients": matrix[0]}),
                         lambda: written(rng, "training", "\n".join(f"epoch {k} step {rng.randrange(10 ** 6)} loss {rng.random():.16f} tokens/s {rng.random() * 10 ** 5:.1f} batch {rng.randrange(100, 999)}/{rng.randrange(10, 99)}/{rng.randrange(1000, 9999)}" for k in range(height))), lambda: message("sheet", {"values": [[str(v) for v in r] for r in matrix], "range": f"A1:{chr(65 + width)}{height}"})])()


def coordinates(rng: random.Random) -> Iterator[Message]:
    """Coordinates and GeoJSON."""
    while True:
        point = lambda: [round(rng.uniform(-180, 180), rng.choice([4, 6, 7, 14])), round(rng.uniform(-90, 90), rng.choice([4, 6, 7, 14]))]  # noqa: E731
        points = [point() for _ in range(rng.randint(1, 40))]
        yield pick(rng, [lambda: message("geo", {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": {"type": "LineString", "coordinates": points}, "properties": {"name": pick(rng, CITIES), "osm_id": rng.randrange(10 ** 11), "pass": pick(rng, ["mountain", "Brenner", "Gotthard"])}}]}), lambda: message("geo", {"lat": points[0][1], "lon": points[0][0], "geohash": chars(rng, "0123456789bcdefghjkmnpqrstuvwxyz", 9), "h3": hexa(rng, 15)}), lambda: written(rng, "geo", f"POLYGON(({', '.join(f'{x} {y}' for x, y in points)}))"), lambda: written(rng, "geo", "\n".join(f"{y:.6f},{x:.6f}" for x, y in points)),
                         lambda: written(rng, "geo", f"{abs(points[0][1]):.0f}°{rng.randrange(60)}'{rng.random() * 60:.2f}\"N {abs(points[0][0]):.0f}°{rng.randrange(60)}'E, UTM 32U {digits(rng, 6)} {digits(rng, 7)}"), lambda: written(rng, "geo", "".join(f"<trkpt lat=\"{y}\" lon=\"{x}\"><ele>{rng.random() * 3000:.1f}</ele><time>{iso(when(rng))}</time></trkpt>" for x, y in points), "track.gpx"), lambda: written(rng, "geo", "$GPGGA,{},{}.{},N,0{}.{},E,1,08,0.9,545.4,M,46.9,M,,*47".format(digits(rng, 6), digits(rng, 4), digits(rng, 3), digits(rng, 4), digits(rng, 3))), lambda: message("geo", {"polyline": chars(rng, ALNUM + "_@?`{}|~\\", rng.randint(30, 300))})])()


def image(rng: random.Random) -> bytes:
    """A picture as PNG, or bytes that start as JPEG, GIF, WebP do."""
    if rng.random() < 0.5:
        width, height = rng.randint(4, 24), rng.randint(4, 24)
        def chunk(name: bytes, body: bytes) -> bytes:
            return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        pixels = b"".join(b"\0" + rng.randbytes(width * 3) for _ in range(height))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return pick(rng, [b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0", b"GIF89a\x10\0\x10\0", b"RIFF\x24\4\0\0WEBPVP8 ", b"PK\3\4\x14\0\0\0\x08\0", b"\x1f\x8b\x08\0\0\0\0\0\0\3", b"ID3\4\0\0\0\0", b"\0asm\1\0\0\0"]) + rng.randbytes(rng.randint(100, 4000))


def pdf(rng: random.Random) -> bytes:
    """A PDF of one page."""
    stream = zlib.compress(f"BT /F1 12 Tf ({sentence(rng)}) Tj ET".encode() * rng.randint(1, 40))
    return b"%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n3 0 obj<</Length " + str(len(stream)).encode() + b"/Filter/FlateDecode>>stream\n" + stream + b"\nendstream endobj\nxref\n0 4\n0000000000 65535 f \n" + b"".join(f"{rng.randrange(10 ** 5):010d} 00000 n \n".encode() for _ in range(3)) + f"trailer<</Size 4/ID[<{hexa(rng, 32)}><{hexa(rng, 32)}>]>>\nstartxref\n{rng.randrange(9999)}\n%%EOF\n".encode()


def binary(rng: random.Random) -> Iterator[Message]:
    """Pictures, PDFs and other content in base64 and hexadecimal."""
    while True:
        raw = pdf(rng) if rng.random() < 0.3 else image(rng)
        kind = "application/pdf" if raw.startswith(b"%PDF") else "image/png"
        text = base64.b64encode(raw).decode()
        yield message("attachment", pick(rng, [{"image_url": {"url": f"data:{kind};base64,{text}"}}, {"type": "image", "source": {"type": "base64", "media_type": kind, "data": text}}, {"inlineData": {"mimeType": kind, "data": text}}, {"attachments": [{"name": f"{identifier(rng)}.pdf", "content": text, "sha1": hexa(rng, 40), "size": len(raw)}]}, {"b64_json": text, "revised_prompt": sentence(rng)}, {"text": "\n".join(text[k:k + 76] for k in range(0, len(text), 76))}, {"text": f"![{sentence(rng)}](data:{kind};base64,{text})"},
                                               {"hex": raw[:600].hex()}, {"dump": "\n".join(f"{k:08x}  {raw[k:k + 16].hex(' ')}" for k in range(0, min(len(raw), 400), 16))}, {"bytes": list(raw[:300])}, {"data": base64.urlsafe_b64encode(raw).decode().rstrip("="), "author": person(rng)}]))


FAMILIES: dict[str, Family] = {
    "numbers_tables": tables, "numbers_coordinates": coordinates, "binary_base64": binary,
    "numbers_products": listing("product", ["ean", "gtin", "isbn", "imei", "iccid", "tracking_number", "vin", "serial", "upc", "barcode", "article", "sscc"], product), "numbers_parts": listing("part", ["part_number", "size", "range", "layers", "shape", "ref", "batch_sizes", "model", "drawing", "dimensions"], part_number),
    "numbers_ids": listing("ids", ["id", "uuid", "hash", "user_id", "order_id", "digest", "trace_id", "object_id", "checksum", "snowflake", "request_id", "etag"], hash_or_id), "numbers_timestamps": listing("time", ["timestamp", "created", "updated_at", "ts", "expires", "time_ns", "start", "modified"], timestamp),
    "numbers_versions": listing("version", ["version", "build", "firmware", "release", "agent", "revision", "ip"], version), "numbers_science": listing("science", ["cas", "inchikey", "gene", "variant", "sequence", "accession", "doi", "orcid", "smiles", "compound", "transcript"], science),
}
