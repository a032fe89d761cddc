// What the library tells OpenTelemetry, where the program has it installed; nothing is loaded and nothing is done where it
// has not. otel.ts is the one place that knows how.

import type { Logger } from "./log.js";
import type { Message } from "./message.js";
import type * as wire from "./proto/mas/runtime/v1/runtime.js";

/** The package that is looked for. */
const API = "@opentelemetry/api";

/** What the span around a handler makes of the sender's: a link from a trace of its own, or its parent, too. */
export type TraceParent = "link" | "parent";

/** What carries the sender's trace context. */
export type Outgoing = Pick<wire.SendRequest, "traceparent" | "tracestate">;

/** What became of a message; the words are those of the server's spans. */
export type Outcome = "ack" | "nack" | "later" | "dead" | "lost";

/** What was accepted. */
export type Accepted = Pick<wire.RequestResponse, "messageId" | "receipt"> & { readonly correlationId?: string };

/** A span and what is measured of it. */
export interface Operation {
  /** Runs what belongs to it. */
  run<T>(body: () => T): T;
  /** The server has taken the message. */
  accepted(accepted: Accepted): void;
  /** The reply is handed to who asked. */
  answered(reply: Message): void;
  /** The handler is through; `thrown`: what it threw. */
  settled(outcome: Outcome, thrown?: { readonly error: unknown }): void;
  failed(error: unknown): void;
  /** It is over. Nothing that is said of it later is told. */
  end(): void;
}

/** What is told. */
export interface Tracing {
  /** A message is sent, with the trace context that this writes into `request`. `collected`: as one of those of a commit, where
   * none is the parent of another and a request does not wait for its reply. */
  sending(name: "send" | "request" | "reply", target: string, request: Outgoing, more?: Sending): Operation;
  /** A reply is waited for whose request was sent before. */
  receiving(correlationId: string): Operation;
  /** A handler runs. */
  processing(message: Message): Operation;
}

export interface Sending {
  readonly correlationId?: string;
  readonly collected?: boolean;
}

/** What an agent's spans say of it. */
export interface Traceable {
  readonly traceParent: TraceParent;
  readonly instanceId: string;
  readonly log: Logger;
  /** Of the server, at the moment. */
  readonly address: () => string;
}

/** That of the installed OpenTelemetry; undefined where there is none. */
export async function findTracing(agent: Traceable): Promise<Tracing | undefined> {
  try {
    const api = await import("@opentelemetry/api");
    const { OpenTelemetry } = await import("./otel.js");
    return new OpenTelemetry(api, agent);
  } catch (error) {
    // Absent is usual. One that is there and cannot be used is worth a word.
    if (!isAbsent(error)) agent.log.warn("nothing is traced, OpenTelemetry cannot be used", error);
    return undefined;
  }
}

/** Does something as an operation, where there is one. */
export function traced<T>(
  operation: Operation | undefined,
  body: (operation: Operation | undefined) => Promise<T>,
): Promise<T> {
  return operation === undefined ? body(undefined) : within(operation, body);
}

async function within<T>(operation: Operation, body: (operation: Operation) => Promise<T>): Promise<T> {
  try {
    return await operation.run(() => body(operation));
  } catch (error) {
    operation.failed(error);
    throw error;
  } finally {
    operation.end();
  }
}

function isAbsent(error: unknown): boolean {
  const { code, message } = error as NodeJS.ErrnoException;
  return (code === "ERR_MODULE_NOT_FOUND" || code === "MODULE_NOT_FOUND") && message.includes(API);
}
