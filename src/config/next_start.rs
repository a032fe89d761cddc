//! Keys that are read at start: what a reload finds changed under them waits for the next one.

use super::model::Config;

impl Config {
    /// The keys whose values differ from those that a server started with and that it reads only then.
    pub fn waits_for_start(&self, started: &Self) -> Vec<&'static str> {
        let (new, old) = (&self.limits, &started.limits);
        let (redis, old_redis) = (&self.redis, &started.redis);
        let changed = [
            ("server_listen_addr", self.listen_addr != started.listen_addr),
            ("admin_listen_addr", self.admin_listen_addr != started.admin_listen_addr),
            ("admin_socket_path", self.admin_socket != started.admin_socket),
            ("threads", self.threads != started.threads),
            ("spin_us", self.spin_us != started.spin_us),
            ("tls_revoked_path", self.tls.revoked != started.tls.revoked),
            (
                "limits.max_connections_per_agent",
                new.max_connections_per_agent != old.max_connections_per_agent,
            ),
            ("limits.session_opens_per_second", new.session_opens_per_second != old.session_opens_per_second),
            ("limits.refusals_per_second", new.refusals_per_second != old.refusals_per_second),
            ("gateway.redis.url", redis.url != old_redis.url),
            ("gateway.redis.socket_timeout", redis.timeout_ms != old_redis.timeout_ms),
            ("gateway.redis.tls", redis.tls != old_redis.tls),
            ("gateway.redis.sentinel", redis.sentinel != old_redis.sentinel),
            ("gateway.redis.durability", redis.durability != old_redis.durability),
            ("gateway.audit", self.audit != started.audit),
            ("gateway.telemetry", self.telemetry != started.telemetry),
        ];
        changed.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect()
    }
}
