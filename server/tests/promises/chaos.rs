//! Clients that do what they should not, for a few seconds, and a server that is told to end in the middle of it: as
//! `scripts/soak-server` has it for as many minutes as are asked for.

#![allow(dead_code, unreachable_pub, reason = "the load client does more than is needed here")]

use std::time::Duration;

#[path = "../../examples/soak_server/client.rs"]
mod client;
#[path = "../../examples/soak_server/oracle.rs"]
mod oracle;
#[path = "../../examples/soak_server/process.rs"]
mod process;
#[path = "../../examples/soak_server/chaos.rs"]
mod rounds;
#[path = "../../examples/soak_server/script.rs"]
mod script;
#[path = "../../examples/soak_server/torment.rs"]
mod torment;

use crate::common::engine::{demo_engine, program};

#[test]
fn whatever_clients_do_no_token_is_lost_and_nothing_is_left() {
    let mut command = program();
    command.arg("--engine").arg(demo_engine()).args(["--threads", "2", "--kv-cache-tokens", "8192"]);
    command.args(["--drain-grace", "0.2", "--drain-timeout", "0.5", "--sse-keep-alive", "0.05"]);
    let server = process::Process::start(command).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let round = rounds::round(server, None, 120, 1, Duration::from_secs(2));
    runtime.block_on(round).unwrap_or_else(|error| panic!("{error:#}"));
}
