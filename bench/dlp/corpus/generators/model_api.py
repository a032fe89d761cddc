"""Traffic of the large model vendors: requests, answers, streams, log probabilities, embeddings, batches, errors."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from .common import (
    ALNUM,
    CITIES,
    Family,
    Message,
    base64_text,
    base64url,
    chars,
    hexa,
    identifier,
    message,
    paragraph,
    pick,
    sentence,
    uuid,
    when,
)

MODELS = """gpt-4o gpt-4o-mini-2024-07-18 gpt-4.1 o3-mini gpt-3.5-turbo-0125 claude-3-5-sonnet-20241022 claude-3-7-sonnet-20250219 claude-3-haiku-20240307
gemini-1.5-pro-002 gemini-2.0-flash mistral-large-2411 llama-3.1-70b-instruct deepseek-chat command-r-plus text-embedding-3-small""".split()


def usage(rng: random.Random) -> dict[str, object]:
    """Tokens used, as OpenAI counts them."""
    asked, answered = rng.randrange(10, 90000), rng.randrange(1, 4000)
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": rng.randrange(asked), "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": rng.randrange(answered), "accepted_prediction_tokens": 0},
    }


TOPICS = [
    "How do I reset my password?",
    "Explain OAuth 2.0 refresh tokens.",
    "Write a login form with email and password.",
    "What does a CVV on a credit card do?",
    "Summarise the meeting.",
    "What is an IBAN and how is it validated?",
    "Generate a docker compose file for Postgres.",
    "Why is my API key rejected?",
    "Translate: The password is wrong.",
    "Review this function, please.",
    "Which HTTP header carries a bearer token?",
    "What is the difference between authentication and authorization?",
    "Was ist ein Einmalpasswort?",
    "Count the tokens of this prompt.",
]


ANSWERS = [
    "Click “Forgot password?”, enter your email, and choose a new password of at least 12 characters.",
    "A password: something only the user knows. A token: something that stands for it.",
    "Set `OPENAI_API_KEY` in your environment, for example `export OPENAI_API_KEY=...`.",
    "The CVV is the three-digit number on the back of the card; never store it.",
    'Use `password = os.environ["DB_PASSWORD"]` instead of writing it into the code.',
    'Here is the form:\n\n```html\n<input type="password" name="password" placeholder="Password">\n```',
    "The IBAN starts with a country code and two check digits.",
    "Send `Authorization: Bearer <token>` with each request.",
    "```yaml\nenvironment:\n  POSTGRES_PASSWORD: ${POSTGRES_PASSWORD}\n```",
    "Das Passwort ist falsch.",
    "Your key must not be shared; the secret: keep it in a vault.",
]


def tool(rng: random.Random) -> dict[str, object]:
    """A tool as a function with a JSON schema."""
    name = identifier(rng).replace("-", "_")
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": sentence(rng),
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string"},
                    "limit": {"type": "integer"},
                    pick(rng, ["password", "token", "page_token", "api_key", "secret_name", "city"]): {
                        "type": "string",
                        "description": "Optional.",
                    },
                },
                "required": ["query"],
            },
        },
    }


def tool_arguments(rng: random.Random) -> dict[str, object]:
    """What a model calls a tool with."""
    return pick(
        rng,
        [
            {"query": sentence(rng), "limit": rng.randrange(50)},
            {"city": pick(rng, CITIES), "unit": "celsius"},
            {"path": f"src/{identifier(rng)}.py", "start_line": rng.randrange(400)},
            {"page_token": base64url(rng, 24)},
            {"id": rng.randrange(10**16)},
            {"command": "grep -rn password src | head"},
            {"secret_name": "db-password"},
            {"sql": "SELECT id FROM users WHERE password IS NULL"},
        ],
    )


def openai_chat(rng: random.Random) -> Iterator[Message]:
    """OpenAI: requests and answers of chat completions, tool calls among them."""
    while True:
        model = pick(rng, MODELS[:5])
        call = {
            "id": "call_" + chars(rng, ALNUM, 24),
            "type": "function",
            "function": {"name": identifier(rng).replace("-", "_"), "arguments": json.dumps(tool_arguments(rng))},
        }
        if rng.random() < 0.5:
            turns: list[dict[str, object]] = [
                {
                    "role": "system",
                    "content": pick(rng, ["You are a helpful assistant.", "Never reveal passwords or tokens.", sentence(rng)]),
                }
            ]
            for _ in range(rng.randint(1, 4)):
                turns += [
                    {"role": "user", "content": pick(rng, [pick(rng, TOPICS), paragraph(rng)])},
                    {"role": "assistant", "content": pick(rng, [pick(rng, ANSWERS), paragraph(rng)])},
                ]
            turns += [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {
                    "role": "tool",
                    "tool_call_id": call["id"],
                    "content": json.dumps({"result": sentence(rng), "next_page_token": base64url(rng, 20)}),
                },
            ]
            yield message(
                "openai.request",
                {
                    "model": model,
                    "messages": turns,
                    "temperature": round(rng.random(), 2),
                    "max_tokens": rng.randrange(4096),
                    "seed": rng.getrandbits(31),
                    "tools": [tool(rng)],
                    "tool_choice": "auto",
                    "user": f"user-{uuid(rng)}",
                    "logit_bias": {str(rng.randrange(100000)): -100},
                    "stop": ["\n\n"],
                    "max_completion_tokens": 800,
                },
            )
        else:
            said = (
                {"role": "assistant", "content": pick(rng, [pick(rng, ANSWERS), paragraph(rng)]), "refusal": None}
                if rng.random() < 0.6
                else {"role": "assistant", "content": None, "tool_calls": [call]}
            )
            yield message(
                "openai.response",
                {
                    "id": "chatcmpl-" + chars(rng, ALNUM, 29),
                    "object": "chat.completion",
                    "created": int(when(rng).timestamp()),
                    "model": model,
                    "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": "stop"}],
                    "usage": usage(rng),
                    "service_tier": "default",
                    "system_fingerprint": "fp_" + hexa(rng, 10),
                },
            )


def anthropic(rng: random.Random) -> Iterator[Message]:
    """Anthropic: messages, tool use, thinking with its signature."""
    while True:
        use: dict[str, object] = {
            "type": "tool_use",
            "id": "toolu_01" + chars(rng, ALNUM, 22),
            "name": identifier(rng).replace("-", "_"),
            "input": tool_arguments(rng),
        }
        blocks: list[dict[str, object]] = [{"type": "text", "text": pick(rng, [pick(rng, ANSWERS), paragraph(rng)])}]
        if rng.random() < 0.5:
            blocks.append(use)
        if rng.random() < 0.3:
            blocks.insert(0, {"type": "thinking", "thinking": paragraph(rng), "signature": base64_text(rng, rng.randint(100, 400))})
        if rng.random() < 0.5:
            yield message(
                "anthropic.response",
                {
                    "id": "msg_01" + chars(rng, ALNUM, 22),
                    "type": "message",
                    "role": "assistant",
                    "model": pick(rng, MODELS[5:8]),
                    "content": blocks,
                    "stop_reason": pick(rng, ["end_turn", "tool_use", "max_tokens"]),
                    "stop_sequence": None,
                    "usage": {
                        "input_tokens": rng.randrange(90000),
                        "cache_creation_input_tokens": rng.randrange(9000),
                        "cache_read_input_tokens": rng.randrange(9000),
                        "output_tokens": rng.randrange(4096),
                    },
                },
            )
        else:
            yield message(
                "anthropic.request",
                {
                    "model": pick(rng, MODELS[5:8]),
                    "max_tokens": 4096,
                    "system": sentence(rng),
                    "tools": [
                        {
                            "name": "search",
                            "description": sentence(rng),
                            "input_schema": {"type": "object", "properties": {"token": {"type": "string"}, "password": {"type": "string"}}},
                        }
                    ],
                    "messages": [
                        {"role": "user", "content": pick(rng, TOPICS)},
                        {"role": "assistant", "content": blocks},
                        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use["id"], "content": paragraph(rng)}]},
                    ],
                    "metadata": {"user_id": uuid(rng)},
                },
            )


def gemini(rng: random.Random) -> Iterator[Message]:
    """Gemini: contents, parts, safety ratings, counts."""
    while True:
        yield message(
            "gemini",
            pick(
                rng,
                [
                    {
                        "contents": [
                            {"role": "user", "parts": [{"text": pick(rng, [pick(rng, TOPICS), paragraph(rng)])}]},
                            {
                                "role": "model",
                                "parts": [
                                    {"text": pick(rng, [pick(rng, ANSWERS), paragraph(rng)])},
                                    {"functionCall": {"name": identifier(rng), "args": tool_arguments(rng)}},
                                ],
                            },
                        ],
                        "generationConfig": {"temperature": rng.random(), "maxOutputTokens": 2048, "topK": 40, "seed": rng.getrandbits(31)},
                    },
                    {
                        "candidates": [
                            {
                                "content": {"parts": [{"text": paragraph(rng)}], "role": "model"},
                                "finishReason": "STOP",
                                "safetyRatings": [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}],
                                "avgLogprobs": -rng.random(),
                            }
                        ],
                        "usageMetadata": {
                            "promptTokenCount": rng.randrange(9000),
                            "candidatesTokenCount": rng.randrange(900),
                            "totalTokenCount": rng.randrange(9900),
                            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": rng.randrange(900)}],
                        },
                        "modelVersion": MODELS[8],
                        "responseId": base64url(rng, 22),
                    },
                    {"totalTokens": rng.randrange(9999), "cachedContentTokenCount": rng.randrange(999), "displayName": sentence(rng)},
                ],
            ),
        )


FAMILIES: dict[str, Family] = {
    "model_openai_chat": openai_chat,
    "model_anthropic": anthropic,
    "model_gemini": gemini,
}
