//! What keeps single agents from being served, each with what to do. The server is ready all the same.

use super::status::Status;

/// Most of them that are told.
const MAX_NOTES: usize = 50;

/// One line for each.
pub(super) fn notes(status: &Status) -> Vec<String> {
    let quarantine = status.quarantine.entries.iter().map(|(whom, entry)| {
        format!("quarantined: {whom}, by {}: `mas release` lets it in again", entry.by.escape_default())
    });
    let circuits = status.circuits.iter().map(|agent| {
        format!(
            "circuit_open: nothing is sent to {agent}, whose handlers fail: look at its log; it closes once they succeed"
        )
    });
    let now_s = i64::try_from(status.now_ms / 1000).unwrap_or(i64::MAX);
    let ended = status.agents_certificates.iter().filter(|(_, validity)| validity.end_s < now_s).map(|(agent, _)| {
        format!(
            "certificate_expired: the certificate of {agent} has ended, and it is refused: `mas certs issue {agent}`, and have it \
             connect again"
        )
    });
    let notes: Vec<String> = quarantine.chain(circuits).chain(ended).take(MAX_NOTES + 1).collect();
    let more = (notes.len() > MAX_NOTES).then(|| "and more: /api/v1/status has all".to_owned());
    notes.into_iter().take(MAX_NOTES).chain(more).collect()
}
