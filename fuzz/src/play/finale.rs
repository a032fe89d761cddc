//! How an input ends: all that was said arrives or is cut, what is left is ended by one side, and nothing of it is left in
//! the gate.

use super::Play;
use super::check::{self, Expected};
use super::client::Out;
use super::life::{Ended, Events};
use super::script::{Finale, Leave, LeaveBehind};

impl Play<'_> {
    pub(super) fn end(mut self, finale: Finale) {
        self.hurry();
        let expected = Expected::of(&self.conns, self.forbidden.as_ref());
        self.until("what was said", |at, conn| expected.is_settled(at, conn));
        // Again, as more may have been let through in that time.
        let expected = Expected::of(&self.conns, self.forbidden.as_ref());
        check::ends(&self.conns, &expected);
        let events = match finale {
            Finale::Clients(leave) => {
                check::words(&self.conns, &expected, false);
                self.clients_leave(leave, &expected);
                self.rest(None)
            }
            Finale::Behind => {
                self.behind_leaves(&expected);
                self.rest(None)
            }
            Finale::Gate => {
                let ended = self.stage.close();
                self.behind_leaves(&expected);
                self.rest(ended)
            }
        };
        let (frames, cut) = check::events(&self.conns, &expected, &events);
        let agents: Vec<_> = self.conns.iter().filter_map(|conn| conn.agent.clone()).collect();
        self.stage.over(&agents, frames, cut);
    }

    fn clients_leave(&mut self, leave: Leave, expected: &Expected) {
        for conn in &mut self.conns {
            if conn.client.spoiled || !conn.client.is_in() {
                conn.client.close();
            }
            conn.client.push(Out::Leave(leave));
        }
        self.until("the end of the clients", |at, conn| {
            let is_over = !conn.behind.is_taken || conn.behind.is_over();
            expected.is_slack(at) || (conn.client.socket().is_none() && is_over)
        });
    }

    /// Whoever is there is told, after all that the stand-in said.
    fn behind_leaves(&mut self, expected: &Expected) {
        let mut told = Vec::new();
        for (at, conn) in self.conns.iter_mut().enumerate() {
            // Who has not come in is not told anything.
            if conn.client.spoiled || !conn.behind.is_taken {
                conn.client.close();
            }
            told.push(conn.client.socket().is_some() && expected.is_told(at, conn));
            conn.behind.leave(LeaveBehind::Close);
        }
        self.until("the end of what is behind", |_, conn| {
            if conn.client.gone.is_some() {
                // The gate waits for it.
                conn.client.close();
            }
            conn.client.socket().is_none()
        });
        check::words(&self.conns, expected, true);
        check::told(&self.conns, &told);
    }

    /// Nothing is left of the connections: what is on record of them.
    fn rest(&mut self, ended: Option<Ended>) -> Events {
        for conn in &mut self.conns {
            conn.client.close();
            conn.behind.close();
        }
        ended.map_or_else(|| self.stage.rest(), Ended::end)
    }
}
