"""Translation files in eight languages."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from .common import (
    Family,
    Message,
    message,
    pick,
    written,
)
from .forms import said

UI = {
    "en": [
        "Password",
        "Enter your password",
        "Forgot password?",
        "Repeat password",
        "Change password",
        "New password",
        "Show password",
        "API key",
        "Secret",
        "Access token",
        "Security code",
        "Card number",
        "Copy token",
        "Member ID",
        "PIN code",
        "Sign in with password",
    ],
    "de": [
        "Passwort",
        "Passwort eingeben",
        "Passwort vergessen?",
        "Passwort wiederholen",
        "Passwort ändern",
        "Neues Passwort",
        "Passwort anzeigen",
        "API-Schlüssel",
        "Geheimnis",
        "Zugriffstoken",
        "Sicherheitscode",
        "Kartennummer",
        "Kennwort",
        "Mitgliedsnummer",
    ],
    "fr": [
        "Mot de passe",
        "Saisissez votre mot de passe",
        "Mot de passe oublié ?",
        "Répétez le mot de passe",
        "Nouveau mot de passe",
        "Clé d’API",
        "Secret",
        "Jeton d’accès",
        "Code de sécurité",
        "Numéro de carte",
        "Afficher",
    ],
    "es": [
        "Contraseña",
        "Introduzca su contraseña",
        "¿Olvidó su contraseña?",
        "Repita la contraseña",
        "Clave de API",
        "Secreto",
        "Código de seguridad",
        "Número de tarjeta",
        "Nueva contraseña",
    ],
    "it": [
        "Password",
        "Inserisci la password",
        "Password dimenticata?",
        "Ripeti la password",
        "Chiave API",
        "Segreto",
        "Codice di sicurezza",
        "Numero della carta",
        "Nuova password",
    ],
    "pt": [
        "Senha",
        "Digite sua senha",
        "Esqueceu a senha?",
        "Repita a senha",
        "Chave de API",
        "Segredo",
        "Código de segurança",
        "Número do cartão",
        "Nova senha",
    ],
    "nl": [
        "Wachtwoord",
        "Voer uw wachtwoord in",
        "Wachtwoord vergeten?",
        "Herhaal wachtwoord",
        "API-sleutel",
        "Geheim",
        "Beveiligingscode",
        "Kaartnummer",
        "Nieuw wachtwoord",
    ],
    "pl": [
        "Hasło",
        "Wpisz hasło",
        "Nie pamiętasz hasła?",
        "Powtórz hasło",
        "Klucz API",
        "Sekret",
        "Kod bezpieczeństwa",
        "Numer karty",
        "Nowe hasło",
    ],
}


UI_KEYS = [
    "password",
    "login.password",
    "auth.forgot_password",
    "passwordRepeat",
    "settings.password.new",
    "apiKey",
    "secret",
    "token",
    "securityCode",
    "cardNumber",
    "cvv",
    "member_id",
    "password_hint",
    "pin",
    "ssn",
    "passphrase",
    "clientSecret",
]


def translations(rng: random.Random) -> Iterator[Message]:
    """Translation files in eight languages: JSON, YAML, gettext, properties, XLIFF, ARB, Fluent."""
    while True:
        language = pick(rng, list(UI))
        entries = [(pick(rng, UI_KEYS), pick(rng, UI[language])) for _ in range(rng.randint(1, 10))]
        form = rng.randrange(9)
        if form == 0:
            yield message("i18n", dict(entries))
        elif form == 1:
            yield message("i18n", {language: {"login": dict(entries)}})
        else:
            render = [
                None,
                None,
                lambda k, v: f"{k}={v}",
                lambda k, v: f"msgid \"{pick(rng, UI['en'])}\"\nmsgstr \"{v}\"\n",
                lambda k, v: f"  {k}: {pick(rng, [v, json.dumps(v, ensure_ascii=False)])}",
                lambda k, v: f"<trans-unit id=\"{k}\"><source>{pick(rng, UI['en'])}</source><target>{v}</target></trans-unit>",
                lambda k, v: f"<string name=\"{k.replace('.', '_')}\">{v}</string>",
                lambda k, v: f'"{k}" = "{v}";',
                lambda k, v: f"{v}: {pick(rng, [said(rng), pick(rng, UI[language]), '…'])}",
            ][form]
            yield written(rng, "i18n", "\n".join(render(k, v) for k, v in entries), f"{language}.txt")  # type: ignore[misc]


FAMILIES: dict[str, Family] = {
    "web_translations": translations,
}
