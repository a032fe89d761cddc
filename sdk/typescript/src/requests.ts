// Messages in the form of the protocol.

import { timeoutOf, type SendOptions } from "./calls.js";
import { SetupError } from "./errors.js";
import { payloadJson } from "./payload.js";
import type * as wire from "./proto/mas/runtime/v1/runtime.js";

/** Longest time in which a request may be answered, in milliseconds: a day. */
const MAX_REQUEST_MS = 86_400_000;

/** Where a trace would go: this library makes none. */
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
  if (!(ttl > 0 && Number.isFinite(ttl))) throw new SetupError(`ttl ${ttl}: expected more than 0 milliseconds`);
  return Math.ceil(ttl);
}

function carried({ idempotencyKey, ttl, notBefore }: SendOptions): Pick<
  wire.SendRequest,
  "idempotencyKey" | "ttlMs" | "notBeforeMs"
> {
  const notBeforeMs = notBefore?.getTime() ?? 0;
  if (Number.isNaN(notBeforeMs)) throw new SetupError("notBefore: expected a time");
  return { idempotencyKey: idempotencyKey ?? "", ttlMs: ttlMs(ttl), notBeforeMs };
}
