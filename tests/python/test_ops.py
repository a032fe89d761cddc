"""Rules and dashboards of ops/: what they ask for exists, what they tell an operator to do works, and a real Prometheus
evaluates them on a real server. When alerts fire is tested by scripts/test-ops."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from stubs import SERVICES, Client

from world import PATIENCE_S, ROOT, UNLIMITED, Process, Server, World, binary, wait_until

RULES = ROOT / "ops" / "prometheus" / "alerts.yaml"
RULE_TESTS = ROOT / "ops" / "prometheus" / "alerts.test.yaml"
EXAMPLE = ROOT / "ops" / "prometheus" / "prometheus.yaml"
DASHBOARDS = ROOT / "ops" / "grafana"
METRICS = ROOT / "docs" / "metrics.md"

# What Prometheus adds to each series that it scrapes, and makes by itself.
TARGET = {"job", "instance"}
PROMETHEUS = {"up": TARGET, "ALERTS": {*TARGET, "alertname", "alertstate", "severity"}}
# Documented metrics that neither an alert nor a panel needs, each with the reason.
UNUSED: dict[str, str] = {"mas_admin_streams": "how many watch: nothing follows from it"}

AGENTS = """
permissions:
  - {type: allow, sender: alpha, targets: [beta, failing, absent]}
agents:
  - {agent_id: alpha}
  - {agent_id: beta}
  - {agent_id: failing}
  - {agent_id: absent}
"""
GATEWAY = f"{UNLIMITED}, circuit_breaker: {{failure_threshold: 1, timeout_seconds: 3600}}"
SETTINGS = "admin_listen_addr: 127.0.0.1:0\ndelivery: {max_attempts: 1}\n"


# What is documented, what is scraped


@dataclass
class Metric:
    labels: set[str]
    kind: str
    # What stands in backticks in its row.
    words: set[str]


def documented() -> dict[str, Metric]:
    """By name, as docs/metrics.md has them."""
    metrics = {}
    for line in METRICS.read_text().splitlines():
        if found := re.match(r"\| `((?:mas|process)_\w+)(?:\{([\w,]+)\})?` \| (gauge|counter|histogram) \|(.*)", line):
            name, labels, kind, rest = found.groups()
            metrics[name] = Metric(set((labels or "").split(",")) - {""}, kind, set(re.findall(r"`(\w+)`", rest)))
    assert len(metrics) > 30
    return metrics


def documented_codes() -> set[str]:
    [section] = re.findall(r"## Codes of `mas_trouble`\n(.*?)\n## ", METRICS.read_text(), re.DOTALL)
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def scraped(page: str) -> dict[str, set[str]]:
    """Labels by name: families, and what stands on the page."""
    metrics: dict[str, set[str]] = {name: set() for name in re.findall(r"^# TYPE (\w+) ", page, re.MULTILINE)}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", page, re.MULTILINE):
        metrics.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return metrics


# What is asked for

TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*) | (?P<string>"(?:[^"\\]|\\.)*") | (?P<variable>\$\w+|\$\{\w+\})
    | (?P<number>\d+(?:ms|[smhdwy])+|\d+(?:\.\d+)?(?:e[+-]?\d+)?) | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){}\[\],@:])""",
    re.VERBOSE,
)
LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
AGGREGATIONS = {"sum", "min", "max", "avg", "count", "group", "topk", "bottomk", "quantile", "stddev", "stdvar"}


@dataclass
class Asked:
    """What an expression asks for."""

    # Metric and its matchers: label, operator, value.
    series: list[tuple[str, list[tuple[str, str, str]]]] = field(default_factory=list)
    # Labels that results are grouped or joined by, list by list.
    lists: list[list[str]] = field(default_factory=list)

    @property
    def metrics(self) -> set[str]:
        return {metric for metric, _ in self.series}


def asked(expr: str) -> Asked:
    """Reads PromQL as far as names and labels go. What is valid, Prometheus says."""
    tokens, at = [], 0
    while at < len(expr):
        found = TOKEN.match(expr, at)
        assert found, f"{expr[at:]!r} of {expr!r}"
        at = found.end()
        if found.lastgroup != "space":
            tokens.append((str(found.lastgroup), found.group()))
    tokens.append(("end", ""))
    result, at = Asked(), 0

    def until(end: str) -> list[tuple[str, str]]:
        """What stands behind the bracket at this place, up to its end."""
        nonlocal at
        first = at + 1
        while tokens[at][1] != end:
            assert tokens[at][0] != "end", expr
            at += 1
        return tokens[first:at]

    while at < len(tokens):
        kind, text = tokens[at]
        at += 1
        following = tokens[at][1] if at < len(tokens) else ""
        if text == "[":
            at -= 1
            until("]")
        elif kind != "name" or text in WORDS:
            assert text != "{", f"no metric before {{: {expr}"
        elif text in LISTS:
            result.lists.append([label for kind, label in until(")") if kind == "name"])
        elif following != "(" and text not in AGGREGATIONS:
            matchers = []
            if following == "{":
                inside = [token for _, token in until("}") if token != ","]
                assert len(inside) % 3 == 0, expr
                triples = zip(inside[::3], inside[1::3], inside[2::3], strict=True)
                matchers = [(label, operator, value[1:-1]) for label, operator, value in triples]
            result.series.append((text, matchers))
    return result


@dataclass
class Rule:
    """A rule of alerts.yaml."""

    kind: str
    name: str
    expr: str
    severity: str
    # Its annotations.
    text: str


def rules() -> list[Rule]:
    """Those of alerts.yaml, as far as this file's own layout goes; Prometheus is asked whether these are all."""
    found = []
    for block in re.split(r"^      (?=- )", RULES.read_text(), flags=re.MULTILINE)[1:]:
        # What belongs to the next group or rule.
        block = re.sub(r"^(?:  - name:|      #).*\n|^    rules:\n", "", block, flags=re.MULTILINE)
        kind, name = re.findall(r"\A- (alert|record): (\S+)\n", block)[0]
        [expr] = re.findall(r"^        expr: (?:\|\n((?:          .*\n)+)|(.*)\n)", block, re.MULTILINE)
        severity = re.findall(r"^        labels: \{severity: (\w+)\}$", block, re.MULTILINE)
        _, _, text = block.partition("        annotations:\n")
        found.append(Rule(kind, name, "".join(expr).strip(), "".join(severity), " ".join(text.split())))
    assert len(found) > 40
    return found


def alerts() -> list[Rule]:
    return [rule for rule in rules() if rule.kind == "alert"]


def recorded() -> dict[str, set[str]]:
    """Labels of recorded series: those of the outermost aggregation."""
    return {rule.name: set(asked(rule.expr).lists[0]) - {"le"} for rule in rules() if rule.kind == "record"}


def dashboards() -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def panels(dashboard: Any) -> list[Any]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def dashboard_exprs() -> dict[str, str]:
    """By where they stand."""
    exprs = {}
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                exprs[f"{name}: {panel['title']}, {target['refId']}"] = target["expr"]
        for annotation in dashboard["annotations"]["list"]:
            exprs[f"{name}: {annotation['name']}"] = annotation["expr"]
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                [(series, label)] = re.findall(r"^label_values\((.*), (\w+)\)$", variable["query"]["query"])
                exprs[f"{name}: ${variable['name']}"] = f"count by ({label}) ({series})"
    return exprs


def all_exprs() -> dict[str, str]:
    return {**{f"alerts.yaml: {rule.name}": rule.expr for rule in rules()}, **dashboard_exprs()}


# A server, and what has happened on it


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(AGENTS, gateway=GATEWAY, settings=SETTINGS) as world:
        world.redis("CONFIG", "SET", "maxmemory", "200000000")
        yield world


@pytest.fixture(scope="module")
def server(world: World) -> Server:
    """A server on which a message was delivered, one waits, one was denied, one was blocked, and one died and opened a
    circuit; where somebody has called who may not, and has put something into Redis."""
    server = world.server()
    names = ["alpha", "beta", "failing", "stranger"]
    with contextlib.ExitStack() as open_clients:
        clients = [Client.of(world, server.addr, SERVICES[0], name) for name in names]
        alpha, beta, failing, stranger = (open_clients.enter_context(client) for client in clients)
        for client in (alpha, beta, failing):
            client.open()
        alpha.send("absent")
        alpha.send("beta")
        beta.receive()
        card = '{"card": "4111 1111 1111 1111"}'
        with pytest.raises(grpc.RpcError):
            alpha.send("alpha")
        with pytest.raises(grpc.RpcError):
            alpha.send("beta", card)
        with pytest.raises(grpc.RpcError):
            stranger.open()
        alpha.send("failing")
        delivery = failing.next("delivery")
        failing.say(nack=failing.pb.Nack(delivery_id=delivery.delivery_id, reason="never", retryable=False))
        wait_until(lambda: world.redis("XLEN", "dlq:messages") == "1", "it is a dead letter")
        world.redis("XADD", "agent.stream:beta", "*", "envelope", "{}")
        alpha.send("beta")
        beta.receive()
        wait_until(lambda: world.redis("XLEN", "mas.foreign") == "1", "it is put aside")
        wait_until(lambda: "mas_redis_up 1" in page(server), "Redis was looked at")
    return server


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def page(server: Server) -> str:
    return get(f"http://{server.ready['admin_addr']}/metrics")


# Files


def test_dashboards_are_what_generate_makes(tmp_path: Path) -> None:
    """Otherwise: run ops/grafana/generate."""
    subprocess.run([sys.executable, str(DASHBOARDS / "generate"), str(tmp_path)], check=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in DASHBOARDS.glob("*.json")}
    assert set(made) == {"fleet.json", "agent.json", "audit.json", "server.json"}


@pytest.mark.parametrize("name", ["fleet.json", "agent.json", "audit.json", "server.json"])
def test_a_dashboard_holds_together(name: str) -> None:
    dashboard = dashboards()[name]
    # Nothing of one Grafana: no ids of its own, and the data source is chosen.
    assert dashboard["id"] is None
    source, *variables = dashboard["templating"]["list"]
    assert (source["type"], source["name"], source["query"]) == ("datasource", "datasource", "prometheus")
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for it in [*variables, *panels(dashboard), *dashboard["annotations"]["list"]]:
        assert it["datasource"] == chosen, it
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert ids == list(range(1, len(ids) + 1))
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(titles) == len(set(titles))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    known = {"datasource", *(variable["name"] for variable in variables), "__rate_interval"}
    for panel in panels(dashboard):
        assert panel["description"] and panel["title"] and panel["targets"], panel
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))
        for target in panel["targets"]:
            assert target["datasource"] == chosen
            assert set(re.findall(r"\$\{?(\w+)", target["expr"])) <= known, target["expr"]
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] in ("stat", "timeseries"):
            assert defaults["unit"] and defaults["thresholds"]["steps"], panel["title"]


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    commands = Commands()
    for alert in alerts():
        assert alert.severity in ("critical", "warning", "info"), alert.name
        assert alert.text.startswith("summary: ") and " description: >- " in alert.text, alert.name
        assert alert.text.endswith((".", "?")), alert.name
        assert re.search(
            r"(?:docs|ops)/|\bmas(?:-server)? [a-z-]|curl http|redis-cli|redis\.conf", alert.text
        ), alert.name
        for doc in re.findall(r"\b(?:docs|ops)/[\w./-]*\w", alert.text):
            assert (ROOT / doc).exists(), f"{alert.name}: {doc}"
    texts = [(f"alert {alert.name}", alert.text) for alert in alerts()]
    for name, dashboard in dashboards().items():
        texts += [(f"{name}: {panel['title']}", panel["description"]) for panel in panels(dashboard)]
    for where, text in texts:
        commands.check(where, text)


class Commands:
    """What `mas` can do, as its help says."""

    def __init__(self) -> None:
        self._helps: dict[str, str] = {}
        words = [binary("mas-server"), "--help"]
        self._server = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        # Those with commands of their own.
        self.groups = {name: self._below(name) for name in self._below()}

    def _help(self, *words: str) -> str:
        key = " ".join(words)
        if key not in self._helps:
            words = (binary("mas"), *words, "--help")
            self._helps[key] = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        return self._helps[key]

    def _below(self, *words: str) -> set[str]:
        _, _, listed = self._help(*words).partition("\nCommands:\n")
        return set(re.findall(r"^  ([a-z-]+)", listed.partition("\nOptions:")[0], re.MULTILINE)) - {"help"}

    def check(self, where: str, text: str) -> None:
        """Commands and options that a text names exist."""
        for option in re.findall(r"\bmas-server (--[a-z-]+)", text):
            assert f" {option}" in self._server, f"{where}: mas-server {option}"
        for sentence in re.split(r"[.:;,)]+(?:\s|$)", text):
            # A command and what stands behind it, up to the next one.
            for words in re.split(r"\b(?=mas [a-z])", sentence)[1:]:
                _, command, *rest = words.split()
                assert command in self.groups, f"{where}: mas {command}"
                found = [command]
                if self.groups[command]:
                    assert rest and rest[0] in self.groups[command], f"{where}: {words}"
                    found.append(rest[0])
                for option in re.findall(r"--[a-z-]+", words):
                    assert f" {option} " in self._help(*found), f"{where}: {' '.join(found)} {option}"


def test_each_alert_is_tested() -> None:
    """In one case it fires, in another it does not; its texts use labels that it has."""
    fires: dict[str, list[set[str]]] = {}
    quiet = set()
    case = re.compile(
        r'- expr: ALERTS\{alertname="(\w+)",alertstate="firing"\}\n +eval_time: .*\n +exp_samples:( \[\])?\n'
        r"((?: +- \{labels: .*\n)*)"
    )
    for name, nothing, samples in case.findall(RULE_TESTS.read_text()):
        if nothing:
            quiet.add(name)
        for sample in samples.splitlines():
            fires.setdefault(name, []).append(set(re.findall(r'(\w+)="', sample)))
    names = {alert.name for alert in alerts()}
    assert len(names) == len(alerts())
    assert names == set(fires) == quiet
    for alert in alerts():
        for label in re.findall(r"\$labels\.(\w+)", alert.text):
            assert all(label in labels for labels in fires[alert.name]), f"{alert.name}: {label}"


def test_every_code_of_trouble_has_an_alert() -> None:
    each, others = set(), []
    for alert in alerts():
        for metric, matchers in asked(alert.expr).series:
            for _, operator, value in matchers if metric == "mas_trouble" else []:
                if operator == "=":
                    each.add(value)
                else:
                    others.append(set(value.split("|")))
    assert each == documented_codes()
    assert others == [documented_codes()]


# Names


def test_expressions_ask_for_what_there_is(server: Server) -> None:
    known: dict[str, set[str]] = {**PROMETHEUS, **recorded()}
    on_page, metrics = scraped(page(server)), documented()
    assert set(metrics) <= set(on_page)
    for name, metric in metrics.items():
        labels = {*metric.labels, *on_page.get(name, ()), *TARGET}
        if metric.kind == "histogram":
            known |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            known[name] = labels
    values = {
        "decision": possible("--decision"),
        "action": possible("--action"),
        "code": documented_codes(),
        "state": metrics["mas_inbox_messages"].words,
        "outcome": metrics["mas_deliveries_total"].words | metrics["mas_telemetry_spans_total"].words,
        "done": metrics["mas_connections_turned_away_total"].words,
    }
    for where, expr in all_exprs().items():
        found = asked(expr)
        for series, matchers in found.series:
            assert series in known, f"{where}: {series}"
            for label, _, value in matchers:
                assert label in known[series], f"{where}: {series}{{{label}}}"
                if not value.startswith("$") and label in values:
                    assert set(value.split("|")) <= values[label], f"{where}: {label} {value}"
        labels = set().union(*(known[series] for series in found.metrics))
        for listed in found.lists:
            assert set(listed) <= labels, f"{where}: {listed}"
    # Recorded series are named by their labels, as they are by convention.
    for name, labels in recorded().items():
        assert set(name.partition(":")[0].split("_")) == labels, name


def possible(option: str) -> set[str]:
    """Values that `mas audit query` takes."""
    done = subprocess.run(
        [binary("mas"), "audit", "query", option, "?"], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    _, found, listed = done.stderr.partition("expected one of ")
    assert found, done.stderr
    return set(listed.strip().split(", "))


def test_every_metric_is_used() -> None:
    used = set().union(*(asked(expr).metrics for expr in all_exprs().values()))
    used |= {re.sub(r"_(bucket|sum|count)$", "", metric) for metric in used}
    ours = {name for name in documented() if name.startswith("mas_")}
    assert ours - used == set(UNUSED)
    # A rule that nothing asks for costs and tells nothing.
    assert set(recorded()) <= used


# A real Prometheus


def programs() -> Path | None:
    """Where prometheus is: installed, or as scripts/test-ops has fetched it."""
    if installed := shutil.which("prometheus"):
        return Path(installed)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = Path(os.environ.get("CARGO_TARGET_DIR") or cache / "mas-server" / "target")
    fetched = target.parent / "tools" / "prometheus" / "usr" / "bin" / "prometheus"
    return fetched if fetched.is_file() else None


class Prometheus:
    """One that scrapes as the example says, but each second."""

    def __init__(self, program: Path, config: Path, data: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.addr = f"127.0.0.1:{free.getsockname()[1]}"
        words = [str(program), f"--config.file={config}", f"--storage.tsdb.path={data}"]
        self.process = Process([*words, f"--web.listen-address={self.addr}"], log=data.with_suffix(".log"))

    def ask(self, path: str, **params: str) -> Any:
        """The answer's data. What it refuses fails the test."""
        url = f"http://{self.addr}/api/v1/{path}?{urllib.parse.urlencode(params)}"
        answer = json.loads(get(url))
        assert answer["status"] == "success" and not answer.get("warnings"), answer
        return answer["data"]

    def query(self, expr: str) -> dict[str, float]:
        """Values by job."""
        result = self.ask("query", query=expr)["result"]
        return {series["metric"].get("job", ""): float(series["value"][1]) for series in result}

    def is_up(self) -> bool:
        assert self.process.popen.poll() is None, "prometheus has ended"
        try:
            targets = self.ask("targets")["activeTargets"]
        except OSError:
            return False
        return len(targets) == 2 and all(target["health"] == "up" for target in targets)

    def rules(self) -> list[Any]:
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def have_been_evaluated(self) -> bool:
        rules = self.rules()
        errors = [(rule["name"], rule["lastError"]) for rule in rules if rule.get("lastError")]
        assert not errors, errors
        return all(rule["health"] == "ok" for rule in rules)


@pytest.fixture(scope="module")
def prometheus(world: World, server: Server) -> Iterator[Prometheus]:
    """Scrapes the server, and another one that demands a certificate of an operator."""
    program = programs()
    if program is None:
        pytest.skip("there is no prometheus: scripts/test-ops fetches Debian's package, or apt-get install prometheus")
    world.mas("certs", "issue", "--dir", str(world.certs), "--operator", "prometheus")
    settings = "admin_listen_addr: 0.0.0.0:0\noperators: [{name: prometheus, role: reader}]\n"
    other = world.path / "other.yaml"
    other.write_text(settings + re.sub(r"^admin_listen_addr: .*\n", "", world.config.read_text(), flags=re.MULTILINE))
    secured = Server(world.start([binary("mas-server"), "--config", str(other), "--threads", "1"]))

    config = EXAMPLE.read_text()
    # The job that is commented out there, too.
    plain, job, commented = config.partition("\n  # - job_name")
    config = plain + (job + commented).replace("\n  # ", "\n  ")
    port = secured.ready["admin_addr"].rpartition(":")[2]
    for old, new in [
        ("127.0.0.1:9464", server.ready["admin_addr"]),
        ('"mas-a.example.org:9464", "mas-b.example.org:9464"', f'"127.0.0.1:{port}"'),
        ("/etc/prometheus/mas", str(world.certs)),
        ("interval: 15s", "interval: 1s"),
        ("alerts.yaml", str(RULES)),
    ]:
        assert old in config, old
        config = config.replace(old, new)
    file = world.path / "prometheus.yaml"
    file.write_text(config)
    for attempt in range(3):
        started = Prometheus(program, file, world.path / f"prometheus-{attempt}")
        try:
            wait_until(started.is_up, "both servers are scraped")
            break
        except AssertionError:
            # Somebody else may have taken the port.
            ended = started.process.popen.poll() is not None
            started.process.kill()
            if not ended or attempt == 2:
                raise AssertionError(world.log(f"prometheus-{attempt}.log")) from None
    yield started
    started.process.kill()


def test_a_real_prometheus_evaluates_every_rule(prometheus: Prometheus) -> None:
    wait_until(prometheus.have_been_evaluated, "all rules were evaluated")
    # All that the other tests have looked at.
    told = {rule["name"]: "".join(rule["query"].split()) for rule in prometheus.rules()}
    assert told == {rule.name: "".join(rule.expr.split()) for rule in rules()}
    for metric in ("up", "mas_ready"):
        assert prometheus.query(metric) == {"mas": 1.0, "mas-production": 1.0}
    assert prometheus.query("mas_servers") == {"mas": 2.0, "mas-production": 2.0}


def test_a_real_prometheus_tells_what_has_happened(prometheus: Prometheus) -> None:
    """Each of it happened once, and before the first scrape."""

    def firing() -> dict[str, Any]:
        alerts = prometheus.ask("alerts")["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}

    expected = {"MasDlpBlocked", "MasDeadLettersGrowing", "MasForeignEntries"}
    wait_until(lambda: set(firing()) >= expected, "alerts fire")
    found = firing()
    # Nothing else is wrong with these servers.
    assert set(found) == expected
    for alert in found.values():
        for text in alert["annotations"].values():
            assert "error" not in text and "no value" not in text and "{{" not in text, text
    assert found["MasDlpBlocked"]["annotations"]["summary"].startswith("alpha: 1 messages")
    assert found["MasDeadLettersGrowing"]["annotations"]["summary"].startswith("failing: 1 messages")


def test_every_panel_has_data(world: World, server: Server, prometheus: Prometheus) -> None:
    """With what has happened here none is empty."""
    values = {"$__rate_interval": "1m", "$job": "mas", "$instance": ".*", "$agent": ".*"}
    empty = dashboard_exprs()

    def no_more() -> bool:
        for where, expr in list(empty.items()):
            for variable, value in values.items():
                expr = expr.replace(variable, value)
            if prometheus.ask("query", query=expr)["result"]:
                del empty[where]
        return not empty

    with Client.of(world, server.addr, SERVICES[0], "alpha") as alpha:
        alpha.open()
        try:
            wait_until(no_more, "all panels have data")
        except AssertionError:
            raise AssertionError(empty) from None
