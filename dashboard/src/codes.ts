// The names of what is on record, by their codes from 1: those of src/audit/record.rs (tests/dashboard compares them).

export const ACTIONS = [
  "lane_opened", "lane_closed", "send", "request", "reply", "session_open", "session_close", "discover", "state_get",
  "state_update", "state_reset", "nack", "dead_letter", "effect_failed", "circuit_opened", "circuit_closed", "config_changed",
  "delivered", "acked", "redriven", "dropped", "expired", "server_started", "server_stopped", "certificate_changed",
  "signing_key_changed", "revocations_changed", "commit", "archived", "trail_differs", "vanished", "connection_cut",
  "connection_refused", "calls_refused", "foreign_entry", "taken_over", "store_key_changed", "acknowledged", "letter_restored", "quarantined", "released", "commanded",
];

export const DECISIONS = [
  "ALLOWED", "ALERT", "DLP_REDACTED", "DLP_BLOCKED", "RATE_LIMITED", "CIRCUIT_OPEN", "AUTHZ_DENIED", "UNAUTHENTICATED",
  "REFUSED", "EVENT",
];

/** Decisions by which a message goes on. */
export const PASSED = new Set(["ALLOWED", "ALERT", "DLP_REDACTED", "EVENT"]);

/** What a decision means, in a few words. */
export const MEANING: Record<string, string> = {
  ALLOWED: "allowed by a rule", ALERT: "allowed, with a finding", DLP_REDACTED: "allowed, sensitive data removed",
  DLP_BLOCKED: "refused: sensitive data", RATE_LIMITED: "refused: too many messages", CIRCUIT_OPEN: "refused: the target keeps failing",
  AUTHZ_DENIED: "refused: no rule allows it", UNAUTHENTICATED: "refused: no acceptable identity",
  REFUSED: "refused: malformed, out of bounds or out of order", EVENT: "something happened",
};
