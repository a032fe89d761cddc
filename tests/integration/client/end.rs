//! The end of an agent.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mas_agent::{Agent, HandlerError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Number, agent, behaviours};
use crate::support::{PATIENCE, World, until};

/// Tells the process below what it is.
const AS_AGENT: &str = "MAS_TEST_AS_AGENT";

#[test]
fn while_it_drains_handlers_can_do_everything() {
    behaviours(["stop.drain"]);
    let world = World::new();
    let server = world.server();
    let (begun_sender, begun) = crossbeam_channel::bounded(1);
    let (go_sender, go) = crossbeam_channel::bounded::<()>(1);
    let (outcome, starts) = (Arc::new(Mutex::new(None)), Arc::new(AtomicUsize::new(0)));
    let (told, counted) = (outcome.clone(), starts.clone());
    let beta = agent(&world, &server, "beta")
        .threads(2)
        .on("job", move |message, _: Number| {
            let _ = counted.fetch_add(1, Ordering::SeqCst);
            begun_sender.send(()).map_err(HandlerError::reject)?;
            go.recv_timeout(PATIENCE).map_err(HandlerError::reject)?;
            let _ = message.agent().update_state(&[("done", "1")])?;
            let reply = message.agent().request("alpha", "double", &Number { n: 2 }, PATIENCE)?;
            *told.lock().unwrap() = Some(reply.parse_data::<Number>()?);
            Ok(())
        })
        .connect()
        .unwrap();
    let alpha = agent(&world, &server, "alpha")
        .on("double", |message, number: Number| {
            let _ = message.reply("doubled", &Number { n: number.n * 2 })?;
            Ok(())
        })
        .connect()
        .unwrap();
    alpha.send("beta", "job", &Number { n: 1 }).unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    std::thread::scope(|scope| {
        let stopping = scope.spawn(move || beta.shutdown());
        std::thread::park_timeout(Duration::from_millis(100));
        // Comes while it drains: it is for another session.
        alpha.send("beta", "job", &Number { n: 2 }).unwrap();
        go_sender.send(()).unwrap();
        stopping.join().unwrap();
    });
    assert_eq!(*outcome.lock().unwrap(), Some(Number { n: 4 }));
    until("the first is acknowledged, and the other waits", || world.redis.len("agent.stream:beta") == 1);
    assert_eq!(starts.load(Ordering::SeqCst), 1);
}

#[test]
fn what_is_not_finished_in_time_stays_with_the_server_as_it_was() {
    behaviours(["stop.untouched"]);
    let world = World::new();
    let server = world.server();
    let (begun_sender, begun) = crossbeam_channel::bounded(2);
    let (go_sender, go) = crossbeam_channel::bounded::<()>(2);
    let over = Arc::new(AtomicUsize::new(0));
    let counted = over.clone();
    let beta = agent(&world, &server, "beta")
        .drain_timeout(Duration::from_millis(100))
        .threads(2)
        .on("job", move |_, number: Number| {
            begun_sender.send(()).map_err(HandlerError::reject)?;
            let _ = go.recv_timeout(PATIENCE);
            let _ = counted.fetch_add(1, Ordering::SeqCst);
            // Neither is heard any more.
            if number.n == 1 { Ok(()) } else { Err(HandlerError::reject("late")) }
        })
        .connect()
        .unwrap();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    for n in 1..=2 {
        alpha.send("beta", "job", &Number { n }).unwrap();
        begun.recv_timeout(PATIENCE).unwrap();
    }
    beta.shutdown();
    go_sender.send(()).unwrap();
    go_sender.send(()).unwrap();
    until("both handlers are through", || over.load(Ordering::SeqCst) == 2);
    let b = world.client(&server, "beta").session("b");
    let mut back: Vec<_> = (0..2)
        .map(|_| {
            let delivered = b.take();
            (delivered.data()["n"].as_i64(), delivered.attempt)
        })
        .collect();
    back.sort_unstable();
    assert_eq!(back, [(Some(1), 1), (Some(2), 1)], "no attempt is counted");
    assert!(!world.redis.keys().contains(&"dlq:messages".to_owned()));
}

/// Not a test by itself: an agent's program, which the test below starts.
#[test]
fn as_agent() {
    if std::env::var(AS_AGENT).is_err() {
        return;
    }
    let agent = Agent::builder_from_env()
        .unwrap()
        .on("job", |_, _: Number| {
            println!("begun");
            std::thread::park_timeout(Duration::from_millis(700));
            Ok(())
        })
        .connect()
        .unwrap();
    println!("connected");
    agent.run().unwrap();
    println!("ended in order");
}

#[test]
fn a_program_drains_at_a_signal_and_ends_at_once_at_a_second() {
    behaviours(["stop.signals"]);
    let world = World::new();
    let server = world.server();
    let _ = world.certificate("beta");
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    for (signals, ends_in_order) in [(1, true), (2, false)] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["client::end::as_agent", "--exact", "--nocapture", "--test-threads=1"])
            .env(AS_AGENT, "1")
            .env("MAS_SERVER_ADDR", &server.addr)
            .env("MAS_TLS_CA", world.certs().join("ca.pem"))
            .env("MAS_TLS_CERT", world.certs().join("agents/beta.pem"))
            .env("MAS_TLS_KEY", world.certs().join("agents/beta.key"))
            .env("MAS_INSTANCE_ID", "b")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("connected")));
        alpha.send("beta", "job", &Number { n: 1 }).unwrap();
        assert!(lines.any(|line| line.contains("begun")));
        for _ in 0..signals {
            kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
            std::thread::park_timeout(Duration::from_millis(100));
        }
        assert_eq!(lines.any(|line| line.contains("ended in order")), ends_in_order);
        let status = child.wait().unwrap();
        assert_eq!(status.success(), ends_in_order, "{status}");
        let left = usize::from(!ends_in_order);
        until("what was finished is acknowledged", || world.redis.len("agent.stream:beta") == left);
    }
}
