//! More peers than places. These tests count the threads of the process, or take its descriptors: they run alone.

use std::fs::File;
use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mas::admin::http::Limits;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::support::{Client, Running, Turn, connect, count, get, wait};

const CROWD: usize = 1000;
const PLACES: usize = 64;

/// Threads of this process that serve connections.
fn serving() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        task.ok().and_then(|task| std::fs::read_to_string(task.path().join("comm")).ok())
    };
    tasks.filter_map(name).filter(|name| name.trim_end() == "admin-http").count()
}

#[test]
fn a_crowd_gets_no_more_threads_than_there_are_places() {
    let _alone = Turn::alone();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(4096), most).unwrap();
    wait("no thread of another test is left", || serving() == 0);
    let running = Running::alone(Limits { connections: PLACES, streams: 0, ..Limits::default() });
    let mut most_threads = 0;
    let mut crowd = Vec::with_capacity(CROWD);
    for number in 0..CROWD {
        crowd.push(connect(running.addr));
        if number % 20 == 0 {
            most_threads = most_threads.max(serving());
        }
    }
    let refused = || count(&running.counters.refused_full);
    let gave_way = || count(&running.counters.gave_way);
    wait("all of the crowd has a place or was refused", || {
        most_threads = most_threads.max(serving());
        refused() + gave_way() + running.open() >= CROWD as u64
    });
    // A thread that is ending has given its place back already, and may be seen a moment longer.
    assert!((PLACES / 2..=2 * PLACES).contains(&most_threads), "{most_threads} threads");
    // On a slow machine many have given way to others before all have come.
    let were_refused = usize::try_from(refused()).unwrap();
    assert!(were_refused > PLACES, "{were_refused} were refused");
    // They were told so.
    let told = crowd.iter().filter(|socket| {
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut answer = [0; 12];
        Read::read(&mut &**socket, &mut answer)
            .is_ok_and(|count| answer[..count].starts_with(b"HTTP/1.1 503"))
    });
    assert!(told.count() > were_refused / 2);
    drop(crowd);
    wait("their places are free", || running.open() == 0);
    running.assert_serves();
    wait("their threads are gone", || serving() <= 1);
}

#[test]
fn a_peer_that_behaves_gets_the_place_of_one_that_keeps_the_server_waiting() {
    let whole = get("/");
    for sent in ["", "GET / HTTP/1.1\r\nHost: ", &whole] {
        let running = Running::plain(Limits { connections: 2, ..Limits::default() });
        let mut busy = running.connect();
        busy.send(get("/hold"));
        let mut waiting = running.connect();
        waiting.send(sent);
        if sent == whole {
            assert_eq!(waiting.reply().status, 200);
        }
        wait("all places are taken", || running.open() == 2 && !running.responder.asked().is_empty());
        wait("one of them has to give way", || {
            let mut client = running.connect();
            client.send(get("/"));
            let reply = client.reply();
            // At first it has its grace.
            assert!(matches!(reply.status, 200 | 503), "{reply:?}");
            reply.status == 200
        });
        assert!(count(&running.counters.refused_full) > 0 && count(&running.counters.gave_way) > 0);
        assert!(waiting.ends(), "it kept the server waiting: {sent:?}");
        // Never the one that waits for the server.
        running.responder.release();
        assert_eq!(busy.reply().status, 200);
    }
}

#[test]
fn a_process_without_descriptors_accepts_again_when_it_has_some() {
    let _alone = Turn::alone();
    let running = Running::alone(Limits::default());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 256.min(hard), hard).unwrap();
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    drop(files.pop());
    // Takes the last descriptor, so that there is none for the server's end of it.
    let socket = TcpStream::connect(running.addr);
    let failed = || count(&running.counters.accept_failed);
    let begun = Instant::now();
    while failed() < 4 && begun.elapsed() < Duration::from_secs(5) {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let (failures, took) = (failed(), begun.elapsed());
    drop(files);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert!(failures >= 4, "it was not tried again");
    assert!(took >= Duration::from_millis(250), "it spins: {failures} tries within {took:?}");
    let mut client = Client::new(socket.unwrap());
    client.stream.set_read_timeout(Some(super::support::PATIENCE)).unwrap();
    client.send(get("/"));
    assert_eq!(client.reply().status, 200);
}
