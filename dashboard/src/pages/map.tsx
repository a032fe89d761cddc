// Who talks to whom: who may, who does, who was refused.

import { useEffect, useMemo, useState } from "preact/hooks";
import type { MapAnswer } from "../api";
import { decisionsText, type Pair, pairsOf, pairState } from "../pairs";
import { AgentLink, Tag, Time, Waiting } from "../parts/bits";
import { type Cell, Legend, Matrix } from "../parts/matrix";
import { Octopus } from "../parts/octopus";
import { Page } from "../parts/page";
import { asExport, type Column, Table } from "../parts/table";
import { href, param, place, setParams, useAsked } from "../state";
import { count, flags, many } from "../text";

const AGAIN_MS = 5_000;
/** Pairs in the table below the matrix before somebody asks for more. */
const FIRST_PAIRS = 25;
/** The cell that is meant goes into the address after so long: browsers take only so many changes of it. */
const SETTLE_MS = 400;

const COLUMNS: Column<Pair>[] = [
  { name: "from", head: "Sender", value: (row) => row.from, cell: (row) => <AgentLink name={row.from} /> },
  { name: "to", head: "Receiver", value: (row) => row.to, cell: (row) => <AgentLink name={row.to} /> },
  {
    name: "state", head: "State", value: pairState,
    cell: (row) => <Tag kind={row.refused ? "bad" : row.passed ? row.may ? "good" : "warn" : "none"}>{pairState(row)}</Tag>,
  },
  { name: "passed", head: "Let through", value: (row) => row.passed, num: true },
  { name: "refused", head: "Refused", value: (row) => row.refused, num: true },
  {
    name: "decisions", head: "Decisions", value: (row) => decisionsText(row.decisions),
    cell: (row) => decisionsText(row.decisions)
      ? <a href={href("messages", "", { mode: "search", from: row.from, to: row.to })}>{decisionsText(row.decisions)}</a> : <span class="quiet">none</span>,
  },
];

const SHOWN: Record<string, (pair: Pair) => boolean> = {
  all: () => true,
  refused: (pair) => pair.refused > 0,
  used: (pair) => pair.passed > 0,
  unused: (pair) => pair.may && !pair.passed && !pair.refused,
};

export function MapPage() {
  const { data, error, at } = useAsked<MapAnswer>("/api/v1/map", AGAIN_MS);
  const pairs = useMemo(() => pairsOf(data), [data]);
  const focus = param("focus");
  const names = param("names").toLowerCase();
  const show = param("show", "all");
  const order = useMemo(() => {
    const wanted = SHOWN[show] ?? SHOWN["all"];
    const taking = new Set(wanted && show !== "all" ? pairs.all.filter(wanted).flatMap((pair) => [pair.from, pair.to]) : pairs.names);
    return pairs.names.flatMap((name, index) => name.toLowerCase().includes(names) && taking.has(name) ? [index] : []);
  }, [pairs, names, show]);
  const place_of = (name: string) => pairs.names.indexOf(name);
  const [cell, setCell] = useState<Cell | null>(null);
  const [from, to] = [param("from"), param("to")];
  const chosen = cell ?? (from && to && place_of(from) >= 0 && place_of(to) >= 0 ? { from: place_of(from), to: place_of(to) } : null);
  useEffect(() => {
    if (!cell) return;
    const timer = setTimeout(() => {
      if (place.value.page === "map") setParams({ from: pairs.names[cell.from] ?? "", to: pairs.names[cell.to] ?? "" });
    }, SETTLE_MS);
    return () => clearTimeout(timer);
  }, [cell?.from, cell?.to]);
  const open = ({ from: a, to: b }: Cell) => {
    location.hash = href("messages", "", { mode: "search", from: pairs.names[a] ?? "", to: pairs.names[b] ?? "" });
  };
  const rows = useMemo(() => {
    const wanted = SHOWN[show] ?? (() => true);
    return pairs.all.filter((pair) => wanted(pair)
      && (!names || pair.from.toLowerCase().includes(names) || pair.to.toLowerCase().includes(names))
      && (!focus || pair.from === focus || pair.to === focus))
      .sort((a, b) => b.refused - a.refused || b.passed - a.passed || a.from.localeCompare(b.from) || a.to.localeCompare(b.to));
  }, [pairs, names, show, focus]);
  const number = (kind: string) => pairs.all.filter(SHOWN[kind] ?? (() => false)).length;
  const meant = chosen && { from: pairs.names[chosen.from] ?? "", to: pairs.names[chosen.to] ?? "" };
  const command = focus ? `mas audit query${flags({ sender: focus })} --from 1h` : meant ? `mas audit query${flags({ sender: meant.from, target: meant.to })} --from 1h`
    : "mas audit report --from 1h";

  return (
    <Page title="Map" question="Who may, who does, who was refused?" command={command} error={error} at={at}
      exported={data && { ...asExport("map", COLUMNS, rows), json: data }}>
      <div class="filters">
        <label>Names with <input type="search" value={param("names")} onInput={(event) => setParams({ names: event.currentTarget.value })} /></label>
        <label>Show
          <select value={show} onChange={(event) => setParams({ show: event.currentTarget.value === "all" ? "" : event.currentTarget.value })}>
            <option value="all">all pairs</option>
            <option value="refused">refused</option>
            <option value="used">used</option>
            <option value="unused">allowed, never used</option>
          </select>
        </label>
        <label>One agent
          <select value={focus} onChange={(event) => setParams({ focus: event.currentTarget.value })}>
            <option value="">none: the matrix</option>
            {pairs.names.map((name) => <option key={name} value={name}>{name}</option>)}
          </select>
        </label>
        {!focus && (
          <label>Cells
            <select value={param("cells", "fit")} onChange={(event) => setParams({ cells: event.currentTarget.value === "fit" ? "" : event.currentTarget.value })}>
              <option value="fit">as there is room</option>
              <option value="large">large, with names</option>
            </select>
          </label>
        )}
      </div>
      {!data ? !error && <Waiting what="the map" /> : (
        <>
          <p>
            {many(pairs.names.length, "agent")}: {many(number("used"), "pair")} used, <strong>{many(number("refused"), "pair")} refused</strong>,{" "}
            {many(number("unused"), "pair")} allowed and never used. Counted since <Time ms={data.since_unix_ms} />.
            {data.cut && " There are more agents than are shown."}
          </p>
          {focus ? (
            <Octopus key={focus} pairs={pairs} agent={focus} />
          ) : order.length === 0 ? <p class="empty">No agent fits.</p> : (
            <>
              <Legend />
              <Matrix pairs={pairs} order={order} fit={param("cells", "fit") === "fit"} chosen={chosen} onChoose={setCell} onOpen={open} />
              {meant && (
                <p class="meant-pair">
                  <AgentLink name={meant.from} /> to <AgentLink name={meant.to} />:{" "}
                  <a href={href("messages", "", { mode: "search", ...meant })}>messages</a>,{" "}
                  <a href={href("policy", "", meant)}>explain the rule</a>,{" "}
                  <a href={href("map", "", { focus: meant.from })}>{meant.from} in the middle</a>
                </p>
              )}
            </>
          )}
          <Table caption={`Pairs (${count(rows.length)})`} columns={COLUMNS} rows={rows} sort="sort" first={FIRST_PAIRS} rowKey={(row) => `${row.from} ${row.to}`} empty="No pair fits." />
        </>
      )}
    </Page>
  );
}
