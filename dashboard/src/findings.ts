// What is wrong in the fleet, in order of harm, each with what to do about it.

import type { Check, Fleet } from "./api";
import { count, duration, shortServer, time } from "./text";

export interface Finding { kind: "bad" | "warn"; code: string; where: string; what: string; toDo: string }

/** What to do about a check of /readyz that fails; docs/metrics.md has the same list. */
const CHECKS: Record<string, string> = {
  drain: "The server is stopping: nothing, if that is wanted. New work goes to the others.",
  redis: "Look whether Redis runs and answers: mas check redis.",
  lease: "Look whether Redis takes writes: replicas, disk, role.",
  commits: "Look at Redis' role, replicas and disk, and at durability in mas.yaml.",
  workers: "Look at the load of the host; a server whose worker stays silent is to be restarted.",
  audit: "Look at the disk of the anchor and at Redis' memory; mas audit verify.",
  certificate: "Issue another certificate (mas certs issue --server), and send SIGHUP: nobody can connect until then.",
  storage: "Give Redis more memory (maxmemory), or empty inboxes and archive the trail.",
};
const TROUBLES: Record<string, string> = {
  checkpoints_failing: "Look at the disk of the anchor, and at Redis where there is no anchor.",
  redis_lacks_checkpoints: "Redis gets them once it answers; look whether it does.",
  archive_failing: "Look at the disk of archive_dir.",
  dead_letters_stuck: "Look at the disk of archive_dir; redrive or drop dead letters.",
  disk_low: "Make room on that disk: move the oldest closed segments and older files of the anchor elsewhere.",
  copy_failing: "Look at the disk of gateway.audit.file_path; what it misses is read back.",
  lease_not_renewed: "Look whether Redis takes writes: replicas, disk, role.",
  quarantine_unreadable: "Shut out again who was: mas quarantine; or copy the store keys from another server.",
  reload_refused: "Mend mas.yaml and send SIGHUP again; mas-server --check-config says what is wrong.",
  trail_rolled_back: "mas audit verify says what is gone; docs/trust.md says what it means.",
  rules_differ: "Compare mas.yaml on the hosts, and reload (SIGHUP) where it is old.",
  server_gone: "Look whether mas-server runs on the host that is named, and into its log.",
  versions_differ: "Finish the upgrade, or go back on the servers that were upgraded.",
};
/** So long after one server took up a quarantine the others have it, too. */
const QUARANTINE_MS = 4_000;
/** Findings of one kind and code that are shown one by one. */
const MAX_OF_A_CODE = 10;
/** A certificate that ends within so many days is worth a look. */
const CERTIFICATE_DAYS = 14;
const DAY_MS = 86_400_000;
/** Servers report once a second: a report that is older is late, and one that is much older says that its server has stopped or hangs. */
const LATE_REPORT_MS = 1_800;
const OLD_REPORT_MS = 5_000;
/** A checkpoint may be so old while something happens, and up to a minute while nothing does. */
const OLD_CHECKPOINT_MS = 90_000;

const OF_THE_FLEET = new Set(["rules_differ", "versions_differ", "server_gone"]);

export interface Findings { bad: number; warn: number; all: Finding[] }

/** The fleet, with what this server has told of itself since. */
export function withFailing(fleet: Fleet | null, failing: Check[]): Fleet | null {
  if (!fleet || failing.length === 0) return fleet;
  const servers = fleet.servers.map((one) => {
    if (!one.this || !one.status) return one;
    const { status } = one;
    const checks = status.checks.map((check) => failing.find((other) => other.name === check.name) ?? check);
    const away = failing.find((check) => check.name === "redis")?.problem;
    return { ...one, status: { ...status, ready: false, checks, redis: away ? { up: false, why: away } : status.redis } };
  });
  return { ...fleet, servers };
}

/** Of each kind and code so many at the most, and one that says how many more there are: a thousand agents must not hide what else is wrong. */
function few(all: Finding[]): Finding[] {
  const seen = new Map<string, number>();
  return all.flatMap((one) => {
    const key = `${one.kind} ${one.code}`;
    const count = (seen.get(key) ?? 0) + 1;
    seen.set(key, count);
    if (count <= MAX_OF_A_CODE) return [one];
    if (count > MAX_OF_A_CODE + 1) return [];
    const alike = all.filter((other) => other.kind === one.kind && other.code === one.code).length - MAX_OF_A_CODE;
    return alike === 1 ? [one] : [{ ...one, where: "fleet", what: `${alike.toLocaleString("en")} more like these`, toDo: "mas doctor --json names them." }];
  });
}

export function findings(fleet: Fleet | null): Findings {
  const all: Finding[] = [];
  const add = (kind: Finding["kind"], code: string, where: string, what: string, toDo: string) => {
    // Each server tells of Redis and of agents; one is enough.
    if (!all.some((one) => one.code === code && one.where === where && one.toDo === toDo)) all.push({ kind, code, where, what, toDo });
  };
  // Of a version that somebody has for a while: all look twice a second, and tell once a second.
  const inForce = Math.max(0, ...(fleet?.servers ?? []).map(({ status }) => (
    status && status.time_unix_ms - (status.quarantine_taken_unix_ms ?? 0) > QUARANTINE_MS ? status.quarantine_version ?? 0 : 0)));
  for (const { server, status, problem, trusted, age_ms } of fleet?.servers ?? []) {
    const where = status?.host ? `${status.host} (${shortServer(server)})` : shortServer(server);
    if (problem) {
      add("bad", !trusted ? "report_not_trusted" : problem.startsWith("gone") ? "server_gone" : "no_report", where, problem,
        trusted ? "Look whether mas-server runs on that host and reaches Redis."
          : "Somebody writes into Redis: look who has its password, and whether all servers have the same store key.");
    } else if (age_ms !== null && age_ms > LATE_REPORT_MS) {
      const isOld = age_ms > OLD_REPORT_MS;
      add(isOld ? "bad" : "warn", isOld ? "no_report" : "report_late", where, `no report for ${duration(age_ms)}`, "Look whether mas-server runs on that host and reaches Redis.");
    }
    if (!status) continue;
    for (const check of status.checks) {
      if (check.problem) add("bad", check.name, where, check.problem, CHECKS[check.name] ?? "Look into the server's log.");
    }
    for (const trouble of status.troubles) {
      add("warn", trouble.code, where, trouble.why, TROUBLES[trouble.code] ?? "docs/metrics.md has the list of codes.");
    }
    for (const [name, end] of Object.entries(status.certificates_end_unix_s)) {
      const left = end * 1_000 - status.time_unix_ms;
      if (left < CERTIFICATE_DAYS * DAY_MS) {
        add(left <= 0 ? "bad" : "warn", "certificate", where,
          left <= 0 ? `certificate ${name} has ended` : `certificate ${name} ends in ${duration(left)}`,
          name === "ca" ? "Make another authority and issue all certificates anew." : "mas certs issue makes another one; SIGHUP takes it up.");
      }
    }
    for (const [agent, end] of Object.entries(status.agents_certificates_end_unix_s ?? {})) {
      const left = end * 1_000 - status.time_unix_ms;
      // Whoever shows an ended certificate may be somebody else: that is no harm to the fleet.
      add("warn", "agent_certificate", agent,
        left <= 0 ? `the certificate of ${agent} has ended, and it is refused` : `the certificate of ${agent} ends in ${duration(left)}`,
        `mas certs issue ${agent} makes another one; then have it connect again.`);
    }
    if (status.quarantine_version !== undefined && status.quarantine_version < inForce) {
      add("bad", "quarantine_not_followed", where, "this server does not know the quarantine in force, and lets in who was shut out",
        "If it stays: look at its log for quarantine, or stop it (mas drain).");
    }
    if (status.checkpoint_unix_ms !== null && status.time_unix_ms - status.checkpoint_unix_ms > OLD_CHECKPOINT_MS) {
      add("warn", "checkpoint_old", where, `the newest checkpoint is ${duration(status.time_unix_ms - status.checkpoint_unix_ms)} old`,
        "What came since is not sealed: look at the Audit page.");
    }
    for (const { whom, by, since_unix_ms } of status.quarantine ?? []) {
      add("warn", "quarantined", whom, `${whom} is shut out since ${time(since_unix_ms)} by ${by}`,
        `When it may come back: mas release ${whom.startsWith("agent:") ? whom.slice(6) : whom === "all" ? "--all" : `--capability ${whom.slice(11)}`} --reason …`);
    }
    for (const agent of status.circuits_open) {
      add("warn", "circuit_open", agent, `the circuit of ${agent} is open: nothing is sent to it`,
        `Look why its handlers fail: mas tap --agent ${agent} --action nack. It closes by itself when they succeed.`);
    }
    for (const inbox of status.inboxes) {
      if (inbox.waiting > 0 && !(fleet?.servers ?? []).some((one) => (one.status?.sessions[inbox.agent] ?? 0) > 0)) {
        add("warn", "inbox_unread", inbox.agent, `${count(inbox.waiting)} wait for ${inbox.agent}, and no instance of it is connected`,
          `Start ${inbox.agent}, or empty its inbox: mas inbox empty ${inbox.agent}.`);
      }
    }
    const { foreign_entries = 0, dead_letters = 0 } = status.redis;
    if (foreign_entries > 0) {
      add("warn", "foreign_entries", "Redis", `${count(foreign_entries)} entries that no server has written were put aside`,
        "mas foreign list shows them: somebody else writes into Redis.");
    }
    if (dead_letters > 0) {
      add("warn", "dead_letters", "Redis", `${count(dead_letters)} dead letters`, "Look at their reasons on the page Dead letters.");
    }
  }
  if (fleet?.rules_differ) add("warn", "rules_differ", "fleet", "the servers have different rules", TROUBLES["rules_differ"] ?? "");
  if (fleet?.versions_differ) add("warn", "versions_differ", "fleet", "the servers have different versions", TROUBLES["versions_differ"] ?? "");
  // What the fleet as a whole tells, a server's own trouble of the same name repeats.
  const told = all.filter((one) => !(one.kind === "warn" && one.where !== "fleet" && OF_THE_FLEET.has(one.code)
    && all.some((other) => other !== one && other.code === one.code && (other.where === "fleet" || other.kind === "bad"))));
  const ordered = few(told.sort((a, b) => (a.kind === b.kind ? 0 : a.kind === "bad" ? -1 : 1)));
  return { bad: ordered.filter((one) => one.kind === "bad").length, warn: ordered.filter((one) => one.kind === "warn").length, all: ordered };
}
