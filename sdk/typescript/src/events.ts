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
  /** Of each listener whether it hears one event only. */
  readonly #listeners = new Map<keyof M, Map<Listener<never>, boolean>>();
  readonly #log: Logger;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Calls `listener` at each such event. */
  on<K extends keyof M>(name: K, listener: Listener<M[K]>): this {
    this.#of(name).set(listener, false);
    return this;
  }

  /** Calls `listener` at the next such event. */
  once<K extends keyof M>(name: K, listener: Listener<M[K]>): this {
    const listeners = this.#of(name);
    if (!listeners.has(listener)) listeners.set(listener, true);
    return this;
  }

  /** Calls `listener` no more. */
  off<K extends keyof M>(name: K, listener: Listener<M[K]>): this {
    this.#of(name).delete(listener);
    return this;
  }

  /** Tells the listeners. One that throws harms nobody else. */
  emit<K extends keyof M>(name: K, event: M[K]): void {
    const listeners = this.#of(name);
    for (const listener of [...listeners.keys()]) {
      const once = listeners.get(listener);
      // One before it may have taken it off.
      if (once === undefined) continue;
      if (once) listeners.delete(listener);
      void this.#tell(name, listener as Listener<M[K]>, event);
    }
  }

  #of(name: keyof M): Map<Listener<never>, boolean> {
    let listeners = this.#listeners.get(name);
    if (listeners === undefined) this.#listeners.set(name, (listeners = new Map()));
    return listeners;
  }

  async #tell<K extends keyof M>(name: K, listener: Listener<M[K]>, event: M[K]): Promise<void> {
    try {
      await listener(event);
    } catch (error) {
      this.#log.error(`a listener of ${String(name)} failed`, error);
    }
  }
}
