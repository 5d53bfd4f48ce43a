//! Named pipes of Windows: `pipe://name` is `\\.\pipe\name`. Who may connect is the system's to enforce, by the pipe's
//! descriptor; who is there is told to both sides.
//!
//! A pipe's name is in use for as long as any connection to it lives. So a client that comes while a server drains finds it
//! busy, and another server takes the name when the last connection has ended.
//!
//! A pipe has no half-close, so the end of a connection has two parts here: `poll_shutdown` waits until the peer has taken
//! what was written, and from then on this side reads the end.

mod identity;
mod stream;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::OwnedHandle;
use std::time::Duration;

use interprocess::os::windows::named_pipe::PipeListenerOptions;
use interprocess::os::windows::named_pipe::pipe_mode::Bytes;
use interprocess::os::windows::named_pipe::tokio::{DuplexPipeStream, PipeListener};
use interprocess::os::windows::security_descriptor::SecurityDescriptor;
use rpc_core::context::{Peer, Principal};
use widestring::U16CString;

use crate::endpoint::Endpoint;
use crate::stream::{BoxFuture, Connected, Incoming, Listener};
use stream::PipeStream;

/// `FILE_FLAG_OVERLAPPED`: reads and writes need not wait.
const OVERLAPPED: u32 = 0x4000_0000;

/// `SECURITY_IDENTIFICATION`: a server may learn who its client is, and must not act in the client's name. Without it, a
/// program that took the name of a server could do all that the client may do.
const IDENTIFICATION: u32 = 0x0001_0000;

/// `ERROR_PIPE_BUSY`: there is such a pipe, and all of its instances are taken.
const PIPE_BUSY: i32 = 231;

/// `ERROR_ACCESS_DENIED`.
const ACCESS_DENIED: i32 = 5;

/// The pause before a busy pipe is tried again. A server makes its next instance before it serves the last, so it is busy
/// for moments, unless it has as many connections as it may.
const BUSY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The pipe's own buffer in each direction, in bytes: a batch. The system makes it larger where it likes to.
const BUFFER: u32 = 64 * 1024;

/// The longest path of a pipe, in characters, that Windows takes.
const LONGEST_PATH: usize = 256;

/// Connects, and refuses a server that is neither the same user nor the system itself. A busy pipe is tried again until
/// the caller gives up.
pub(crate) async fn connect(name: &str, endpoint: &Endpoint) -> io::Result<Connected> {
    let (path, mut pause) = (path(name)?, BUSY.0);
    let handle = loop {
        match open(&path) {
            Err(error) if error.raw_os_error() == Some(PIPE_BUSY) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BUSY.1);
            }
            opened => break opened?,
        }
    };
    let pipe = DuplexPipeStream::try_from(handle).map_err(io::Error::from)?;
    let pid = pipe.server_process_id();
    let (stream, pid) = (PipeStream::new(pipe), pid?);
    let sid = identity::of(pid).await?;
    identity::trust(sid.as_deref(), identity::own().await?)?;
    Ok(connected(stream, sid, pid, endpoint))
}

/// Takes a name. The pipe is for this user and the system, for this machine, and for nobody who had the name before.
pub(crate) async fn listen(name: &str, endpoint: &Endpoint) -> io::Result<WindowsPipes> {
    let path = path(name)?;
    let descriptor = U16CString::from_str(descriptor(identity::own().await?)).map_err(io::Error::other)?;
    let options = PipeListenerOptions::new()
        .path(path)
        .accept_remote(false)
        .inheritable(false)
        .input_buffer_size_hint(BUFFER)
        .output_buffer_size_hint(BUFFER)
        .security_descriptor(Some(SecurityDescriptor::deserialize(&descriptor)?));
    // Its first instance is made with FILE_FLAG_FIRST_PIPE_INSTANCE: where the name is somebody's already, that fails.
    let listener = options.create_tokio_duplex::<Bytes>().map_err(|error| match error.raw_os_error() {
        Some(ACCESS_DENIED) => io::Error::new(io::ErrorKind::AddrInUse, "the name is taken: another server has this pipe"),
        _ => error,
    })?;
    Ok(WindowsPipes { listener, endpoint: endpoint.clone() })
}

/// A listening pipe: always one instance that waits for its client.
pub(crate) struct WindowsPipes {
    listener: PipeListener<Bytes, Bytes>,
    endpoint: Endpoint,
}

impl Listener for WindowsPipes {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            // The next instance is made before this one is handed out, so that there is no moment without a pipe.
            let pipe = self.listener.accept().await?;
            let endpoint = self.endpoint.clone();
            Ok(Incoming::new(async move {
                let pid = pipe.client_process_id();
                let (stream, pid) = (PipeStream::new(pipe), pid?);
                // Where the system does not tell, it is nobody, whom the descriptor has let in all the same.
                let sid = identity::of(pid).await?;
                Ok(connected(stream, sid, pid, &endpoint))
            }))
        })
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }
}

fn connected(stream: PipeStream, sid: Option<String>, pid: u32, endpoint: &Endpoint) -> Connected {
    let peer = Peer::new(Endpoint::new(endpoint.address().clone()).to_string());
    Connected::new(
        stream,
        match sid {
            Some(sid) => peer.with_principal(Principal::WindowsUser { sid, pid }),
            None => peer,
        },
    )
}

fn path(name: &str) -> io::Result<OsString> {
    let path = format!(r"\\.\pipe\{name}");
    if path.encode_utf16().count() > LONGEST_PATH || name.contains('\\') {
        let text = "the name of a pipe has 247 characters at the most, and no backslash";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(path.into())
}

fn open(path: &OsString) -> io::Result<OwnedHandle> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OVERLAPPED).security_qos_flags(IDENTIFICATION);
    Ok(options.open(path)?.into())
}

/// Everything for the user and for the system, nothing for anybody else, and nothing inherited. The system's default would
/// let every user of the machine read.
fn descriptor(user: &str) -> String {
    format!("D:P(A;;GA;;;{user})(A;;GA;;;{})", identity::SYSTEM)
}

#[cfg(test)]
mod tests;
