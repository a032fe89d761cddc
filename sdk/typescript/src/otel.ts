// Spans and metrics by OpenTelemetry's conventions for messaging, told to the providers that the program has set. The trace
// context stands in the message itself, so that the receiver gets what the sender wrote, whatever is between them.

import type { Attributes, Context, Counter, Histogram, Link, Meter, Span, SpanContext, Tracer } from "@opentelemetry/api";

import { kindOf, NotConnected, Refused, SetupError, Unsupported } from "./errors.js";
import type { Message } from "./message.js";
import type { Receipt } from "./proto/mas/runtime/v1/runtime.js";
import { hostOf, portOf } from "./settings.js";
import type { Accepted, Operation, Outcome, Outgoing, Sending, Traceable, Tracing } from "./tracing.js";
import { VERSION } from "./version.js";

type Api = typeof import("@opentelemetry/api");

/** The name of the instrumentation. */
const SCOPE = "mas-agent";
/** Boundaries of the conventions for durations, in seconds. */
const BOUNDARIES_S = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
/** Longest `tracestate` that is sent, as the standard has it. */
const MAX_TRACE_STATE = 512;
/** Failures after which nothing has left the process. */
const NOT_SENT = [NotConnected, SetupError, Unsupported];

const SYSTEM = "messaging.system";
const OPERATION_NAME = "messaging.operation.name";
const OPERATION_TYPE = "messaging.operation.type";
const DESTINATION = "messaging.destination.name";
const MESSAGE_ID = "messaging.message.id";
const CONVERSATION_ID = "messaging.message.conversation_id";
const CONSUMER_GROUP = "messaging.consumer.group.name";
const CLIENT_ID = "messaging.client.id";
const SERVER_ADDRESS = "server.address";
const SERVER_PORT = "server.port";
const ERROR_TYPE = "error.type";

/** A refusal's word, as the server's contract has them. A text of gRPC's own is none, and has no bound. */
const WORD = /^[a-z][a-z0-9_]{0,63}$/;
const TRACE_PARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;

/** Tells the tracer and the meter of the program's providers. */
export class OpenTelemetry implements Tracing {
  readonly api: Api;
  readonly meters: Meters;
  readonly #agent: Traceable;
  readonly #tracer: Tracer;

  constructor(api: Api, agent: Traceable) {
    this.api = api;
    this.#agent = agent;
    this.#tracer = api.trace.getTracer(SCOPE, VERSION);
    this.meters = new Meters(api.metrics.getMeter(SCOPE, VERSION));
  }

  sending(name: "send" | "request" | "reply", target: string, request: Outgoing, more: Sending = {}): Operation {
    const { correlationId = "", collected = false } = more;
    const { SpanKind, context } = this.api;
    const operation = this.#operation(`${name} ${target}`, {
      kind: name === "request" && !collected ? SpanKind.CLIENT : SpanKind.PRODUCER,
      shared: this.#shared(name, "send", { [DESTINATION]: target }),
      own: correlationId === "" ? {} : { [CONVERSATION_ID]: correlationId },
      parent: context.active(),
    });
    operation.inject(request);
    return operation;
  }

  receiving(correlationId: string): Operation {
    const { SpanKind, context } = this.api;
    return this.#operation("receive", {
      kind: SpanKind.CLIENT,
      shared: this.#shared("receive", "receive", {}),
      own: { [CONVERSATION_ID]: correlationId },
      parent: context.active(),
    });
  }

  processing(message: Message): Operation {
    const { SpanKind, ROOT_CONTEXT, trace } = this.api;
    const created = this.createdIn(message);
    const own: Attributes = { [MESSAGE_ID]: message.id, "mas.sender": message.sender };
    if (message.correlationId !== undefined) own[CONVERSATION_ID] = message.correlationId;
    if (message.attempt > 0) own["mas.attempt"] = message.attempt;
    const shared = this.#shared("process", "process", consumer(message));
    this.meters.consumed.add(1, { ...shared });
    const isParent = created !== undefined && this.#agent.traceParent === "parent";
    return this.#operation(`process ${message.target}`, {
      kind: SpanKind.CONSUMER,
      shared,
      own,
      // Whatever was current when the agent was started is no parent of this.
      parent: isParent ? trace.setSpanContext(ROOT_CONTEXT, created) : ROOT_CONTEXT,
      links: created === undefined ? [] : [{ context: created }],
    });
  }

  /** The context in which a message was sent; undefined: there is none, or none that can be read. */
  createdIn({ meta }: Message): SpanContext | undefined {
    const { traceparent, tracestate } = meta;
    const parts = typeof traceparent === "string" ? TRACE_PARENT.exec(traceparent) : null;
    if (parts === null) return undefined;
    const [, version, traceId = "", spanId = "", flags = "", more] = parts;
    // A later version may say more.
    if (version === "ff" || (version === "00" && more !== undefined)) return undefined;
    const created: SpanContext = {
      traceId,
      spanId,
      traceFlags: Number.parseInt(flags, 16) & this.api.TraceFlags.SAMPLED,
      isRemote: true,
      ...(typeof tracestate === "string" && tracestate !== "" ? { traceState: this.api.createTraceState(tracestate) } : {}),
    };
    return this.api.isSpanContextValid(created) ? created : undefined;
  }

  #operation(name: string, { kind, shared, own, parent, links = [] }: Beginning): Traced {
    const attributes = { ...shared, [CLIENT_ID]: this.#agent.instanceId, ...own };
    const span = this.#tracer.startSpan(name, { kind, attributes, links }, parent);
    return new Traced(this, span, parent, shared, kind === this.api.SpanKind.CONSUMER);
  }

  /** What the spans and the metrics of an operation have. */
  #shared(name: string, type: string, more: Attributes): Attributes {
    const address = this.#agent.address();
    const server = { [SYSTEM]: "mas", [SERVER_ADDRESS]: hostOf(address), [SERVER_PORT]: portOf(address) };
    return { [OPERATION_NAME]: name, [OPERATION_TYPE]: type, ...more, ...server };
  }
}

interface Beginning {
  readonly kind: number;
  readonly shared: Attributes;
  readonly own: Attributes;
  readonly parent: Context;
  readonly links?: Link[];
}

/** The instruments of the conventions. */
class Meters {
  readonly operation: Histogram;
  readonly process: Histogram;
  readonly sent: Counter;
  readonly consumed: Counter;

  constructor(meter: Meter) {
    const histogram = (name: string, description: string): Histogram =>
      meter.createHistogram(name, { unit: "s", description, advice: { explicitBucketBoundaries: BOUNDARIES_S } });
    const counter = (name: string, description: string): Counter =>
      meter.createCounter(name, { unit: "{message}", description });
    this.operation = histogram("messaging.client.operation.duration", "Duration of an operation that the agent began.");
    this.process = histogram("messaging.process.duration", "Duration of handling a message.");
    this.sent = counter("messaging.client.sent.messages", "Messages that the agent tried to send.");
    this.consumed = counter("messaging.client.consumed.messages", "Messages that were handed to the agent's code.");
  }
}

/** A span and the duration of an operation; `shared` are the attributes of both, and grow: counters, which keep what they are
 * given, get copies. */
class Traced implements Operation {
  readonly #tracing: OpenTelemetry;
  readonly #span: Span;
  readonly #parent: Context;
  readonly #shared: Attributes;
  /** Whether it is a handler. */
  readonly #isHandler: boolean;
  readonly #began = performance.now();
  #isCounted = false;
  #isOver = false;

  constructor(tracing: OpenTelemetry, span: Span, parent: Context, shared: Attributes, isHandler: boolean) {
    this.#tracing = tracing;
    this.#span = span;
    this.#parent = parent;
    this.#shared = shared;
    this.#isHandler = isHandler;
  }

  run<T>(body: () => T): T {
    const { context, trace } = this.#tracing.api;
    return context.with(trace.setSpan(this.#parent, this.#span), body);
  }

  /** Writes its trace context into its message. */
  inject(request: Outgoing): void {
    const { traceId, spanId, traceFlags, traceState } = this.#span.spanContext();
    if (!this.#tracing.api.isSpanContextValid(this.#span.spanContext())) return;
    const state = traceState?.serialize() ?? "";
    request.traceparent = `00-${traceId}-${spanId}-0${traceFlags & this.#tracing.api.TraceFlags.SAMPLED}`;
    request.tracestate = state.length <= MAX_TRACE_STATE ? state : "";
  }

  accepted({ messageId, correlationId = "", receipt }: Accepted): void {
    this.#span.setAttribute(MESSAGE_ID, messageId);
    if (correlationId !== "") this.#span.setAttribute(CONVERSATION_ID, correlationId);
    if (receipt !== undefined) this.#onRecord(receipt);
    this.#count();
  }

  answered(reply: Message): void {
    if (this.#shared[OPERATION_NAME] === "receive") {
      Object.assign(this.#shared, consumer(reply));
      this.#span.updateName(`receive ${reply.target}`);
      this.#span.setAttributes({ ...consumer(reply), [MESSAGE_ID]: reply.id });
    }
    const created = this.#tracing.createdIn(reply);
    // Spans of an older SDK take none.
    if (created !== undefined) this.#span.addLink?.({ context: created });
    const server = Object.fromEntries([SYSTEM, SERVER_ADDRESS, SERVER_PORT].map((name) => [name, this.#shared[name]]));
    this.#tracing.meters.consumed.add(1, { [OPERATION_NAME]: "receive", ...consumer(reply), ...server });
  }

  settled(outcome: Outcome, thrown?: { readonly error: unknown }): void {
    if (this.#isOver) return;
    this.#span.setAttribute("mas.outcome", outcome);
    if (thrown === undefined) return;
    const { error } = thrown;
    // Not the error itself, whose own `code` would be taken for its kind.
    const stack = error instanceof Error && error.stack !== undefined ? { stack: error.stack } : {};
    this.#span.recordException({ name: errorType(error), message: textOf(error), ...stack });
    this.failed(error);
  }

  failed(error: unknown): void {
    const kind = errorType(error);
    this.#shared[ERROR_TYPE] = kind;
    this.#span.setAttribute(ERROR_TYPE, kind);
    this.#span.setStatus({ code: this.#tracing.api.SpanStatusCode.ERROR, message: textOf(error) });
    if (error instanceof Refused && error.receipt !== undefined) this.#onRecord(error.receipt);
    if (!NOT_SENT.some((Kind) => error instanceof Kind)) this.#count();
  }

  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const { operation, process } = this.#tracing.meters;
    (this.#isHandler ? process : operation).record((performance.now() - this.#began) / 1000, this.#shared);
    this.#span.end();
  }

  #count(): void {
    if (this.#isCounted || this.#shared[OPERATION_TYPE] !== "send") return;
    this.#isCounted = true;
    this.#tracing.meters.sent.add(1, { ...this.#shared });
  }

  #onRecord({ lane, sequence }: Pick<Receipt, "lane" | "sequence">): void {
    this.#span.setAttributes({ "mas.receipt.lane": lane, "mas.receipt.sequence": sequence });
  }
}

/** The instances of an agent are the group that shares its inbox. */
function consumer({ target }: Message): Attributes {
  return { [DESTINATION]: target, [CONSUMER_GROUP]: target };
}

/** Few values: the word of a refusal, or the kind. */
function errorType(error: unknown): string {
  if (error instanceof Refused) return WORD.test(error.detail) ? error.detail : error.code;
  return kindOf(error);
}

function textOf(error: unknown): string {
  if (error instanceof Error) return error.message;
  return typeof error === "string" ? error : kindOf(error);
}
