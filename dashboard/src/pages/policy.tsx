// The rules in force, and what they would decide.

import { useState } from "preact/hooks";
import { type Explained, type Permission, type Policy, query } from "../api";
import { DecisionTag, Facts, Problem, Tag, Time, Waiting } from "../parts/bits";
import { TextFilter } from "../parts/filters";
import { Page } from "../parts/page";
import { asExport, type Column, Table } from "../parts/table";
import { href, param, setParams, useAsked } from "../state";
import { bytes, count, flags, short, word } from "../text";
import { MEANING } from "../codes";

const AGAIN_MS = 10_000;

const PERMISSIONS: Column<Permission>[] = [
  { name: "rule", head: "Rule", value: (row) => row.rule, cell: (row) => <code>{row.rule}</code> },
  { name: "type", head: "Kind", value: (row) => row.type },
  { name: "text", head: "What it says", value: (row) => row.text },
];

const LIMIT_TEXT = (name: string, value: number) => name.endsWith("_bytes") ? bytes(value) : count(value);

function Explain() {
  const [from, to] = [param("from"), param("to")];
  const [type, data] = [param("type"), param("data")];
  const [form, setForm] = useState({ from, to, type, data });
  const path = from && to ? query("/api/v1/policy/explain", { from, to, type, data }) : null;
  const { data: answer, error } = useAsked<Explained>(path, 0);
  const field = (name: keyof typeof form, label: string) => (
    <label>{label}<input value={form[name]} autocomplete="off" spellcheck={false} onInput={(event) => setForm({ ...form, [name]: event.currentTarget.value })} /></label>
  );
  return (
    <section class="card" aria-label="Explain">
      <h2>What would be decided?</h2>
      <form onSubmit={(event) => { event.preventDefault(); setParams({ ...form }); }}>
        <div class="filters">
          {field("from", "From")}{field("to", "To")}{field("type", "Type")}
          <button type="submit" class="main">Explain</button>
        </div>
        <details open={!!data}><summary>With a payload</summary>
          <label>JSON<textarea value={form.data} placeholder="{}" spellcheck={false} onInput={(event) => setForm({ ...form, data: event.currentTarget.value })} /></label>
        </details>
      </form>
      <div aria-live="polite">
        <Problem error={error} />
        {answer && (
          <Facts rows={[
            ["decision", <DecisionTag decision={answer.decision} />],
            ["that is", MEANING[answer.decision] ?? ""],
            ["rule", <code>{answer.rule}</code>],
            ["which says", answer.rule_text ?? "nothing more"],
            ...(answer.status ? [["the sender is told", `${answer.status}${answer.details ? `: ${answer.details}` : ""}`] as [string, string]] : []),
            ...(answer.findings ? [["findings", <code>{JSON.stringify(answer.findings)}</code>] as [string, preact.JSX.Element]] : []),
          ]} />
        )}
        {answer && <p class="quiet">It is taken that {from} has sent nothing yet and that the circuit of {to} is closed; nothing is changed or counted.</p>}
      </div>
    </section>
  );
}

export function PolicyPage() {
  const { data, error, at } = useAsked<Policy>("/api/v1/policy", AGAIN_MS);
  const [from, to, type, payload] = [param("from"), param("to"), param("type"), param("data")];
  const text = param("text").toLowerCase();
  const rows = (data?.permissions ?? []).filter((row) => `${row.rule} ${row.type} ${row.text}`.toLowerCase().includes(text));
  return (
    <Page title="Policy" question="Which rules are in force, and what do they decide?" error={error} at={at}
      command={`mas policy explain${flags({ from: from || "AGENT", to: to || "AGENT" })}${type ? ` --type ${word(type)}` : ""}${payload ? ` --data ${word(payload)}` : ""}`}
      exported={data && { ...asExport("policy", PERMISSIONS, rows), json: data }}>
      <Explain key={`${from} ${to}`} />
      {!data ? !error && <Waiting what="the rules" /> : (
        <>
          <p>Loaded <Time ms={data.loaded_unix_ms} /> from <code>{data.path ?? "defaults"}</code>; rules <code title={data.rules_digest}>{short(data.rules_digest, 12)}</code>, policy version on record <code title={data.policy_version}>{short(data.policy_version, 12)}</code>.</p>
          <p>{Object.entries(data.features).map(([name, on]) => <span key={name}><Tag kind={on ? "good" : "none"}>{name} {on ? "on" : "off"}</Tag>{" "}</span>)}</p>
          <div class="filters"><TextFilter name="text" label="Permissions with" /></div>
          <Table caption={`Permissions (${count(data.permissions.length)}); what none allows is refused`} columns={PERMISSIONS} rows={rows} rowKey={(row) => row.rule} empty="No rule fits: nobody may send anything that only such a rule would allow." />
          <div class="cards">
            <section class="card" aria-label="Rates"><h3>Rates</h3><Facts rows={[
              ["each agent, a minute", count(data.rate_limit.per_minute)], ["each agent, an hour", count(data.rate_limit.per_hour)],
              ...data.rate_limits_of_agents.map((row) => [row.agent, `${count(row.per_minute)} a minute, ${count(row.per_hour)} an hour`] as [string, string]),
            ]} /></section>
            <section class="card" aria-label="Circuit breaker"><h3>Circuit breaker and delivery</h3><Facts rows={[
              ...Object.entries(data.circuit_breaker ?? { "circuit breaker": 0 }).map(([name, value]) => [name, data.circuit_breaker ? count(value) : "off"] as [string, string]),
              ...Object.entries(data.delivery).map(([name, value]) => [name, <code>{JSON.stringify(value)}</code>] as [string, preact.JSX.Element]),
            ]} /></section>
            <section class="card" aria-label="Limits"><h3>Limits</h3><Facts rows={Object.entries(data.limits).map(([name, value]) => [name, LIMIT_TEXT(name, value)])} /></section>
            <section class="card" aria-label="Operators"><h3>Operators</h3>
              {data.operators.length ? <Facts rows={data.operators.map((row) => [row.name, row.role])} /> : <p class="quiet">None: only who reaches the loopback address may look.</p>}</section>
          </div>
          <Table caption={`DLP: ${data.dlp.enabled ? "on" : "off"}`} columns={[
            { name: "type", head: "Type", value: (row) => row.type, cell: (row) => <a href={href("messages", "", { mode: "search", violation: row.type, since: "24h" })}>{row.type}</a> },
            { name: "action", head: "Action", value: (row) => row.action },
            { name: "rule", head: "Rule", value: (row) => row.rule, cell: (row) => <code>{row.rule}</code> },
            { name: "kind", head: "From", value: (row) => data.dlp.custom.includes(row) ? "mas.yaml" : "built in" },
          ]} rows={[...data.dlp.types, ...data.dlp.custom]} sort="dlp" rowKey={(row) => `${row.type} ${row.rule}`} empty="Nothing is searched for." />
          <Table caption="Roles" columns={[
            { name: "name", head: "Role", value: (row) => row.name },
            { name: "permissions", head: "May", value: (row) => row.permissions.join(", ") },
            { name: "agents", head: "Agents", value: (row) => row.agents.join(", ") },
          ]} rows={data.roles} rowKey={(row) => row.name} empty="No roles." />
          {data.cut && <p>There are more rules than are shown.</p>}
        </>
      )}
    </Page>
  );
}
