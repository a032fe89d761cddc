//! Refusals without end: what of them is on record is bounded, all of them are counted, and others do not notice.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mas::protocol::submission::Call;
use mas::protocol::{SendRequest, Submission, submission_result};

use super::raw::{Passport, Raw, opened};
use crate::support::{Session, World, until};

/// What is under way when the credit is used up, at most.
const UNDER_WAY: u64 = 1_024;
/// Refusals of one identity that are on record singly, and how many more come back in a second.
const CREDIT: u64 = 16_384;
const PER_S: u64 = 100;

fn send_to(target: &str, n: u64) -> Submission {
    let request = SendRequest { target_id: target.into(), data_json: "{}".into(), ..SendRequest::default() };
    Submission { reference: n, call: Some(Call::Send(request)), ..Submission::default() }
}

/// Submits so many, never more than may be under way: how often each refusal came; "" stands for what was accepted.
fn submit(session: &Session, count: u64, target: &str) -> HashMap<String, u64> {
    let mut heard: HashMap<String, u64> = HashMap::new();
    let (mut sent, mut answered) = (0, 0);
    while answered < count {
        if sent < count && sent - answered <= 500 {
            let next = (count - sent).min(500);
            session.submit((sent..sent + next).map(|n| send_to(target, n)).collect());
            sent += next;
        }
        let detail = match session.result().outcome.unwrap() {
            submission_result::Outcome::Failure(failure) => failure.detail,
            _ => String::new(),
        };
        *heard.entry(detail).or_default() += 1;
        answered += 1;
    }
    heard
}

/// Calls that were refused unseen, as the record has it: by agent, and in how many records.
fn unseen(world: &World, agent: &str) -> (u64, usize) {
    let records = world.records();
    let counted = records.iter().filter(|r| r.action.as_str() == "calls_refused" && r.target == agent);
    let counts: Vec<u64> = counted.map(|r| r.rule.split(' ').next().unwrap().parse().unwrap()).collect();
    (counts.iter().sum(), counts.len())
}

#[test]
fn refusals_beyond_the_credit_are_counted_together() {
    const COUNT: u64 = 40_000;
    let world = World::new();
    let server = world.server();
    let (gamma, alpha, beta) =
        (world.client(&server, "gamma"), world.client(&server, "alpha"), world.client(&server, "beta"));
    let (g, a, b) = (gamma.session("g"), alpha.session("a"), beta.session("b"));
    let began = Instant::now();
    let heard = submit(&g, COUNT, "beta");
    let most = CREDIT + UNDER_WAY + (began.elapsed().as_secs() + 1) * PER_S;
    assert_eq!(heard.values().sum::<u64>(), COUNT);
    assert!((CREDIT..=most).contains(&heard["not_authorized"]), "{heard:?}");
    assert_eq!(heard.len(), 2, "{heard:?}");
    // Each is on record: alone, or in a count.
    until("all are counted", || unseen(&world, "gamma").0 == heard["rate_limited"]);
    assert!(unseen(&world, "gamma").1 as u64 <= began.elapsed().as_secs() + 2);
    let records = world.records();
    let single = records.iter().filter(|r| r.agent == "gamma" && r.reason == "not_authorized").count();
    assert_eq!(single as u64, heard["not_authorized"]);
    // Calls of the same agent are refused unseen too; others go on.
    until("what came back is spent", || {
        gamma.send("g", "beta", "{}").is_err_and(|refused| refused.details == "rate_limited")
    });
    assert_eq!(submit(&a, 2000, "beta")[""], 2000);
    for _ in 0..2000 {
        b.take();
    }
    // And credit comes back.
    until("a refusal is seen again", || {
        gamma.send("g", "beta", "{}").is_err_and(|refused| refused.details == "not_authorized")
    });
    world.assert_intact();
}

#[test]
fn calls_of_strangers_are_counted_together() {
    let world = World::new();
    let server = world.server();
    let (nobody, alpha) = (world.client(&server, "nobody"), world.client(&server, "alpha"));
    for _ in 0..1000 {
        assert_eq!(nobody.discover(&[]).unwrap_err().details, "agent_not_allowlisted");
    }
    alpha.discover(&[]).unwrap();
    let single = || world.records().iter().filter(|r| r.agent == "nobody").count() as u64;
    until("all are counted", || unseen(&world, "").0 + single() == 1000);
    assert!(single() < 400, "{}", single());
    world.assert_intact();
}

#[test]
fn sessions_opened_again_and_again_are_refused_after_a_while() {
    let world = World::new();
    let server = world.server();
    let gamma = world.client(&server, "gamma");
    let passport = Passport::of(&world, "gamma");
    // Each connection opens calls of sessions and ends.
    until("no more are opened", || {
        if let Ok(mut raw) = Raw::greeted(&server, &passport) {
            let calls: Vec<u8> = (0..100).flat_map(|n| opened(2 * n + 1, "Transport")).collect();
            let _ = raw.say(&calls);
            let _ = raw.ends_within(Duration::from_millis(50));
        }
        gamma.try_session("g").is_err()
    });
    until("it is on record", || unseen(&world, "gamma").0 > 0);
    let _session = world.client(&server, "alpha").session("a");
    until("they are opened again", || gamma.try_session("g").is_ok());
}

#[test]
fn who_is_never_refused_is_never_limited() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let b = beta.session("b");
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..8)
            .map(|n| {
                let alpha = &alpha;
                scope.spawn(move || {
                    let session = alpha.session(&format!("a{n}"));
                    assert_eq!(submit(&session, 5000, "beta")[""], 5000);
                })
            })
            .collect();
        for _ in 0..40_000 {
            b.take();
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn discoveries_without_end_are_refused_after_a_while() {
    let world = World::new();
    let server = world.server();
    let gamma = world.client(&server, "gamma");
    until("discoveries are refused", || {
        (0..200).any(|_| gamma.discover(&[]).is_err_and(|refused| refused.details == "rate_limited"))
    });
    world.client(&server, "alpha").discover(&[]).unwrap();
    until("it is on record", || unseen(&world, "gamma").0 > 0);
}
