//! Pairs of FIFOs, which connect where sockets do not: a FIFO at which clients say that they have come, and two for each
//! connection, which the client makes and which have no name any more as soon as both ends are open.
//!
//! ```text
//! client                                            server
//! opens `listen` to write                           holds `listen`, and the lock of the directory
//! makes ID.up, ID.down; opens both, both ways
//! writes a record with ID into `listen`         →
//!                                                   opens ID.up to read, ID.down to write; removes both names
//!                                               ←   writes VERSION into ID.down
//! closes the ends that are the server's
//! ```
//! So neither end ever sees an end of file before the other one has come, and from then on each sees the other one's.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use rpc_core::context::{Peer, Principal};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::backend::files::{Dir, is_own, mode_of, permissions, random, runtime_dir, same};
use crate::backend::users::check_server;
use crate::endpoint::{Address, Endpoint, Options};
use crate::stream::{BoxFuture, Connected, Incoming, Listener};

/// The FIFO of the listener.
const RENDEZVOUS: &str = "listen";

/// What the server answers, and what records begin with, tell the version of all this.
const VERSION: u8 = 1;

/// What stands before the name in a record. The line end is for what a broken record has left without one.
const MARK: &[u8] = b"\nrpc1 ";

/// Length of a name: 128 bits in hexadecimal digits.
const ID: usize = 32;

/// Length of a record: far below `PIPE_BUF`, so that it is written whole or not at all.
const RECORD: usize = MARK.len() + ID + 1;

/// Bytes of records that are read at a time: a hundred of them.
const READ: usize = 4096;

/// Permissions of all FIFOs.
const MODE: u32 = 0o600;

/// How long FIFOs lie around whose client is dead until they are removed, and how long it is at least between two looks for
/// such. A client opens what it made at once, so it is dead if nobody has what it made open by then.
const STALE: Duration = Duration::from_secs(5);

/// Attempts to lock the directory while somebody removes it.
const ROUNDS: usize = 100;

fn path_of(name: &str) -> PathBuf {
    runtime_dir().join(format!("{name}.pipe"))
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens under that name")
}

fn peer(name: &str, uid: u32, gid: u32) -> Peer {
    let principal = Principal::UnixUser { uid, gid, pid: None };
    Peer::new(Endpoint::new(Address::Pipe { name: name.to_owned() }).to_string()).with_principal(principal)
}

/// Opens one end of a FIFO, which is checked when it is open: its kind, its owner, and that it is nobody else's to open.
fn open(dir: &Dir, name: &str, end: OFlags) -> io::Result<OwnedFd> {
    let fd = rustix::fs::openat(dir, name, end | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if is_own(&stat, FileType::Fifo) && permissions(&stat) & !MODE == 0 {
        return Ok(fd);
    }
    let text = format!("`{name}` is no FIFO that belongs to this user alone");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// Removes a FIFO of this user's, and nothing else.
fn remove(dir: &Dir, name: impl AsRef<OsStr>) {
    if let Ok(Some(found)) = dir.stat_of(&name)
        && is_own(&found, FileType::Fifo)
    {
        // One that is gone already is as good; one that cannot be removed is looked at again by the next listener.
        let _ = dir.remove(name);
    }
}

/// The names of the two FIFOs of a connection.
struct Names {
    up: String,
    down: String,
}

impl Names {
    fn new(id: &str) -> Self {
        Self { up: format!("{id}.up"), down: format!("{id}.down") }
    }

    fn remove(&self, dir: &Dir) {
        remove(dir, &self.up);
        remove(dir, &self.down);
    }
}

/// What a client made. It is removed with this; the server has done so where all went well.
struct Made {
    dir: Dir,
    names: Names,
}

impl Made {
    fn new(dir: Dir, id: &str) -> io::Result<Self> {
        let made = Self { dir, names: Names::new(id) };
        for name in [&made.names.up, &made.names.down] {
            // A directory that is gone is one whose listener is.
            rustix::fs::mkfifoat(&made.dir, name, mode_of(MODE)).map_err(gone)?;
        }
        Ok(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.names.remove(&self.dir);
    }
}

/// Nobody is at the other end.
fn gone(error: Errno) -> io::Error {
    match error {
        Errno::NXIO | Errno::NOENT => refused(),
        error => error.into(),
    }
}

/// Connects to a name.
pub(super) async fn connect(name: &str, options: &Options) -> io::Result<Connected> {
    let absent = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { refused() } else { error };
    let dir = Dir::open_private(&path_of(name)).map_err(absent)?;
    let stat = dir.stat()?;
    check_server(stat.st_uid, options)?;
    let door = open(&dir, RENDEZVOUS, OFlags::WRONLY).map_err(|error| match error.raw_os_error() {
        Some(code) => gone(Errno::from_raw_os_error(code)),
        None => error,
    })?;
    let door = Sender::from_owned_fd(door)?;
    let id = random() + &random();
    let made = Made::new(dir, &id)?;
    let (dir, names) = (&made.dir, &made.names);
    let answers = open(dir, &names.down, OFlags::RDONLY)?;
    let until_answered = (open(dir, &names.up, OFlags::RDONLY)?, open(dir, &names.down, OFlags::WRONLY)?);
    let sender = Sender::from_owned_fd(open(dir, &names.up, OFlags::WRONLY)?)?;
    let mut receiver = Receiver::from_owned_fd(answers)?;

    knock(&door, &id).await?;
    let mut version = [0];
    tokio::select! {
        biased;
        answered = receiver.read_exact(&mut version) => answered?,
        closed = closed(&door) => return Err(closed),
    };
    if version != [VERSION] {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "what listens there speaks another version"));
    }
    drop(until_answered);
    Ok(Connected::new(Fifos { receiver, sender: Some(sender) }, peer(name, stat.st_uid, stat.st_gid)))
}

/// Tells the listener.
async fn knock(door: &Sender, id: &str) -> io::Result<()> {
    let record = [MARK, id.as_bytes(), b"\n"].concat();
    loop {
        door.writable().await?;
        match door.try_write(&record) {
            Ok(n) if n == record.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(refused()),
            Err(error) => return Err(error),
        }
    }
}

/// Waits until the listener is gone.
async fn closed(door: &Sender) -> io::Error {
    match door.ready(Interest::ERROR).await {
        Ok(_) => refused(),
        Err(error) => error,
    }
}

/// Both directions of a connection.
struct Fifos {
    receiver: Receiver,
    /// None: this side has said its last.
    sender: Option<Sender>,
}

impl Fifos {
    fn sender(&mut self) -> io::Result<Pin<&mut Sender>> {
        self.sender.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl AsyncRead for Fifos {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.receiver).poll_read(cx, buf)
    }
}

impl AsyncWrite for Fifos {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.sender()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.sender()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A FIFO has ended when nobody has it open to write.
        self.sender = None;
        Poll::Ready(Ok(()))
    }
}

/// A name in use. Dropping it frees the name and removes what is there.
pub(super) struct FifoIncoming {
    name: String,
    path: PathBuf,
    dir: Arc<Dir>,
    endpoint: Endpoint,
    records: Receiver,
    /// An end that keeps `records` from ending with its last client.
    _open: OwnedFd,
    inbox: Inbox,
    swept: Instant,
}

/// Takes a name.
pub(super) fn listen(name: &str, endpoint: &Endpoint) -> io::Result<FifoIncoming> {
    Dir::make_private(&runtime_dir())?;
    let path = path_of(name);
    let dir = lock(&path)?;
    clean(&dir, &path, |_| true);
    if dir.stat_of(RENDEZVOUS)?.is_some() {
        let text = format!("{} is no FIFO of this user, and is left as it is", path.join(RENDEZVOUS).display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    rustix::fs::mkfifoat(&dir, RENDEZVOUS, mode_of(MODE))?;
    let records = open(&dir, RENDEZVOUS, OFlags::RDONLY)?;
    let held = open(&dir, RENDEZVOUS, OFlags::WRONLY)?;
    Ok(FifoIncoming {
        name: name.to_owned(),
        path,
        dir: Arc::new(dir),
        endpoint: endpoint.clone(),
        records: Receiver::from_owned_fd(records)?,
        _open: held,
        inbox: Inbox::default(),
        swept: Instant::now(),
    })
}

/// Makes or finds the directory, and takes its lock, which whoever listens there holds.
fn lock(path: &Path) -> io::Result<Dir> {
    for _ in 0..ROUNDS {
        let dir = match Dir::make_private(path) {
            Ok(dir) => dir,
            // It was removed between the two.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if !dir.try_lock()? {
            break;
        }
        // Whoever listened there may have removed it a moment before.
        let own = dir.stat()?;
        if Dir::open_private(path).and_then(|dir| dir.stat()).is_ok_and(|found| same(&found, &own)) {
            return Ok(dir);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there under this name"))
}

/// Removes the FIFOs of clients for which `which` holds, and those of listeners, which are of the past.
fn clean(dir: &Dir, path: &Path, which: impl Fn(&str) -> bool) {
    // What cannot be read stays, and is in nobody's way.
    let Ok(entries) = fs::read_dir(path) else { return };
    for name in entries.flatten().map(|entry| entry.file_name()) {
        if let Some(name) = name.to_str()
            && (name == RENDEZVOUS || is_clients(name))
            && which(name)
        {
            remove(dir, name);
        }
    }
}

/// Whether a file has a name that clients give.
fn is_clients(name: &str) -> bool {
    let id = name.strip_suffix(".up").or_else(|| name.strip_suffix(".down"));
    id.is_some_and(|id| is_id(id.as_bytes()))
}

fn is_id(bytes: &[u8]) -> bool {
    bytes.len() == ID && bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a FIFO's client is gone: it holds both open to read until it is answered.
fn is_dead(dir: &Dir, name: &str) -> bool {
    let Ok(Some(found)) = dir.stat_of(name) else { return false };
    let made = Duration::from_secs(u64::try_from(found.st_mtime).unwrap_or_default());
    // A clock that was set back makes it a young one.
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + made).unwrap_or_default();
    age > STALE && open(dir, name, OFlags::WRONLY).is_err_and(|error| error.raw_os_error() == Some(Errno::NXIO.raw_os_error()))
}

impl FifoIncoming {
    /// Removes what clients left behind that were killed before they came to send a record.
    fn sweep(&mut self) {
        if self.swept.elapsed() > STALE {
            clean(&self.dir, &self.path, |name| name != RENDEZVOUS && is_dead(&self.dir, name));
            self.swept = Instant::now();
        }
    }
}

impl Listener for FifoIncoming {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            loop {
                if let Some(id) = self.inbox.next() {
                    self.sweep();
                    let (dir, name) = (Arc::clone(&self.dir), self.name.clone());
                    return Ok(Incoming::new(async move { meet(&dir, &name, &id) }));
                }
                // Whoever floods the FIFO must not have the accept loop for himself.
                tokio::task::coop::consume_budget().await;
                self.records.readable().await?;
                let mut bytes = [0; READ];
                match self.records.try_read(&mut bytes) {
                    Ok(n) => self.inbox.push(&bytes[..n]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        })
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }
}

impl Drop for FifoIncoming {
    fn drop(&mut self) {
        // Clients that are not answered yet will not be.
        clean(&self.dir, &self.path, |_| true);
        // It stays where somebody has put something of his own into it.
        let _ = fs::remove_dir(&self.path);
        // Connections that are being made have the directory open, and with it the lock.
        self.dir.unlock();
    }
}

/// Opens a client's FIFOs, and answers. Their names are gone then, whatever came of it.
fn meet(dir: &Dir, name: &str, id: &str) -> io::Result<Connected> {
    let names = Names::new(id);
    let opened = open(dir, &names.up, OFlags::RDONLY).and_then(|up| Ok((up, open(dir, &names.down, OFlags::WRONLY)?)));
    names.remove(dir);
    let (up, down) = opened?;
    let owner = rustix::fs::fstat(&up)?;
    // It is empty, so it takes a byte.
    rustix::io::write(&down, &[VERSION])?;
    let (receiver, sender) = (Receiver::from_owned_fd(up)?, Some(Sender::from_owned_fd(down)?));
    Ok(Connected::new(Fifos { receiver, sender }, peer(name, owner.st_uid, owner.st_gid)))
}

/// Records that have arrived. What is none is skipped, up to the next line end.
#[derive(Default)]
struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The name in the next record. Without one, less than a record is left.
    fn next(&mut self) -> Option<String> {
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let id = parse(&self.bytes[..end]);
            self.bytes.drain(..=end);
            if id.is_some() {
                return id;
            }
        }
        if self.bytes.len() >= RECORD {
            // The line end that it lacks comes with the next record's begin, and ends something that is none either.
            self.bytes.truncate(RECORD);
        }
        None
    }
}

/// The name in a line.
fn parse(line: &[u8]) -> Option<String> {
    let id = line.strip_prefix(&MARK[1..]).filter(|id| is_id(id))?;
    String::from_utf8(id.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn ids(pieces: &[&[u8]]) -> Vec<String> {
        let (mut inbox, mut found) = (Inbox::default(), Vec::new());
        for piece in pieces {
            inbox.push(piece);
            found.extend(std::iter::from_fn(|| inbox.next()));
            assert!(inbox.bytes.len() <= RECORD, "less than a record is kept");
        }
        found
    }

    #[test]
    fn records_are_found_behind_whatever_came_before_them() {
        let (one, two) = ("1".repeat(ID), "2".repeat(ID));
        let record = |id: &str| [MARK, id.as_bytes(), b"\n"].concat();
        let both = [record(&one), record(&two)].concat();
        assert_eq!(ids(&[&both]), [&*one, &*two]);
        let pieces: Vec<_> = both.chunks(1).collect();
        assert_eq!(ids(&pieces), [&*one, &*two]);
        for nonsense in [&b"x"[..], b"\nrpc1 12", b"\nrpc1 ../../../../../../../../etc/pas\n", &[b'1'; 5000], &[0; 100], b"\n\n"]
        {
            assert_eq!(ids(&[nonsense, &record(&one)]), [&*one]);
            assert_eq!(ids(&[&[nonsense, &record(&one)].concat()]), [&*one]);
        }
        for bad in ["A".repeat(ID), "1".repeat(ID - 1), "1".repeat(ID + 1), "/".repeat(ID), "é".repeat(ID / 2)] {
            assert_eq!(ids(&[&record(&bad)]), [""; 0]);
        }
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let name = format!("half-close-{}", std::process::id());
        let endpoint = Endpoint::new(Address::Pipe { name: name.clone() });
        let mut listener = listen(&name, &endpoint).unwrap();
        let connecting = tokio::spawn(async move { connect(&name, &Options::default()).await });
        let mut server = listener.accept().await.unwrap().connected().await.unwrap();
        let mut client = connecting.await.unwrap().unwrap();
        assert!(client.is_write_vectored() && server.is_write_vectored());
        client.write_all(b"the last words").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(client.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut heard = String::new();
        server.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "the last words");
        server.write_all(b"and an answer").await.unwrap();
        drop(server);
        heard.clear();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "and an answer");
    }
}
