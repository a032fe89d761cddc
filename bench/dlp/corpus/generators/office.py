"""Offices and people: mail, chats, invoices, bookings, calendars, tasks of agents and their results."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .common import (
    ALNUM,
    CITIES,
    COMPANIES,
    FIRST,
    NOUNS,
    Family,
    Message,
    base64_text,
    base64url,
    chars,
    digits,
    hexa,
    identifier,
    iso,
    message,
    paragraph,
    person,
    pick,
    sentence,
    uuid,
    when,
    written,
)

PASSWORD_TALK = """I have reset your password, you will get a mail.
The password will follow by separate mail.
Please change your password by Friday.
Password: sent by SMS
Passwort kommt per Post.
The password is the usual one.
Le mot de passe arrive par SMS.
The token expired, I have asked for a new one.
Ask {f} for the password, please.
Which password do you mean?
Do not send the password by mail!
The API key is in the vault.
The card was declined; they want another one.
Card ending in {n} was charged.
The security code on the back is needed, too.
My pass for the train is at home.
Boarding pass attached.
The secret is out: we open in {c}!
Secret: it is her birthday on Monday
Token of appreciation: flowers
Key figures: {n} and {n2}
Password policy: {n} days, twelve characters
Zoom link in the calendar, passcode in the invite.
No password needed.
password reset done, works now
Pass: approved by {f}
PIN and card come separately.""".splitlines()


def talk(rng: random.Random) -> str:
    """A sentence of a conversation, now and then about passwords."""
    if rng.random() < 0.25:
        return pick(rng, PASSWORD_TALK).format(f=pick(rng, FIRST), c=pick(rng, CITIES), n=rng.randrange(1000, 9999), n2=rng.randrange(9999))
    return sentence(rng)


def address(rng: random.Random) -> str:
    """A mail address."""
    return f"{pick(rng, FIRST)}.{pick(rng, COMPANIES)}@example.{pick(rng, ['com', 'org', 'de', 'fr'])}".lower()


def phone(rng: random.Random) -> str:
    """A phone number."""
    return pick(rng, ["+49 30 {a}", "+1 212-555-0{b}", "+33 1 {c} {d} {c} {d}", "020 7946 0{b}", "(212) 555-0{b}", "0171/{a}"]).format(
        a=digits(rng, 7), b=digits(rng, 3), c=digits(rng, 2), d=digits(rng, 2)
    )


def mails(rng: random.Random) -> Iterator[Message]:
    """Threads of mail, as text and as objects."""
    while True:
        people = [(person(rng), address(rng)) for _ in range(3)]
        thread = ""
        for depth in range(rng.randint(1, 4)):
            name, mail = pick(rng, people)
            body = "\n\n".join(" ".join(talk(rng) for _ in range(rng.randint(1, 4))) for _ in range(rng.randint(1, 3)))
            signature = f"-- \n{name}\n{pick(rng, COMPANIES)} GmbH · {pick(rng, CITIES)}\nTel. {phone(rng)} · HRB {rng.randrange(99999)} · USt-IdNr. DE{digits(rng, 9)}"
            head = pick(
                rng,
                [
                    f"On {when(rng):%a, %d %b %Y at %H:%M} {name} <{mail}> wrote:",
                    f"Am {when(rng):%d.%m.%Y um %H:%M} schrieb {name}:",
                    f"From: {name} <{mail}>\nSent: {when(rng):%A, %B %d, %Y}\nTo: {people[0][1]}\nSubject: RE: {pick(rng, NOUNS)} {digits(rng, rng.randint(4, 12))}",
                ],
            )
            thread += "".join(f"{'> ' * depth}{line}\n" for line in f"{head if depth else ''}\n{body}\n\n{signature}".splitlines())
        subject = pick(
            rng,
            [
                talk(rng),
                f"[{identifier(rng)}] {sentence(rng)}",
                f"Ticket #{digits(rng, rng.randint(5, 12))}",
                f"Re: Order {digits(rng, 10)}",
            ],
        )
        ident = f"<{chars(rng, ALNUM + '+=', 36)}@mail.example.com>"
        yield pick(
            rng,
            [
                lambda: message(
                    "mail",
                    {
                        "from": people[0][1],
                        "to": [people[1][1]],
                        "subject": subject,
                        "body": thread,
                        "message_id": ident,
                        "thread_id": hexa(rng, 16),
                        "historyId": digits(rng, 8),
                    },
                ),
                lambda: written(
                    rng,
                    "mail",
                    f"Message-ID: {ident}\nDate: {when(rng):%a, %d %b %Y %H:%M:%S} +0000\nReceived: from mx ([198.51.100.7]) by mail with ESMTPS id {base64url(rng, 22)}\nDKIM-Signature: v=1; a=rsa-sha256; bh={base64_text(rng, 32)}; b={base64_text(rng, 128)}\nX-Spam-Score: {rng.random() * 9:.2f}\nSubject: {subject}\n\n{thread}",
                ),
            ],
        )()


def chats(rng: random.Random) -> Iterator[Message]:
    """Chats, transcripts and support conversations."""
    while True:
        names = [pick(rng, FIRST) for _ in range(3)]
        lines = [(pick(rng, names), talk(rng)) for _ in range(rng.randint(2, 14))]
        yield pick(
            rng,
            [
                lambda: written(rng, "chat", "\n".join(f"{n}: {t}" for n, t in lines)),
                lambda: written(rng, "chat", "\n".join(f"[{when(rng):%H:%M}] <{n.lower()}> {t}" for n, t in lines)),
                lambda: message(
                    "chat",
                    {
                        "messages": [
                            {
                                "user": n,
                                "text": t,
                                "ts": f"{when(rng).timestamp():.6f}",
                                "client_msg_id": uuid(rng),
                                "team": "T" + chars(rng, ALNUM.upper(), 10),
                            }
                            for n, t in lines
                        ]
                    },
                ),
                lambda: message(
                    "chat",
                    {
                        "channel_id": str(rng.getrandbits(63)),
                        "messages": [
                            {"id": str(rng.getrandbits(63)), "author": {"id": str(rng.getrandbits(62)), "username": n}, "content": t}
                            for n, t in lines
                        ],
                    },
                ),
                lambda: written(
                    rng,
                    "transcript",
                    "\n".join(
                        f"{k // 60:02d}:{k % 60:02d}:{rng.randrange(60):02d},{rng.randrange(1000):03d} --> {k // 60:02d}:{k % 60:02d}:59,000\n{n}: {t}\n"
                        for k, (n, t) in enumerate(lines)
                    ),
                ),
            ],
        )()


def invoices(rng: random.Random) -> Iterator[Message]:
    """Invoices, receipts, orders and deliveries; accounts masked."""
    while True:
        number, positions = (
            pick(rng, [f"RE-{digits(rng, 8)}", digits(rng, rng.randint(6, 12)), f"INV-2026-{digits(rng, 5)}"]),
            [(pick(rng, NOUNS), rng.randrange(1, 90), rng.random() * 900) for _ in range(rng.randint(1, 8))],
        )
        total = sum(count * price for _, count, price in positions)
        data = {
            "invoice": number,
            "customer": person(rng),
            "customer_no": digits(rng, rng.randint(5, 10)),
            "vat_id": f"DE{digits(rng, 9)}",
            "date": f"{when(rng):%Y-%m-%d}",
            "positions": [
                {"pos": k, "article": digits(rng, rng.randint(6, 14)), "text": t, "count": c, "price": round(p, 2)}
                for k, (t, c, p) in enumerate(positions, 1)
            ],
            "total": round(total, 2),
            "payment": {
                "method": "card",
                "brand": pick(rng, ["visa", "mastercard"]),
                "last4": digits(rng, 4),
                "auth_code": digits(rng, 6),
                "cvv_check": "pass",
                "transaction_id": digits(rng, rng.randint(12, 18)),
            },
            "order_id": digits(rng, rng.randint(8, 17)),
            "tracking": f"1Z{chars(rng, '0123456789ABCDEFGHJKLMNPRSTVWXYZ', 16)}",
            "reference": f"RF{digits(rng, 2)} {digits(rng, 4)} {digits(rng, 4)}",
        }
        text = (
            f"{pick(rng, ['Invoice', 'Rechnung', 'Facture', 'Factura'])} {number}\n{pick(rng, COMPANIES)} GmbH, Hauptstr. {rng.randrange(200)}, {digits(rng, 5)} {pick(rng, CITIES)}\n\nPos. Artikel Menge Preis\n"
            + "\n".join(
                f"{k}. {digits(rng, rng.randint(6, 13))} {t} {c} x {p:.2f} = {c * p:,.2f}" for k, (t, c, p) in enumerate(positions, 1)
            )
            + f"\n\nSumme {total:,.2f} €\n19 % MwSt. {total * 0.19:,.2f} €\nIBAN: DE** **** **** **** **{digits(rng, 2)}\nVisa **** **** **** {digits(rng, 4)}, authorization {digits(rng, 6)}\nKundennummer: {digits(rng, 8)}\nMember ID: {digits(rng, 8)}\nSteuernummer: {digits(rng, 2)}/{digits(rng, 3)}/{digits(rng, 5)}\nAuftrag {digits(rng, rng.randint(8, 16))}\nTel. {phone(rng)}"
        )
        yield message("invoice", data) if rng.random() < 0.5 else written(rng, "invoice", text)


def bookings(rng: random.Random) -> Iterator[Message]:
    """Bookings, tickets, boarding passes, insurance, loyalty programmes."""
    while True:
        pnr = chars(rng, "ABCDEFGHJKLMNPQRSTUVWXYZ23456789", 6)
        text = pick(
            rng,
            [
                f"Booking reference: {pnr}\nE-ticket number: {digits(rng, 3)}-{digits(rng, 10)}\nFlight LH{digits(rng, 4)} {pick(rng, CITIES)} – {pick(rng, CITIES)}\nSeat {rng.randrange(40)}{pick(rng, 'ABCDEF')}\nPass: boarding pass on your phone\nFrequent flyer number: {digits(rng, rng.randint(9, 15))}",
                f"Member ID: {digits(rng, 8)}\nPolicy Number: POL{digits(rng, 8)}\nGroup: {digits(rng, 5)}\nValid from {when(rng):%d.%m.%Y}",
                f"Hotel {pick(rng, COMPANIES)}, confirmation no. {digits(rng, rng.randint(8, 11))}\nRoom {digits(rng, 3)}, door code by SMS\nGuest: {person(rng)}\nWi-Fi password at the reception",
                f"Reservation {pnr} for {person(rng)} on {when(rng):%d %B at %H:%M}. Confirmation code: {chars(rng, ALNUM.upper(), 8)}",
                f"Ski pass no. {digits(rng, 2)}-{digits(rng, 4)} {digits(rng, 4)} {digits(rng, 4)} {digits(rng, 4)}-{digits(rng, 1)}\nValid 3 days",
                f"Claim number: {digits(rng, 10)}\nPolicy number: HV-{digits(rng, 9)}\nInsured: {person(rng)}\nPlate: B-{chars(rng, 'ABCDEFGHKLMN', 2)} {digits(rng, 4)}",
                f"Library card, borrower {digits(rng, 14)}, due {when(rng):%d %b}\nTicket number: {digits(rng, rng.randint(10, 16))}",
            ],
        )
        yield (
            written(rng, "booking", text)
            if rng.random() < 0.6
            else message(
                "booking",
                {
                    "pnr": pnr,
                    "ticket": digits(rng, 13),
                    "member_id": digits(rng, 8),
                    "policy_number": f"POL{digits(rng, 8)}",
                    "passengers": [{"name": person(rng), "seat": "12A", "pass": pick(rng, ["mobile", "paper", "wallet"])}],
                    "confirmation": digits(rng, rng.randint(8, 16)),
                    "notes": talk(rng),
                },
            )
        )


def calendars(rng: random.Random) -> Iterator[Message]:
    """Calendars: iCalendar and objects of calendar services."""
    while True:
        moment = when(rng)
        text = (
            "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:-//Acme//Calendar 3.1//EN\n"
            + "".join(
                f"BEGIN:VEVENT\nUID:{pick(rng, [uuid(rng), '040000008200E00074C5B7101A82E008' + hexa(rng, 48).upper(), base64url(rng, 26) + '@example.com'])}\nDTSTAMP:{moment:%Y%m%dT%H%M%SZ}\nDTSTART;TZID=Europe/Berlin:{moment:%Y%m%dT%H%M%S}\nDURATION:PT1H\nSUMMARY:{talk(rng)}\nDESCRIPTION:{pick(rng, ['Meeting ID: ' + digits(rng, 3) + ' ' + digits(rng, 4) + ' ' + digits(rng, 4) + chr(92) + 'nPasscode: see the invitation', 'Dial-in ' + phone(rng) + ', conference ' + digits(rng, 9) + '#', paragraph(rng, 1, 2)])}\nSEQUENCE:{rng.randrange(9)}\nRRULE:FREQ=WEEKLY;BYDAY=MO\nATTENDEE;CN={person(rng)}:mailto:{address(rng)}\nLAST-MODIFIED:{moment:%Y%m%dT%H%M%SZ}\nEND:VEVENT\n"
                for _ in range(rng.randint(1, 4))
            )
            + "END:VCALENDAR\n"
        )
        yield (
            written(rng, "calendar", text, "invite.ics")
            if rng.random() < 0.6
            else message(
                "calendar",
                {
                    "events": [
                        {
                            "id": chars(rng, "abcdefghijklmnopqrstuv0123456789", 26),
                            "etag": f'"{digits(rng, 16)}"',
                            "summary": talk(rng),
                            "start": {"dateTime": iso(moment)},
                            "iCalUID": uuid(rng) + "@example.com",
                            "sequence": rng.randrange(9),
                            "hangoutLink": f"https://meet.example.com/{chars(rng, 'abcdefghijk', 3)}-{chars(rng, 'abcdefghijk', 4)}-{chars(rng, 'abcdefghijk', 3)}",
                        }
                    ],
                    "nextSyncToken": base64url(rng, 32) + "=",
                    "conference": {"pin": None, "phone": phone(rng)},
                },
            )
        )


FAMILIES: dict[str, Family] = {
    "office_mails": mails,
    "office_chats": chats,
    "office_invoices": invoices,
    "office_bookings": bookings,
    "office_calendars": calendars,
}
