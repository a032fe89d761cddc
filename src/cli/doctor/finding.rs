//! What can be wrong, each under a stable code.

use serde_json::{Value as Json, json};

use crate::cli::text::plain;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) enum Severity {
    /// Messages are refused or in danger, or the trail is, now.
    Critical,
    /// They will be, or something does not work.
    Warning,
    /// Good to know; nothing is wrong.
    Notice,
}

impl Severity {
    pub(in crate::cli) fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

macro_rules! codes {
    ($($name:ident $code:literal $severity:ident $what:literal;)*) => {
        /// What can be wrong, in order of harm.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(in crate::cli) enum Code {
            $(#[doc = $what] $name,)*
        }

        impl Code {
            /// Every code.
            #[cfg(test)]
            pub(in crate::cli) const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name; never changes.
            pub(in crate::cli) fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// How bad it is.
            pub(in crate::cli) fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// What it is.
            pub(in crate::cli) fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)* }
            }
        }
    };
}

codes! {
    ConfigurationInvalid "configuration_invalid" Critical "the configuration is not valid";
    TlsUnusable "tls_unusable" Critical "a server cannot start with these certificates";
    RedisUnreachable "redis_unreachable" Critical "Redis does not answer";
    RedisReplica "redis_replica" Critical "Redis is a replica: it takes no writes";
    RedisLoading "redis_loading" Critical "Redis is loading its data";
    RedisEvicts "redis_evicts" Critical "Redis throws away what it was given when its memory is full";
    RedisWriteFails "redis_write_fails" Critical "Redis cannot write its append-only file";
    RedisFull "redis_full" Critical "Redis is nearly full: messages are refused";
    ServerDown "server_down" Critical "no server answers";
    ServerNotReady "server_not_ready" Critical "the server is not ready";
    TrailRolledBack "trail_rolled_back" Critical "Redis holds less of the trail than the anchor says";
    SignatureWrong "signature_wrong" Critical "a checkpoint was not signed by this log's key";
    StoreKeyUnusable "store_key_unusable" Critical "the store keys cannot be used";
    SigningKeyUnusable "signing_key_unusable" Critical "the key that signs checkpoints cannot be used";
    CertificateExpired "certificate_expired" Critical "a certificate has expired";
    CertificateUnusable "certificate_unusable" Critical "a certificate cannot be read";
    AnchorUnusable "anchor_unusable" Critical "the anchor cannot be used";
    AnchorBehind "anchor_behind" Critical "the anchor lacks checkpoints that Redis has";
    QuarantineNotFollowed "quarantine_not_followed" Critical "a server lets in who was shut out";
    CheckpointOld "checkpoint_old" Critical "nothing was sealed for too long";
    DiskFull "disk_full" Critical "a disk that the trail needs is full";
    ServerTrouble "server_trouble" Warning "something of the server does not work";
    InboxFull "inbox_full" Warning "an inbox is nearly full: further messages will be refused";
    InboxUnattended "inbox_unattended" Warning "messages wait for an agent that is not connected";
    Quarantined "quarantined" Warning "an operator has shut out agents";
    CircuitOpen "circuit_open" Warning "an agent's circuit is open: messages to it are refused";
    DeadLetters "dead_letters" Warning "there are dead letters";
    ForeignEntries "foreign_entries" Warning "somebody else than a server has written to Redis";
    AgentCertificateEnded "agent_certificate_ended" Warning "the certificate that an agent shows has ended: it is refused";
    CertificateEnds "certificate_ends" Warning "a certificate ends soon";
    KeyExposed "key_exposed" Warning "others can read or change a private key";
    CertificateStale "certificate_stale" Warning "the server has not taken up its new certificate";
    ConfigurationStale "configuration_stale" Warning "the server runs with another configuration than the file's";
    RedisSnapshotFails "redis_snapshot_fails" Warning "Redis' last snapshot failed";
    RedisNotPersistent "redis_not_persistent" Warning "nothing of Redis is on disk";
    RedisMemoryHigh "redis_memory_high" Warning "Redis' memory fills up";
    DiskLow "disk_low" Warning "a disk that the trail needs fills up";
    ArchiveUnusable "archive_unusable" Warning "the archive's folder cannot be used";
    NobodyArchives "nobody_archives" Warning "no server moves the trail to files";
    ClockDiffers "clock_differs" Warning "Redis' clock and this machine's differ";
    DescriptorsLow "descriptors_low" Warning "the server may run out of descriptors";
    AdminUnreachable "admin_unreachable" Warning "a server runs, and its admin listener does not answer";
    NoAnchor "no_anchor" Warning "there is no anchor";
    ConfigurationNotice "configuration_notice" Notice "a setting has no effect, or may surprise";
    ServerNotAsked "server_not_asked" Notice "the server was not asked";
    RedisUnbounded "redis_unbounded" Notice "Redis' memory has no bound";
}

/// Something that is wrong.
#[derive(Debug)]
pub(in crate::cli) struct Finding {
    pub(in crate::cli) code: Code,
    /// What was seen.
    evidence: String,
    /// What to do, and what to type.
    remedy: String,
}

/// All that was found.
#[derive(Debug, Default)]
pub(in crate::cli) struct Findings(Vec<Finding>);

/// Findings of one code that are said one by one.
const MAX_OF_A_CODE: usize = 20;

impl Findings {
    pub(in crate::cli) fn add(&mut self, code: Code, evidence: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { code, evidence: evidence.into(), remedy: remedy.into() });
    }

    /// The same without the evidence of this code.
    pub(in crate::cli) fn without_evidence(mut self, code: Code) -> Self {
        for finding in self.0.iter_mut().filter(|finding| finding.code == code) {
            "not shown here: it may quote the file".clone_into(&mut finding.evidence);
        }
        self
    }

    /// Whether anything is wrong: notices are not.
    pub(in crate::cli) fn is_well(&self) -> bool {
        self.0.iter().all(|finding| finding.code.severity() == Severity::Notice)
    }

    /// Whether there is one of this code.
    #[cfg(test)]
    fn has(&self, code: Code) -> bool {
        self.0.iter().any(|finding| finding.code == code)
    }

    /// In order of harm.
    pub(in crate::cli) fn sorted(mut self) -> Self {
        self.0.sort_by_key(|finding| (finding.code.severity(), finding.code));
        self
    }

    pub(in crate::cli) fn json(&self) -> Json {
        let findings = self.0.iter().map(|finding| {
            json!({
                "code": finding.code.as_str(), "severity": finding.code.severity().as_str(),
                "what": finding.code.what(), "evidence": finding.evidence, "remedy": finding.remedy,
            })
        });
        json!({"well": self.is_well(), "findings": findings.collect::<Vec<_>>()})
    }

    pub(in crate::cli) fn text(&self) -> String {
        let mut text = String::new();
        let (mut last, mut of_code) = (None, 0);
        for finding in &self.0 {
            of_code = if last == Some(finding.code) { of_code + 1 } else { 1 };
            last = Some(finding.code);
            if of_code > MAX_OF_A_CODE {
                continue;
            }
            text.push_str(&format!(
                "{} {}: {}\n  seen: {}\n  do:   {}\n",
                finding.code.severity().as_str().to_uppercase(),
                finding.code.as_str(),
                finding.code.what(),
                plain(&finding.evidence),
                plain(&finding.remedy)
            ));
        }
        let count = |severity| self.0.iter().filter(|finding| finding.code.severity() == severity).count();
        text.push_str(&match (count(Severity::Critical), count(Severity::Warning)) {
            (0, 0) => "nothing is wrong\n".to_owned(),
            (critical, warnings) => format!("critical: {critical}, warnings: {warnings}\n"),
        });
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_notices_are_no_harm() {
        let mut findings = Findings::default();
        findings.add(Code::RedisUnbounded, "maxmemory 0", "set one");
        assert!(findings.is_well());
        findings.add(Code::DeadLetters, "3\u{1b}", "`mas dlq list`");
        findings.add(Code::RedisUnreachable, "refused", "start it");
        let findings = findings.sorted();
        assert!(!findings.is_well() && findings.has(Code::DeadLetters));
        let text = findings.text();
        let at = |what: &str| text.find(what).unwrap();
        assert!(at("CRITICAL redis_unreachable") < at("WARNING dead_letters"), "{text}");
        assert!(at("WARNING dead_letters") < at("NOTICE redis_unbounded"), "{text}");
        assert!(text.contains("seen: 3\\u{1b}") && text.ends_with("critical: 1, warnings: 1\n"), "{text}");
    }

    #[test]
    fn codes_are_documented_and_in_order() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
        let text = std::fs::read_to_string(path).unwrap();
        let mut last = Severity::Critical;
        for code in Code::ALL {
            let line = format!("| `{}` | {} | {} |", code.as_str(), code.severity().as_str(), code.what());
            assert!(text.contains(&line), "docs/commands.md lacks: {line}");
            assert!(code.severity() >= last, "{}", code.as_str());
            last = code.severity();
        }
    }
}
