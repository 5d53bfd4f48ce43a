//! Sockets that listen already when the process starts: systemd holds them, so that clients can come before it is there.

use std::fmt;
use std::io;

use crate::endpoint::Endpoint;
use crate::stream::{BoxFuture, Incoming, Listener};

/// A listener of systemd's; see [`activated`].
pub struct Activated(Box<dyn Listener>);

/// A socket that systemd listens at and has handed over to this process (`sd_listen_fds(3)`), for
/// [`ServerBuilder::serve`](crate::ServerBuilder::serve). It is found by its name, which is `FileDescriptorName=` of the
/// socket unit and the unit's own name without that, or else by its number, from 0 on. Several of one name are handed out
/// in turn, each once. There are Unix sockets and TCP.
///
/// ```no_run
/// # fn serve(builder: rpc_transport::ServerBuilder) -> Result<(), Box<dyn std::error::Error>> {
/// let server = match rpc_transport::activated("kv.socket") {
///     Ok(listener) => builder.serve(listener)?,
///     Err(error) => return Err(format!("start the unit kv.socket: {error}").into()),
/// };
/// # Ok(())
/// # }
/// ```
///
/// The unit says who may connect (`SocketMode=`, `SocketUser=`), and systemd removes the file. A client finds its
/// connection served by the user who made the socket: root, or the user of a user's systemd.
///
/// No other code of the process may take these sockets. Their variables stay in the environment, where they name this
/// process and no other.
///
/// # Errors
/// [`NotFound`](io::ErrorKind::NotFound) if there is none of this name, or none left, which tells what there is;
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is no stream socket that listens;
/// [`Unsupported`](io::ErrorKind::Unsupported) where there is no systemd, which is anywhere but on Linux.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn activated(name: &str) -> io::Result<Activated> {
    #[cfg(target_os = "linux")]
    return passed::take(name).map(Activated);
    #[cfg(not(target_os = "linux"))]
    {
        let text = format!("`{name}`: sockets are handed over by systemd, which is there on Linux alone");
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }
}

impl Listener for Activated {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        self.0.accept()
    }

    fn endpoint(&self) -> Endpoint {
        self.0.endpoint()
    }
}

impl fmt::Debug for Activated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Activated").field(&self.0.endpoint()).finish()
    }
}

#[cfg(target_os = "linux")]
mod passed {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::sync::{LazyLock, Mutex, PoisonError};

    use socket2::{Domain, Socket, Type};

    use crate::backend::tcp::TcpIncoming;
    use crate::backend::unix::UnixIncoming;
    use crate::stream::Listener;

    /// A socket with its name, until it is taken.
    type Passed = (String, Option<Socket>);

    /// What was handed over. A descriptor is owned once, so the environment is read once.
    static PASSED: LazyLock<Mutex<Vec<Passed>>> = LazyLock::new(|| Mutex::new(read()));

    /// The first descriptor of those that are handed over.
    const FIRST: usize = 3;

    fn read() -> Vec<Passed> {
        // A count that is not true would make descriptors of what is none.
        let count = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<usize>().ok()).unwrap_or_default();
        let open = |n: usize| Path::new("/proc/self/fd").join((FIRST + n).to_string()).symlink_metadata().is_ok();
        if !(0..count).all(open) {
            return Vec::new();
        }
        let passed = sd_listen_fds::get().unwrap_or_default().into_iter();
        passed.map(|(name, fd)| (name.unwrap_or_default(), Some(Socket::from(fd.into_std())))).collect()
    }

    /// Takes one, if it is what it has to be.
    pub(super) fn take(name: &str) -> io::Result<Box<dyn Listener>> {
        let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
        let named = passed.iter().position(|(known, socket)| known == name && socket.is_some());
        let numbered = || name.parse::<usize>().ok().filter(|at| passed.get(*at).is_some_and(|(_, socket)| socket.is_some()));
        let Some(at) = named.or_else(numbered) else {
            let left: Vec<_> = passed.iter().filter(|(_, socket)| socket.is_some()).map(|(name, _)| &**name).collect();
            let text = match left[..] {
                [] => format!("systemd handed no socket `{name}` over to this process, and no other"),
                _ => format!("systemd handed no socket `{name}` over to this process; there is `{}`", left.join("`, `")),
            };
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        };
        let Some(socket) = &passed[at].1 else { return Err(io::ErrorKind::NotFound.into()) };
        let listens = |socket: &Socket| Ok::<_, io::Error>(socket.is_listener()? && socket.r#type()? == Type::STREAM);
        if !listens(socket).unwrap_or(false) {
            let text = format!("what systemd handed over as `{name}` is no stream socket that listens");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let domain = socket.domain()?;
        // Neither are they for the processes that this one starts.
        socket.set_cloexec(true)?;
        socket.set_nonblocking(true)?;
        let Some(socket) = passed[at].1.take() else { return Err(io::ErrorKind::NotFound.into()) };
        let socket = OwnedFd::from(socket);
        if domain == Domain::UNIX {
            Ok(Box::new(UnixIncoming::adopt(socket)?))
        } else {
            Ok(Box::new(TcpIncoming::adopt(socket)?))
        }
    }
}
