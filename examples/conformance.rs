//! Runs the conformance suite against another implementation of the protocol; conformance/README.md says how.
//! Without arguments it runs it against the stand in this process.
#![allow(clippy::print_stdout, reason = "it is a program")]
#![allow(dead_code, reason = "the runner is shared with the tests, which use more of it")]

#[path = "../conformance/runner/mod.rs"]
mod runner;

use std::collections::HashMap;
use std::error::Error;
use std::process::{Command, Stdio};

use rpc::{Connection, Server, ServerBuilder, bind, dial};
use runner::script::{Mode, Role, Script, StandKind, Suite};
use runner::stand::{ConformanceClient, ConformanceServer, Stand, limits};
use runner::{Patience, run};

type Outcome = Result<(), String>;

fn stand() -> ServerBuilder {
    Server::builder().service(ConformanceServer::new(Stand)).limits(limits())
}

fn key(kind: StandKind) -> &'static str {
    match kind {
        StandKind::Both => "both",
        StandKind::MultiOnly => "multi-only",
        StandKind::SingleOnly => "single-only",
    }
}

/// Connects to the implementation under test.
async fn connect_to(endpoint: &str, suite: &Suite, script: &Script) -> Outcome {
    let io = dial(endpoint).await.map_err(|error| error.to_string())?;
    run(io, script.mode, &suite.steps(script), Patience::default()).await
}

/// Waits for the implementation under test to connect.
async fn wait_for(program: &str, suite: &Suite, script: &Script) -> Outcome {
    let mut listener = bind("tcp://127.0.0.1:0").await.map_err(|error| error.to_string())?;
    let endpoint = listener.endpoint().to_string();
    let mode = if script.mode == Mode::Multi { "multi" } else { "single" };
    let mut command = Command::new(program);
    command.args([&endpoint, mode, script.call.as_deref().unwrap_or("none")]).stdout(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    let played = async {
        let accepted = tokio::time::timeout(Patience::default().must_come, listener.accept()).await;
        let incoming = accepted.map_err(|_| "nobody connects")?.map_err(|error| error.to_string())?;
        let io = incoming.connected().await.map_err(|error| error.to_string())?;
        run(io, script.mode, &suite.steps(script), Patience::default()).await
    };
    let outcome = played.await;
    let _ = child.kill();
    let _ = child.wait();
    outcome
}

/// Is the implementation under test, as `--dial` starts it: connects, makes the call if there is one, and stays.
async fn initiate(endpoint: &str, mode: &str, call: &str) {
    let builder = Connection::builder().limits(limits());
    let builder = if mode == "single" { builder.single_session() } else { builder };
    // That it fails is what most of these scripts are about.
    let Ok(connection) = builder.open(endpoint).await else { return };
    if call == "echo"
        && let Ok(client) = connection.session().open::<ConformanceClient>().await
    {
        let _ = client.echo("hi".into()).await;
    }
    connection.closed().await;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut endpoints: HashMap<&str, String> = HashMap::new();
    let (mut dialling, mut own) = (None, Vec::new());
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--serve", endpoint] => {
            let server = stand().listen(endpoint).await?;
            println!("the stand is at {}", server.endpoint());
            server.wait().await;
            return Ok(());
        }
        [endpoint, mode @ ("single" | "multi"), call] => {
            initiate(endpoint, mode, call).await;
            return Ok(());
        }
        ["--dial", program] => dialling = Some(program.to_owned()),
        [] => {
            let builders = [("both", stand()), ("multi-only", stand().multi_session_only())];
            for (key, builder) in builders.into_iter().chain([("single-only", stand().single_session_only())]) {
                let server = builder.listen("tcp://127.0.0.1:0").await?;
                endpoints.insert(key, server.endpoint().to_string());
                own.push(server);
            }
        }
        ref named => {
            for argument in named {
                let (key, endpoint) = argument.split_once('=').unwrap_or(("both", argument));
                endpoints.insert(key, endpoint.to_owned());
            }
        }
    }
    let suite = Suite::load();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (file, script) in &suite.scripts {
        let outcome = match (script.role, &dialling) {
            (Role::Initiator, Some(program)) => Some(wait_for(program, &suite, script).await),
            (Role::Acceptor, None) => match endpoints.get(key(script.stand)) {
                Some(endpoint) => Some(connect_to(endpoint, &suite, script).await),
                None => None,
            },
            _ => None,
        };
        match outcome {
            Some(Ok(())) => {
                passed += 1;
                println!("pass  {file}/{}", script.name);
            }
            Some(Err(wrong)) => {
                failed += 1;
                println!("FAIL  {file}/{} (§{}): {wrong}", script.name, script.sections.join(", §"));
                println!("      {}", script.checks);
            }
            None => {
                skipped += 1;
                println!("skip  {file}/{}", script.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 { Err(format!("{failed} scripts failed").into()) } else { Ok(()) }
}
