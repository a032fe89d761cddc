//! One agent's session, a step at a time.

use std::sync::Arc;

use futures_executor::block_on;
use futures_util::{SinkExt, TryStreamExt};
use grpcio::{
    CallOption, ChannelBuilder, ChannelCredentialsBuilder, Client, ClientDuplexReceiver, ClientDuplexSender,
    Environment, WriteFlags,
};
use mas::protocol::client_event::Event;
use mas::protocol::server_event::Event as ServerKind;
use mas::protocol::submission::Call;
use mas::protocol::submission_result::Outcome;
use mas::protocol::{Acks, ClientEvent, Hello, RUNTIME_V1, SendRequest, ServerEvent, Submission, Submit};

use crate::AnyError;
use crate::world::World;

/// The one instance of each agent.
pub(crate) const INSTANCE: &str = "bench";

/// A session.
pub(crate) struct Session {
    /// For unary calls beside it.
    pub(crate) client: Client,
    sink: ClientDuplexSender<ClientEvent>,
    stream: ClientDuplexReceiver<ServerEvent>,
}

impl Session {
    pub(crate) fn open(world: &World, environment: &Arc<Environment>, agent: &str) -> Result<Self, AnyError> {
        let credentials = world.credentials(agent)?.load()?;
        let tls = ChannelCredentialsBuilder::new()
            .root_cert(credentials.ca)
            .cert(credentials.cert, credentials.key);
        let channel = ChannelBuilder::new(environment.clone())
            .use_local_subchannel_pool(true)
            .set_credentials(tls.build())
            .connect(&world.addr);
        let client = Client::new(channel);
        let (sink, stream) = client
            .duplex_streaming(&RUNTIME_V1.transport.client, CallOption::default().wait_for_ready(true))?;
        let mut session = Self { client, sink, stream };
        let hello = Hello {
            instance_id: INSTANCE.to_owned(),
            features: vec!["deliveries".to_owned()],
            ..Hello::default()
        };
        session.say(Event::Hello(hello))?;
        match session.hear()? {
            ServerKind::Welcome(_) => Ok(session),
            other => Err(format!("expected a welcome, got {other:?}").into()),
        }
    }

    /// Sends messages in one event and waits until all are accepted.
    pub(crate) fn submit(&mut self, messages: Vec<SendRequest>) -> Result<(), AnyError> {
        let mut waiting = messages.len();
        let submissions = messages
            .into_iter()
            .map(|message| Submission { call: Some(Call::Send(message)), ..Submission::default() })
            .collect();
        self.say(Event::Submit(Submit { submissions, ..Submit::default() }))?;
        while waiting > 0 {
            let ServerKind::Results(results) = self.hear()? else { continue };
            for result in results.results {
                match result.outcome {
                    Some(Outcome::Send(_)) => waiting = waiting.saturating_sub(1),
                    other => return Err(format!("not accepted: {other:?}").into()),
                }
            }
        }
        Ok(())
    }

    /// Waits for so many deliveries and acknowledges them.
    pub(crate) fn receive(&mut self, count: usize) -> Result<(), AnyError> {
        let mut delivery_ids = Vec::with_capacity(count);
        while delivery_ids.len() < count {
            if let ServerKind::Deliveries(batch) = self.hear()? {
                delivery_ids.extend(batch.deliveries.into_iter().map(|delivery| delivery.delivery_id));
            }
        }
        self.say(Event::Acks(Acks { delivery_ids, ..Acks::default() }))
    }

    fn say(&mut self, event: Event) -> Result<(), AnyError> {
        let event = ClientEvent { event: Some(event), ..ClientEvent::default() };
        Ok(block_on(self.sink.send((event, WriteFlags::default())))?)
    }

    fn hear(&mut self) -> Result<ServerKind, AnyError> {
        match block_on(self.stream.try_next())? {
            Some(ServerEvent { event: Some(event), .. }) => Ok(event),
            _ => Err("the stream ended".into()),
        }
    }
}
