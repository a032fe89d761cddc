// Messages in the form of the protocol.

import { timeoutOf, type SendOptions } from "./calls.js";
import { SetupError } from "./errors.js";
import { payloadJson } from "./payload.js";
import type * as wire from "./proto/mas/runtime/v1/runtime.js";

/** Longest time in which a request may be answered, in milliseconds: a day. */
const MAX_REQUEST_MS = 86_400_000;

const IDEMPOTENCY_KEY = /^[A-Za-z0-9_-]{1,64}$/;

/** Where a trace goes, if there is one. */
const NO_TRACE = { traceparent: "", tracestate: "" };

export function sendRequest(
  instanceId: string,
  target: string,
  type: string,
  data: object | undefined,
  options: SendOptions,
): wire.SendRequest {
  return {
    targetId: target,
    messageType: type,
    dataJson: payloadJson(data),
    instanceId,
    ...carried(options),
    ...NO_TRACE,
  };
}

export function requestRequest(
  instanceId: string,
  target: string,
  type: string,
  data: object | undefined,
  timeout: number,
  options: SendOptions,
): wire.RequestRequest {
  const timeoutMs = Math.min(Math.ceil(timeoutOf(timeout) ?? 0), MAX_REQUEST_MS);
  return { ...sendRequest(instanceId, target, type, data, options), timeoutMs };
}

export function replyRequest(
  instanceId: string,
  correlationId: string,
  type: string,
  data: object | undefined,
): wire.ReplyRequest {
  return { correlationId, messageType: type, dataJson: payloadJson(data), instanceId, ...NO_TRACE };
}

/** A time to live as the protocol has it; undefined is none. */
export function ttlMs(ttl: number | undefined): number {
  if (ttl === undefined) return 0;
  if (!(ttl > 0)) throw new SetupError(`ttl ${ttl}: expected more than 0 milliseconds`);
  return whole(Math.ceil(ttl), "ttl");
}

/** A number that the protocol can carry. */
export function whole(value: number, what: string): number {
  if (!(Number.isSafeInteger(value) && value >= 0)) {
    throw new SetupError(`${what} ${value}: expected a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`);
  }
  return value;
}

function carried({ idempotencyKey, ttl, notBefore }: SendOptions): Pick<
  wire.SendRequest,
  "idempotencyKey" | "idempotencyWindowMs" | "ttlMs" | "notBeforeMs"
> {
  if (idempotencyKey !== undefined && !IDEMPOTENCY_KEY.test(idempotencyKey)) {
    throw new SetupError(`idempotencyKey ${JSON.stringify(idempotencyKey)}: expected 1 to 64 of A-Z a-z 0-9 _ -`);
  }
  const notBeforeMs = whole(notBefore?.getTime() ?? 0, "notBefore, in milliseconds since 1970:");
  return { idempotencyKey: idempotencyKey ?? "", ttlMs: ttlMs(ttl), notBeforeMs, idempotencyWindowMs: 0 };
}
