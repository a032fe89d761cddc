// Receipts and findings: what the server says of a message beside yes or no.

import type * as wire from "./proto/mas/runtime/v1/runtime.js";

/** Proof of a decision: where it stands in the server's audit trail. */
export interface Receipt {
  /** The lane that holds the record. */
  readonly lane: string;
  /** The record's position in it, from 1. */
  readonly sequence: number;
  /** The leaf hash of the record. */
  readonly recordHash: Uint8Array;
  /** Digest of the configuration that decided. */
  readonly policyVersion: Uint8Array;
  /** The number of this decision among the sender's in this lane. */
  readonly senderSequence: number;
}

/** What data-loss prevention found in a payload. Never the text itself. */
export interface Finding {
  /** Such as `credit_card`. */
  readonly type: string;
  /** Where in the payload, as a JSON pointer; `message_type` for the message's type. */
  readonly pointer: string;
  /** `block` or `redact`. */
  readonly action: string;
}

/** An accepted message: stored and on record. */
export interface Sent {
  readonly messageId: string;
  /** Undefined where the server gives no receipts. */
  readonly receipt: Receipt | undefined;
  /** What was found in the payload, and redacted where it says so. */
  readonly findings: readonly Finding[];
}

/** A receipt from its form on the wire. */
export function receiptOf(receipt: wire.Receipt | undefined): Receipt | undefined {
  if (receipt === undefined) return undefined;
  const { lane, sequence, recordHash, policyVersion, senderSequence } = receipt;
  return { lane, sequence, recordHash, policyVersion, senderSequence };
}

/** An acceptance from its form on the wire. */
export function sentOf(accepted: wire.SendResponse | wire.RequestResponse | wire.ReplyResponse): Sent {
  return { messageId: accepted.messageId, receipt: receiptOf(accepted.receipt), findings: accepted.findings };
}
