// What the failures of calls mean: nothing happened and it passes, it may have happened, or it is refused.

import { Metadata, status, type StatusObject } from "@grpc/grpc-js";

import { NotConnected, refusal, type Called, type MasError, type Refused, type RefusalFacts } from "./errors.js";
import { RetryInfo, Status } from "./proto/google/rpc/errors.js";
import * as wire from "./proto/mas/runtime/v1/runtime.js";
import { receiptOf } from "./receipt.js";

/** Refusals under which nothing happened and another try may succeed. */
const PASSING: ReadonlySet<string> = new Set([
  "overloaded",
  "storage_unavailable",
  "server_stopping",
  "session_not_connected",
]);
/** To a commit on a new session, until the server has delivered its message there again. */
export const NOT_HELD = "delivery_not_held";
/** Refusals that a handler is not to blame for: its message is handled later. */
const LATER: ReadonlySet<string> = new Set([
  "rate_limited",
  "queue_full",
  "circuit_open",
  "storage_full",
  "overloaded",
  "storage_unavailable",
  "audit_unavailable",
  "audit_full",
  "server_stopping",
  "target_offline",
  // A session that was lost on the way.
  "session_not_connected",
  "quarantined",
  NOT_HELD,
]);
/** Statuses under which an answer may have been lost, unless the server says a word of its own. */
const UNCERTAIN: ReadonlySet<string> = new Set(["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL"]);
/** Words of the server's under such a status that say for sure that nothing happened. */
const DEFINITE: ReadonlySet<string> = new Set([...PASSING, "audit_unavailable"]);
/** What grpc-js says where no connection was made, and so nothing was sent. */
const NEVER_SENT = /^(No connection established|Name resolution failed)/;

/** Nothing happened, and another try may succeed. Does not leave the package. */
export class Passing extends Error {
  readonly error: MasError;
  readonly retryAfter: number;

  constructor(error: MasError, retryAfter = 0) {
    super(error.message);
    this.error = error;
    this.retryAfter = retryAfter;
  }
}

/** The answer was lost: it may or may not have happened. Does not leave the package. */
export class Lost extends Error {}

/** What the failure of a unary call, or of the stream, means. */
export function ofStatus(called: Called, failed: StatusObject): Passing | Lost | Refused {
  return failure(called, factsOf(failed));
}

/** What the failure of a submission on the stream means. */
export function ofSubmission(called: Called, failed: wire.Failure): Passing | Lost | Refused {
  return failure(called, {
    code: codeName(failed.code),
    detail: failed.detail,
    retryAfter: failed.retryAfterMs || undefined,
    receipt: receiptOf(failed.receipt),
    messageId: failed.receipt?.messageId || undefined,
    findings: failed.findings,
  });
}

/** What a status says, with what stands in its trailer. */
export function factsOf({ code, details, metadata }: StatusObject): RefusalFacts {
  return { code: codeName(code), detail: details, ...richFacts(metadata) };
}

/** Whether a handler that was refused so is given its message again, without blame. */
export function isLater(refused: Refused): boolean {
  // Whatever is wrong with the agent's own identity, the message is not to blame.
  return LATER.has(refused.detail) || refused.code === "UNAUTHENTICATED";
}

function failure(called: Called, facts: RefusalFacts): Passing | Lost | Refused {
  if (PASSING.has(facts.detail)) return new Passing(refusal(called, facts), facts.retryAfter);
  if (facts.code === "UNAVAILABLE" && NEVER_SENT.test(facts.detail)) {
    return new Passing(new NotConnected(facts.detail));
  }
  if (UNCERTAIN.has(facts.code) && !DEFINITE.has(facts.detail)) return new Lost(`${facts.detail} (${facts.code})`);
  return refusal(called, facts);
}

function codeName(code: number): string {
  return status[code] ?? `code ${code}`;
}

/** The details of the rich error model. */
function richFacts(metadata: Metadata): Partial<RefusalFacts> {
  const [rich] = metadata.get("grpc-status-details-bin");
  if (!(rich instanceof Buffer)) return {};
  let retryAfter: number | undefined;
  let receipt: wire.Receipt | undefined;
  let findings: readonly wire.Finding[] = [];
  for (const { typeUrl, value } of Status.decode(rich).details) {
    switch (typeUrl.slice(typeUrl.lastIndexOf("/") + 1)) {
      case "google.rpc.RetryInfo": {
        const delay = RetryInfo.decode(value).retryDelay;
        if (delay !== undefined) retryAfter = delay.seconds * 1000 + delay.nanos / 1e6;
        break;
      }
      case "mas.runtime.v1.Receipt":
        receipt = wire.Receipt.decode(value);
        break;
      case "mas.runtime.v1.Findings":
        ({ findings } = wire.Findings.decode(value));
        break;
      default:
    }
  }
  return { retryAfter, receipt: receiptOf(receipt), messageId: receipt?.messageId || undefined, findings };
}
