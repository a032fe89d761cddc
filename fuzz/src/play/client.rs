//! A client at the level of bytes: what it has to say, and what became of its connection.

use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::libc::linger;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::pieces::Pieces;
use super::script::Leave;

/// New keys that a client may ask for.
const MAX_REKEYS: usize = 32;

/// What is to go out, in order.
pub enum Out {
    /// So many further bytes of what it says.
    Say(usize),
    Noise(Vec<u8>),
    Rekey,
    Leave(Leave),
}

/// How the other side has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// It said so in TLS, and closed.
    Told,
    /// It closed without a word.
    Closed,
    Reset,
    /// It sent an alert, or what is no TLS.
    Tls(String),
}

/// `narrow`: small segments, and little room for what is not read.
fn connect_to(addr: &str, narrow: bool) -> nix::Result<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if narrow {
        setsockopt(&socket, sockopt::TcpMaxSeg, &1000)?;
        setsockopt(&socket, sockopt::RcvBuf, &4096)?;
    }
    let addr: SocketAddrV4 = addr.parse().map_err(|_| nix::Error::EINVAL)?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(addr))?;
    Ok(TcpStream::from(socket))
}

pub struct Client {
    pub(super) tcp: Option<TcpStream>,
    pub(super) tls: ClientConnection,
    /// All that it says, also what was not sent yet.
    pub said: Vec<u8>,
    /// So much of it is in TLS.
    pub(super) sealed: usize,
    pub(super) queue: VecDeque<Out>,
    pub(super) wire: Vec<u8>,
    /// The rest of a write that was not taken whole.
    pub(super) piece: usize,
    pub heard: Vec<u8>,
    reads: bool,
    pub(super) early: bool,
    pub(super) pieces: Pieces,
    rekeys: usize,
    pub blocked: bool,
    pub gone: Option<Gone>,
    /// Its TLS has been told of the end.
    pub(super) told: bool,
    /// It never shakes hands.
    pub(super) silent: bool,
    /// It has left, or will: nothing more is said.
    pub left: Option<Leave>,
    /// It left in an instant, or sent what is no TLS: of what it said anything may be missing.
    pub spoiled: bool,
}

impl Client {
    pub fn dial(addr: &str, config: Arc<ClientConfig>, early: bool, narrow: bool) -> Self {
        let tcp = connect_to(addr, narrow).expect("the gate listens");
        tcp.set_nonblocking(true).expect("a socket");
        tcp.set_nodelay(true).expect("a socket");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut tls = ClientConnection::new(config, name).expect("a valid configuration");
        tls.set_buffer_limit(None);
        Self {
            tcp: Some(tcp),
            tls,
            said: Vec::new(),
            sealed: 0,
            queue: VecDeque::new(),
            wire: Vec::new(),
            piece: 0,
            heard: Vec::new(),
            reads: true,
            early,
            pieces: Pieces::default(),
            rekeys: 0,
            blocked: false,
            gone: None,
            told: false,
            silent: false,
            left: None,
            spoiled: false,
        }
    }

    pub fn socket(&self) -> Option<&TcpStream> {
        self.tcp.as_ref().filter(|_| self.gone.is_none())
    }

    pub fn wants_read(&self) -> bool {
        self.reads || self.tls.is_handshaking()
    }

    /// Whether its handshake is over, as far as it can see.
    pub fn is_in(&self) -> bool {
        !self.tls.is_handshaking()
    }

    /// Whether all is sent that it has to say.
    pub fn is_done(&self) -> bool {
        self.tcp.is_none() || self.gone.is_some() || (self.queue.is_empty() && self.wire.is_empty())
    }

    pub fn say(&mut self, bytes: &[u8]) {
        if self.left.is_none() {
            self.said.extend_from_slice(bytes);
            match self.queue.back_mut() {
                Some(Out::Say(count)) => *count += bytes.len(),
                _ => self.queue.push_back(Out::Say(bytes.len())),
            }
        }
    }

    pub fn push(&mut self, out: Out) {
        if self.left.is_some() {
            return;
        }
        match out {
            Out::Noise(ref bytes) => self.spoiled |= !bytes.is_empty(),
            Out::Leave(leave) => {
                self.left = Some(leave);
                if matches!(leave, Leave::FinNow | Leave::Reset | Leave::Drop) {
                    self.spoiled |=
                        !(self.queue.is_empty() && self.wire.is_empty() && leave == Leave::FinNow);
                    self.queue.clear();
                    self.wire.clear();
                    return self.leave(leave);
                }
            }
            // More of them in a row are refused by rustls.
            Out::Rekey => {
                self.rekeys += 1;
                self.spoiled |= self.rekeys > MAX_REKEYS;
            }
            Out::Say(_) => {}
        }
        self.queue.push_back(out);
    }

    pub fn read(&mut self, on: bool) {
        self.reads = on;
    }

    pub fn be_silent(&mut self) {
        self.silent = true;
    }

    /// Nothing is of interest any more.
    pub fn close(&mut self) {
        self.tcp = None;
    }

    pub(super) fn leave(&mut self, leave: Leave) {
        self.spoiled |= self.tls.is_handshaking();
        if matches!(leave, Leave::Notify | Leave::NotifyFin) {
            self.tls.send_close_notify();
            self.seal();
        }
        match leave {
            // The end of TCP comes behind what is on the wire.
            Leave::NotifyFin if !self.wire.is_empty() => self.queue.push_front(Out::Leave(Leave::Fin)),
            Leave::Notify | Leave::NotifyFin => {}
            Leave::Fin | Leave::FinNow => {
                if let Some(tcp) = &self.tcp {
                    // It may have been reset.
                    let _ = tcp.shutdown(Shutdown::Write);
                }
            }
            Leave::Reset => {
                if let Some(tcp) = self.tcp.take() {
                    let _ = setsockopt(&tcp, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 });
                }
            }
            Leave::Drop => self.tcp = None,
        }
    }
}
