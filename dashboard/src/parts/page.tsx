// The frame of a page: its question, what can be done with it, the command that gives the same.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { ApiError } from "../api";
import { paused, setPaused } from "../state";
import { Age, Problem } from "./bits";
import type { Export } from "./table";

/** A cell of comma-separated values: quoted where it must be, and never a formula to a spreadsheet. */
function csvCell(value: string | number | boolean | null): string {
  if (value === null) return "";
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function toCsv({ columns, rows }: Export): string {
  return [columns, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

export function save(name: string, type: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // After the click has been taken up.
  setTimeout(() => URL.revokeObjectURL(url), 1_000);
}

/** A command, and a button that copies it. */
export function Command({ text, label = "In the terminal" }: { text: string; label?: string }) {
  const [copied, setCopied] = useState(false);
  const copy = () => {
    void navigator.clipboard.writeText(text).then(() => {
      setCopied(true);
      setTimeout(() => setCopied(false), 2_000);
    });
  };
  return (
    <div class="command">
      <span class="quiet">{label}</span> <code>{text}</code>{" "}
      <button type="button" onClick={copy} aria-label={`Copy: ${text}`}>{copied ? "copied" : "copy"}</button>
      <span class="hidden" role="status">{copied ? "copied" : ""}</span>
    </div>
  );
}

interface Props {
  title: string; question: string; command: string; error?: ApiError | null; at?: number; exported?: Export | null;
  /** Whether the page goes on by itself, so that it can be paused. */
  live?: boolean; tools?: ComponentChildren; children: ComponentChildren;
}

export function Page({ title, question, command, error = null, at = 0, exported = null, live = true, tools, children }: Props) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · MAS server`;
  }, [title]);
  return (
    <>
      <div class="page-head">
        <div>
          <h1 ref={heading} tabIndex={-1}>{title}</h1>
          <p class="question">{question} {!paused.value && <Age at={at} />}{paused.value && <strong>Paused.</strong>}</p>
        </div>
        <div class="tools">
          {tools}
          {live && (
            <button type="button" aria-pressed={paused.value} onClick={() => setPaused(!paused.value)}>
              <span aria-hidden="true">{paused.value ? "▶" : "❚❚"}</span> {paused.value ? "Go on" : "Pause"}
            </button>
          )}
          {exported && (
            <>
              <button type="button" onClick={() => save(`${exported.name}.json`, "application/json", `${JSON.stringify(exported.json, null, 2)}\n`)}>JSON</button>
              <button type="button" onClick={() => save(`${exported.name}.csv`, "text/csv", toCsv(exported))}>CSV</button>
            </>
          )}
        </div>
      </div>
      <Problem error={error} />
      {children}
      <Command text={command} />
    </>
  );
}
