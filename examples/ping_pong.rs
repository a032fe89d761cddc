//! Two agents: one asks, one answers.
//!
//! ```text
//! mas dev --dir .mas/dev               # a server with the agents alpha and beta; the rest in a second terminal
//! . scripts/env
//! cargo run --release --locked --example ping_pong -- 127.0.0.1:50051 .mas/dev/certs
//! ```

use std::path::Path;
use std::time::Duration;

use mas_agent::{Agent, Credentials};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Ping {
    number: u32,
}

#[derive(Serialize, Deserialize)]
struct Pong {
    number: u32,
    text: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().ok_or("usage: ping_pong ADDR CERTS_DIR")?;
    let certs = args.next().ok_or("usage: ping_pong ADDR CERTS_DIR")?;
    let credentials = |agent: &str| {
        let file = |name: String| Path::new(&certs).join(name);
        let (cert, key) = (format!("agents/{agent}.pem"), format!("agents/{agent}.key"));
        Credentials::from_files(file("ca.pem".to_owned()), file(cert), file(key))
    };

    // beta answers pings. The message is acknowledged when the handler returns Ok.
    let beta = Agent::builder(&addr, credentials("beta")?)
        .on("ping", |message, ping: Ping| {
            let text = format!("hello, {}", message.sender());
            message.reply("pong", &Pong { number: ping.number, text })?;
            Ok(())
        })
        .connect()?;

    // alpha asks three times.
    let alpha = Agent::builder(&addr, credentials("alpha")?).connect()?;
    for number in 1..=3 {
        let reply = alpha.request("beta", "ping", &Ping { number }, Duration::from_secs(5))?;
        let pong: Pong = reply.parse_data()?;
        println!("{}: {} says {:?}", pong.number, reply.sender(), pong.text);
    }

    alpha.shutdown();
    beta.shutdown();
    Ok(())
}
