"""Shell sessions, builds and tests."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .common import (
    ADJECTIVES,
    FIRST,
    NOUNS,
    SERVICES,
    VERBS,
    Family,
    Message,
    base64_text,
    chars,
    hexa,
    host,
    identifier,
    ip,
    iso,
    message,
    path,
    person,
    pick,
    semver,
    uuid,
    when,
    written,
)
from .source import VARIABLES, code


def shell(rng: random.Random) -> Iterator[Message]:
    """Shell sessions."""
    while True:
        user, service = pick(rng, FIRST).lower(), pick(rng, SERVICES)
        steps = [
            pick(
                rng,
                [
                    f"$ grep -rn password src | head -{rng.randrange(9)}\nsrc/{identifier(rng)}.py:{rng.randrange(900)}:    {code(rng, 'py')}\nsrc/{identifier(rng)}.ts:{rng.randrange(99)}:  {code(rng, 'ts')}",
                    f"{user}@{host(rng)}:~$ ls -l\n-rw-r--r-- 1 {user} {user} {rng.randrange(10 ** 9)} Nov  2 10:14 passwords.md\n-rw------- 1 {user} {user} {rng.randrange(4096)} Nov  2 10:14 id_ed25519",
                    f"$ sudo systemctl restart {service}\n[sudo] password for {user}: ",
                    f"$ docker login -u {user} --password-stdin < ~/.token\nLogin Succeeded",
                    f"$ docker ps\nCONTAINER ID   IMAGE   STATUS\n{hexa(rng, 12)}   {service}:{semver(rng)}   Up {rng.randrange(50)} hours",
                    f"$ ssh -p {rng.randrange(65535)} {user}@{ip(rng)}\nThe authenticity of host can't be established.\nED25519 key fingerprint is SHA256:{base64_text(rng, 32)[:43]}.",
                    f"$ sha256sum *\n{hexa(rng, 64)}  a.tar.gz\n{hexa(rng, 64)}  b.zip",
                    f"$ mkdir -p build && cp -p a b && tar -p -xf {service}.tar",
                    f"$ mysql -u root -p {service}\nEnter password: ",
                    f'$ curl -s -u "$USER:$TOKEN" https://api.example.com{path(rng)} | jq .id\n{rng.randrange(10 ** 16)}',
                    f"$ ps aux\nroot {rng.randrange(65000)} 0.{rng.randrange(9)} 1.2 {rng.randrange(10 ** 7)} {rng.randrange(10 ** 6)} ? Ssl 10:14 0:01 /usr/bin/{service} --password-file /etc/{service}.pw",
                    f"$ df\n/dev/sda1 {rng.randrange(10 ** 10)} {rng.randrange(10 ** 9)} {rng.randrange(10 ** 9)} 41% /",
                    f"$ passwd\nChanging password for {user}.\nCurrent password: \nNew password: \nRetype new password: \npasswd: password updated successfully",
                    f"$ cat /etc/passwd\nroot:x:0:0:root:/root:/bin/bash\n{user}:x:{rng.randrange(3000)}:{rng.randrange(3000)}:{person(rng)},,,:/home/{user}:/bin/zsh",
                    f"$ kubectl get secrets\nNAME   TYPE   DATA   AGE\n{service}-password   Opaque   {rng.randrange(9)}   {rng.randrange(400)}d\ndefault-token-{chars(rng, 'bcdfghjkl23456789', 5)}   kubernetes.io/service-account-token   3   {rng.randrange(99)}d",
                    '$ export TOKEN=$(cat token.txt)\n$ ./run --token "$TOKEN" --password-file pw',
                    f"$ date +%s%N\n{int(when(rng).timestamp() * 1e9)}",
                    "$ history | tail\n 501  git push -u origin main\n 502  ssh-keygen -t ed25519 -N ''",
                    f"$ lsblk -o SERIAL\nS{chars(rng, '0123456789ABCDEFGHJKLMNPRSTVWXYZ', 14)}",
                    f'$ ./{service} --help\n  --password <PASSWORD>  the password of the user [env: DB_PASSWORD=]\n  --token string         API token (default "")',
                ],
            )
            for _ in range(rng.randint(1, 5))
        ]
        yield (
            written(rng, "shell.output", "\n".join(steps))
            if rng.random() < 0.7
            else message(
                "shell.result",
                {
                    "command": steps[0].split("\n")[0].removeprefix("$ "),
                    "stdout": "\n".join(steps[0].split("\n")[1:]),
                    "exit_code": 0,
                    "pid": rng.randrange(65000),
                    "duration_ms": rng.random() * 900,
                },
            )
        )


def builds(rng: random.Random) -> Iterator[Message]:
    """Output of builds and pipelines."""
    while True:
        lines = [
            f"{iso(when(rng))} " * (rng.random() < 0.5)
            + pick(
                rng,
                [
                    f"Compiling {pick(rng, SERVICES)} v{semver(rng)}",
                    f"added {rng.randrange(2000)} packages, and audited {rng.randrange(2000)} packages in {rng.randrange(60)}s",
                    f"#{rng.randrange(60)} [build {rng.randrange(9)}/9] COPY . .\n#{rng.randrange(60)} sha256:{hexa(rng, 64)} {rng.randrange(10 ** 8)}B / {rng.randrange(10 ** 9)}B",
                    f"Build {rng.randrange(300)}.{rng.randrange(99)}.{rng.randrange(9999)} ({hexa(rng, 7)})",
                    f"Step {rng.randrange(30)}/30 : RUN --mount=type=secret,id=npm_token npm ci",
                    "Login Succeeded",
                    "WARNING! Your password will be stored unencrypted in /home/ci/.docker/config.json.",
                    "##[add-mask]***",
                    "env:\n  DB_PASSWORD: ***\n  TOKEN: ***",
                    f"PASS src/{pick(rng, VARIABLES)}.test.ts ({rng.random() * 9:.3f} s)",
                    f"warning: unused variable: `{pick(rng, VARIABLES)}`\n  --> src/main.rs:{rng.randrange(999)}:{rng.randrange(80)}",
                    f"error[E0061]: missing field `{pick(rng, VARIABLES)}`",
                    f"Cache restored from key: Linux-node-{hexa(rng, 64)}",
                    f"Run id {rng.randrange(10 ** 10, 10 ** 11)} attempt {rng.randrange(4)}",
                    f"Downloaded https://repo.example.org/maven2/{pick(rng, NOUNS)}-{semver(rng)}.jar ({rng.randrange(900)} kB at {rng.random() * 9:.1f} MB/s)",
                    f"pass {rng.randrange(9)}: mem2reg, sroa, gvn",
                    f"token: expected `;`, found `{pick(rng, VARIABLES)}`",
                    f"[{rng.randrange(999)}/{rng.randrange(999, 2000)}] Linking CXX executable {pick(rng, SERVICES)}",
                    f"Uploading artifact {uuid(rng)} ({rng.randrange(10 ** 10)} bytes), id {rng.randrange(10 ** 9)}",
                    f"secret scanning: {rng.randrange(900)} files, 0 secrets",
                    "Password: not needed (trust)",
                    "credentials: using GITHUB_TOKEN from the environment",
                ],
            )
            for _ in range(rng.randint(2, 25))
        ]
        yield written(rng, "ci.output", "\n".join(lines))


def test_reports(rng: random.Random) -> Iterator[Message]:
    """Reports of tests: counts called pass, JUnit, TAP, coverage, benchmarks."""
    while True:
        total, fail = rng.randrange(10, 9000), rng.randrange(9)
        passed = total - fail
        name = f"test_{pick(rng, VARIABLES)}_{pick(rng, ADJECTIVES + VERBS)}"
        suites = [
            {
                "name": identifier(rng),
                pick(rng, ["pass", "passed", "passes"]): rng.randrange(400),
                "fail": rng.randrange(4),
                "skip": rng.randrange(9),
            }
            for _ in range(rng.randint(1, 5))
        ]
        yield pick(
            rng,
            [
                lambda: message("test.result", {"pass": passed, "fail": fail, "total": total, "suite": identifier(rng)}),
                lambda: message("test.result", {"summary": {"pass": passed, "fail": fail}, "suites": suites}),
                lambda: message("test.result", {"pass": fail == 0, "score": rng.random(), "check": name}),
                lambda: message("test.result", {"pass": f"{passed}/{total}", "suite": identifier(rng), "ms": rng.randrange(10**6)}),
                lambda: message(
                    "eval",
                    {
                        "pass@1": rng.random(),
                        "pass@10": rng.random(),
                        "pass_rate": f"{rng.random() * 100:.1f}%",
                        "task": identifier(rng),
                        "tokens": rng.randrange(10**7),
                    },
                ),
                lambda: message(
                    "compiler.pass",
                    {
                        "pass": pick(
                            rng,
                            [
                                "mem2reg",
                                "gvn",
                                "sroa",
                                "licm",
                                "instcombine",
                                "loop-unroll",
                                "simplifycfg",
                                "inline",
                                "dce",
                                "shadow",
                                "depth-prepass",
                                "gbuffer2",
                            ],
                        ),
                        "ms": rng.random() * 90,
                        "changed": rng.random() < 0.5,
                    },
                ),
                lambda: message(
                    "check",
                    {
                        "checks": [
                            {
                                "id": identifier(rng),
                                "pass": pick(rng, [True, False, "yes", "no", "n/a", "warn"]),
                                "secret": False,
                                "token": None,
                            }
                            for _ in range(rng.randint(1, 6))
                        ]
                    },
                ),
                lambda: written(
                    rng, "test.output", f"# tests {total}\n# pass {passed}\n# fail {fail}\n# duration_ms {rng.random() * 9999:.6f}"
                ),
                lambda: written(
                    rng, "test.output", "\n".join(f"{pick(rng, ['ok', 'not ok'])} {k} - {name}{k}" for k in range(1, rng.randint(2, 20)))
                ),
                lambda: written(
                    rng,
                    "test.output",
                    f'<testsuite name="{identifier(rng)}" tests="{total}" failures="{fail}" time="{rng.random() * 90:.3f}"><testcase classname="auth" name="{name}" time="0.{rng.randrange(999)}"/></testsuite>',
                    "junit.xml",
                ),
                lambda: written(
                    rng,
                    "test.output",
                    f"tests/{name}.py::{name} PASSED [{rng.randrange(99)}%]\nPASS: {passed}\nFAIL: {fail}\n==== {passed} passed, {fail} failed in {rng.random() * 99:.2f}s ====",
                ),
                lambda: written(
                    rng, "test.output", f"pass: {passed}, fail: {fail}\nPass: {passed} Fail: {fail} Skip: 0\nPASS={passed} FAIL={fail}"
                ),
                lambda: written(
                    rng,
                    "test.output",
                    f"--- PASS: {name} ({rng.random():.2f}s)\nPASS\ncoverage: {rng.random() * 100:.1f}% of statements\nBenchmark{name}-8 {rng.randrange(10 ** 8)} {rng.random() * 900:.1f} ns/op {rng.randrange(900)} B/op",
                ),
            ],
        )()


FAMILIES: dict[str, Family] = {
    "code_shell": shell,
    "code_builds": builds,
    "code_test_reports": test_reports,
}
