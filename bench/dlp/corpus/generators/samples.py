"""What samples that must be found share: values, and the form of a line."""

from __future__ import annotations

import random

from .common import ALNUM, NOUNS, Message, base64url, chars, digits, hexa, pick, with_luhn

LEET = str.maketrans("aeios", "43105")
PASSWORD_WORDS = """sommer winter dragon monkey hunter falcon Berlin london purple summer shadow tiger coffee guitar
banana orange silver rocket pepper garden lemon ocean pirate thunder kaffee fromage naranja hockey wizard""".split()
# Issuer: prefixes and lengths.
MAIN_ISSUERS: dict[str, tuple[list[str], list[int]]] = {
    "visa": (["4"], [16]),
    "mastercard": ([str(n) for n in range(51, 56)] + [str(n) for n in range(2221, 2721)], [16]),
    "amex": (["34", "37"], [15]),
    "discover": (["6011", "65"] + [str(n) for n in range(644, 650)], [16]),
    "jcb": ([str(n) for n in range(3528, 3590)], [16]),
    "diners": (["36", "38", "300", "301", "302", "303", "304", "305"], [14]),
    "unionpay": (["62"], [16]),
}
OTHER_ISSUERS: dict[str, tuple[list[str], list[int]]] = {
    "visa": (["4"], [13, 19]),
    "maestro": (["5018", "5020", "5038", "5893", "6304", "6759", "6761", "6762", "6763"], list(range(12, 20))),
    "unionpay": (["62"], [17, 18, 19]),
    "jcb": (["3528", "3589"], [17, 18, 19]),
    "discover": (["6011", "65"], [17, 18, 19]),
    "mir": (["2200", "2201", "2202", "2203", "2204"], [16, 17, 18, 19]),
    "rupay": (["6521", "8172", "508500"], [16]),
    "troy": (["9792"], [16]),
    "diners": (["36", "3095"], [16]),
}


def sample(family: str, form: str, kind: str, secret: str, data: object, message_type: str = "note") -> Message:
    """A line: `secret` is the text that must not get through, `form` how it is written."""
    body = data if isinstance(data, dict) else {"text": data}
    return {"family": family, "form": form, "kind": kind, "secret": secret, "message_type": message_type, "data": body}


def card(rng: random.Random, issuers: dict[str, tuple[list[str], list[int]]]) -> tuple[str, str]:
    """An issuer and a number of it."""
    issuer = pick(rng, list(issuers))
    prefixes, lengths = issuers[issuer]
    return issuer, with_luhn(rng, pick(rng, prefixes), pick(rng, lengths))


def grouped_card(number: str, separator: str) -> str:
    """In the groups that are printed on cards."""
    if len(number) == 15:
        parts = [number[:4], number[4:10], number[10:]]
    elif len(number) == 14:
        parts = [number[:4], number[4:10], number[10:]]
    else:
        parts = [number[start : start + 4] for start in range(0, len(number), 4)]
    return separator.join(parts)


def human_password(rng: random.Random) -> str:
    """A password that a person makes up; it has a digit or a sign in it."""
    word = pick(rng, PASSWORD_WORDS)
    form = rng.randrange(6)
    if form == 0:
        return word + str(rng.randrange(1, 10000))
    if form == 1:
        return word.capitalize() + str(rng.randrange(1970, 2030)) + pick(rng, ["!", "#", "", "*"])
    if form == 2:
        return word.translate(LEET) + pick(rng, ["x9", "77", "_1", "2go"])
    if form == 3:
        return "-".join([word, pick(rng, NOUNS), pick(rng, PASSWORD_WORDS), str(rng.randrange(10, 99))])
    if form == 4:
        return pick(rng, NOUNS).capitalize() + word.capitalize() + digits(rng, 2)
    return word + pick(rng, [".", "_", "+"]) + pick(rng, NOUNS) + digits(rng, 1)


def random_password(rng: random.Random, signs: bool = True) -> str:
    """A password that a program makes."""
    length = rng.randint(10, 28)
    body = chars(rng, ALNUM + ("!#%*+-_=." if signs and rng.random() < 0.5 else ""), length - 3)
    return pick(rng, "ABCDEFGHJKLMNPQRSTUVWXYZ") + body + chars(rng, "23456789", 1) + chars(rng, "abcdefghkmnpqrstuvwxyz", 1)


def password(rng: random.Random, signs: bool = True) -> str:
    """A password; with `signs` false none that shells or URLs read."""
    value = human_password(rng) if rng.random() < 0.5 else random_password(rng, signs)
    return value if signs else "".join(c for c in value if c.isalnum() or c in "-_.")


def secret_key(rng: random.Random) -> str:
    """A key without a vendor's prefix."""
    form = rng.randrange(5)
    if form == 0:
        return hexa(rng, pick(rng, [32, 40, 64]))
    if form == 1:
        return base64url(rng, pick(rng, [32, 43, 64]))
    return "k" + chars(rng, ALNUM, rng.randint(20, 46)) + chars(rng, "23456789", 1)


PASSWORD_LABELS = """password passwd pwd pass passphrase db_password db_pass database_password smtp_password smtp_pass
admin_password root_password user_password mysql_root_password postgres_password redis_password ldap_bind_password
mail_password ftp_password proxy_password keystore_password ssh_passphrase login_password service_password
rabbitmq_default_pass ftp_pass mongo_initdb_root_password vpn_password wifi_password""".split()
SECRET_LABELS: dict[str, str] = {
    "secret": "secret",
    "client_secret": "secret",
    "secret_key": "secret",
    "app_secret": "secret",
    "jwt_secret": "secret",
    "session_secret": "secret",
    "signing_secret": "secret",
    "webhook_secret": "secret",
    "consumer_secret": "secret",
    "shared_secret": "secret",
    "encryption_key": "secret",
    "secret_key_base": "secret",
    "api_secret": "secret",
    "cookie_secret": "secret",
    "api_key": "api_key",
    "apikey": "api_key",
    "x_api_key": "api_key",
    "weather_api_key": "api_key",
    "maps_api_key": "api_key",
    "service_api_key": "api_key",
    "access_token": "auth_token",
    "auth_token": "auth_token",
    "refresh_token": "auth_token",
    "bearer_token": "auth_token",
    "private_token": "auth_token",
    "deploy_token": "auth_token",
    "bot_token": "auth_token",
    "access_key": "secret",
    "master_key": "secret",
    "hmac_key": "secret",
    "aws_secret_access_key": "aws_key",
}


def labelled(rng: random.Random, signs: bool = True) -> tuple[str, str, str]:
    """A label in snake case, a kind, a value."""
    if rng.random() < 0.55:
        return pick(rng, PASSWORD_LABELS), "password", password(rng, signs)
    label = pick(rng, list(SECRET_LABELS))
    if label == "aws_secret_access_key":
        return label, "aws_key", chars(rng, ALNUM + ("/+" if signs else ""), 39) + "7"
    return label, SECRET_LABELS[label], secret_key(rng)


def spelled(rng: random.Random, label: str, styles: str = "snake UPPER camel Pascal kebab") -> str:
    """The label as another convention spells it."""
    style = pick(rng, styles.split())
    words = label.split("_")
    if style == "UPPER":
        return label.upper()
    if style == "camel":
        return words[0] + "".join(word.title() for word in words[1:])
    if style == "Pascal":
        return "".join(word.title() for word in words)
    if style == "kebab":
        return "-".join(words)
    if style == "words":
        return " ".join(words)
    if style == "Words":
        return " ".join(words).capitalize()
    if style == "dotted":
        return ".".join(words)
    return label
