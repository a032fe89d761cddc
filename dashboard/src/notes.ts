// Signed notes, checkpoints, and the history of a log's key: the rules of src/audit/{note,checkpoint,keys}.rs.

import { type Bytes, fromBase64, hex, sha256, utf8 } from "./hashes";

const ED25519_TYPE = 1;
export const ORIGIN_PREFIX = "mas.audit/";
const SIGNATURE_PREFIX = "— ";
const ROTATION = "mas.audit key rotation";
/** Lines of a rotation in the key history, the empty line before it included. */
const ROTATION_LINES = 6;

export interface Key { name: string; hash: string; raw: Bytes }

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

export interface Note { text: string; name: string; hash: string; signature: Bytes }

export function parseNote(note: string): Note | null {
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

export async function isSigned(note: Note, key: Key): Promise<boolean> {
  if (note.name !== key.name || note.hash !== key.hash) return false;
  const imported = await crypto.subtle.importKey("raw", key.raw, { name: "Ed25519" }, false, ["verify"]);
  return crypto.subtle.verify({ name: "Ed25519" }, imported, note.signature, utf8.encode(note.text));
}

export interface History { origin: string; keys: { fromMs: number; key: Key }[] }

/** The log's keys, each signed by the one before; a text says what is wrong. */
export async function parseHistory(text: string): Promise<History | string> {
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

export interface Checkpoint {
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
