//! Who runs a process. The number of one that has ended may be another's a moment later, so that what is told of a client is
//! for logs and for choices among those whom the pipe's descriptor lets in; it admits nobody.

use std::io;

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};
use tokio::sync::OnceCell;

/// The security identifier of the system itself.
pub(super) const SYSTEM: &str = "S-1-5-18";

/// The user of this process.
pub(super) async fn own() -> io::Result<&'static str> {
    static OWN: OnceCell<String> = OnceCell::const_new();
    let own = OWN.get_or_try_init(|| async {
        of(std::process::id()).await?.ok_or_else(|| io::Error::other("the system does not tell who this process runs as"))
    });
    own.await.map(String::as_str)
}

/// The user of a process, where the system tells: not of one that is gone, nor to everyone of its own services.
pub(super) async fn of(pid: u32) -> io::Result<Option<String>> {
    // It walks the list of processes, which is milliseconds on a busy machine.
    tokio::task::spawn_blocking(move || look_up(pid)).await.map_err(io::Error::other)
}

fn look_up(pid: u32) -> Option<String> {
    let (pid, mut system) = (Pid::from_u32(pid), System::new());
    let user = ProcessRefreshKind::nothing().with_user(UpdateKind::Always);
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, user);
    Some(system.process(pid)?.user_id()?.to_string())
}

/// Whether a client may talk to a server that runs as `server`. Anybody can take a name that is free.
pub(super) fn trust(server: Option<&str>, own: &str) -> io::Result<()> {
    let text = match server {
        Some(sid) if sid == own || sid == SYSTEM => return Ok(()),
        Some(sid) => format!("the pipe's server runs as {sid}, and not as this user or the system"),
        None => "the system does not tell who the pipe's server runs as".to_owned(),
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}
