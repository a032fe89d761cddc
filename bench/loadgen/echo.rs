//! The floor of gRPC: a server of the same library, certificates and messages that only echoes.
//!
//! Unary: `Send` answers with the payload it got. Stream: each event with N submissions is taken apart, and what
//! waits goes back as deliveries in one event of at most 256, in one write, as the product batches.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_channel::mpsc::{UnboundedReceiver, unbounded};
use futures_util::{FutureExt, SinkExt, StreamExt, TryStreamExt};
use grpcio::{
    CertificateRequestType, ChannelBuilder, DuplexSink, EnvBuilder, RequestStream, Server, ServerBuilder,
    ServerCredentialsBuilder, ServiceBuilder, WriteFlags,
};
use mas::certs::{ca_file, server_files};
use mas::protocol::client_event::Event as ClientKind;
use mas::protocol::server_event::Event as ServerKind;
use mas::protocol::submission::Call;
use mas::protocol::{
    ClientEvent, Deliveries, Delivery, RUNTIME_V1, SendResponse, ServerEvent, Untrusted, Welcome,
};

use crate::client::MAX_EVENT_ITEMS;
use crate::process::{Process, end_with_parent};
use crate::{AnyError, ECHO_COMMAND};

/// Longest start of the echo server.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// Submissions that a client may have under way: as the product says.
const MAX_SUBMISSIONS: u32 = 1024;

/// An echo server in a process of its own; ended when dropped.
pub(crate) struct EchoServer {
    process: Process,
    /// Where it listens.
    pub(crate) addr: String,
}

impl EchoServer {
    /// Starts it with `threads` completion queues.
    pub(crate) fn start(certs: &Path, threads: u16) -> Result<Self, AnyError> {
        let certs = certs.to_str().ok_or("the folder's name is no text")?;
        let args = [ECHO_COMMAND, "--certs", certs, "--threads", &threads.to_string()];
        let mut process = Process::again("echo server", &args)?;
        let port: u16 = process.line(READY_PATIENCE)?.parse()?;
        Ok(Self { process, addr: format!("127.0.0.1:{port}") })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// The body of the process: prints its port and serves until stdin ends.
pub(crate) fn main(certs: &Path, threads: u16) -> Result<(), AnyError> {
    end_with_parent()?;
    let (server, port) = serve(certs, usize::from(threads))?;
    println!("{port}");
    std::io::stdout().flush()?;
    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())?;
    drop(server);
    Ok(())
}

fn serve(certs: &Path, threads: usize) -> Result<(Server, u16), AnyError> {
    let read = |path: PathBuf| {
        std::fs::read(&path).map_err(|error| AnyError::from(format!("{}: {error}", path.display())))
    };
    let files = server_files(certs);
    let credentials = ServerCredentialsBuilder::new()
        .root_cert(read(ca_file(certs))?, CertificateRequestType::RequestAndRequireClientCertificateAndVerify)
        .add_cert(read(files.cert)?, read(files.key)?)
        .build();
    // Pinned, as the product's are.
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let next = AtomicUsize::new(0);
    let environment = EnvBuilder::new()
        .cq_count(threads)
        .name_prefix("echo")
        .after_start(move || {
            if let Some(core) = cores.get(next.fetch_add(1, Ordering::Relaxed) % cores.len().max(1)) {
                let _ = core_affinity::set_for_current(*core);
            }
        })
        .build();
    let environment = Arc::new(environment);
    let args = ChannelBuilder::new(environment.clone()).reuse_port(false).build_args();
    let service = ServiceBuilder::new()
        .add_unary_handler(&RUNTIME_V1.send.server, |context, request, sink| {
            let message_id = request.0.map_or_else(String::new, |request| request.data_json);
            let response = SendResponse { message_id, ..SendResponse::default() };
            // A client that is gone needs no answer.
            context.spawn(sink.success(response).map(drop));
        })
        .add_duplex_streaming_handler(&RUNTIME_V1.transport.server, |context, stream, sink| {
            let (queue, items) = unbounded();
            context.spawn(async move {
                futures_util::future::join(read_events(stream, queue), write_events(sink, items)).await;
            });
        })
        .build();
    let mut server = ServerBuilder::new(environment).channel_args(args).register_service(service).build()?;
    let port = server.add_listening_port("127.0.0.1:0", credentials)?;
    server.start();
    Ok((server, port))
}

enum Out {
    Welcome(String),
    Delivery(Delivery),
}

async fn read_events(
    mut stream: RequestStream<Untrusted<ClientEvent>>,
    queue: futures_channel::mpsc::UnboundedSender<Out>,
) {
    // What waits is bounded by the client: it sends the next message when one has come back.
    while let Ok(Some(event)) = stream.try_next().await {
        match event.0.and_then(|event| event.event) {
            Some(ClientKind::Hello(hello)) => {
                let _ = queue.unbounded_send(Out::Welcome(hello.instance_id));
            }
            Some(ClientKind::Submit(submit)) => {
                for submission in submit.submissions {
                    if let Some(Call::Send(request)) = submission.call {
                        let delivery = Delivery {
                            delivery_id: submission.reference.to_string(),
                            envelope_json: request.data_json,
                            ..Delivery::default()
                        };
                        let _ = queue.unbounded_send(Out::Delivery(delivery));
                    }
                }
            }
            Some(_) | None => {}
        }
    }
}

async fn write_events(mut sink: DuplexSink<ServerEvent>, mut items: UnboundedReceiver<Out>) {
    sink.enhance_batch(true);
    while let Some(first) = items.next().await {
        let mut deliveries = Vec::new();
        let mut events = Vec::new();
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                Out::Welcome(instance_id) => events.push(ServerKind::Welcome(Welcome {
                    agent_id: "echo".to_owned(),
                    instance_id,
                    features: vec!["submit".to_owned(), "deliveries".to_owned()],
                    max_submissions: MAX_SUBMISSIONS,
                    ..Welcome::default()
                })),
                Out::Delivery(delivery) => deliveries.push(delivery),
            }
            next = if deliveries.len() < MAX_EVENT_ITEMS { items.try_recv().ok() } else { None };
        }
        if !deliveries.is_empty() {
            events.push(ServerKind::Deliveries(Deliveries { deliveries, ..Deliveries::default() }));
        }
        for event in events {
            let event = ServerEvent { event: Some(event), ..ServerEvent::default() };
            if sink.feed((event, WriteFlags::default())).await.is_err() {
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
    // The client closed its side, or is gone: either way nothing is left to say.
    let _ = sink.close().await;
}
