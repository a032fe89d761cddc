"""Numbers and identifiers of all kinds, tables, coordinates, binary content."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from .common import (
    ADJECTIVES,
    ALNUM,
    BASE32,
    COMPANIES,
    NOUNS,
    SERVICES,
    Family,
    Message,
    base64_text,
    base64url,
    chars,
    digits,
    hexa,
    identifier,
    iso,
    message,
    pick,
    semver,
    sentence,
    uuid,
    when,
    with_luhn,
    written,
)


def listing(kind: str, names: list[str], value: Callable[[random.Random], object]) -> Family:
    """A family of values: under keys, in lists, in columns, in sentences, in tables."""

    def generate(rng: random.Random) -> Iterator[Message]:
        while True:
            name, values = pick(rng, names), [value(rng) for _ in range(rng.randint(1, 12))]
            label = name.replace("_", " ")
            yield pick(
                rng,
                [
                    lambda: message(kind, {name: values[0]}),
                    lambda: message(kind, {name + "s": values}),
                    lambda: message(kind, {"items": [{name: v, "name": identifier(rng)} for v in values]}),
                    lambda: written(rng, kind, "\n".join(str(v) for v in values)),
                    lambda: written(rng, kind, f"{label}: {values[0]}\n{sentence(rng)}"),
                    lambda: written(rng, kind, f"{sentence(rng)} The {label} is {values[0]}. {sentence(rng)}"),
                    lambda: written(
                        rng, kind, f"no,{name},text\n" + "\n".join(f"{k},{v},{pick(rng, NOUNS)}" for k, v in enumerate(values))
                    ),
                    lambda: written(
                        rng, kind, f"| {label} | |\n|---|---|\n" + "\n".join(f"| {v} | {pick(rng, ADJECTIVES)} |" for v in values)
                    ),
                    lambda: written(rng, kind, " ".join(f"{name}={v}" for v in values[:4])),
                    lambda: written(rng, kind, f"{pick(rng, COMPANIES)}: " + ", ".join(str(v) for v in values)),
                    lambda: message(kind, {pick(rng, SERVICES): {name: values[0], "ok": True}}),
                    lambda: written(rng, kind, "\n".join(f"{k}. {v}" for k, v in enumerate(values, 1))),
                ],
            )()

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
    return pick(
        rng,
        [
            lambda: ean,
            lambda: int(ean),
            lambda: mod10("978" + digits(rng, 9)),
            lambda: "-".join(["978", "3", digits(rng, 4), digits(rng, 4), digits(rng, 1)]),
            lambda: isbn10(rng),
            lambda: mod10(digits(rng, 11)),
            lambda: mod10("0" + digits(rng, 12)),
            lambda: mod10("3" + digits(rng, 16)),
            lambda: with_luhn(rng, pick(rng, ["35", "86", "01", "99"]), 15),
            lambda: with_luhn(rng, "8949", pick(rng, [19, 20])),
            lambda: f"1Z{chars(rng, '0123456789ABCDEFGHJKLMNPRSTVWXYZ', 16)}",
            lambda: digits(rng, 12),
            lambda: digits(rng, 20),
            lambda: "9400" + digits(rng, 18),
            lambda: f"{chars(rng, 'ABCDEFGHJKLMNPRSTUVWXYZ', 2)}{digits(rng, 9)}{pick(rng, ['DE', 'US', 'CN', 'GB'])}",
            lambda: "JJD" + digits(rng, 15),
            lambda: f"W{chars(rng, '0123456789ABCDEFGHJKLMNPRSTUVWXYZ', 16)}",
            lambda: f"SN{digits(rng, 10)}",
            lambda: chars(rng, "0123456789ABCDEFGH", 12),
            lambda: digits(rng, 14),
            lambda: digits(rng, 16),
            lambda: f"{digits(rng, 4)}-{digits(rng, 4)}-{digits(rng, 4)}",
            lambda: f"{digits(rng, 3)}-{digits(rng, 3)}-{digits(rng, 4)}",
        ],
    )()


def part_number(rng: random.Random) -> object:
    """Part numbers, sizes and ranges that look like phone and social security numbers."""
    return pick(
        rng,
        [
            "{a3}-{a2}-{a4}",
            "{a3}/{a2}/{a4}",
            "{a3}.{a2}.{a4}",
            "{a3} {a2} {a4}",
            "{a3}-{a3}-{a4}",
            "{a2}-{a4}-{a4}",
            "{a1}-{a3}-{a3}-{a4}",
            "({a3}) {a3}-{a4}",
            "{a3}-{a2}-{a4}-{L}",
            "{L}{a3}-{a2}-{a4}",
            "{a4} {a4} {a4}",
            "{a4}.{a4}",
            "{a2}.{a3}.{a3}/{a4}-{a2}",
            "+{a2} mm / {a4}",
            "{a5}-{a4}",
            "{a9}",
            "{a2}-{a7}",
            "{a3}x{a2}x{a4}",
            "{a3},{a2},{a4}",
            "{a3}:{a2}:{a4}",
        ],
    ).format(L=chars(rng, "ABCDEFGHKLM", 2), **{f"a{k}": digits(rng, k) for k in range(1, 10)})


def hash_or_id(rng: random.Random) -> object:
    """UUIDs, ULIDs, snowflakes, hashes, object ids, nano ids."""
    return pick(
        rng,
        [
            lambda: uuid(rng),
            lambda: uuid(rng).replace("-", ""),
            lambda: "01" + chars(rng, "0123456789ABCDEFGHJKMNPQRSTVWXYZ", 24),
            lambda: rng.getrandbits(63),
            lambda: str(rng.getrandbits(62)),
            lambda: hexa(rng, 24),
            lambda: hexa(rng, 32),
            lambda: hexa(rng, 40),
            lambda: hexa(rng, 64),
            lambda: "sha256:" + hexa(rng, 64),
            lambda: "sha512-" + base64_text(rng, 64),
            lambda: base64url(rng, 21),
            lambda: "c" + chars(rng, "abcdefghijklmnopqrstuvwxyz0123456789", 24),
            lambda: base64url(rng, 11),
            lambda: "0x" + hexa(rng, 40),
            lambda: chars(rng, BASE32, 26).lower(),
            lambda: "Qm" + chars(rng, ALNUM, 44),
            lambda: rng.randrange(10**16),
            lambda: str(rng.randrange(10**15, 10**16)),
            lambda: f"arn:aws:iam::{digits(rng, 12)}:role/{identifier(rng)}",
            lambda: f"i-0{hexa(rng, 16)}",
            lambda: f"urn:uuid:{uuid(rng)}",
            lambda: ":".join(hexa(rng, 2) for _ in range(6)),
        ],
    )()


def timestamp(rng: random.Random) -> object:
    """Moments in all units."""
    moment = when(rng)
    seconds = moment.timestamp()
    return pick(
        rng,
        [
            int(seconds),
            int(seconds * 1e3),
            int(seconds * 1e6),
            int(seconds * 1e9),
            seconds,
            str(int(seconds * 1e6)),
            iso(moment),
            f"{moment:%Y%m%d%H%M%S}",
            f"{moment:%Y%m%d%H%M%S%f}",
            f"{moment:%Y-%m-%d %H:%M:%S.%f}",
            int(seconds * 1e7) + 116444736000000000,
            int(seconds / 86400) + 25569,
            f"{moment:%d/%m/%Y}",
            f"{moment:%m/%d/%y}",
            2440587.5 + seconds / 86400,
            int((seconds - 978307200) * 1e9),
            f"{int(seconds * 1000)}-{rng.randrange(9)}",
            f"P{rng.randrange(9)}DT{rng.randrange(24)}H",
            f"{moment:%Y%m%dT%H%M%SZ}",
        ],
    )


def version(rng: random.Random) -> object:
    """Versions, builds, user agents, addresses."""
    return pick(
        rng,
        [
            lambda: semver(rng),
            lambda: f"{rng.randrange(100, 999)}.{rng.randrange(10, 99)}.{rng.randrange(1000, 9999)}",
            lambda: f"{rng.randrange(20)}.{rng.randrange(9)}.{rng.randrange(99999)}.{rng.randrange(9999)}",
            lambda: f"{when(rng):%Y.%m.%d}.{rng.randrange(99)}",
            lambda: f"build {rng.randrange(100, 999)}.{rng.randrange(10, 99)}.{rng.randrange(1000, 9999)}",
            lambda: f"Chrome/{rng.randrange(90, 140)}.0.{rng.randrange(9999)}.{rng.randrange(200)}",
            lambda: f"{rng.randrange(9)}.{rng.randrange(99)}.dev{rng.randrange(999)}+g{hexa(rng, 7)}",
            lambda: f"{chars(rng, 'ABCDEFGH', 2)}{digits(rng, 2)}{chars(rng, 'ABC', 1)}{digits(rng, 3)}",
            lambda: f"go1.{rng.randrange(25)}.{rng.randrange(9)}",
            lambda: f"linux {rng.randrange(7)}.{rng.randrange(20)}.0-{rng.randrange(999)}-generic",
            lambda: digits(rng, rng.randint(4, 16)),
            lambda: f"{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}",
            lambda: f"2001:db8:{hexa(rng, 4)}::{hexa(rng, 4)}",
        ],
    )()


def science(rng: random.Random) -> object:
    """Identifiers of chemistry, genomics, medicine, libraries, astronomy."""
    return pick(
        rng,
        [
            lambda: f"{digits(rng, rng.randint(2, 7))}-{digits(rng, 2)}-{digits(rng, 1)}",
            lambda: f"{chars(rng, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 14)}-{chars(rng, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 10)}-N",
            lambda: f"CC(=O)O{pick(rng, ['c1ccccc1', 'CCN', 'C1CCC1'])}C(=O)N{digits(rng, 1)}",
            lambda: f"ENSG{digits(rng, 11)}",
            lambda: f"rs{digits(rng, 8)}",
            lambda: f"NM_{digits(rng, 6)}.{rng.randrange(9)}",
            lambda: f"chr{rng.randrange(1, 23)}:{digits(rng, 8)}-{digits(rng, 8)}",
            lambda: chars(rng, "ACGT", rng.randint(20, 120)),
            lambda: chars(rng, "ACDEFGHIKLMNPQRSTVWY", rng.randint(20, 90)),
            lambda: f"P{digits(rng, 5)}",
            lambda: f"{rng.randrange(1, 9)}{pick(rng, 'ABCDEFGHIJ')}{chars(rng, ALNUM.upper(), 2)}",
            lambda: f"10.{digits(rng, 4)}/{identifier(rng)}.{digits(rng, 7)}",
            lambda: f"arXiv:{digits(rng, 4)}.{digits(rng, 5)}",
            lambda: f"PMC{digits(rng, 7)}",
            lambda: f"0000-000{rng.randrange(4)}-{digits(rng, 4)}-{digits(rng, 4)}",
            lambda: f"CHEMBL{digits(rng, 6)}",
            lambda: f"CID {digits(rng, rng.randint(3, 9))}",
            lambda: f"HMDB{digits(rng, 7)}",
            lambda: f"NCT{digits(rng, 8)}",
            lambda: f"J{digits(rng, 6)}.{digits(rng, 2)}+{digits(rng, 6)}.{digits(rng, 1)}",
            lambda: f"C{rng.randrange(1, 40)}H{rng.randrange(1, 70)}N{rng.randrange(9)}O{rng.randrange(9)}",
        ],
    )()


FAMILIES: dict[str, Family] = {
    "numbers_products": listing(
        "product",
        ["ean", "gtin", "isbn", "imei", "iccid", "tracking_number", "vin", "serial", "upc", "barcode", "article", "sscc"],
        product,
    ),
    "numbers_parts": listing(
        "part", ["part_number", "size", "range", "layers", "shape", "ref", "batch_sizes", "model", "drawing", "dimensions"], part_number
    ),
    "numbers_ids": listing(
        "ids",
        ["id", "uuid", "hash", "user_id", "order_id", "digest", "trace_id", "object_id", "checksum", "snowflake", "request_id", "etag"],
        hash_or_id,
    ),
    "numbers_timestamps": listing(
        "time", ["timestamp", "created", "updated_at", "ts", "expires", "time_ns", "start", "modified"], timestamp
    ),
    "numbers_versions": listing("version", ["version", "build", "firmware", "release", "agent", "revision", "ip"], version),
    "numbers_science": listing(
        "science",
        ["cas", "inchikey", "gene", "variant", "sequence", "accession", "doi", "orcid", "smiles", "compound", "transcript"],
        science,
    ),
}
