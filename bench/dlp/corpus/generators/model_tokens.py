"""What models give token by token: log probabilities, vocabularies, streams, embeddings."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from .common import (
    ALNUM,
    Family,
    Message,
    base64_text,
    chars,
    hexa,
    message,
    paragraph,
    pick,
)
from .model_api import MODELS, usage

PIECES = """The Ġthe Ġpassword Ġis Ġtoken Ġsecret ĠJavaScript Ġinternational ##ization ##s ▁national ▁der ▁Konfiguration README.md user_id Python3 ĠPython ĠAPI Ġkey
_key .com :// Ġ2024 2024 Ġ19 19 Ġ100000 0000 Ġ4111 Ġ1111 ĠgetElementById useState className ĠString ĠInteger ĠUTF 8 -8 ĠSHA 256 ĠBase 64 ĊĊ Ċ Ġ(" "); ()) {}
Ġ<|endoftext|> <|im_start|> </s> <s> [CLS] [SEP] ĠMünchen ĠStraÃŁe Ġпароль ä½ł å¥½ こん 안녕 ĠBearer ĠAuthorization ĠBasic Ġcredential Ġpassphrase Ġpass ĠPIN Ġssn Ġemail
ĠISO 27001 ĠRFC 7519 ĠH2O ĠCO2 Ġv1.2.3 ĠK8s Ġi18n Ġw3c Ġes2022 ĠMD5 Ġx86_64 Ġaarch64 Ġi686 camelCase2 Ġsnake_case_2 ĠIPv6 Ġutf8mb4 Ġlatin1 Ġp99 Ġnp.float32 ĠC++17
ĠABC123 Ġxyz789 Ġq1w2 Ġadmin Ġroot Ġ123456 Ġ12345678 Ġqwerty Ġletmein hunter Ġhunter2 Ġdragon ĠNone Ġnull Ġtrue Ġundefined Ġlambda Ġasync""".split()


def plain(piece: str) -> str:
    """A piece as the model writes it, with blanks and line ends."""
    return piece.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n")


def piece(rng: random.Random) -> str:
    """A piece of a vocabulary: a listed one, or part of a word."""
    if rng.random() < 0.6:
        return pick(rng, PIECES)
    word = pick(rng, paragraph(rng).split())
    return pick(rng, ["Ġ", "", "##", "▁"]) + word[: rng.randint(2, 12)]


def logprobs(rng: random.Random) -> Iterator[Message]:
    """Log probabilities, in the forms of OpenAI's chat and completions, Gemini and vLLM."""
    while True:
        pieces = [piece(rng) for _ in range(rng.randint(3, 60))]
        chance = lambda: -round(rng.expovariate(1.2), rng.randint(3, 16))  # noqa: E731
        form = rng.randrange(5)
        if form < 2:
            content = [
                {
                    "token": plain(p),
                    "logprob": chance(),
                    "bytes": list(plain(p).encode()),
                    "top_logprobs": [{"token": plain(piece(rng)), "logprob": chance(), "bytes": None} for _ in range(rng.randrange(4))],
                }
                for p in pieces
            ]
            yield message(
                "openai.response",
                {
                    "id": "chatcmpl-" + chars(rng, ALNUM, 29),
                    "choices": [{"index": 0, "logprobs": {"content": content, "refusal": None}, "finish_reason": "length"}],
                    "usage": usage(rng),
                },
            )
        elif form == 2:
            yield message(
                "completion",
                {
                    "choices": [
                        {
                            "text": "".join(map(plain, pieces)),
                            "logprobs": {
                                "tokens": list(map(plain, pieces)),
                                "token_logprobs": [chance() for _ in pieces],
                                "top_logprobs": [{plain(p): chance()} for p in pieces],
                                "text_offset": list(range(len(pieces))),
                            },
                        }
                    ]
                },
            )
        elif form == 3:
            yield message(
                "gemini.response",
                {
                    "candidates": [
                        {
                            "logprobsResult": {
                                "chosenCandidates": [
                                    {"token": plain(p), "tokenId": rng.randrange(256000), "logProbability": chance()} for p in pieces
                                ]
                            },
                            "avgLogprobs": chance(),
                        }
                    ]
                },
            )
        else:
            yield message(
                "vllm.response",
                {
                    "prompt_logprobs": [None]
                    + [{str(rng.randrange(128000)): {"logprob": chance(), "rank": 1, "decoded_token": plain(p)}} for p in pieces]
                },
            )


def tokenizers(rng: random.Random) -> Iterator[Message]:
    """What tokenizers and parsers give: pieces, ids, vocabularies, merges, parts of speech."""
    while True:
        pieces = [piece(rng) for _ in range(rng.randint(1, 40))]
        yield message(
            "tokenizer.output",
            pick(
                rng,
                [
                    {"token": pieces[0]},
                    {"tokens": pieces, "ids": [rng.randrange(50257) for _ in pieces]},
                    {"token": pieces[0], "id": rng.randrange(50257), "score": rng.random()},
                    {"vocab": {p: rng.randrange(50257) for p in pieces}},
                    {"merges": [f"{p} {piece(rng)}" for p in pieces]},
                    {
                        "special_tokens_map": {
                            "bos_token": "<s>",
                            "eos_token": "</s>",
                            "unk_token": "<unk>",
                            "pad_token": "[PAD]",
                            "mask_token": "<mask>",
                        }
                    },
                    {
                        "items": [
                            {
                                "token": p,
                                "lemma": p.lower(),
                                "pos": pick(rng, ["NOUN", "VERB", "PROPN", "NUM"]),
                                "start": rng.randrange(900),
                            }
                            for p in pieces
                        ]
                    },
                    {"text": " | ".join(pieces)},
                    {
                        "added_tokens": [
                            {"id": rng.randrange(128000), "content": p, "single_word": False, "special": True} for p in pieces[:6]
                        ]
                    },
                    {"text": "\n".join(f"token: {p}" for p in pieces[:8])},
                    {
                        "tokens": [
                            {
                                "type": pick(rng, ["Identifier", "StringLiteral", "Keyword", "Punctuator"]),
                                "value": p,
                                "token": p,
                                "line": rng.randrange(900),
                            }
                            for p in pieces[:9]
                        ]
                    },
                    {"entities": [{"token": p, "entity": "B-PER", "score": rng.random()} for p in pieces[:5]]},
                    {"error": {"message": f"Unexpected token {pieces[0]} in JSON at position {rng.randrange(9999)}", "token": pieces[0]}},
                ],
            ),
        )


def streams(rng: random.Random) -> Iterator[Message]:
    """Streaming deltas of OpenAI, Anthropic and Gemini, as events and as text."""
    while True:
        ident = chars(rng, ALNUM, 24)
        out: list[dict[str, object]] = []
        for k in range(rng.randint(1, 12)):
            text = plain(piece(rng))
            out.append(
                pick(
                    rng,
                    [
                        {
                            "id": f"chatcmpl-{ident}",
                            "object": "chat.completion.chunk",
                            "created": 1730000000 + k,
                            "model": MODELS[0],
                            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
                        },
                        {"type": "content_block_delta", "index": k, "delta": {"type": "text_delta", "text": text}},
                        {
                            "type": "content_block_delta",
                            "index": k,
                            "delta": {
                                "type": "input_json_delta",
                                "partial_json": pick(rng, ['{"pass', 'word": "', '{"token', '": ', text]),
                            },
                        },
                        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": rng.randrange(4000)}},
                        {"type": "response.output_text.delta", "item_id": "msg_" + hexa(rng, 48), "delta": text, "sequence_number": k},
                        {
                            "type": "message_start",
                            "message": {
                                "id": "msg_01" + chars(rng, ALNUM, 22),
                                "role": "assistant",
                                "model": MODELS[5],
                                "usage": {"input_tokens": rng.randrange(9000), "output_tokens": 1},
                            },
                        },
                        {
                            "candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}],
                            "usageMetadata": {"promptTokenCount": rng.randrange(900), "totalTokenCount": rng.randrange(9000)},
                        },
                        {
                            "type": "content_block_delta",
                            "index": 0,
                            "delta": {"type": "signature_delta", "signature": base64_text(rng, rng.randint(60, 300))},
                        },
                    ],
                )
            )
        yield message(
            "model.stream",
            pick(rng, [{"events": out}, out[0], {"text": "".join(f"data: {json.dumps(e)}\n\n" for e in out) + "data: [DONE]\n\n"}]),
        )


def embeddings(rng: random.Random) -> Iterator[Message]:
    """Embeddings: floats, base64, quantised."""
    while True:
        size = pick(rng, [8, 64, 256, 768])
        vector: object = pick(
            rng,
            [
                lambda: [rng.gauss(0, 0.03) for _ in range(size)],
                lambda: [round(rng.gauss(0, 0.03), 8) for _ in range(size)],
                lambda: base64_text(rng, size * 4),
                lambda: [rng.randint(-128, 127) for _ in range(size)],
            ],
        )()
        yield message(
            "embedding",
            {
                "object": "list",
                "data": [{"object": "embedding", "index": 0, "embedding": vector}],
                "model": MODELS[-1],
                "usage": {"prompt_tokens": rng.randrange(800), "total_tokens": rng.randrange(900)},
            },
        )


FAMILIES: dict[str, Family] = {
    "model_logprobs": logprobs,
    "model_tokenizers": tokenizers,
    "model_streams": streams,
    "model_embeddings": embeddings,
}
