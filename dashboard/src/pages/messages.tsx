// Messages: as they are committed, searched for, or one whole with its proof.

import { useEffect, useState } from "preact/hooks";
import { type AuditRecord, type Chain, query, type Records } from "../api";
import { ACTIONS, DECISIONS } from "../codes";
import { live, MAX_LIVE, useLive } from "../live";
import { DecisionTag, Facts, Tag, Time, Waiting } from "../parts/bits";
import { ChoiceFilter, TextFilter } from "../parts/filters";
import { Page } from "../parts/page";
import { ProofView } from "../parts/proof";
import { RECORD_COLUMNS, STEP_COLUMNS } from "../parts/records";
import { asExport, Table } from "../parts/table";
import { href, param, paused, place, setParams, useAsked } from "../state";
import { count, flags, many, word } from "../text";

const FILTERS = ["agent", "from", "to", "action", "decision"] as const;
const WINDOWS: [string, string][] = [["5m", "last 5 minutes"], ["15m", "last 15 minutes"], ["1h", "last hour"], ["24h", "last day"], ["7d", "last 7 days"]];
const PAGE_ROWS = 100;

const chosen = () => Object.fromEntries(FILTERS.map((name) => [name, param(name)]).filter(([, value]) => value)) as Record<string, string>;

function Fields({ children }: { children?: preact.ComponentChildren }) {
  return (
    <div class="filters">
      <TextFilter name="agent" label="Agent, either side" />
      <TextFilter name="from" label="From" />
      <TextFilter name="to" label="To" />
      <ChoiceFilter name="action" label="Action" any="any" choices={ACTIONS} />
      <ChoiceFilter name="decision" label="Decision" any="any" choices={DECISIONS} />
      {children}
    </div>
  );
}

/** Goes to one message by what somebody has of it. */
function Find() {
  const [id, setId] = useState("");
  return (
    <form class="filters" onSubmit={(event) => {
      event.preventDefault();
      if (id.trim()) location.hash = href("messages", id.trim());
    }}>
      <label class="wide">Message id, correlation id or receipt (LANE:SEQ)
        <input value={id} onInput={(event) => setId(event.currentTarget.value)} autocomplete="off" spellcheck={false} />
      </label>
      <button type="submit">Show</button>
    </form>
  );
}

function Modes({ mode }: { mode: string }) {
  const { params } = place.value;
  const all = Object.fromEntries(params);
  return (
    <>
      <a class="mode" aria-current={mode === "live" ? "true" : undefined} href={href("messages", "", { ...all, mode: "", cursor: "" })}>Live</a>
      <a class="mode" aria-current={mode === "search" ? "true" : undefined} href={href("messages", "", { ...all, mode: "search" })}>Search</a>
    </>
  );
}

const recordKey = (row: AuditRecord) => `${row.lane}:${row.seq}`;

function Live() {
  const filters = chosen();
  const fleet = param("fleet", "1") === "1";
  useLive({ ...filters, ...(fleet ? { fleet: "1" } : {}) }, !paused.value);
  const { records, seen, missed, skipped, open, error } = live.value;
  const { agent = "", from = "", to = "", action = "", decision = "" } = filters;
  return (
    <Page title="Messages" question="What is decided now?" command={`mas tap${flags({ agent, from, to, action, decision })}`} error={error}
      exported={asExport("records", RECORD_COLUMNS, records)} tools={<Modes mode="live" />}>
      <Fields>
        <ChoiceFilter name="fleet" label="Servers" standard="1" choices={[["1", "all"], ["0", "this one"]]} />
      </Fields>
      <Find />
      <p>
        <span role="status">{paused.value ? <Tag kind="warn">paused</Tag> : open ? <Tag kind="good">live</Tag> : <Tag kind="none">connecting</Tag>}</span>{" "}
        {many(seen, "record")} came, the newest {MAX_LIVE} are kept.
        {skipped > 0 && <> {count(skipped)} more came too fast to be read and were passed over.</>}
        {missed > 0 && <> {many(missed, "block")} of records were missed. </>}
        {(skipped > 0 || missed > 0) && <> <a href={href("messages", "", { ...filters, mode: "search", since: "5m" })}>Search has them all.</a></>}
      </p>
      <Table caption="Records, newest first" showCaption={false} columns={RECORD_COLUMNS} rows={records} rowKey={recordKey}
        empty={open ? "Nothing that fits was committed since this page is open." : "Nothing yet."} />
    </Page>
  );
}

function Search() {
  const filters = chosen();
  const since = param("since", "1h");
  const more = { message: param("message"), correlation: param("correlation"), violation: param("violation"), until: param("until") };
  const order = param("order", "newest");
  const [cursor, setCursor] = useState("");
  const [before, setBefore] = useState<AuditRecord[]>([]);
  const asked = query("/api/v1/records", { ...filters, ...more, since: since === "all" ? "" : since, order, limit: PAGE_ROWS });
  useEffect(() => {
    setCursor("");
    setBefore([]);
  }, [asked]);
  const { data, error, at, again } = useAsked<Records>(cursor ? `${asked}&cursor=${encodeURIComponent(cursor)}` : asked, 0);
  const rows = data ? [...before, ...data.records] : before;
  const { agent = "", from = "", to = "", action = "", decision = "" } = filters;
  // The command has no filter for either side: that needs both.
  const command = `mas audit query${since === "all" ? "" : ` --from ${word(since)}`}${more.until ? ` --to ${word(more.until)}` : ""}`
    + `${flags({ sender: from || agent, target: to, action, decision, "message-id": more.message, violation: more.violation })} --limit ${PAGE_ROWS}`;
  return (
    <Page title="Messages" question="What is on record?" command={command} error={error} at={at} live={false}
      exported={rows.length ? asExport("records", RECORD_COLUMNS, rows) : null} tools={<><Modes mode="search" /><button type="button" onClick={() => { setBefore([]); setCursor(""); again(); }}>Search again</button></>}>
      <Fields>
        <ChoiceFilter name="since" label="Since" standard="1h" choices={[...WINDOWS, ["all", "everything"]]} />
        <TextFilter name="until" label="Until" placeholder="now" />
        <TextFilter name="violation" label="Finding" />
        <ChoiceFilter name="order" label="Order" standard="newest" choices={[["newest", "newest first"], ["oldest", "oldest first"]]} />
      </Fields>
      <Find />
      {!data && !error && <Waiting what="records" />}
      {data && (
        <p role="status">
          {many(rows.length, "record")}. {count(data.looked_at)} looked at
          {data.reached_unix_us !== null && <>, {order === "newest" ? "back" : "up"} to <Time ms={data.reached_unix_us / 1_000} /></>}.
          {!data.next && (data.complete ? " That is all." : " An archive of another host holds more.")}
        </p>
      )}
      {(data || rows.length > 0) && <Table caption="Records" showCaption={false} columns={RECORD_COLUMNS} rows={rows} rowKey={recordKey}
        empty={data?.next ? "Nothing that fits so far: search on." : "Nothing that fits is on record in this time."} />}
      {data?.next && <p><button type="button" onClick={() => { setBefore(rows); setCursor(data.next ?? ""); }}>Search on</button></p>}
      {data?.elsewhere.length ? <p class="quiet">Archives elsewhere: {data.elsewhere.join(", ")}</p> : null}
    </Page>
  );
}

const ENDED_WELL = new Set(["acknowledged", "delivered", "accepted", "put back"]);

function One({ id }: { id: string }) {
  const { data, error, at } = useAsked<Chain>(`/api/v1/messages/${encodeURIComponent(id)}`, 0);
  const proof = param("proof");
  const split = proof.lastIndexOf(":");
  const first = data?.chain[0];
  return (
    <Page title="Message" question="Who asked, what was decided, who got it, how did it end?" command={`mas audit show ${word(id)}`} error={proof && error?.status === 404 ? null : error} at={at} live={false}
      exported={data && { ...asExport("message", STEP_COLUMNS, data.chain), json: data }} tools={<a class="mode" href={href("messages")}>All messages</a>}>
      <p><code>{id}</code></p>
      {!data && !error && <Waiting what="the message" />}
      {data && (
        <>
          <Facts rows={[
            ["state", <Tag kind={ENDED_WELL.has(data.state) ? "good" : data.state === "unknown" ? "none" : "bad"}>{data.state}</Tag>],
            ["message", <code>{data.message_id}</code>],
            ...(first ? [["decision", <DecisionTag decision={first.decision} />], ["steps", count(data.chain.length)]] as [string, preact.JSX.Element | string][] : []),
          ]} />
          <Table caption="Its life" columns={STEP_COLUMNS} rows={data.chain} rowKey={(row) => `${row.lane}:${row.seq}`} empty="Nothing is on record." />
          {data.cut && <p>There are more steps than are shown.</p>}
          {data.related.length > 0 && <Table caption="With the same correlation id" columns={STEP_COLUMNS} rows={data.related} rowKey={(row) => `${row.lane}:${row.seq}`} empty="" />}
          {!proof && first && <p><button type="button" class="main" onClick={() => setParams({ proof: `${first.lane}:${first.seq}` })}>Prove the decision here, in this browser</button></p>}
        </>
      )}
      {proof && split > 0 && <ProofView key={proof} lane={proof.slice(0, split)} seq={proof.slice(split + 1)} />}
    </Page>
  );
}

export function MessagesPage() {
  const { name } = place.value;
  if (name) return <One key={name} id={name} />;
  return param("mode") === "search" ? <Search /> : <Live />;
}
