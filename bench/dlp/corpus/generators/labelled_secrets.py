"""Passwords and keys that nothing but a label shows."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator

from .common import FIRST, SERVICES, Family, Message, identifier, paragraph, pick, sentence
from .samples import PASSWORD_WORDS, labelled, password, sample, spelled

Writer = Callable[[random.Random, str, str], object]


def family(name: str, forms: dict[str, Writer], styles: str, signs: bool = True, only_passwords: bool = False) -> Family:
    """A family: each form puts a label (spelled in one of the styles) and a value into data."""

    def generate(rng: random.Random) -> Iterator[Message]:
        while True:
            label, kind, value = labelled(rng, signs)
            while only_passwords and kind != "password":
                label, kind, value = labelled(rng, signs)
            form = pick(rng, list(forms))
            data = forms[form](rng, spelled(rng, label, styles), value)
            yield sample(name, form, kind, value, data, pick(rng, ["note", "config", "task", "result", "file"]))

    return generate


JSON_FORMS: dict[str, Writer] = {
    "flat": lambda r, k, v: {k: v},
    "with user": lambda r, k, v: {"username": pick(r, FIRST).lower(), k: v},
    "nested": lambda r, k, v: {"config": {pick(r, SERVICES): {"host": "db.internal", k: v, "port": 5432}}},
    "in a list": lambda r, k, v: {"accounts": [{"name": pick(r, FIRST)}, {"name": pick(r, FIRST), k: v}]},
    "in text": lambda r, k, v: {"text": json.dumps({"host": "db", k: v})},
    "in a fence": lambda r, k, v: {"text": f"{sentence(r)}\n```json\n" + json.dumps({k: v, "port": 1}, indent=2) + "\n```"},
    "indented": lambda r, k, v: {"file": "config.json", "content": json.dumps({"a": 1, k: v}, indent=4)},
    "list of one": lambda r, k, v: {k: [v]},
}
ENV_FORMS: dict[str, Writer] = {
    "plain": lambda r, k, v: f"{k}={v}",
    "quoted": lambda r, k, v: f'{k}="{v}"',
    "single quotes": lambda r, k, v: f"{k}='{v}'",
    "export": lambda r, k, v: f"export {k}={v}",
    "file": lambda r, k, v: {"file": ".env", "content": f"LOG_LEVEL=debug\n{k}={v}\nPORT=8080\n"},
    "commented": lambda r, k, v: f"# {sentence(r)}\n{k}={v} # local\n",
    "inline": lambda r, k, v: f"{k}={v} ./run --verbose",
    "windows": lambda r, k, v: f"set {k}={v}\r\n",
    "powershell": lambda r, k, v: f"$env:{k} = '{v}'",
}
YAML_FORMS: dict[str, Writer] = {
    "plain": lambda r, k, v: f"{k}: {v}\n",
    "double": lambda r, k, v: f'{k}: "{v}"\n',
    "single": lambda r, k, v: f"{k}: '{v}'\n",
    "nested": lambda r, k, v: {"file": "values.yaml", "content": f"database:\n  host: db\n  {k}: {v}\n  port: 5432\n"},
    "list": lambda r, k, v: f"users:\n  - name: bob\n    {k}: {v}\n",
    "flow": lambda r, k, v: f"db: {{host: db, {k}: {v}, port: 5432}}\n",
    "commented": lambda r, k, v: f"{k}: {v}  # {sentence(r)}\n",
}
INI_FORMS: dict[str, Writer] = {
    "ini": lambda r, k, v: f"[database]\nhost = db\n{k} = {v}\n",
    "ini tight": lambda r, k, v: f"[smtp]\n{k}={v}\nport=25\n",
    "toml": lambda r, k, v: f'[database]\nhost = "db"\n{k} = "{v}"\n',
    "toml inline": lambda r, k, v: f'db = {{ host = "db", {k} = "{v}" }}\n',
    "properties": lambda r, k, v: f"spring.datasource.url=jdbc:h2:mem\nspring.datasource.{k}={v}\n",
    "properties colon": lambda r, k, v: f"{k}: {v}\n",
    "terraform": lambda r, k, v: f'resource "db" "a" {{\n  {k} = "{v}"\n}}\n',
    "tfvars": lambda r, k, v: f'{k} = "{v}"\n',
    "netrc": lambda r, k, v: f"machine example.org login bob password {v}\n",
}
XML_FORMS: dict[str, Writer] = {
    "element": lambda r, k, v: f"<config><host>db</host><{k}>{v}</{k}></config>",
    "attribute": lambda r, k, v: f'<database host="db" {k}="{v}"/>',
    "property": lambda r, k, v: f'<property name="{k}" value="{v}"/>',
    "property text": lambda r, k, v: f'<property name="{k}">{v}</property>',
    "add": lambda r, k, v: f'<appSettings><add key="{k}" value="{v}" /></appSettings>',
    "hidden input": lambda r, k, v: f'<input type="hidden" name="{k}" value="{v}">',
    "input reversed": lambda r, k, v: f"<input value='{v}' name='{k}' type='text'>",
    "entry": lambda r, k, v: f'<entry key="{k}">{v}</entry>',
    "plist": lambda r, k, v: f"<dict><key>{k}</key><string>{v}</string></dict>",
    "table": lambda r, k, v: f"<tr><th>{k}</th><td>{v}</td></tr>",
}
SOURCE_FORMS: dict[str, Writer] = {
    "python": lambda r, k, v: f"{k} = \"{v}\"\nconnect({identifier(r).replace('-', '_')})\n",
    "python keyword": lambda r, k, v: f"client = connect(host='db', {k}='{v}')\n",
    "python dict": lambda r, k, v: f"CONFIG = {{'host': 'db', '{k}': '{v}'}}\n",
    "javascript": lambda r, k, v: f"const {k} = '{v}';\n",
    "javascript object": lambda r, k, v: f"connect({{ host: 'db', {k}: '{v}' }});\n",
    "typescript": lambda r, k, v: f'const {k}: string = "{v}";\n',
    "java": lambda r, k, v: f'private static final String {k} = "{v}";\n',
    "go": lambda r, k, v: f'{k} := "{v}"\n',
    "go struct": lambda r, k, v: f'cfg := Config{{Host: "db", {k}: "{v}"}}\n',
    "rust": lambda r, k, v: f'let {k} = "{v}";\n',
    "rust const": lambda r, k, v: f'const {k}: &str = "{v}";\n',
    "csharp": lambda r, k, v: f'var {k} = "{v}";\n',
    "csharp property": lambda r, k, v: f'public string {k} {{ get; set; }} = "{v}";\n',
    "ruby": lambda r, k, v: f"config.{k} = '{v}'\n",
    "ruby hash": lambda r, k, v: f"connect(host: 'db', {k}: '{v}')\n",
    "php": lambda r, k, v: f"${k} = '{v}';\n",
    "php array": lambda r, k, v: f"return ['host' => 'db', '{k}' => '{v}'];\n",
    "php define": lambda r, k, v: f"define('{k}', '{v}');\n",
    "c": lambda r, k, v: f'#define {k} "{v}"\n',
    "c char": lambda r, k, v: f'static const char {k}[] = "{v}";\n',
    "shell": lambda r, k, v: f'{k}="{v}"\n',
    "kotlin": lambda r, k, v: f'val {k} = "{v}"\n',
    "swift": lambda r, k, v: f'let {k} = "{v}"\n',
}
CONTAINER_FORMS: dict[str, Writer] = {
    "compose map": lambda r, k, v: f"services:\n  db:\n    image: postgres:16\n    environment:\n      {k}: {v}\n",
    "compose list": lambda r, k, v: f"services:\n  db:\n    image: postgres:16\n    environment:\n      - {k}={v}\n",
    "dockerfile": lambda r, k, v: f'FROM alpine:3.20\nENV {k}={v}\nCMD ["run"]\n',
    "dockerfile old": lambda r, k, v: f"FROM alpine:3.20\nENV {k} {v}\n",
    "dockerfile arg": lambda r, k, v: f"ARG {k}={v}\n",
    "docker run": lambda r, k, v: f"docker run -d -e {k}={v} -p 80:80 app:1.2",
    "kubernetes secret": lambda r, k, v: f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\nstringData:\n  {k}: {v}\n",
    "kubernetes env": lambda r, k, v: f"env:\n  - name: {k}\n    value: {v}\n",
    "kubernetes env json": lambda r, k, v: {"spec": {"containers": [{"name": "a", "env": [{"name": k, "value": v}]}]}},
    "helm": lambda r, k, v: f"helm upgrade app ./chart --set db.{k}={v}",
    "kubectl": lambda r, k, v: f"kubectl create secret generic db --from-literal={k}={v}",
    "systemd": lambda r, k, v: f'[Service]\nEnvironment="{k}={v}"\n',
    "compose json": lambda r, k, v: {"services": {"db": {"environment": [f"{k}={v}"]}}},
}
PROSE_FORMS: dict[str, Writer] = {
    "is": lambda r, k, v: f"The {k} is {v}.",
    "is quoted": lambda r, k, v: f'The {k} is "{v}"',
    "my": lambda r, k, v: f"my {k} is {v}",
    "colon": lambda r, k, v: f"{sentence(r)} {k.capitalize()}: {v}",
    "line": lambda r, k, v: f"User: {pick(r, FIRST).lower()}\n{k.capitalize()}: {v}\n",
    "backticks": lambda r, k, v: f"Use the {k} `{v}` to sign in.",
    "parentheses": lambda r, k, v: f"Sign in as bob ({k}: {v}).",
    "bullet": lambda r, k, v: f"- user: bob\n- {k}: {v}\n",
    "bold": lambda r, k, v: f"**{k.capitalize()}:** {v}",
    "table": lambda r, k, v: f"| User | bob |\n| {k.capitalize()} | {v} |\n",
    "slash": lambda r, k, v: f"{paragraph(r, 1, 2)}\nLogin: bob / {k}: {v}",
    "changed to": lambda r, k, v: f"I have changed the {k} to {v}",
    "equals": lambda r, k, v: f"{k} = {v}",
    "arrow": lambda r, k, v: f"{k} -> {v}",
    "after comma": lambda r, k, v: f"host db, user bob, {k} {v}",
}
EUROPEAN: dict[str, list[str]] = {
    "Passwort": ["Das Passwort ist {v}", "Das Passwort lautet {v}"],
    "Kennwort": ["Das Kennwort lautet {v}"],
    "Zugangscode": ["Der Zugangscode ist {v}"],
    "Mot de passe": ["Le mot de passe est {v}"],
    "Contraseña": ["La contraseña es {v}"],
    "Senha": ["A senha é {v}"],
    "Palavra-passe": ["A palavra-passe é {v}"],
    "Parola d'ordine": ["La password è {v}"],
    "Wachtwoord": ["Het wachtwoord is {v}"],
    "Hasło": ["Hasło to {v}"],
    "Lösenord": ["Lösenordet är {v}"],
    "Adgangskode": ["Adgangskoden er {v}"],
    "Passord": ["Passordet er {v}"],
    "Salasana": ["Salasana on {v}"],
    "Heslo": ["Heslo je {v}"],
    "Jelszó": ["A jelszó: {v}"],
    "Parolă": ["Parola este {v}"],
    "Lozinka": ["Lozinka je {v}"],
    "Geslo": ["Geslo je {v}"],
    "Şifre": ["Şifre: {v}"],
    "Пароль": ["Пароль: {v}"],
    "Κωδικός πρόσβασης": ["Κωδικός: {v}"],
}


def european(rng: random.Random) -> Iterator[Message]:
    """Passwords under labels of European languages."""
    while True:
        label, value = pick(rng, list(EUROPEAN)), password(rng)
        key = label.lower().replace(" ", "_").replace("'", "").replace("-", "_")
        form = pick(rng, ["label", "label", "french", "equals", "sentence", "json", "json", "pair", "yaml"])
        data: object = {
            "label": f"{label}: {value}",
            "french": f"{label} : {value}",
            "equals": f"{key}={value}",
            "sentence": pick(rng, EUROPEAN[label]).format(v=value),
            "json": {key: value},
            "pair": {"name": key, "value": value},
            "yaml": f'db:\n  {key}: "{value}"\n',
        }[form]
        if isinstance(data, str) and rng.random() < 0.3:
            data = f"{sentence(rng)}\n{data}"
        yield sample("labelled_european", f"{label}, {form}", "password", value, data)


PAIR_KEYS = [
    ("name", "value"),
    ("key", "value"),
    ("Name", "Value"),
    ("Key", "Value"),
    ("field", "value"),
    ("k", "v"),
    ("id", "value"),
    ("property", "value"),
    ("variable", "value"),
    ("label", "value"),
    ("ParameterKey", "ParameterValue"),
    ("parameter", "value"),
    ("attribute", "value"),
    ("title", "value"),
    ("header", "value"),
    ("setting", "value"),
]


def pairs(rng: random.Random) -> Iterator[Message]:
    """Name and value beside each other, as Kubernetes, ECS, HAR files and forms write them."""
    while True:
        label, kind, value = labelled(rng)
        name = spelled(rng, label, "snake UPPER camel Pascal kebab words")
        left, right = pick(rng, PAIR_KEYS)
        pair = {left: name, right: value} if rng.random() < 0.8 else {right: value, left: name}
        others = [{left: a, right: b} for a, b in [("LOG_LEVEL", "debug"), ("PORT", "8080"), ("user", "bob")][: rng.randrange(4)]]
        form = pick(rng, ["alone", "env", "headers", "text", "yaml", "params", "extra", "two in a list"])
        data: object = {
            "alone": pair,
            "env": {"env": others + [pair]},
            "headers": {"request": {"headers": others + [pair]}},
            "text": json.dumps(others + [pair]),
            "yaml": f'env:\n  - {left}: {name}\n    {right}: "{value}"\n',
            "params": {"postData": {"mimeType": "x-www-form-urlencoded", "params": others + [pair]}},
            "extra": {"fields": [dict(pair, type="string", enabled=True)]},
            "two in a list": {"headers": [["Accept", "*/*"], [name, value]]},
        }[form]
        yield sample("pairs", f"{form} {left}/{right}", kind, value, data, "config")


def headers(rng: random.Random) -> Iterator[Message]:
    """Credentials in headers of HTTP, as text and as JSON."""
    while True:
        label, kind, value = labelled(rng, False)
        if kind == "password":
            secret = base64.b64encode(f"{pick(rng, FIRST).lower()}:{value}".encode()).decode()
            name, text, kind = "Authorization", f"Basic {secret}", "password"
        else:
            name, scheme, kind = pick(
                rng,
                [
                    ("Authorization", "Bearer ", "auth_token"),
                    ("Authorization", "Token ", "auth_token"),
                    ("X-Api-Key", "", "api_key"),
                    ("X-Auth-Token", "", "auth_token"),
                    ("PRIVATE-TOKEN", "", "auth_token"),
                    ("Proxy-Authorization", "Bearer ", "auth_token"),
                    ("X-Vault-Token", "", "auth_token"),
                    ("Cookie", "sessionid=", "secret"),
                    ("api-key", "", "api_key"),
                    ("Ocp-Apim-Subscription-Key", "", "api_key"),
                ],
            )
            secret, text = value, scheme + value
        form = pick(rng, ["curl", "raw", "json", "pair", "python", "list"])
        data: object = {
            "curl": f"curl -H '{name}: {text}' https://api.example.com/v1",
            "raw": f"GET /v1 HTTP/1.1\r\nHost: api.example.com\r\n{name}: {text}\r\n\r\n",
            "json": {"headers": {"Accept": "*/*", name: text}},
            "pair": {"headers": [{"name": name, "value": text}]},
            "python": f"requests.get(url, headers={{'{name}': '{text}'}})",
            "list": {"headers": [f"{name}: {text}"]},
        }[form]
        yield sample("labelled_header", f"{name} {form}", kind, secret, data, "http.request")


def plain_words(rng: random.Random) -> Iterator[Message]:
    """Passwords that are a word of a language: what only a label, and nothing in the value, shows."""
    while True:
        value = pick(rng, PASSWORD_WORDS) + (pick(rng, PASSWORD_WORDS) if rng.random() < 0.4 else "")
        label, form = pick(rng, ["password", "DB_PASSWORD", "smtp_password", "passwort"]), rng.randrange(4)
        data: object = [{label: value, "user": "bob"}, f"{label}={value}", f"{label}: '{value}'\n", f'The {label} is "{value}".'][form]
        yield sample("labelled_plain_words", ["json", "env", "yaml", "prose"][form], "password", value, data)


FAMILIES: dict[str, Family] = {
    "labelled_json": family("labelled_json", JSON_FORMS, "snake UPPER camel Pascal kebab"),
    "labelled_env": family("labelled_env", ENV_FORMS, "UPPER", signs=False),
    "labelled_yaml": family("labelled_yaml", YAML_FORMS, "snake camel kebab UPPER", signs=False),
    "labelled_ini_toml": family("labelled_ini_toml", INI_FORMS, "snake kebab camel", signs=False),
    "labelled_xml_html": family("labelled_xml_html", XML_FORMS, "snake camel Pascal kebab", signs=False),
    "labelled_source": family("labelled_source", SOURCE_FORMS, "snake camel UPPER", signs=False),
    "labelled_container": family("labelled_container", CONTAINER_FORMS, "UPPER", signs=False),
    "labelled_prose": family("labelled_prose", PROSE_FORMS, "words"),
    "labelled_european": european,
    "pairs": pairs,
    "labelled_header": headers,
    "labelled_plain_words": plain_words,
}
