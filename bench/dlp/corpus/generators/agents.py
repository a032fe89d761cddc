"""What agents ask of each other and what tools give them."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .common import (
    ALNUM,
    CITIES,
    COMPANIES,
    FIRST,
    NOUNS,
    SERVICES,
    VERBS,
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
    paragraph,
    path,
    pick,
    semver,
    uuid,
    when,
)
from .office import talk

TASKS = """Reset the password of {f} and tell them.
Find out why the token of {s} expires after {n} minutes.
Summarise the {a} thread.
Write a test for `check_password`; keep `password=password` as it is.
Replace the hard-coded password in {p} by an environment variable.
Rotate the API key of {s}; the new one goes into the vault, not into chat.
Collect the invoices of {c}.
Compare build {v} with {v2}.
Explain to {f} what a security code is.
Train with hidden layers 512-64-1024, batch sizes 128/64/1024.
Fix the failing test: pass: {n}, fail: 3.
Look up order {d} in the {s} database.
Extract all numbers from the attached table.
The form says "Password is required" although it is filled in.
Translate "Forgot your password?" into eight languages.""".splitlines()


def tasks(rng: random.Random) -> Iterator[Message]:
    """What agents ask of each other, plan, hand over, and report."""
    while True:
        text = pick(rng, TASKS).format(
            f=pick(rng, FIRST),
            s=pick(rng, SERVICES),
            n=rng.randrange(2, 900),
            a=pick(rng, NOUNS),
            p=f"src/{identifier(rng)}.py",
            c=pick(rng, COMPANIES),
            v=semver(rng),
            v2=semver(rng),
            d=digits(rng, rng.randint(6, 16)),
        )
        steps = [{"id": k, "action": pick(rng, VERBS), "detail": talk(rng), "done": rng.random() < 0.5} for k in range(rng.randint(1, 5))]
        yield message(
            pick(rng, ["task", "plan", "handoff", "status"]),
            pick(
                rng,
                [
                    {
                        "task_id": uuid(rng),
                        "goal": text,
                        "steps": steps,
                        "deadline": iso(when(rng)),
                        "budget": {"tokens": rng.randrange(10**6), "max_tokens": rng.randrange(9000), "usd": rng.random()},
                    },
                    {"task": text, "context": paragraph(rng), "from": pick(rng, SERVICES), "conversation": hexa(rng, 24)},
                    {
                        "status": "done",
                        "result": talk(rng),
                        "tokens_used": rng.randrange(10**6),
                        "run_id": str(rng.getrandbits(63)),
                        "attempt": rng.randrange(5),
                    },
                    {
                        "jsonrpc": "2.0",
                        "id": rng.randrange(10**6),
                        "method": "tools/call",
                        "params": {
                            "name": identifier(rng),
                            "arguments": {"query": text, "cursor": base64url(rng, 16)},
                            "_meta": {"progressToken": rng.randrange(10**6)},
                        },
                    },
                    {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "Unknown tool: reset_password"}},
                    {
                        "artifact": {"id": uuid(rng), "parts": [{"kind": "text", "text": text}], "sha256": hexa(rng, 64)},
                        "contextId": uuid(rng),
                    },
                    {"memory": [{"key": identifier(rng), "value": talk(rng)} for _ in range(3)], "summary": text},
                    {"question": text, "options": ["yes", "no", "ask for the password again"], "answer": pick(rng, [None, "yes"])},
                    {"text": text},
                    {
                        "review": {
                            "file": f"src/{identifier(rng)}.py",
                            "line": rng.randrange(900),
                            "comment": pick(
                                rng,
                                ["password: should be hashed", "token: rename, please", "secret = must come from the environment", text],
                            ),
                        }
                    },
                ],
            ),
        )


def tool_results(rng: random.Random) -> Iterator[Message]:
    """What tools of all kinds give back."""
    while True:
        yield message(
            "tool.result",
            pick(
                rng,
                [
                    {
                        "weather": {
                            "city": pick(rng, CITIES),
                            "lat": round(rng.uniform(-90, 90), 6),
                            "lon": round(rng.uniform(-180, 180), 6),
                            "temp": rng.random() * 40,
                            "station": digits(rng, 11),
                        }
                    },
                    {
                        "users": [
                            {
                                "id": rng.randrange(10**16),
                                "login": pick(rng, FIRST).lower(),
                                "node_id": base64_text(rng, 15),
                                "two_factor": True,
                                "password_set": True,
                                "token_valid": rng.random() < 0.5,
                            }
                            for _ in range(3)
                        ]
                    },
                    {
                        "repo": {
                            "id": rng.randrange(10**9),
                            "sha": hexa(rng, 40),
                            "tree": hexa(rng, 40),
                            "html_url": f"https://git.example.com/{identifier(rng)}",
                            "size": rng.randrange(10**8),
                        }
                    },
                    {"page": {"title": talk(rng), "text": paragraph(rng), "revision": digits(rng, 10)}},
                    {
                        "stock": {
                            "isin": f"DE{digits(rng, 10)}",
                            "cusip": chars(rng, "0123456789ABCDEFGH", 9),
                            "price": rng.random() * 1000,
                            "volume": rng.randrange(10**9),
                        }
                    },
                    {
                        "ticket": {
                            "key": f"OPS-{digits(rng, 5)}",
                            "id": digits(rng, rng.randint(5, 16)),
                            "summary": talk(rng),
                            "created": iso(when(rng)),
                            "customfield_10010": digits(rng, 8),
                            "components": ["password-reset", "token-service"],
                        }
                    },
                    {
                        "files": [
                            {
                                "name": pick(rng, ["passwords.py", "token.ts", "secret.yaml", "README.md", "password_reset.html"]),
                                "size": rng.randrange(10**7),
                                "md5": hexa(rng, 32),
                                "inode": rng.getrandbits(48),
                            }
                            for _ in range(4)
                        ]
                    },
                    {
                        "charge": {
                            "id": "ch_" + chars(rng, ALNUM, 24),
                            "amount": rng.randrange(10**6),
                            "payment_method_details": {
                                "card": {
                                    "last4": digits(rng, 4),
                                    "brand": "visa",
                                    "fingerprint": chars(rng, ALNUM, 16),
                                    "checks": {"cvc_check": "pass", "address_line1_check": None},
                                    "exp_year": 2029,
                                }
                            },
                            "receipt_number": digits(rng, 8),
                            "balance_transaction": "txn_" + chars(rng, ALNUM, 24),
                        }
                    },
                    {
                        "dns": [
                            {
                                "name": "example.com",
                                "type": "TXT",
                                "data": f"v=spf1 include:_spf.example.com ~all; google-site-verification={base64url(rng, 43)}",
                            }
                        ]
                    },
                    {"metrics": [[int(when(rng).timestamp()), str(rng.random() * 10**6)] for _ in range(8)]},
                    {
                        "locations": [
                            {"place_id": "ChIJ" + base64url(rng, 23), "plus_code": "9F4M+" + chars(rng, "23456789CFGHJMPQRVWX", 2)}
                        ]
                    },
                    {"secrets": [{"name": "db-password", "version": rng.randrange(9), "value": "[hidden]", "updated": iso(when(rng))}]},
                    {
                        "error": pick(
                            rng,
                            ["invalid token", "wrong password", "missing secret: DB_PASSWORD", "password expired", "api key: not found"],
                        ),
                        "code": 401,
                        "trace": hexa(rng, 32),
                    },
                    {"text": f"Found {rng.randrange(99)} matches in {path(rng)}"},
                ],
            ),
        )


FAMILIES: dict[str, Family] = {
    "agents_tasks": tasks,
    "agents_tool_results": tool_results,
}
