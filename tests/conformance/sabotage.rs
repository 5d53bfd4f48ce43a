//! The tests of the tests: wrong expectations and a server that is wrong on the way must make scripts fail.

use std::time::Duration;

use futures::future::join_all;
use rpc_core::wire::frame::kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::runner::script::{Role, Script, StandKind, Step, Suite};
use crate::runner::{Patience, run};
use crate::scripts::{Backend, Stands, block_on};

/// Short: what is lost never comes.
const PATIENCE: Patience = Patience { must_come: Duration::from_secs(2), must_not_come: Duration::from_millis(50) };

fn script<'s>(suite: &'s Suite, name: &str) -> &'s Script {
    let found = suite.scripts.iter().find(|(_, script)| script.name == name);
    &found.unwrap_or_else(|| panic!("there is no script `{name}`")).1
}

/// Makes the last expectation of a script wrong; `None` where it has none of the kind.
fn spoil(steps: &[Step], change: impl Fn(&mut Step) -> bool) -> Option<Vec<Step>> {
    let mut steps = steps.to_vec();
    steps.iter_mut().rev().any(change).then_some(steps)
}

/// Another type, other flags, another exchange, another code, an end that does not come: a script that does not say so
/// checks nothing.
#[test]
fn a_script_with_a_wrong_expectation_fails() {
    type Spoiler = (&'static str, fn(&mut Step) -> bool);
    let spoilers: [Spoiler; 6] = [
        ("another type", |step| match step {
            Step::Expect(frames) => frames.first_mut().is_some_and(|frame| {
                frame.kind = "0b".into();
                true
            }),
            _ => false,
        }),
        ("other flags", |step| match step {
            Step::Expect(frames) => frames.first_mut().is_some_and(|frame| {
                frame.flags = Some("40".into());
                true
            }),
            _ => false,
        }),
        ("another session", |step| match step {
            Step::Expect(frames) => frames.iter_mut().any(|frame| frame.sid.replace(9).is_some()),
            _ => false,
        }),
        ("another body", |step| match step {
            Step::Expect(frames) => frames.iter_mut().any(|frame| frame.body.replace("ee ee ee".into()).is_some()),
            _ => false,
        }),
        ("another code", |step| match step {
            Step::Close(code) => {
                *code += 1;
                true
            }
            _ => false,
        }),
        ("an orderly end", |step| {
            let silent = matches!(step, Step::End(_));
            if silent {
                *step = Step::Close(0);
            }
            silent
        }),
    ];
    let suite = Suite::load();
    let mut spoilt = Vec::new();
    for (what, spoiler) in spoilers {
        let scripts = suite.scripts.iter().filter(|(_, script)| script.role == Role::Acceptor);
        let wrong = scripts.filter_map(|(_, script)| Some((what, script, spoil(&suite.steps(script), spoiler)?)));
        let before = spoilt.len();
        // Each twelfth is enough to see that the runner looks there.
        spoilt.extend(wrong.step_by(12));
        assert!(spoilt.len() > before, "{what}: no script has such an expectation");
    }
    block_on(async {
        let stands = Stands::new(Backend::Memory).await;
        let ran = spoilt.iter().map(async |(what, script, steps)| {
            let ran = run(stands.dial(script.stand).await, script.mode, steps, PATIENCE).await;
            assert!(ran.is_err(), "{}: {what} was not noticed", script.name);
        });
        join_all(ran).await;
    });
}

/// What goes wrong between a server and the script.
#[derive(Debug, Clone, Copy)]
enum Sabotage {
    Nothing,
    /// Frames of this type are lost.
    Lost(u8),
    /// They come twice.
    Twice(u8),
    /// This bit of this byte of them is flipped, counted from the flags on.
    Flipped(u8, usize, u8),
    /// The server forgets its preface's last byte.
    Preface,
    /// What the script sends of this type never reaches the server.
    Unheard(u8),
}

/// Passes frames on, and breaks some of them.
async fn pass(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, sabotage: Sabotage) -> Option<()> {
    let mut preface = [0; 8];
    from.read_exact(&mut preface).await.ok()?;
    preface[7] ^= u8::from(matches!(sabotage, Sabotage::Preface));
    to.write_all(&preface).await.ok()?;
    loop {
        let mut frame = vec![0; 4];
        if from.read_exact(&mut frame).await.is_err() {
            return to.shutdown().await.ok();
        }
        let len = u32::from_le_bytes([frame[1], frame[2], frame[3], 0]) as usize;
        frame.resize(4 + len, 0);
        from.read_exact(&mut frame[4..]).await.ok()?;
        let times = match sabotage {
            Sabotage::Lost(kind) | Sabotage::Unheard(kind) if frame[0] == kind => 0,
            Sabotage::Twice(kind) if frame[0] == kind => 2,
            _ => 1,
        };
        if let Sabotage::Flipped(kind, at, bit) = sabotage
            && frame[0] == kind
            && let Some(byte) = frame.get_mut(4 + at)
        {
            *byte ^= bit;
        }
        for _ in 0..times {
            to.write_all(&frame).await.ok()?;
        }
    }
}

/// A stream to the stand with a saboteur in it.
fn sabotaged(stand: rpc::Connected, sabotage: Sabotage) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (from_script, to_script) = tokio::io::split(theirs);
    let (from_stand, to_stand) = tokio::io::split(stand);
    let (up, down) = match sabotage {
        Sabotage::Unheard(_) => (sabotage, Sabotage::Nothing),
        _ => (Sabotage::Nothing, sabotage),
    };
    tokio::spawn(pass(from_script, to_stand, up));
    tokio::spawn(pass(from_stand, to_script, down));
    ours
}

/// Each of them breaks a rule that these scripts show. In multi mode a session's body begins behind one id, an
/// exchange's behind two.
#[test]
fn a_server_that_breaks_a_rule_fails_a_script() {
    let cases: [(Sabotage, &[&str]); 15] = [
        (Sabotage::Preface, &["a-ping-is-answered"]),
        (Sabotage::Lost(kind::S_ABORT), &["an-ack-of-frames-that-were-not-sent", "data-behind-the-end"]),
        (Sabotage::Flipped(kind::S_ABORT, 3, 1), &["an-xid-that-leaves-a-gap", "a-second-s-close"]),
        (Sabotage::Flipped(kind::S_ABORT, 2, 1), &["an-abort-tells-what-was-received"]),
        (Sabotage::Flipped(kind::CONN_CLOSE, 1, 4), &["an-unknown-type-of-the-connection-ends-it"]),
        (Sabotage::Lost(kind::CONN_CLOSE), &["a-second-goaway", "the-acceptor-goes"]),
        (Sabotage::Twice(kind::CONN_CLOSE), &["a-session-under-sid-1-at-first"]),
        (Sabotage::Flipped(kind::RESET, 4, 1), &["a-method-that-is-not-there"]),
        (Sabotage::Flipped(kind::RESET, 3, 1), &["a-cancel-with-code-7"]),
        (Sabotage::Lost(kind::CANCEL), &["an-eom-before-the-total"]),
        (Sabotage::Twice(kind::DATA), &["items-down", "a-unary-call"]),
        (Sabotage::Flipped(kind::DATA, 0, 1), &["a-unary-call", "an-application-error"]),
        (Sabotage::Flipped(kind::ACK, 2, 2), &["a-session-closes"]),
        (Sabotage::Lost(kind::MAX_STREAM), &["a-message-longer-than-a-window-is-admitted"]),
        (Sabotage::Unheard(kind::PING), &["a-flood-of-pings"]),
    ];
    let suite = Suite::load();
    block_on(async {
        let stands = Stands::new(Backend::Memory).await;
        let ran = cases.iter().flat_map(|(sabotage, names)| names.iter().map(move |name| (*sabotage, *name)));
        join_all(ran.map(async |(sabotage, name)| {
            let script = script(&suite, name);
            let steps = suite.steps(script);
            // With nobody in between but one who passes everything on, it succeeds.
            let honest = sabotaged(stands.dial(StandKind::Both).await, Sabotage::Nothing);
            let ran = run(honest, script.mode, &steps, Patience::default()).await;
            assert_eq!(ran, Ok(()), "{name}");
            let broken = sabotaged(stands.dial(StandKind::Both).await, sabotage);
            let ran = run(broken, script.mode, &steps, PATIENCE).await;
            assert!(ran.is_err(), "{name}: {sabotage:?} was not noticed");
        }))
        .await;
    });
}
