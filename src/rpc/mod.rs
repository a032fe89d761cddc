//! gRPC, and nothing of gRPC elsewhere in the server: handlers on completion-queue threads that read the
//! identity, check shapes and hand a job to a worker. Nothing here blocks.

mod answer;
mod caller;
mod convert;
mod core;
mod error;
mod gateway;
mod health;
mod sending;
mod status;
mod submit;
mod transport;
mod unary;

use std::sync::Arc;
use std::time::Duration;

use grpcio::{ChannelBuilder, EnvBuilder, Environment, ServerBuilder, Service, ServiceBuilder};

use crate::config::{Config, Limits};
use crate::gate::{self, Doorstep, Gate, Peers, Report};
use crate::protocol::{MAS_V1, Methods, RUNTIME_V1};
use crate::shard::Shards;
use caller::Callers;
use core::Core;
use gateway::Gateway;

pub use error::ListenError;

/// Beside `data_json`, a request holds ids and a type: far less than this.
const MESSAGE_OVERHEAD_BYTES: usize = 64 * 1024;
/// Request headers of one call.
const MAX_METADATA_BYTES: i32 = 8 * 1024;
/// HPACK table that a peer may ask for.
const HPACK_TABLE_BYTES: i32 = 4 * 1024;
/// A silent connection is pinged after this, and is dead when it does not answer in time: this is what
/// ends the session of an agent that is stopped or cut off.
const KEEPALIVE_TIME: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Clients may ping as often as this; more often is abuse.
const MIN_PING_INTERVAL: Duration = Duration::from_secs(10);
const MAX_PING_STRIKES: i32 = 5;
/// Places of each completion queue for calls that begin, and for unary ones whose message has not come: those of an
/// identity are bounded by the gate, and some identities together must not take them all.
const CALL_PLACES: usize = 8_192;
/// A connection without a call is closed after this; its client makes another one when it calls.
const MAX_IDLE_MS: i32 = 30 * 60 * 1000;
/// How long what the C core said last may take to reach clients when the server stops.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a server needs to be reached, before it is open: the port, and certificates that are good. Whoever connects waits.
pub struct Door {
    doorstep: Doorstep,
    tls: Arc<rustls::ServerConfig>,
}

impl Door {
    /// Binds, and loads the certificates.
    pub fn new(config: &Config, addr: &str, report: Arc<Report>) -> Result<Self, ListenError> {
        let tls = gate::load(config, &report)?;
        Ok(Self { doorstep: Doorstep::bind(addr, &config.limits, report)?, tls })
    }

    /// Who is connected, and whether anybody new is let in.
    pub fn peers(&self) -> &Arc<Peers> {
        self.doorstep.peers()
    }
}

/// A listening server.
pub struct Listener {
    gate: Gate,
    peers: Arc<Peers>,
    core: Arc<Core>,
    // Dropped last: the server's completion queues live in it.
    _environment: Arc<Environment>,
    /// The address that was bound, with its real port.
    pub addr: String,
}

impl Listener {
    /// Starts serving who comes through the door.
    pub fn start(
        config: &Config,
        Door { doorstep, tls }: Door,
        shards: Arc<Shards>,
        threads: usize,
    ) -> Result<Self, ListenError> {
        grpcio::redirect_log();
        let (addr, peers) = (doorstep.addr.clone(), doorstep.peers().clone());
        let environment = Arc::new(environment(threads));
        let callers = Arc::new(Callers::new(shards.shared().clone(), peers.clone()));
        let max_event_bytes = longest_event(&config.limits);
        let gateway = Gateway { callers, shards: shards.clone(), max_event_bytes };
        let args = channel(environment.clone(), &config.limits).build_args();
        let mut server = ServerBuilder::new(environment.clone())
            .channel_args(args)
            .requests_slot_per_cq(CALL_PLACES)
            .register_service(service(&RUNTIME_V1, &gateway))
            .register_service(service(&MAS_V1, &gateway))
            .register_service(health::service(&gateway))
            .build()
            .map_err(ListenError::Build)?;
        server.start();
        let core = Arc::new(Core::new(server, shards));
        let gate = doorstep.open(tls, core.clone())?;
        Ok(Self { gate, peers, core, _environment: environment, addr })
    }

    /// Who is connected.
    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Reads the certificate files again; new connections use them.
    pub fn renew(&self, config: &Config) -> Result<(), ListenError> {
        self.gate.renew(gate::load(config, self.core.report())?);
        Ok(())
    }

    /// Takes no new calls and waits until the open ones are over, or cancels them after `patience`.
    pub fn stop(self, patience: Duration) {
        let closed = self.gate.close();
        if let Some(mut server) = self.core.give_up() {
            let over = server.shutdown();
            let (done, finished) = std::sync::mpsc::channel();
            let waiter = std::thread::spawn(move || {
                let _ = done.send(futures_executor::block_on(over));
            });
            if finished.recv_timeout(patience).is_err() {
                server.cancel_all_calls();
            }
            drop(waiter.join());
        }
        closed.end(LAST_WORDS);
    }
}

fn environment(threads: usize) -> Environment {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let next = std::sync::atomic::AtomicUsize::new(0);
    EnvBuilder::new()
        .cq_count(threads)
        .name_prefix("rpc")
        .after_start(move || {
            let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            // From the last core downwards: workers are pinned from the first one upwards.
            if let Some(core) = cores.iter().rev().nth(index % cores.len().max(1))
                && !core_affinity::set_for_current(*core)
            {
                log::warn!(
                    code = "thread_not_pinned", core = core.id;
                    "completion queue {index} could not be pinned to core {}", core.id
                );
            }
        })
        .build()
}

/// Bytes of the longest message that is read: a payload or a state, and what is around it.
fn longest_event(limits: &Limits) -> usize {
    limits.max_message_bytes.max(limits.max_state_bytes) + MESSAGE_OVERHEAD_BYTES
}

fn channel(environment: Arc<Environment>, limits: &Limits) -> ChannelBuilder {
    let raw = |name: &'static std::ffi::CStr| name.to_owned();
    ChannelBuilder::new(environment)
        .max_concurrent_stream(i32::try_from(limits.max_streams_per_connection).unwrap_or(i32::MAX))
        .max_receive_message_len(i32::try_from(longest_event(limits)).unwrap_or(i32::MAX))
        .max_send_message_len(-1)
        .keepalive_time(KEEPALIVE_TIME)
        .keepalive_timeout(KEEPALIVE_TIMEOUT)
        .keepalive_permit_without_calls(true)
        .http2_min_recv_ping_interval_without_data(MIN_PING_INTERVAL)
        .http2_max_ping_strikes(MAX_PING_STRIKES)
        .raw_cfg_int(raw(c"grpc.max_connection_idle_ms"), MAX_IDLE_MS)
        .raw_cfg_int(raw(c"grpc.max_metadata_size"), MAX_METADATA_BYTES)
        .raw_cfg_int(raw(c"grpc.http2.hpack_table_size.decoder"), HPACK_TABLE_BYTES)
        .raw_cfg_int(raw(c"grpc.per_message_decompression"), 0)
        // Clients give up by themselves what has taken too long; a timer for each call would do the same once more.
        .raw_cfg_int(raw(c"grpc.enable_deadline_checking"), 0)
}

/// Checks the certificate files without listening.
pub fn check_credentials(config: &Config) -> Result<(), ListenError> {
    gate::load(config, &Arc::default())?;
    Ok(())
}

/// One table serves both service paths.
fn service(methods: &'static Methods, gateway: &Gateway) -> Service {
    let g = || gateway.clone();
    let (a, b, c, d, e, f, h, i) = (g(), g(), g(), g(), g(), g(), g(), g());
    ServiceBuilder::new()
        .add_duplex_streaming_handler(&methods.transport.server, move |ctx, stream, sink| {
            transport::serve(&a, ctx, stream, sink);
        })
        .add_unary_handler(&methods.send.server, move |ctx, request, sink| {
            unary::send(&b, ctx, request, sink);
        })
        .add_unary_handler(&methods.request.server, move |ctx, request, sink| {
            unary::request(&c, ctx, request, sink);
        })
        .add_unary_handler(&methods.reply.server, move |ctx, request, sink| {
            unary::reply(&d, ctx, request, sink);
        })
        .add_unary_handler(&methods.discover.server, move |ctx, request, sink| {
            unary::discover(&e, ctx, request, sink);
        })
        .add_unary_handler(&methods.get_state.server, move |ctx, request, sink| {
            unary::get_state(&f, ctx, request, sink);
        })
        .add_unary_handler(&methods.update_state.server, move |ctx, request, sink| {
            unary::update_state(&h, ctx, request, sink);
        })
        .add_unary_handler(&methods.reset_state.server, move |ctx, request, sink| {
            unary::reset_state(&i, ctx, request, sink);
        })
        .build()
}
