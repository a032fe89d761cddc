"""Words, random values and output that the generators share."""

from __future__ import annotations

import argparse
import base64
import json
import random
import string
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Family = Callable[[random.Random], Iterator[Message]]

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
BASE32 = string.ascii_uppercase + "234567"

FIRST = """Anna Ben Carla David Elif Farid Greta Hugo Ines Jonas Katarzyna Liam Maria Noah Olga Pavel Quentin Rosa Sven
Tomás Uma Viktor Wanda Xavier Yasmin Zoe Aiko Bjørn Chiara Dmitri Émile Fatima Giulia Haruto Ivana João Kwame Lucía""".split()
LAST = """Müller Smith García Rossi Dubois Kowalski Novák Jensen Virtanen Silva Tanaka Okafor Kim Nguyen Johnson Weber
Martin Larsson Popescu Horváth Papadopoulos Yılmaz O'Brien Fernández Schneider Brown Moreau Ricci Nowak Hansen""".split()
COMPANIES = """Nordwind Acme Globex Initech Umbra Helios Quarzwerk Blaufeld Lindqvist Tessera Okapi Marlowe Brightline
Sternberg Vantage Ferrum Ostara Pinewood Cobalt Meridian""".split()
CITIES = """Berlin Paris Madrid Rome Vienna Lisbon Oslo Helsinki Prague Warsaw Dublin Athens Zürich Hamburg Lyon Porto
Tokyo Seoul Toronto Austin Denver Chicago Nairobi Lagos Mumbai Sydney""".split()
SERVICES = """checkout billing catalog search auth gateway orders inventory shipping mailer reports ingest scheduler
profile payments recommender webhooks sessions exporter crawler""".split()
VERBS = "created updated deleted fetched queued retried sent received parsed merged validated rejected archived".split()
NOUNS = """order invoice report customer session cart shipment dataset model batch index cache document ticket job
event pipeline deployment release schema table partition image archive contract booking sensor forecast""".split()
ADJECTIVES = "slow blue stable nightly broken quiet late fresh empty local remote shared first final hidden large".split()
SENTENCES = """The {n} was {v} without problems.
Please look at the {a} {n} before {d}.
We have {k} {n}s and {k2} of them are {a}.
{f} will send the {n} to {f2} by {d}.
Could you check why the {a} {n} takes {k} seconds?
No {n} was {v} since {d}.
The {n} in {c} moved from {k} to {k2} units.
{co} asks for a {a} {n}; the {n2} can wait.
As discussed with {f}, the {n} stays {a} until {d}.
After the {n} was {v}, the {n2} became {a}.
Our team in {c} has {v} {k} {n}s this week.
I would rather keep the {a} {n} than the {n2}.""".splitlines()


def pick(rng: random.Random, items: Any) -> Any:
    """One of the items."""
    return items[rng.randrange(len(items))]


def chars(rng: random.Random, alphabet: str, count: int) -> str:
    """That many characters of the alphabet."""
    return "".join(rng.choices(alphabet, k=count))


def digits(rng: random.Random, count: int) -> str:
    """That many digits, the first of which is not 0."""
    return chars(rng, "123456789", 1) + chars(rng, string.digits, count - 1)


def hexa(rng: random.Random, count: int) -> str:
    """That many lower-case hexadecimal digits."""
    return chars(rng, HEX, count)


def base64url(rng: random.Random, count: int) -> str:
    """That many characters of URL-safe base64, with a letter or digit at both ends."""
    middle = chars(rng, ALNUM + "-_", count - 2)
    return chars(rng, ALNUM, 1) + middle + chars(rng, ALNUM, 1)


def base64_text(rng: random.Random, size: int) -> str:
    """Random bytes in base64."""
    return base64.b64encode(rng.randbytes(size)).decode()


def uuid(rng: random.Random) -> str:
    """A UUID of version 4."""
    raw = hexa(rng, 32)
    return f"{raw[:8]}-{raw[8:12]}-4{raw[13:16]}-{pick(rng, '89ab')}{raw[17:20]}-{raw[20:]}"


def luhn_sum(number: str) -> int:
    """The sum of Luhn's formula, modulo 10."""
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit)
        if place % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10


def with_luhn(rng: random.Random, prefix: str, length: int) -> str:
    """A number with that prefix and length whose last digit is Luhn's check digit."""
    body = prefix + chars(rng, string.digits, length - 1 - len(prefix))
    return next(body + digit for digit in string.digits if luhn_sum(body + digit) == 0)


def when(rng: random.Random) -> datetime:
    """A moment of the years 2023 to 2027."""
    start = datetime(2023, 1, 1, tzinfo=timezone.utc)
    return start + timedelta(microseconds=rng.randrange(5 * 365 * 86_400_000_000))


def iso(moment: datetime) -> str:
    """As RFC 3339, to milliseconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def person(rng: random.Random) -> str:
    """A person's name."""
    return f"{pick(rng, FIRST)} {pick(rng, LAST)}"


def sentence(rng: random.Random) -> str:
    """A sentence of everyday work."""
    return pick(rng, SENTENCES).format(
        n=pick(rng, NOUNS),
        n2=pick(rng, NOUNS),
        v=pick(rng, VERBS),
        a=pick(rng, ADJECTIVES),
        f=pick(rng, FIRST),
        f2=pick(rng, FIRST),
        c=pick(rng, CITIES),
        co=pick(rng, COMPANIES),
        k=rng.randrange(2, 900),
        k2=rng.randrange(2, 900),
        d=when(rng).strftime(pick(rng, ["%d %B", "%A", "%Y-%m-%d", "%d.%m.%Y"])),
    )


def paragraph(rng: random.Random, low: int = 2, high: int = 6) -> str:
    """Some sentences."""
    return " ".join(sentence(rng) for _ in range(rng.randint(low, high)))


def identifier(rng: random.Random) -> str:
    """A name as in source code."""
    words = [pick(rng, VERBS + ADJECTIVES), pick(rng, NOUNS)]
    return pick(rng, ["_".join(words), words[0] + words[1].title(), "-".join(words)])


def write_families(families: dict[str, Family], count: int, out: Path, seed: int, names: list[str]) -> None:
    """Writes `count` documents of each family, one a line, and the number of each into families.json."""
    out.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    listing = out / "families.json"
    if listing.exists():
        counts = json.loads(listing.read_text(encoding="utf-8"))
    for name in names or list(families):
        rng = random.Random(f"{seed}:{name}")
        documents = families[name](rng)
        with (out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(count):
                file.write(json.dumps(next(documents), ensure_ascii=False) + "\n")
        counts[name] = count
    listing.write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def run(description: str, families: dict[str, Family], count: int) -> None:
    """The command line of a generating script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("out", nargs="?", type=Path, default=Path("target/dlp-corpus"), help="folder for the output")
    parser.add_argument("--count", type=int, default=count, help="documents of each family")
    parser.add_argument("--seed", type=int, default=19)
    parser.add_argument("--family", action="append", default=[], choices=sorted(families), help="only this one")
    parser.add_argument("--list", action="store_true", help="print the families' names")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(sorted(families)))
        return
    write_families(families, arguments.count, arguments.out, arguments.seed, arguments.family)


def message(message_type: str, data: object) -> Message:
    """What one message carries."""
    return {"message_type": message_type, "data": data if isinstance(data, dict) else {"text": data}}


def written(rng: random.Random, message_type: str, text: str, file: str = "") -> Message:
    """A text as agents send it: alone, as a file, as output of a command, as a tool's result, in a list of parts."""
    forms: list[dict[str, object]] = [
        {"text": text},
        {"content": text},
        {"stdout": text, "exit_code": 0},
        {"result": {"text": text}},
        {"content": [{"type": "text", "text": text}]},
        {"input": text, "task": uuid(rng)},
        {"lines": text.splitlines()},
    ]
    if file:
        forms = [
            {"file": file, "content": text},
            {"path": f"src/{file}", "text": text},
            {"files": [{"name": file, "content": text}]},
            {"content": [{"type": "text", "text": f"```\n{text}\n```"}]},
        ]
    return {"message_type": message_type, "data": pick(rng, forms)}


def ip(rng: random.Random) -> str:
    """An address of a private or documentation network."""
    return pick(rng, ["10.{0}.{1}.{2}", "192.168.{1}.{2}", "172.16.{1}.{2}", "203.0.113.{2}", "198.51.100.{2}"]).format(
        rng.randrange(256), rng.randrange(256), rng.randrange(1, 255)
    )


def path(rng: random.Random) -> str:
    """The path of a resource."""
    tail = pick(rng, ["", f"/{rng.randrange(1, 10 ** rng.randint(2, 16))}", f"/{uuid(rng)}", f"/{hexa(rng, 24)}"])
    return f"/{pick(rng, ['api', 'v1', 'v2', 'api/v3', 'internal'])}/{pick(rng, NOUNS)}s{tail}"


def host(rng: random.Random) -> str:
    """A name of a pod or machine."""
    service = pick(rng, SERVICES)
    return pick(
        rng,
        [
            f"{service}-{hexa(rng, 10)}-{chars(rng, 'bcdfghjklmnpqrstvwxz2456789', 5)}",
            f"{service}-{rng.randrange(40)}",
            f"ip-10-0-{rng.randrange(256)}-{rng.randrange(256)}",
            f"{service}.prod.example.internal",
        ],
    )


def semver(rng: random.Random) -> str:
    """A version as packages have it."""
    core = f"{rng.randrange(12)}.{rng.randrange(30)}.{rng.randrange(60)}"
    return core + pick(rng, ["", "", "", "", f"-rc.{rng.randrange(5)}", f"-beta{rng.randrange(9)}", f"+build.{rng.randrange(9000)}"])
