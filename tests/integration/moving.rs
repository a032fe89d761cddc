//! A server that is drained behind a load balancer: agents that use the client library move, and what they work on is finished.

use std::io::copy;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mas_agent::{Agent, Builder, Credentials, HandlerError};
use serde_json::{Value, json};

use crate::support::{Server, World, get, until};

/// Sends each connection to the first server that says it is ready, as a load balancer with health checks does.
fn balancer(servers: [&Server; 2]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let behind = servers.map(|server| (server.admin.clone().unwrap(), server.addr.clone()));
    // Ends with the test's process.
    let _ = std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let is_ready = |admin: &str| get(admin, "/readyz").is_ok_and(|answer| answer.status == 200);
            let Some((_, addr)) = behind.iter().find(|(admin, _)| is_ready(admin)) else { continue };
            let Ok(server) = TcpStream::connect(addr) else { continue };
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let _ = std::thread::spawn(move || {
                    drop(copy(&mut from, &mut to));
                    drop(to.shutdown(Shutdown::Both));
                });
            }
        }
    });
    addr
}

fn agent(world: &World, addr: &str, name: &str) -> Builder {
    let (cert, key) = world.certificate(name);
    let ca = std::fs::read(mas::certs::ca_file(&world.certs())).unwrap();
    Agent::builder(addr, Credentials::from_pem(ca, cert, key).unwrap()).instance(name)
}

fn sessions(server: &Server) -> Value {
    let status = get(server.admin.as_ref().unwrap(), "/api/v1/status").map(|answer| answer.body);
    status.map_or(Value::Null, |text| serde_json::from_str::<Value>(&text).unwrap()["sessions"].clone())
}

#[test]
fn agents_of_a_drained_server_move_to_another_and_finish_what_they_work_on() {
    let mut world = World::new();
    world.set_admin("127.0.0.1:0");
    let (mut first, second) = (world.server(), world.server());
    let addr = balancer([&first, &second]);
    // beta answers once the test lets it; alpha asks it from within a handler.
    let (asked, handled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (may_answer, answering) = std::sync::mpsc::channel::<()>();
    let (answering, count) = (std::sync::Mutex::new(answering), asked.clone());
    let beta = agent(&world, &second.addr, "beta")
        .on("question", move |message, _: Value| {
            let _ = count.fetch_add(1, Ordering::SeqCst);
            answering.lock().unwrap().recv().map_err(HandlerError::reject)?;
            message.reply("answer", &json!({"text": "42"}))?;
            Ok(())
        })
        .connect()
        .unwrap();
    let (own, done) = (Arc::new(OnceLock::<Arc<Agent>>::new()), handled.clone());
    let this = own.clone();
    let alpha = agent(&world, &addr, "alpha")
        .on("job", move |_, _: Value| {
            let answer =
                this.get().unwrap().request("beta", "question", &json!({}), Duration::from_secs(60))?;
            assert_eq!(answer.data(), r#"{"text":"42"}"#);
            let _ = done.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
        .connect()
        .unwrap();
    assert!(own.set(Arc::new(alpha)).is_ok());
    assert_eq!(sessions(&first), json!({"alpha": 1}));
    let _ = beta.send("alpha", "job", &json!({})).unwrap();
    until("beta is asked", || asked.load(Ordering::SeqCst) == 1);

    let status = get(first.admin.as_ref().unwrap(), "/api/v1/status").unwrap().body;
    let id = serde_json::from_str::<Value>(&status).unwrap()["server"].as_str().unwrap().to_owned();
    let drained = world.mas(&["drain", &id, "--after", "12s", "--reason", "new disks"]);
    assert_eq!(drained.status.code(), Some(0), "{drained:?}");
    // It is asked to move, and waits for the answer: that still comes to it.
    until("nobody new is let in", || world.client(&first, "gamma").discover(&[]).is_err());
    may_answer.send(()).unwrap();
    until("the handler is through", || handled.load(Ordering::SeqCst) == 1);
    until("alpha has moved", || sessions(&second)["alpha"] == 1);
    assert_eq!(sessions(&first), json!({}), "before the server has ended");
    // It works there as before.
    let _ = beta.send("alpha", "job", &json!({})).unwrap();
    may_answer.send(()).unwrap();
    until("the next one is handled", || handled.load(Ordering::SeqCst) == 2);
    assert_eq!(first.wait_code(), Some(0));
    until("all is acknowledged", || world.redis.len("agent.stream:alpha") == 0);
    assert_eq!(world.redis.len("dlq:messages"), 0);
    drop((own, beta));
    drop(second);
    world.assert_intact();
}
