use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use proptest::prelude::*;
use rcgen::CertifiedKey;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::super::frames::Unit;
use super::super::peers::Bounds;
use super::*;
use crate::refusal::Refusal;

const S: u64 = 1_000_000;
const MS: u64 = 1_000;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
/// Of HEADERS: the call's last, and the block's.
const LAST: u8 = 5;
const END_HEADERS: u8 = 4;

/// Room in the pair, in bytes, which the system doubles: less than a record.
const PAIR_BYTES: usize = 4 * 1024;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// What a client says first.
fn greeting() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat()
}

/// A call without a message.
fn empty_call(stream: u32) -> Vec<u8> {
    frame(HEADERS, LAST, stream, &[0x88])
}

/// Both ends of a TLS connection whose handshake is over.
fn tls() -> (ClientConnection, ServerConnection) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        client.write_tls(&mut there).unwrap();
        server.read_tls(&mut there.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        server.write_tls(&mut back).unwrap();
        client.read_tls(&mut back.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }
    (client, server)
}

/// A connection of somebody who is not allowed, with its client and the C core's end.
struct Rig {
    conn: Conn,
    client: ClientConnection,
    core: Option<UnixStream>,
    peers: Peers,
    buffers: Buffers,
    poll: Poll,
    now_us: u64,
    /// The client's end.
    tcp: TcpStream,
    /// What the client has heard, in bytes.
    heard: usize,
    /// It has heard the end.
    told: bool,
}

impl Rig {
    /// `open_calls`: so many may be open.
    fn new(open_calls: usize) -> Self {
        let bounds = Bounds {
            total: 1,
            shaking: 1,
            each: 1,
            strangers: 1,
            waiting_calls: open_calls,
            strangers_calls: open_calls,
            open_calls,
            strangers_open: open_calls,
            session_opens_per_s: 1,
            refusals_per_s: 1,
        };
        let now_us = S;
        let peers = Peers::new(bounds, Arc::default());
        let peer = peers.admit(Err(Refusal::INVALID_CERTIFICATE), false, now_us).unwrap();
        let (client, tls) = tls();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (tcp, from) = listener.accept().unwrap();
        let (pair, core) = UnixStream::pair().unwrap();
        tcp.set_nonblocking(true).unwrap();
        pair.set_nonblocking(true).unwrap();
        core.set_nonblocking(true).unwrap();
        other.set_nonblocking(true).unwrap();
        setsockopt(&pair, sockopt::SndBuf, &PAIR_BYTES).unwrap();
        let poll = Poll::new().unwrap();
        let mut conn = Conn::new(Shaken { tcp, from, tls, pair, peer, fd: 0 }, now_us);
        conn.enter(&poll, 0).unwrap();
        Self {
            conn,
            client,
            core: Some(core),
            peers,
            buffers: Buffers::new(),
            poll,
            now_us,
            tcp: other,
            heard: 0,
            told: false,
        }
    }

    /// The client says that, and the connection reads it at once.
    fn say(&mut self, bytes: &[u8]) -> Fate {
        self.client.set_buffer_limit(None);
        self.client.writer().write_all(bytes).unwrap();
        let mut cipher = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut cipher).unwrap();
        }
        self.conn.take(&mut cipher, &mut self.buffers, &self.peers, self.now_us)
    }

    fn turn(&mut self, ready: Ready) -> Fate {
        self.conn.turn(ready, &mut self.buffers, &self.peers, &self.poll, self.now_us)
    }

    /// The client takes what is there.
    fn hear(&mut self) {
        while self.client.read_tls(&mut self.tcp).is_ok_and(|count| count > 0) {
            self.client.process_new_packets().unwrap();
            let mut buffer = [0; 16 * 1024];
            loop {
                match self.client.reader().read(&mut buffer) {
                    Ok(0) => {
                        self.told = true;
                        return;
                    }
                    Ok(count) => self.heard += count,
                    Err(_) => break,
                }
            }
        }
    }

    /// So much later it is its turn.
    fn go_on(&mut self, later_us: u64) -> Fate {
        self.now_us += later_us;
        self.conn.go_on(&mut self.buffers, &self.peers, &self.poll, 0, self.now_us)
    }

    /// So much later time is looked at.
    fn look(&mut self, later_us: u64) -> Fate {
        self.now_us += later_us;
        self.conn.look(self.now_us, 0, false)
    }

    /// Others of the identity use up its frames.
    fn spend_frames(&self) {
        self.peers.charge(
            &self.conn.with.peer,
            self.now_us,
            |charge| {
                while charge(Unit::Frame) == Charge::Pass {}
            },
        );
    }

    /// The C core goes, and the connection sees it.
    fn core_goes(&mut self) {
        self.core = None;
        assert_eq!(self.conn.read_pair(&mut self.buffers, &self.peers, self.now_us), Fate::Keep);
        assert!(matches!(self.conn.phase, Phase::CoreGone(_)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What waited for the C core, or was held back, was once dropped with it, and what came behind that misread: an
    /// honest client was cut.
    #[test]
    fn what_a_client_says_is_read_in_its_order_when_the_core_has_gone(
        calls in 210..300_u32,
        data in prop::collection::vec(0..4_000_usize, 1..40),
        sizes in prop::collection::vec(1..60_000_usize, 1..8),
        goes_at in 0..20_usize,
        listens_no_more in any::<bool>(),
    ) {
        let mut bytes = greeting();
        for at in 0..calls {
            bytes.extend(empty_call(2 * at + 1));
            if let Some(size) = data.get(at as usize / 8).filter(|_| at % 8 == 0) {
                bytes.extend(frame(DATA, 0, 2 * at + 1, &vec![0xff; size + 1]));
            }
        }
        let mut rig = Rig::new(1_000);
        let mut sizes = sizes.into_iter().cycle();
        let (mut rest, mut steps) = (bytes.as_slice(), 0);
        // It reads nothing, and goes.
        while !(rest.is_empty() && rig.conn.pending.is_empty() && steps > goes_at) {
            if steps == goes_at {
                if listens_no_more {
                    rig.core.as_ref().unwrap().shutdown(Shutdown::Read).unwrap();
                } else {
                    rig.core = None;
                }
            }
            let fate = if rig.conn.pending.is_empty() && !rest.is_empty() {
                let (piece, later) = rest.split_at(sizes.next().unwrap().min(rest.len()));
                rest = later;
                rig.say(piece)
            } else {
                rig.go_on(20 * MS)
            };
            prop_assert_eq!(fate, Fate::Keep);
            steps += 1;
            prop_assert!(steps < 10_000);
        }
        prop_assert_eq!(rig.conn.calls(), (0, calls as usize));
        prop_assert_eq!(rig.look(2 * STUCK_US), Fate::Keep);
    }
}

/// A frame that waits is asked for again and again; each time once counted against its connection.
#[test]
fn settings_that_are_held_back_count_once() {
    let mut rig = Rig::new(10);
    rig.spend_frames();
    assert_eq!(rig.say(&greeting()), Fate::Keep);
    for _ in 0..100 {
        rig.now_us += 20 * MS;
        rig.spend_frames();
        assert_eq!(rig.go_on(0), Fate::Keep);
    }
    assert!(!rig.conn.frames.is_greeted());
    assert_eq!(rig.go_on(20 * MS), Fate::Keep);
    assert!(rig.conn.frames.is_greeted());
}

#[test]
fn too_many_settings_are_a_cut() {
    let mut rig = Rig::new(10);
    assert_eq!(rig.say(&greeting()), Fate::Keep);
    assert_eq!(rig.say(&frame(SETTINGS, 0, 0, &[]).repeat(19)), Fate::Keep);
    assert_eq!(rig.say(&frame(SETTINGS, 0, 0, &[])), Fate::Cut("too many settings"));
}

#[test]
fn who_is_held_back_is_cut_when_nothing_passes_and_not_while_the_core_takes_nothing() {
    let mut rig = Rig::new(1);
    let long = frame(DATA, 0, 1, &[0; 14_000]);
    let said = [greeting(), empty_call(1), long, empty_call(3)].concat();
    assert_eq!(rig.say(&said), Fate::Keep);
    assert!(rig.conn.passed > 0 && rig.conn.held_until_us > 0);
    assert_eq!(rig.look(STUCK_US + S), Fate::Keep);
    let mut core = rig.core.take().unwrap();
    let mut taken = 0;
    while rig.conn.passed > 0 {
        taken += core.read(&mut [0; 16 * 1024]).unwrap();
        assert_eq!(rig.go_on(0), Fate::Keep);
    }
    assert!(taken > 0);
    // The second call waits for the end of the first one from here on.
    assert_eq!(rig.look(STUCK_US - S), Fate::Keep);
    assert_eq!(rig.look(2 * S), Fate::Cut("calls that do not end"));
}

#[test]
fn who_was_held_back_is_not_cut_when_the_core_has_gone() {
    let mut rig = Rig::new(1);
    assert_eq!(rig.say(&[greeting(), empty_call(1), empty_call(3)].concat()), Fate::Keep);
    assert_eq!(rig.look(STUCK_US - S), Fate::Keep);
    rig.core_goes();
    assert_eq!(rig.look(2 * S), Fate::Keep);
    assert_eq!(rig.look(FLUSH_US), Fate::Over);
}

#[test]
fn a_message_is_not_waited_for_when_the_core_has_gone() {
    let mut rig = Rig::new(10);
    let call = frame(HEADERS, END_HEADERS, 1, &[0x88]);
    assert_eq!(rig.say(&[greeting(), call].concat()), Fate::Keep);
    assert_eq!(rig.look(CALL_US - S), Fate::Keep);
    rig.core_goes();
    assert_eq!(rig.look(2 * S), Fate::Keep);
    assert_eq!(rig.look(FLUSH_US), Fate::Over);
}

/// The flush that came with something that the client said once left nobody to read the rest.
#[test]
fn what_the_core_said_last_is_heard_whatever_the_client_says_meanwhile() {
    let mut rig = Rig::new(10);
    assert_eq!(rig.say(&greeting()), Fate::Keep);
    let mut core = rig.core.take().unwrap();
    let mut said = 0;
    // The client takes nothing, until there is no room at all.
    loop {
        match core.write(&[7; 16 * 1024]) {
            Ok(count) => said += count,
            Err(_) if rig.conn.with.tls.wants_write() => break,
            Err(_) => {}
        }
        let ready = Ready { number: 1, read: true, write: false, gone: false };
        assert_eq!(rig.turn(ready), Fate::Keep);
    }
    drop(core);
    assert_eq!(rig.turn(Ready { number: 1, read: true, write: false, gone: true }), Fate::Keep);
    let give_up = Instant::now() + Duration::from_secs(20);
    while rig.conn.with.tls.wants_write() {
        assert!(Instant::now() < give_up);
        rig.hear();
        assert_eq!(rig.say(&frame(77, 0, 0, &[])), Fate::Keep);
    }
    assert_eq!(rig.go_on(0), Fate::Keep);
    let mut ready = Vec::new();
    while !rig.told {
        assert!(Instant::now() < give_up, "{} of {said} bytes were heard", rig.heard);
        rig.poll.wait(Some(Duration::from_millis(10)), &mut ready);
        for event in std::mem::take(&mut ready) {
            assert_eq!(rig.turn(event), Fate::Keep);
        }
        rig.hear();
    }
    assert_eq!(rig.heard, said);
}
