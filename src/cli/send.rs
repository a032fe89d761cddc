//! `mas send` and `mas request`: one message of an agent, from the terminal.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use serde_json::{Value as Json, json};

use super::exit::Exit;
use super::text::{parse_span_ms, plain};
use crate::audit::{LaneId, View, lane};
use crate::certs;
use crate::config::Config;
use crate::ids::AgentId;
use crate::store::{Endpoint, trail};
use mas_agent::{Agent, AgentError, Builder, Credentials, HandlerError, Receipt};

/// Longest payload that is read, in bytes: longer than any server takes.
const MAX_PAYLOAD_BYTES: u64 = 16 * 1024 * 1024;
/// Payload that comes from standard input.
const STDIN: &str = "-";
/// Longest that the record of a refusal is waited for in Redis.
const RECORD_PATIENCE: Duration = Duration::from_secs(2);
/// What gRPC says of a certificate that names another host.
const OTHER_NAME: &str = "is not in peer certificate";
/// Type of a message, where none is given.
const MESSAGE_TYPE: &str = "message";

const SEND: &str = "\
Sends as an agent, with its certificate. Give operators an agent of their own: while the command is connected, what waits for
that agent may be delivered to it, which gives it back untouched. What the server decides is on record; the receipt says where: `mas audit show
LANE:SEQ` shows the record, `mas audit proof --lane LANE --sequence SEQ` proves it.

Exit codes: 0 accepted, 1 refused or no answer, 2 wrong arguments.

Examples:
  mas send --as ops worker '{\"task\":\"reindex\"}' --type task
  jq -c . order.json | mas send --as ops worker --type order
  mas send --addr mas.example.org:50051 --cert ops.pem --key ops.key --ca ca.pem worker '{}' --json";

const REQUEST: &str = "\
Sends a request as an agent and prints what it is answered: on standard output the reply alone, so that it can be read by `jq`; receipts on
standard error. With --json one object with everything. See `mas send --help` for whose certificate to use.

Exit codes: 0 answered, 1 refused or no reply, 2 wrong arguments.

Examples:
  mas request --as ops adder '{\"a\":1,\"b\":2}' --type add | jq .sum
  mas request --as ops planner '{}' --type status --timeout 5s --json";

/// Who sends, where to, and what.
#[derive(Debug, Args)]
struct MessageArgs {
    /// The agent that gets it.
    #[arg(value_name = "TARGET")]
    target: String,
    /// The payload; `-` or nothing: from standard input.
    #[arg(value_name = "JSON")]
    payload: Option<String>,
    /// The type of the message.
    #[arg(long = "type", value_name = "TYPE", default_value = MESSAGE_TYPE)]
    message_type: String,
    /// Send as this agent of the configuration: with its tls_cert_path and tls_key_path, else with what `mas certs issue` has
    /// put beside the authority.
    #[arg(long = "as", value_name = "AGENT", conflicts_with_all = ["cert", "key"])]
    sender: Option<String>,
    /// The certificate of the agent that sends.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The authority that the server's certificate comes from; else that of the configuration.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Where the server is: host:port; else server_listen_addr of the configuration.
    #[arg(long, value_name = "ADDR")]
    addr: Option<String>,
    /// The name in the server's certificate, where it is not the host of the address.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// The configuration; else MAS_CONFIG_FILE, else mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long it may take, as 90s or 2m.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_timeout)]
    timeout: Duration,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Arguments of `mas send`.
#[derive(Debug, Args)]
#[command(after_long_help = SEND)]
pub struct SendArgs {
    #[command(flatten)]
    message: MessageArgs,
}

/// Arguments of `mas request`.
#[derive(Debug, Args)]
#[command(after_long_help = REQUEST)]
pub struct RequestArgs {
    #[command(flatten)]
    message: MessageArgs,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_span_ms(text) {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err("expected a time: 90s, 15m, 2h".to_owned()),
    }
}

/// `mas send`.
pub fn send(args: &SendArgs) -> Exit {
    run("send", &args.message, &|agent, payload| {
        let sent = agent.send(&args.message.target, &args.message.message_type, payload)?;
        Ok(Sent { message_id: Some(sent.message_id), reply: None })
    })
}

/// `mas request`.
pub fn request(args: &RequestArgs) -> Exit {
    run("request", &args.message, &|agent, payload| {
        let message = &args.message;
        let reply = agent.request(&message.target, &message.message_type, payload, message.timeout)?;
        let data = serde_json::from_str(reply.data()).map_err(AgentError::Payload)?;
        let reply =
            Reply { message_type: reply.message_type().to_owned(), sender: reply.sender().to_owned(), data };
        Ok(Sent { message_id: None, reply: Some(reply) })
    })
}

/// What became of it.
struct Sent {
    message_id: Option<String>,
    reply: Option<Reply>,
}

struct Reply {
    sender: String,
    message_type: String,
    data: Json,
}

type Act<'a> = dyn Fn(&Agent, &Json) -> Result<Sent, AgentError> + 'a;

fn run(command: &str, args: &MessageArgs, act: &Act<'_>) -> Exit {
    let usage = |why: String| {
        eprintln!("mas {command}: {why}");
        Exit::Usage
    };
    let config = match config(args) {
        Ok(config) => config,
        Err(why) => return usage(why),
    };
    let prepared = payload(args).and_then(|payload| Ok((builder(args, config.as_ref())?, payload)));
    let (builder, payload) = match prepared {
        Ok(prepared) => prepared,
        Err(why) => return usage(why),
    };
    let receipts: Arc<Mutex<Option<Receipt>>> = Arc::default();
    let kept = receipts.clone();
    let builder = builder
        .call_timeout(args.timeout)
        .connect_timeout(args.timeout)
        .threads(1)
        .keep_receipts(move |receipt| {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(receipt.clone());
        })
        // What waits for this agent is not for this command.
        .on_any(|_| Err(HandlerError::retry("given back: mas send and mas request take no messages")));
    let outcome = builder.connect().and_then(|agent| act(&agent, &payload));
    let receipt = receipts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (text, exit) = match &outcome {
        Ok(sent) => (sent_text(args, sent, receipt.as_ref()), Exit::Done),
        Err(error) => (refused_text(command, args, error, receipt.as_ref(), config.as_ref()), Exit::Failed),
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => exit,
        Err(_) => Exit::Failed,
    }
}

/// The configuration, where something of it is needed, or where it is there.
fn config(args: &MessageArgs) -> Result<Option<Config>, String> {
    let is_needed = args.addr.is_none() || args.ca.is_none() || args.cert.is_none() || args.config.is_some();
    match Config::locate_and_load(args.config.as_deref()) {
        Ok(config) => Ok(Some(config)),
        Err(error) if is_needed => Err(error.to_string()),
        Err(_) => Ok(None),
    }
}

fn payload(args: &MessageArgs) -> Result<Json, String> {
    let text = match args.payload.as_deref() {
        Some(text) if text != STDIN => text.to_owned(),
        _ => {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(MAX_PAYLOAD_BYTES).read_to_string(&mut text);
            let _ = read.map_err(|error| format!("standard input: {error}"))?;
            text
        }
    };
    serde_json::from_str(&text).map_err(|error| format!("the payload is no JSON: {error}"))
}

fn builder(args: &MessageArgs, config: Option<&Config>) -> Result<Builder, String> {
    let missing = || "name the sender: --as AGENT, or --cert FILE --key FILE".to_owned();
    let (cert, key) = match (&args.cert, &args.key, &args.sender, config) {
        (Some(cert), Some(key), _, _) => (cert.clone(), key.clone()),
        (_, _, Some(sender), Some(config)) => files_of(sender, config)?,
        _ => return Err(missing()),
    };
    let ca = args.ca.clone().or_else(|| config.map(|config| config.tls.ca.clone())).ok_or_else(missing)?;
    let addr = match (&args.addr, config) {
        (Some(addr), _) => addr.clone(),
        (None, Some(config)) if config.listen_addr.ends_with(":0") => {
            return Err(
                "server_listen_addr has port 0: the server's ready line says which one it got (--addr)"
                    .to_owned(),
            );
        }
        (None, Some(config)) => reachable(&config.listen_addr),
        (None, None) => return Err("name the server: --addr HOST:PORT".to_owned()),
    };
    let credentials = Credentials::from_files(ca, cert, key).map_err(|error| error.to_string())?;
    let builder = Agent::builder(&addr, credentials);
    Ok(match &args.server_name {
        Some(name) => builder.server_name(name),
        None => builder,
    })
}

/// Certificate and key of an agent of the configuration.
fn files_of(sender: &str, config: &Config) -> Result<(PathBuf, PathBuf), String> {
    let unknown = || format!("{sender:?} is not in `agents`");
    let id = AgentId::parse(sender).ok_or_else(unknown)?;
    let agent = config.agents.get(&id).ok_or_else(unknown)?;
    if let (Some(cert), Some(key)) = (&agent.cert, &agent.key) {
        return Ok((cert.clone(), key.clone()));
    }
    let folder = config.tls.ca.parent().unwrap_or(std::path::Path::new("."));
    let files = certs::agent_files(folder, &id);
    Ok((files.cert, files.key))
}

/// What a server listens on at all of its addresses, it listens on at this one.
fn reachable(addr: &str) -> String {
    match addr.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => addr.to_owned(),
    }
}

fn place(receipt: &Receipt) -> String {
    format!("{}:{}", receipt.lane, receipt.sequence)
}

fn sent_text(args: &MessageArgs, sent: &Sent, receipt: Option<&Receipt>) -> String {
    let message_id = sent.message_id.as_deref().or_else(|| receipt?.message_id.as_deref());
    if args.json {
        let reply = sent
            .reply
            .as_ref()
            .map(|reply| json!({"from": reply.sender, "type": reply.message_type, "data": reply.data}));
        let line = json!({
            "accepted": true, "message_id": message_id, "receipt": receipt, "record": receipt.map(place), "reply": reply,
        });
        return format!("{line}\n");
    }
    let record = receipt.map(|receipt| format!("receipt  {}\n", place(receipt))).unwrap_or_default();
    match &sent.reply {
        Some(reply) => {
            // The reply alone can be piped on.
            eprint!("{record}");
            format!("{}\n", reply.data)
        }
        None => format!("accepted {}\n{record}", message_id.unwrap_or_default()),
    }
}

fn refused_text(
    command: &str,
    args: &MessageArgs,
    error: &AgentError,
    receipt: Option<&Receipt>,
    config: Option<&Config>,
) -> String {
    let is_refusal = matches!(error, AgentError::Refused(_));
    let record =
        receipt.zip(config).filter(|_| is_refusal).and_then(|(receipt, config)| on_record(config, receipt));
    let (decision, rule) = record.unwrap_or_default();
    if args.json {
        let line = json!({
            "accepted": false, "error": error.to_string(), "details": error.detail(), "decision": decision,
            "rule": rule, "receipt": receipt, "record": receipt.map(place),
        });
        return format!("{line}\n");
    }
    eprintln!("mas {command}: {error}");
    if error.to_string().contains(OTHER_NAME) {
        eprintln!(
            "mas {command}: --server-name NAME says which name of the server's certificate is expected"
        );
    }
    if let Some(decision) = &decision {
        let rule =
            rule.filter(|rule| !rule.is_empty()).unwrap_or_else(|| "none: no rule allows it".to_owned());
        eprintln!("decision {decision}\nrule     {}", plain(&rule));
    } else if is_refusal && receipt.is_some() {
        let from = args.sender.as_deref().unwrap_or("AGENT");
        eprintln!("rule     `mas policy explain --from {from} --to {}` says which", plain(&args.target));
    }
    if let Some(receipt) = receipt {
        eprintln!("receipt  {}", place(receipt));
    }
    String::new()
}

/// Decision and rule of the record that a receipt names, where Redis can be asked.
fn on_record(config: &Config, receipt: &Receipt) -> Option<(Option<String>, Option<String>)> {
    let mut connection = Endpoint::new(&config.redis).within(RECORD_PATIENCE).open().ok()?;
    let block =
        trail::block_at(&mut connection, &LaneId::from_stored(&receipt.lane), receipt.sequence).ok()??;
    let records = lane::split_block(&block.bytes)?;
    let record =
        records.into_iter().filter_map(View::decode).find(|record| record.seq == receipt.sequence)?;
    Some((Some(record.decision.as_str().to_owned()), Some(record.rule.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_times_and_not_nothing() {
        assert_eq!(parse_timeout("2m"), Ok(Duration::from_secs(120)));
        for bad in ["0s", "5", "", "-1s"] {
            assert!(parse_timeout(bad).is_err(), "{bad:?}");
        }
        assert_eq!(reachable("0.0.0.0:7"), "127.0.0.1:7");
        assert_eq!(reachable("mas.example.org:7"), "mas.example.org:7");
    }
}
