// Checks an inclusion proof with the browser's own cryptography, without asking the server anything: RFC 6962 hashes, the
// checkpoint's text, its signature, and the history of the key. The same steps as src/audit/proof.rs.

import type { AuditRecord, Proof } from "./api";
import { fromBase64, hex, leafHash, nodeHash, rootOf, sha256, sides, toBase64, utf8 } from "./hashes";
import { isSigned, ORIGIN_PREFIX, parseCheckpoint, parseHistory, parseNote } from "./notes";
import { type DecodedRecord, decodeRecord } from "./record";

/** Longest path: a lane has fewer than 2^64 records. */
const MAX_PATH = 64;

/** One thing that was checked, with the values that were computed. */
export interface Step { name: string; ok: boolean; text: string; values: [string, string][] }

/** What all steps came to. */
export interface Verdict { proven: boolean; steps: Step[]; logId: string; record: DecodedRecord | null; checkpointMs: number | null }

/** JSON with the fields of objects in one order. */
function ordered(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    part !== null && typeof part === "object" && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => a < b ? -1 : 1))
      : part);
}

/**
 * Checks a proof against a key history. `shown` is the record as the server showed it; it must say what the bytes say.
 * `ownLogId` is the log that the reader expects, where it knows one.
 */
export async function verify(
  proof: Proof, publicKeyFile: string, shown: AuditRecord | null, ownLogId = "",
): Promise<Verdict> {
  const steps: Step[] = [];
  const step = (name: string, ok: boolean, text: string, values: [string, string][] = []) => {
    steps.push({ name, ok, text, values });
    return ok;
  };

  // 1. The record, and its leaf.
  const bytes = fromBase64(proof.record);
  const record = bytes && decodeRecord(bytes);
  const leaf = bytes && await leafHash(bytes);
  const differs = record && shown ? (Object.keys(record) as (keyof DecodedRecord)[])
    .filter((name) => ordered(shown[name]) !== ordered(record[name])) : [];
  const inPlace = record?.seq === proof.sequence;
  step("Record", proof.mas_audit_proof === 1 && !!record && inPlace && differs.length === 0,
    !record ? "These bytes are no audit record."
      : !inPlace ? `The record says that it is number ${record.seq}, and the proof says ${proof.sequence}.`
        : differs.length ? `The bytes say something else than the page shows: ${differs.join(", ")}.`
          : `${bytes.length} bytes that are exactly one record, number ${record.seq}, and say what this page shows.`,
    leaf ? [["leaf = SHA-256(00 ‖ record)", hex(leaf)]] : []);

  // 2. From the leaf to the root of its lane.
  const path = proof.path.map(fromBase64);
  const index = proof.sequence - 1;
  const possible = Number.isSafeInteger(proof.lane_size) && index >= 0 && index < proof.lane_size && path.length <= MAX_PATH;
  const turns = possible ? sides(index, proof.lane_size) : [];
  let root = leaf;
  const climbed: [string, string][] = [];
  const wellFormed = possible && turns.length === path.length && path.every((hash) => hash?.length === 32);
  if (wellFormed) {
    for (const [level, isRight] of turns.entries()) {
      const other = path[level];
      if (!root || !other) break;
      root = isRight ? await nodeHash(other, root) : await nodeHash(root, other);
      climbed.push([`level ${level + 1}, with the hash on its ${isRight ? "left" : "right"}`, hex(root)]);
    }
  }
  step("Path", wellFormed && !!root,
    wellFormed
      ? `${path.length} hashes lead from record ${proof.sequence} of ${proof.lane_size} to the root of its lane (RFC 6962).`
      : `The path has ${path.length} hashes; record ${proof.sequence} of ${proof.lane_size} needs ${turns.length}.`,
    climbed);

  // 3. What the checkpoint says of the lane.
  const note = parseNote(proof.checkpoint);
  const checkpoint = note && parseCheckpoint(note.text);
  const listed = checkpoint?.lanes.find((lane) => lane.lane === proof.lane);
  const sameRoot = !!listed && !!root && listed.size === proof.lane_size && listed.root === toBase64(root);
  step("Lane in the checkpoint", wellFormed && sameRoot,
    !checkpoint ? "This is no checkpoint."
      : !listed ? `Checkpoint ${checkpoint.counter} does not list lane ${proof.lane}.`
        : sameRoot ? `Checkpoint ${checkpoint.counter} says that lane ${proof.lane} holds ${listed.size} records with this very root.`
          : "The checkpoint says another size or root of this lane: this record is not what was signed.",
    listed ? [["root in the checkpoint", hex(fromBase64(listed.root) ?? new Uint8Array())]] : []);

  // 4. The checkpoint's own root, over all its lanes.
  let ownRoot = "";
  if (checkpoint) {
    const leaves = await Promise.all(checkpoint.lanes.map((lane) =>
      leafHash(utf8.encode(`${lane.lane}\n${lane.size}\n${lane.root}`))));
    ownRoot = toBase64(await rootOf(leaves));
  }
  step("Checkpoint", !!checkpoint && ownRoot === checkpoint.root,
    checkpoint && ownRoot === checkpoint.root
      ? `Its root is the one over the ${checkpoint.lanes.length} lane(s) that it lists; it stands for ${checkpoint.size} records.`
      : "Its root is not the one over the lanes that it lists.",
    checkpoint ? [["root", hex(fromBase64(ownRoot) ?? new Uint8Array())]] : []);

  // 5. Whose key it must be.
  const history = await parseHistory(publicKeyFile);
  const known = typeof history !== "string";
  const logId = known ? history.origin.slice(ORIGIN_PREFIX.length) : "";
  const sameLog = known && !!checkpoint && checkpoint.origin === history.origin;
  const expected = ownLogId === "" || ownLogId === logId;
  const inForce = known && checkpoint ? history.keys.filter((one) => one.fromMs <= checkpoint.timeMs).pop()?.key : undefined;
  step("Key", sameLog && expected && !!inForce,
    !known ? `The public key: ${history}.`
      : !sameLog ? `The checkpoint is of another log than this key: ${checkpoint?.origin ?? "none"}.`
        : !expected ? `The log is ${logId}, and not ${ownLogId} as you expected.`
          : `The log's id is made from its first key; ${history.keys.length - 1} rotation(s), each signed by the key before. `
            + `Key ${inForce?.hash ?? "none"} was in force when the checkpoint was made.`,
    known ? [["log", history.origin]] : []);

  // 6. The signature.
  let signed = false;
  let cannot = "";
  try {
    signed = !!note && !!inForce && await isSigned(note, inForce);
  } catch {
    cannot = "This browser cannot check Ed25519 signatures. Use a newer one, or the command below.";
  }
  step("Signature", signed,
    cannot ? cannot : signed ? "The Ed25519 signature fits the checkpoint's text and this key."
      : "The signature does not fit the checkpoint's text and the key that was in force.",
    note ? [["signature", hex(note.signature)]] : []);

  return {
    proven: steps.every((one) => one.ok), steps, logId, record: record ?? null, checkpointMs: checkpoint?.timeMs ?? null,
  };
}

/** What a checkpoint's note comes to: whether the key in force at its time signed it, its hash, and which one it follows. */
export async function checkCheckpoint(note: string, publicKeyFile: string): Promise<{ signed: boolean; hash: string; previous: string }> {
  const parsed = parseNote(note);
  const checkpoint = parsed && parseCheckpoint(parsed.text);
  const history = await parseHistory(publicKeyFile);
  if (!parsed || !checkpoint) return { signed: false, hash: "", previous: "" };
  const ofThisLog = typeof history !== "string" && checkpoint.origin === history.origin ? history : null;
  const key = ofThisLog?.keys.filter((one) => one.fromMs <= checkpoint.timeMs).pop()?.key;
  const hash = toBase64(await sha256(utf8.encode(parsed.text)));
  return { signed: !!key && await isSigned(parsed, key), hash, previous: checkpoint.previous };
}

/** Which part of a proof `withOneByteChanged` changes. */
export type Part = "record" | "path" | "checkpoint" | "signature";

/** The proof with one bit of one byte changed, for whoever wants to see that the check notices. */
export function withOneByteChanged(proof: Proof, part: Part): Proof {
  const flip = (text: string, at: number) => {
    const bytes = fromBase64(text) ?? new Uint8Array();
    const place = Math.min(at, bytes.length - 1);
    bytes[place] = (bytes[place] ?? 0) ^ 1;
    return toBase64(bytes);
  };
  switch (part) {
    case "record": return { ...proof, record: flip(proof.record, 40) };
    case "path":
      return { ...proof, path: proof.path.length ? proof.path.map((hash, at) => at === 0 ? flip(hash, 7) : hash) : [toBase64(new Uint8Array(32))] };
    case "checkpoint": {
      const changed = proof.checkpoint.replace(/\ntime (\d+)(\d)\n/, (_, most: string, last: string) => `\ntime ${most}${last === "0" ? "1" : "0"}\n`);
      return { ...proof, checkpoint: changed };
    }
    case "signature": {
      const end = proof.checkpoint.lastIndexOf(" ") + 1;
      const line = proof.checkpoint.slice(end, -1);
      return { ...proof, checkpoint: `${proof.checkpoint.slice(0, end)}${flip(line, 30)}\n` };
    }
  }
}
