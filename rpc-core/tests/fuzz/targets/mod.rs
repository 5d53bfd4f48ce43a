//! What any bytes may be put into, and what must hold then. Plain functions that panic where it does not: the property
//! tests beside this file call them, and so does libFuzzer (`fuzz/`).

mod bytes;
pub(crate) mod connection;
pub(crate) mod decode;
pub(crate) mod session;
pub(crate) mod wire;

/// A target and its name.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const ALL: [Target; 5] = [
    ("frames", wire::frames),
    ("hello", wire::hello),
    ("connection", connection::connection),
    ("session", session::session),
    ("decode", decode::decode),
];
