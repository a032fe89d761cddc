// Is it well? Every server of the fleet with its checks and troubles, and what to do about them.

import type { Fleet, FleetServer } from "../api";
import { findings, type Finding } from "../findings";
import { Bar, Facts, Tag, Time, Waiting } from "../parts/bits";
import { Operate } from "../parts/operate";
import { Page } from "../parts/page";
import { asExport, type Column, Table } from "../parts/table";
import { href, paused } from "../state";
import { bytes, count, duration, many, short, shortServer } from "../text";
import { useHeld } from "../parts/held";

const FINDINGS: Column<Finding>[] = [
  { name: "harm", head: "Harm", value: (row) => row.kind, cell: (row) => <Tag kind={row.kind}>{row.kind === "bad" ? "bad" : "look"}</Tag> },
  { name: "code", head: "Code", value: (row) => row.code, cell: (row) => <code>{row.code}</code> },
  { name: "where", head: "Where", value: (row) => row.where },
  { name: "what", head: "What", value: (row) => row.what },
  { name: "to_do", head: "What to do", value: (row) => row.toDo },
];

const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);

function Server({ row }: { row: FleetServer }) {
  const { status } = row;
  const name = status?.host ?? shortServer(row.server);
  const failing = status?.checks.filter((check) => check.problem) ?? [];
  const state = row.problem || !status ? <Tag kind="bad">{!row.trusted ? "not trusted" : row.problem?.startsWith("gone") ? "gone" : "silent"}</Tag>
    : status.draining ? <Tag kind="warn">stopping</Tag>
    : !status.ready ? <Tag kind="bad">not ready</Tag>
      : status.troubles.length ? <Tag kind="warn">ready, with troubles</Tag> : <Tag kind="good">ready</Tag>;
  return (
    <section class="card" aria-label={`Server ${name}`}>
      <h3>{name} {status && <span class="quiet" title={row.server}>{shortServer(row.server)}</span>} {row.this && <span class="quiet">answers here</span>}</h3>
      <p>{state}</p>
      {row.problem && <p><strong>{row.problem}</strong></p>}
      {status && (
        <>
          <ul class="checks" aria-label="Checks">
            {status.checks.map((check) => (
              <li key={check.name}><Tag kind={check.problem ? "bad" : "good"} title={check.problem ?? undefined}>{check.name}</Tag></li>
            ))}
          </ul>
          {failing.map((check) => <p key={check.name} class="why"><strong>{check.name}:</strong> {check.problem}</p>)}
          {status.troubles.map((trouble) => <p key={trouble.code} class="why"><strong>{trouble.code}</strong> since <Time ms={trouble.since_unix_ms} />: {trouble.why}</p>)}
          <Facts rows={[
            ["version", status.version],
            ["agents connect to", status.listen_addr ?? "unknown"],
            ["this page at", status.admin_addr ?? "unknown"],
            ["up for", status.started_unix_ms === null ? "unknown" : duration(status.time_unix_ms - status.started_unix_ms)],
            ["rules", <code title={status.rules_digest ?? ""}>{short(status.rules_digest ?? "unknown", 12)}</code>],
            ["loaded", <Time ms={status.loaded_unix_ms} />],
            ["connections", count(status.connections)],
            ["sessions", `${count(sum(Object.values(status.sessions)))} of ${many(Object.keys(status.sessions).length, "agent")}`],
            ["newest checkpoint", status.checkpoint_unix_ms === null ? "none yet" : `${duration(status.time_unix_ms - status.checkpoint_unix_ms)} ago`],
            ["report", row.age_ms === null ? "unknown" : `${duration(row.age_ms)} old`],
            ["workers", status.workers_busy.length === 0 ? "unknown" : <span class="workers">{status.workers_busy.map((busy, at) =>
              <Bar key={at} value={busy} max={1} text={`${at}: ${Math.round(busy * 100)} % busy`} />)}</span>],
          ]} />
          <div class="tools">
            {row.this && <Operate command={{ command: "reload" }} label="Reload" effect="This server reads mas.yaml and its certificates again; what is not valid changes nothing." />}
            <Operate command={{ command: "drain", server: row.server, after_ms: 0 }} label="Drain" effect={`Server ${name} is not ready any more, its agents are asked to go elsewhere, and it stops.`} />
          </div>
        </>
      )}
    </section>
  );
}

export function FleetPage({ fleet: newest }: { fleet: Fleet | null }) {
  const fleet = useHeld(newest, paused.value);
  const { all, bad, warn } = findings(fleet);
  const redis = fleet?.servers.find((one) => one.this)?.status?.redis;
  const statuses = fleet?.servers.flatMap((one) => one.status ?? []) ?? [];
  const agents = new Set(statuses.flatMap((status) => Object.keys(status.sessions)));
  const shutOut = statuses.find((status) => status.quarantine)?.quarantine ?? [];
  const ready = statuses.filter((status) => status.ready).length;
  return (
    <Page title="Fleet" question="Is it well?" command="mas status" exported={fleet && { ...asExport("fleet-findings", FINDINGS, all), json: fleet }}>
      {!fleet ? <Waiting what="the fleet" /> : (
        <>
          <div class={`verdict ${bad ? "bad" : warn ? "warn" : "good"}`}>
            <strong role="status">{bad ? `${many(bad, "thing")} must be seen to` : warn ? `It works; ${many(warn, "thing")} to look at` : "All is well"}</strong>
            <span>{ready} of {many(fleet.servers.length, "server")} ready</span>
            <span>{many(sum(statuses.map((status) => sum(Object.values(status.sessions)))), "session")} of {many(agents.size, "agent")}</span>
            <span>{fleet.others_unknown ? "others unknown" : fleet.rules_differ ? "rules differ" : "same rules everywhere"}</span>
          </div>
          {fleet.others_unknown && <div class="notice bad"><p><strong>Other servers are not known: {fleet.others_unknown}</strong></p><p>What stands here is of the server that answers alone.</p></div>}
          <Table caption="What to see to" columns={FINDINGS} rows={all} rowKey={(row) => `${row.code} ${row.where} ${row.toDo}`}
            empty="No check fails, no trouble is reported, nothing waits for an agent that is not there." />
          {shutOut.length > 0 && (
            <Table caption="Shut out" columns={[
              { name: "whom", head: "Whom", value: (row) => row.whom },
              { name: "since", head: "Since", value: (row) => row.since_unix_ms, cell: (row) => <Time ms={row.since_unix_ms} /> },
              { name: "by", head: "By whom, why", value: (row) => row.by },
              { name: "release", head: "", value: () => null, cell: (row) => <Operate command={{ command: "release", whom: row.whom }} label="Release" effect={`Calls of ${row.whom} are decided by the rules again, and its inbox is delivered.`} /> },
            ]} rows={shutOut} rowKey={(row) => row.whom} empty="" />
          )}
          <h2>Servers</h2>
          <div class="cards">
            {fleet.servers.map((row) => <Server key={row.server} row={row} />)}
            <section class="card" aria-label="Redis">
              <h3>Redis</h3>
              {redis?.up ? (
                <>
                  <p><Tag kind="good">answers</Tag></p>
                  <Facts rows={[
                    ["memory", redis.max_bytes
                      ? <Bar value={redis.used_bytes ?? 0} max={redis.max_bytes} text={`${bytes(redis.used_bytes)} of ${bytes(redis.max_bytes)}`} />
                      : `${bytes(redis.used_bytes)}, no maxmemory`],
                    ["servers", count(redis.servers)],
                    ["dead letters", <a href={href("letters")}>{count(redis.dead_letters)}</a>],
                    ["foreign entries", count(redis.foreign_entries)],
                  ]} />
                </>
              ) : <p><Tag kind="bad">does not answer</Tag> {redis?.why}</p>}
            </section>
          </div>
          <p><Operate command={{ command: "quarantine", whom: "all" }} label="Shut out all agents" effect="On every server calls of all agents are refused, their sessions end, and nothing is delivered; inboxes are kept." /></p>
        </>
      )}
    </Page>
  );
}
