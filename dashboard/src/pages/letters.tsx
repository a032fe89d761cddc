// Dead letters: why did they die, what was in them, and back with them.

import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, type Letter, type Letters, type LetterWhole, post, query } from "../api";
import { useCommands } from "../commands";
import { AgentLink, Facts, Problem, Tag, Time, Waiting } from "../parts/bits";
import { ChoiceFilter, TextFilter } from "../parts/filters";
import { Page } from "../parts/page";
import { asExport, type Column, Table } from "../parts/table";
import { href, param, place, useAsked } from "../state";
import { count, flags, many, word } from "../text";

const AGAIN_MS = 5_000;
/** The longest reason that an operator may give, in characters. */
const MAX_REASON_CHARS = 500;
const REDRIVE = "dead-letters/redrive";

const COLUMNS: Column<Letter>[] = [
  { name: "time", head: "Died", value: (row) => new Date(row.time_ms).toISOString(), cell: (row) => <Time ms={row.time_ms} /> },
  { name: "agent", head: "Inbox of", value: (row) => row.agent_id, cell: (row) => <AgentLink name={row.agent_id} /> },
  { name: "reason", head: "Reason", value: (row) => row.reason, cell: (row) => <Tag kind="bad">{row.reason}</Tag> },
  { name: "last", head: "Last failure", value: (row) => row.history.at(-1)?.reason ?? "" },
  { name: "attempts", head: "Attempts", value: (row) => row.attempts, num: true },
  { name: "message_id", head: "Message", value: (row) => row.message_id ?? "", cell: (row) => row.message_id ? <a class="mono" href={href("messages", row.message_id)} title={row.message_id}>…{row.message_id.slice(-12)}</a> : "" },
  { name: "id", head: "Letter", value: (row) => row.id, cell: (row) => <a href={href("letters", row.id)}>{row.id}</a> },
];

interface Receipt { lane?: string; sequence?: number }

/** Asks before it puts letters back, and says what came of it. */
function Redrive({ ids, onDone }: { ids: string[]; onDone: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const [done, setDone] = useState<string | null>(null);
  const send = async () => {
    setBusy(true);
    setError(null);
    try {
      const answer = await post<{ receipt?: Receipt } & Receipt>(`/api/v1/${REDRIVE}`, { ids, reason });
      const receipt = answer.receipt ?? answer;
      setDone(`${many(ids.length, "letter")} put back${receipt.lane ? `; on record as ${receipt.lane}:${receipt.sequence ?? ""}` : ""}.`);
      dialog.current?.close();
      onDone();
    } catch (failed) {
      setError(failed instanceof ApiError ? failed : new ApiError(-1, String(failed), null));
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <button type="button" class="main" onClick={() => dialog.current?.showModal()}>Put {ids.length === 1 ? "it" : `these ${ids.length}`} back into the inbox</button>
      {done && <p role="status"><Tag kind="good">{done}</Tag></p>}
      <dialog ref={dialog} aria-labelledby="redrive">
        <h2 id="redrive">Put {many(ids.length, "letter")} back?</h2>
        <p>Each goes back into the inbox that it came from, with the same message id, and is delivered again. It is on record with your name and this reason.</p>
        <Problem error={error} />
        <label>Reason<input value={reason} maxLength={MAX_REASON_CHARS} onInput={(event) => setReason(event.currentTarget.value)} /></label>
        <div class="tools">
          <button type="button" class="main" disabled={busy || !reason.trim()} onClick={() => void send()}>{busy ? "Asking …" : "Put back"}</button>
          <button type="button" onClick={() => dialog.current?.close()}>Leave it</button>
        </div>
      </dialog>
    </>
  );
}

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
  const commands = useCommands();
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
        {commands.has(REDRIVE) && rows.length > 0 && <Redrive ids={rows.map((row) => row.id)} onDone={() => { setBefore([]); setCursor(""); again(); }} />}
      </div>
    </Page>
  );
}

function One({ id }: { id: string }) {
  const { data, error, at, again } = useAsked<LetterWhole>(`/api/v1/dead-letters/${encodeURIComponent(id)}`, 0);
  const commands = useCommands();
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
              { name: "time", head: "Time", value: (row) => row.time_ms, cell: (row) => <Time ms={row.time_ms} fine /> },
              { name: "reason", head: "Reason", value: (row) => row.reason },
            ]} rows={data.history} rowKey={(row) => `${row.attempt} ${row.time_ms}`} empty="It died without a delivery." />
          </div>
          <h2>Payload</h2>
          {data.masked && <p><Tag kind="warn">What the DLP rules in force would block or redact is masked.</Tag></p>}
          {data.payload_problem && <p class="notice warn">{data.payload_problem}</p>}
          {data.envelope && <pre tabIndex={0} role="region" aria-label="Payload">{JSON.stringify(data.envelope, null, 2)}</pre>}
          {commands.has(REDRIVE) ? <Redrive ids={[data.id]} onDone={again} /> : <p class="quiet">To put it back: <code>mas dlq redrive {word(data.id)} --reason …</code></p>}
        </>
      )}
    </Page>
  );
}

export function LettersPage() {
  const { name } = place.value;
  return name ? <One key={name} id={name} /> : <All />;
}

