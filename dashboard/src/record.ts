// An audit record's canonical bytes: the rules of src/audit/record.rs.

import { ACTIONS, DECISIONS } from "./codes";
import { hex } from "./hashes";

const RECORD_VERSION = 2;
/** Bytes of one message in a custody record: its id and the number of the delivery. */
const MESSAGE_BYTES = 17;

/** What the record's bytes say. */
export interface DecodedRecord {
  action: string; decision: string; seq: number; time_us: number; sender_seq: number; attempt: number; payload_bytes: number;
  agent: string; instance: string; fingerprint: string; message_id: string | null; message_type: string; target: string;
  target_instance: string; correlation_id: string; payload_sha256: string; rule: string; reason: string; policy_version: string;
  findings: unknown; messages: { message_id: string; attempt: number }[]; trace: string;
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
    target_instance: "", correlation_id: "", payload_sha256: "", rule: "", reason: "", policy_version: "", findings: null, messages: [], trace: "",
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
  // Left out where there is none.
  if (!from.bad && from.at !== bytes.length) {
    record.trace = from.text();
    if (record.trace === "") return null;
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
