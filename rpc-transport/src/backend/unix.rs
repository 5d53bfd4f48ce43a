//! Unix sockets: made under a name of their own and then given the right one, so that nobody meets one that is half made,
//! and with the credentials of both ends.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rpc_core::context::{Peer, Principal};
use rustix::fs::{FileType, Stat};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

use crate::backend::files::{Dir, is_own, permissions, random, runtime_dir, same, set_permissions, shortened};
use crate::backend::users::{check_client, check_server};
use crate::endpoint::{Address, Endpoint};
use crate::stream::{BoxFuture, Connected, Incoming, Listener};

/// Who may connect where the endpoint does not say it: the user who listens.
const MODE: u32 = 0o600;

/// Connections that wait to be accepted, the system's own limit permitting: as many as for TCP.
const BACKLOG: i32 = 1024;

/// The longest path of a socket, in bytes: `sun_path` without its last byte.
const LONGEST: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 107 } else { 103 };

/// Random digits in the name under which a socket is made. Collisions are an error, and as rare as one in 2^32.
const DIGITS: usize = 8;

/// How long a client waits whose connection the full backlog of a server did not take.
const BUSY: Duration = Duration::from_millis(5);

/// How often, with [`BUSY`] between, a server tries for the lock of the directory. Others hold it for as long as it takes
/// to make a socket; 5 s is longer than that, and shorter than what makes people think of a hang.
const TRIES: usize = 1000;

/// Connects to the socket of an address.
pub(super) async fn connect(endpoint: &Endpoint) -> io::Result<Connected> {
    let path = socket_path(endpoint.address())?;
    let stream = loop {
        match UnixStream::connect(&path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(BUSY).await,
            done => break done?,
        }
    };
    let peer = peer_of(&stream, endpoint.address())?;
    if let Some(Principal::UnixUser { uid, .. }) = peer.principal {
        check_server(uid, endpoint.options())?;
    }
    Ok(Connected::new(stream, peer))
}

/// Listens at an address.
pub(super) async fn listen(endpoint: &Endpoint) -> io::Result<UnixIncoming> {
    if let Address::Local { .. } = endpoint.address() {
        Dir::make_private(&runtime_dir())?;
    }
    let path = socket_path(endpoint.address())?;
    if let Address::Abstract { .. } = endpoint.address() {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(&path)?).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => in_use("somebody listens there under this name"),
            _ => error,
        })?;
        socket.listen(BACKLOG)?;
        return UnixIncoming::new(socket.into(), None, endpoint.clone());
    }
    let (socket, file) = publish(&path, endpoint.options().mode.unwrap_or(MODE)).await?;
    UnixIncoming::new(socket.into(), Some(file), endpoint.clone())
}

/// Where the socket of an address is. An abstract name begins with a zero byte.
fn socket_path(address: &Address) -> io::Result<PathBuf> {
    let path = match address {
        Address::Abstract { name } => PathBuf::from(OsString::from_vec([b"\0", name.as_bytes()].concat())),
        Address::Local { name } => runtime_dir().join(format!("{name}.sock")),
        Address::Unix { path } => path.clone(),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the address is no Unix socket's")),
    };
    check_length(path.as_os_str().len())?;
    Ok(path)
}

fn check_length(length: usize) -> io::Result<()> {
    if length <= LONGEST {
        return Ok(());
    }
    let text = format!("the path of the socket has {length} bytes, and the system takes {LONGEST} at the most");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

fn in_use(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, text)
}

/// Makes a socket that listens, and gives it its name. Whoever finds it there can connect, and nobody earlier.
async fn publish(path: &Path, mode: u32) -> io::Result<(Socket, SocketFile)> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = Dir::open(folder)?;
    lock(&dir, folder).await?;
    make_room(&dir, path, name)?;
    let (socket, mut file) = bind(dir, folder, name, mode)?;
    match file.dir.rename(&file.name, name) {
        Ok(()) => name.clone_into(&mut file.name),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(in_use("somebody else was there first")),
        Err(error) => return Err(error),
    }
    file.dir.unlock();
    Ok((socket, file))
}

/// Waits for others who make sockets in the same directory: whether one is stale, and its removal, are one step.
async fn lock(dir: &Dir, folder: &Path) -> io::Result<()> {
    for _ in 0..TRIES {
        if dir.try_lock()? {
            return Ok(());
        }
        sleep(BUSY).await;
    }
    Err(in_use(&format!("another process holds the lock of the directory {}", folder.display())))
}

/// Removes the socket of a server that is gone. Whatever else has the name keeps it.
fn make_room(dir: &Dir, path: &Path, name: &OsStr) -> io::Result<()> {
    let Some(found) = dir.stat_of(name)? else { return Ok(()) };
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(in_use("there is a file that is no socket, which is left as it is"));
    }
    if !is_own(&found, FileType::Socket) {
        let text = format!("the socket there belongs to user {}, and is left as it is", found.st_uid);
        return Err(in_use(&text));
    }
    if is_alive(path)? {
        return Err(in_use("somebody listens there"));
    }
    // Between the look and here it may have become another one, by somebody who does not ask for the lock. So it is taken
    // away first, looked at again, and put back if it is not the one that was found.
    let aside = OsString::from(random());
    dir.rename(name, &aside)?;
    match dir.stat_of(&aside)? {
        Some(taken) if same(&taken, &found) => dir.remove(&aside),
        _ => {
            dir.rename(&aside, name)?;
            Err(in_use("somebody else was there first"))
        }
    }
}

/// Whether somebody listens at a socket.
fn is_alive(path: &Path) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full backlog must not hold it up.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            // One of the kinds that are no streams, one that its owner may not connect to, or one whose backlog is full.
            _ => Ok(true),
        },
        Ok(()) => Ok(true),
    }
}

/// Makes the socket, under a name that nobody looks for.
fn bind(dir: Dir, folder: &Path, name: &OsStr, mode: u32) -> io::Result<(Socket, SocketFile)> {
    // The longest name in this directory that the system takes.
    let room = LONGEST.saturating_sub(folder.as_os_str().len() + 1);
    if room < DIGITS + 1 {
        check_length(folder.as_os_str().len() + 1 + DIGITS + 1)?;
    }
    let mut temporary = shortened(name, room - DIGITS - 1).to_owned();
    temporary.push(format!(".{}", &random()[..DIGITS]));
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file is made with the permissions of its socket, so that there is no moment in which it has others.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    rustix::fs::fchmod(&socket, super::files::mode_of(mode))?;
    socket.bind(&SockAddr::unix(folder.join(&temporary))?)?;
    let Some(made) = dir.stat_of(&temporary)? else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "somebody removed the socket while it was made"));
    };
    let file = SocketFile { dir, name: temporary, made };
    if permissions(&made) != mode {
        // The mask of the process has taken some of them away, or the system takes them from the mask alone. Nobody can
        // connect yet, for it does not listen.
        set_permissions(&file.dir, &file.name, mode, FileType::Socket)?;
    }
    socket.listen(BACKLOG)?;
    Ok((socket, file))
}

/// A socket's file. It is removed with this, if it is still the same.
struct SocketFile {
    dir: Dir,
    name: OsString,
    made: Stat,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Ok(Some(found)) = self.dir.stat_of(&self.name)
            && same(&found, &self.made)
        {
            // Nobody is there to be told that it stays behind; the next server finds it stale.
            let _ = self.dir.remove(&self.name);
        }
    }
}

/// A listening socket.
pub(super) struct UnixIncoming {
    // The file goes before the socket: while it is there, somebody listens.
    _file: Option<SocketFile>,
    listener: UnixListener,
    endpoint: Endpoint,
}

impl UnixIncoming {
    fn new(socket: OwnedFd, file: Option<SocketFile>, endpoint: Endpoint) -> io::Result<Self> {
        let listener = StdListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Self { _file: file, listener: UnixListener::from_std(listener)?, endpoint })
    }

    /// A socket that listens already, and whose file is somebody else's to remove.
    pub(super) fn adopt(socket: OwnedFd) -> io::Result<Self> {
        let listener = StdListener::from(socket);
        let address = address_of(&listener.local_addr()?);
        let nameless = || io::Error::new(io::ErrorKind::InvalidInput, "the socket has no name that an endpoint can have");
        let endpoint = Endpoint::new(address.ok_or_else(nameless)?);
        Self::new(listener.into(), None, endpoint)
    }

    fn greet(&self, stream: UnixStream) -> io::Result<Connected> {
        let peer = peer_of(&stream, self.endpoint.address())?;
        // Files have permissions. An abstract name is everybody's to connect to.
        if let (Address::Abstract { .. }, Some(Principal::UnixUser { uid, .. })) = (self.endpoint.address(), &peer.principal) {
            check_client(*uid)?;
        }
        Ok(Connected::new(stream, peer))
    }
}

impl Listener for UnixIncoming {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            let (stream, _) = self.listener.accept().await?;
            // A client that may not come fails here, and alone.
            let connected = self.greet(stream);
            Ok(Incoming::new(std::future::ready(connected)))
        })
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }
}

/// Who is at the other end. Clients have no address of their own, so both ends tell the server's.
fn peer_of(stream: &UnixStream, address: &Address) -> io::Result<Peer> {
    let user = stream.peer_cred()?;
    let pid = user.pid().and_then(|pid| u32::try_from(pid).ok());
    let principal = Principal::UnixUser { uid: user.uid(), gid: user.gid(), pid };
    Ok(Peer::new(Endpoint::new(address.clone()).to_string()).with_principal(principal))
}

fn address_of(address: &SocketAddr) -> Option<Address> {
    if let Some(path) = address.as_pathname() {
        return Some(Address::Unix { path: path.to_owned() });
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use std::os::linux::net::SocketAddrExt;
        let name = String::from_utf8(address.as_abstract_name()?.to_vec()).ok()?;
        Some(Address::Abstract { name })
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    None
}
