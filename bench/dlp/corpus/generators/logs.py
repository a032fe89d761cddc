"""Logs and traces: decimal and hexadecimal ids, counters, addresses, no secrets."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

from .common import (
    ALNUM,
    COMPANIES,
    FIRST,
    NOUNS,
    SERVICES,
    VERBS,
    Family,
    Message,
    base64url,
    chars,
    digits,
    hexa,
    host,
    identifier,
    ip,
    iso,
    path,
    person,
    pick,
    sentence,
    uuid,
    when,
    written,
)

Line = Callable[[random.Random], str]


AUTH_LINES = """user {u} authenticated with password
Failed password for invalid user {u} from {i} port {n} ssh2
password check took {n} ms
password policy: minimum length 12, history {n}
password for {u} expires in {n} days
reset password mail queued for user id {n}
token refresh succeeded for client {u}, expires in {n} s
token bucket refilled: tokens={n}
token expired, refreshing
token validation failed: signature mismatch (kid={h})
secret db-credentials rotated, version {n}
secret mounted at /run/secrets/db_password
api key {h}**** used {n} times
api key rejected: unknown key
no password supplied, using peer authentication
login: user={u} method=password result=ok
credentials: loaded from environment
session {h} opened for user {u} by (uid=0)
pass {n} of {n2} finished
pin {n} set high
rotating key set, {n} keys active
code: {n}, security: strict, policy number {n2}""".splitlines()


def auth_line(rng: random.Random) -> str:
    """A line about signing in, without a secret in it."""
    return pick(rng, AUTH_LINES).format(
        u=pick(rng, FIRST).lower(), i=ip(rng), n=rng.randrange(1, 9000), n2=rng.randrange(1, 90000), h=hexa(rng, 8)
    )


def event(rng: random.Random) -> str:
    """What a line of a log says."""
    if rng.random() < 0.12:
        return auth_line(rng)
    return pick(
        rng,
        [
            f"{pick(rng, NOUNS)} {rng.randrange(10 ** rng.randint(3, 17))} {pick(rng, VERBS)} in {rng.randrange(1, 9000)} ms",
            f"{pick(rng, VERBS)} {rng.randrange(1, 5000)} {pick(rng, NOUNS)}s, offset {rng.randrange(10 ** 16)}",
            f"GET {path(rng)} {pick(rng, [200, 201, 204, 304, 404, 500])} {rng.randrange(1, 3000)}ms",
            f"{identifier(rng)}={rng.randrange(10 ** rng.randint(1, 16))} {identifier(rng)}={hexa(rng, 16)}",
            f"connection to {host(rng)}:{rng.randrange(1024, 65535)} closed after {rng.random() * 100:.6f}s",
            f"gc pause {rng.random() * 90:.3f}ms, heap {rng.randrange(10 ** 10)}->{rng.randrange(10 ** 10)}",
            sentence(rng),
        ],
    )


def datadog(rng: random.Random) -> str:
    """Datadog: decimal ids of 63 or 64 bits."""
    service, trace, span = pick(rng, SERVICES), rng.getrandbits(pick(rng, [63, 64])), rng.getrandbits(pick(rng, [63, 64]))
    level = pick(rng, ["INFO", "WARN", "ERROR", "DEBUG"])
    return pick(
        rng,
        [
            f"{iso(when(rng))} {level} [{identifier(rng)}.py:{rng.randrange(400)}] [dd.service={service} dd.env=prod dd.version={rng.randrange(9)}.{rng.randrange(40)} "
            f"dd.trace_id={trace} dd.span_id={span}] - {event(rng)}",
            json.dumps(
                {
                    "timestamp": iso(when(rng)),
                    "level": level.lower(),
                    "dd.trace_id": str(trace),
                    "dd.span_id": str(span),
                    "message": event(rng),
                }
            ),
            f"{level} {service} trace_id={trace} span_id={span} parent_id={rng.getrandbits(63)} {event(rng)}",
            f"x-datadog-trace-id: {trace} x-datadog-parent-id: {span} x-datadog-sampling-priority: 1",
        ],
    )


def w3c(rng: random.Random) -> str:
    """W3C trace context."""
    trace, span = hexa(rng, 32), hexa(rng, 16)
    return pick(
        rng,
        [
            f"traceparent: 00-{trace}-{span}-01 tracestate: rojo={hexa(rng, 16)},congo=t61rcWkgMzE {event(rng)}",
            f"{iso(when(rng))} INFO trace_id={trace} span_id={span} trace_flags=01 resource.service.name={pick(rng, SERVICES)} {event(rng)}",
            json.dumps({"ts": when(rng).timestamp(), "traceId": trace, "spanId": span, "severityText": "INFO", "body": event(rng)}),
        ],
    )


def zipkin(rng: random.Random) -> str:
    """Zipkin and B3."""
    trace, span, parent = hexa(rng, pick(rng, [16, 32])), hexa(rng, 16), hexa(rng, 16)
    return pick(
        rng,
        [
            f"X-B3-TraceId: {trace} X-B3-SpanId: {span} X-B3-ParentSpanId: {parent} X-B3-Sampled: 1",
            f"{when(rng):%Y-%m-%d %H:%M:%S}.{rng.randrange(1000):03d}  INFO [{pick(rng, SERVICES)},{trace},{span},true] {rng.randrange(60000)} --- [nio-8080-exec-{rng.randrange(20)}] c.e.{identifier(rng)} : {event(rng)}",
            json.dumps(
                {
                    "traceId": trace,
                    "id": span,
                    "parentId": parent,
                    "kind": "SERVER",
                    "name": f"get {path(rng)}",
                    "timestamp": int(when(rng).timestamp() * 1e6),
                    "duration": rng.randrange(10**7),
                    "localEndpoint": {"serviceName": pick(rng, SERVICES), "ipv4": ip(rng), "port": 8080},
                }
            ),
            f"b3: {trace}-{span}-1-{parent} {event(rng)}",
        ],
    )


def nginx(rng: random.Random) -> str:
    """nginx and Apache: access and error lines."""
    moment = when(rng)
    agent = pick(
        rng,
        [
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{0}.0.{1}.{2} Safari/537.36",
            "curl/8.{0}.1",
            "python-requests/2.{0}.0",
            "kube-probe/1.{0}",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_{0} like Mac OS X) Mobile/15E{2}",
        ],
    ).format(rng.randrange(100, 140), rng.randrange(1000, 7000), rng.randrange(10, 200))
    query = pick(
        rng,
        [
            "",
            "",
            f"?page={rng.randrange(90)}",
            f"?cursor={base64url(rng, 20)}",
            f"?pageToken={base64url(rng, 24)}",
            f"?ts={int(moment.timestamp() * 1000)}",
            f"?id={rng.randrange(10 ** 16)}",
            f"?next_token={base64url(rng, 32)}",
            f"?v={hexa(rng, 8)}",
            f"?fbclid=IwAR{base64url(rng, 50)}",
            f"?gclid=Cj0KCQ{base64url(rng, 60)}",
        ],
    )
    return pick(
        rng,
        [
            f'{ip(rng)} - - [{moment:%d/%b/%Y:%H:%M:%S} +0000] "GET {path(rng)}{query} HTTP/1.1" {pick(rng, [200, 301, 404, 502])} {rng.randrange(10 ** 6)} "-" "{agent}" {rng.random():.3f}',
            f"{moment:%Y/%m/%d %H:%M:%S} [error] {rng.randrange(99)}#{rng.randrange(99)}: *{rng.randrange(10 ** 7)} upstream timed out (110: Connection timed out) while reading response "
            f'header from upstream, client: {ip(rng)}, server: example.com, request: "POST {path(rng)}{query} HTTP/1.1", upstream: "http://{ip(rng)}:8080{path(rng)}"',
            f'{ip(rng)} {pick(rng, FIRST).lower()} [{moment:%d/%b/%Y:%H:%M:%S} +0000] "POST /login HTTP/2.0" 302 0 "https://example.com/login?next=/password/change" "{agent}" rid={hexa(rng, 32)}',
        ],
    )


def journald(rng: random.Random) -> str:
    """syslog and journald."""
    moment, name = when(rng), host(rng)
    program = pick(rng, ["sshd", "systemd", "kernel", "sudo", "CRON", "dockerd", "NetworkManager", "su"])
    text = {
        "sshd": f"Failed password for {pick(rng, FIRST).lower()} from {ip(rng)} port {rng.randrange(1024, 65535)} ssh2",
        "kernel": f"[{rng.random() * 10 ** 6:.6f}] usb 1-{rng.randrange(9)}: New USB device found, idVendor={hexa(rng, 4)}, idProduct={hexa(rng, 4)}, SerialNumber={rng.randrange(10 ** 14)}",
        "sudo": f"{pick(rng, FIRST).lower()} : TTY=pts/{rng.randrange(9)} ; PWD=/home/{pick(rng, FIRST).lower()} ; USER=root ; COMMAND=/usr/bin/systemctl restart {pick(rng, SERVICES)}",
        "su": f"pam_unix(su:auth): authentication failure; logname= uid={rng.randrange(3000)} euid=0 tty=pts/0 ruser=bob rhost=  user=root",
    }.get(program, event(rng))
    if rng.random() < 0.2:
        return json.dumps(
            {
                "__REALTIME_TIMESTAMP": str(int(moment.timestamp() * 1e6)),
                "__MONOTONIC_TIMESTAMP": str(rng.randrange(10**12)),
                "_BOOT_ID": hexa(rng, 32),
                "_MACHINE_ID": hexa(rng, 32),
                "_PID": str(rng.randrange(65000)),
                "_HOSTNAME": name,
                "SYSLOG_IDENTIFIER": program,
                "MESSAGE": text,
            }
        )
    return f"{moment:%b %d %H:%M:%S} {name} {program}[{rng.randrange(65000)}]: {text}"


def postgres(rng: random.Random) -> str:
    """PostgreSQL's server log."""
    moment = when(rng)
    head = f"{moment:%Y-%m-%d %H:%M:%S}.{rng.randrange(1000):03d} UTC [{rng.randrange(65000)}]"
    return (
        head
        + " "
        + pick(
            rng,
            [
                f"LOG:  duration: {rng.random() * 4000:.3f} ms  statement: SELECT * FROM {pick(rng, NOUNS)}s WHERE id = {rng.randrange(10 ** 16)}",
                f'FATAL:  password authentication failed for user "{pick(rng, FIRST).lower()}"',
                "LOG:  checkpoint starting: time",
                f'DETAIL:  Connection matched pg_hba.conf line {rng.randrange(120)}: "host all all 0.0.0.0/0 scram-sha-256"',
                f"LOG:  checkpoint complete: wrote {rng.randrange(9999)} buffers ({rng.random() * 9:.1f}%); lsn={hexa(rng, 2).upper()}/{hexa(rng, 8).upper()}",
                f'ERROR:  duplicate key value violates unique constraint "users_email_key"\nDETAIL:  Key (id)=({rng.randrange(10 ** 15)}) already exists.',
                f"LOG:  execute S_{rng.randrange(99)}: UPDATE users SET password = $1, updated_at = $2 WHERE id = $3\nDETAIL:  parameters: $1 = '<redacted>', $2 = '{moment:%Y-%m-%d}', $3 = '{rng.randrange(10 ** 6)}'",
                f'LOG:  automatic vacuum of table "app.public.{pick(rng, NOUNS)}s": index scans: {rng.randrange(3)}, tuples: {rng.randrange(10 ** 7)} removed, {rng.randrange(10 ** 9)} remain',
                "LOG:  connection authorized: user=app database=app application_name=psql SSL enabled (protocol=TLSv1.3)",
                'ERROR:  role "reporting" has no password set',
            ],
        )
    )


def redis(rng: random.Random) -> str:
    """Redis: its log, SLOWLOG, MONITOR without AUTH, INFO."""
    moment = when(rng)
    return pick(
        rng,
        [
            f"{rng.randrange(99)}:M {moment:%d %b %Y %H:%M:%S}.{rng.randrange(1000):03d} * {rng.randrange(9999)} changes in 300 seconds. Saving...",
            f'{moment.timestamp():.6f} [0 {ip(rng)}:{rng.randrange(65535)}] "SET" "{pick(rng, NOUNS)}:{rng.randrange(10 ** 16)}" "{rng.randrange(10 ** 12)}" "EX" "3600"',
            f'{rng.randrange(99)}) (integer) {rng.randrange(10 ** 9)}\n2) (integer) {int(moment.timestamp())}\n3) "XADD" "inbox" "{int(moment.timestamp() * 1000)}-{rng.randrange(9)}"',
            f"run_id:{hexa(rng, 40)}\ntcp_port:6379\nused_memory:{rng.randrange(10 ** 11)}\nmaster_replid:{hexa(rng, 40)}\nmaster_repl_offset:{rng.randrange(10 ** 16)}",
            "WARNING: default user has no password. AUTH failed: WRONGPASS invalid username-password pair or user is disabled.",
            'requirepass ""',
            f"# ACL LOG: reason auth, username {pick(rng, FIRST).lower()}, age-seconds {rng.random() * 900:.3f}, client-info id={rng.randrange(10 ** 8)} addr={ip(rng)}:{rng.randrange(65535)}",
        ],
    )


def application(rng: random.Random) -> str:
    """Lines of applications: Java, Go, Rust, Node, Kafka, batch jobs."""
    moment, level = when(rng), pick(rng, ["INFO", "WARN", "ERROR", "DEBUG"])
    return pick(
        rng,
        [
            f"{moment:%H:%M:%S}.{rng.randrange(1000):03d} [main] {level} com.example.{pick(rng, SERVICES)}.{identifier(rng).title()} - {event(rng)}",
            f'time="{iso(moment)}" level={level.lower()} msg="{event(rng)}" request_id={uuid(rng)} user_id={rng.randrange(10 ** pick(rng, [4, 8, 16]))}',
            json.dumps(
                {
                    "level": level.lower(),
                    "ts": moment.timestamp(),
                    "caller": f"{pick(rng, SERVICES)}/main.go:{rng.randrange(900)}",
                    "msg": event(rng),
                    "id": rng.randrange(10**16),
                    "attempt": rng.randrange(5),
                }
            ),
            f"{iso(moment)}  {level} {pick(rng, SERVICES)}::{identifier(rng).replace('-', '_')}: {event(rng)} id={rng.getrandbits(64)}",
            f"[{moment:%Y-%m-%d %H:%M:%S},{rng.randrange(1000):03d}] {level} [Partition {pick(rng, NOUNS)}-{rng.randrange(60)} broker={rng.randrange(9)}] Log end offset {rng.randrange(10 ** 13)}, leader epoch {rng.randrange(99)}",
            f"{int(moment.timestamp() * 1e9)} {pick(rng, SERVICES)} {event(rng)}",
            f"{level[0]}{moment:%m%d %H:%M:%S}.{rng.randrange(10 ** 6):06d} {rng.randrange(10 ** 6):7d} {pick(rng, SERVICES)}.cc:{rng.randrange(2000)}] {event(rng)}",
            f"{person(rng)} of {pick(rng, COMPANIES)} ({ip(rng)}): {auth_line(rng)}",
            f"#{rng.randrange(10 ** 6)} [{chars(rng, ALNUM, 11)}] {event(rng)} seq={digits(rng, rng.randint(12, 19))}",
        ],
    )


def lines_of(name: str, line: Line, low: int = 1, high: int = 12) -> Family:
    """A family of excerpts of a log."""

    def generate(rng: random.Random) -> Iterator[Message]:
        while True:
            yield written(rng, f"log.{name}", "\n".join(line(rng) for _ in range(rng.randint(low, high))))

    return generate


def excerpts(rng: random.Random) -> Iterator[Message]:
    """A hundred lines of one log, as an agent hands them on."""
    while True:
        line = pick(rng, [datadog, w3c, zipkin, nginx, journald, postgres, redis, application])
        yield written(rng, "log.excerpt", "\n".join(line(rng) for _ in range(100)))


FAMILIES: dict[str, Family] = {
    "logs_datadog": lines_of("datadog", datadog),
    "logs_w3c": lines_of("otel", w3c),
    "logs_zipkin": lines_of("zipkin", zipkin),
    "logs_nginx": lines_of("nginx", nginx),
    "logs_journald": lines_of("journald", journald),
    "logs_postgres": lines_of("postgres", postgres),
    "logs_redis": lines_of("redis", redis),
    "logs_applications": lines_of("application", application),
    "logs_excerpts": excerpts,
}
