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
import { replyRequest, requestRequest } from "./requests.js";
import { REQUEST_TIMEOUT_MS, type Endpoint, type Settings } from "./settings.js";
import { Expired, Limit } from "./time.js";

/** A reply to a request that has expired, or was answered already. */
const NOBODY_WAITS = "unknown_correlation_id";

/** What there is between start and stop. */
export class Running {
  readonly link: Link;
  readonly calls: Calls;
  readonly #settings: Settings;
  readonly #intake: Intake;
  readonly #replies: Replies<Message>;
  #stopped: Promise<void> | undefined;
  #isOver = false;

  constructor(settings: Settings, endpoint: Endpoint, events: Events, handlers: Handlers) {
    this.#settings = settings;
    this.#replies = new Replies((reply) => settings.log.warn(`nobody waits any more for the reply ${reply.title}`));
    const around = {
      session: () => this.link.current,
      replied: (correlationId: string, reply: Message) => this.#replies.arrived(correlationId, reply),
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
    const accepted = await this.#replies.asking(() => this.calls.request(request, { ...options, timeout: acceptance }));
    const called = { call: "request", target, messageType: type };
    return this.#replyTo(called, accepted, timeout, new Limit(Math.max(0, end - performance.now()), options.signal));
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
        if (outcome.$case === "request") pending.find((one) => one.place === place)?.accept(outcome.value);
      });
      return { sent, version: response.version };
    };
    return pending.length > 0 ? this.#replies.asking(run) : run();
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
    try {
      return sentOf(await this.calls.reply(request, to.sender, options));
    } catch (error) {
      if (!(error instanceof Refused && error.detail === NOBODY_WAITS)) throw error;
      this.#logLate(to, error);
      return undefined;
    }
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
      throw why === undefined ? error : new NoReply(called, why, accepted.messageId, receiptOf(accepted.receipt));
    } finally {
      limit.close();
    }
  }

  /** The reply to a request of a commit. */
  #pending(timeout: number, request: wire.RequestRequest): PendingReply & { accept(accepted: wire.RequestResponse): void } {
    let reply: Promise<Message> | undefined;
    return {
      accept: (accepted) => {
        const called = { call: "request", target: request.targetId, messageType: request.messageType };
        reply = this.#replyTo(called, accepted, timeout, new Limit(timeout));
        // Nobody may ask for it.
        reply.catch(() => undefined);
      },
      message: async () => {
        if (reply === undefined) throw new SetupError("the request is sent when its commit is done");
        return reply;
      },
    };
  }
}
