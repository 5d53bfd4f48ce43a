//! Users of this machine at the other end: whom a client takes for the right server.

use std::io;

use rustix::process::geteuid;

use crate::endpoint::Options;

/// Checks the user who serves: the one of `user=ID`, or this process's own or root where the endpoint names none. The name
/// of a socket or a pipe is anybody's who was there first, and what is sent to it is that user's to read.
pub(super) fn check_server(server: u32, options: &Options) -> io::Result<()> {
    let own = geteuid().as_raw();
    let (right, wanted) = match &options.user {
        Some(user) => {
            let text = format!("user={user}: a user is a number here");
            let user: u32 = user.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, text))?;
            (server == user, format!("user {user}"))
        }
        None if own == 0 => (server == 0, "user 0".to_owned()),
        None => (server == own || server == 0, format!("user {own} or 0")),
    };
    if right {
        return Ok(());
    }
    let text = format!("user {server} serves there and not {wanted}: write user={server} behind the endpoint if that is right");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// Checks the user of a client, where no file's permissions do: this process's own, or root.
pub(super) fn check_client(client: u32) -> io::Result<()> {
    if client == geteuid().as_raw() || client == 0 {
        return Ok(());
    }
    let text = format!("user {client} connected to an abstract name, which is for the user who listens");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}
