// How much, how fast, and where the time goes: of the server that answers, one point a second.

import { useMemo } from "preact/hooks";
import type { Performance } from "../api";
import { PASSED } from "../codes";
import { Waiting } from "../parts/bits";
import { Chart } from "../parts/chart";
import { ChoiceFilter } from "../parts/filters";
import { Page } from "../parts/page";
import type { Export } from "../parts/table";
import { param, useAsked } from "../state";
import { bytes, count, micros, rate, shortServer } from "../text";

const AGAIN_MS = 2_000;
/** The last value that is known, looked for so far back, in points. */
const BACK = 10;

type Values = (number | null)[];

function last(values: Values | undefined): number | null {
  for (let at = 1; values && at <= Math.min(BACK, values.length); at += 1) {
    const value = values[values.length - at];
    if (value !== null && value !== undefined) return value;
  }
  return null;
}

function mean(values: Values): number {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : 0;
}

/** All columns as rows, one a second. */
function exported(data: Performance): Export {
  const columns: [string, Values][] = [
    ["time_unix_ms", data.time_unix_ms], ["deliveries", data.deliveries],
    ...Object.entries(data.decisions).map(([name, values]) => [`decisions_${name}`, values] as [string, Values]),
    ...(["queue_delay_us", "commit_us", "policy_us"] as const).flatMap((kind) =>
      Object.entries(data[kind]).map(([name, values]) => [`${kind}_${name}`, values] as [string, Values])),
    ...data.workers_busy.map((values, at) => [`worker_${at}_busy`, values] as [string, Values]),
    ...data.mailbox_depth.map((values, at) => [`worker_${at}_mailbox`, values] as [string, Values]),
    ["redis_used_bytes", data.redis_used_bytes], ["connections", data.connections], ["sessions", data.sessions],
  ];
  return { name: "performance", columns: columns.map(([name]) => name), rows: data.time_unix_ms.map((_, at) => columns.map(([, values]) => values[at] ?? null)), json: data };
}

const named = (of: Record<string, Values>) => Object.entries(of).map(([name, values]) => ({ name, values }));
const percentiles = (of: Record<string, Values>) => ["p50", "p95", "p99"].map((name) => `${name} ${micros(last(of[name]))}`).join(", ");

function Charts({ data }: { data: Performance }) {
  const passed = Object.entries(data.decisions).filter(([name]) => PASSED.has(name));
  const refused = Object.entries(data.decisions).filter(([name]) => !PASSED.has(name));
  const perSecond = (value: number) => `${rate(value)}/s`;
  const sumOf = (all: [string, Values][]) => all.reduce((sum, [, values]) => sum + (last(values) ?? 0), 0);
  const { time_unix_ms: times } = data;
  return (
    <div class="charts">
      <Chart title="Throughput" times={times} text={perSecond} series={[...named(Object.fromEntries(passed)), { name: "deliveries", values: data.deliveries }]}
        now={`Now ${rate(sumOf(passed))} messages a second let through, ${rate(last(data.deliveries))} delivered; on average ${rate(mean(data.deliveries))} delivered.`} />
      <Chart title="Refused" times={times} text={perSecond} series={refused.length ? named(Object.fromEntries(refused)) : [{ name: "refused", values: times.map(() => 0) }]}
        now={refused.length ? `Now ${rate(sumOf(refused))} a second: ${refused.map(([name, values]) => `${name} ${rate(last(values))}`).join(", ")}.` : "Nothing was refused in this time."} />
      <Chart title="Queue delay" times={times} text={micros} log series={named(data.queue_delay_us)} now={`From acceptance to the first delivery: ${percentiles(data.queue_delay_us)}.`} />
      <Chart title="Commit time" times={times} text={micros} log series={named(data.commit_us)} now={`From a round's commands to Redis' answers: ${percentiles(data.commit_us)}.`} />
      <Chart title="Policy time" times={times} text={micros} log series={named(data.policy_us)} now={`Deciding one round: ${percentiles(data.policy_us)}.`} />
      <Chart title="Workers" times={times} text={(value) => `${Math.round(value * 100)} %`} series={data.workers_busy.map((values, at) => ({ name: `worker ${at}`, values }))}
        now={`Busy now: ${data.workers_busy.map((values, at) => `worker ${at} ${Math.round((last(values) ?? 0) * 100)} %`).join(", ")}.`} />
      <Chart title="Mailboxes" times={times} text={count} series={data.mailbox_depth.map((values, at) => ({ name: `worker ${at}`, values }))}
        now={`Jobs that wait for a worker now: ${data.mailbox_depth.map((values) => count(last(values))).join(", ")}.`} />
      <Chart title="Redis memory" times={times} text={bytes} binary series={[{ name: "used", values: data.redis_used_bytes }]}
        now={`${bytes(last(data.redis_used_bytes))} used${data.redis_max_bytes ? ` of ${bytes(data.redis_max_bytes)}` : ", no maxmemory"}.`} />
      <Chart title="Connections" times={times} text={count} series={[{ name: "connections", values: data.connections }, { name: "sessions", values: data.sessions }]}
        now={`${count(last(data.connections))} connections, ${count(last(data.sessions))} sessions.`} />
    </div>
  );
}

export function PerformancePage() {
  const seconds = param("seconds", "300");
  const { data, error, at } = useAsked<Performance>(`/api/v1/performance?seconds=${encodeURIComponent(seconds)}`, AGAIN_MS);
  const out = useMemo(() => data && exported(data), [data]);
  return (
    <Page title="Performance" question="How much, how fast, and where does the time go?" command="mas top" error={error} at={at} exported={out}>
      <div class="filters">
        <ChoiceFilter name="seconds" label="Time" standard="300" choices={[["60", "last minute"], ["300", "last 5 minutes"], ["900", "last 15 minutes"]]} />
      </div>
      {!data ? !error && <Waiting what="the history" /> : data.time_unix_ms.length === 0 ? <p class="empty">The server has just started: the first point comes within a second.</p> : (
        <>
          <p>Server <code title={data.server}>{shortServer(data.server)}</code>, {count(data.time_unix_ms.length)} points of {count(data.interval_ms)} ms. Percentiles are upper bounds of buckets that double.</p>
          <Charts data={data} />
        </>
      )}
    </Page>
  );
}
