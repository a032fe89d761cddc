"""Documentation of settings and of security, and of interfaces."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .common import (
    ADJECTIVES,
    CITIES,
    COMPANIES,
    NOUNS,
    SERVICES,
    Family,
    Message,
    hexa,
    host,
    identifier,
    ip,
    message,
    path,
    person,
    pick,
    semver,
    sentence,
    written,
)
from .deploy import KEYS, PLACEHOLDERS, quiet, to_yaml

TEMPLATES = [
    "Set {k} to {p}.",
    "`{k}={p}`",
    "| `{k}` | string | {p} | {d} |",
    "- **{k}**: {d} (default: {p})",
    "export {k}={p}",
    "```\n{k}: {p}\n```",
    "{k} ({d}): required",
    "    {k} = {p}    # {d}",
    "You need a {k}. {d}",
    "// {k}: {p}",
    "<dt>{k}</dt><dd>{d}</dd>",
    'curl -H "Authorization: Bearer {p}" https://api.example.com',
    '  "{k}": "{p}",',
    "--{k} {p}   {d}",
    "{k} = {p}",
    "The {k} is {p}",
    "curl -u user:{p} https://api.example.com",
    "postgresql://user:{p}@localhost:5432/db",
    "Never commit your {k}.",
    "WARNING: {k} is not set, using {p}",
]


DESCRIPTIONS = [
    "the password of the database",
    "Used to sign requests.",
    "Get one at https://example.com/settings/tokens.",
    "must be at least 12 characters",
    "rotated every 90 days",
    "read from the environment when empty",
    "deprecated, use tokens instead",
    "shown once",
    "keep it secret",
    "optional",
    "may be a path",
    "never logged",
    "Base64 of 32 random bytes",
    "a personal access token with scope `repo`",
]


def configuration_docs(rng: random.Random) -> Iterator[Message]:
    """Documentation of settings, with placeholders of every style."""
    while True:
        lines = [
            f"# {pick(rng, ['Configuration', 'Quick start', 'Authentication', 'Environment variables', 'Secrets', 'Getting started'])} of {pick(rng, COMPANIES)}",
            "",
        ]
        for _ in range(rng.randint(2, 10)):
            lines.append(pick(rng, TEMPLATES).format(k=pick(rng, KEYS), p=pick(rng, PLACEHOLDERS), d=pick(rng, DESCRIPTIONS)))
        lines += [quiet(rng), sentence(rng)]
        yield written(rng, "document", "\n".join(lines), "README.md" if rng.random() < 0.5 else "")


SECURITY = """A password should have at least {n} characters.
Passwords are hashed with Argon2id, {n} MiB of memory.
Token: an opaque string that stands for a session.
Secrets are injected at run time: they never stand in the image.
The password is checked against a list of breached passwords.
Password: what the user knows. Token: what the user has.
Multi-factor authentication: password plus code.
An access token expires after {n} minutes; a refresh token after {n} days.
PCI DSS requirement 3.2: never store the CVV after authorization.
Card numbers are masked: only the last four digits, e.g. 1111, are shown.
The SSN is shown as XXX-XX-{m}.
Rotate API keys every {n} days.
CVE-{y}-{m}: hard-coded credentials in {s} before {v}.
CWE-798: Use of Hard-coded Credentials
CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H ({n}.{k})
Private keys: PEM files with mode 0600.
Bearer tokens are sent as `Authorization: Bearer <token>`.
JWTs have three parts: header, payload, signature.
The secret is derived with HKDF-SHA256 from the master key.
Credential stuffing: {n} attempts a minute from {i}.
secret scanning: enabled, push protection: enabled
Password rotation: disabled. Password reuse: forbidden.
Password reset: link valid for {n} minutes
Default password: none, it must be set on first login
pass phrase quality: {n} bits
Authentication: OAuth 2.0, API key, basic
grant_type=password is deprecated
SHA-256: {h}
fingerprint: {f}
key id: {u}""".splitlines()


def security_docs(rng: random.Random) -> Iterator[Message]:
    """Texts about security: policies, advisories, reviews, answers to audits."""
    while True:
        lines = [
            pick(rng, SECURITY).format(
                n=rng.randrange(2, 99),
                k=rng.randrange(10),
                m=rng.randrange(1000, 9999),
                y=rng.randrange(2015, 2027),
                s=pick(rng, SERVICES),
                v=semver(rng),
                i=ip(rng),
                h=hexa(rng, 64),
                f=":".join(hexa(rng, 2) for _ in range(20)),
                u=hexa(rng, 16),
            )
            for _ in range(rng.randint(2, 9))
        ]
        yield written(rng, "document", pick(rng, ["\n", "\n\n", " ", "\n- "]).join(lines))


def openapi(rng: random.Random) -> Iterator[Message]:
    """OpenAPI documents with operations that take passwords and tokens."""
    while True:
        name = pick(rng, NOUNS)
        document = {
            "openapi": "3.1.0",
            "info": {"title": f"{pick(rng, COMPANIES)} API", "version": semver(rng)},
            "servers": [{"url": "https://api.example.com"}],
            "security": [{"bearerAuth": []}, {"api_key": []}],
            "components": {
                "securitySchemes": {
                    "bearerAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                    "api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                    "password": {"type": "oauth2", "flows": {"password": {"tokenUrl": "https://id.example.com/token", "scopes": {}}}},
                },
                "schemas": {
                    "Login": {
                        "type": "object",
                        "required": ["user", "password"],
                        "properties": {
                            "user": {"type": "string", "example": person(rng)},
                            "password": {"type": "string", "format": "password", "example": pick(rng, PLACEHOLDERS), "writeOnly": True},
                            "token": {"type": "string", "nullable": True},
                        },
                    }
                },
            },
            "paths": {
                f"/{name}s/{{id}}": {
                    "get": {
                        "operationId": f"get_{name}",
                        "summary": sentence(rng),
                        "parameters": [
                            {
                                "name": pick(rng, ["page_token", "api_key", "token"]),
                                "in": "query",
                                "schema": {"type": "string"},
                                "description": "Token of the next page",
                            }
                        ],
                        "responses": {"401": {"description": "Invalid token or password"}},
                    }
                },
                path(rng): {
                    "post": {
                        "tags": [pick(rng, ADJECTIVES)],
                        "requestBody": {
                            "content": {"application/x-www-form-urlencoded": {"schema": {"$ref": "#/components/schemas/Login"}}}
                        },
                    }
                },
            },
            "x-host": host(rng),
            "x-region": pick(rng, CITIES),
            "x-id": identifier(rng),
        }
        yield message("openapi", document) if rng.random() < 0.5 else written(rng, "openapi", to_yaml(document), "openapi.yaml")


FAMILIES: dict[str, Family] = {
    "docs_configuration": configuration_docs,
    "docs_security": security_docs,
    "docs_openapi": openapi,
}
