//! The wire of a client: what it says is cut into TLS records and into writes as a script has it, and what the gate says
//! is heard.

use std::io::{ErrorKind, Read, Write};

use super::client::{Client, Gone, Out};

/// Longest TLS record.
const RECORD: usize = 16 * 1024;

impl Client {
    /// Takes what TLS has to send.
    pub(super) fn seal(&mut self) {
        while self.tls.wants_write() && !self.silent {
            let _ = self.tls.write_tls(&mut self.wire).expect("a vector takes it");
        }
    }

    /// Goes on; whether it could. `arrived`: so much of what it said has.
    pub fn pump(&mut self, arrived: usize) -> bool {
        if self.gone.is_some() || self.tcp.is_none() {
            return false;
        }
        let heard = self.wants_read() && self.hear();
        self.speak(arrived) || heard
    }

    fn speak(&mut self, arrived: usize) -> bool {
        if self.gone.is_some() || self.pieces.wait_until(arrived).is_some() {
            return false;
        }
        self.seal();
        if self.wire.is_empty() {
            match self.queue.pop_front() {
                None => return false,
                Some(Out::Say(count)) => {
                    if self.silent || (self.tls.is_handshaking() && !self.early) {
                        self.queue.push_front(Out::Say(count));
                        return false;
                    }
                    let size = self.pieces.record(count).min(RECORD);
                    if let Some(bytes) = self.said.get(self.sealed..self.sealed + size) {
                        self.tls.writer().write_all(bytes).expect("its buffer has no limit");
                    }
                    self.sealed += size;
                    if size < count {
                        self.queue.push_front(Out::Say(count - size));
                    }
                }
                Some(Out::Noise(bytes)) => self.wire.extend(bytes),
                // Where there is nothing to renew, or in TLS 1.2, it does nothing.
                Some(Out::Rekey) => drop(self.tls.refresh_traffic_keys()),
                Some(Out::Leave(leave)) => self.leave(leave),
            }
            self.seal();
            return true;
        }
        self.write()
    }

    fn write(&mut self) -> bool {
        if self.piece == 0 {
            self.piece = self.pieces.write(self.wire.len());
        }
        let (Some(tcp), Some(piece)) = (self.tcp.as_mut(), self.wire.get(..self.piece)) else { return false };
        match tcp.write(piece) {
            Ok(written) => {
                self.blocked = false;
                self.piece -= written;
                let _ = self.wire.drain(..written);
                if self.wire.is_empty() {
                    let sealed = if self.tls.is_handshaking() { 0 } else { self.sealed };
                    self.pieces.sent(Some(sealed));
                } else {
                    self.pieces.sent(None);
                }
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.blocked = true;
                false
            }
            // What was said to it before can still be read.
            Err(_) => {
                while self.gone.is_none() && self.hear() {}
                let _ = self.gone.get_or_insert(Gone::Reset);
                true
            }
        }
    }

    fn hear(&mut self) -> bool {
        if self.told {
            return self.drain();
        }
        let Some(tcp) = self.tcp.as_mut() else { return false };
        match self.tls.read_tls(tcp) {
            Ok(_) => {
                if let Err(error) = self.tls.process_new_packets() {
                    // It would say so.
                    self.gone = Some(Gone::Tls(error.to_string()));
                    return true;
                }
                let mut buffer = [0; RECORD];
                loop {
                    match self.tls.reader().read(&mut buffer) {
                        Ok(0) => {
                            self.told = true;
                            return true;
                        }
                        Ok(n) => self.heard.extend(&buffer[..n]),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                        Err(_) => {
                            self.gone = Some(Gone::Closed);
                            return true;
                        }
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => {
                self.gone = Some(Gone::Reset);
                true
            }
        }
    }

    /// Behind the end of TLS nothing may come but the end of TCP.
    fn drain(&mut self) -> bool {
        let Some(tcp) = self.tcp.as_mut() else { return false };
        match tcp.read(&mut [0; 1]) {
            Ok(0) => self.gone = Some(Gone::Told),
            Ok(_) => self.gone = Some(Gone::Tls("bytes behind the end of TLS".to_owned())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            // It was told before that.
            Err(_) => self.gone = Some(Gone::Told),
        }
        true
    }
}
