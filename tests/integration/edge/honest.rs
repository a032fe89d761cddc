//! Honest clients with much to do: none of them is cut, limited or refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mas::protocol::submission::Call;
use mas::protocol::{SendRequest, Submission, submission_result};

use crate::support::{PATIENCE, Session, World, until};

fn assert_nobody_was_cut(world: &World) {
    let records = world.records();
    let cut = ["connection_cut", "connection_refused", "calls_refused"];
    let cut: Vec<_> = records.iter().filter(|r| cut.contains(&r.action.as_str())).collect();
    assert!(cut.is_empty(), "{cut:?}");
}

#[test]
fn a_client_that_cancels_a_third_of_its_calls_is_never_cut() {
    const CALLS: usize = 9_000;
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let began = Instant::now();
    let (answered, mut expected) = (Arc::new(AtomicUsize::new(0)), 0);
    for n in 0..CALLS {
        // Three thousand a second.
        let due = Duration::from_micros(n as u64 * 333);
        while began.elapsed() < due {
            std::thread::park_timeout(due.saturating_sub(began.elapsed()));
        }
        let mut call = alpha.begin_state();
        if n % 3 == 0 {
            call.cancel();
            continue;
        }
        expected += 1;
        let answered = answered.clone();
        alpha.raw.spawn(async move {
            call.message().await.unwrap();
            let _ = answered.fetch_add(1, Ordering::Relaxed);
        });
    }
    until("all are answered", || answered.load(Ordering::Relaxed) == expected);
    assert_nobody_was_cut(&world);
}

#[test]
fn a_thousand_sessions_that_come_back_at_once_are_all_let_in() {
    const AGENTS: usize = 20;
    const EACH: usize = 50;
    let names: Vec<String> = (0..AGENTS).map(|n| format!("{{agent_id: a{n}}}")).collect();
    let world = World::with(&format!("agents: [{}]\n", names.join(", ")), "");
    let mut server = world.server();
    let addr = server.addr.clone();
    let connect = |server: &crate::support::Server| -> Vec<Session> {
        let clients: Vec<_> = (0..AGENTS).map(|n| world.client(server, &format!("a{n}"))).collect();
        std::thread::scope(|scope| {
            let opening: Vec<_> = clients
                .iter()
                .map(|client| {
                    scope.spawn(move || {
                        let open = |n: usize| client.try_open(&format!("i{n}"), PATIENCE);
                        (0..EACH).map(|n| open(n).expect("a session")).collect::<Vec<_>>()
                    })
                })
                .collect();
            opening.into_iter().flat_map(|opening| opening.join().unwrap()).collect()
        })
    };
    let sessions = connect(&server);
    server.kill();
    drop(sessions);
    let server = world.server_on(&addr);
    let sessions = connect(&server);
    assert_eq!(sessions.len(), AGENTS * EACH);
    assert_nobody_was_cut(&world);
}

#[test]
fn eight_sessions_with_all_that_may_be_under_way_are_never_refused() {
    const WINDOW: u64 = 1024;
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let b = beta.session("b");
    let sessions: Vec<Session> = (0..8).map(|n| alpha.session(&format!("a{n}"))).collect();
    let send = |n| {
        let request =
            SendRequest { target_id: "beta".into(), data_json: "{}".into(), ..SendRequest::default() };
        Submission { reference: n, call: Some(Call::Send(request)), ..Submission::default() }
    };
    for _ in 0..3 {
        sessions.iter().for_each(|session| session.submit((0..WINDOW).map(send).collect()));
        for session in &sessions {
            for _ in 0..WINDOW {
                let outcome = session.result().outcome.unwrap();
                assert!(!matches!(outcome, submission_result::Outcome::Failure(_)), "{outcome:?}");
            }
        }
        for _ in 0..8 * WINDOW {
            b.take();
        }
    }
    assert_nobody_was_cut(&world);
}
