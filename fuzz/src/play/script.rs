//! What an input says: the steps of a few clients and of the stand-in behind the gate. Every string of bytes is a script.

/// Connections of one script.
pub const MAX_CONNECTIONS: usize = 6;
/// Steps of one script.
const MAX_STEPS: usize = 256;
/// Resets that repetitions may add: fewer than an identity is cut for.
const MAX_REPEATED_RESETS: usize = 600;
const RST_STREAM: u8 = 3;
const HEADERS: u8 = 1;

/// The codes of the steps; a seed is made of them.
pub mod code {
    pub const OPEN: u8 = 0;
    pub const TURN: u8 = 1;
    pub const GREET: u8 = 2;
    pub const CALL: u8 = 3;
    pub const FRAME: u8 = 4;
    pub const BYTES: u8 = 5;
    pub const AGAIN: u8 = 6;
    pub const PIECES: u8 = 7;
    pub const PAUSE: u8 = 8;
    pub const SETTLE: u8 = 9;
    pub const LEAVE: u8 = 10;
    pub const NOISE: u8 = 11;
    pub const REKEY: u8 = 12;
    pub const READ: u8 = 13;
    pub const SAY_BEHIND: u8 = 14;
    pub const BYTES_BEHIND: u8 = 15;
    pub const AGAIN_BEHIND: u8 = 16;
    pub const READ_BEHIND: u8 = 17;
    pub const LEAVE_BEHIND: u8 = 18;
    pub const END_CALLS: u8 = 19;
    pub const RENEW: u8 = 20;
    pub const FORBID: u8 = 21;
    pub const COUNT: u8 = 22;
    /// What must follow `FORBID`: it takes most of a second, and should not be found often.
    pub const FORBID_KEY: u8 = 0xa5;
}

/// Whose certificate a client shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    A,
    B,
    /// Of the CA, and not on the list.
    Stranger,
    /// Of the CA, and names no agent.
    Nameless,
    OtherAuthority,
    NoCertificate,
    Expired,
    /// A's, without the protocol's name.
    NoAlpn,
    /// Nobody says anything.
    Silent,
}

/// How a client or the stand-in leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// After all that it said: the end of its TCP side, of its TLS side, of both.
    Fin,
    Notify,
    NotifyFin,
    /// At once, whatever was not sent yet.
    FinNow,
    Reset,
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveBehind {
    /// After all that it said: both sides, its own side.
    Close,
    Shut,
    /// At once.
    CloseNow,
    /// It listens no more, and goes on speaking.
    Deaf,
}

/// How the stand-in reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    All,
    Nothing,
    /// So many bytes at a time.
    Few(usize),
}

#[derive(Debug, Clone)]
pub enum Step {
    Open {
        who: Who,
        tls12: bool,
        early: bool,
        narrow: bool,
    },
    /// The following steps are about this one.
    Turn(usize),
    Greet,
    /// A call of gRPC's, in one of several shapes.
    Call(u8),
    Say(Vec<u8>),
    /// The last frame or bytes again, on further streams if `on`.
    Again {
        times: usize,
        on: bool,
    },
    /// How what is said is cut: into TLS records and into writes, sizes in turn, 0: as much as there is. `lockstep`:
    /// each piece is sent when the one before has arrived.
    Pieces {
        records: Vec<u8>,
        writes: Vec<u8>,
        lockstep: bool,
    },
    /// In units of 100 microseconds.
    Pause(u8),
    /// Wait a little for what was sent.
    Settle,
    Leave(Leave),
    /// Bytes that are no TLS.
    Noise(Vec<u8>),
    Rekey,
    Read(bool),
    SayBehind(Vec<u8>, bool),
    AgainBehind(usize),
    ReadBehind(Reads),
    LeaveBehind(LeaveBehind),
    /// Each call that arrives is ended.
    EndCalls,
    Renew,
    /// The identity of this connection is not allowed any more, or is allowed from now on.
    Forbid,
}

/// Who ends what is left at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finale {
    Clients(Leave),
    Behind,
    Gate,
}

#[derive(Debug)]
pub struct Script {
    pub steps: Vec<Step>,
    pub finale: Finale,
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn some(&mut self, count: usize) -> &'a [u8] {
        let (some, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        some
    }

    fn counted(&mut self) -> Option<&'a [u8]> {
        let count = self.next()?;
        Some(self.some(count.into()))
    }

    /// A frame: kind, flags, stream, and its payload; below 128 that many bytes follow, else it is filled up.
    fn frame(&mut self) -> Option<Vec<u8>> {
        let (kind, flags, stream, size) = (self.next()?, self.next()?, self.next()?, self.next()?);
        let payload = match size {
            0..128 => self.some(size.into()).to_vec(),
            // Header fields of a byte each, where it is a header block.
            _ => vec![if kind == HEADERS { 0x88 } else { 0 }; (usize::from(size) - 127) * 128],
        };
        Some(frame(kind, flags, stream.into(), &payload))
    }

    fn step(&mut self) -> Option<Step> {
        Some(match self.next()? % code::COUNT {
            code::OPEN => {
                let how = self.next()?;
                let who = match how & 15 {
                    0..=4 => Who::A,
                    5..=7 => Who::B,
                    8 | 9 => Who::Stranger,
                    10 => Who::Nameless,
                    11 => Who::OtherAuthority,
                    12 => Who::NoCertificate,
                    13 => Who::Expired,
                    14 => Who::NoAlpn,
                    _ => Who::Silent,
                };
                Step::Open { who, tls12: how & 16 != 0, early: how & 32 != 0, narrow: how & 64 != 0 }
            }
            code::TURN => Step::Turn(self.next()?.into()),
            code::GREET => Step::Greet,
            code::CALL => Step::Call(self.next()?),
            code::FRAME => Step::Say(self.frame()?),
            code::BYTES => Step::Say(self.counted()?.to_vec()),
            code::AGAIN => {
                let (high, low) = (self.next()?, self.next()?);
                Step::Again { times: times(high, low), on: high & 0x80 != 0 }
            }
            code::PIECES => {
                let counts = self.next()?;
                let records = self.some((counts & 7).into()).to_vec();
                let writes = self.some((counts >> 3 & 7).into()).to_vec();
                Step::Pieces { records, writes, lockstep: counts & 64 != 0 }
            }
            code::PAUSE => Step::Pause(self.next()? % 32),
            code::SETTLE => Step::Settle,
            code::LEAVE => Step::Leave(leave(self.next()?)),
            code::NOISE => Step::Noise(self.counted()?.to_vec()),
            code::REKEY => Step::Rekey,
            code::READ => Step::Read(self.next()? & 1 == 1),
            code::SAY_BEHIND => Step::SayBehind(self.frame()?, true),
            code::BYTES_BEHIND => Step::SayBehind(self.counted()?.to_vec(), false),
            code::AGAIN_BEHIND => {
                let (high, low) = (self.next()?, self.next()?);
                Step::AgainBehind(times(high, low))
            }
            code::READ_BEHIND => Step::ReadBehind(match self.next()? {
                0 => Reads::Nothing,
                255 => Reads::All,
                few => Reads::Few(few.into()),
            }),
            code::LEAVE_BEHIND => Step::LeaveBehind(match self.next()? % 4 {
                0 => LeaveBehind::Close,
                1 => LeaveBehind::Shut,
                2 => LeaveBehind::CloseNow,
                _ => LeaveBehind::Deaf,
            }),
            code::END_CALLS => Step::EndCalls,
            code::RENEW => Step::Renew,
            _ if self.next()? == code::FORBID_KEY => Step::Forbid,
            _ => Step::Settle,
        })
    }
}

/// As many as it takes to be held back, and not for long.
fn times(high: u8, low: u8) -> usize {
    usize::from(high & 0x1f) << 8 | usize::from(low)
}

fn leave(byte: u8) -> Leave {
    match byte % 6 {
        0 => Leave::Fin,
        1 => Leave::Notify,
        2 => Leave::NotifyFin,
        3 => Leave::FinNow,
        4 => Leave::Reset,
        _ => Leave::Drop,
    }
}

impl Script {
    pub fn read(input: &[u8]) -> Option<Self> {
        let (first, rest) = input.split_first()?;
        let finale = match first % 8 {
            6 => Finale::Behind,
            7 => Finale::Gate,
            how => Finale::Clients(leave(how)),
        };
        let mut bytes = Bytes(rest);
        let steps = std::iter::from_fn(|| bytes.step()).take(MAX_STEPS).collect();
        Some(Self { steps, finale })
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The same bytes so many times, each on the next stream of its side if `on`; `resets`: how many were repeated until now.
pub fn repeated(bytes: &[u8], times: usize, on: bool, room: usize, resets: &mut usize) -> Vec<u8> {
    let mut most = if bytes.is_empty() { 0 } else { times.min(room / bytes.len()) };
    if bytes.get(3) == Some(&RST_STREAM) {
        most = most.min(MAX_REPEATED_RESETS.saturating_sub(*resets));
        *resets += most;
    }
    let mut one = bytes.to_vec();
    let mut all = Vec::with_capacity(most * one.len());
    for _ in 0..most {
        if on && let Some(stream) = one.get_mut(5..9) {
            let next = u32::from_be_bytes([stream[0], stream[1], stream[2], stream[3]]).wrapping_add(2);
            stream.copy_from_slice(&next.to_be_bytes());
        }
        all.extend_from_slice(&one);
    }
    all
}
