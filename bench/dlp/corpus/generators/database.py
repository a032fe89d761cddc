"""SQL and rows of tables."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from .common import (
    FIRST,
    NOUNS,
    Family,
    Message,
    digits,
    hexa,
    iso,
    message,
    person,
    pick,
    uuid,
    when,
    written,
)

COLUMNS = """password VARCHAR(255) NOT NULL
password_hash BYTEA NOT NULL
token UUID PRIMARY KEY
api_key TEXT UNIQUE
secret BYTEA
ssn CHAR(11)
card_last4 CHAR(4)
iban VARCHAR(34)
cvv_result CHAR(1)
pin SMALLINT
access_token TEXT
created_at TIMESTAMPTZ DEFAULT now()
id BIGINT GENERATED ALWAYS AS IDENTITY
email CITEXT NOT NULL
pass BOOLEAN DEFAULT false
pass_count INTEGER
amount NUMERIC(12,2)""".splitlines()


def sql(rng: random.Random) -> Iterator[Message]:
    """SQL: definitions, queries, EXPLAIN, results; columns that are called password."""
    while True:
        table, column = pick(rng, NOUNS) + "s", pick(rng, ["password", "token", "api_key", "secret", "ssn", "passwd"])
        number = lambda: rng.randrange(10 ** rng.randint(1, 16))  # noqa: E731
        parts = [
            pick(
                rng,
                [
                    f"CREATE TABLE {table} (\n  " + ",\n  ".join(rng.sample(COLUMNS, rng.randint(2, 8))) + "\n);",
                    f"SELECT id, {column} FROM {table} WHERE id = {number()} AND {column} IS NOT NULL;",
                    f"UPDATE {table} SET {column} = $1 WHERE id = $2;",
                    f"INSERT INTO {table} (id, name, {column}) VALUES (?, ?, ?);",
                    f"INSERT INTO {table} (id, name, total) VALUES ({number()}, '{person(rng).replace(chr(39), chr(39) * 2)}', {rng.random() * 1000:.2f}), ({number()}, 'x', {rng.random():.4f});",
                    f"ALTER TABLE {table} ADD COLUMN {column} TEXT;",
                    f"CREATE INDEX {table}_{column}_idx ON {table} ({column});",
                    f"ALTER TABLE {table} RENAME COLUMN {column} TO {column}_old;",
                    f"COMMENT ON COLUMN {table}.{column} IS 'the {column}: never selected';",
                    f"ALTER USER {pick(rng, FIRST).lower()} WITH PASSWORD NULL;",
                    "CREATE USER app IDENTIFIED BY :password;",
                    "CREATE ROLE reporting LOGIN PASSWORD '<password>';",
                    f"GRANT SELECT ({column}) ON {table} TO reporting;",
                    f"SELECT count(*) FILTER (WHERE {column} = '') AS pass, {number()} AS fail FROM {table};",
                    f"EXPLAIN ANALYZE SELECT 1;\n Index Scan using {table}_{column}_idx on {table}  (cost=0.{rng.randrange(99)}..{rng.random() * 9999:.2f} rows={rng.randrange(10 ** 6)} width={rng.randrange(400)}) (actual time={rng.random():.3f}..{rng.random() * 9:.3f} rows={rng.randrange(10 ** 5)} loops=1)\n   Index Cond: ({column} = $1)\n   Buffers: shared hit={rng.randrange(9999)}\n Execution Time: {rng.random() * 90:.3f} ms",
                    f" id | name | {column}_set | total\n----+------+------+------\n"
                    + "\n".join(f" {number()} | {person(rng)} | t | {rng.random() * 10 ** 6:.2f}" for _ in range(rng.randint(1, 6))),
                    f"DELETE FROM sessions WHERE token_expires < now() - interval '{rng.randrange(90)} days';",
                    f"WHERE {column} = crypt($2, {column})",
                    f"SELECT setval('{table}_id_seq', {number()});",
                ],
            )
            for _ in range(rng.randint(1, 4))
        ]
        text = "\n".join(parts)
        yield (
            message("sql.query", pick(rng, [{"sql": text}, {"query": text, "params": [number()]}]))
            if rng.random() < 0.5
            else written(rng, "sql", text, "schema.sql")
        )


def rows(rng: random.Random) -> Iterator[Message]:
    """Rows of tables as JSON and CSV."""
    while True:
        columns: dict[str, object] = {
            "id": 0,
            "name": 0,
            "created_at": 0,
            pick(rng, ["total", "score", "price"]): 0,
            pick(rng, ["ref", "external_id", "serial"]): 0,
            pick(rng, ["has_password", "password_changed_at", "token_count", "pass", "password_expires"]): 0,
        }

        def row() -> list[Any]:
            return [
                rng.randrange(10 ** rng.randint(3, 16)),
                person(rng),
                iso(when(rng)),
                round(rng.random() * 9999, 2),
                pick(rng, [digits(rng, rng.randint(8, 18)), hexa(rng, 12), uuid(rng)]),
                pick(rng, [True, False, None, rng.randrange(2000), f"{when(rng):%Y-%m-%d}"]),
            ]

        table = [row() for _ in range(rng.randint(1, 20))]
        yield pick(
            rng,
            [
                lambda: message("rows", {"rows": [dict(zip(columns, r)) for r in table]}),
                lambda: message("rows", {"columns": list(columns), "data": table}),
                lambda: written(rng, "rows", "\n".join(",".join(map(str, r)) for r in [list(columns), *table])),
                lambda: written(rng, "rows", "\n".join(json.dumps(dict(zip(columns, r))) for r in table)),
            ],
        )()


FAMILIES: dict[str, Family] = {
    "code_sql": sql,
    "code_rows": rows,
}
