//! The life of a connection.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mas_agent::{Agent, AgentError, Credentials, Event};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{Number, agent, behaviours, credentials};
use crate::support::{World, until};

/// What an agent is told of its connection.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Event>>>);

impl Told {
    fn by(&self) -> impl Fn(&Event) + Send + Sync + 'static {
        let told = self.0.clone();
        move |event| told.lock().unwrap().push(event.clone())
    }

    fn connected(&self) -> usize {
        self.0.lock().unwrap().iter().filter(|event| matches!(event, Event::Connected { .. })).count()
    }

    fn any(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.0.lock().unwrap().iter().any(wanted)
    }
}

#[test]
fn a_start_ends_with_a_session_or_with_what_kept_it_from_opening() {
    behaviours(["connect.start"]);
    let world = World::new();
    let server = world.server();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    assert!(alpha.is_connected() && alpha.agent_id() == "alpha");
    let began = Instant::now();
    let refused = agent(&world, &server, "stranger").connect().err().unwrap();
    assert_eq!(refused.detail(), Some("agent_not_allowlisted"), "{refused}");
    assert!(began.elapsed() < Duration::from_secs(8), "a refusal is told at once");
    let nobody = Agent::builder("127.0.0.1:1", credentials(&world, "alpha"));
    let error = nobody.connect_timeout(Duration::from_millis(500)).connect().err().unwrap();
    assert!(matches!(&error, AgentError::NotConnected(why) if why.contains("127.0.0.1:1")), "{error}");
}

#[test]
fn what_is_wrong_before_anything_is_sent_is_said_at_once_and_all_of_it() {
    behaviours(["connect.setup"]);
    let world = World::new();
    let _ = (world.certificate("alpha"), world.certificate("beta"));
    let file = |name: &str| world.certs().join(name);
    let [ca, cert, key] = ["ca.pem", "agents/alpha.pem", "agents/alpha.key"].map(file);
    let text = |built: Result<Credentials, AgentError>| built.err().unwrap().to_string();
    let absent = text(Credentials::from_files(&ca, file("no.pem"), file("no.key")));
    assert!(absent.contains("no.pem: ") && absent.contains("no.key: "), "{absent}");
    let other = text(Credentials::from_files(&ca, &cert, file("agents/beta.key")));
    assert!(other.contains("beta.key does not belong to ") && other.contains("alpha.pem"), "{other}");
    let swapped = text(Credentials::from_files(&key, &key, &cert));
    assert!(swapped.contains("alpha.key: no PEM certificate"), "{swapped}");
    assert!(swapped.contains("alpha.pem: no PEM private key"), "{swapped}");
    let variables = Agent::builder_from_env().err().unwrap().to_string();
    for name in ["MAS_SERVER_ADDR", "MAS_TLS_CA", "MAS_TLS_CERT", "MAS_TLS_KEY"] {
        assert!(variables.contains(name), "{variables}");
    }
    let misnamed = Agent::builder("127.0.0.1:1", credentials(&world, "alpha")).instance("a b").connect();
    assert!(matches!(misnamed, Err(AgentError::Setup(text)) if text.contains("instance id")));
}

#[test]
fn a_lost_connection_is_made_again_and_the_program_is_told() {
    behaviours(["connect.again", "connect.events"]);
    let world = World::new();
    let mut server = world.server();
    let (addr, told) = (server.addr.clone(), Told::default());
    let alpha = agent(&world, &server, "alpha").on_event(told.by()).connect().unwrap();
    for n in 1..=3 {
        server.kill();
        until("the loss is noticed", || !alpha.is_connected());
        until("it is told", || told.any(|event| matches!(event, Event::Lost { .. })));
        server = world.server_on(&addr);
        until("it is connected again", || told.connected() == n + 1);
    }
    assert!(told.any(|event| matches!(event, Event::Lost { reason } if reason.contains(&addr))));
    alpha.send("beta", "number", &Number { n: 1 }).unwrap();
}

#[test]
fn an_agent_that_is_refused_comes_back_by_itself_once_that_has_changed() {
    behaviours(["connect.refused", "connect.wait"]);
    const WITHOUT: &str = "permissions: []\nagents: [{agent_id: beta}]\n";
    let mut world = World::new();
    let server = world.server();
    let (patient, final_one) = (Told::default(), Told::default());
    let alpha = agent(&world, &server, "alpha")
        .refused_retry(Duration::from_millis(100))
        .on_event(patient.by())
        .connect()
        .unwrap();
    let ended =
        agent(&world, &server, "alpha").refused_is_final(true).on_event(final_one.by()).connect().unwrap();
    world.set_agents(WITHOUT);
    server.signal(Signal::SIGHUP);
    let is_refused =
        |event: &Event| matches!(event, Event::Refused(refusal) if refusal.detail == "agent_not_allowlisted");
    until("both are refused", || patient.any(is_refused) && final_one.any(is_refused));
    assert_eq!(ended.wait().unwrap_err().detail(), Some("agent_not_allowlisted"));
    assert_eq!(
        ended.send("beta", "number", &Number { n: 1 }).unwrap_err().detail(),
        Some("agent_not_allowlisted")
    );
    let meanwhile =
        alpha.message("beta", "number", &Number { n: 1 }).timeout(Duration::from_millis(200)).send();
    assert!(
        matches!(&meanwhile, Err(AgentError::NotConnected(why)) if why.contains("agent_not_allowlisted")),
        "{meanwhile:?}"
    );
    world.set_agents(World::PAIR);
    server.signal(Signal::SIGHUP);
    until("it is back", || alpha.is_connected());
    assert!(!ended.is_connected());
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| alpha.wait());
        std::thread::park_timeout(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        drop(ended);
        alpha.send("beta", "number", &Number { n: 1 }).unwrap();
        assert!(!waiting.is_finished());
        alpha.stop();
        waiting.join().unwrap()
    });
    assert!(waiting.is_ok(), "{waiting:?}");
}

#[test]
fn a_renewed_certificate_is_taken_up_by_the_next_connection() {
    behaviours(["connect.renewed"]);
    let world = World::new();
    let mut server = world.server();
    let addr = server.addr.clone();
    let _ = world.certificate("alpha");
    let own = world.path().join("own");
    std::fs::create_dir(&own).unwrap();
    let file = |name: &str| -> PathBuf { own.join(name) };
    let copy = || {
        for (from, to) in [("ca.pem", "ca.pem"), ("agents/alpha.pem", "a.pem"), ("agents/alpha.key", "a.key")]
        {
            let _ = std::fs::copy(world.certs().join(from), file(to)).unwrap();
        }
    };
    copy();
    let files = Credentials::from_files(file("ca.pem"), file("a.pem"), file("a.key")).unwrap();
    let alpha = Agent::builder(&addr, files).connect().unwrap();
    // Half of a renewal is there when the connection is lost: a key without its certificate.
    let id = mas::ids::AgentId::parse("alpha").unwrap();
    world.authority.issue_agent(&id, 30).unwrap();
    let _ = std::fs::copy(world.certs().join("agents/alpha.key"), file("a.key")).unwrap();
    server.kill();
    let mut server = world.server_on(&addr);
    std::thread::park_timeout(Duration::from_millis(300));
    assert!(!alpha.is_connected());
    copy();
    until("it is connected again", || alpha.is_connected());
    alpha.shutdown();
    server.stop();
    let records = world.records();
    let opened =
        records.iter().filter(|record| record.action.as_str() == "session_open" && record.agent == "alpha");
    let fingerprints: Vec<_> = opened.map(|record| record.fingerprint.clone()).collect();
    assert!(fingerprints.len() == 2 && fingerprints[0] != fingerprints[1], "{fingerprints:?}");
}

#[test]
fn of_several_addresses_the_next_is_tried_after_a_failure() {
    behaviours(["connect.addresses"]);
    let world = World::new();
    let (mut first, second) = (world.server(), world.server());
    let addresses = format!("127.0.0.1:1, {},{}", first.addr, second.addr);
    let alpha = Agent::builder(&addresses, credentials(&world, "alpha")).connect().unwrap();
    alpha.send("beta", "number", &Number { n: 1 }).unwrap();
    first.kill();
    until("it is at the other one", || {
        alpha.is_connected() && alpha.send("beta", "number", &Number { n: 2 }).is_ok()
    });
}

#[test]
fn a_proxy_of_the_environment_is_not_used_for_this_machine() {
    behaviours(["connect.proxy"]);
    let world = World::new();
    let server = world.server();
    let _ = world.certificate("alpha");
    let mut send =
        world.mas_command(&["send", "--as", "alpha", "--addr", &server.addr, "beta", "{}", "--json"]);
    for name in ["https_proxy", "http_proxy", "grpc_proxy"] {
        let _ = send.env(name, "http://127.0.0.1:9").env_remove("no_proxy").env_remove("NO_PROXY");
    }
    let output = send.output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(said["accepted"], json!(true), "{output:?}");
}
