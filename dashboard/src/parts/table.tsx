// A table: sorted by its heads, bounded, read as cards on a phone; its rows are what is exported.

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { param, setParams } from "../state";
import { count } from "../text";

export interface Column<Row> {
  name: string;
  head: string;
  /** What is sorted by and exported. */
  value: (row: Row) => string | number | boolean | null;
  cell?: (row: Row) => ComponentChildren;
  num?: boolean;
}

export interface Export { name: string; columns: string[]; rows: (string | number | boolean | null)[][]; json: unknown }

/** Rows that are shown before somebody asks for more; on a phone, where each is a card, at most FIRST_CARDS. */
const FIRST_ROWS = 100;
const FIRST_CARDS = 25;
const PHONE = matchMedia("(max-width: 640px)");

export function asExport<Row>(name: string, columns: Column<Row>[], rows: Row[]): Export {
  return { name, columns: columns.map((column) => column.name), rows: rows.map((row) => columns.map((column) => column.value(row))), json: rows };
}

function compare(a: string | number | boolean | null, b: string | number | boolean | null): number {
  if (a === b) return 0;
  if (a === null) return 1;
  if (b === null) return -1;
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

interface Props<Row> {
  caption: string; columns: Column<Row>[]; rows: Row[]; rowKey: (row: Row) => string; empty: ComponentChildren;
  /** The name of its order in the address; without one it is not sorted. */
  sort?: string; showCaption?: boolean; rowClass?: (row: Row) => string;
  /** Rows that are shown before somebody asks for more. */
  first?: number;
}

export function Table<Row>({ caption, columns, rows, rowKey, empty, sort, showCaption = true, rowClass, first = FIRST_ROWS }: Props<Row>) {
  const [shown, setShown] = useState(PHONE.matches ? Math.min(FIRST_CARDS, first) : first);
  const order = sort ? param(sort) : "";
  const down = order.startsWith("-");
  const by = columns.find((column) => column.name === order.replace("-", ""));
  const sorted = by ? rows.slice().sort((a, b) => compare(by.value(a), by.value(b)) * (down ? -1 : 1)) : rows;
  const turn = (column: Column<Row>) => {
    if (!sort) return;
    // Numbers are of interest from the largest on.
    const first = column.num ? `-${column.name}` : column.name;
    const second = column.num ? column.name : `-${column.name}`;
    setParams({ [sort]: order === first ? second : order === second ? "" : first });
  };
  if (rows.length === 0) return <div class="empty"><h3>{caption}</h3><p>{empty}</p></div>;
  return (
    <div class="table" role="region" aria-label={caption} tabIndex={0}>
      <table role="table">
        <caption class={showCaption ? "" : "hidden"}>{caption}</caption>
        <thead role="rowgroup">
          <tr role="row">
            {columns.map((column) => (
              <th key={column.name} scope="col" role="columnheader" class={column.num ? "num" : ""}
                aria-sort={by === column ? down ? "descending" : "ascending" : undefined}>
                {sort
                  ? <button type="button" onClick={() => turn(column)}>{column.head}<span aria-hidden="true">{by === column ? down ? " ↓" : " ↑" : ""}</span></button>
                  : column.head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody role="rowgroup">
          {sorted.slice(0, shown).map((row) => (
            <tr key={rowKey(row)} role="row" class={rowClass?.(row) ?? ""}>
              {columns.map((column) => {
                const value = column.cell ? column.cell(row) : column.num ? count(column.value(row) as number | null) : column.value(row);
                return <td key={column.name} role="cell" data-head={column.head} class={column.num ? "num" : ""}>{value}</td>;
              })}
            </tr>
          ))}
        </tbody>
      </table>
      {sorted.length > shown && (
        <p class="more">
          {count(shown)} of {count(sorted.length)} rows. <button type="button" onClick={() => setShown(shown * 2)}>Show more</button>
        </p>
      )}
    </div>
  );
}
