//! What is measured, and what each of them does for a message.

/// One server with one rule for bringing messages to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Row {
    /// NATS JetStream as it comes.
    #[value(name = "nats-2m")]
    NatsTwoMinutes,
    /// NATS JetStream that syncs as often as `appendfsync everysec`.
    #[value(name = "nats-1s")]
    NatsOneSecond,
    /// NATS JetStream that syncs before it acknowledges.
    NatsAlways,
    /// Redis Streams and a client written by hand, `appendfsync everysec`.
    RedisEverysec,
    /// The same, `appendfsync always`.
    RedisAlways,
    /// The MAS server, `durability: accepted`.
    MasEverysec,
    /// The MAS server, `durability: fsynced`.
    MasAlways,
}

/// What a row is, in words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traits {
    pub(crate) name: &'static str,
    /// When the disk has what was acknowledged.
    pub(crate) fsync: &'static str,
    pub(crate) tls: &'static str,
    /// Before a message is taken.
    pub(crate) checked: &'static str,
    /// Beside the message itself.
    pub(crate) recorded: &'static str,
}

impl Row {
    /// All, in the order in which a round takes them: neighbours are different servers.
    pub(crate) const ALL: [Self; 7] = [
        Self::MasEverysec,
        Self::NatsTwoMinutes,
        Self::RedisEverysec,
        Self::NatsOneSecond,
        Self::MasAlways,
        Self::NatsAlways,
        Self::RedisAlways,
    ];

    /// `sync_interval` of a NATS server; `None`: another server.
    pub(crate) fn sync_interval(self) -> Option<&'static str> {
        match self {
            Self::NatsTwoMinutes => Some("2m"),
            Self::NatsOneSecond => Some("1s"),
            Self::NatsAlways => Some("always"),
            Self::RedisEverysec | Self::RedisAlways | Self::MasEverysec | Self::MasAlways => None,
        }
    }

    /// `appendfsync` of Redis alone; `None`: another server.
    pub(crate) fn appendfsync(self) -> Option<&'static str> {
        match self {
            Self::RedisEverysec => Some("everysec"),
            Self::RedisAlways => Some("always"),
            Self::NatsTwoMinutes
            | Self::NatsOneSecond
            | Self::NatsAlways
            | Self::MasEverysec
            | Self::MasAlways => None,
        }
    }

    /// Whether loadgen is told `--fsynced`; `None`: loadgen does not measure it.
    pub(crate) fn fsynced_by_loadgen(self) -> Option<bool> {
        match self {
            Self::MasEverysec => Some(false),
            Self::MasAlways => Some(true),
            Self::NatsTwoMinutes
            | Self::NatsOneSecond
            | Self::NatsAlways
            | Self::RedisEverysec
            | Self::RedisAlways => None,
        }
    }

    pub(crate) fn traits(self) -> Traits {
        let nats = |name, fsync| Traits {
            name,
            fsync,
            tls: "mutual",
            checked: "client certificate at connect",
            recorded: "nothing",
        };
        let redis =
            |name, fsync| Traits { name, fsync, tls: "none", checked: "nothing", recorded: "nothing" };
        let mas = |name, fsync| Traits {
            name,
            fsync,
            tls: "mutual",
            checked: "policy: sender and target, roles, rate, circuit breaker, data-loss prevention",
            recorded: "audit: hash chain, custody, signed checkpoints",
        };
        match self {
            Self::NatsTwoMinutes => nats("NATS JetStream, default", "every 2 min (sync_interval: 2m)"),
            Self::NatsOneSecond => nats("NATS JetStream, 1 s", "every second (sync_interval: 1s)"),
            Self::NatsAlways => nats("NATS JetStream, always", "before the ack (sync_interval: always)"),
            Self::RedisEverysec => redis("Redis Streams by hand, everysec", "every second (AOF everysec)"),
            Self::RedisAlways => redis("Redis Streams by hand, always", "before the answer (AOF always)"),
            Self::MasEverysec => mas("MAS server, accepted", "every second (AOF everysec)"),
            Self::MasAlways => mas("MAS server, fsynced", "before the answer (AOF always)"),
        }
    }
}
