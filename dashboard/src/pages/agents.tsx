// All agents, or one: who is stuck, and why.

import { type Agent, type Agents, type AgentWhole, type Edge, query, type Records } from "../api";
import { PASSED } from "../codes";
import { decisionsText } from "../pairs";
import { AgentLink, Bar, Facts, Tag, Time, Waiting } from "../parts/bits";
import { TextFilter } from "../parts/filters";
import { Operate } from "../parts/operate";
import { Page } from "../parts/page";
import { RECORD_COLUMNS } from "../parts/records";
import { asExport, type Column, Table } from "../parts/table";
import { href, param, place, useAsked } from "../state";
import { bytes, count, duration, many, shortServer, word } from "../text";

const AGAIN_MS = 2_000;
const LATEST_MS = 5_000;
/** A message that waits so long is worth a look. */
const STUCK_MS = 60_000;

const sessions = (row: Agent) => Object.values(row.sessions).reduce((a, b) => a + b, 0);
const refused = (row: Agent) => Object.entries(row.decisions).filter(([name]) => !PASSED.has(name)).reduce((a, [, n]) => a + n, 0);

/** How an agent is, in one word, the worst first. */
function stateOf(row: Agent): ["good" | "warn" | "bad" | "none", string] {
  if (row.quarantined) return ["bad", "quarantined"];
  if (row.circuit.open) return ["bad", "circuit open"];
  if (row.inbox.waiting > 0 && sessions(row) === 0) return ["bad", "nobody reads"];
  if ((row.inbox.oldest_ms ?? 0) > STUCK_MS) return ["warn", "slow"];
  return sessions(row) > 0 ? ["good", "connected"] : ["none", "not connected"];
}
const HARM = { bad: 0, warn: 1, good: 2, none: 3 };

const COLUMNS: Column<Agent>[] = [
  { name: "agent", head: "Agent", value: (row) => row.agent, cell: (row) => <AgentLink name={row.agent} /> },
  { name: "state", head: "State", value: (row) => stateOf(row)[1], cell: (row) => <Tag kind={stateOf(row)[0]}>{stateOf(row)[1]}</Tag> },
  { name: "sessions", head: "Sessions", value: sessions, num: true },
  { name: "waiting", head: "Waiting", value: (row) => row.inbox.waiting, num: true },
  { name: "delivered", head: "Unacknowledged", value: (row) => row.inbox.delivered, num: true },
  { name: "oldest_ms", head: "Oldest", value: (row) => row.inbox.oldest_ms, cell: (row) => row.inbox.oldest_ms === null ? <span class="quiet">–</span> : duration(row.inbox.oldest_ms), num: true },
  { name: "dead", head: "Dead letters", value: (row) => row.dead_letters, num: true, cell: (row) => row.dead_letters ? <a href={href("letters", "", { agent: row.agent })}>{count(row.dead_letters)}</a> : row.dead_letters === null ? "unknown" : "0" },
  { name: "passed", head: "Sent", value: (row) => Object.entries(row.decisions).filter(([name]) => PASSED.has(name)).reduce((a, [, n]) => a + n, 0), num: true },
  { name: "refused", head: "Refused", value: refused, num: true },
  { name: "minute", head: "This minute", value: (row) => row.rate.per_minute.used, num: true, cell: (row) => `${count(row.rate.per_minute.used)} of ${count(row.rate.per_minute.limit)}` },
];

const EDGES: Column<Edge>[] = [
  { name: "agent", head: "Agent", value: (row) => row.agent, cell: (row) => <AgentLink name={row.agent} /> },
  { name: "count", head: "Messages", value: (row) => Object.values(row.decisions).reduce((a, b) => a + b, 0), num: true },
  { name: "decisions", head: "Decisions", value: (row) => decisionsText(row.decisions) },
];

function All() {
  const { data, error, at } = useAsked<Agents>("/api/v1/agents", AGAIN_MS);
  const names = param("names").toLowerCase();
  const fits = (data?.agents ?? []).filter((row) => [row.agent, ...row.capabilities, ...row.roles].some((text) => text.toLowerCase().includes(names)));
  // Unless it is sorted by hand: who needs somebody first, and then by name, so that rows stand still.
  const rows = fits.sort((a, b) => HARM[stateOf(a)[0]] - HARM[stateOf(b)[0]] || a.agent.localeCompare(b.agent));
  const stuck = rows.filter((row) => HARM[stateOf(row)[0]] < 2).length;
  return (
    <Page title="Agents" question="Who is stuck?" command="mas agents" error={error} at={at} exported={data && { ...asExport("agents", COLUMNS, rows), json: rows }}>
      <div class="filters"><TextFilter name="names" label="Name, capability or role with" /></div>
      {!data ? !error && <Waiting what="the agents" /> : (
        <>
          <p>{many(data.total, "agent")}, {count(data.agents.filter((row) => sessions(row) > 0).length)} connected. <strong>{stuck ? `${many(stuck, "agent")} to look at.` : "None is stuck."}</strong>{data.next && " The first 1,000 are shown."}</p>
          <Table caption="Agents" showCaption={false} columns={COLUMNS} rows={rows} sort="sort" rowKey={(row) => row.agent} empty="No agent fits." />
        </>
      )}
    </Page>
  );
}

function rate(used: number | null, limit: number) {
  return <Bar value={used ?? 0} max={limit} text={`${count(used)} of ${count(limit)}`} />;
}

function One({ name }: { name: string }) {
  const { data, error, at, again } = useAsked<AgentWhole>(`/api/v1/agents/${encodeURIComponent(name)}`, AGAIN_MS);
  const latest = useAsked<Records>(query("/api/v1/records", { agent: name, since: "1h", limit: 20 }), LATEST_MS);
  const state = data && stateOf(data);
  return (
    <Page title={name} question="How is this agent, and what was decided about it?" command={`mas agents ${word(name)}`} error={error} at={at}
      exported={data && { ...asExport(`agent-${name}`, COLUMNS, [data as Agent]), json: data }} tools={<a class="mode" href={href("agents")}>All agents</a>}>
      {!data ? !error && <Waiting what={name} /> : (
        <>
          <div class={`verdict ${state?.[0] === "none" ? "" : state?.[0] ?? ""}`}>
            <strong role="status">{state?.[1]}</strong>
            <span>{many(sessions(data), "session")}</span>
            <span>{count(data.inbox.waiting)} waiting, {count(data.inbox.delivered)} unacknowledged</span>
            <span>{many(refused(data), "message")} refused</span>
          </div>
          {data.quarantined && <div class="notice bad"><p><strong>Quarantined.</strong> {Object.entries(data.quarantined).map(([key, value]) => `${key}: ${String(value)}`).join("; ")}</p>
            <p>To release it: <code>mas release {word(name)} --reason …</code></p></div>}
          {data.circuit.open && <div class="notice bad"><p><strong>Its circuit is open since <Time ms={data.circuit.since_unix_ms} />: nothing is sent to it.</strong></p><p>Its handlers failed too often. Look why below (action nack); it closes by itself when they succeed.</p></div>}
          {data.inbox.waiting > 0 && sessions(data) === 0 && <div class="notice bad"><p><strong>{many(data.inbox.waiting, "message")} wait, and no instance is connected.</strong></p><p>Start an instance of it; or empty its inbox with <code>mas inbox empty {word(name)}</code>.</p></div>}
          <div class="cards">
            <section class="card" aria-label="Inbox"><h3>Inbox</h3><Facts rows={[
              ["waiting", count(data.inbox.waiting)],
              ["delivered, not acknowledged", count(data.inbox.delivered)],
              ["oldest", data.inbox.oldest_ms === null ? "empty" : duration(data.inbox.oldest_ms)],
              ["in Redis", bytes(data.inbox.bytes)],
              ["dead letters", <a href={href("letters", "", { agent: name })}>{count(data.dead_letters)}</a>],
              ["deliveries", decisionsText(data.deliveries) || "none"],
            ]} /></section>
            <section class="card" aria-label="Limits"><h3>Limits</h3><Facts rows={[
              ["this minute", rate(data.rate.per_minute.used, data.rate.per_minute.limit)],
              ["this hour", rate(data.rate.per_hour.used, data.rate.per_hour.limit)],
              ["may send to", data.may_send_to === null ? "not counted" : many(data.may_send_to, "agent")],
              ["may be sent to by", data.may_be_sent_by === null ? "not counted" : many(data.may_be_sent_by, "agent")],
              ["decisions", decisionsText(data.decisions) || "none"],
            ]} /><p><a href={href("map", "", { focus: name })}>Show it in the middle of the map</a></p></section>
            <section class="card" aria-label="Who it is"><h3>Who it is</h3><Facts rows={[
              ["capabilities", data.capabilities.join(", ") || "none"],
              ["roles", data.roles.join(", ") || "none"],
              ["instances configured", data.instances_configured === null ? "not run by mas" : count(data.instances_configured)],
              ["state", data.state ? `${many(data.state.fields, "field")}, ${bytes(data.state.bytes)}, version ${data.state.version}` : "unknown"],
              ...Object.entries(data.metadata).map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)] as [string, string]),
            ]} />
            </section>
          </div>
          <div class="tools">
            {data.quarantined
              ? <Operate command={{ command: "release", whom: `agent:${name}` }} label="Release it" effect="Its calls are decided by the rules again, and its inbox is delivered." onDone={again} />
              : <Operate command={{ command: "quarantine", whom: `agent:${name}` }} label="Quarantine it" effect="On every server its calls are refused, its sessions end, and nothing is delivered to it; its inbox is kept." onDone={again} />}
            {data.circuit.open && <Operate command={{ command: "circuit_close", agent: name }} label="Close its circuit" effect="Messages are sent to it again at once; failures open the circuit again." onDone={again} />}
            {data.inbox.waiting > 0 && <Operate command={{ command: "inbox_empty", agent: name }} label="Empty its inbox" effect="What waits for it goes to the dead letters." onDone={again} />}
          </div>
          <div class="split">
            <Table caption="Sent to" columns={EDGES} rows={data.sent} rowKey={(row) => row.agent} empty="It has sent nothing since the servers started." />
            <Table caption="Received from" columns={EDGES} rows={data.received} rowKey={(row) => row.agent} empty="Nobody has sent to it since the servers started." />
          </div>
          <Table caption="Instances" columns={[
            { name: "instance", head: "Instance", value: (row) => row.instance },
            { name: "server", head: "Server", value: (row) => row.server, cell: (row) => <code title={row.server}>{shortServer(row.server)}</code> },
            { name: "left", head: "Left", value: (row) => row.left_unix_ms, cell: (row) => row.left_unix_ms === null ? <Tag kind="good">connected</Tag> : <Time ms={row.left_unix_ms} /> },
          ]} rows={data.instances} rowKey={(row) => `${row.instance} ${row.server}`} empty="No instance is connected." />
          <Table caption="Its newest records, last hour" columns={RECORD_COLUMNS} rows={latest.data?.records ?? []} rowKey={(row) => `${row.lane}:${row.seq}`}
            empty={latest.error ? `${latest.error.message} ${latest.error.whatToDo}` : "Nothing in the last hour."} />
          <p><a href={href("messages", "", { agent: name })}>Follow its records live</a>, <a href={href("messages", "", { agent: name, mode: "search" })}>search them</a></p>
        </>
      )}
    </Page>
  );
}

export function AgentsPage() {
  const { name } = place.value;
  return name ? <One key={name} name={name} /> : <All />;
}
