//! One run's result as a table and as JSON.

use serde_json::{Value, json};

use crate::fleet::Outcome;

/// As a table.
pub(crate) fn print(outcome: &Outcome) {
    println!("accepted    {:>9.0} messages/s", outcome.accepted_per_s());
    if outcome.pattern.arrives() {
        println!("delivered   {:>9.0} messages/s", outcome.delivered_per_s());
    }
    println!("failed      {:>9}", outcome.failed());
    for (reason, count) in &outcome.failures {
        println!("            {count:>9} × {reason}");
    }
    println!("backlog     {:>9} under way when sending stopped", outcome.backlog);
    println!(
        "undelivered {:>9} accepted and not delivered when the run was over",
        outcome.undelivered.max(0)
    );
    if outcome.undelivered < 0 {
        println!("repeated    {:>9} deliveries beyond those accepted", -outcome.undelivered);
    }
    if outcome.foreign > 0 {
        println!("foreign     {:>9} deliveries of other runs", outcome.foreign);
    }
    let cpu = [
        ("server", outcome.server_cpu_s),
        ("Redis", outcome.redis_cpu_s),
        ("clients", Some(outcome.client_cpu_s)),
    ];
    for (name, used_s) in cpu {
        match used_s {
            Some(used_s) => println!(
                "CPU {name:<7} {:>9.1} µs/message, {:.0} % of a core",
                outcome.per_message_us(used_s),
                used_s / outcome.seconds * 100.0
            ),
            None => println!("CPU {name:<7}   unknown"),
        }
    }
    println!("call        {}", outcome.call.line());
    if outcome.pattern.arrives() {
        println!("end to end  {}", outcome.end_to_end.line());
    }
}

/// As JSON: times in microseconds.
pub(crate) fn json(outcome: &Outcome) -> Value {
    let cpu = |used_s: Option<f64>| used_s.map(|used_s| outcome.per_message_us(used_s));
    json!({
        "seconds": outcome.seconds,
        "accepted_per_s": outcome.accepted_per_s(), "delivered_per_s": outcome.delivered_per_s(),
        "accepted": outcome.call.len(), "delivered": outcome.end_to_end.len(),
        "failed": outcome.failed(), "failures": outcome.failures,
        "backlog": outcome.backlog, "undelivered": outcome.undelivered, "foreign": outcome.foreign,
        "server_cpu_us_per_message": cpu(outcome.server_cpu_s),
        "redis_cpu_us_per_message": cpu(outcome.redis_cpu_s),
        "client_cpu_us_per_message": cpu(Some(outcome.client_cpu_s)),
        "call_us": outcome.call.json(), "end_to_end_us": outcome.end_to_end.json(),
    })
}
