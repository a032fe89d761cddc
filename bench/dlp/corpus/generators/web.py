"""The web: forms, pages, validation errors, page tokens, translations, schemas."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from .common import (
    ALNUM,
    CITIES,
    COMPANIES,
    FIRST,
    NOUNS,
    SERVICES,
    Family,
    Message,
    base64_text,
    base64url,
    chars,
    hexa,
    identifier,
    message,
    paragraph,
    path,
    person,
    pick,
    semver,
    sentence,
    uuid,
    when,
    written,
)

CSRF = [
    "csrfmiddlewaretoken",
    "authenticity_token",
    "_token",
    "__RequestVerificationToken",
    "_csrf",
    "_csrf_token",
    "csrf_token",
    "form_token",
    "xsrf",
    "nonce",
    "_wpnonce",
    "state",
    "form_key",
    "anticsrf",
    "javax.faces.ViewState",
    "request_token",
]


def html_forms(rng: random.Random) -> Iterator[Message]:
    """Forms: fields against forged requests with values, password fields without."""
    while True:
        token, field = (
            pick(rng, [base64url(rng, rng.randint(20, 86)), hexa(rng, 40), chars(rng, ALNUM, 64), base64_text(rng, 48)]),
            pick(rng, CSRF),
        )
        fields = [
            f'<input type="hidden" name="{field}" value="{token}">',
            f"<input name='{field}' type='hidden' value='{token}'/>",
            f'<meta name="csrf-token" content="{token}">',
            f'<meta name="csrf-param" content="{field}">',
            '<label for="password">Password:</label>\n<input type="password" id="password" name="password" autocomplete="current-password" required minlength="12">',
            '<input type="password" name="password" placeholder="Your password">',
            '<input type="password" name="password_confirmation" value="">',
            '<input class="form-control" name="cvv" inputmode="numeric" maxlength="4" placeholder="CVV" pattern="[0-9]{3,4}">',
            '<input name="card_number" autocomplete="cc-number" placeholder="1234 5678 9012 3456">',
            '<label>Social Security Number <input name="ssn" placeholder="XXX-XX-XXXX"></label>',
            '<a href="/password/reset">Forgot password?</a>',
            f'<input type="email" name="email" value="{pick(rng, FIRST).lower()}@example.com">',
            '<button type="submit" name="action" value="login">Sign in</button>',
            f'<script nonce="{base64_text(rng, 16)}">window.__STATE__={{"csrfToken":"{token}","build":"{hexa(rng, 20)}"}}</script>',
            f'<link rel="stylesheet" href="/a.{hexa(rng, 8)}.css" integrity="sha384-{base64_text(rng, 48)}" crossorigin="anonymous">',
            f'<input type="hidden" name="form_id" value="{rng.randrange(10 ** 16)}">',
            f'<div data-token-count="{rng.randrange(999)}" data-reactid="{rng.randrange(10 ** 9)}" data-testid="password-field"></div>',
            '<span class="error" data-for="password">This field is required.</span>',
            f'<option value="{rng.randrange(10 ** 9)}">{person(rng)}</option>',
            f'<div class="g-recaptcha" data-sitekey="6L{chars(rng, ALNUM, 38)}"></div>',
        ]
        rng.shuffle(fields)
        text = f'<form method="post" action="{path(rng)}">\n  ' + "\n  ".join(fields[: rng.randint(2, 10)]) + "\n</form>"
        yield (
            written(rng, "web.page", text, "login.html")
            if rng.random() < 0.6
            else message("web.page", {"html": text, "url": f"https://example.com{path(rng)}"})
        )


def markdown_pages(rng: random.Random) -> Iterator[Message]:
    """Pages turned into Markdown, as browsing tools give them."""
    while True:
        lines = [
            f"# {sentence(rng)}",
            "",
            f"[Skip to content](#main) [Sign in](https://example.com/login?return_to={path(rng)}) [Reset password](/password)",
        ]
        for _ in range(rng.randint(2, 9)):
            lines.append(
                pick(
                    rng,
                    [
                        paragraph(rng),
                        f"![]({'https://cdn.example.com/' + hexa(rng, 32)}.png?w={rng.randrange(2000)}&sig={rng.randrange(99)})",
                        f"* [{sentence(rng)}](https://example.com/a/{rng.randrange(10 ** 12)}?utm_source=x&token=abc)",
                        f"| {pick(rng, NOUNS)} | {rng.random() * 1000:.2f} € | {rng.randrange(10 ** 13)} |",
                        f"## {pick(rng, ['Password', 'Login', 'Your account', 'Payment', 'Security code', 'FAQ'])}",
                        "Password: at least 8 characters\nPassword strength: weak",
                        f"Posted by {person(rng)} on {when(rng):%B %d, %Y} · {rng.randrange(900)} comments · {rng.randrange(10 ** 7)} views",
                        f"Order no. {rng.randrange(10 ** 12)} · Item {chars(rng, 'ABCDEFGH0123456789', 10)}",
                        "We accept Visa, Mastercard, American Express. The security code is the 3-digit number on the back.",
                        f"Phone: +49 30 {rng.randrange(10 ** 7)} · Mail: info@example.com · Reg. no. HRB {rng.randrange(99999)} B · VAT DE{rng.randrange(10 ** 8, 10 ** 9)}",
                        f"SIRET {rng.randrange(10 ** 13, 10 ** 14)} · D-U-N-S {rng.randrange(10 ** 8, 10 ** 9)}",
                        f"> {sentence(rng)}\n> — {person(rng)}, {pick(rng, COMPANIES)}",
                        f"Version {semver(rng)} · sha256 {hexa(rng, 64)}",
                    ],
                )
            )
        yield written(rng, "web.fetch", "\n\n".join(lines))


PAGE_KEYS = """pageToken nextPageToken next_page_token page_token next_token nextToken NextToken continuation_token ContinuationToken cursor next_cursor after before syncToken nextSyncToken sync_token
resume_token scroll_id pit_token paginationToken $skiptoken nextMarker continuation change_token deltaToken start_key LastEvaluatedKey starting_after bookmark""".split()


def pagination(rng: random.Random) -> Iterator[Message]:
    """Tokens of pages, cursors, links, entity tags, idempotency keys."""
    while True:
        key = pick(rng, PAGE_KEYS)
        token = pick(
            rng,
            [
                base64url(rng, rng.randint(12, 120)),
                base64_text(rng, rng.randint(12, 60)),
                json.dumps({"o": rng.randrange(999)}).encode().hex(),
                str(rng.randrange(10**16)),
                uuid(rng),
                hexa(rng, 24),
            ],
        )
        url = f"https://api.example.com{path(rng)}?{key}={token}&{pick(rng, ['limit', 'pageSize'])}={rng.randrange(500)}"
        yield message(
            pick(rng, ["http.response", "list.result", "http.request"]),
            pick(
                rng,
                [
                    {
                        key: token,
                        "items": [{"id": rng.randrange(10**16), "etag": f'"{base64url(rng, 22)}"'} for _ in range(rng.randrange(5))],
                    },
                    {"text": f"GET {url}"},
                    {"links": {"self": url, "next": url}},
                    {"headers": {"Link": f'<{url}>; rel="next"', "ETag": f'W/"{hexa(rng, 32)}"', "Idempotency-Key": uuid(rng)}},
                    {"text": f"{key}: {token}"},
                    {"text": f'{key} = "{token}"'},
                    {"paging": {"cursors": {"after": token, "before": base64url(rng, 30)}, "next": url}},
                    {"data": [], "pageInfo": {"endCursor": token, "hasNextPage": True}},
                    {"params": {key: token}},
                    {"request": {"url": url, "queryString": [{"name": key, "value": token}]}},
                    {"stdout": f"{rng.randrange(99)} items\n{key}    {token}\nRun again with --{key.strip('$')} {token}"},
                    {"command": f"aws s3api list-objects --starting-token {token} --max-items 100"},
                    {"has_more": True, "next": url, key: token},
                ],
            ),
        )


def json_schemas(rng: random.Random) -> Iterator[Message]:
    """JSON Schemas, tool schemas and models with properties called password or token."""
    while True:
        others = {
            identifier(rng): pick(rng, ["string", "int", "boolean", {"type": "string"}, ["null", "long"], 12, True])
            for _ in range(rng.randrange(3))
        }
        name = pick(
            rng,
            [
                "password",
                "token",
                "api_key",
                "secret",
                "client_secret",
                "passphrase",
                "access_token",
                "ssn",
                "cvv",
                "iban",
                "card_number",
                "pin",
            ],
        )
        kind = pick(
            rng,
            [
                "string",
                "String!",
                "varchar(255)",
                "uuid",
                "bytes",
                "text",
                "SecretStr",
                "StringType",
                "nvarchar(max)",
                "Optional[str]",
                "string | null",
            ],
        )
        yield message(
            "schema",
            others
            | pick(
                rng,
                [
                    {
                        "$schema": "https://json-schema.org/draft/2020-12/schema",
                        "$id": f"https://example.com/{identifier(rng)}.json",
                        "type": "object",
                        "properties": {
                            name: {
                                "type": "string",
                                "format": "password",
                                "minLength": rng.randrange(30),
                                "description": sentence(rng),
                                "pattern": "^(?=.*[A-Z])(?=.*\\d).{8,}$",
                            }
                        },
                        "required": [name],
                        "additionalProperties": False,
                    },
                    {
                        "name": identifier(rng),
                        "parameters": {"properties": {name: {"type": ["string", "null"], "title": name.title()}}, "required": [name]},
                    },
                    {
                        "type": "record",
                        "name": "User",
                        "fields": [{"name": "id", "type": "long"}, {"name": name, "type": ["null", "string"], "default": None}],
                    },
                    {"columns": {name: kind, "id": "bigint"}},
                    {name: kind},
                    {"types": {name: kind}},
                    {"fields": [{"name": name, "type": kind}]},
                    {
                        "definitions": {name: {"$ref": "#/definitions/Secret"}},
                        "examples": [{name: pick(rng, ["string", "********", "<secret>", "your-password", ""])}],
                    },
                    {"ui:schema": {name: {"ui:widget": "password", "ui:placeholder": "Password", "ui:help": sentence(rng)}}},
                    {"mappings": {"properties": {name: {"type": "keyword", "index": False}, "card": {"type": "nested"}}}},
                    {"text": f"type User {{\n  id: ID!\n  {name}: String\n  {identifier(rng).replace('-', '_')}: Int!\n}}"},
                    {"validation": {name: "required|string|min:8|confirmed"}},
                    {"rules": {name: ["required", "min:12"]}},
                    {"schema": {name: {"type": "string", "writeOnly": True}, "token_count": {"type": "integer"}}},
                ],
            ),
        )


def search_results(rng: random.Random) -> Iterator[Message]:
    """Results of searches and of tools that look things up."""
    while True:
        results = [
            {
                "title": sentence(rng),
                "url": f"https://www.example.{pick(rng, ['com', 'org', 'de'])}{path(rng)}?id={rng.randrange(10 ** 12)}&ved=2ahUKE{base64url(rng, 30)}",
                "snippet": pick(
                    rng,
                    [
                        paragraph(rng),
                        "Reset your password: open Settings, choose Password.",
                        "token: a unit of text that a model reads; 1 token ~ 4 characters",
                        "Default password? How to find it",
                    ],
                ),
                "score": rng.random(),
                "docid": str(rng.getrandbits(63)),
                "published": f"{when(rng):%Y-%m-%d}",
                "cacheId": base64url(rng, 12),
            }
            for _ in range(rng.randint(1, 8))
        ]
        yield message(
            "search.results",
            pick(
                rng,
                [
                    {"results": results, "total": rng.randrange(10**9), "took_ms": rng.randrange(900)},
                    {"organic": results, "nextPageToken": base64url(rng, 30)},
                    {
                        "hits": {
                            "total": {"value": rng.randrange(9999)},
                            "max_score": rng.random() * 20,
                            "hits": [{"_id": base64url(rng, 20), "_score": rng.random(), "_source": r} for r in results],
                        }
                    },
                    {"text": "\n\n".join(f"{k}. {r['title']}\n{r['url']}\n{r['snippet']}" for k, r in enumerate(results, 1))},
                    {
                        "places": [
                            {
                                "name": f"{pick(rng, COMPANIES)} {pick(rng, CITIES)}",
                                "cid": str(rng.getrandbits(63)),
                                "lat": rng.uniform(-90, 90),
                                "service": pick(rng, SERVICES),
                            }
                        ]
                    },
                ],
            ),
        )


FAMILIES: dict[str, Family] = {
    "web_forms": html_forms,
    "web_markdown": markdown_pages,
    "web_pagination": pagination,
    "web_schemas": json_schemas,
    "web_search_results": search_results,
}
