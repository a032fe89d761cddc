use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;

use super::*;

/// A connected socket, and its other end.
fn pair() -> (Arc<Stream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (Arc::new(Stream::Tcp(listener.accept().unwrap().0)), far)
}

fn places(connections: usize, per_source: usize, streams: usize) -> Arc<Places> {
    let limits = Limits {
        connections,
        connections_per_source: per_source,
        streams,
        streams_per_source: per_source,
        ..Limits::default()
    };
    Places::new(&limits, Arc::default())
}

fn take(places: &Arc<Places>, from: &str) -> Result<Place, NoPlace> {
    places.take(&pair().0, Remote::Addr((from.parse::<IpAddr>().unwrap(), 1).into()))
}

/// Makes a place look as if its connection had kept the server waiting.
fn age(place: &Place, state: impl Fn(Instant) -> State) {
    let long_ago = Instant::now().checked_sub(GRACE * 2).unwrap();
    let _ = place.set(state(long_ago));
}

fn state(place: &Place) -> State {
    place.places.lock().entries[&place.id].state
}

/// Takes a place as a thread would: it gives it back when it is told to.
fn obedient(places: &Arc<Places>, from: &str) -> std::thread::JoinHandle<()> {
    let (socket, far) = pair();
    let place = places.take(&socket, Remote::Addr((from.parse::<IpAddr>().unwrap(), 1).into())).unwrap();
    age(&place, State::Owes);
    std::thread::spawn(move || {
        let _place = place;
        assert_eq!((&*socket).read(&mut [0; 1]).unwrap(), 0);
        drop(far);
    })
}

#[test]
fn there_are_so_many_places_and_no_more() {
    let places = places(2, 9, 0);
    let first = take(&places, "127.0.0.1").unwrap();
    let _second = take(&places, "192.0.2.1").unwrap();
    assert_eq!(take(&places, "127.0.0.1").err(), Some(NoPlace::Full));
    assert_eq!(places.counters.connections.load(Ordering::Relaxed), 2);
    drop(first);
    assert_eq!(places.counters.connections.load(Ordering::Relaxed), 1);
    assert!(take(&places, "127.0.0.1").is_ok());
}

#[test]
fn a_source_has_its_share() {
    let places = places(20, 2, 0);
    let mut taken = Vec::new();
    for (source, same) in [
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("192.0.2.2", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::ffff:2"),
        ("2001:db8:0:1::1", "2001:db8:0:1::1"),
    ] {
        taken.push(take(&places, source).unwrap());
        taken.push(take(&places, same).unwrap());
        assert_eq!(take(&places, source).err(), Some(NoPlace::SourceFull), "{source}");
        assert_eq!(take(&places, same).err(), Some(NoPlace::SourceFull), "{same}");
    }
    for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        taken.push(take(&places, loopback).unwrap());
        taken.push(take(&places, loopback).unwrap());
        taken.push(take(&places, loopback).unwrap());
    }
    assert_eq!(take(&places, "127.0.0.1").err(), Some(NoPlace::Full));
}

#[test]
fn streams_are_counted_apart() {
    let places = places(1, 1, 2);
    let first = take(&places, "192.0.2.1").unwrap();
    first.stream().unwrap();
    // Its place among the connections is free, and so is its source's share of them.
    let second = take(&places, "192.0.2.1").unwrap();
    assert_eq!(second.stream(), Err(NoPlace::SourceFull));
    drop(second);
    let third = take(&places, "127.0.0.1").unwrap();
    third.stream().unwrap();
    let fourth = take(&places, "127.0.0.1").unwrap();
    assert_eq!(fourth.stream(), Err(NoPlace::Full));
    let open = || places.counters.connections.load(Ordering::Relaxed);
    let streams = || places.counters.streams.load(Ordering::Relaxed);
    assert_eq!((open(), streams()), (1, 2));
    drop((first, fourth));
    assert_eq!((open(), streams()), (0, 1));
}

#[test]
fn a_newcomer_gets_the_place_of_one_that_kept_the_server_waiting() {
    let places = places(2, 9, 1);
    let waiting = obedient(&places, "192.0.2.1");
    let served = take(&places, "127.0.0.1").unwrap();
    age(&served, |_| State::Served);
    // The newcomer waits for a moment, which a busy machine may need longer for.
    let newcomer = loop {
        if let Ok(place) = take(&places, "127.0.0.1") {
            break place;
        }
    };
    waiting.join().unwrap();
    assert!(state(&served) == State::Served);
    // It has its grace, and then it has to go itself.
    assert_eq!(take(&places, "127.0.0.1").err(), Some(NoPlace::Full));
    assert!(matches!(state(&newcomer), State::Owes(_)));
    age(&newcomer, State::Idle);
    // It was told, and told once: nobody else has to go for the same newcomer.
    assert_eq!(take(&places, "127.0.0.1").err(), Some(NoPlace::Full));
    assert!(state(&newcomer) == State::Told);
    assert_eq!(places.counters.gave_way.load(Ordering::Relaxed), 2);
}

#[test]
fn the_share_of_a_source_is_made_room_in_at_its_own_cost() {
    let places = places(3, 1, 0);
    let other = take(&places, "192.0.2.2").unwrap();
    age(&other, State::Owes);
    let own = take(&places, "192.0.2.1").unwrap();
    assert_eq!(take(&places, "192.0.2.1").err(), Some(NoPlace::SourceFull));
    age(&own, State::Owes);
    assert_eq!(take(&places, "192.0.2.1").err(), Some(NoPlace::SourceFull));
    assert!(state(&own) == State::Told && matches!(state(&other), State::Owes(_)));
}

#[test]
fn a_stream_never_makes_room() {
    let places = places(1, 1, 1);
    let stream = take(&places, "127.0.0.1").unwrap();
    stream.stream().unwrap();
    age(&stream, State::Owes);
    let _connection = take(&places, "127.0.0.1").unwrap();
    assert_eq!(take(&places, "127.0.0.1").err(), Some(NoPlace::Full));
    assert!(state(&stream) != State::Told);
}

#[test]
fn a_stop_tells_those_that_have_nothing_to_do() {
    let places = places(9, 9, 9);
    let [idle, owes, served] = [(); 3].map(|()| take(&places, "127.0.0.1").unwrap());
    assert!(idle.idle());
    served.served();
    places.stop();
    assert!(state(&idle) == State::Told && matches!(state(&owes), State::Owes(_)));
    assert!(state(&served) == State::Served);
    assert!(!served.idle(), "it ends instead");
    assert!(served.stops());
    assert_eq!(take(&places, "127.0.0.1").err(), Some(NoPlace::Stops));
    assert_eq!(owes.stream(), Err(NoPlace::Stops));
    assert!(!places.wait_empty(Instant::now()));
    places.cut();
    assert!(state(&owes) == State::Told);
    let id = owes.id();
    assert!(places.has(id));
    drop((idle, owes, served));
    assert!(places.wait_empty(Instant::now()) && !places.has(id));
}
