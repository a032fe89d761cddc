// What the program can be told of the agent's connection.

import type { Refused } from "./errors.js";
import type { Logger } from "./log.js";

/** The events by their names. */
export interface AgentEvents {
  /** A session is open. */
  connected: { readonly agentId: string; readonly instanceId: string; readonly address: string };
  /** The session has ended; it is made again. */
  lost: { readonly reason: string };
  /** The server refuses this agent; it is tried again later, unless that is final. */
  refused: { readonly refusal: Refused };
}

type Listener<E> = (event: E) => unknown;

/** Listeners by event. */
export class Events<M extends object = AgentEvents> {
  readonly #listeners = new Map<keyof M, Set<Listener<never>>>();
  readonly #log: Logger;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Calls `listener` at each such event. */
  on<K extends keyof M>(name: K, listener: Listener<M[K]>): this {
    let listeners = this.#listeners.get(name);
    if (listeners === undefined) this.#listeners.set(name, (listeners = new Set()));
    listeners.add(listener);
    return this;
  }

  /** Calls `listener` at the next such event. */
  once<K extends keyof M>(name: K, listener: Listener<M[K]>): this {
    const first: Listener<M[K]> = (event) => {
      this.off(name, first);
      listener(event);
    };
    return this.on(name, first);
  }

  /** Calls `listener` no more. */
  off<K extends keyof M>(name: K, listener: Listener<M[K]>): this {
    this.#listeners.get(name)?.delete(listener);
    return this;
  }

  /** Tells the listeners. One that throws harms nobody else. */
  emit<K extends keyof M>(name: K, event: M[K]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      void this.#tell(name, listener as Listener<M[K]>, event);
    }
  }

  async #tell<K extends keyof M>(name: K, listener: Listener<M[K]>, event: M[K]): Promise<void> {
    try {
      await listener(event);
    } catch (error) {
      this.#log.error(`a listener of ${String(name)} failed`, error);
    }
  }
}
