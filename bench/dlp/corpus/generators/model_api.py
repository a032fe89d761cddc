"""Traffic of the large model vendors: requests, answers, streams, log probabilities, embeddings, batches, errors."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from .common import (ALNUM, CITIES, NOUNS, SERVICES, Family, Message, base64_text, base64url, chars, hexa, identifier, message, paragraph,
                     pick, sentence, uuid, when)

MODELS = """gpt-4o gpt-4o-mini-2024-07-18 gpt-4.1 o3-mini gpt-3.5-turbo-0125 claude-3-5-sonnet-20241022 claude-3-7-sonnet-20250219 claude-3-haiku-20240307
gemini-1.5-pro-002 gemini-2.0-flash mistral-large-2411 llama-3.1-70b-instruct deepseek-chat command-r-plus text-embedding-3-small""".split()
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
    return pick(rng, ["Ġ", "", "##", "▁"]) + word[:rng.randint(2, 12)]


def usage(rng: random.Random) -> dict[str, object]:
    """Tokens used, as OpenAI counts them."""
    asked, answered = rng.randrange(10, 90000), rng.randrange(1, 4000)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered, "prompt_tokens_details": {"cached_tokens": rng.randrange(asked), "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": rng.randrange(answered), "accepted_prediction_tokens": 0}}


TOPICS = ["How do I reset my password?", "Explain OAuth 2.0 refresh tokens.", "Write a login form with email and password.", "What does a CVV on a credit card do?", "Summarise the meeting.",
          "What is an IBAN and how is it validated?", "Generate a docker compose file for Postgres.", "Why is my API key rejected?", "Translate: The password is wrong.", "Review this function, please.",
          "Which HTTP header carries a bearer token?", "What is the difference between authentication and authorization?", "Was ist ein Einmalpasswort?", "Count the tokens of this prompt."]
ANSWERS = ["Click “Forgot password?”, enter your email, and choose a new password of at least 12 characters.", "A password: something only the user knows. A token: something that stands for it.",
           "Set `OPENAI_API_KEY` in your environment, for example `export OPENAI_API_KEY=...`.", "The CVV is the three-digit number on the back of the card; never store it.",
           "Use `password = os.environ[\"DB_PASSWORD\"]` instead of writing it into the code.", "Here is the form:\n\n```html\n<input type=\"password\" name=\"password\" placeholder=\"Password\">\n```",
           "The IBAN starts with a country code and two check digits.", "Send `Authorization: Bearer <token>` with each request.", "```yaml\nenvironment:\n  POSTGRES_PASSWORD: ${POSTGRES_PASSWORD}\n```",
           "Das Passwort ist falsch.", "Your key must not be shared; the secret: keep it in a vault."]


def tool(rng: random.Random) -> dict[str, object]:
    """A tool as a function with a JSON schema."""
    name = identifier(rng).replace("-", "_")
    return {"type": "function", "function": {"name": name, "description": sentence(rng), "strict": True, "parameters": {"type": "object", "properties": {
        "query": {"type": "string"}, "limit": {"type": "integer"}, pick(rng, ["password", "token", "page_token", "api_key", "secret_name", "city"]): {"type": "string", "description": "Optional."}}, "required": ["query"]}}}


def tool_arguments(rng: random.Random) -> dict[str, object]:
    """What a model calls a tool with."""
    return pick(rng, [{"query": sentence(rng), "limit": rng.randrange(50)}, {"city": pick(rng, CITIES), "unit": "celsius"}, {"path": f"src/{identifier(rng)}.py", "start_line": rng.randrange(400)},
                      {"page_token": base64url(rng, 24)}, {"id": rng.randrange(10 ** 16)}, {"command": "grep -rn password src | head"}, {"secret_name": "db-password"}, {"sql": "SELECT id FROM users WHERE password IS NULL"}])


def openai_chat(rng: random.Random) -> Iterator[Message]:
    """OpenAI: requests and answers of chat completions, tool calls among them."""
    while True:
        model = pick(rng, MODELS[:5])
        call = {"id": "call_" + chars(rng, ALNUM, 24), "type": "function", "function": {"name": identifier(rng).replace("-", "_"), "arguments": json.dumps(tool_arguments(rng))}}
        if rng.random() < 0.5:
            turns: list[dict[str, object]] = [{"role": "system", "content": pick(rng, ["You are a helpful assistant.", "Never reveal passwords or tokens.", sentence(rng)])}]
            for _ in range(rng.randint(1, 4)):
                turns += [{"role": "user", "content": pick(rng, [pick(rng, TOPICS), paragraph(rng)])}, {"role": "assistant", "content": pick(rng, [pick(rng, ANSWERS), paragraph(rng)])}]
            turns += [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": call["id"], "content": json.dumps({"result": sentence(rng), "next_page_token": base64url(rng, 20)})}]
            yield message("openai.request", {"model": model, "messages": turns, "temperature": round(rng.random(), 2), "max_tokens": rng.randrange(4096), "seed": rng.getrandbits(31), "tools": [tool(rng)], "tool_choice": "auto",
                                             "user": f"user-{uuid(rng)}", "logit_bias": {str(rng.randrange(100000)): -100}, "stop": ["\n\n"], "max_completion_tokens": 800})
        else:
            said = {"role": "assistant", "content": pick(rng, [pick(rng, ANSWERS), paragraph(rng)]), "refusal": None} if rng.random() < 0.6 else {"role": "assistant", "content": None, "tool_calls": [call]}
            yield message("openai.response", {"id": "chatcmpl-" + chars(rng, ALNUM, 29), "object": "chat.completion", "created": int(when(rng).timestamp()), "model": model,
                                              "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": "stop"}], "usage": usage(rng), "service_tier": "default", "system_fingerprint": "fp_" + hexa(rng, 10)})


def logprobs(rng: random.Random) -> Iterator[Message]:
    """Log probabilities, in the forms of OpenAI's chat and completions, Gemini and vLLM."""
    while True:
        pieces = [piece(rng) for _ in range(rng.randint(3, 60))]
        chance = lambda: -round(rng.expovariate(1.2), rng.randint(3, 16))  # noqa: E731
        form = rng.randrange(5)
        if form < 2:
            content = [{"token": plain(p), "logprob": chance(), "bytes": list(plain(p).encode()), "top_logprobs": [{"token": plain(piece(rng)), "logprob": chance(), "bytes": None} for _ in range(rng.randrange(4))]} for p in pieces]
            yield message("openai.response", {"id": "chatcmpl-" + chars(rng, ALNUM, 29), "choices": [{"index": 0, "logprobs": {"content": content, "refusal": None}, "finish_reason": "length"}], "usage": usage(rng)})
        elif form == 2:
            yield message("completion", {"choices": [{"text": "".join(map(plain, pieces)), "logprobs": {"tokens": list(map(plain, pieces)), "token_logprobs": [chance() for _ in pieces], "top_logprobs": [{plain(p): chance()} for p in pieces], "text_offset": list(range(len(pieces)))}}]})
        elif form == 3:
            yield message("gemini.response", {"candidates": [{"logprobsResult": {"chosenCandidates": [{"token": plain(p), "tokenId": rng.randrange(256000), "logProbability": chance()} for p in pieces]}, "avgLogprobs": chance()}]})
        else:
            yield message("vllm.response", {"prompt_logprobs": [None] + [{str(rng.randrange(128000)): {"logprob": chance(), "rank": 1, "decoded_token": plain(p)}} for p in pieces]})


def tokenizers(rng: random.Random) -> Iterator[Message]:
    """What tokenizers and parsers give: pieces, ids, vocabularies, merges, parts of speech."""
    while True:
        pieces = [piece(rng) for _ in range(rng.randint(1, 40))]
        yield message("tokenizer.output", pick(rng, [
            {"token": pieces[0]}, {"tokens": pieces, "ids": [rng.randrange(50257) for _ in pieces]}, {"token": pieces[0], "id": rng.randrange(50257), "score": rng.random()},
            {"vocab": {p: rng.randrange(50257) for p in pieces}}, {"merges": [f"{p} {piece(rng)}" for p in pieces]}, {"special_tokens_map": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "[PAD]", "mask_token": "<mask>"}},
            {"items": [{"token": p, "lemma": p.lower(), "pos": pick(rng, ["NOUN", "VERB", "PROPN", "NUM"]), "start": rng.randrange(900)} for p in pieces]}, {"text": " | ".join(pieces)},
            {"added_tokens": [{"id": rng.randrange(128000), "content": p, "single_word": False, "special": True} for p in pieces[:6]]}, {"text": "\n".join(f"token: {p}" for p in pieces[:8])},
            {"tokens": [{"type": pick(rng, ["Identifier", "StringLiteral", "Keyword", "Punctuator"]), "value": p, "token": p, "line": rng.randrange(900)} for p in pieces[:9]]},
            {"entities": [{"token": p, "entity": "B-PER", "score": rng.random()} for p in pieces[:5]]}, {"error": {"message": f"Unexpected token {pieces[0]} in JSON at position {rng.randrange(9999)}", "token": pieces[0]}},
        ]))


def streams(rng: random.Random) -> Iterator[Message]:
    """Streaming deltas of OpenAI, Anthropic and Gemini, as events and as text."""
    while True:
        ident = chars(rng, ALNUM, 24)
        out: list[dict[str, object]] = []
        for k in range(rng.randint(1, 12)):
            text = plain(piece(rng))
            out.append(pick(rng, [
                {"id": f"chatcmpl-{ident}", "object": "chat.completion.chunk", "created": 1730000000 + k, "model": MODELS[0], "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]},
                {"type": "content_block_delta", "index": k, "delta": {"type": "text_delta", "text": text}}, {"type": "content_block_delta", "index": k, "delta": {"type": "input_json_delta", "partial_json": pick(rng, ["{\"pass", "word\": \"", "{\"token", "\": ", text])}},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": rng.randrange(4000)}}, {"type": "response.output_text.delta", "item_id": "msg_" + hexa(rng, 48), "delta": text, "sequence_number": k},
                {"type": "message_start", "message": {"id": "msg_01" + chars(rng, ALNUM, 22), "role": "assistant", "model": MODELS[5], "usage": {"input_tokens": rng.randrange(9000), "output_tokens": 1}}},
                {"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}], "usageMetadata": {"promptTokenCount": rng.randrange(900), "totalTokenCount": rng.randrange(9000)}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": base64_text(rng, rng.randint(60, 300))}}]))
        yield message("model.stream", pick(rng, [{"events": out}, out[0], {"text": "".join(f"data: {json.dumps(e)}\n\n" for e in out) + "data: [DONE]\n\n"}]))


def anthropic(rng: random.Random) -> Iterator[Message]:
    """Anthropic: messages, tool use, thinking with its signature."""
    while True:
        use = {"type": "tool_use", "id": "toolu_01" + chars(rng, ALNUM, 22), "name": identifier(rng).replace("-", "_"), "input": tool_arguments(rng)}
        blocks: list[dict[str, object]] = [{"type": "text", "text": pick(rng, [pick(rng, ANSWERS), paragraph(rng)])}]
        if rng.random() < 0.5:
            blocks.append(use)
        if rng.random() < 0.3:
            blocks.insert(0, {"type": "thinking", "thinking": paragraph(rng), "signature": base64_text(rng, rng.randint(100, 400))})
        if rng.random() < 0.5:
            yield message("anthropic.response", {"id": "msg_01" + chars(rng, ALNUM, 22), "type": "message", "role": "assistant", "model": pick(rng, MODELS[5:8]), "content": blocks, "stop_reason": pick(rng, ["end_turn", "tool_use", "max_tokens"]), "stop_sequence": None,
                                                 "usage": {"input_tokens": rng.randrange(90000), "cache_creation_input_tokens": rng.randrange(9000), "cache_read_input_tokens": rng.randrange(9000), "output_tokens": rng.randrange(4096)}})
        else:
            yield message("anthropic.request", {"model": pick(rng, MODELS[5:8]), "max_tokens": 4096, "system": sentence(rng), "tools": [{"name": "search", "description": sentence(rng), "input_schema": {"type": "object", "properties": {"token": {"type": "string"}, "password": {"type": "string"}}}}],
                                                "messages": [{"role": "user", "content": pick(rng, TOPICS)}, {"role": "assistant", "content": blocks}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use["id"], "content": paragraph(rng)}]}], "metadata": {"user_id": uuid(rng)}})


def gemini(rng: random.Random) -> Iterator[Message]:
    """Gemini: contents, parts, safety ratings, counts."""
    while True:
        yield message("gemini", pick(rng, [
            {"contents": [{"role": "user", "parts": [{"text": pick(rng, TOPICS)}]}, {"role": "model", "parts": [{"text": pick(rng, ANSWERS)}, {"functionCall": {"name": identifier(rng), "args": tool_arguments(rng)}}]}], "generationConfig": {"temperature": rng.random(), "maxOutputTokens": 2048, "topK": 40, "seed": rng.getrandbits(31)}},
            {"candidates": [{"content": {"parts": [{"text": paragraph(rng)}], "role": "model"}, "finishReason": "STOP", "safetyRatings": [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}], "avgLogprobs": -rng.random()}],
             "usageMetadata": {"promptTokenCount": rng.randrange(9000), "candidatesTokenCount": rng.randrange(900), "totalTokenCount": rng.randrange(9900), "promptTokensDetails": [{"modality": "TEXT", "tokenCount": rng.randrange(900)}]}, "modelVersion": MODELS[8], "responseId": base64url(rng, 22)},
            {"totalTokens": rng.randrange(9999), "cachedContentTokenCount": rng.randrange(999)}]))


def embeddings(rng: random.Random) -> Iterator[Message]:
    """Embeddings: floats, base64, quantised."""
    while True:
        size = pick(rng, [8, 64, 256, 768])
        vector: object = pick(rng, [lambda: [rng.gauss(0, 0.03) for _ in range(size)], lambda: [round(rng.gauss(0, 0.03), 8) for _ in range(size)], lambda: base64_text(rng, size * 4), lambda: [rng.randint(-128, 127) for _ in range(size)]])()
        yield message("embedding", {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": vector}], "model": MODELS[-1], "usage": {"prompt_tokens": rng.randrange(800), "total_tokens": rng.randrange(900)}})


def accounts(rng: random.Random) -> Iterator[Message]:
    """Errors, limits, usage, batches, files, fine-tuning."""
    while True:
        shown = f"sk-{chars(rng, ALNUM, 4)}{'*' * rng.randint(20, 40)}{chars(rng, ALNUM, 4)}"
        yield message("model.api", pick(rng, [
            {"error": {"message": f"Incorrect API key provided: {shown}. You can find your API key at https://platform.openai.com/account/api-keys.", "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}},
            {"type": "error", "error": {"type": pick(rng, ["authentication_error", "rate_limit_error", "overloaded_error"]), "message": pick(rng, ["invalid x-api-key", "Number of request tokens has exceeded your per-minute rate limit", "Overloaded"])}, "request_id": "req_01" + chars(rng, ALNUM, 22)},
            {"error": {"code": 429, "message": "Resource has been exhausted (e.g. check quota).", "status": "RESOURCE_EXHAUSTED", "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{rng.randrange(60)}s"}]}},
            {"error": {"message": f"This model's maximum context length is 128000 tokens. However, your messages resulted in {rng.randrange(128001, 999999)} tokens.", "code": "context_length_exceeded"}},
            {"headers": {"x-ratelimit-limit-tokens": "30000000", "x-ratelimit-remaining-tokens": str(rng.randrange(30000000)), "x-ratelimit-reset-tokens": f"{rng.randrange(900)}ms", "x-request-id": "req_" + hexa(rng, 32), "openai-processing-ms": str(rng.randrange(9000)), "anthropic-organization-id": uuid(rng)}},
            {"id": "batch_" + hexa(rng, 32), "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-" + chars(rng, ALNUM, 22), "status": "completed", "created_at": int(when(rng).timestamp()), "request_counts": {"total": rng.randrange(9000), "completed": rng.randrange(9000), "failed": 0}},
            {"text": "\n".join(json.dumps({"custom_id": f"request-{k}", "method": "POST", "url": "/v1/chat/completions", "body": {"model": MODELS[1], "messages": [{"role": "user", "content": pick(rng, TOPICS)}], "max_tokens": 500}}) for k in range(rng.randint(1, 8)))},
            {"object": "page", "data": [{"object": "bucket", "start_time": int(when(rng).timestamp()), "results": [{"input_tokens": rng.randrange(10 ** 7), "output_tokens": rng.randrange(10 ** 6), "project_id": "proj_" + chars(rng, ALNUM, 24), "api_key_id": "key_" + chars(rng, ALNUM, 16)}]}], "has_more": True, "next_page": "page_" + base64url(rng, 40)},
            {"object": "fine_tuning.job", "id": "ftjob-" + chars(rng, ALNUM, 24), "trained_tokens": rng.randrange(10 ** 7), "hyperparameters": {"n_epochs": 3}, "organization_id": "org-" + chars(rng, ALNUM, 24), "fine_tuned_model": f"ft:gpt-4o-mini:acme::{chars(rng, ALNUM, 8)}"},
            {"object": "list", "data": [{"id": m, "object": "model", "owned_by": pick(rng, SERVICES), "max_tokens": rng.randrange(200000), "pricing": {"token": "0.0000025"}} for m in MODELS[:rng.randint(1, 9)]]},
            {"id": "resp_" + hexa(rng, 48), "object": "response", "output": [{"type": "reasoning", "id": "rs_" + hexa(rng, 48), "encrypted_content": "gAAAAA" + base64url(rng, 400), "summary": []}, {"type": "message", "content": [{"type": "output_text", "text": pick(rng, ANSWERS), "annotations": []}]}], "max_output_tokens": None, "previous_response_id": None, "truncation": "disabled"},
            {"model": pick(rng, MODELS), "tokens_per_second": rng.random() * 200, "eval_count": rng.randrange(999), "context": [rng.randrange(128000) for _ in range(rng.randrange(60))], "load_duration": rng.randrange(10 ** 10), "subject": pick(rng, NOUNS)},
        ]))


FAMILIES: dict[str, Family] = {
    "model_openai_chat": openai_chat, "model_logprobs": logprobs, "model_tokenizers": tokenizers, "model_streams": streams, "model_anthropic": anthropic,
    "model_gemini": gemini, "model_embeddings": embeddings, "model_accounts": accounts,
}
