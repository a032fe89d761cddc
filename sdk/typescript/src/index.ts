// What the package offers.

export { Agent, type Peer, type UpdateOptions } from "./agent.js";
export type { CallOptions, SendOptions } from "./calls.js";
export type { Commit, Committed, MessageOptions, PendingReply } from "./commit.js";
export type { Credentials } from "./credentials.js";
export {
  CircuitOpen,
  DlpBlocked,
  InvalidRequest,
  MasError,
  NoReply,
  NotAuthorized,
  NotConnected,
  OutcomeUnknown,
  PayloadError,
  QueueFull,
  RateLimited,
  Refused,
  Reject,
  Retry,
  SetupError,
  Unauthenticated,
  Unsupported,
  VersionMismatch,
} from "./errors.js";
export type { AgentEvents, Events } from "./events.js";
export type { HandlerOptions, PlainHandler, TypedHandler } from "./handlers.js";
export type { Logger } from "./log.js";
export type { Message, Meta } from "./message.js";
export type { Finding, Receipt, Sent } from "./receipt.js";
export type { Issue, OutputOf, StandardSchema, Validated } from "./schema.js";
export type { AgentOptions } from "./settings.js";
export type { State } from "./state.js";
