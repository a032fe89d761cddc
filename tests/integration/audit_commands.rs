//! What auditors and operators do with a trail: take it away, ask it, prove a part of it, try other rules on it.

use std::path::PathBuf;
use std::process::Output;

use mas::protocol::SendRequest;
use serde_json::{Value, json};

use crate::support::World;

/// A world with a history: messages that passed, were refused, redacted and blocked, a request with its reply,
/// one that died. The server has stopped.
struct History {
    world: World,
    sent: String,
    receipt: Value,
    request: String,
    reply: String,
    dead: String,
}

const HOSTILE: &str = "=cmd|' /C calc'!A0,\"x\"\u{1b}[2J\u{202e}";

fn history() -> History {
    let mut world = World::with(
        World::PAIR,
        "delivery: {reclaim_idle_ms: 300, max_attempts: 2, retry_backoff_ms: [1]}\n",
    );
    world
        .set_gateway("rate_limit: {per_minute: 1000, per_hour: 10000}, audit: {checkpoint_interval_ms: 100}");
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let request = SendRequest {
        target_id: "beta".to_owned(),
        message_type: "order".to_owned(),
        data_json: "{\"x\":1}".to_owned(),
        instance_id: "a".to_owned(),
        ..SendRequest::default()
    };
    let response = alpha.send_raw(&request).unwrap();
    let receipt = response.receipt.into_option().unwrap();
    let receipt = json!({
        "lane": receipt.lane, "sequence": receipt.sequence,
        "record_hash": mas::ids::hex(&receipt.record_hash),
        "policy_version": mas::ids::hex(&receipt.policy_version),
        "sender_sequence": receipt.sender_sequence, "message_id": response.message_id,
    });
    b.take();
    let correlation = alpha.request("a", "beta", "{}", 5000).unwrap();
    let asked = b.take();
    let reply = beta.reply("b", &correlation, "{\"ok\":true}").unwrap();
    a.take();
    alpha.send("a", "gamma", "{}").unwrap_err();
    alpha.send("a", HOSTILE, "{}").unwrap_err();
    alpha.send("a", "beta", "{\"ssn\":\"123-45-6789\"}").unwrap();
    b.take();
    alpha.send("a", "beta", "{\"card\":\"4111 1111 1111 1111\"}").unwrap_err();
    let dead = alpha.send("a", "beta", "{}").unwrap();
    b.nack(&b.next().id, "cannot", true);
    b.nack(&b.next().id, "cannot", true);
    crate::support::until("the dead letter", || world.redis.len("dlq:messages") == 1);
    drop((a, b));
    server.stop();
    let request = asked.message_id().to_owned();
    History { world, sent: response.message_id, receipt, request, reply, dead }
}

#[track_caller]
fn text(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}{errors}");
    text
}

impl History {
    #[track_caller]
    fn mas(&self, args: &[&str]) -> String {
        text(&self.world.mas(args), 0)
    }

    #[track_caller]
    fn lines(&self, args: &[&str]) -> Vec<Value> {
        self.mas(args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.world.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

#[test]
fn an_export_verifies_offline_as_the_live_trail_does() {
    let history = history();
    let world = &history.world;
    let _ = history.mas(&["audit", "export", "all.jsonl"]);
    let anchor = ["--anchor", "audit-anchor.jsonl", "--public-key", "keys/audit.ed25519.pub"];
    let offline = |file: &str, anchor: &[&str]| {
        let words: Vec<&str> =
            ["audit", "verify", "--json", "--export", file].iter().chain(anchor).copied().collect();
        world.mas(&words)
    };
    let mut live: Value = serde_json::from_str(&history.mas(&["audit", "verify", "--json"])).unwrap();
    let mut away: Value = serde_json::from_str(&text(&offline("all.jsonl", &anchor), 0)).unwrap();
    for report in [&mut live, &mut away] {
        assert_eq!(report["intact"], true);
        report["messages"]["older"] = Value::Null;
    }
    assert_eq!(live, away);
    let without: Value = serde_json::from_str(&text(&offline("all.jsonl", &[]), 0)).unwrap();
    let unknown = without["not_shown"].to_string();
    assert!(
        unknown.contains("without the public key") && unknown.contains("without the anchor"),
        "{unknown}"
    );

    // To standard output it is the same but for the time at which it was made.
    let piped = history.mas(&["audit", "export", "-"]);
    let whole = std::fs::read_to_string(world.path().join("all.jsonl")).unwrap();
    let body = |text: &str| {
        text.lines().skip(1).take(text.lines().count() - 2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(body(&piped), body(&whole));
    // It is not written over another file.
    assert_eq!(world.mas(&["audit", "export", "all.jsonl"]).status.code(), Some(1));

    // Any line that is changed or missing, and any cut.
    let lines: Vec<&str> = whole.lines().collect();
    for at in [1, lines.len() / 2, lines.len() - 1] {
        let mut cut = lines.clone();
        let _ = cut.remove(at);
        let _ = history.file("cut.jsonl", &format!("{}\n", cut.join("\n")));
        assert_eq!(offline("cut.jsonl", &anchor).status.code(), Some(3), "line {at}");
    }
    let _ = history.file("cut.jsonl", &whole[..whole.len() / 2]);
    assert_eq!(offline("cut.jsonl", &anchor).status.code(), Some(3));
}

#[test]
fn a_stretch_of_the_trail_is_exported_and_verified_by_itself() {
    let history = history();
    let records = history.lines(&["audit", "query"]);
    let times: Vec<u64> = records.iter().map(|record| record["time_us"].as_u64().unwrap()).collect();
    let (first, last) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
    let middle = format!("{:.6}", (first + (last - first) / 2) as f64 / 1e6);
    let _ = history.mas(&["audit", "export", "--from", &middle, "late.jsonl"]);
    let _ = history.mas(&["audit", "export", "--to", &middle, "early.jsonl"]);
    let key = ["--public-key", "keys/audit.ed25519.pub"];
    for (file, partial) in [("late.jsonl", true), ("early.jsonl", false)] {
        let words: Vec<&str> =
            ["audit", "verify", "--json", "--export", file].iter().chain(&key).copied().collect();
        let report: Value = serde_json::from_str(&text(&history.world.mas(&words), 0)).unwrap();
        assert!(report["records"].as_u64().unwrap() > 0 && report["records"] != records.len(), "{report}");
        let says = report["not_shown"].to_string().contains("before this part");
        assert_eq!(says, partial, "{report}");
    }
    // Wherever it is cut, what is left is no damage.
    for (n, time_us) in times.iter().enumerate() {
        let file = format!("cut-{n}.jsonl");
        let _ = history.mas(&["audit", "export", "--from", &format!("{:.6}", *time_us as f64 / 1e6), &file]);
        let words: Vec<&str> =
            ["audit", "verify", "--json", "--export", &file].iter().chain(&key).copied().collect();
        let _ = text(&history.world.mas(&words), 0);
    }
}

#[test]
fn a_lane_that_was_opened_behind_an_exported_stretch_is_not_missed_in_it() {
    let world = World::new();
    let url = format!("url: '{}', socket_timeout: 2", world.redis.url());
    let mut server = world.server_with(8, &url);
    let lanes = || world.redis.query::<usize>(&["HLEN", "audit:lanes"]);
    crate::support::until("the start is on record", || lanes() > 0);
    let before = lanes();
    let now_us = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    for agent in ["alpha", "beta", "gamma", "delta"] {
        drop(world.client(&server, agent).session("i"));
    }
    server.stop();
    assert!(lanes() > before, "another worker has opened its lane");
    let to = format!("{:.6}", now_us as f64 / 1e6);
    let _ = text(&world.mas(&["audit", "export", "--to", &to, "early.jsonl"]), 0);
    let _ = text(&world.mas(&["audit", "verify", "--json", "--export", "early.jsonl"]), 0);
}

#[test]
fn records_are_found_by_what_is_in_them() {
    let history = history();
    let count = |args: &[&str]| {
        let words: Vec<&str> = ["audit", "query"].iter().chain(args).copied().collect();
        history.lines(&words).len()
    };
    assert_eq!(count(&["--decision", "AUTHZ_DENIED"]), 2);
    assert_eq!(count(&["--sender", "beta", "--action", "reply"]), 1);
    assert_eq!(count(&["--target", "gamma"]), 1);
    assert_eq!(count(&["--target", HOSTILE]), 1);
    assert_eq!(count(&["--violation", "ssn"]), 1);
    assert_eq!(count(&["--violation", "credit_card", "--decision", "dlp_blocked"]), 1);
    assert_eq!(count(&["--decision", "DLP_BLOCKED", "--decision", "DLP_REDACTED"]), 2);
    // Decided, delivered, acknowledged.
    assert_eq!(count(&["--message-id", &history.sent]), 3);
    assert_eq!(count(&["--from", "2000-01-01", "--to", "2001-01-01"]), 0);
    assert_eq!(count(&["--limit", "2"]), 2);
    for bad in [["--decision", "MAYBE"], ["--action", "fly"], ["--from", "soon"]] {
        let words: Vec<&str> = ["audit", "query"].iter().chain(&bad).copied().collect();
        assert_eq!(history.world.mas(&words).status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn comma_separated_values_hold_hostile_text_in_one_cell_of_one_line() {
    let history = history();
    let csv = history.mas(&["audit", "query", "--csv", "--decision", "AUTHZ_DENIED"]);
    assert!(!csv.contains('\u{1b}') && !csv.contains('\u{202e}'));
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3, "{csv}");
    assert!(lines[0].starts_with("lane,seq,time,action,decision,agent,"));
    let hostile = lines.iter().find(|line| line.contains("calc")).unwrap();
    assert!(hostile.contains("\"'=cmd|' /C calc'!A0,\"\"x\"\"\\u{1b}[2J\\u{202e}\""), "{hostile}");
}

#[test]
fn one_messages_life_reads_as_a_chain() {
    let history = history();
    let actions = |id: &str| {
        let shown: Value = serde_json::from_str(&history.mas(&["audit", "show", "--json", id])).unwrap();
        let chain = shown["chain"].as_array().unwrap();
        let actions: Vec<String> =
            chain.iter().map(|step| step["action"].as_str().unwrap().to_owned()).collect();
        (actions, shown)
    };
    let (chain, shown) = actions(&history.sent);
    assert_eq!(chain, ["send", "delivered", "acked"]);
    assert_eq!(shown["state"], "acknowledged");
    assert_eq!((&shown["chain"][1]["instance"], &shown["chain"][1]["attempt"]), (&json!("b"), &json!(1)));
    let (chain, shown) = actions(&history.request);
    assert_eq!(chain, ["request", "delivered", "acked"]);
    assert_eq!(shown["related"][0]["message_id"], history.reply.as_str());
    let (_, shown) = actions(&history.reply);
    assert_eq!(shown["related"][0]["message_id"], history.request.as_str());
    let (chain, shown) = actions(&history.dead);
    assert_eq!(chain.first().map(String::as_str), Some("send"));
    assert_eq!(chain.last().map(String::as_str), Some("dead_letter"));
    assert_eq!(chain.iter().filter(|action| *action == "nack").count(), 2, "{chain:?}");
    assert_eq!(shown["state"], "dead");
    let text = history.mas(&["audit", "show", &history.dead]);
    assert!(text.contains("to the dead letters of beta"), "{text}");
    let unknown = uuid::Uuid::now_v7().to_string();
    assert_eq!(history.world.mas(&["audit", "show", &unknown]).status.code(), Some(1));
}

#[test]
fn a_report_accounts_for_a_stretch_of_time() {
    let history = history();
    let report: Value = serde_json::from_str(&history.mas(&["audit", "report", "--json"])).unwrap();
    assert_eq!(report["messages"], 8);
    assert_eq!(report["decisions"]["AUTHZ_DENIED"], 2);
    assert_eq!(report["senders"]["top"][0], json!({"name": "alpha", "count": 7, "refused": 3}));
    let violations = report["violations"]["top"].to_string();
    assert!(violations.contains("ssn (default.ssn)") && violations.contains("credit_card"), "{violations}");
    assert_eq!(report["verification"]["intact"], true);
    let text = history.mas(&["audit", "report"]);
    assert!(text.contains("AUTHZ_DENIED") && text.contains("intact") && !text.contains('\u{1b}'), "{text}");
    let empty: Value =
        serde_json::from_str(&history.mas(&["audit", "report", "--json", "--to", "2001-01-01"])).unwrap();
    assert_eq!((&empty["records"], &empty["verification"]["intact"]), (&json!(0), &json!(true)));
}

#[test]
fn a_receipt_becomes_a_proof_that_is_checked_with_the_public_key_alone() {
    let history = history();
    let world = &history.world;
    let receipt = history.file("receipt.json", &history.receipt.to_string());
    let receipt = receipt.to_str().unwrap();
    let proof = history.mas(&["audit", "proof", "--receipt", receipt]);
    let lane = history.receipt["lane"].as_str().unwrap();
    let sequence = history.receipt["sequence"].to_string();
    assert_eq!(history.mas(&["audit", "proof", "--lane", lane, "--sequence", &sequence]), proof);
    assert_eq!(history.mas(&["audit", "proof", "--message-id", &history.sent]), proof);
    // From an export, too.
    let _ = history.mas(&["audit", "export", "all.jsonl"]);
    assert_eq!(history.mas(&["audit", "proof", "--export", "all.jsonl", "--receipt", receipt]), proof);

    let file = history.file("proof.json", &proof);
    let check = |file: &str, key: &str, more: &[&str]| {
        let words = ["audit", "proof", "--check", file, "--public-key", key];
        let words: Vec<&str> = words.iter().chain(more).copied().collect();
        // Nothing of the server is at hand.
        world.mas_command(&words).env("MAS_CONFIG_FILE", "/nowhere").output().unwrap()
    };
    let (file, key) = (file.to_str().unwrap(), "keys/audit.ed25519.pub");
    let shown = text(&check(file, key, &["--receipt", receipt]), 0);
    assert!(shown.contains("proven") && shown.contains("alpha/a → beta"), "{shown}");
    let shown: Value = serde_json::from_str(&text(&check(file, key, &["--json"]), 0)).unwrap();
    assert_eq!(shown["record"]["message_id"], history.sent.as_str());

    // Another record's receipt, an altered proof, another key.
    let other = json!({"lane": lane, "sequence": 1, "record_hash": "00", "policy_version": "00"});
    let other = history.file("other.json", &other.to_string());
    let _ = text(&check(file, key, &["--receipt", other.to_str().unwrap()]), 3);
    let mut altered: Value = serde_json::from_str(&proof).unwrap();
    altered["sequence"] = json!(altered["sequence"].as_u64().unwrap() + 1);
    let altered = history.file("altered.json", &altered.to_string());
    let _ = text(&check(altered.to_str().unwrap(), key, &[]), 3);
    let stranger =
        mas::audit::note::SigningKey::from_pem(&mas::audit::note::SigningKey::generate_pem().unwrap());
    let stranger = mas::audit::KeyHistory::new(&stranger.unwrap()).encode();
    let stranger = history.file("stranger.pub", &stranger);
    let _ = text(&check(file, stranger.to_str().unwrap(), &[]), 3);
}

#[test]
fn a_candidate_configuration_says_which_decisions_would_be_others() {
    let history = history();
    let current = std::fs::read_to_string(history.world.config_path()).unwrap();
    let replay = |name: &str, from: &str, to: &str| {
        assert!(current.contains(from), "{from} is not in {current}");
        let file = history.file(name, &current.replace(from, to));
        let mut lines = history.lines(&["policy", "replay", "--json", "--config", file.to_str().unwrap()]);
        let summary = lines.pop().unwrap();
        assert_eq!(summary["decisions"], 8);
        (lines, summary)
    };
    // The configuration that decided decides the same.
    let (changes, summary) = replay("same.yaml", "agents:", "agents:");
    assert_eq!((changes.len(), &summary["changed"], &summary["content_unknown"]), (0, &json!(0), &json!(0)));

    // gamma may be messaged now.
    let allow = "permissions:\n  - {type: allow, sender: alpha, targets: [gamma]}";
    let (changes, summary) = replay("wider.yaml", "permissions:", allow);
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!((&changes[0]["was"], &changes[0]["would_be"]), (&json!("AUTHZ_DENIED"), &json!("ALLOWED")));
    assert_eq!(changes[0]["why"], "permissions[0] allows it");
    assert!(changes[0]["content"].as_str().unwrap().contains("payload not recorded"));
    assert_eq!(summary["changes"][0]["count"], 1);
    assert!(summary["content_unknown"].as_u64().unwrap() > 0);

    // A rule less: what passed is refused, and the reply to a request that nobody could make.
    let (changes, _) = replay(
        "narrower.yaml",
        "permissions:",
        "permissions:\n  - {type: deny, sender: alpha, targets: [beta]}",
    );
    assert!(changes.iter().all(|change| change["would_be"] != "ALLOWED"), "{changes:?}");
    let denied = changes.iter().filter(|change| change["why"] == "permissions[0] denies it").count();
    assert_eq!(denied, 5, "{changes:?}");
    assert!(changes.iter().any(|change| change["why"] == "unknown_correlation_id"), "{changes:?}");

    // What was found is judged anew.
    let (changes, _) = replay(
        "dlp.yaml",
        "rate_limit:",
        "dlp: {policy_overrides: {ssn: block, credit_card: alert}}, rate_limit:",
    );
    let mut kinds: Vec<(&str, &str)> =
        changes.iter().map(|c| (c["was"].as_str().unwrap(), c["would_be"].as_str().unwrap())).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [("DLP_BLOCKED", "ALERT"), ("DLP_REDACTED", "DLP_BLOCKED")]);

    // Three in a minute.
    let (changes, _) = replay("slower.yaml", "per_minute: 1000,", "per_minute: 3,");
    let limited: Vec<_> = changes.iter().filter(|change| change["would_be"] == "RATE_LIMITED").collect();
    assert!(!limited.is_empty() && limited.len() <= 2, "{changes:?}");
    assert_eq!(limited[0]["why"], "rate_limit.per_minute is reached");

    let text = history.mas(&["policy", "replay", "--config", "wider.yaml"]);
    assert!(
        text.contains("AUTHZ_DENIED would be ALLOWED") && text.contains("1 of them would be others"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn archived_segments_and_what_is_still_in_redis_verify_as_one() {
    let mut world = World::new();
    world.set_gateway(
        "rate_limit: {per_minute: 1000000, per_hour: 10000000}, \
         audit: {checkpoint_interval_ms: 50, max_records: 60, archive_dir: archive}",
    );
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let mut ids = Vec::new();
    let segments = || {
        let names = std::fs::read_dir(world.path().join("archive")).into_iter().flatten();
        let mut names: Vec<PathBuf> = names.map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| path.to_str().unwrap().ends_with(".jsonl.zst"));
        names.sort();
        names
    };
    crate::support::until("three segments", || {
        for _ in 0..30 {
            let mut id = None;
            // At eight times the cap the server waits for its archive.
            crate::support::until("it is admitted", || match alpha.send("a", "beta", "{}") {
                Ok(sent) => {
                    id = Some(sent);
                    true
                }
                Err(refused) => {
                    assert_eq!(refused.details, "audit_full");
                    false
                }
            });
            ids.extend(id);
            b.take();
        }
        // Also while a server archives.
        assert_eq!(world.verify().0, 0);
        segments().len() >= 3
    });
    drop((a, b));
    server.stop();
    let (code, report) = world.verify();
    assert_eq!((code, &report["messages"]["accepted"]), (0, &json!(ids.len())), "{report}");
    assert_eq!(report["unsealed"], 0);
    let live: usize = world
        .redis
        .keys()
        .iter()
        .filter(|key| key.starts_with("audit:lane:"))
        .map(|key| world.redis.len(key))
        .sum();
    assert!(report["records"].as_u64().unwrap() > live as u64, "{report}");

    // Whatever is asked is answered from both.
    let lines = |args: &[&str]| text(&world.mas(args), 0).lines().count();
    assert_eq!(lines(&["audit", "query", "--action", "send"]), ids.len());
    assert!(text(&world.mas(&["audit", "show", &ids[0]]), 0).contains("acknowledged"));
    let proof = text(&world.mas(&["audit", "proof", "--message-id", &ids[0]]), 0);
    std::fs::write(world.path().join("proof.json"), proof).unwrap();
    let check = ["audit", "proof", "--check", "proof.json", "--public-key", "keys/audit.ed25519.pub"];
    let _ = text(&world.mas(&check), 0);
    let _ = text(&world.mas(&["audit", "export", "all.jsonl"]), 0);
    let key = ["--public-key", "keys/audit.ed25519.pub", "--anchor", "audit-anchor.jsonl"];
    let words: Vec<&str> =
        ["audit", "verify", "--json", "--export", "all.jsonl"].iter().chain(&key).copied().collect();
    let away: Value = serde_json::from_str(&text(&world.mas(&words), 0)).unwrap();
    assert_eq!(away["records"], report["records"]);

    // Without the archive the beginning is missing; a segment that is lost or altered is found.
    let files = segments();
    let middle = &files[files.len() / 2];
    let whole = std::fs::read(middle).unwrap();
    std::fs::remove_file(middle).unwrap();
    let (code, report) = world.verify();
    assert_eq!((code, &report["intact"]), (3, &json!(false)));
    let mut altered = whole.clone();
    let at = altered.len() / 2;
    altered[at] ^= 1;
    std::fs::write(middle, altered).unwrap();
    assert_eq!(world.mas(&["audit", "verify"]).status.code(), Some(3));
    std::fs::write(middle, whole).unwrap();
    world.assert_intact();
    let empty = world.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert_eq!(world.mas(&["audit", "verify", "--archive", "empty"]).status.code(), Some(3));
}
