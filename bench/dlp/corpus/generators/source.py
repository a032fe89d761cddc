"""Source code that deals with signing in, SQL, stack traces, diffs, shell sessions, builds and tests."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from .common import (ADJECTIVES, FIRST, NOUNS, SERVICES, VERBS, Family, Message, base64_text, chars, digits, hexa, host, identifier, ip, iso,
                     message, path, person, pick, semver, sentence, uuid, when, written)

VARIABLES = """password passwd pwd secret token api_key access_token refresh_token client_secret passphrase credentials user_password new_password
db_password password_hash private_key session_token auth_token card_number ssn pin""".split()
VALUES = """{v}|self.{v}|config.{v}|args.{v}|settings.{V}|options["{v}"]|request.form["{v}"]|os.environ["{V}"]|os.getenv("{V}")|get_{v}()|read_{v}(path)|None|""|hash_{v}({v}, salt)|{v}.encode()|{v} or default_{v}
user_input|kwargs.pop("{v}", None)|getpass.getpass()|input("Enter {v}: ")|response.json()["{v}"]|bytes({v}, "utf-8")|decrypt(row[{n}])|generate_{v}({n})|payload.get("{v}")|urllib.parse.unquote({v})|{v}[:{n}]|vault.read("secret/{v}")""".replace("\n", "|").split("|")
LANGUAGES: dict[str, list[str]] = {
    "py": ["{v} = {x}", "self.{v} = {x}", "def login(self, user, {v}={x}):", "connect(host=host, user=user, {v}={v})", "{v}: str", "{v}: SecretStr", "{v}: Optional[str] = None", "{v}: Annotated[str, Field(min_length={n})]", "if {v} != other.{v}:", "raise ValueError(\"{v} must not be empty\")",
           "parser.add_argument(\"--{v}\", required=True, help=\"the {v} of the user\")", "{v} = models.CharField(max_length={n})", "{V}_FIELD = \"{v}\"", "{V}_ENV = \"{V}\"", "logger.info(\"{v} changed for %s\", user)", "\"{v}\": {v},", "'{v}': self.{v},", "    :param {v}: the {v} to use", "f\"{{user}}:{{{v}}}@{{host}}\"", "fields = [\"user\", \"{v}\"]",
           "{v} = forms.CharField(widget=forms.PasswordInput)", "assert {v} == expected_{v}", "@{v}.setter", "except Invalid{c}Error as error:", "return dict(user=user, {v}={v})", "url = f\"postgres://{{user}}:{{{v}}}@{{host}}/{{db}}\"", "{v}_count = {n}", "PERMISSIONS = {{\"{v}\": \"write\"}}", "MESSAGES = {{\"{v}\": \"Wrong {v}\"}}", "{v}s = [t.{v} for t in items]"],
    "ts": ["const {v} = {j};", "{v}: string;", "{v}?: string | undefined;", "readonly {v}: SecretString", "body: JSON.stringify({{ {v}: {v} }})", "{v}: {v},", "{v}: req.body.{v},", "await login({{ user, {v}: form.{v} }});", "setState({{ {v}: event.target.value }})", "<input type=\"password\" name=\"{v}\" value={{{v}}} onChange={{on{c}}} />", "if (!{v}) throw new Error('{v} is required');",
           "export const {V} = '{v}';", "headers: {{ Authorization: `Bearer ${{{v}}}` }}", "{v}: z.string().min({n}),", "{v}: process.env.{V},", "{v}: process.env.{V} ?? '',", "type Props = {{ {v}: string; on{c}Change: (v: string) => void }};", "errors.{v} = '{c} is required';", "label: '{c}', name: '{v}', type: 'password'", "@Column() {v}: string;", "case '{v}': return <Lock />;", "{v}: 'required|min:8',", "placeholder=\"Enter your {v}\"", "const {{ {v}: raw }} = props;"],
    "rs": ["let {v} = {r};", "pub {v}: String,", "pub {v}: Option<SecretString>,", "{v}: self.{v}.clone(),", "fn {v}(&self) -> &str", "{v}: *mut c_char,", "Config {{ user, {v} }}", ".{v}(&{v})", "#[arg(long, env = \"{V}\")] {v}: String,", "const {V}: &str = \"{v}\";", "\"{v}\" => Field::{c},", "assert_eq!({v}, other.{v});", "pub lp{v}: windows_sys::core::PWSTR,", "{v}: impl AsRef<[u8]>,", "Err(Error::Missing(\"{v}\"))", "write!(f, \"{v}: <hidden>\")", "token: Token![{k}],", "{v}: PhantomData,", "let {v}: Vec<u8> = vec![{n}; {n}];", "/// The {v}: never logged."],
    "go": ["{v} := {g}", "{c} string `json:\"{v}\"`", "{c}: cfg.{c},", "cfg.{c} = {v}", "func Login(user, {v} string) error {{", "if {v} == \"\" {{ return errors.New(\"{v}: required\") }}", "flag.StringVar(&{v}, \"{v}\", \"\", \"the {v}\")", "{c} *Secret `yaml:\"{v},omitempty\"`", "const {v}Key = \"{v}\"", "{v}, ok := os.LookupEnv(\"{V}\")", "db.Exec(\"UPDATE users SET {v} = $1\", {v})"],
    "java": ["String {v} = {z};", "private final char[] {v};", "this.{v} = {v};", "@NotBlank(message = \"{c} is required\") private String {v};", "public void set{c}(String {v}) {{ this.{v} = {v}; }}", "props.put(\"{v}\", {v});", "@Value(\"${{app.{v}}}\") String {v};", "public static final String {V} = \"{v}\";", "builder.{v}({v}).build();", "@JsonProperty(\"{v}\") String {v},", "assertThat({v}).isEqualTo(expected);", "throw new IllegalArgumentException(\"{v}: must not be null\");", "log.debug(\"{v}={{}}\", mask({v}));"],
    "cs": ["public string {c} {{ get; set; }}", "var {v} = {z};", "{c} = request.{c},", "[Required(ErrorMessage = \"{c} is required\")]", "new NetworkCredential(user, {v})", "SecureString {v} = null;", "builder[\"{c}\"] = {v};", "[DataType(DataType.Password)]"],
    "php": ["${v} = $_POST['{v}'];", "'{v}' => ${v},", "'{v}' => 'required|min:{n}',", "$this->{v} = ${v};", "'{v}' => env('{V}', ''),", "protected $hidden = ['{v}', 'remember_token'];", "password_verify(${v}, $hash)", "'{v}' => __('auth.{v}'),", "public string ${v};", "define('{V}', getenv('{V}'));"],
    "rb": ["{v} = params[:{v}]", "config.{v} = ENV['{V}']", "validates :{v}, presence: true, length: {{ minimum: {n} }}", "attr_accessor :{v}", "User.create(email: email, {v}: params[:{v}], {v}_confirmation: {v})", "{v}: {v},", "has_secure_{v}", "filter_parameters += [:{v}]", "{v}: Rails.application.credentials.{v}"],
    "c": ["char *{v};", "const char *{v} = NULL;", "struct passwd *pwd = getpwnam(user);", "static int check_{v}(const char *{v}, size_t len);", "{{\"{v}\", required_argument, NULL, 'p'}},", "#define {V}_MAX {n}", "#define {V} \"{v}\"", "strncpy(cfg->{v}, {v}, sizeof(cfg->{v}) - 1);", "printf(\"{v}: \");", "extern pem_password_cb *{v};", "memset({v}, 0, len); /* {v} */", "case TOKEN_{k}: return \"{v}\";"],
    "sh": ["{V}=\"${V}\"", "{V}=$(cat /run/secrets/{v})", "read -rs -p '{c}: ' {v}", "export {V}=${{{V}:-}}", ": \"${{{V}:?{v} is not set}}\"", "docker login -u \"$USER\" --password-stdin <<< \"${V}\"", "curl -u \"$USER:${V}\" https://example.com", "mysql -u root -p\"${V}\"", "{v}=$(openssl rand -hex {n})", "--{v}=*) {v}=${{1#*=}};;", "unset {V}", "echo \"{c}: hidden\"", "[ -z \"${V}\" ] && echo 'no {v} given'"],
}
SHORT = {"j": ["props.{v}", "await get{c}()", "useRef(null)", "undefined", "'';//", "form.value.{v}", "localStorage.getItem('{v}')", "crypto.randomUUID()", "new URL(x).searchParams.get('{v}')"],
         "r": ["read_{v}()?", "std::env::var(\"{V}\")?", "String::new()", "{v}.into()", "rpassword::prompt_password(\"{c}: \")?", "None", "args.{v}.as_deref()"],
         "g": ["os.Getenv(\"{V}\")", "\"\"", "cfg.{c}", "r.FormValue(\"{v}\")", "string({v}Bytes)", "generate{c}({n})"],
         "z": ["null", "request.get{c}()", "config.{v}", "\"\"", "System.getenv(\"{V}\")", "{v}", "Configuration[\"{c}\"]"]}


def code(rng: random.Random, language: str) -> str:
    """A line that deals with a secret and has none."""
    name = pick(rng, VARIABLES)
    known = {"v": name, "V": name.upper(), "c": "".join(w.title() for w in name.split("_")), "n": rng.randrange(2, 512), "k": pick(rng, ["IDENT", "NUMBER", "STRING", "Comma", "struct"])}
    known["x"] = pick(rng, VALUES).format(**known)
    for letter, values in SHORT.items():
        known[letter] = pick(rng, values).format(**known)
    return pick(rng, LANGUAGES[language]).format(**known)


def sign_in_code(rng: random.Random) -> Iterator[Message]:
    """Code in ten languages around passwords and tokens."""
    while True:
        language = pick(rng, list(LANGUAGES))
        lines = [" " * rng.choice([0, 2, 4, 8]) + code(rng, language) for _ in range(rng.randint(1, 8))]
        yield written(rng, "code", "\n".join(lines), f"{identifier(rng)}.{language}")


COLUMNS = """password VARCHAR(255) NOT NULL
password_hash BYTEA NOT NULL
token UUID PRIMARY KEY
api_key TEXT UNIQUE
secret BYTEA
ssn CHAR(11)
card_last4 CHAR(4)
iban VARCHAR(34)
cvv_result CHAR(1)
pin SMALLINT
access_token TEXT
created_at TIMESTAMPTZ DEFAULT now()
id BIGINT GENERATED ALWAYS AS IDENTITY
email CITEXT NOT NULL
pass BOOLEAN DEFAULT false
pass_count INTEGER
amount NUMERIC(12,2)""".splitlines()


def sql(rng: random.Random) -> Iterator[Message]:
    """SQL: definitions, queries, EXPLAIN, results; columns that are called password."""
    while True:
        table, column = pick(rng, NOUNS) + "s", pick(rng, ["password", "token", "api_key", "secret", "ssn", "passwd"])
        number = lambda: rng.randrange(10 ** rng.randint(1, 16))  # noqa: E731
        parts = [pick(rng, [
            f"CREATE TABLE {table} (\n  " + ",\n  ".join(rng.sample(COLUMNS, rng.randint(2, 8))) + "\n);", f"SELECT id, {column} FROM {table} WHERE id = {number()} AND {column} IS NOT NULL;", f"UPDATE {table} SET {column} = $1 WHERE id = $2;", f"INSERT INTO {table} (id, name, {column}) VALUES (?, ?, ?);",
            f"INSERT INTO {table} (id, name, total) VALUES ({number()}, '{person(rng).replace(chr(39), chr(39) * 2)}', {rng.random() * 1000:.2f}), ({number()}, 'x', {rng.random():.4f});", f"ALTER TABLE {table} ADD COLUMN {column} TEXT;", f"CREATE INDEX {table}_{column}_idx ON {table} ({column});", f"ALTER TABLE {table} RENAME COLUMN {column} TO {column}_old;",
            f"COMMENT ON COLUMN {table}.{column} IS 'the {column}: never selected';", f"ALTER USER {pick(rng, FIRST).lower()} WITH PASSWORD NULL;", "CREATE USER app IDENTIFIED BY :password;", "CREATE ROLE reporting LOGIN PASSWORD '<password>';", f"GRANT SELECT ({column}) ON {table} TO reporting;", f"SELECT count(*) FILTER (WHERE {column} = '') AS pass, {number()} AS fail FROM {table};",
            f"EXPLAIN ANALYZE SELECT 1;\n Index Scan using {table}_{column}_idx on {table}  (cost=0.{rng.randrange(99)}..{rng.random() * 9999:.2f} rows={rng.randrange(10 ** 6)} width={rng.randrange(400)}) (actual time={rng.random():.3f}..{rng.random() * 9:.3f} rows={rng.randrange(10 ** 5)} loops=1)\n   Index Cond: ({column} = $1)\n   Buffers: shared hit={rng.randrange(9999)}\n Execution Time: {rng.random() * 90:.3f} ms",
            f" id | name | {column}_set | total\n----+------+------+------\n" + "\n".join(f" {number()} | {person(rng)} | t | {rng.random() * 10 ** 6:.2f}" for _ in range(rng.randint(1, 6))), f"DELETE FROM sessions WHERE token_expires < now() - interval '{rng.randrange(90)} days';", f"WHERE {column} = crypt($2, {column})", f"SELECT setval('{table}_id_seq', {number()});"])
            for _ in range(rng.randint(1, 4))]
        text = "\n".join(parts)
        yield message("sql.query", pick(rng, [{"sql": text}, {"query": text, "params": [number()]}])) if rng.random() < 0.5 else written(rng, "sql", text, "schema.sql")


def rows(rng: random.Random) -> Iterator[Message]:
    """Rows of tables as JSON and CSV."""
    while True:
        columns: dict[str, object] = {"id": 0, "name": 0, "created_at": 0, pick(rng, ["total", "score", "price"]): 0, pick(rng, ["ref", "external_id", "serial"]): 0, pick(rng, ["has_password", "password_changed_at", "token_count", "pass", "password_expires"]): 0}
        def row() -> list[object]:
            return [rng.randrange(10 ** rng.randint(3, 16)), person(rng), iso(when(rng)), round(rng.random() * 9999, 2), pick(rng, [digits(rng, rng.randint(8, 18)), hexa(rng, 12), uuid(rng)]), pick(rng, [True, False, None, rng.randrange(2000), f"{when(rng):%Y-%m-%d}"])]
        table = [row() for _ in range(rng.randint(1, 20))]
        yield pick(rng, [lambda: message("rows", {"rows": [dict(zip(columns, r)) for r in table]}), lambda: message("rows", {"columns": list(columns), "data": table}), lambda: written(rng, "rows", "\n".join(",".join(map(str, r)) for r in [list(columns), *table])),
                         lambda: written(rng, "rows", "\n".join(json.dumps(dict(zip(columns, r))) for r in table))])()


def traces(rng: random.Random) -> Iterator[Message]:
    """Stack traces of Python, Java, JavaScript, Go, Rust, C#, Ruby, native code."""
    while True:
        name, service, n = pick(rng, VARIABLES), pick(rng, SERVICES), rng.randrange(2, 900)
        c = "".join(w.title() for w in name.split("_"))
        text = pick(rng, [
            "Traceback (most recent call last):\n" + "".join(f"  File \"/app/{service}/{identifier(rng)}.py\", line {rng.randrange(900)}, in {identifier(rng)}\n    {code(rng, 'py')}\n" for _ in range(rng.randint(1, 6))) + pick(rng, [f"KeyError: '{name}'", f"TypeError: login() got an unexpected keyword argument '{name}'", f"ValueError: {name} must not be empty", f"pydantic_core.ValidationError: 1 validation error for Settings\n{name}\n  Field required [type=missing, input_value={{}}, input_type=dict]", "psycopg2.OperationalError: FATAL:  password authentication failed for user \"app\""]),
            f"java.lang.IllegalArgumentException: {name}: must not be null\n" + "".join(f"\tat com.example.{service}.{c}.{identifier(rng).replace('-', '_')}({c}.java:{rng.randrange(900)})\n" for _ in range(rng.randint(2, 12))) + f"\t... {n} more\nCaused by: java.sql.SQLException: Access denied for user 'app'@'{ip(rng)}' (using password: YES)",
            f"TypeError: Cannot read properties of undefined (reading '{name}')\n" + "".join(f"    at {identifier(rng).replace('-', '')} (/app/node_modules/{service}/dist/index.js:{rng.randrange(900)}:{rng.randrange(90)})\n" for _ in range(rng.randint(1, 9))),
            f"panic: runtime error: invalid memory address or nil pointer dereference\n[signal SIGSEGV: segmentation violation code=0x1 addr=0x{hexa(rng, 6)} pc=0x{hexa(rng, 6)}]\n\ngoroutine {n} [running]:\nmain.(*{c}).Check(0x{hexa(rng, 12)}, {{0xc{hexa(rng, 9)}, 0x{hexa(rng, 2)}}})\n\t/src/{service}/{name}.go:{n} +0x{hexa(rng, 3)}",
            f"thread 'main' panicked at src/{name}.rs:{n}:{rng.randrange(80)}:\ncalled `Result::unwrap()` on an `Err` value: MissingField(\"{name}\")\n" + "".join(f"  {k:2}: 0x{hexa(rng, 12)} - {service}::{identifier(rng).replace('-', '_')}::h{hexa(rng, 16)}\n" for k in range(rng.randint(2, 10))),
            f"Unhandled exception. System.ArgumentNullException: Value cannot be null. (Parameter '{name}')\n" + "".join(f"   at Acme.{c}.Check(String {name}) in C:\\src\\{c}.cs:line {rng.randrange(900)}\n" for _ in range(rng.randint(1, 6))),
            f"app/models/user.rb:{n}:in `{name}=': undefined method `{name}' for nil:NilClass (NoMethodError)\n" + "".join(f"\tfrom app/{identifier(rng)}.rb:{rng.randrange(900)}:in `block in call'\n" for _ in range(rng.randint(1, 6))),
            f"Program received signal SIGABRT\n#0  0x0000{hexa(rng, 12)} in raise () from /lib64/libc.so.6\n#1  0x0000{hexa(rng, 12)} in check_{name} ({name}=0x{hexa(rng, 8)} \"\", len={n}) at src/{name}.c:{n}\nrax 0x{hexa(rng, 16)} {rng.getrandbits(63)}\n{n:08x}-{n + 9:08x} r-xp 00000000 08:01 {rng.randrange(10 ** 7)} /usr/lib/libpw.so"])
        yield written(rng, "error.report", text)


def diffs(rng: random.Random) -> Iterator[Message]:
    """Diffs and logs of git."""
    while True:
        language = pick(rng, list(LANGUAGES))
        file = f"src/{identifier(rng)}.{language}"
        if rng.random() < 0.6:
            hunk = "\n".join(pick(rng, [" ", "-", "+"]) + "    " + code(rng, language) for _ in range(rng.randint(3, 14)))
            text = f"diff --git a/{file} b/{file}\nindex {hexa(rng, 10)}..{hexa(rng, 10)} 100644\n--- a/{file}\n+++ b/{file}\n@@ -{rng.randrange(900)},{rng.randrange(20)} +{rng.randrange(900)},{rng.randrange(20)} @@ {identifier(rng)}\n{hunk}"
        else:
            text = "\n".join(pick(rng, [f"commit {hexa(rng, 40)}\nAuthor: {person(rng)} <{rng.randrange(10 ** 8)}+dev@users.noreply.example.com>\nDate:   {when(rng):%a %b %d %H:%M:%S %Y} +0100\n\n    {sentence(rng)}\n", f"{hexa(rng, 8)} ({pick(rng, FIRST)} {when(rng):%Y-%m-%d} {rng.randrange(900)}) {code(rng, language)}", f"{hexa(rng, 7)} {pick(rng, ['fix', 'feat', 'docs'])}({pick(rng, SERVICES)}): {pick(rng, ['password: not logged', 'token refresh', 'secret: read from file', sentence(rng)])} (#{rng.randrange(9999)})"]) for _ in range(rng.randint(1, 12)))
        yield written(rng, "git", text)


def shell(rng: random.Random) -> Iterator[Message]:
    """Shell sessions."""
    while True:
        user, service = pick(rng, FIRST).lower(), pick(rng, SERVICES)
        steps = [pick(rng, [
            f"$ grep -rn password src | head -{rng.randrange(9)}\nsrc/{identifier(rng)}.py:{rng.randrange(900)}:    {code(rng, 'py')}\nsrc/{identifier(rng)}.ts:{rng.randrange(99)}:  {code(rng, 'ts')}", f"{user}@{host(rng)}:~$ ls -l\n-rw-r--r-- 1 {user} {user} {rng.randrange(10 ** 9)} Nov  2 10:14 passwords.md\n-rw------- 1 {user} {user} {rng.randrange(4096)} Nov  2 10:14 id_ed25519", f"$ sudo systemctl restart {service}\n[sudo] password for {user}: ",
            f"$ docker login -u {user} --password-stdin < ~/.token\nLogin Succeeded", f"$ docker ps\nCONTAINER ID   IMAGE   STATUS\n{hexa(rng, 12)}   {service}:{semver(rng)}   Up {rng.randrange(50)} hours", f"$ ssh -p {rng.randrange(65535)} {user}@{ip(rng)}\nThe authenticity of host can't be established.\nED25519 key fingerprint is SHA256:{base64_text(rng, 32)[:43]}.", f"$ sha256sum *\n{hexa(rng, 64)}  a.tar.gz\n{hexa(rng, 64)}  b.zip",
            f"$ mkdir -p build && cp -p a b && tar -p -xf {service}.tar", f"$ mysql -u root -p {service}\nEnter password: ", f"$ curl -s -u \"$USER:$TOKEN\" https://api.example.com{path(rng)} | jq .id\n{rng.randrange(10 ** 16)}", f"$ ps aux\nroot {rng.randrange(65000)} 0.{rng.randrange(9)} 1.2 {rng.randrange(10 ** 7)} {rng.randrange(10 ** 6)} ? Ssl 10:14 0:01 /usr/bin/{service} --password-file /etc/{service}.pw", f"$ df\n/dev/sda1 {rng.randrange(10 ** 10)} {rng.randrange(10 ** 9)} {rng.randrange(10 ** 9)} 41% /", f"$ passwd\nChanging password for {user}.\nCurrent password: \nNew password: \nRetype new password: \npasswd: password updated successfully",
            f"$ cat /etc/passwd\nroot:x:0:0:root:/root:/bin/bash\n{user}:x:{rng.randrange(3000)}:{rng.randrange(3000)}:{person(rng)},,,:/home/{user}:/bin/zsh", f"$ kubectl get secrets\nNAME   TYPE   DATA   AGE\n{service}-password   Opaque   {rng.randrange(9)}   {rng.randrange(400)}d\ndefault-token-{chars(rng, 'bcdfghjkl23456789', 5)}   kubernetes.io/service-account-token   3   {rng.randrange(99)}d", f"$ export TOKEN=$(cat token.txt)\n$ ./run --token \"$TOKEN\" --password-file pw", f"$ date +%s%N\n{int(when(rng).timestamp() * 1e9)}", "$ history | tail\n 501  git push -u origin main\n 502  ssh-keygen -t ed25519 -N ''", f"$ lsblk -o SERIAL\nS{chars(rng, '0123456789ABCDEFGHJKLMNPRSTVWXYZ', 14)}", f"$ ./{service} --help\n  --password <PASSWORD>  the password of the user [env: DB_PASSWORD=]\n  --token string         API token (default \"\")"])
            for _ in range(rng.randint(1, 5))]
        yield written(rng, "shell.output", "\n".join(steps)) if rng.random() < 0.7 else message("shell.result", {"command": steps[0].split("\n")[0].removeprefix("$ "), "stdout": "\n".join(steps[0].split("\n")[1:]), "exit_code": 0, "pid": rng.randrange(65000), "duration_ms": rng.random() * 900})


def builds(rng: random.Random) -> Iterator[Message]:
    """Output of builds and pipelines."""
    while True:
        lines = [f"{iso(when(rng))} " * (rng.random() < 0.5) + pick(rng, [
            f"Compiling {pick(rng, SERVICES)} v{semver(rng)}", f"added {rng.randrange(2000)} packages, and audited {rng.randrange(2000)} packages in {rng.randrange(60)}s", f"#{rng.randrange(60)} [build {rng.randrange(9)}/9] COPY . .\n#{rng.randrange(60)} sha256:{hexa(rng, 64)} {rng.randrange(10 ** 8)}B / {rng.randrange(10 ** 9)}B", f"Build {rng.randrange(300)}.{rng.randrange(99)}.{rng.randrange(9999)} ({hexa(rng, 7)})", f"Step {rng.randrange(30)}/30 : RUN --mount=type=secret,id=npm_token npm ci",
            "Login Succeeded", "WARNING! Your password will be stored unencrypted in /root/.docker/config.json.", "##[add-mask]***", "env:\n  DB_PASSWORD: ***\n  TOKEN: ***", f"PASS src/{pick(rng, VARIABLES)}.test.ts ({rng.random() * 9:.3f} s)", f"warning: unused variable: `{pick(rng, VARIABLES)}`\n  --> src/main.rs:{rng.randrange(999)}:{rng.randrange(80)}", f"error[E0061]: missing field `{pick(rng, VARIABLES)}`", f"Cache restored from key: Linux-node-{hexa(rng, 64)}",
            f"Run id {rng.randrange(10 ** 10, 10 ** 11)} attempt {rng.randrange(4)}", f"Downloaded https://repo.example.org/maven2/{pick(rng, NOUNS)}-{semver(rng)}.jar ({rng.randrange(900)} kB at {rng.random() * 9:.1f} MB/s)", f"pass {rng.randrange(9)}: mem2reg, sroa, gvn", f"token: expected `;`, found `{pick(rng, VARIABLES)}`", f"[{rng.randrange(999)}/{rng.randrange(999, 2000)}] Linking CXX executable {pick(rng, SERVICES)}", f"Uploading artifact {uuid(rng)} ({rng.randrange(10 ** 10)} bytes), id {rng.randrange(10 ** 9)}",
            f"secret scanning: {rng.randrange(900)} files, 0 secrets", "Password: not needed (trust)", "credentials: using GITHUB_TOKEN from the environment"]) for _ in range(rng.randint(2, 25))]
        yield written(rng, "ci.output", "\n".join(lines))


def test_reports(rng: random.Random) -> Iterator[Message]:
    """Reports of tests: counts called pass, JUnit, TAP, coverage, benchmarks."""
    while True:
        total, fail = rng.randrange(10, 9000), rng.randrange(9)
        passed = total - fail
        name = f"test_{pick(rng, VARIABLES)}_{pick(rng, ADJECTIVES + VERBS)}"
        suites = [{"name": identifier(rng), pick(rng, ["pass", "passed", "passes"]): rng.randrange(400), "fail": rng.randrange(4), "skip": rng.randrange(9)} for _ in range(rng.randint(1, 5))]
        yield pick(rng, [
            lambda: message("test.result", {"pass": passed, "fail": fail, "total": total, "suite": identifier(rng)}), lambda: message("test.result", {"summary": {"pass": passed, "fail": fail}, "suites": suites}), lambda: message("test.result", {"pass": fail == 0, "score": rng.random(), "check": name}), lambda: message("test.result", {"pass": f"{passed}/{total}", "suite": identifier(rng), "ms": rng.randrange(10 ** 6)}), lambda: message("eval", {"pass@1": rng.random(), "pass@10": rng.random(), "pass_rate": f"{rng.random() * 100:.1f}%", "task": identifier(rng), "tokens": rng.randrange(10 ** 7)}),
            lambda: message("compiler.pass", {"pass": pick(rng, ["mem2reg", "gvn", "sroa", "licm", "instcombine", "loop-unroll", "simplifycfg", "inline", "dce", "shadow", "depth-prepass", "gbuffer2"]), "ms": rng.random() * 90, "changed": rng.random() < 0.5}), lambda: message("check", {"checks": [{"id": identifier(rng), "pass": pick(rng, [True, False, "yes", "no", "n/a", "warn"]), "secret": False, "token": None} for _ in range(rng.randint(1, 6))]}),
            lambda: written(rng, "test.output", f"# tests {total}\n# pass {passed}\n# fail {fail}\n# duration_ms {rng.random() * 9999:.6f}"), lambda: written(rng, "test.output", "\n".join(f"{pick(rng, ['ok', 'not ok'])} {k} - {name}{k}" for k in range(1, rng.randint(2, 20)))), lambda: written(rng, "test.output", f"<testsuite name=\"{identifier(rng)}\" tests=\"{total}\" failures=\"{fail}\" time=\"{rng.random() * 90:.3f}\"><testcase classname=\"auth\" name=\"{name}\" time=\"0.{rng.randrange(999)}\"/></testsuite>", "junit.xml"),
            lambda: written(rng, "test.output", f"tests/{name}.py::{name} PASSED [{rng.randrange(99)}%]\nPASS: {passed}\nFAIL: {fail}\n==== {passed} passed, {fail} failed in {rng.random() * 99:.2f}s ===="), lambda: written(rng, "test.output", f"pass: {passed}, fail: {fail}\nPass: {passed} Fail: {fail} Skip: 0\nPASS={passed} FAIL={fail}"), lambda: written(rng, "test.output", f"--- PASS: {name} ({rng.random():.2f}s)\nPASS\ncoverage: {rng.random() * 100:.1f}% of statements\nBenchmark{name}-8 {rng.randrange(10 ** 8)} {rng.random() * 900:.1f} ns/op {rng.randrange(900)} B/op")])()


FAMILIES: dict[str, Family] = {
    "code_sign_in": sign_in_code, "code_sql": sql, "code_rows": rows, "code_stack_traces": traces, "code_diffs": diffs, "code_shell": shell, "code_builds": builds, "code_test_reports": test_reports,
}
