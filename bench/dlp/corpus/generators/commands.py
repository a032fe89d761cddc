"""Secrets on command lines, in SQL, in connection strings; keys as JWK; encodings of all kinds of secrets."""

from __future__ import annotations

import base64
import json
import random
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

from .common import FIRST, SERVICES, Family, Message, base64url, chars, hexa, pick, sentence
from .numbers import MAIN_ISSUERS, card, iban_of
from .samples import grouped_card, password, sample
from .vendor_tokens import templates, token

COMMANDS = """docker login -u {u} --password {v}
docker login -u {u} -p {v} registry.example.com
docker login --username={u} --password={v}
helm registry login registry.example.com --username {u} --password {v}
curl -u {u}:{v} https://api.example.com/v1/items
curl --user {u}:{v} -X POST https://api.example.com
curl --proxy-user {u}:{v} https://example.com
curl https://{u}:{v}@api.example.com/x
wget --user={u} --password={v} https://example.com/a.zip
http -a {u}:{v} GET https://api.example.com
mysql -u {u} -p{v} app
mysql --user={u} --password={v} --host=db app
mysqldump -h db -u {u} -p'{v}' app > a.sql
PGPASSWORD={v} psql -h db -U {u} app
psql "host=db user={u} password={v} dbname=app"
redis-cli -h cache -a {v} ping
mongosh --host db --username {u} --password {v}
sshpass -p {v} ssh {u}@host
sshpass -p '{v}' scp a.txt {u}@host:/tmp
openssl rsa -in key.pem -passin pass:{v} -out k
openssl enc -aes-256-cbc -k {v} -in a -out b
keytool -genkeypair -alias a -storepass {v} -keypass {v}
unzip -P {v} a.zip
7z x -p{v} a.7z
az login --service-principal -u app -p {v} --tenant t
kubectl create secret generic db --from-literal=password={v}
vault login -method=userpass username={u} password={v}
./deploy --db-password {v} --region eu-west-1
./deploy --db-password={v}
app --token {v} --verbose
app --api-key={v} run
app --client-secret {v}
git clone https://{u}:{v}@git.example.com/a/b.git
git remote set-url origin https://{u}:{v}@git.example.com/a/b.git
smbclient //srv/share -U {u}%{v}
htpasswd -b .htpasswd {u} {v}
echo '{u}:{v}' | chpasswd
echo {v} | sudo -S systemctl restart app
net user {u} {v} /add
ansible-playbook site.yml -e ansible_password={v}
ldapsearch -x -D cn={u},dc=example -w {v} -b dc=example
rabbitmqctl add_user {u} {v}
sqlcmd -S db -U {u} -P {v} -Q "select 1"
lftp -u {u},{v} ftp.example.com
mc alias set s3 https://s3.example.com {u} {v}
twine upload -u {u} -p {v} dist/*
npm config set //registry.example.com/:_authToken {v}
Connect-VIServer -Server vc -User {u} -Password {v}""".splitlines()
STATEMENTS = """ALTER USER {u} WITH PASSWORD '{v}'
ALTER ROLE {u} PASSWORD '{v}';
CREATE USER {u} IDENTIFIED BY '{v}'
CREATE USER '{u}'@'%' IDENTIFIED BY '{v}';
CREATE USER {u} IDENTIFIED BY "{v}";
CREATE ROLE {u} LOGIN PASSWORD '{v}';
CREATE USER {u} WITH ENCRYPTED PASSWORD '{v}';
CREATE USER '{u}'@'localhost' IDENTIFIED WITH mysql_native_password BY '{v}';
CREATE LOGIN {u} WITH PASSWORD = '{v}';
ALTER LOGIN sa WITH PASSWORD = N'{v}';
SET PASSWORD FOR '{u}'@'%' = '{v}';
SET PASSWORD FOR {u} = PASSWORD('{v}');
GRANT ALL ON app.* TO '{u}'@'%' IDENTIFIED BY '{v}';
CHANGE MASTER TO MASTER_HOST='db', MASTER_USER='{u}', MASTER_PASSWORD='{v}';
CREATE USER MAPPING FOR {u} SERVER s OPTIONS (user '{u}', password '{v}');
UPDATE users SET password = '{v}' WHERE name = '{u}';
INSERT INTO users (name, password) VALUES ('{u}', '{v}');
CREATE SUBSCRIPTION s CONNECTION 'host=db user={u} password={v}' PUBLICATION p;
db.createUser({{user: '{u}', pwd: '{v}', roles: []}})
ACL SETUSER {u} on >{v} ~* +@all
CONFIG SET requirepass {v}""".splitlines()
CONNECTIONS = """postgresql://{u}:{v}@db.internal:5432/app
postgres://{u}:{v}@10.0.3.7/app?sslmode=require
mysql://{u}:{v}@db.internal/app
mysql+pymysql://{u}:{v}@db.internal:3306/app
mongodb+srv://{u}:{v}@cluster0.example.mongodb.net/app
redis://:{v}@cache.internal:6379/0
rediss://{u}:{v}@cache.internal:6380
amqp://{u}:{v}@rabbit.internal:5672/vhost
amqps://{u}:{v}@rabbit.internal/
ftp://{u}:{v}@ftp.example.com/pub
sftp://{u}:{v}@sftp.example.com
smtp://{u}:{v}@mail.example.com:587
https://{u}:{v}@example.com/path
ldap://{u}:{v}@ldap.example.com
Server=db;Database=app;User Id={u};Password={v};
Server=tcp:db.example.net,1433;Initial Catalog=app;User ID={u};Pwd={v};Encrypt=True
Data Source=db;Persist Security Info=True;User ID={u};Password={v}
jdbc:mysql://db:3306/app?user={u}&password={v}
jdbc:sqlserver://db;user={u};password={v};encrypt=true
jdbc:oracle:thin:{u}/{v}@db:1521/orcl
host=db port=5432 dbname=app user={u} password={v}
DRIVER={{ODBC Driver 18}};SERVER=db;UID={u};PWD={v}
nats://{u}:{v}@nats.internal:4222
DefaultEndpointsProtocol=https;AccountName={u};AccountKey={k};EndpointSuffix=core.windows.net
Endpoint=sb://bus.servicebus.windows.net/;SharedAccessKeyName=root;SharedAccessKey={k}""".splitlines()


def filled(name: str, lines: list[str], message_type: str) -> Family:
    """A family of templates with a user and a secret, in text or where JSON keeps such lines."""

    def generate(rng: random.Random) -> Iterator[Message]:
        while True:
            template, value, key = pick(rng, lines), password(rng, False), base64.b64encode(rng.randbytes(64)).decode()
            text = template.format(u=pick(rng, FIRST).lower(), v=value, k=key)
            form = rng.randrange(5)
            data: Any = [
                text,
                f"{sentence(rng)}\n{text}\n",
                {"command" if name == "labelled_command" else "statement": text},
                f"```\n{text}\n```\n{sentence(rng)}",
                {pick(rng, ["url", "run", "query", "line"]): text},
            ][form]
            if name == "connection_strings" and rng.random() < 0.3:
                data = f"{pick(rng, SERVICES).upper()}_URL={text}"
            if name == "labelled_command" and rng.random() < 0.2 and "'" not in text and '"' not in text:
                data = {"argv": text.split(" ")}
            secret = key if "{k}" in template else value
            yield sample(name, template[:36], "secret" if "{k}" in template else "password", secret, data, message_type)

    return generate


def private_jwk(rng: random.Random) -> tuple[str, dict[str, str], str]:
    """A key type, a private key as JWK, its private member."""
    kind = pick(rng, ["EC P-256", "EC P-384", "EC P-521", "EC secp256k1", "OKP Ed25519", "OKP X25519", "RSA", "RSA short", "oct", "oct"])
    size = {"P-256": 43, "P-384": 64, "P-521": 88, "secp256k1": 43, "Ed25519": 43, "X25519": 43}
    name, _, curve = kind.partition(" ")
    if name == "EC":
        key = {
            "kty": "EC",
            "crv": curve,
            "x": base64url(rng, size[curve]),
            "y": base64url(rng, size[curve]),
            "d": base64url(rng, size[curve]),
        }
        return kind, key, key["d"]
    if name == "OKP":
        key = {"kty": "OKP", "crv": curve, "x": base64url(rng, 43), "d": base64url(rng, 43)}
        return kind, key, key["d"]
    if name == "oct":
        key = {"kty": "oct", "k": base64url(rng, pick(rng, [43, 64, 86])), "alg": pick(rng, ["HS256", "A256GCM", "HS512"])}
        return kind, key, key["k"]
    key = {"kty": "RSA", "n": base64url(rng, 342), "e": "AQAB", "d": base64url(rng, 342)}
    if kind == "RSA":
        key |= {member: base64url(rng, 171) for member in ("p", "q", "dp", "dq", "qi")}
    return kind, key, key["d"]


def jwk(rng: random.Random) -> Iterator[Message]:
    """Private keys as JWK and in JWKS."""
    while True:
        kind, key, secret = private_jwk(rng)
        members = list((key | {"kid": hexa(rng, 8), "use": "sig"} if rng.random() < 0.5 else key).items())
        if rng.random() < 0.4:
            rng.shuffle(members)
        whole = dict(members)
        public = {"kty": "OKP", "crv": "Ed25519", "x": base64url(rng, 43), "kid": hexa(rng, 6)}
        form = pick(rng, ["top", "nested", "jwks", "jwks with public", "text", "indented", "fence", "set in text", "in a list"])
        data: Any = {
            "top": whole,
            "nested": {"config": {"signing_key": whole}},
            "jwks": {"keys": [whole]},
            "jwks with public": {"keys": [public, whole]},
            "text": json.dumps(whole, separators=(",", ":")),
            "indented": json.dumps(whole, indent=2),
            "fence": f"{sentence(rng)}\n```json\n{json.dumps(whole, indent=2)}\n```",
            "set in text": {"jwks": json.dumps({"keys": [public, whole]})},
            "in a list": {"items": [{"name": "a"}, {"privateKeyJwk": whole}]},
        }[form]
        yield sample("jwk", f"{kind}, {form}", "private_key", secret, data, "key")


ENCODINGS: dict[str, Callable[[random.Random, str], str]] = {
    "base64": lambda r, s: base64.b64encode(s.encode()).decode(),
    "base64 unpadded": lambda r, s: base64.b64encode(s.encode()).decode().rstrip("="),
    "base64url": lambda r, s: base64.urlsafe_b64encode(s.encode()).decode(),
    "hex": lambda r, s: s.encode().hex(),
    "HEX": lambda r, s: s.encode().hex().upper(),
    "percent all": lambda r, s: "".join(f"%{b:02X}" for b in s.encode()),
    "percent": lambda r, s: urllib.parse.quote(s, safe=""),
    "unicode escapes": lambda r, s: "".join(f"\\u{ord(c):04x}" for c in s),
    "hex escapes": lambda r, s: "".join(f"\\x{ord(c):02x}" for c in s),
    "html decimal": lambda r, s: "".join(f"&#{ord(c)};" for c in s),
    "json in a string": lambda r, s: json.dumps({"value": s}),
    "json in json in a string": lambda r, s: json.dumps({"value": json.dumps({"v": s})}),
    "zero width": lambda r, s: "".join(c + pick(r, ["", "\u200b", "\u200d", "\u2060", "\ufeff"]) for c in s),
    "soft hyphen": lambda r, s: "".join(c + pick(r, ["", "\u00ad"]) for c in s),
    "full width": lambda r, s: "".join(chr(ord(c) + 0xFEE0) if 33 <= ord(c) <= 126 else c for c in s),
    "mathematical": lambda r, s: "".join(chr(0x1D7CE + int(c)) if c.isdigit() else c for c in s),
    "arabic-indic": lambda r, s: "".join(chr(0x0660 + int(c)) if c.isdigit() else c for c in s),
}


def evasions(rng: random.Random) -> Iterator[Message]:
    """Secrets under one layer of encoding, or split over neighbouring strings; the secret is what is sent."""
    while True:
        what = pick(rng, ["card", "iban", "token", "label", "ssn"])
        if what == "card":
            clear, kind = card(rng, MAIN_ISSUERS)[1], "credit_card"
            if rng.random() < 0.5:
                clear = grouped_card(clear, " ")
            clear = f"card {clear}"
        elif what == "iban":
            clear, kind = iban_of(rng, pick(rng, ["DE", "FR", "GB", "NL", "ES", "IT", "PL"])), "iban"
        elif what == "token":
            _, kind, template = pick(
                rng, [t for t in templates() if t[0] in ("github", "aws", "stripe", "slack", "openai", "npm", "gitlab")]
            )
            clear = token(rng, template)
        elif what == "ssn":
            clear, kind = f"SSN: {rng.randint(100, 665)}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}", "ssn"
        else:
            clear, kind = f"password={password(rng)}", "password"
        if what in ("card", "iban") and rng.random() < 0.15:
            number = clear.removeprefix("card ").replace(" ", "")
            parts = [number[k : k + 4] for k in range(0, len(number), 4)]
            names = pick(rng, [["a", "b", "c", "d", "e", "f", "g", "h"], [f"part{k}" for k in range(1, 9)], [f"n{k}" for k in range(8)]])
            key = "card" if what == "card" else "iban"
            data: Any = {key: parts} if rng.random() < 0.5 else {key: dict(zip(names, parts))}
            yield sample("evasions", f"{what} split", kind, parts[-1], data)
            continue
        how = pick(rng, list(ENCODINGS))
        if how in ("mathematical", "arabic-indic") and what == "token":
            how = "zero width"
        hidden = ENCODINGS[how](rng, clear)
        form = pick(rng, ["alone", "key", "sentence", "among"])
        data = {
            "alone": hidden,
            "key": {pick(rng, ["data", "blob", "x", "content"]): hidden},
            "sentence": f"see {hidden} for more",
            "among": {"a": sentence(rng), "b": [hidden, sentence(rng)]},
        }[form]
        yield sample("evasions", f"{what} {how}", kind, hidden, data, "payload")


def pem(rng: random.Random) -> Iterator[Message]:
    """Private keys as PEM and OpenSSH write them."""
    while True:
        name = pick(
            rng,
            [
                "PRIVATE KEY",
                "RSA PRIVATE KEY",
                "EC PRIVATE KEY",
                "OPENSSH PRIVATE KEY",
                "ENCRYPTED PRIVATE KEY",
                "DSA PRIVATE KEY",
                "PGP PRIVATE KEY BLOCK",
            ],
        )
        body = "MII" + chars(rng, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", rng.randint(200, 1500))
        lines = [body[k : k + 64] for k in range(0, len(body), 64)]
        text = "\n".join([f"-----BEGIN {name}-----", *lines, f"-----END {name}-----"]) + "\n"
        form = pick(rng, ["text", "key", "one line", "among", "list"])
        data: Any = {
            "text": text,
            "key": {"tls": {"key": text}},
            "one line": text.replace("\n", "\\n"),
            "among": f"{sentence(rng)}\n\n{text}\n{sentence(rng)}",
            "list": {"lines": text.splitlines()},
        }[form]
        yield sample("pem", f"{name} {form}", "private_key", lines[-1], data, "key")


FAMILIES: dict[str, Family] = {
    "labelled_command": filled("labelled_command", COMMANDS, "shell.run"),
    "labelled_sql": filled("labelled_sql", STATEMENTS, "sql.query"),
    "connection_strings": filled("connection_strings", CONNECTIONS, "config"),
    "jwk": jwk,
    "evasions": evasions,
    "pem": pem,
}
