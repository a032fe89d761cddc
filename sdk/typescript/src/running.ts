// A started agent: its connection, its calls, and what arrives.

import type { CallOptions, SendOptions } from "./calls.js";
import { Calls } from "./calls.js";
import { Commit, type Committed, type PendingReply } from "./commit.js";
import { NoReply, NotConnected, Refused, SetupError, type Called } from "./errors.js";
import type { Events } from "./events.js";
import type { Handlers } from "./handlers.js";
import { Intake } from "./intake.js";
import { Link } from "./link.js";
import type { Message } from "./message.js";
import type * as wire from "./proto/mas/runtime/v1/runtime.js";
import { receiptOf, sentOf, type Sent } from "./receipt.js";
import { Replies, Unanswered } from "./replies.js";
import { replyRequest, requestRequest, sendRequest } from "./requests.js";
import { REQUEST_TIMEOUT_MS, type Endpoint, type Settings } from "./settings.js";
import { Expired, Limit } from "./time.js";
import { findTracing, traced, type Operation, type Tracing } from "./tracing.js";

/** A reply to a request that has expired, or was answered already. */
const NOBODY_WAITS = "unknown_correlation_id";

/** What there is between start and stop. */
export class Running {
  readonly link: Link;
  readonly calls: Calls;
  readonly #settings: Settings;
  readonly #intake: Intake;
  readonly #replies: Replies<Message>;
  #tracing: Tracing | undefined;
  #stopped: Promise<void> | undefined;
  #isOver = false;

  constructor(settings: Settings, endpoint: Endpoint, events: Events, handlers: Handlers) {
    this.#settings = settings;
    this.#replies = new Replies((reply) => settings.log.warn(`nobody waits any more for the reply ${reply.title}`));
    const around = {
      session: () => this.link.current,
      replied: (correlationId: string, reply: Message) => this.#replies.arrived(correlationId, reply),
      processing: (message: Message) => this.#tracing?.processing(message),
      reply: this.#reply.bind(this),
      commit: (of: Message, collect: (commit: Commit) => void | Promise<void>, options: CallOptions) =>
        this.commit(of, collect, options),
    };
    this.#intake = new Intake(handlers, settings.concurrency, around, settings.log);
    this.link = new Link(
      settings,
      endpoint,
      events,
      {
        delivery: (delivery) => this.#intake.take(delivery),
        requestFailed: ({ correlationId, reason }) => this.#replies.arrived(correlationId, new Unanswered(reason)),
      },
      () => this.#intake.lost(),
    );
    this.calls = new Calls(this.link, settings);
  }

  /** Connects; throws the refusal, and `NotConnected` after the time. */
  async start(signal: AbortSignal | undefined, timeout: number): Promise<void> {
    const { traceParent, instanceId, log } = this.#settings;
    this.#tracing = await findTracing({ traceParent, instanceId, log, address: () => this.link.address });
    await this.link.start(signal, timeout);
  }

  /** Drains and closes. The first call does it, each waits for it; but not a handler, for which this waits. */
  async stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    if (!this.#intake.isWithin) await this.#stopped;
    else this.#stopped.catch((error: unknown) => this.#settings.log.error("stopping failed", error));
  }

  /** Whether stopping is through. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Settles when the agent is stopped, or its refusal was final; throws that. */
  async ended(): Promise<void> {
    await this.link.ended();
    await this.#stopped;
  }

  /** Sends a message. */
  async send(target: string, type: string, data: object | undefined, options: SendOptions): Promise<Sent> {
    const request = sendRequest(this.#settings.instanceId, target, type, data, options);
    return traced(this.#tracing?.sending("send", target, request), async (operation) => {
      const accepted = await this.calls.send(request, options);
      operation?.accepted(accepted);
      return sentOf(accepted);
    });
  }

  /** Sends a request and waits for its reply. */
  async request(
    target: string,
    type: string,
    data: object | undefined,
    options: SendOptions,
  ): Promise<Message> {
    const timeout = options.timeout ?? REQUEST_TIMEOUT_MS;
    const request = requestRequest(this.#settings.instanceId, target, type, data, timeout, options);
    const end = performance.now() + timeout;
    const acceptance = options.timeout ?? Math.min(timeout, this.#settings.callTimeout);
    const called = { call: "request", target, messageType: type };
    return traced(this.#tracing?.sending("request", target, request), async (operation) => {
      const accepted = await this.#replies.asking(() => this.calls.request(request, { ...options, timeout: acceptance }));
      operation?.accepted(accepted);
      const limit = new Limit(Math.max(0, end - performance.now()), options.signal);
      const reply = await this.#replyTo(called, accepted, timeout, limit);
      operation?.answered(reply);
      return reply;
    });
  }

  /** Everything that `collect` says, or nothing; with a message its acknowledgement, too. */
  async commit(
    of: Message | undefined,
    collect: (commit: Commit) => void | Promise<void>,
    options: CallOptions,
  ): Promise<Committed> {
    const pending: { place: number; accept: (accepted: wire.RequestResponse) => void }[] = [];
    const collected = new Commit(this.#settings.instanceId, of, (place, timeout, request) => {
      const reply = this.#pending(timeout, request);
      pending.push({ place, accept: reply.accept });
      return reply;
    });
    await collect(collected);
    const { commit, needs } = collected.close();
    const make = (messages: wire.Submission[]) => () => ({
      ...commit,
      messages,
      deliveryId: of === undefined ? "" : this.#intake.deliveryOf(of),
    });
    const run = async (): Promise<Committed> => {
      const end = performance.now() + this.calls.timeOf(options);
      let messages = commit.messages;
      let response: wire.CommitResponse;
      try {
        response = await this.calls.commit(make(messages), needs, options);
      } catch (error) {
        const others = messages.filter(({ call }) => call?.$case !== "reply");
        if (!(error instanceof Refused && error.detail === NOBODY_WAITS) || others.length === messages.length) throw error;
        this.#logLate(of, error);
        messages = others;
        const left = Math.max(1, end - performance.now());
        response = await this.calls.commit(make(messages), needs, { ...options, timeout: left });
      }
      if (of !== undefined) this.#intake.committed(of);
      const sent: Sent[] = [];
      response.results.forEach(({ outcome }, index) => {
        if (outcome === undefined || outcome.$case === "commit" || outcome.$case === "failure") return;
        sent.push(sentOf(outcome.value));
        const place = (messages[index]?.reference ?? 0) - 1;
        operations?.[place]?.accepted(outcome.value);
        if (outcome.$case === "request") pending.find((one) => one.place === place)?.accept(outcome.value);
      });
      return { sent, version: response.version };
    };
    const operations = this.#tracing && commit.messages.map((message) => this.#collected(of, message));
    try {
      return await (pending.length > 0 ? this.#replies.asking(run) : run());
    } catch (error) {
      for (const operation of operations ?? []) operation?.failed(error);
      throw error;
    } finally {
      for (const operation of operations ?? []) operation?.end();
    }
  }

  /** One message of a commit. */
  #collected(of: Message | undefined, { call }: wire.Submission): Operation | undefined {
    if (call === undefined || call.$case === "commit") return undefined;
    const { $case, value } = call;
    const [target, correlationId] = "targetId" in value ? [value.targetId, ""] : [of?.sender ?? "", value.correlationId];
    return this.#tracing?.sending($case, target, value, { correlationId, collected: true });
  }

  async #stop(): Promise<void> {
    try {
      await this.#intake.drain(this.#settings.drainTimeout);
      await this.link.close();
    } finally {
      this.#replies.end(new NotConnected("the agent is stopped"));
      this.#isOver = true;
    }
  }

  async #reply(
    to: Message,
    correlationId: string,
    type: string,
    data: object | undefined,
    options: CallOptions,
  ): Promise<Sent | undefined> {
    const request = replyRequest(this.#settings.instanceId, correlationId, type, data);
    if (to.gaveUp !== undefined) throw to.gaveUp;
    return traced(this.#tracing?.sending("reply", to.sender, request, { correlationId }), async (operation) => {
      try {
        const accepted = await this.calls.reply(request, to.sender, options);
        operation?.accepted({ ...accepted, correlationId });
        return sentOf(accepted);
      } catch (error) {
        if (!(error instanceof Refused && error.detail === NOBODY_WAITS)) throw error;
        this.#logLate(to, error);
        return undefined;
      }
    });
  }

  #logLate(to: Message | undefined, error: Refused): void {
    const what = to === undefined ? "" : ` to ${to.title}`;
    this.#settings.log.warn(`nobody waits any more for the reply${what}: ${error.message}`);
  }

  /** Waits for a reply; closes the limit. */
  async #replyTo(called: Called, accepted: wire.RequestResponse, timeout: number, limit: Limit): Promise<Message> {
    try {
      return await this.#replies.wait(accepted.correlationId, limit);
    } catch (error) {
      const why =
        error instanceof Expired
          ? `accepted, and no reply within ${timeout / 1000} s`
          : error instanceof NotConnected
            ? `accepted, and ${error.message} before the reply`
            : error instanceof Unanswered
              ? { reason: error.reason }
              : undefined;
      if (why === undefined) throw error;
      const options = error instanceof NotConnected ? { cause: error } : {};
      throw new NoReply(called, why, accepted.messageId, receiptOf(accepted.receipt), options);
    } finally {
      limit.close();
    }
  }

  /** The reply to a request of a commit. */
  #pending(timeout: number, request: wire.RequestRequest): PendingReply & { accept(accepted: wire.RequestResponse): void } {
    let reply: Promise<Message> | undefined;
    let correlationId = "";
    return {
      accept: (accepted) => {
        const called = { call: "request", target: request.targetId, messageType: request.messageType };
        ({ correlationId } = accepted);
        reply = this.#replyTo(called, accepted, timeout, new Limit(timeout));
        // Nobody may ask for it.
        reply.catch(() => undefined);
      },
      message: async () => {
        const coming = reply;
        if (coming === undefined) throw new SetupError("the request is sent when its commit is done");
        return traced(this.#tracing?.receiving(correlationId), async (operation) => {
          const message = await coming;
          operation?.answered(message);
          return message;
        });
      },
    };
  }
}
