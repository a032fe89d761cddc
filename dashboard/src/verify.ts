// Checks an inclusion proof with the browser's own cryptography, without asking the server anything: RFC 6962 hashes, the
// checkpoint's text, its signature, and the history of the key. The same rules as src/audit/{proof,checkpoint,keys,note}.rs.

import type { AuditRecord, Proof } from "./api";
import { ACTIONS, DECISIONS } from "./codes";

const ED25519_TYPE = 1;
const ORIGIN_PREFIX = "mas.audit/";
const SIGNATURE_PREFIX = "— ";
const ROTATION = "mas.audit key rotation";
/** Lines of a rotation in the key history, the empty line before it included. */
const ROTATION_LINES = 6;
/** Longest path: a lane has fewer than 2^64 records. */
const MAX_PATH = 64;
const RECORD_VERSION = 2;
/** Bytes of one message in a custody record: its id and the number of the delivery. */
const MESSAGE_BYTES = 17;

/** One thing that was checked, with the values that were computed. */
export interface Step { name: string; ok: boolean; text: string; values: [string, string][] }

/** What all steps came to. */
export interface Verdict { proven: boolean; steps: Step[]; logId: string; record: DecodedRecord | null; checkpointMs: number | null }

/** What the record's bytes say. */
export interface DecodedRecord {
  action: string; decision: string; seq: number; time_us: number; sender_seq: number; attempt: number; payload_bytes: number;
  agent: string; instance: string; fingerprint: string; message_id: string | null; message_type: string; target: string;
  target_instance: string; correlation_id: string; payload_sha256: string; rule: string; reason: string; policy_version: string;
  findings: unknown; messages: { message_id: string; attempt: number }[];
}

type Bytes = Uint8Array<ArrayBuffer>;

const utf8 = new TextEncoder();

/** Bytes from base64 in its one spelling; null for anything else. */
export function fromBase64(text: string): Bytes | null {
  try {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return toBase64(bytes) === text ? bytes : null;
  } catch {
    return null;
  }
}

export function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function sha256(...parts: Uint8Array[]): Promise<Bytes> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", all));
}

const leafHash = (bytes: Uint8Array) => sha256(Uint8Array.of(0), bytes);
const nodeHash = (left: Uint8Array, right: Uint8Array) => sha256(Uint8Array.of(1), left, right);

/** The largest power of two below `size`, which is at least 2. Not by shifts: sizes may be beyond 2^31. */
function split(size: number): number {
  let power = 1;
  while (power * 2 < size) power *= 2;
  return power;
}

/** For each level from the leaf upwards: whether the leaf's side is the right one. */
function sides(index: number, size: number): boolean[] {
  const found: boolean[] = [];
  let start = 0;
  let end = size;
  while (end - start > 1) {
    const middle = start + split(end - start);
    if (index < middle) {
      found.push(false);
      end = middle;
    } else {
      found.push(true);
      start = middle;
    }
  }
  return found.reverse();
}

/** The root over some leaves' hashes. */
async function rootOf(leaves: Bytes[]): Promise<Bytes> {
  if (leaves.length === 0) return sha256();
  let nodes = leaves;
  // Pairs level by level, and whatever is left over goes up as it is: the same tree as RFC 6962's definition.
  while (nodes.length > 1) {
    const above: Bytes[] = [];
    for (let at = 0; at < nodes.length; at += 2) {
      const [left, right] = [nodes[at], nodes[at + 1]];
      if (left) above.push(right ? await nodeHash(left, right) : left);
    }
    nodes = above;
  }
  return nodes[0] ?? sha256();
}

interface Key { name: string; hash: string; raw: Bytes }

async function parseKey(text: string): Promise<Key | null> {
  const [name, hash, encoded, ...more] = splitKey(text);
  if (!name || !hash || !encoded || more.length > 0) return null;
  const bytes = fromBase64(encoded);
  if (!bytes || bytes.length !== 33 || bytes[0] !== ED25519_TYPE) return null;
  const raw = bytes.slice(1);
  const digest = await sha256(utf8.encode(`${name}\n`), bytes);
  const expected = hex(digest.slice(0, 4));
  return expected === hash ? { name, hash, raw } : null;
}

/** `{name}+{hash}+{base64}`: the base64 may hold `+` itself. */
function splitKey(text: string): string[] {
  const first = text.indexOf("+");
  const second = text.indexOf("+", first + 1);
  return first < 0 || second < 0 ? [] : [text.slice(0, first), text.slice(first + 1, second), text.slice(second + 1)];
}

interface Note { text: string; name: string; hash: string; signature: Bytes }

function parseNote(note: string): Note | null {
  const end = note.indexOf("\n\n");
  if (end <= 0 || !note.endsWith("\n")) return null;
  const text = note.slice(0, end + 1);
  // Control characters have no place in a note.
  if (/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/.test(text)) return null;
  const line = note.slice(end + 2, -1);
  if (!line.startsWith(SIGNATURE_PREFIX)) return null;
  const rest = line.slice(SIGNATURE_PREFIX.length);
  const space = rest.indexOf(" ");
  const bytes = space > 0 ? fromBase64(rest.slice(space + 1)) : null;
  if (!bytes || bytes.length !== 68) return null;
  return { text, name: rest.slice(0, space), hash: hex(bytes.slice(0, 4)), signature: bytes.slice(4) };
}

async function isSigned(note: Note, key: Key): Promise<boolean> {
  if (note.name !== key.name || note.hash !== key.hash) return false;
  const imported = await crypto.subtle.importKey("raw", key.raw, { name: "Ed25519" }, false, ["verify"]);
  return crypto.subtle.verify({ name: "Ed25519" }, imported, note.signature, utf8.encode(note.text));
}

interface History { origin: string; keys: { fromMs: number; key: Key }[] }

/** The log's keys, each signed by the one before; a text says what is wrong. */
async function parseHistory(text: string): Promise<History | string> {
  const lines = (text.endsWith("\n") ? text.slice(0, -1) : text).split("\n");
  const first = await parseKey(lines[0] ?? "");
  if (!first) return "line 1 is no key of an audit log";
  const id = hex(await sha256(first.raw)).slice(0, 16);
  if (first.name !== ORIGIN_PREFIX + id) return "the first key is not the one that the log is named after";
  const keys = [{ fromMs: 0, key: first }];
  for (let at = 1; at < lines.length; at += ROTATION_LINES) {
    const newest = keys[keys.length - 1];
    const [empty, ...rest] = lines.slice(at, at + ROTATION_LINES);
    const note = empty === "" ? parseNote(`${rest.join("\n")}\n`) : null;
    const match = note && /^mas\.audit key rotation\ntime (0|[1-9]\d*)\nkey (\S+)\n$/.exec(note.text);
    const next = match ? await parseKey(match[2] ?? "") : null;
    if (!newest || !note || !match || !next || next.name !== first.name || !note.text.startsWith(ROTATION)) {
      return `line ${at + 2}: no rotation of a key`;
    }
    const fromMs = Number(match[1]);
    if (!await isSigned(note, newest.key)) return `line ${at + 2}: the rotation is not signed by the key before it`;
    if (fromMs <= newest.fromMs) return `line ${at + 2}: the rotation is not after the one before it`;
    keys.push({ fromMs, key: next });
  }
  return { origin: first.name, keys };
}

interface Checkpoint {
  origin: string; size: number; root: string; boot: string; counter: number; previous: string; timeMs: number; policy: string;
  lanes: { lane: string; size: number; root: string }[];
}

const NUMBER = "(0|[1-9]\\d{0,19})";
const HASH = "([A-Za-z0-9+/]{43}=)";
const HEAD = new RegExp(`^(${ORIGIN_PREFIX}[0-9a-f]{16})\\n${NUMBER}\\n${HASH}\\nboot ([0-9a-f-]{36})\\ncounter ${NUMBER}\\n`
  + `previous ${HASH}\\ntime ${NUMBER}\\npolicy ([0-9a-f]{64})\\n`);
const LANE = new RegExp(`^lane (\\S{1,128}) ${NUMBER} ${HASH}$`);

/** Reads a checkpoint's text; only the one spelling that servers write is taken. */
export function parseCheckpoint(text: string): Checkpoint | null {
  const head = HEAD.exec(text);
  if (!head || !text.endsWith("\n")) return null;
  const [whole, origin, size, root, boot, counter, previous, time, policy] = head;
  const lanes: Checkpoint["lanes"] = [];
  const rest = text.slice(whole.length, -1);
  for (const line of rest === "" ? [] : rest.split("\n")) {
    const [, lane, laneSize, laneRoot] = LANE.exec(line) ?? [];
    const before = lanes[lanes.length - 1];
    if (!lane || !laneSize || !laneRoot || !fromBase64(laneRoot) || (before && before.lane >= lane)) return null;
    lanes.push({ lane, size: Number(laneSize), root: laneRoot });
  }
  if (!fromBase64(root ?? "") || lanes.reduce((sum, lane) => sum + lane.size, 0) > Number(size)) return null;
  return {
    origin: origin ?? "", size: Number(size), root: root ?? "", boot: boot ?? "", counter: Number(counter),
    previous: previous ?? "", timeMs: Number(time), policy: policy ?? "", lanes,
  };
}

class Reader {
  at = 0;
  bad = false;

  constructor(readonly bytes: Uint8Array) {}

  byte(): number {
    const byte = this.bytes[this.at];
    if (byte === undefined) this.bad = true;
    this.at += 1;
    return byte ?? 0;
  }

  /** LEB128 in its shortest form. */
  number(): number {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.byte();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) {
        if (byte === 0 && shift > 0n) this.bad = true;
        return Number(value);
      }
    }
    this.bad = true;
    return 0;
  }

  field(): Uint8Array {
    const length = this.number();
    if (this.bad || this.at + length > this.bytes.length) {
      this.bad = true;
      return new Uint8Array();
    }
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  text(): string {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.field());
    } catch {
      this.bad = true;
      return "";
    }
  }
}

function uuid(bytes: Uint8Array): string {
  return hex(bytes).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** Reads a record's bytes; null where they are not exactly one record. */
export function decodeRecord(bytes: Uint8Array): DecodedRecord | null {
  const from = new Reader(bytes);
  if (from.byte() !== RECORD_VERSION) return null;
  const [action, decision] = [ACTIONS[from.byte() - 1], DECISIONS[from.byte() - 1]];
  if (!action || !decision) return null;
  const [seq, time_us, sender_seq, attempt, payload_bytes] =
    [from.number(), from.number(), from.number(), from.number(), from.number()];
  const record: DecodedRecord = {
    action, decision, seq, time_us, sender_seq, attempt, payload_bytes,
    agent: from.text(), instance: from.text(), fingerprint: hex(from.field()), message_id: null, message_type: "", target: "",
    target_instance: "", correlation_id: "", payload_sha256: "", rule: "", reason: "", policy_version: "", findings: null, messages: [],
  };
  const id = from.field();
  if (id.length !== 0 && id.length !== 16) return null;
  record.message_id = id.length ? uuid(id) : null;
  record.message_type = from.text();
  record.target = from.text();
  record.target_instance = from.text();
  record.correlation_id = hex(from.field());
  record.payload_sha256 = hex(from.field());
  record.rule = from.text();
  record.reason = from.text();
  record.policy_version = hex(from.field());
  record.findings = asJson(from.text());
  const messages = from.field();
  if (messages.length % MESSAGE_BYTES !== 0) return null;
  for (let at = 0; at < messages.length; at += MESSAGE_BYTES) {
    record.messages.push({ message_id: uuid(messages.subarray(at, at + 16)), attempt: messages[at + 16] ?? 0 });
  }
  return from.bad || from.at !== bytes.length ? null : record;
}

function asJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

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
