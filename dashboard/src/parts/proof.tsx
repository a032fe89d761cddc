// An inclusion proof, checked here, with every step shown, and with what it does not show.

import { useEffect, useState } from "preact/hooks";
import type { ProofAnswer } from "../api";
import { Problem, Tag, Time, Waiting } from "./bits";
import { Command, save } from "./page";
import { RECORD_COLUMNS } from "./records";
import { Table } from "./table";
import { param, setParams, useAsked } from "../state";
import { type Part, type Verdict, verify, withOneByteChanged } from "../verify";
import { word } from "../text";

/** A record without a checkpoint over it has one soon: it is asked again. */
const AGAIN_MS = 3_000;
const PARTS: Part[] = ["record", "path", "checkpoint", "signature"];

function expectedLog(): string {
  try {
    return localStorage.getItem("mas.log") ?? "";
  } catch {
    return "";
  }
}

export function ProofView({ lane, seq }: { lane: string; seq: string }) {
  const { data, error } = useAsked<ProofAnswer>(`/api/v1/proofs/${encodeURIComponent(lane)}/${encodeURIComponent(seq)}`, 0, AGAIN_MS);
  const [verdict, setVerdict] = useState<Verdict | null>(null);
  const [log, setLog] = useState(expectedLog());
  const [ownKey, setOwnKey] = useState<{ name: string; text: string } | null>(null);
  const changed = PARTS.find((part) => part === param("changed")) ?? null;
  useEffect(() => {
    if (!data) return;
    let over = false;
    const proof = changed ? withOneByteChanged(data.proof, changed) : data.proof;
    const failed = (why: unknown): Verdict => ({
      proven: false, logId: "", record: null, checkpointMs: null,
      steps: [{ name: "Check", ok: false, text: `This browser cannot check it (${String(why)}). Use a newer one, over https or on the server's own host, or the command below.`, values: [] }],
    });
    void verify(proof, ownKey?.text ?? data.public_key_file, data.record, log).catch(failed).then((found) => {
      if (!over) setVerdict(found);
    });
    return () => {
      over = true;
    };
  }, [data, changed, ownKey, log]);
  const remember = (id: string) => {
    setLog(id);
    try {
      localStorage.setItem("mas.log", id);
    } catch { /* Then it holds for this visit. */ }
  };
  return (
    <section aria-label="Proof" class="proof">
      <h2>Proof of record {seq} of lane <code>{lane}</code></h2>
      <Problem error={error} />
      {!data && !error && <Waiting what="the proof" />}
      {data && !verdict && <Waiting what="this browser's own check" />}
      {data && verdict && (
        <>
          <div class={`notice ${verdict.proven ? "good" : "bad"}`} role="status" data-proven={String(verdict.proven)}>
            <p><Tag kind={verdict.proven ? "good" : "bad"}>{verdict.proven ? "Proven" : "NOT proven"}</Tag>{" "}
              {verdict.proven ? "Checked in this browser: this record is under a signed checkpoint, unchanged." : changed ? `One bit of the ${changed} was changed for this check, and it is noticed.` : "The first step that fails says why."}
              {verdict.proven && verdict.checkpointMs !== null && <> Signed at <Time ms={verdict.checkpointMs} />.</>}
            </p>
          </div>
          <Table caption="The record" columns={RECORD_COLUMNS.filter((column) => column.name !== "record")} rows={[data.record]} rowKey={(row) => `${row.lane}:${row.seq}`} empty="" />
          <ol class="steps">
            {verdict.steps.map((step, at) => (
              <li key={step.name} class={step.ok ? "good" : "bad"} data-step={step.name} data-ok={String(step.ok)}>
                <p><Tag kind={step.ok ? "good" : "bad"}>{at + 1}. {step.name}</Tag> {step.text}</p>
                {step.values.length > 0 && (
                  <details><summary>Values</summary>
                    <dl class="values">{step.values.map(([name, value]) => <div key={name}><dt class="quiet">{name}</dt><dd><code>{value}</code></dd></div>)}</dl>
                  </details>
                )}
              </li>
            ))}
          </ol>
          <div class="split">
            <div class="card">
              <h3>See that it is checked</h3>
              <p>Change one bit, and the check must fail:</p>
              <div class="tools">
                {PARTS.map((part) => (
                  <button key={part} type="button" aria-pressed={changed === part} onClick={() => setParams({ changed: changed === part ? "" : part })}>{part}</button>
                ))}
              </div>
              <p>Say which log you expect, or give the public key that you keep yourself:</p>
              <div class="filters">
                <label>Log id <input value={log} placeholder={verdict.logId} spellcheck={false} onChange={(event) => remember(event.currentTarget.value.trim().replace("mas.audit/", ""))} /></label>
                <label>Public key file <input type="file" onChange={(event) => {
                  const file = event.currentTarget.files?.[0];
                  if (file) void file.text().then((text) => setOwnKey({ name: file.name, text }));
                  else setOwnKey(null);
                }} /></label>
              </div>
              {ownKey && <p class="quiet">Checked with {ownKey.name}.</p>}
            </div>
            <div class="card">
              <h3>What this does not show</h3>
              <ul>
                <li>{ownKey || log ? "That key and log are yours: you gave them." : "That the key is your log's: it came from the same server. Compare the log id with the one that you keep, or give your key."}</li>
                <li>That this page is honest: the server sent it. <code>mas audit proof --check</code> on another machine depends on it in nothing.</li>
                <li>That nothing else was left out of the trail or taken off its end: <code>mas audit verify</code> with the anchor says that.</li>
                <li>That what the sender said is true: on record is who said it and what was decided.</li>
              </ul>
            </div>
          </div>
          <div class="tools">
            <button type="button" onClick={() => save(`proof-${seq}.json`, "application/json", `${JSON.stringify(data.proof)}\n`)}>Save the proof</button>
            <button type="button" onClick={() => save("audit.pub", "text/plain", data.public_key_file)}>Save the public key</button>
          </div>
        </>
      )}
      <Command label="Without this page" text={`mas audit proof --lane ${word(lane)} --sequence ${word(seq)} > proof.json; mas audit proof --check proof.json --public-key audit.pub`} />
    </section>
  );
}
