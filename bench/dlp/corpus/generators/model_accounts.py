"""What stands around models: errors, limits, usage, batches, files."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from .common import (
    ALNUM,
    NOUNS,
    SERVICES,
    Family,
    Message,
    base64url,
    chars,
    hexa,
    message,
    pick,
    uuid,
    when,
)
from .model_api import ANSWERS, MODELS, TOPICS


def accounts(rng: random.Random) -> Iterator[Message]:
    """Errors, limits, usage, batches, files, fine-tuning."""
    while True:
        shown = f"sk-{chars(rng, ALNUM, 4)}{'*' * rng.randint(20, 40)}{chars(rng, ALNUM, 4)}"
        yield message(
            "model.api",
            pick(
                rng,
                [
                    {
                        "error": {
                            "message": f"Incorrect API key provided: {shown}. You can find your API key at https://platform.openai.com/account/api-keys.",
                            "type": "invalid_request_error",
                            "param": None,
                            "code": "invalid_api_key",
                        }
                    },
                    {
                        "type": "error",
                        "error": {
                            "type": pick(rng, ["authentication_error", "rate_limit_error", "overloaded_error"]),
                            "message": pick(
                                rng, ["invalid x-api-key", "Number of request tokens has exceeded your per-minute rate limit", "Overloaded"]
                            ),
                        },
                        "request_id": "req_01" + chars(rng, ALNUM, 22),
                    },
                    {
                        "error": {
                            "code": 429,
                            "message": "Resource has been exhausted (e.g. check quota).",
                            "status": "RESOURCE_EXHAUSTED",
                            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{rng.randrange(60)}s"}],
                        }
                    },
                    {
                        "error": {
                            "message": f"This model's maximum context length is 128000 tokens. However, your messages resulted in {rng.randrange(128001, 999999)} tokens.",
                            "code": "context_length_exceeded",
                        }
                    },
                    {
                        "headers": {
                            "x-ratelimit-limit-tokens": "30000000",
                            "x-ratelimit-remaining-tokens": str(rng.randrange(30000000)),
                            "x-ratelimit-reset-tokens": f"{rng.randrange(900)}ms",
                            "x-request-id": "req_" + hexa(rng, 32),
                            "openai-processing-ms": str(rng.randrange(9000)),
                            "anthropic-organization-id": uuid(rng),
                        }
                    },
                    {
                        "id": "batch_" + hexa(rng, 32),
                        "object": "batch",
                        "endpoint": "/v1/chat/completions",
                        "input_file_id": "file-" + chars(rng, ALNUM, 22),
                        "status": "completed",
                        "created_at": int(when(rng).timestamp()),
                        "request_counts": {"total": rng.randrange(9000), "completed": rng.randrange(9000), "failed": 0},
                    },
                    {
                        "text": "\n".join(
                            json.dumps(
                                {
                                    "custom_id": f"request-{k}",
                                    "method": "POST",
                                    "url": "/v1/chat/completions",
                                    "body": {
                                        "model": MODELS[1],
                                        "messages": [{"role": "user", "content": pick(rng, TOPICS)}],
                                        "max_tokens": 500,
                                    },
                                }
                            )
                            for k in range(rng.randint(1, 8))
                        )
                    },
                    {
                        "object": "page",
                        "data": [
                            {
                                "object": "bucket",
                                "start_time": int(when(rng).timestamp()),
                                "results": [
                                    {
                                        "input_tokens": rng.randrange(10**7),
                                        "output_tokens": rng.randrange(10**6),
                                        "project_id": "proj_" + chars(rng, ALNUM, 24),
                                        "api_key_id": "key_" + chars(rng, ALNUM, 16),
                                    }
                                ],
                            }
                        ],
                        "has_more": True,
                        "next_page": "page_" + base64url(rng, 40),
                    },
                    {
                        "object": "fine_tuning.job",
                        "id": "ftjob-" + chars(rng, ALNUM, 24),
                        "trained_tokens": rng.randrange(10**7),
                        "hyperparameters": {"n_epochs": 3},
                        "organization_id": "org-" + chars(rng, ALNUM, 24),
                        "fine_tuned_model": f"ft:gpt-4o-mini:acme::{chars(rng, ALNUM, 8)}",
                    },
                    {
                        "object": "list",
                        "data": [
                            {
                                "id": m,
                                "object": "model",
                                "owned_by": pick(rng, SERVICES),
                                "max_tokens": rng.randrange(200000),
                                "pricing": {"token": "0.0000025"},
                            }
                            for m in MODELS[: rng.randint(1, 9)]
                        ],
                    },
                    {
                        "id": "resp_" + hexa(rng, 48),
                        "object": "response",
                        "output": [
                            {
                                "type": "reasoning",
                                "id": "rs_" + hexa(rng, 48),
                                "encrypted_content": "gAAAAA" + base64url(rng, 400),
                                "summary": [],
                            },
                            {"type": "message", "content": [{"type": "output_text", "text": pick(rng, ANSWERS), "annotations": []}]},
                        ],
                        "max_output_tokens": None,
                        "previous_response_id": None,
                        "truncation": "disabled",
                    },
                    {
                        "model": pick(rng, MODELS),
                        "tokens_per_second": rng.random() * 200,
                        "eval_count": rng.randrange(999),
                        "context": [rng.randrange(128000) for _ in range(rng.randrange(60))],
                        "load_duration": rng.randrange(10**10),
                        "subject": pick(rng, NOUNS),
                    },
                ],
            ),
        )


FAMILIES: dict[str, Family] = {
    "model_accounts": accounts,
}
