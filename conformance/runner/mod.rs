//! Runs the scripts of the conformance suite over any connected byte stream. Shared by the tests and by the example
//! `conformance`, which runs them against other implementations.

pub(crate) mod script;
pub(crate) mod stand;

use std::time::Duration;

use rpc_core::wire::Head;
use rpc_core::wire::frame::kind;
use rpc_core::wire::varint;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use script::{Expected, Mode, Step, fits, fits_list, hex, show};

/// How long is waited for what must come, and for what must not. Neither can fail an implementation that keeps the rules,
/// unless it is slower than the first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) must_come: Duration,
    pub(crate) must_not_come: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { must_come: Duration::from_secs(20), must_not_come: Duration::from_millis(100) }
    }
}

/// A frame as it came.
#[derive(Debug, Clone)]
struct Arrived {
    kind: u8,
    flags: u8,
    sid: Option<u64>,
    xid: Option<u64>,
    body: Vec<u8>,
}

/// What comes next.
enum Next {
    Frame(Arrived),
    End,
}

/// One end of a connection, played by a script.
struct Player<S> {
    io: S,
    mode: Mode,
    patience: Patience,
    /// What may come.
    optional: Vec<Expected>,
    /// What was sent last, for people.
    sent: String,
}

/// Runs the steps of a script.
///
/// # Errors
/// What the implementation under test did otherwise, and at which step.
pub(crate) async fn run<S>(io: S, mode: Mode, steps: &[Step], patience: Patience) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut player = Player { io, mode, patience, optional: Vec::new(), sent: String::new() };
    for (at, step) in steps.iter().enumerate() {
        player.play(step).await.map_err(|wrong| format!("step {}, behind \"{}\": {wrong}", at + 1, player.sent))?;
    }
    Ok(())
}

/// The I bit of a type.
const IGNORABLE: u8 = 0x40;

/// Frames that an implementation may send whenever it likes: credit, PING, and types that may be passed over.
fn is_by_the_way(kind: u8) -> bool {
    matches!(kind, kind::MAX_CONN_DATA | kind::MAX_SESSION | kind::MAX_STREAM | kind::PING) || kind & IGNORABLE != 0
}

impl<S: AsyncRead + AsyncWrite + Unpin> Player<S> {
    async fn play(&mut self, step: &Step) -> Result<(), String> {
        if let Step::Send(pieces) | Step::Trickle(pieces) = step {
            self.sent = pieces.iter().map(|piece| piece.note.as_str()).collect::<Vec<_>>().join(", ");
        }
        match step {
            Step::Send(pieces) => {
                let bytes: Vec<u8> = pieces.iter().flat_map(script::Bytes::bytes).collect();
                self.write(&bytes).await
            }
            Step::Trickle(pieces) => {
                for byte in pieces.iter().flat_map(script::Bytes::bytes) {
                    self.write(&[byte]).await?;
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
            Step::Expect(expected) => self.expect(expected).await,
            Step::May(frames) => {
                self.optional.extend_from_slice(frames);
                Ok(())
            }
            Step::Preface(preface) => {
                let preface = preface.bytes();
                let mut came = vec![0; preface.len()];
                let read = tokio::time::timeout(self.patience.must_come, self.io.read_exact(&mut came)).await;
                read.map_err(|_| "no preface comes")?.map_err(|_| "the connection ends where the preface is to come")?;
                if came == preface { Ok(()) } else { Err(format!("`{}` comes where the preface is to come", show(&came))) }
            }
            Step::Close(code) => self.closed(*code).await,
            Step::End(why) => match self.next().await? {
                Next::End => Ok(()),
                Next::Frame(frame) => Err(format!("{} comes where the connection is to end {why}", name(&frame))),
            },
            Step::Quiet(why) => self.quiet().await.map_err(|wrong| format!("{wrong}: {why}")),
            Step::Hangup => {
                let _ = self.io.shutdown().await;
                Ok(())
            }
        }
    }

    /// Nothing comes but credit and PING, of which an implementation may send more than it must.
    async fn quiet(&mut self) -> Result<(), String> {
        let mut head = [0; 4];
        loop {
            match tokio::time::timeout(self.patience.must_not_come, self.io.read(&mut head[..1])).await {
                Err(_) => return Ok(()),
                Ok(Ok(1)) if head[0] & IGNORABLE == 0 && is_by_the_way(head[0]) => {}
                Ok(Ok(1)) => return Err(format!("{:02x} comes where nothing is to come", head[0])),
                Ok(_) => return Err("the connection ends where it is to go on".into()),
            }
            let rest = async {
                self.io.read_exact(&mut head[1..]).await?;
                let mut rest = vec![0; Head::read(&head).map_or(0, |head| head.len as usize)];
                self.io.read_exact(&mut rest).await
            };
            let whole = tokio::time::timeout(self.patience.must_come, rest).await;
            whole.map_err(|_| "a frame is cut off")?.map_err(|_| "a frame is cut off")?;
        }
    }

    /// Writes bytes. That the other end has closed is no failure: it will be seen by reading.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let written = tokio::time::timeout(self.patience.must_come, async {
            let _ = self.io.write_all(bytes).await;
            let _ = self.io.flush().await;
        });
        written.await.map_err(|_| "the peer takes no bytes".to_owned())
    }

    /// All of the frames, in any order, and no others but those that may come at any time.
    async fn expect(&mut self, expected: &[Expected]) -> Result<(), String> {
        let mut missing: Vec<&Expected> = expected.iter().collect();
        while !missing.is_empty() {
            let notes = || missing.iter().map(|frame| frame.note.as_str()).collect::<Vec<_>>().join("; ");
            let frame = match self.next().await.map_err(|wrong| format!("{wrong}, but this was to come: {}", notes()))? {
                Next::Frame(frame) => frame,
                Next::End => return Err(format!("the connection ends, but this was to come: {}", notes())),
            };
            let mut why = Vec::new();
            let at = missing.iter().position(|expected| {
                let wrong = mismatch(&frame, expected);
                why.extend(wrong.clone());
                wrong.is_none()
            });
            match at {
                Some(at) => drop(missing.remove(at)),
                None if is_by_the_way(frame.kind) || self.is_optional(&frame) => {}
                None => return Err(format!("{} comes, but this was to come: {} ({})", name(&frame), notes(), why.join("; "))),
            }
        }
        Ok(())
    }

    /// Whether a frame may come; then it may not come again.
    fn is_optional(&mut self, frame: &Arrived) -> bool {
        let at = self.optional.iter().position(|expected| mismatch(frame, expected).is_none());
        at.is_some_and(|at| {
            self.optional.remove(at);
            true
        })
    }

    /// CONN_CLOSE with this code, and the end behind it. Sessions may be aborted before, and PINGs answered.
    async fn closed(&mut self, code: u64) -> Result<(), String> {
        loop {
            match self.next().await? {
                Next::Frame(frame) if frame.kind == kind::CONN_CLOSE => {
                    let said = varint::read(&mut &frame.body[..], "the code").map_err(|error| error.to_string())?;
                    if said != code {
                        return Err(format!("CONN_CLOSE has code {said}, not {code}"));
                    }
                    return match self.next().await? {
                        Next::End => Ok(()),
                        Next::Frame(frame) => Err(format!("{} comes behind CONN_CLOSE", name(&frame))),
                    };
                }
                Next::Frame(frame) if matches!(frame.kind, kind::S_ABORT | kind::PONG) || is_by_the_way(frame.kind) => {}
                Next::Frame(frame) => return Err(format!("{} comes where CONN_CLOSE with code {code} is to come", name(&frame))),
                Next::End => return Err(format!("the connection ends without CONN_CLOSE, whose code would be {code}")),
            }
        }
    }

    async fn next(&mut self) -> Result<Next, String> {
        match tokio::time::timeout(self.patience.must_come, self.read()).await {
            Ok(next) => next,
            Err(_) => Err("nothing comes".into()),
        }
    }

    async fn read(&mut self) -> Result<Next, String> {
        let mut head = [0; 4];
        // A reset of the transport is an end too.
        if self.io.read_exact(&mut head).await.is_err() {
            return Ok(Next::End);
        }
        let Some(Head { kind, len }) = Head::read(&head) else { return Ok(Next::End) };
        let mut bytes = vec![0; len as usize];
        self.io.read_exact(&mut bytes).await.map_err(|_| "the connection ends within a frame")?;
        let (flags, mut rest) = bytes.split_first().ok_or("a frame has no flags")?;
        let mut id = |present: bool| {
            let read = present.then(|| varint::read(&mut rest, "an id"));
            read.transpose().map_err(|error| error.to_string())
        };
        let code = kind & 0x3F;
        let (sid, xid) = (id(self.mode == Mode::Multi && code >= 0x10)?, id(code >= 0x20)?);
        Ok(Next::Frame(Arrived { kind, flags: *flags, sid, xid, body: rest.to_vec() }))
    }
}

fn name(frame: &Arrived) -> String {
    let Arrived { kind, flags, sid, xid, body } = frame;
    let id = |what, id: &Option<u64>| id.map(|id| format!(", {what} {id}")).unwrap_or_default();
    format!("a frame of type {kind:02X}, flags {flags:02x}{}{}, body `{}`", id("sid", sid), id("xid", xid), show(body))
}

/// What of a frame is not as expected.
fn mismatch(frame: &Arrived, expected: &Expected) -> Option<String> {
    if hex(&expected.kind) != [frame.kind] {
        return Some(format!("its type is not {}", expected.kind));
    }
    let flags = expected.flags.as_deref().unwrap_or("00");
    if fits(flags, &[frame.flags]).is_err() {
        return Some(format!("its flags are not {flags}"));
    }
    if (expected.sid, expected.xid) != (frame.sid, frame.xid) {
        return Some("its ids are others".into());
    }
    match &expected.list {
        Some(list) => fits_list(list, &frame.body).err(),
        None => fits(expected.body.as_deref().unwrap_or(""), &frame.body).err(),
    }
}
