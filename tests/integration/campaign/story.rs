//! What happened to one message, in order: for whoever looks into a violation.

use mas::audit::Record;

use super::history::Seen;

/// The lines of a message's story, each with its time in Unix microseconds.
pub fn of(message_id: &str, seen: &Seen, records: &[Record]) -> String {
    let mut lines: Vec<(u64, String)> = Vec::new();
    let mut sessions = Vec::new();
    for accepted in seen.accepted.iter().filter(|accepted| accepted.message_id == message_id) {
        lines.push((accepted.at_us, format!("accepted from {} for {}", accepted.sender, accepted.target)));
    }
    for delivered in seen.delivered.iter().filter(|delivered| delivered.message_id == message_id) {
        sessions.push(delivered.session);
        let (agent, instance, session) = (&delivered.agent, &delivered.instance, delivered.session);
        let what = format!("delivery {} to {agent}/{instance} on session {session}", delivered.attempt);
        lines.push((delivered.at_us, what));
    }
    for said in seen.said.iter().filter(|said| said.held.message_id == message_id) {
        let (attempt, session) = (said.held.attempt, said.held.session);
        let when = if said.late { ", late" } else { "" };
        lines.push((said.at_us, format!("{:?} of delivery {attempt} of session {session}{when}", said.word)));
    }
    for commit in seen.committed.iter().filter(|commit| commit.held.message_id == message_id) {
        lines.push((
            commit.asked_us,
            format!("asked for what was committed: delivery {}", commit.held.attempt),
        ));
    }
    for record in records {
        let about = record.message_id.is_some_and(|id| id.to_string() == message_id);
        let named = record.messages.iter().find(|(id, _)| id.to_string() == message_id);
        if about || named.is_some() {
            let attempt = named.map_or(record.attempt, |(_, attempt)| u32::from(*attempt));
            let Record { time_us, action, decision, agent, instance, reason, .. } = record;
            let what =
                format!("record {action:?} {decision:?} {agent}/{instance} attempt {attempt} {reason}");
            lines.push((*time_us, what));
        }
    }
    let (from, to) = (
        lines.iter().map(|(at, _)| *at).min().unwrap_or(0),
        lines.iter().map(|(at, _)| *at).max().unwrap_or(0),
    );
    for opened in seen.opened.iter().filter(|opened| sessions.contains(&opened.session)) {
        let what = format!(
            "session {} of {}/{} on server {}",
            opened.session, opened.agent, opened.instance, opened.server
        );
        lines.push((opened.at_us, what));
    }
    for (session, at_us) in seen.closed.iter().filter(|(session, _)| sessions.contains(session)) {
        lines.push((*at_us, format!("session {session} closed")));
    }
    for disturbed in seen.disturbed.iter().filter(|d| d.to_us >= from && d.from_us <= to) {
        lines.push((disturbed.from_us, format!("{} until {}", disturbed.by, disturbed.to_us)));
    }
    lines.sort();
    lines.into_iter().map(|(at_us, what)| format!("  {at_us} {what}\n")).collect()
}
