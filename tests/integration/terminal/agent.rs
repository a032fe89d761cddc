//! One message as an agent, and what is on record of it.

use std::io::Write;
use std::process::Stdio;

use mas::certs::{agent_files, ca_file};
use mas::ids::AgentId;
use serde_json::Value as Json;

use super::{NOBODY, json, said, said_of, world};
use crate::support::{Process, until};

#[test]
fn an_operator_sends_asks_and_hears_which_rule_refuses() {
    let mut world = world();
    world.set_agents(
        "permissions:\n\
         - {type: allow_broadcast, sender: alpha, receivers: [beta, delta]}\n\
         - {type: allow, sender: beta, targets: [alpha]}\n\
         - {type: deny, sender: alpha, targets: [delta]}\n\
         agents: [{agent_id: alpha}, {agent_id: beta}, {agent_id: delta}, {agent_id: gamma}]\n",
    );
    let server = world.server();
    drop(world.certificate("alpha"));
    let beta = world.client(&server, "beta");
    let b = beta.session("b");
    let addr = &server.addr;
    let by_name = ["--as", "alpha", "--addr", addr, "--server-name", "localhost"];
    let run = |args: &[&str]| world.mas(&[args, &by_name[..]].concat());

    let output = run(&["send", "beta", "{\"n\": 1}", "--type", "count"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = said(&output);
    let id = text.strip_prefix("accepted ").unwrap().lines().next().unwrap().to_owned();
    let receipt = text.lines().find_map(|line| line.strip_prefix("receipt  ")).unwrap().to_owned();
    let delivered = b.take();
    assert_eq!((delivered.message_id(), delivered.data()["n"].as_i64()), (id.as_str(), Some(1)));

    // A message's id and its receipt lead to the same chain.
    until("it is acknowledged", || said_of(&world, &["audit", "show", &id]).contains(": acknowledged"));
    let by_id = said_of(&world, &["audit", "show", &id]);
    assert_eq!(said_of(&world, &["audit", "show", &receipt]), by_id);
    let missing = world.mas(&["audit", "show", "nowhere-w0-c1:7"]);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    assert_eq!(world.mas(&["audit", "show", "x"]).status.code(), Some(2));
    // A record of no message: a lane's first.
    let lane = receipt.rsplit_once(':').unwrap().0;
    let first = said_of(&world, &["audit", "show", &format!("{lane}:1")]);
    assert!(first.contains("lane_opened"), "{first}");

    let refused = run(&["send", "delta", "{}", "--json"]);
    assert_eq!(refused.status.code(), Some(1));
    let said_json = json(&refused);
    assert_eq!(
        (&said_json["accepted"], &said_json["decision"]),
        (&Json::Bool(false), &"AUTHZ_DENIED".into())
    );
    let explained = json(&world.mas(&["policy", "explain", "--from", "alpha", "--to", "delta", "--json"]));
    assert_eq!(said_json["rule"], explained["rule"], "{said_json}");
    let refused = run(&["send", "gamma", "{}"]);
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("not_authorized: send \"message\" to gamma") && why.contains("rule     "), "{why}");
    assert!(why.contains("receipt  "), "{why}");

    // From standard input, and with files in the place of a name.
    let files = agent_files(&world.certs(), &AgentId::parse("alpha").unwrap());
    let ca = ca_file(&world.certs());
    let (cert, key, ca) =
        (files.cert.display().to_string(), files.key.display().to_string(), ca.display().to_string());
    let mut command = world.mas_command(&["send", "beta", "--addr", addr, "--json"]);
    command.args(["--cert", &cert, "--key", &key, "--ca", &ca, "--server-name", "localhost"]);
    let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    process.child().stdin.take().unwrap().write_all(b"{\"n\": 2}").unwrap();
    assert_eq!(b.take().data()["n"], 2);
    assert_eq!(process.wait().code(), Some(0));

    let asking = std::thread::spawn({
        let mut command = world.mas_command(&["request", "beta", "{\"q\": 6}", "--timeout", "20s"]);
        command.args(by_name);
        move || command.output().unwrap()
    });
    let question = b.take();
    let correlation = question.correlation_id().to_owned();
    beta.reply("b", &correlation, "{\"a\": 42}").unwrap();
    let answered = asking.join().unwrap();
    assert_eq!((answered.status.code(), json(&answered)), (Some(0), serde_json::json!({"a": 42})));
    // By its correlation id: the request, and its reply.
    let chain = said_of(&world, &["audit", "show", &correlation]);
    assert!(chain.contains("request from alpha") && chain.contains("its reply"), "{chain}");

    for (args, code) in [
        (&["send", "beta", "{", "--as", "alpha", "--addr", addr][..], 2),
        (&["send", "beta", "{}", "--as", "nobody", "--addr", addr], 2),
        (&["send", "beta", "{}", "--addr", addr], 2),
        (&["send", "beta", "{}", "--as", "alpha"], 2),
        (&["send", "beta", "{}", "--as", "alpha", "--addr", NOBODY, "--timeout", "1s"], 1),
    ] {
        let output = world.mas(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
}

#[test]
fn what_waits_for_an_agent_is_given_back_by_who_sends_as_it() {
    let world = world();
    let server = world.server();
    drop(world.certificate("beta"));
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    alpha.send("a", "beta", "{\"for\": \"the agent\"}").unwrap();
    let sent = world.mas(&[
        "send",
        "alpha",
        "{}",
        "--as",
        "beta",
        "--addr",
        &server.addr,
        "--server-name",
        "localhost",
    ]);
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    let beta = world.client(&server, "beta").session("b");
    assert_eq!(beta.take().data()["for"], "the agent");
    assert_eq!(world.redis.len("dlq:messages"), 0);
}

#[test]
fn tail_and_query_filter_and_print_alike() {
    let world = world();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, _b) = (alpha.session("a"), beta.session("b"));
    for n in 0..30 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
    }
    assert!(beta.send("b", "gamma", "{}").is_err());
    for n in 0..30 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
    }
    let filter = ["--sender", "beta", "--decision", "AUTHZ_DENIED"];
    for format in ["--text", "--json", "--csv"] {
        let of = |command: &[&str]| said_of(&world, &[&["audit"], command, &filter[..], &[format]].concat());
        // It is older than the newest record, and found all the same.
        let (tail, query) = (of(&["tail", "-n", "1"]), of(&["query"]));
        assert_eq!(tail, query, "{format}");
        assert_eq!(tail.lines().count(), if format == "--csv" { 2 } else { 1 }, "{tail}");
    }
    let few = said_of(&world, &["audit", "tail", "-n", "5", "--action", "send"]);
    assert_eq!(few.lines().count(), 5, "{few}");
    assert_eq!(world.mas(&["audit", "tail", "--decision", "maybe"]).status.code(), Some(2));
    assert_eq!(world.mas(&["audit", "query", "--text", "--json"]).status.code(), Some(2));
}
