"""Numbers that people must not send: cards, security codes, US social security numbers, IBANs."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from typing import Any

from .common import COMPANIES, Family, Message, chars, digits, paragraph, person, pick, sentence
from .samples import MAIN_ISSUERS, OTHER_ISSUERS, card, grouped_card, sample

CARD_SENTENCES = """Please charge {n} for it.
My card is {n}. {e} is the expiry
My card number is {n}, expiry {e}.
Card No.{n}
Card No. {n}
Card number: {n}
card:{n}
card={n}
cc: {n} exp {e}
CC#{n}
Credit card {n}
credit card number is {n}
Pay with {n} ({i}).
The {i} card {n} was declined.
{i}: {n}
{i} {n}
{p} paid by card {n}, {e}.
PAN {n}
Kreditkarte: {n}
Kreditkartennummer {n}
Kartennummer: {n}, gültig bis {e}
Karten-Nr. {n}
Carte bancaire : {n}
Numéro de carte : {n}
N° de carte {n}
Tarjeta de crédito: {n}
Número de tarjeta: {n}
Carta di credito: {n}
Numero della carta {n}
Cartão de crédito: {n}
Creditcardnummer: {n}
Numer karty: {n}
Kortnummer: {n}
Refund to card {n}!
Is {n} your card?
The customer's card ({n}) expires {e}
Card on file "{n}"
cardholder {p}, {n}, {e}
old card {n}; new card follows""".splitlines()
GROUPED_SENTENCES = (
    CARD_SENTENCES
    + """{n}
It is {n}.
{n}, {e}
Use {n}. 3 items ship today.
{p} {n} {e}
"{n}"
({n})
{n}; thank you
Here you go: {n}
{s} {n} {s}""".splitlines()
)
CARD_KEYS = """card card_number cardNumber CardNumber pan PAN credit_card creditCard creditCardNumber cc cc_number ccNumber
number_of_card card-number kartennummer numero_carte numero_tarjeta payment_card primaryAccountNumber cardNo""".split()
ISSUER_NAMES = {
    "visa": "Visa",
    "mastercard": "Mastercard",
    "amex": "American Express",
    "discover": "Discover",
    "jcb": "JCB",
    "diners": "Diners Club",
    "unionpay": "UnionPay",
    "maestro": "Maestro",
    "mir": "Mir",
    "rupay": "RuPay",
    "troy": "Troy",
}


def expiry(rng: random.Random) -> str:
    """When a card ends."""
    month, year = rng.randint(1, 12), rng.randint(26, 34)
    return pick(rng, [f"{month:02d}/{year}", f"{month:02d}/20{year}", f"20{year}-{month:02d}"])


def in_sentence(rng: random.Random, templates: list[str], number: str, issuer: str) -> str:
    """The number in one of the templates, sometimes among other sentences."""
    text = pick(rng, templates).format(n=number, e=expiry(rng), i=ISSUER_NAMES[issuer], p=person(rng), s=sentence(rng))
    form = rng.randrange(4)
    if form == 0:
        return f"{sentence(rng)} {text}"
    if form == 1:
        return f"{text}\n{sentence(rng)}"
    return text


def cards_grouped(rng: random.Random) -> Iterator[Message]:
    """Cards in groups, as they are printed."""
    while True:
        issuer, number = card(rng, MAIN_ISSUERS)
        name, separator = pick(
            rng,
            [
                ("blanks", " "),
                ("hyphens", "-"),
                ("no-break", "\u00a0"),
                ("thin", "\u2009"),
                ("blanks", " "),
                ("hyphens", "-"),
                ("non-breaking hyphen", "\u2011"),
            ],
        )
        written = grouped_card(number, separator)
        yield sample("cards_grouped", name, "credit_card", written, in_sentence(rng, GROUPED_SENTENCES, written, issuer))


def cards_in_context(rng: random.Random) -> Iterator[Message]:
    """Cards without groups in sentences and after labels."""
    while True:
        issuer, number = card(rng, MAIN_ISSUERS)
        yield sample("cards_in_context", issuer, "credit_card", number, in_sentence(rng, CARD_SENTENCES, number, issuer))


def cards_other_lengths(rng: random.Random) -> Iterator[Message]:
    """Cards of 12 to 19 digits where a card word stands by."""
    while True:
        issuer, number = card(rng, OTHER_ISSUERS)
        if rng.random() < 0.3:
            yield sample("cards_other_lengths", f"json {len(number)}", "credit_card", number, {pick(rng, CARD_KEYS): number})
            continue
        written = grouped_card(number, " ") if rng.random() < 0.2 and len(number) > 14 else number
        text = in_sentence(rng, CARD_SENTENCES, written, issuer)
        if "card" not in text.lower():
            text = "card " + text
        yield sample("cards_other_lengths", f"{issuer} {len(number)}", "credit_card", written, text)


def cards_listed(rng: random.Random) -> Iterator[Message]:
    """Cards in numbered lists, tables and columns; the secret is the last one."""
    while True:
        numbers = [card(rng, MAIN_ISSUERS)[1] for _ in range(rng.randint(1, 5))]
        shown = [grouped_card(n, " ") for n in numbers] if rng.random() < 0.3 else numbers
        rows = list(enumerate(shown, start=rng.choice([1, 1, 1, 9])))
        form = rng.randrange(9)
        names = ["1.", "1)", "(1)", "bullets", "markdown table", "csv", "html list", "html table", "json list"]
        title = pick(rng, ["", "Cards:\n", "Credit cards\n\n", f"{sentence(rng)}\n", "Cards on file:\n"])
        data: Any = title + "\n".join(
            [
                lambda: [f"{i}. {n}" for i, n in rows],
                lambda: [f"{i}) {n}" for i, n in rows],
                lambda: [f"({i}) {n}" for i, n in rows],
                lambda: [f"- {n}" for _, n in rows],
                lambda: ["| no. | card number |", "|---|---|"] + [f"| {i} | {n} |" for i, n in rows],
                lambda: ["id,name,card_number,expiry"] + [f"{i},{person(rng)},{n},{expiry(rng)}" for i, n in rows],
                lambda: ["<ol>"] + [f"<li>{n}</li>" for _, n in rows] + ["</ol>"],
                lambda: ["<table><tr><th>Card</th></tr>"] + [f"<tr><td>{n}</td></tr>" for _, n in rows] + ["</table>"],
                lambda: [""],
            ][form]()
        )
        if form == 8:
            data = {pick(rng, ["cards", "card_numbers", "creditCards"]): shown}
        yield sample("cards_listed", names[form], "credit_card", shown[-1], data)


def cards_json(rng: random.Random) -> Iterator[Message]:
    """Cards as JSON strings and numbers."""
    while True:
        issuer, number = card(rng, MAIN_ISSUERS)
        key = pick(rng, CARD_KEYS)
        form = rng.randrange(6)
        data: Any = [
            {key: number},
            {key: int(number)},
            {"payment": {key: number, "expiry": expiry(rng), "holder": person(rng)}},
            {"card": {"number": number, "brand": issuer, "exp_month": rng.randint(1, 12)}},
            {"customers": [{"name": person(rng), key: grouped_card(number, pick(rng, [" ", "-"]))}]},
            {"payment_method": {"type": "card", "card": {"number": int(number), "exp_year": 2031}}},
        ][form]
        secret = grouped_card(number, " ") if form == 4 else number
        if form == 4:
            data = {"customers": [{"name": person(rng), key: secret}]}
        yield sample(
            "cards_json",
            ["string", "number", "nested", "card.number", "grouped", "nested number"][form],
            "credit_card",
            secret,
            data,
            pick(rng, ["payment", "order", "record"]),
        )


def cards_bare(rng: random.Random) -> Iterator[Message]:
    """Cards without groups, label and card word: what identifiers look like, too."""
    while True:
        _, number = card(rng, MAIN_ISSUERS)
        text = pick(rng, ["{n}", "It is {n}.", "{n}, {e}", "1. {n}", "{p}, {n}", "{s} {n}. {s}"]).format(
            n=number, e=expiry(rng), p=person(rng), s=sentence(rng)
        )
        yield sample("cards_bare", "bare", "credit_card", number, text)


CODE_LABELS = """CVV;CVV2;CVC;CVC2;CVN;CSC;CID;card security code;security code;card verification value;card code;Sicherheitscode;Kartenprüfnummer
Prüfnummer;cryptogramme;code de sécurité;código de seguridad;codice di sicurezza;código de segurança;beveiligingscode;kod bezpieczeństwa""".replace(
    "\n", ";"
).split(";")
CODE_KEYS = """cvv cvv2 cvc cvc2 cvn csc cid security_code securityCode card_code cardCode verification_value cvvNumber
card_verification_value cardSecurityCode sicherheitscode codigo_seguridad""".split()


def security_codes(rng: random.Random) -> Iterator[Message]:
    """Security codes of cards under their usual labels."""
    while True:
        label = pick(rng, CODE_LABELS)
        amex = rng.random() < 0.25
        code = digits(rng, 4 if amex else 3)
        issuer, number = card(rng, {"amex": MAIN_ISSUERS["amex"]} if amex else {"visa": MAIN_ISSUERS["visa"]})
        masked = f"card ending {number[-4:]}"
        form = rng.randrange(7)
        if form < 2:
            key = pick(rng, CODE_KEYS)
            value: object = code if form else int(code)
            data: Any = (
                {"card": {"last4": number[-4:], "brand": issuer, key: value}}
                if rng.random() < 0.5
                else {key: value, "exp": expiry(rng), "brand": issuer}
            )
        else:
            data = ["{m}, {l}: {c}", "{m}, exp {e}, {l} {c}", "The card's {l} is {c}", "{m} {l}={c}", "{e}, {l}: {c} ({b})"][
                form - 2
            ].format(m=masked, l=label, c=code, e=expiry(rng), b=ISSUER_NAMES[issuer])
        yield sample("security_codes", label if form > 1 else "json", "cvv", code, data, "payment")


SSN_SENTENCES = """SSN: {n}
SSN {n}
ssn={n}
SSN#{n}
SSN is {n}
Social Security Number: {n}
social security number is {n}
social security no. {n}
My SSN is {n}. Thanks
My social is {n}, born 12/04/1981
Employee {p}, SSN {n}, started Monday
{p} (SSN {n})
SSN - {n}
SSN:\t{n}
US SSN: {n}
Patient: {p}; SSN: {n}; allergies: none
"ssn": "{n}"
| SSN | {n} |
<td>SSN</td><td>{n}</td>
1. SSN: {n}""".splitlines()


def ssn(rng: random.Random) -> Iterator[Message]:
    """Social security numbers that can have been issued, under a label or in a column."""
    while True:
        area = pick(rng, [n for n in range(1, 900) if n != 666])
        parts = (f"{area:03d}", f"{rng.randint(1, 99):02d}", f"{rng.randint(1, 9999):04d}")
        style, separator = pick(
            rng, [("hyphens", "-"), ("hyphens", "-"), ("blanks", " "), ("plain", ""), ("dots", "."), ("no-break", "\u2011")]
        )
        written = separator.join(parts)
        form = rng.randrange(5)
        if form == 0:
            key = pick(rng, ["ssn", "SSN", "social_security_number", "socialSecurityNumber", "employee_ssn", "patientSsn", "taxpayer_ssn"])
            data: Any = {"employee": {"name": person(rng), key: written}} if rng.random() < 0.5 else {key: written}
            style = "json " + style
        elif form == 1:
            data = (
                f"name,ssn,city\n{person(rng)},{written},Austin\n"
                if rng.random() < 0.5
                else f"| Name | SSN |\n|---|---|\n| {person(rng)} | {written} |\n"
            )
            style = "column " + style
        else:
            data = pick(rng, SSN_SENTENCES).format(n=written, p=person(rng))
            if rng.random() < 0.3:
                data = f"{paragraph(rng, 1, 3)} {data}"
        yield sample("ssn", style, "ssn", written, data)


# Country: the BBAN, as the IBAN registry writes it (n digits, a capitals, c capitals and digits).
IBAN_FORMATS: dict[str, str] = {
    "DE": "n18",
    "FR": "n10 c11 n2",
    "GB": "a4 n14",
    "NL": "a4 n10",
    "ES": "n20",
    "IT": "a1 n10 c12",
    "BE": "n12",
    "AT": "n16",
    "CH": "n5 c12",
    "PL": "n24",
    "PT": "n21",
    "SE": "n20",
    "DK": "n14",
    "NO": "n11",
    "FI": "n14",
    "IE": "a4 n14",
    "LU": "n3 c13",
    "CZ": "n20",
    "HU": "n24",
    "GR": "n7 c16",
    "RO": "a4 c16",
    "SK": "n20",
    "HR": "n17",
    "BG": "a4 n6 c8",
    "LT": "n16",
    "LV": "a4 c13",
    "EE": "n16",
    "TR": "n5 n1 c16",
    "SA": "n2 c18",
    "AE": "n3 n16",
}
IBAN_SENTENCES = """IBAN: {n}
IBAN {n}
iban={n}
Please transfer to {n}.
Please pay {n} by Friday
Bankverbindung: {n}
Konto {n} bei der Sparkasse
Kontonummer (IBAN): {n}
Notre IBAN est {n}
Cuenta: {n}
Conto corrente {n}
{co} GmbH, {n}, BIC COBADEFFXXX
account {n}, thank you
{n}
"{n}"
1. {n}
- {n}
| {co} | {n} |
{p}'s account is {n}; use it.
IBAN:{n}
transfer from {n} to us""".splitlines()


def iban_of(rng: random.Random, country: str) -> str:
    """A number of that country with its two check digits."""
    alphabets = {"n": string.digits, "a": string.ascii_uppercase, "c": string.digits + string.ascii_uppercase}
    account = "".join(chars(rng, alphabets[part[0]], int(part[1:])) for part in IBAN_FORMATS[country].split())
    as_number = "".join(str(int(c, 36)) for c in account + country + "00")
    return f"{country}{98 - int(as_number) % 97:02d}{account}"


def iban(rng: random.Random) -> Iterator[Message]:
    """IBANs of thirty countries."""
    while True:
        country = pick(rng, list(IBAN_FORMATS))
        number = iban_of(rng, country)
        style = pick(rng, ["plain", "groups", "groups", "no-break", "hyphens", "lower"])
        separator = {"groups": " ", "no-break": "\u00a0", "hyphens": "-"}.get(style, "")
        written = separator.join(number[k : k + 4] for k in range(0, len(number), 4))
        if style == "lower":
            written = written.lower()
        if rng.random() < 0.25:
            key = pick(rng, ["iban", "IBAN", "account", "bank_account", "accountNumber", "creditor_iban", "kontonummer"])
            data: Any = {"payment": {key: written, "amount": 12.5}} if rng.random() < 0.5 else {key: written}
            style = "json " + style
        else:
            data = pick(rng, IBAN_SENTENCES).format(n=written, p=person(rng), co=pick(rng, COMPANIES))
        yield sample("iban", style, "iban", written, data)


FAMILIES: dict[str, Family] = {
    "cards_grouped": cards_grouped,
    "cards_in_context": cards_in_context,
    "cards_other_lengths": cards_other_lengths,
    "cards_listed": cards_listed,
    "cards_json": cards_json,
    "cards_bare": cards_bare,
    "security_codes": security_codes,
    "ssn": ssn,
    "iban": iban,
}
