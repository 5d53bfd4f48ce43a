//! Directories and files of the local backends: what is opened is checked, by its owner and its mode, and no link is
//! followed on the way to it.

use std::ffi::OsStr;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Permissions of the directories that are made here.
const PRIVATE: u32 = 0o700;

/// Permission bits that let others than the owner in.
const OTHERS: u32 = 0o077;

/// Permission bits that let others than the owner change a directory.
const OTHERS_WRITE: u32 = 0o022;

/// An open directory: names in it lead where they led when it was opened, whatever becomes of its path.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
}

impl Dir {
    /// Opens a directory of anybody's, by a path that may have links: it is what the user wrote.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, OFlags::empty())
    }

    /// Opens a directory that nobody but this user can enter.
    pub(super) fn open_private(path: &Path) -> io::Result<Self> {
        let dir = Self::open_with(path, OFlags::NOFOLLOW)?;
        let stat = dir.stat()?;
        let (own, owner, mode) = (geteuid().as_raw(), stat.st_uid, permissions(&stat));
        let path = path.display();
        if owner != own {
            return Err(denied(format!("the directory {path} belongs to user {owner} and not to this one, {own}: remove it")));
        }
        if mode & OTHERS != 0 {
            return Err(denied(format!("the directory {path} is open to others, with mode {mode:o}: give it 700")));
        }
        Ok(dir)
    }

    /// The same; it is made where there is none.
    pub(super) fn make_private(path: &Path) -> io::Result<Self> {
        match rustix::fs::mkdir(path, mode_of(PRIVATE)) {
            Ok(()) | Err(Errno::EXIST) => Self::open_private(path),
            Err(error) => Err(error.into()),
        }
    }

    fn open_with(path: &Path, flags: OFlags) -> io::Result<Self> {
        let flags = flags | OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd }),
            // What the system says of a link that is not followed says nothing to a person.
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let text = format!("{} is no directory, or a link to one", path.display());
                Err(io::Error::new(io::ErrorKind::NotADirectory, text))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What is known of the directory itself.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(&self.fd)?)
    }

    /// What is known of a file in it, a link itself and not what it leads to; `None` where there is none.
    pub(super) fn stat_of(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.fd, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file that was looked at.
    pub(super) fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, name.as_ref(), AtFlags::empty())?)
    }

    /// Gives a file another name, which nobody may have: nothing is replaced.
    pub(super) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, rustix::fs::RenameFlags::NOREPLACE) {
            // File systems that know nothing of it.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            done => return Ok(done?),
        }
        rustix::fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty())?;
        self.remove(from)
    }

    /// Takes the lock of the directory if it is free. The system gives it back with the last descriptor, also of a process
    /// that was killed.
    pub(super) fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the lock back.
    pub(super) fn unlock(&self) {
        // It can only fail for a descriptor that is none.
        let _ = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The private directory in which the names of this user's local endpoints are: `rpc` in the user's `XDG_RUNTIME_DIR`, or
/// else `rpc-UID` in the directory for temporary files.
pub(super) fn runtime_dir() -> PathBuf {
    let own = geteuid().as_raw();
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let trusted = given.filter(|path| {
        let stat = Dir::open_with(path, OFlags::NOFOLLOW).and_then(|dir| dir.stat());
        // One of another user's is there where somebody became this user and kept his environment.
        stat.is_ok_and(|stat| stat.st_uid == own && permissions(&stat) & OTHERS_WRITE == 0)
    });
    match trusted {
        Some(path) => path.join("rpc"),
        None => std::env::temp_dir().join(format!("rpc-{own}")),
    }
}

/// The permission bits of a file.
#[allow(clippy::useless_conversion, reason = "it is a shorter number on other systems than Linux")]
pub(super) fn permissions(stat: &Stat) -> u32 {
    u32::from(stat.st_mode) & 0o777
}

/// Whether a file is of this kind, and this user's.
pub(super) fn is_own(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind && stat.st_uid == geteuid().as_raw()
}

/// Whether both are of one file.
pub(super) fn same(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// Permissions from a number.
pub(super) fn mode_of(mode: u32) -> Mode {
    Mode::from_raw_mode(mode as _)
}

/// Sixteen hexadecimal digits that nobody guesses: a keyed hash with the system's randomness in its key.
pub(super) fn random() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// As much of a file's name as fits into `most` bytes, and no part of a character.
pub(super) fn shortened(name: &OsStr, most: usize) -> &OsStr {
    let bytes = name.as_bytes();
    let end = (0..=most.min(bytes.len())).rev().find(|&end| bytes.get(end).is_none_or(|byte| byte & 0xC0 != 0x80));
    OsStr::from_bytes(&bytes[..end.unwrap_or_default()])
}

/// Sets the permissions of a file that was bound, past the mask of the process.
pub(super) fn set_permissions(dir: &Dir, name: &OsStr, mode: u32, kind: FileType) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::PermissionsExt;

        // A file that is opened as a path alone can be looked at, and then changed by its descriptor, without a link between.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        if !is_own(&rustix::fs::fstat(&file)?, kind) {
            return Err(denied("somebody replaced the file while it was made".to_owned()));
        }
        fs::set_permissions(format!("/proc/self/fd/{}", file.as_raw_fd()), fs::Permissions::from_mode(mode))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let stat = dir.stat_of(name)?;
        if !stat.is_some_and(|stat| is_own(&stat, kind)) {
            return Err(denied("somebody replaced the file while it was made".to_owned()));
        }
        Ok(rustix::fs::chmodat(dir, name, mode_of(mode), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn denied(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}
