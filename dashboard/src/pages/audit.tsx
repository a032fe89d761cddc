// The trail: is it sealed, is it intact, until where, and with which key.

import { useEffect, useState } from "preact/hooks";
import type { Audit, CheckpointRow, LaneRow } from "../api";
import { Facts, Tag, Time, Waiting } from "../parts/bits";
import { Command, Page, save } from "../parts/page";
import { asExport, type Column, Table } from "../parts/table";
import { useAsked } from "../state";
import { bytes, count, duration, many, shortServer } from "../text";
import { checkCheckpoint } from "../verify";

const AGAIN_MS = 2_000;
/** A verification that is older is worth another one. */
const OLD_VERIFICATION_MS = 7 * 86_400_000;

const LANES: Column<LaneRow>[] = [
  { name: "lane", head: "Lane", value: (row) => row.lane, cell: (row) => <code title={row.lane}>…{row.lane.slice(-18)}</code> },
  { name: "server", head: "Written by", value: (row) => row.server ?? row.operator, cell: (row) => row.server ? <code title={row.server}>{shortServer(row.server)}</code> : row.operator ?? <span class="quiet">–</span> },
  { name: "alive", head: "State", value: (row) => row.alive, cell: (row) => <Tag kind={row.alive ? "good" : "none"}>{row.alive ? "open" : "closed"}</Tag> },
  { name: "opened", head: "Opened", value: (row) => row.opened_unix_ms, cell: (row) => <Time ms={row.opened_unix_ms} /> },
  { name: "head", head: "Records", value: (row) => row.head, num: true },
  { name: "sealed", head: "Sealed", value: (row) => row.sealed, num: true },
  { name: "unsealed", head: "Not sealed", value: (row) => Math.max(0, row.head - (row.sealed ?? 0)), num: true },
  { name: "archived", head: "In files", value: (row) => row.archived, num: true },
];

const RESULTS: Record<string, ["good" | "warn" | "bad", string]> = {
  verified: ["good", "verified"], verified_in_part: ["warn", "verified in part"], damaged: ["bad", "DAMAGED"],
};

/** What this browser has found of a checkpoint. */
type Found = ["good" | "warn" | "bad", string];

async function check(checkpoints: CheckpointRow[], key: string): Promise<Map<string, Found>> {
  const found = new Map<string, Found>();
  const hashes = new Map<string, string>();
  // From the oldest on: each names the hash of the one before it.
  for (const { note, boot, counter } of checkpoints.slice().reverse()) {
    try {
      const { signed, hash, previous } = await checkCheckpoint(note, key);
      const before = hashes.get(`${boot} ${counter - 1}`);
      hashes.set(`${boot} ${counter}`, hash);
      found.set(note, !signed ? ["bad", "does not fit"] : before === undefined ? ["good", "good"]
        : before === previous ? ["good", "good, follows the one before"] : ["bad", "does not follow the one before"]);
    } catch {
      found.set(note, ["warn", "not by this browser"]);
    }
  }
  return found;
}

function Checkpoints({ audit }: { audit: Audit }) {
  const [found, setFound] = useState<Map<string, Found>>(new Map());
  const key = audit.log?.public_key_file ?? "";
  const newest = audit.checkpoints[0]?.note;
  useEffect(() => {
    let over = false;
    void check(audit.checkpoints, key).then((all) => {
      if (!over) setFound(all);
    });
    return () => {
      over = true;
    };
  }, [newest, key]);
  const columns: Column<CheckpointRow>[] = [
    { name: "time", head: "Signed", value: (row) => row.time_unix_ms, cell: (row) => <Time ms={row.time_unix_ms} fine /> },
    { name: "boot", head: "Server run", value: (row) => row.boot, cell: (row) => <code title={row.boot}>{shortServer(row.boot)}</code> },
    { name: "counter", head: "Number", value: (row) => row.counter, num: true },
    { name: "lanes", head: "Lanes", value: (row) => row.lanes, num: true },
    { name: "records", head: "Records", value: (row) => row.records, num: true },
    {
      name: "signature", head: "Signature, checked here", value: (row) => found.get(row.note)?.[1] ?? null,
      cell: (row) => {
        const [kind, text] = found.get(row.note) ?? [];
        return kind ? <Tag kind={kind}>{text}</Tag> : <span class="quiet">checking</span>;
      },
    },
    { name: "note", head: "Text", value: (row) => row.note, cell: (row) => <details><summary>show</summary><pre tabIndex={0}>{row.note}</pre></details> },
  ];
  return <Table caption="Newest checkpoints" columns={columns} rows={audit.checkpoints} rowKey={(row) => `${row.boot} ${row.counter}`} empty="No checkpoint was made yet." />;
}

export function AuditPage() {
  const { data, error, at } = useAsked<Audit>("/api/v1/audit", AGAIN_MS);
  const verified = data?.verified?.trusted ? data.verified : null;
  const forged = data?.verified?.trusted === false;
  const [kind, text] = forged ? ["bad", "a note of it that no server vouches for"] as const : verified ? RESULTS[verified.result] ?? ["warn", verified.result] as const : ["warn", "never verified"] as const;
  const old = verified && data ? data.time_unix_ms - verified.time_unix_ms > OLD_VERIFICATION_MS : false;
  const bad = !!data?.refusing || kind === "bad" || data?.anchor?.state === "broken";
  return (
    <Page title="Audit" question="Is the trail sealed and intact?" command="mas audit verify" error={error} at={at}
      exported={data && { ...asExport("lanes", LANES, data.lanes), json: data }}>
      {!data ? !error && <Waiting what="the trail" /> : (
        <>
          <div class={`verdict ${bad ? "bad" : kind === "good" && !old && data.anchor ? "good" : "warn"}`}>
            <strong role="status">{data.refusing ? "Nothing is admitted" : bad ? "The trail is to be looked at" : "Sealed"}</strong>
            <span>{many(data.unsealed, "record")} not sealed yet</span>
            <span>{verified ? <>last verification: {text}, <Time ms={verified.time_unix_ms} /></> : "no verification is known"}</span>
            <span>{data.anchor ? `anchor ${data.anchor.state}` : "no anchor"}</span>
          </div>
          {data.refusing && <div class="notice bad"><p><strong>{data.refusing}</strong></p><p>Look at the disk of the anchor and at Redis; what is refused meanwhile is told to its senders.</p></div>}
          <div class="cards">
            <section class="card" aria-label="Last verification"><h3>Last verification</h3>
              <p><Tag kind={old ? "warn" : kind}>{text}{old ? ", long ago" : ""}</Tag></p>
              {verified ? <Facts rows={[
                ["when", <Time ms={verified.time_unix_ms} />], ["by", verified.by], ["records", count(verified.records)],
                ["problems", count(verified.problems)], ["version", verified.version],
                ["up to the checkpoint of", <Time ms={verified.newest_checkpoint_unix_ms} />],
              ]} /> : <p>Run <code>mas audit verify</code> on a machine that you trust.</p>}
            </section>
            <section class="card" aria-label="Key"><h3>Log and key</h3><Facts rows={[
              ["log", <code>{data.log?.id ?? "none yet"}</code>],
              ["key in force", <code>{data.log?.key_hash ?? "none"}</code>],
              ["keys so far", count(data.log?.keys.length ?? 0)],
              ["store key", <code>{data.log?.store_key ?? "none"}</code>],
            ]} />
              {data.log && <p><button type="button" onClick={() => save("audit.pub", "text/plain", data.log?.public_key_file ?? "")}>Save the public key</button></p>}
            </section>
            <section class="card" aria-label="Anchor"><h3>Anchor</h3>
              {data.anchor ? (
                <>
                  <p><Tag kind={data.anchor.state === "good" ? "good" : data.anchor.state === "behind" ? "warn" : "bad"}>{data.anchor.state}</Tag> {data.anchor.why}</p>
                  <Facts rows={[["file", <code>{data.anchor.path}</code>], ["newest number", count(data.anchor.counter)],
                    ["newest", data.anchor.newest_unix_ms === null ? "none" : <Time ms={data.anchor.newest_unix_ms} />]]} />
                </>
              ) : <p><Tag kind="warn">none</Tag> Whoever can write Redis could take the end of the trail off unseen: set <code>gateway.audit.anchor_path</code>.</p>}
            </section>
            <section class="card" aria-label="Archive"><h3>Archive</h3>
              {data.archive ? (
                <>
                  <p><Tag kind={data.archive.why ? "bad" : "good"}>{data.archive.why ? "fails" : "works"}</Tag> {data.archive.why}</p>
                  <Facts rows={[["folder", <code>{data.archive.dir}</code>], ["segments", count(data.archive.segments)], ["size", bytes(data.archive.bytes)],
                    ["records not in files", `${count(data.archive.lag)}, moved from ${count(data.archive.max_records)} on`], ["written by", data.archive.archiver ?? "nobody"]]} />
                </>
              ) : <p class="quiet">Nothing is archived: the trail grows in Redis.</p>}
            </section>
          </div>
          <Checkpoints audit={data} />
          <Table caption={`Lanes (${count(data.lanes.length)})`} columns={LANES} rows={data.lanes} sort="sort" rowKey={(row) => row.lane} empty="No lane yet." />
          {data.lanes_cut && <p>There are more lanes than are shown.</p>}
          <Command label="The trail in a file, to be verified elsewhere" text="mas audit export trail.mas --from 24h" />
          <p class="quiet">Newest checkpoint {data.checkpoints[0] ? `${duration(data.time_unix_ms - data.checkpoints[0].time_unix_ms)} old` : "not there"}.</p>
        </>
      )}
    </Page>
  );
}
