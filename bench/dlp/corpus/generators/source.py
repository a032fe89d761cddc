"""Source code that deals with signing in, SQL, stack traces, diffs, shell sessions, builds and tests."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .common import (
    FIRST,
    SERVICES,
    Family,
    Message,
    hexa,
    identifier,
    ip,
    person,
    pick,
    sentence,
    when,
    written,
)

VARIABLES = """password passwd pwd secret token api_key access_token refresh_token client_secret passphrase credentials user_password new_password
db_password password_hash private_key session_token auth_token card_number ssn pin""".split()


VALUES = """{v}|self.{v}|config.{v}|args.{v}|settings.{V}|options["{v}"]|request.form["{v}"]|os.environ["{V}"]|os.getenv("{V}")|get_{v}()|read_{v}(path)|None|""|hash_{v}({v}, salt)|{v}.encode()|{v} or default_{v}
user_input|kwargs.pop("{v}", None)|getpass.getpass()|input("Enter {v}: ")|response.json()["{v}"]|bytes({v}, "utf-8")|decrypt(row[{n}])|generate_{v}({n})|payload.get("{v}")|urllib.parse.unquote({v})|{v}[:{n}]|vault.read("secret/{v}")""".replace(
    "\n", "|"
).split("|")


LANGUAGES: dict[str, list[str]] = {
    "py": [
        "{v} = {x}",
        "self.{v} = {x}",
        "def login(self, user, {v}={x}):",
        "connect(host=host, user=user, {v}={v})",
        "{v}: str",
        "{v}: SecretStr",
        "{v}: Optional[str] = None",
        "{v}: Annotated[str, Field(min_length={n})]",
        "if {v} != other.{v}:",
        'raise ValueError("{v} must not be empty")',
        'parser.add_argument("--{v}", required=True, help="the {v} of the user")',
        "{v} = models.CharField(max_length={n})",
        '{V}_FIELD = "{v}"',
        '{V}_ENV = "{V}"',
        'logger.info("{v} changed for %s", user)',
        '"{v}": {v},',
        "'{v}': self.{v},",
        "    :param {v}: the {v} to use",
        'f"{{user}}:{{{v}}}@{{host}}"',
        'fields = ["user", "{v}"]',
        "{v} = forms.CharField(widget=forms.PasswordInput)",
        "assert {v} == expected_{v}",
        "@{v}.setter",
        "except Invalid{c}Error as error:",
        "return dict(user=user, {v}={v})",
        'url = f"postgres://{{user}}:{{{v}}}@{{host}}/{{db}}"',
        "{v}_count = {n}",
        'PERMISSIONS = {{"{v}": "write"}}',
        'MESSAGES = {{"{v}": "Wrong {v}"}}',
        "{v}s = [t.{v} for t in items]",
    ],
    "ts": [
        "const {v} = {j};",
        "{v}: string;",
        "{v}?: string | undefined;",
        "readonly {v}: SecretString",
        "body: JSON.stringify({{ {v}: {v} }})",
        "{v}: {v},",
        "{v}: req.body.{v},",
        "await login({{ user, {v}: form.{v} }});",
        "setState({{ {v}: event.target.value }})",
        '<input type="password" name="{v}" value={{{v}}} onChange={{on{c}}} />',
        "if (!{v}) throw new Error('{v} is required');",
        "export const {V} = '{v}';",
        "headers: {{ Authorization: `Bearer ${{{v}}}` }}",
        "{v}: z.string().min({n}),",
        "{v}: process.env.{V},",
        "{v}: process.env.{V} ?? '',",
        "type Props = {{ {v}: string; on{c}Change: (v: string) => void }};",
        "errors.{v} = '{c} is required';",
        "label: '{c}', name: '{v}', type: 'password'",
        "@Column() {v}: string;",
        "case '{v}': return <Lock />;",
        "{v}: 'required|min:8',",
        'placeholder="Enter your {v}"',
        "const {{ {v}: raw }} = props;",
    ],
    "rs": [
        "let {v} = {r};",
        "pub {v}: String,",
        "pub {v}: Option<SecretString>,",
        "{v}: self.{v}.clone(),",
        "fn {v}(&self) -> &str",
        "{v}: *mut c_char,",
        "Config {{ user, {v} }}",
        ".{v}(&{v})",
        '#[arg(long, env = "{V}")] {v}: String,',
        'const {V}: &str = "{v}";',
        '"{v}" => Field::{c},',
        "assert_eq!({v}, other.{v});",
        "pub lp{v}: windows_sys::core::PWSTR,",
        "{v}: impl AsRef<[u8]>,",
        'Err(Error::Missing("{v}"))',
        'write!(f, "{v}: <hidden>")',
        "token: Token![{k}],",
        "{v}: PhantomData,",
        "let {v}: Vec<u8> = vec![{n}; {n}];",
        "/// The {v}: never logged.",
    ],
    "go": [
        "{v} := {g}",
        '{c} string `json:"{v}"`',
        "{c}: cfg.{c},",
        "cfg.{c} = {v}",
        "func Login(user, {v} string) error {{",
        'if {v} == "" {{ return errors.New("{v}: required") }}',
        'flag.StringVar(&{v}, "{v}", "", "the {v}")',
        '{c} *Secret `yaml:"{v},omitempty"`',
        'const {v}Key = "{v}"',
        '{v}, ok := os.LookupEnv("{V}")',
        'db.Exec("UPDATE users SET {v} = $1", {v})',
    ],
    "java": [
        "String {v} = {z};",
        "private final char[] {v};",
        "this.{v} = {v};",
        '@NotBlank(message = "{c} is required") private String {v};',
        "public void set{c}(String {v}) {{ this.{v} = {v}; }}",
        'props.put("{v}", {v});',
        '@Value("${{app.{v}}}") String {v};',
        'public static final String {V} = "{v}";',
        "builder.{v}({v}).build();",
        '@JsonProperty("{v}") String {v},',
        "assertThat({v}).isEqualTo(expected);",
        'throw new IllegalArgumentException("{v}: must not be null");',
        'log.debug("{v}={{}}", mask({v}));',
    ],
    "cs": [
        "public string {c} {{ get; set; }}",
        "var {v} = {z};",
        "{c} = request.{c},",
        '[Required(ErrorMessage = "{c} is required")]',
        "new NetworkCredential(user, {v})",
        "SecureString {v} = null;",
        'builder["{c}"] = {v};',
        "[DataType(DataType.Password)]",
    ],
    "php": [
        "${v} = $_POST['{v}'];",
        "'{v}' => ${v},",
        "'{v}' => 'required|min:{n}',",
        "$this->{v} = ${v};",
        "'{v}' => env('{V}', ''),",
        "protected $hidden = ['{v}', 'remember_token'];",
        "password_verify(${v}, $hash)",
        "'{v}' => __('auth.{v}'),",
        "public string ${v};",
        "define('{V}', getenv('{V}'));",
    ],
    "rb": [
        "{v} = params[:{v}]",
        "config.{v} = ENV['{V}']",
        "validates :{v}, presence: true, length: {{ minimum: {n} }}",
        "attr_accessor :{v}",
        "User.create(email: email, {v}: params[:{v}], {v}_confirmation: {v})",
        "{v}: {v},",
        "has_secure_{v}",
        "filter_parameters += [:{v}]",
        "{v}: Rails.application.credentials.{v}",
    ],
    "c": [
        "char *{v};",
        "const char *{v} = NULL;",
        "struct passwd *pwd = getpwnam(user);",
        "static int check_{v}(const char *{v}, size_t len);",
        "{{\"{v}\", required_argument, NULL, 'p'}},",
        "#define {V}_MAX {n}",
        '#define {V} "{v}"',
        "strncpy(cfg->{v}, {v}, sizeof(cfg->{v}) - 1);",
        'printf("{v}: ");',
        "extern pem_password_cb *{v};",
        "memset({v}, 0, len); /* {v} */",
        'case TOKEN_{k}: return "{v}";',
    ],
    "sh": [
        '{V}="${V}"',
        "{V}=$(cat /run/secrets/{v})",
        "read -rs -p '{c}: ' {v}",
        "export {V}=${{{V}:-}}",
        ': "${{{V}:?{v} is not set}}"',
        'docker login -u "$USER" --password-stdin <<< "${V}"',
        'curl -u "$USER:${V}" https://example.com',
        'mysql -u root -p"${V}"',
        "{v}=$(openssl rand -hex {n})",
        "--{v}=*) {v}=${{1#*=}};;",
        "unset {V}",
        'echo "{c}: hidden"',
        "[ -z \"${V}\" ] && echo 'no {v} given'",
    ],
}


SHORT = {
    "j": [
        "props.{v}",
        "await get{c}()",
        "useRef(null)",
        "undefined",
        "'';//",
        "form.value.{v}",
        "localStorage.getItem('{v}')",
        "crypto.randomUUID()",
        "new URL(x).searchParams.get('{v}')",
    ],
    "r": [
        "read_{v}()?",
        'std::env::var("{V}")?',
        "String::new()",
        "{v}.into()",
        'rpassword::prompt_password("{c}: ")?',
        "None",
        "args.{v}.as_deref()",
    ],
    "g": ['os.Getenv("{V}")', '""', "cfg.{c}", 'r.FormValue("{v}")', "string({v}Bytes)", "generate{c}({n})"],
    "z": ["null", "request.get{c}()", "config.{v}", '""', 'System.getenv("{V}")', "{v}", 'Configuration["{c}"]'],
}


def code(rng: random.Random, language: str) -> str:
    """A line that deals with a secret and has none."""
    name = pick(rng, VARIABLES)
    known = {
        "v": name,
        "V": name.upper(),
        "c": "".join(w.title() for w in name.split("_")),
        "n": rng.randrange(2, 512),
        "k": pick(rng, ["IDENT", "NUMBER", "STRING", "Comma", "struct"]),
    }
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


def traces(rng: random.Random) -> Iterator[Message]:
    """Stack traces of Python, Java, JavaScript, Go, Rust, C#, Ruby, native code."""
    while True:
        name, service, n = pick(rng, VARIABLES), pick(rng, SERVICES), rng.randrange(2, 900)
        c = "".join(w.title() for w in name.split("_"))
        text = pick(
            rng,
            [
                "Traceback (most recent call last):\n"
                + "".join(
                    f"  File \"/app/{service}/{identifier(rng)}.py\", line {rng.randrange(900)}, in {identifier(rng)}\n    {code(rng, 'py')}\n"
                    for _ in range(rng.randint(1, 6))
                )
                + pick(
                    rng,
                    [
                        f"KeyError: '{name}'",
                        f"TypeError: login() got an unexpected keyword argument '{name}'",
                        f"ValueError: {name} must not be empty",
                        f"pydantic_core.ValidationError: 1 validation error for Settings\n{name}\n  Field required [type=missing, input_value={{}}, input_type=dict]",
                        'psycopg2.OperationalError: FATAL:  password authentication failed for user "app"',
                    ],
                ),
                f"java.lang.IllegalArgumentException: {name}: must not be null\n"
                + "".join(
                    f"\tat com.example.{service}.{c}.{identifier(rng).replace('-', '_')}({c}.java:{rng.randrange(900)})\n"
                    for _ in range(rng.randint(2, 12))
                )
                + f"\t... {n} more\nCaused by: java.sql.SQLException: Access denied for user 'app'@'{ip(rng)}' (using password: YES)",
                f"TypeError: Cannot read properties of undefined (reading '{name}')\n"
                + "".join(
                    f"    at {identifier(rng).replace('-', '')} (/app/node_modules/{service}/dist/index.js:{rng.randrange(900)}:{rng.randrange(90)})\n"
                    for _ in range(rng.randint(1, 9))
                ),
                f"panic: runtime error: invalid memory address or nil pointer dereference\n[signal SIGSEGV: segmentation violation code=0x1 addr=0x{hexa(rng, 6)} pc=0x{hexa(rng, 6)}]\n\ngoroutine {n} [running]:\nmain.(*{c}).Check(0x{hexa(rng, 12)}, {{0xc{hexa(rng, 9)}, 0x{hexa(rng, 2)}}})\n\t/src/{service}/{name}.go:{n} +0x{hexa(rng, 3)}",
                f"thread 'main' panicked at src/{name}.rs:{n}:{rng.randrange(80)}:\ncalled `Result::unwrap()` on an `Err` value: MissingField(\"{name}\")\n"
                + "".join(
                    f"  {k:2}: 0x{hexa(rng, 12)} - {service}::{identifier(rng).replace('-', '_')}::h{hexa(rng, 16)}\n"
                    for k in range(rng.randint(2, 10))
                ),
                f"Unhandled exception. System.ArgumentNullException: Value cannot be null. (Parameter '{name}')\n"
                + "".join(
                    f"   at Acme.{c}.Check(String {name}) in C:\\src\\{c}.cs:line {rng.randrange(900)}\n" for _ in range(rng.randint(1, 6))
                ),
                f"app/models/user.rb:{n}:in `{name}=': undefined method `{name}' for nil:NilClass (NoMethodError)\n"
                + "".join(f"\tfrom app/{identifier(rng)}.rb:{rng.randrange(900)}:in `block in call'\n" for _ in range(rng.randint(1, 6))),
                f'Program received signal SIGABRT\n#0  0x0000{hexa(rng, 12)} in raise () from /lib64/libc.so.6\n#1  0x0000{hexa(rng, 12)} in check_{name} ({name}=0x{hexa(rng, 8)} "", len={n}) at src/{name}.c:{n}\nrax 0x{hexa(rng, 16)} {rng.getrandbits(63)}\n{n:08x}-{n + 9:08x} r-xp 00000000 08:01 {rng.randrange(10 ** 7)} /usr/lib/libpw.so',
            ],
        )
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
            text = "\n".join(
                pick(
                    rng,
                    [
                        f"commit {hexa(rng, 40)}\nAuthor: {person(rng)} <{rng.randrange(10 ** 8)}+dev@users.noreply.example.com>\nDate:   {when(rng):%a %b %d %H:%M:%S %Y} +0100\n\n    {sentence(rng)}\n",
                        f"{hexa(rng, 8)} ({pick(rng, FIRST)} {when(rng):%Y-%m-%d} {rng.randrange(900)}) {code(rng, language)}",
                        f"{hexa(rng, 7)} {pick(rng, ['fix', 'feat', 'docs'])}({pick(rng, SERVICES)}): {pick(rng, ['password: not logged', 'token refresh', 'secret: read from file', sentence(rng)])} (#{rng.randrange(9999)})",
                    ],
                )
                for _ in range(rng.randint(1, 12))
            )
        yield written(rng, "git", text)


FAMILIES: dict[str, Family] = {
    "code_sign_in": sign_in_code,
    "code_stack_traces": traces,
    "code_diffs": diffs,
}
