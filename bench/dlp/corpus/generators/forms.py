"""Forms: errors, translations, instructions."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .common import (
    Family,
    Message,
    hexa,
    message,
    pick,
    sentence,
    when,
    written,
)

# Per language: what a field that holds a password is called in messages, and what is said of it.
LANGUAGES: dict[str, tuple[str, list[str]]] = {
    "en": (
        "Password",
        [
            "is required",
            "is too short",
            "must contain at least one digit",
            "must be at least {n} characters long",
            "does not match",
            "has expired",
            "cannot be blank",
            "is too common",
            "may not be your name",
        ],
    ),
    "de": (
        "Passwort",
        [
            "ist erforderlich",
            "ist zu kurz",
            "muss mindestens eine Ziffer enthalten",
            "muss mindestens {n} Zeichen lang sein",
            "stimmt nicht überein",
            "ist abgelaufen",
            "darf nicht leer sein",
        ],
    ),
    "fr": (
        "Mot de passe",
        [
            "est obligatoire",
            "est trop court",
            "doit contenir au moins un chiffre",
            "doit comporter au moins {n} caractères",
            "ne correspond pas",
            "a expiré",
        ],
    ),
    "es": (
        "Contraseña",
        [
            "es obligatoria",
            "es demasiado corta",
            "debe contener al menos un número",
            "debe tener al menos {n} caracteres",
            "no coincide",
            "ha caducado",
        ],
    ),
    "it": (
        "Password",
        [
            "è obbligatoria",
            "è troppo corta",
            "deve contenere almeno una cifra",
            "deve avere almeno {n} caratteri",
            "non corrisponde",
            "è scaduta",
        ],
    ),
    "pt": (
        "Senha",
        [
            "é obrigatória",
            "é muito curta",
            "deve conter pelo menos um número",
            "deve ter pelo menos {n} caracteres",
            "não confere",
            "expirou",
        ],
    ),
    "nl": (
        "Wachtwoord",
        [
            "is verplicht",
            "is te kort",
            "moet minstens één cijfer bevatten",
            "moet minstens {n} tekens lang zijn",
            "komt niet overeen",
            "is verlopen",
        ],
    ),
    "pl": (
        "Hasło",
        ["jest wymagane", "jest za krótkie", "musi zawierać cyfrę", "musi mieć co najmniej {n} znaków", "nie pasuje", "wygasło"],
    ),
}


FIELDS = [
    "password",
    "new_password",
    "passwordConfirmation",
    "pass",
    "pin",
    "token",
    "api_key",
    "secret",
    "cvv",
    "card_number",
    "ssn",
    "iban",
    "client_secret",
    "otp",
    "passwort",
    "mot_de_passe",
    "contrasena",
    "email",
]


CODES = [
    "required",
    "too_short",
    "invalid",
    "blank",
    "mismatch",
    "expired",
    "missing",
    "weak",
    "taken",
    "not_unique",
    "string_too_short",
    "value_error",
    "ERR_PASSWORD_POLICY",
    "incorrect_cvc",
    "expired_card",
    "invalid_number",
]


def said(rng: random.Random) -> str:
    """What is wrong with a field, in one of eight languages."""
    label, texts = LANGUAGES[pick(rng, list(LANGUAGES))]
    text = pick(rng, texts).format(n=rng.randrange(6, 20))
    return pick(rng, [f"{label} {text}", f"{label} {text}.", text, text.capitalize() + ".", f"{label}: {text}"])


def validation(rng: random.Random) -> Iterator[Message]:
    """Errors of forms: of Django, Rails, Laravel, FastAPI, JSON Schema, Stripe, GraphQL."""
    while True:
        field = pick(rng, FIELDS)
        yield message(
            pick(rng, ["form.errors", "http.response", "validation"]),
            pick(
                rng,
                [
                    {"errors": {field: [said(rng) for _ in range(rng.randint(1, 3))]}},
                    {field: said(rng)},
                    {field: [said(rng)]},
                    {"errors": {field: said(rng), pick(rng, FIELDS): said(rng)}},
                    {"detail": [{"loc": ["body", field], "msg": said(rng), "type": pick(rng, CODES), "input": None}]},
                    {"errors": [{"field": field, "code": pick(rng, CODES), "message": said(rng)}]},
                    {"message": "The given data was invalid.", "errors": {field: [said(rng)]}},
                    {"errors": {field: {"message": said(rng), "kind": pick(rng, CODES), "path": field}}},
                    {"errors": {field: pick(rng, CODES)}},
                    {field: pick(rng, CODES)},
                    {
                        "errors": [
                            {
                                "message": said(rng),
                                "path": ["createUser", field],
                                "extensions": {"code": "BAD_USER_INPUT", "argumentName": field},
                            }
                        ]
                    },
                    {
                        "error": {
                            "type": "card_error",
                            "code": pick(rng, CODES),
                            "param": field,
                            "message": "Your card's security code is incorrect.",
                        }
                    },
                    {
                        "errors": [
                            {
                                "instancePath": f"/{field}",
                                "schemaPath": f"#/properties/{field}/minLength",
                                "keyword": "minLength",
                                "params": {"limit": 8},
                                "message": "must NOT have fewer than 8 characters",
                            }
                        ]
                    },
                    {"text": "\n".join(f"{f}: {said(rng)}" for f in rng.sample(FIELDS, 3))},
                    {"status": 422, "title": "Unprocessable", "invalid-params": [{"name": field, "reason": said(rng)}]},
                    {"valid": False, "fields": {field: {"touched": True, "error": said(rng), "value": ""}}},
                    {
                        "feedback": {
                            field: {
                                "warning": said(rng),
                                "suggestions": ["Add another word or two.", "Avoid years."],
                                "score": rng.randrange(5),
                            }
                        }
                    },
                ],
            ),
        )


def form_prose(rng: random.Random) -> Iterator[Message]:
    """Dialogues and instructions about passwords, codes and cards, without any."""
    lines = [
        "Enter your password",
        "Enter your password to continue:",
        "Password (min. 8 characters):",
        "Password:",
        "Please type your password again.",
        "Password: (hidden)",
        "Username: bob\nPassword: ",
        "What is your password? Never tell anyone.",
        "Your password was changed on {d}.",
        "Your password expires in {n} days.",
        "Wrong password, {n} attempts left.",
        "Password for bob@example.com: ",
        "The password is case-sensitive",
        "The password is stored hashed.",
        "The password is not needed here",
        "The password is wrong",
        "Your PIN is on its way by post.",
        "The security code on the back has 3 digits.",
        "Security code: see the back of your card",
        "CVV: what is this?",
        "Card number: the 16 digits on the front",
        "Card ending 4242, expires 12/27",
        "Your token will be shown once.",
        "Token: optional",
        "API key: create one in the settings",
        "Secret: at least 32 bytes",
        "Passwort eingeben:",
        "Das Passwort ist falsch.",
        "Passwort: mindestens {n} Zeichen",
        "Mot de passe : 8 caractères minimum",
        "Contraseña: mínimo 8 caracteres",
        "Kein Passwort? Hier registrieren.",
        "Member ID: see your card",
        "Member ID: {n}{n}{n}",
        "Policy number: PN-{n}{n}",
        "Reference: {h}",
        "Please confirm with code sent to +49 *** **{n}",
        "SSN (last four digits): {n}",
        "password or passphrase: both work",
        "Is the password required? Yes.",
        "password: required; token: optional",
        "I forgot my password and the reset mail never came.",
        "The password field is empty",
        "Password: unchanged",
        "password / confirm password",
    ]
    while True:
        yield written(
            rng,
            "form",
            pick(rng, ["\n", " ", "\n\n"]).join(
                pick(rng, lines).format(d=f"{when(rng):%d %B %Y}", n=rng.randrange(2, 99), h=hexa(rng, 8)) for _ in range(rng.randint(1, 6))
            )
            + pick(rng, ["", "\n" + sentence(rng)]),
        )


FAMILIES: dict[str, Family] = {
    "web_validation": validation,
    "web_form_prose": form_prose,
}
