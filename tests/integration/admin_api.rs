//! The read side of the admin API: what each path answers is what the commands say of the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use mas::certs::{ca_file, operator_files};
use serde_json::{Value as Json, json};

use crate::support::{Server, World, get, get_as, until, within};

/// How soon what is wrong must show.
const SHOWS: Duration = Duration::from_secs(3);

const RULES: &str = "permissions:\n\
    - {type: allow_broadcast, sender: alpha, receivers: [beta, gamma]}\n\
    - {type: allow, sender: beta, targets: [alpha]}\n\
    roles: [{name: worker, permissions: ['send:gamma']}]\n\
    agents:\n\
    - {agent_id: alpha, capabilities: [plan], roles: [worker]}\n\
    - {agent_id: beta, rate_limit: {per_minute: 7, per_hour: 70}}\n\
    - {agent_id: gamma}\n";

fn world() -> World {
    let mut world = World::new();
    world.set_admin("127.0.0.1:0");
    world.set_agents(RULES);
    world
}

/// Asks; the answer and its status.
#[track_caller]
fn ask(server: &Server, path: &str) -> (u16, Json) {
    let answered = get(server.admin.as_ref().unwrap(), path).unwrap();
    let json = serde_json::from_str(&answered.body);
    (answered.status, json.unwrap_or_else(|error| panic!("{path}: {error}: {}", answered.body)))
}

#[track_caller]
fn ok(server: &Server, path: &str) -> Json {
    let (status, json) = ask(server, path);
    assert_eq!(status, 200, "{path}: {json}");
    json
}

/// What a command prints, a JSON value a line.
#[track_caller]
fn lines(world: &World, args: &[&str]) -> Vec<Json> {
    let output = world.mas(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// All pages of a search.
#[track_caller]
fn pages(server: &Server, query: &str, limit: usize) -> Vec<Json> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ok(server, &format!("/api/v1/records?{query}&limit={limit}{cursor}"));
        let records = page["records"].as_array().unwrap();
        assert!(records.len() <= limit);
        all.extend(records.iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => {
                assert_eq!(page["complete"], true, "{page}");
                return all;
            }
        }
    }
}

fn texts(records: &[Json]) -> Vec<String> {
    let mut texts: Vec<String> = records.iter().map(Json::to_string).collect();
    texts.sort();
    texts
}

#[test]
fn records_are_those_of_the_query_in_either_order_and_in_parts() {
    let mut world = world();
    // Soon in files, too.
    world.set_gateway("audit: {max_records: 60, checkpoint_interval_ms: 50}, rate_limit: {per_minute: 100000, per_hour: 100000}");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    for n in 0..120 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
        b.take();
        if n % 10 == 0 {
            assert!(beta.send("b", "gamma", "{}").is_err());
        }
    }
    let has_left = |key: &String| {
        key.starts_with("audit:lane:") && world.redis.entries_ids(key).first().is_some_and(|first| *first > 1)
    };
    until("some of it is in files alone", || world.redis.keys().iter().any(has_left));
    let acked = || lines(&world, &["audit", "query", "--action", "acked"]).len();
    until("everything is on record", || acked() > 0 && world.redis.len("agent.stream:beta") == 0);
    // Nothing happens any more, so that both see the same.
    let query = || lines(&world, &["audit", "query"]);
    let mut recorded = query();
    until("nothing more is recorded", || {
        let before = std::mem::replace(&mut recorded, query());
        before.len() == recorded.len()
    });
    for order in ["newest", "oldest"] {
        for limit in [500, 37] {
            let mut found = texts(&pages(&server, &format!("order={order}"), limit));
            // What leaves Redis between two parts may come twice.
            if limit < recorded.len() {
                found.dedup();
            }
            assert_eq!(found, texts(&recorded), "{order}, {limit}");
        }
    }
    let newest = pages(&server, "order=newest", 500);
    let of_lane = |lane: &Json| -> Vec<u64> {
        newest.iter().filter(|r| r["lane"] == *lane).map(|r| r["seq"].as_u64().unwrap()).collect()
    };
    for lane in recorded.iter().map(|record| &record["lane"]) {
        assert!(of_lane(lane).is_sorted_by(|a, b| a > b), "{lane}");
    }

    let fitting = |fits: &dyn Fn(&Json) -> bool| {
        texts(&recorded.iter().filter(|record| fits(record)).cloned().collect::<Vec<_>>())
    };
    let times: Vec<u64> = recorded.iter().map(|record| record["time_us"].as_u64().unwrap()).collect();
    let (since, until_us) = (times[times.len() / 3], times[times.len() / 2]);
    let message = recorded.iter().find(|record| record["action"] == "send").unwrap()["message_id"].clone();
    let about = |record: &Json| {
        record["message_id"] == message
            || record["messages"].as_array().unwrap().iter().any(|m| m["message_id"] == message)
    };
    let in_time = |record: &Json| (since..until_us).contains(&record["time_us"].as_u64().unwrap());
    type Fits<'a> = &'a dyn Fn(&Json) -> bool;
    let queries: [(String, Fits<'_>); 5] = [
        ("decision=authz_denied".to_owned(), &|r| r["decision"] == "AUTHZ_DENIED"),
        ("from=beta&to=gamma,nobody".to_owned(), &|r| r["agent"] == "beta" && r["target"] == "gamma"),
        ("agent=gamma&action=send,request".to_owned(), &|r| r["target"] == "gamma" && r["action"] == "send"),
        (format!("since={since}&until={until_us}"), &in_time),
        (format!("message={}", message.as_str().unwrap()), &about),
    ];
    for (query, fits) in queries {
        let expected = fitting(fits);
        assert!(!expected.is_empty(), "{query}");
        for order in ["newest", "oldest"] {
            assert_eq!(
                texts(&pages(&server, &format!("{query}&order={order}"), 50)),
                expected,
                "{query} {order}"
            );
        }
    }
    for bad in [
        "limit=0",
        "limit=501",
        "order=up",
        "decision=NO",
        "action=fly",
        "cursor=x",
        "message=1",
        "since=soon",
        "correlation=12",
        "since=2&until=1",
        "limit=5&limit=6",
        "what=1",
    ] {
        let (status, json) = ask(&server, &format!("/api/v1/records?{bad}"));
        assert_eq!(status, 400, "{bad}: {json}");
        assert!(!json["error"].as_str().unwrap().is_empty());
    }

    // The same for proofs: of a record that is in a file only, and of a new one.
    let by_age = |newest: bool| {
        let mut sends = recorded.iter().filter(|record| record["action"] == "send");
        if newest { sends.next_back().unwrap() } else { sends.next().unwrap() }
    };
    for record in [by_age(false), by_age(true)] {
        proof_holds(&world, &server, record);
    }
}

/// What the server hands out is a proof by the command's judgement.
fn proof_holds(world: &World, server: &Server, record: &Json) {
    let place = format!("{}/{}", record["lane"].as_str().unwrap(), record["seq"]);
    let mut proof = Json::Null;
    until("a checkpoint covers it", || {
        let (status, json) = ask(server, &format!("/api/v1/proofs/{place}"));
        proof = json;
        status == 200
    });
    assert_eq!(proof["record"], *record);
    let (file, key) = (world.path().join("proof.json"), world.path().join("key.pub"));
    std::fs::write(&file, proof["proof"].to_string()).unwrap();
    std::fs::write(&key, proof["public_key_file"].as_str().unwrap()).unwrap();
    let (file, key) = (file.display().to_string(), key.display().to_string());
    let checked = lines(world, &["audit", "proof", "--check", &file, "--public-key", &key, "--json"]);
    assert_eq!((&checked[0]["proven"], &checked[0]["record_hash"]), (&json!(true), &proof["leaf_hash"]));
    let mut forged = proof["proof"].clone();
    forged["sequence"] = json!(forged["sequence"].as_u64().unwrap() + 1);
    std::fs::write(&file, forged.to_string()).unwrap();
    let refused = world.mas(&["audit", "proof", "--check", &file, "--public-key", &key]);
    assert_eq!(refused.status.code(), Some(3));
}

#[test]
fn a_message_is_found_by_its_id_its_correlation_and_its_receipt() {
    let world = world();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let _ = alpha.request("a", "beta", "{\"q\":1}", 5000).unwrap();
    let asked = b.take();
    beta.reply("b", asked.correlation_id(), "{\"r\":2}").unwrap();
    let answer = a.take();
    let by_id = format!("/api/v1/messages/{}", asked.message_id());
    until("it is on record as done", || {
        let (status, json) = ask(&server, &by_id);
        status == 200 && json["state"] == "acknowledged" && !json["related"].as_array().unwrap().is_empty()
    });
    let shown = lines(&world, &["audit", "show", asked.message_id(), "--json"]).remove(0);
    let mut found = ok(&server, &by_id);
    assert_eq!(found["cut"], false);
    let _ = found.as_object_mut().unwrap().remove("cut");
    assert_eq!(found, shown);
    assert_eq!(found["related"][0]["message_id"], answer.message_id());
    let first = &found["chain"][0];
    let receipt = format!("{}:{}", first["lane"].as_str().unwrap(), first["seq"]);
    let by_correlation =
        ok(&server, &format!("/api/v1/messages/{}", first["correlation_id"].as_str().unwrap()));
    let by_receipt = ok(&server, &format!("/api/v1/messages/{receipt}"));
    assert_eq!((&by_correlation["chain"], &by_receipt["chain"]), (&found["chain"], &found["chain"]));
    let of_reply = ok(&server, &format!("/api/v1/messages/{}", answer.message_id()));
    assert_eq!(of_reply["related"][0]["message_id"], asked.message_id());
    for (id, status) in [
        ("0193a7c2-0000-7000-8000-000000000000", 404),
        ("0123456789abcdef0123456789abcdef", 404),
        ("nolane:5", 404),
        ("nothing", 400),
        ("lane:0", 400),
    ] {
        assert_eq!(ask(&server, &format!("/api/v1/messages/{id}")).0, status, "{id}");
    }
    let lane = first["lane"].as_str().unwrap();
    for (place, status) in [("x/1", 404), (&*format!("{lane}/0"), 400), (&*format!("{lane}/999999"), 404)] {
        assert_eq!(ask(&server, &format!("/api/v1/proofs/{place}")).0, status, "{place}");
    }
}

#[test]
fn agents_and_the_map_say_who_may_and_who_does() {
    let world = world();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    for _ in 0..5 {
        alpha.send("a", "beta", "{}").unwrap();
    }
    b.take();
    let _held = b.next();
    alpha.send("a", "gamma", "{}").unwrap();
    assert!(beta.send("b", "gamma", "{}").is_err());
    beta.update_state(&[("k", "v"), ("l", "w")]).unwrap();
    let agent = |name: &str| ok(&server, &format!("/api/v1/agents/{name}"));
    until("what was acknowledged has left", || {
        agent("beta")["inbox"]["waiting"] == 0 && {
            let beta = agent("beta");
            beta["inbox"]["delivered"] == 4 && beta["deliveries"]["ack"] == 1
        }
    });
    let seen = agent("beta");
    assert_eq!(seen["sessions"].as_object().unwrap().values().sum_one(), 1, "{seen}");
    assert_eq!((&seen["sent_by"], &seen["send_to"]), (&json!(["alpha"]), &json!(["alpha"])));
    assert_eq!(seen["sent"], json!([{"agent": "gamma", "decisions": {"AUTHZ_DENIED": 1}}]));
    assert_eq!(seen["received"], json!([{"agent": "alpha", "decisions": {"ALLOWED": 5}}]));
    assert_eq!((&seen["state"]["fields"], &seen["state"]["version"]), (&json!(2), &json!(1)));
    assert_eq!(seen["rate"]["per_minute"]["limit"], 7);
    assert!(seen["inbox"]["oldest_ms"].is_u64() && seen["quarantined"].is_null(), "{seen}");
    assert_eq!(seen["instances"][0]["instance"], "b");
    let sender = agent("alpha");
    assert_eq!(sender["rate"]["per_minute"]["used"], 6);
    assert_eq!((&sender["capabilities"], &sender["roles"]), (&json!(["plan"]), &json!(["worker"])));
    until("what waits for gamma is seen", || agent("gamma")["inbox"]["waiting"] == 1);
    assert_eq!(ask(&server, "/api/v1/agents/nobody").0, 404);

    let all = ok(&server, "/api/v1/agents");
    let names: Vec<&str> =
        all["agents"].as_array().unwrap().iter().map(|a| a["agent"].as_str().unwrap()).collect();
    assert_eq!((names, &all["total"]), (vec!["alpha", "beta", "gamma"], &json!(3)));
    assert_eq!(
        (&all["agents"][0]["may_send_to"], &all["agents"][1]["may_be_sent_by"]),
        (&json!(2), &json!(1))
    );
    let first = ok(&server, "/api/v1/agents?limit=2");
    assert_eq!(first["next"], "beta");
    let rest = ok(&server, "/api/v1/agents?limit=2&cursor=beta");
    assert_eq!((&rest["agents"][0]["agent"], &rest["next"]), (&json!("gamma"), &Json::Null));

    let map = ok(&server, "/api/v1/map");
    assert_eq!(map["agents"], json!(["alpha", "beta", "gamma"]));
    assert_eq!(map["allowed"], json!([[1, 2], [0], []]));
    assert_eq!(
        map["edges"],
        json!([[0, 1, {"ALLOWED": 5}], [0, 2, {"ALLOWED": 1}], [1, 2, {"AUTHZ_DENIED": 1}]])
    );
    // The same as the trail's own account.
    let report = lines(&world, &["audit", "report", "--json"]).remove(0);
    let counted: u64 = map["edges"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|edge| edge[2].as_object().unwrap().values())
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert_eq!(json!(counted), report["actions"]["send"], "{report}");
}

/// The sum of counts.
trait SumOne {
    fn sum_one(self) -> u64;
}

impl<'a, I: Iterator<Item = &'a Json>> SumOne for I {
    fn sum_one(self) -> u64 {
        self.map(|count| count.as_u64().unwrap()).sum()
    }
}

#[test]
fn the_rules_are_shown_and_explained_as_the_command_does() {
    let world = world();
    let server = world.server();
    let rules = ok(&server, "/api/v1/policy");
    assert_eq!(rules["permissions"][0]["text"], "alpha may send to beta, gamma");
    assert_eq!(rules["permissions"][1]["rule"], "permissions[1]");
    assert_eq!(
        rules["roles"],
        json!([{"name": "worker", "permissions": ["send:gamma"], "agents": ["alpha"]}])
    );
    assert_eq!(rules["rate_limits_of_agents"], json!([{"agent": "beta", "per_minute": 7, "per_hour": 70}]));
    assert_eq!(rules["policy_version"], ok(&server, "/api/v1/status")["policy_version"]);
    assert!(rules["dlp"]["types"].as_array().unwrap().iter().any(|rule| rule["type"] == "ssn"));
    for (from, to, data) in [
        ("alpha", "beta", "{}"),
        ("beta", "gamma", "{}"),
        ("nobody", "beta", "{}"),
        ("alpha", "nobody", "{}"),
        ("alpha", "beta", "{\"ssn\":\"123-45-6789\"}"),
        ("alpha", "beta", "no JSON"),
    ] {
        let said =
            lines(&world, &["policy", "explain", "--from", from, "--to", to, "--data", data, "--json"]);
        let data = data.replace('{', "%7B").replace('}', "%7D").replace('"', "%22").replace(' ', "%20");
        let found = ok(&server, &format!("/api/v1/policy/explain?from={from}&to={to}&data={data}"));
        // Digests of findings are keyed anew each time.
        let plain = |json: &Json| {
            let mut json = json.clone();
            for finding in json["findings"].as_array_mut().into_iter().flatten() {
                let _ = finding.as_object_mut().unwrap().remove("digest");
            }
            json
        };
        assert_eq!(plain(&found), plain(&said[0]), "{from} {to} {data}");
    }
    assert_eq!(ask(&server, "/api/v1/policy/explain?from=alpha").0, 400);
    assert_eq!(ask(&server, "/api/v1/policy/nothing").0, 404);
    // It counts nothing.
    until("the agents are known", || ok(&server, "/api/v1/agents/alpha")["rate"]["per_minute"]["used"] == 0);
}

#[test]
fn dead_letters_are_looked_through_and_shown_masked() {
    let mut world = world();
    world.set_gateway("dlp: {policy_overrides: {ssn: allow}}");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    for n in 0..5 {
        alpha.send("a", "beta", &format!("{{\"n\":{n},\"ssn\":\"123-45-6789\"}}")).unwrap();
        b.nack(&b.next().id, "never", false);
    }
    until("all are dead", || world.redis.len("dlq:messages") == 5);
    let listed = lines(&world, &["dlq", "list", "--json"]);
    let without_ours = |letters: &Json| -> Vec<Json> {
        let strip = |letter: &Json| {
            let mut letter = letter.clone();
            assert_eq!(letter.as_object_mut().unwrap().remove("ours"), Some(json!(true)));
            letter
        };
        letters.as_array().unwrap().iter().map(strip).collect()
    };
    let all = ok(&server, "/api/v1/dead-letters?order=oldest");
    assert_eq!(
        (without_ours(&all["letters"]), &all["total"], &all["next"]),
        (listed, &json!(5), &Json::Null)
    );
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ok(&server, &format!("/api/v1/dead-letters?limit=2{cursor}"));
        ids.extend(page["letters"].as_array().unwrap().iter().map(|letter| letter["id"].clone()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let mut backward: Vec<Json> =
        all["letters"].as_array().unwrap().iter().map(|l| l["id"].clone()).collect();
    backward.reverse();
    assert_eq!(ids, backward);
    assert_eq!(ok(&server, "/api/v1/dead-letters?agent=gamma")["letters"], json!([]));
    let id = ids[0].as_str().unwrap();
    let whole = ok(&server, &format!("/api/v1/dead-letters/{id}"));
    assert_eq!(whole["envelope"]["data"], json!({"n": 4, "ssn": "123-45-6789"}));
    assert_eq!((&whole["masked"], &whole["payload_problem"]), (&json!(false), &Json::Null));
    until("they are counted", || ok(&server, "/api/v1/agents/beta")["dead_letters"] == 5);
    // By the rules that are in force when it is shown.
    let text = std::fs::read_to_string(world.config_path()).unwrap();
    std::fs::write(world.config_path(), text.replace("ssn: allow", "ssn: block")).unwrap();
    server.signal(nix::sys::signal::Signal::SIGHUP);
    until("other rules are in force", || {
        ok(&server, &format!("/api/v1/dead-letters/{id}"))["masked"] == true
    });
    let masked = ok(&server, &format!("/api/v1/dead-letters/{id}"));
    assert!(masked["envelope"]["data"]["n"] == 4 && !masked.to_string().contains("123-45"), "{masked}");
    for (id, status) in [("1-1", 404), ("x", 400)] {
        assert_eq!(ask(&server, &format!("/api/v1/dead-letters/{id}")).0, status);
    }
    // What somebody else has put there is shown as such.
    let _: String =
        world.redis.query(&["XADD", "dlq:messages", "*", "envelope", "{\"data\":1}", "agent_id", "beta"]);
    assert_eq!(ok(&server, "/api/v1/dead-letters?limit=1")["letters"][0]["ours"], false);
}

#[test]
fn the_trail_is_accounted_for_and_its_last_verification_is_shown() {
    let world = world();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    alpha.send("a", "gamma", "{}").unwrap();
    until("everything is sealed", || {
        let audit = ok(&server, "/api/v1/audit");
        audit["unsealed"] == 0 && audit["checkpoints"][0]["counter"].as_u64() > Some(1)
    });
    let audit = ok(&server, "/api/v1/audit");
    let key = lines(&world, &["audit", "key", "show", "--json"]).remove(0);
    assert_eq!((&audit["log"]["id"], &audit["log"]["origin"]), (&key["log"], &key["origin"]));
    let lanes = audit["lanes"].as_array().unwrap();
    let heads: BTreeMap<&str, u64> =
        lanes.iter().map(|lane| (lane["lane"].as_str().unwrap(), lane["head"].as_u64().unwrap())).collect();
    let mut recorded: BTreeMap<String, u64> = BTreeMap::new();
    for record in lines(&world, &["audit", "query"]) {
        let last = recorded.entry(record["lane"].as_str().unwrap().to_owned()).or_default();
        *last = record["seq"].as_u64().unwrap().max(*last);
    }
    assert!(recorded.iter().all(|(lane, last)| heads[lane.as_str()] <= *last), "{heads:?} {recorded:?}");
    assert!(lanes.iter().any(|lane| lane["alive"] == true && lane["sealed"] == lane["head"]));
    assert_eq!(audit["anchor"]["state"], "good", "{audit}");
    assert_eq!((&audit["archive"]["segments"], &audit["verified"]), (&json!(0), &Json::Null));
    world.assert_intact();
    until("it is shown", || ok(&server, "/api/v1/audit")["verified"]["result"] == "verified");
    let verified = ok(&server, "/api/v1/audit")["verified"].clone();
    assert!(verified["trusted"] == true && verified["records"].as_u64() > Some(3), "{verified}");
    // Nobody else can say so.
    let stored: String = world.redis.query(&["GET", "mas.verified"]);
    let _: String =
        world.redis.query(&["SET", "mas.verified", &stored.replace("\"problems\":0", "\"problems\":9")]);
    until("it is not believed", || ok(&server, "/api/v1/audit")["verified"] == json!({"trusted": false}));
    // An anchor that was put back.
    let anchor = world.path().join("audit-anchor.jsonl");
    let text = std::fs::read_to_string(&anchor).unwrap();
    let first = text.lines().next().unwrap();
    let mut file = std::fs::File::create(world.path().join("old")).unwrap();
    writeln!(file, "{first}").unwrap();
    std::fs::rename(world.path().join("old"), &anchor).unwrap();
    let state = || ok(&server, "/api/v1/audit")["anchor"]["state"].clone();
    within(SHOWS, "it shows", || state() == "behind" || state() == "broken");
}

#[test]
fn two_servers_are_one_fleet_and_nobody_else_joins_it() {
    let mut world = world();
    let one = world.server();
    let two = world.server();
    let status = |server: &Server| ok(server, "/api/v1/status");
    let ids: BTreeSet<String> =
        [&one, &two].iter().map(|server| status(server)["server"].as_str().unwrap().to_owned()).collect();
    let members = |server: &Server| ok(server, "/api/v1/fleet")["servers"].as_array().unwrap().clone();
    let is_known = |member: &Json| member["trusted"] == true && member["status"]["ready"] == true;
    for server in [&one, &two] {
        until("both are known", || members(server).len() == 2 && members(server).iter().all(is_known));
        let found: BTreeSet<String> =
            members(server).iter().map(|m| m["server"].as_str().unwrap().to_owned()).collect();
        assert_eq!(found, ids);
    }
    let other = members(&one).into_iter().find(|member| member["this"] == false).unwrap();
    assert_eq!(other["status"]["listen_addr"], two.addr.as_str());
    assert_eq!(other["status"]["admin_addr"], two.admin.as_deref().unwrap());
    let fleet = ok(&one, "/api/v1/fleet");
    assert_eq!((&fleet["rules_differ"], &fleet["versions_differ"]), (&json!(false), &json!(false)));

    let key = format!("mas.report:{}", other["server"].as_str().unwrap());
    let stored: String = world.redis.query(&["GET", &key]);

    // What happens on one is seen on the other: sessions, counts, events.
    let (alpha, beta) = (world.client(&one, "alpha"), world.client(&two, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let addr = two.admin.clone().unwrap();
    let mut stream = std::net::TcpStream::connect(&addr).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    write!(stream, "GET /api/v1/events?fleet=1&action=send HTTP/1.1\r\nHost: {addr}\r\n\r\n").unwrap();
    let mut events = BufReader::new(stream).lines();
    let mut seen = String::new();
    until("the other server's decisions are seen", || {
        alpha.send("a", "beta", "{}").unwrap();
        b.take();
        match events.next() {
            Some(Ok(line)) => seen.push_str(&line),
            other => panic!("{other:?}"),
        }
        seen.contains("\"agent\":\"alpha\"")
    });
    let here = &ids.iter().find(|id| **id == status(&one)["server"]).unwrap().clone();
    until("the session is seen", || ok(&two, "/api/v1/agents/alpha")["sessions"][here] == 1);
    let counted = |server: &Server| ok(server, "/api/v1/map")["edges"].clone();
    until("both count the same", || counted(&one) == counted(&two) && counted(&one) != json!([]));

    // Somebody who can write to Redis.
    let forged = stored.replace("\"ready\":true", "\"ready\":false");
    assert_ne!(stored, forged);
    until("what is forged is told apart", || {
        let _: String = world.redis.query(&["SET", &key, &forged]);
        let member = members(&one).into_iter().find(|member| member["this"] == false).unwrap();
        member["trusted"] == false && member["status"].is_null() && !member["problem"].is_null()
    });
    // An old one of its own, put back once a newer one was seen.
    until("it is heard again", || {
        let newer: Option<String> = world.redis.query(&["GET", &key]);
        let member = members(&one).into_iter().find(|member| member["this"] == false).unwrap();
        newer.is_some_and(|newer| newer != stored && newer != forged) && member["trusted"] == true
    });
    until("what was put back is told apart", || {
        let _: String = world.redis.query(&["SET", &key, &stored, "PX", "15000"]);
        let member = members(&one).into_iter().find(|member| member["this"] == false).unwrap();
        member["problem"].as_str().is_some_and(|why| why.contains("older"))
    });
    until("the real one counts again", || members(&one).iter().all(is_known));

    // Other rules, and the same again.
    let text = std::fs::read_to_string(world.config_path()).unwrap();
    std::fs::write(world.config_path(), text.replace("targets: [alpha]", "targets: [gamma]")).unwrap();
    two.signal(nix::sys::signal::Signal::SIGHUP);
    let differs = |server: &Server| {
        let troubles = status(server)["troubles"].clone();
        troubles.as_array().unwrap().iter().any(|trouble| trouble["code"] == "rules_differ")
    };
    until("it shows on both", || differs(&one) && differs(&two));
    assert_eq!(ok(&one, "/api/v1/fleet")["rules_differ"], true);
    until("it is logged", || world.logged().contains("rules_differ: other rules"));
    // A comment changes the file, and no rule.
    std::fs::write(world.config_path(), format!("# the same rules\n{text}")).unwrap();
    two.signal(nix::sys::signal::Signal::SIGHUP);
    until("it is over", || !differs(&one) && !differs(&two));
    assert_ne!(status(&one)["policy_version"], status(&two)["policy_version"]);
    until("that is logged", || world.logged().contains("rules_differ: no longer"));

    // One of them is killed.
    let mut two = two;
    two.kill();
    let gone = || {
        let member = members(&one).into_iter().find(|member| member["this"] == false);
        member
            .is_some_and(|m| m["problem"].as_str().is_some_and(|why| why.contains("without a stop in order")))
    };
    until("it is gone", gone);
    let troubles = || status(&one)["troubles"].to_string();
    until("that is a trouble", || troubles().contains("server_gone"));
    // One that stops in order is not missed.
    let mut three = world.server();
    until("it is known", || members(&one).iter().any(|m| m["status"]["listen_addr"] == three.addr.as_str()));
    let id = status(&three)["server"].clone();
    three.stop();
    until("it is gone as well", || !members(&one).iter().any(|member| member["server"] == id));
    assert!(gone());
    world.set_admin("null");
}

#[test]
fn how_fast_it_was_is_kept_for_a_while() {
    let world = world();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    let sum =
        |json: &Json| json.as_array().map_or(0.0, |all| all.iter().filter_map(Json::as_f64).sum::<f64>());
    until("it is seen", || {
        alpha.send("a", "gamma", "{}").unwrap();
        let performance = ok(&server, "/api/v1/performance");
        sum(&performance["decisions"]["ALLOWED"]) > 10.0 && performance["sessions"].to_string().contains('1')
    });
    let performance = ok(&server, "/api/v1/performance");
    let points = performance["time_unix_ms"].as_array().unwrap().len();
    assert!(sum(&performance["commit_us"]["p99"]) > 0.0);
    for column in ["deliveries", "redis_used_bytes", "connections", "sessions"] {
        assert_eq!(performance[column].as_array().unwrap().len(), points, "{column}");
    }
    for column in ["workers_busy", "mailbox_depth"] {
        assert!(
            performance[column].as_array().unwrap().iter().all(|w| w.as_array().unwrap().len() == points)
        );
    }
    assert_eq!(ok(&server, "/api/v1/performance?seconds=1")["time_unix_ms"].as_array().unwrap().len(), 1);
    assert_eq!(ask(&server, "/api/v1/performance?seconds=901").0, 400);
}

#[test]
fn who_asks_decides_what_is_shown() {
    let mut world = world();
    world.set_admin("0.0.0.0:0");
    world.set_settings(
        "operators: [{name: op, role: operator}, {name: au, role: auditor}, {name: re, role: reader}]\n",
    );
    let certs = world.certs();
    let names = ["op", "au", "re"];
    let operators = names.iter().flat_map(|name| ["--operator", name]);
    let args: Vec<&str> = ["certs", "issue", "--dir", "certs"].into_iter().chain(operators).collect();
    assert_eq!(world.mas(&args).status.code(), Some(0));
    drop(world.certificate("alpha"));
    let server = world.server();
    let port = server.admin.as_ref().unwrap().rsplit_once(':').unwrap().1.to_owned();
    let (addr, ca) = (format!("127.0.0.1:{port}"), ca_file(&certs));
    let ask = |path: &str, name: &str| {
        let files = operator_files(&certs, name);
        get_as(&addr, path, &ca, Some((&files.cert, &files.key))).unwrap()
    };
    until("it is ready", || ask("/readyz", "op").status == 200);
    let everyone =
        ["status", "fleet", "agents", "agents/alpha", "map", "policy", "audit", "performance", "me"];
    for path in everyone {
        for name in names {
            let answered = ask(&format!("/api/v1/{path}"), name);
            assert_eq!(answered.status, 200, "{path} {name}: {}", answered.body);
        }
    }
    let records = ["records", "dead-letters", "messages/lane:1", "proofs/lane/1", "dead-letters/1-1"];
    for path in records {
        let path = format!("/api/v1/{path}");
        assert_eq!(ask(&path, "re").status, 403, "{path}");
        for name in ["op", "au"] {
            assert!(matches!(ask(&path, name).status, 200 | 404), "{path} {name}");
        }
    }
    let me: Json = serde_json::from_str(&ask("/api/v1/me", "au").body).unwrap();
    assert_eq!(me, json!({"name": "au", "role": "auditor", "from": "certificate"}));
    let page = ask("/", "re");
    assert!(
        page.status == 200 && page.head.contains("text/html") && page.head.contains("no-cache"),
        "{}",
        page.head
    );
    assert_eq!(ask("/api/v1/nothing", "op").status, 404);
}

#[test]
fn without_redis_it_says_so_and_goes_on_afterwards() {
    let mut world = world();
    let server = world.server();
    until("it is there", || ask(&server, "/api/v1/agents").0 == 200);
    assert_eq!(ask(&server, "/api/v1/records").0, 200);
    world.redis.kill();
    until("searches are refused", || ask(&server, "/api/v1/records").0 == 503);
    until("so are agents", || ask(&server, "/api/v1/agents").0 == 503);
    let answered = get(server.admin.as_ref().unwrap(), "/api/v1/dead-letters").unwrap();
    assert!(answered.status == 503 && answered.head.contains("retry-after: 2"), "{}", answered.head);
    // What needs no Redis is told.
    for path in ["status", "fleet", "map", "policy", "performance"] {
        assert_eq!(ask(&server, &format!("/api/v1/{path}")).0, 200, "{path}");
    }
    until("the fleet says why it is alone", || ok(&server, "/api/v1/fleet")["others_unknown"].is_string());
    world.redis.resume();
    until("it goes on", || {
        ask(&server, "/api/v1/records").0 == 200 && ask(&server, "/api/v1/agents").0 == 200
    });
}
