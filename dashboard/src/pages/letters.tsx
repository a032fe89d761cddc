// Dead letters: why did they die, what was in them, and back with them.

import { useEffect, useState } from "preact/hooks";
import { type Letter, type Letters, type LetterWhole, query } from "../api";
import { may } from "../commands";
import { AgentLink, Facts, Tag, Time, Waiting } from "../parts/bits";
import { ChoiceFilter, TextFilter } from "../parts/filters";
import { Operate } from "../parts/operate";
import { Page } from "../parts/page";
import { asExport, type Column, Table } from "../parts/table";
import { href, param, place, useAsked } from "../state";
import { count, flags, many, word } from "../text";

const AGAIN_MS = 5_000;
const REDRIVE = "dead_letters_redrive";
const DROP = "dead_letters_drop";
const BACK = "Each goes back into the inbox that it came from, with the same message id, and is delivered again.";
const GONE = "It is removed for good, payload and all.";

const COLUMNS: Column<Letter>[] = [
  { name: "time", head: "Died", value: (row) => new Date(row.time_ms).toISOString(), cell: (row) => <Time ms={row.time_ms} /> },
  { name: "agent", head: "Inbox of", value: (row) => row.agent_id, cell: (row) => <AgentLink name={row.agent_id} /> },
  { name: "reason", head: "Reason", value: (row) => row.reason, cell: (row) => <Tag kind="bad">{row.reason}</Tag> },
  { name: "last", head: "Last failure", value: (row) => row.history.at(-1)?.reason ?? "" },
  { name: "attempts", head: "Attempts", value: (row) => row.attempts, num: true },
  { name: "message_id", head: "Message", value: (row) => row.message_id ?? "", cell: (row) => row.message_id ? <a class="mono" href={href("messages", row.message_id)} title={row.message_id}>…{row.message_id.slice(-12)}</a> : "" },
  { name: "id", head: "Letter", value: (row) => row.id, cell: (row) => <a href={href("letters", row.id)}>{row.id}</a> },
];

function All() {
  const filters = { agent: param("agent"), reason: param("reason"), message: param("message"), since: param("since"), order: param("order") };
  const asked = query("/api/v1/dead-letters", { ...filters, limit: 100 });
  const [cursor, setCursor] = useState("");
  const [before, setBefore] = useState<Letter[]>([]);
  useEffect(() => {
    setCursor("");
    setBefore([]);
  }, [asked]);
  const { data, error, at, again } = useAsked<Letters>(cursor ? `${asked}&cursor=${encodeURIComponent(cursor)}` : asked, cursor ? 0 : AGAIN_MS);
  const rows = data ? [...before, ...data.letters] : before;
  const reasons = new Map<string, number>();
  for (const row of rows) reasons.set(`${row.agent_id}: ${row.reason}`, (reasons.get(`${row.agent_id}: ${row.reason}`) ?? 0) + 1);
  const most = [...reasons].sort((a, b) => b[1] - a[1]).slice(0, 5);
  return (
    <Page title="Dead letters" question="What could nobody handle, and why?" error={error} at={at}
      command={`mas dlq list${flags({ agent: filters.agent, "died-of": filters.reason, message: filters.message, from: filters.since })}`}
      exported={data && asExport("dead-letters", COLUMNS, rows)}>
      <div class="filters">
        <TextFilter name="agent" label="Inbox of" />
        <TextFilter name="reason" label="Reason" />
        <TextFilter name="message" label="Message id" />
        <ChoiceFilter name="since" label="Since" any="ever" choices={[["15m", "15 minutes"], ["1h", "an hour"], ["24h", "a day"], ["7d", "7 days"]]} />
        <ChoiceFilter name="order" label="Order" standard="newest" choices={[["newest", "newest first"], ["oldest", "oldest first"]]} />
      </div>
      {!data ? !error && rows.length === 0 && <Waiting what="dead letters" /> : (
        <p>{many(data.total, "dead letter")} in Redis. {most.length > 0 && <>Of those shown: {most.map(([name, n]) => `${n} × ${name}`).join("; ")}.</>}</p>
      )}
      {(data || rows.length > 0) && <Table caption="Dead letters" showCaption={false} columns={COLUMNS} rows={rows} rowKey={(row) => row.id} empty={data?.next ? "None that fits so far: look on." : "None that fits: every message was handled, or waits."} />}
      <div class="tools">
        {data?.next && <button type="button" onClick={() => { setBefore(rows); setCursor(data.next ?? ""); }}>Look on</button>}
        {rows.length > 0 && <Operate command={{ command: REDRIVE, ids: rows.map((row) => row.id) }} label={`Put these ${rows.length} back`} effect={BACK} onDone={() => { setBefore([]); setCursor(""); again(); }} />}
      </div>
    </Page>
  );
}

function One({ id }: { id: string }) {
  const { data, error, at, again } = useAsked<LetterWhole>(`/api/v1/dead-letters/${encodeURIComponent(id)}`, 0);
  return (
    <Page title="Dead letter" question="Why did it die, and what was in it?" command={`mas dlq show ${word(id)}`} error={error} at={at} live={false}
      exported={data && { ...asExport("dead-letter", COLUMNS, [data as Letter]), json: data }} tools={<a class="mode" href={href("letters")}>All dead letters</a>}>
      {!data ? !error && <Waiting what="the letter" /> : (
        <>
          <div class="split">
            <section class="card" aria-label="Letter"><Facts rows={[
              ["letter", <code>{data.id}</code>],
              ["died", <Time ms={data.time_ms} />],
              ["of", <Tag kind="bad">{data.reason}</Tag>],
              ["inbox of", <AgentLink name={data.agent_id} />],
              ["last instance", data.instance_id || "none"],
              ["attempts", count(data.attempts)],
              ["message", data.message_id ? <a class="mono" href={href("messages", data.message_id)}>{data.message_id}</a> : "unknown"],
              ["written by a server", data.ours ? "yes" : <Tag kind="bad">no: somebody else changed or wrote it</Tag>],
            ]} /></section>
            <Table caption="How each delivery failed" columns={[
              { name: "attempt", head: "Attempt", value: (row) => row.attempt, num: true },
              { name: "reason", head: "Reason", value: (row) => row.reason },
            ]} rows={data.history} rowKey={(row) => `${row.attempt} ${row.reason}`} empty="It died without a delivery." />
          </div>
          <h2>Payload</h2>
          {data.masked && <p><Tag kind="warn">What the DLP rules in force would block or redact is masked.</Tag></p>}
          {data.payload_problem && <p class="notice warn">{data.payload_problem}</p>}
          {data.envelope && <pre tabIndex={0} role="region" aria-label="Payload">{JSON.stringify(data.envelope, null, 2)}</pre>}
          <div class="tools">
            <Operate command={{ command: REDRIVE, ids: [data.id] }} label="Put it back" effect={BACK} onDone={again} />
            <Operate command={{ command: DROP, ids: [data.id] }} label="Drop it" effect={GONE} onDone={again} />
          </div>
          {!may.value.has(REDRIVE) && <p class="quiet">To put it back: <code>mas dlq redrive {word(data.id)} --reason …</code></p>}
        </>
      )}
    </Page>
  );
}

export function LettersPage() {
  const { name } = place.value;
  return name ? <One key={name} id={name} /> : <All />;
}

