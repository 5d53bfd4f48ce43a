//! A session as its clients, calls and streams hold it: when the last of them lets go, the session closes.

use std::sync::Arc;

use rpc_core::service::ServiceInfo;
use rpc_core::streaming::Decoding;

use crate::state::{Guard, SessionState};

/// A session of this side.
pub(crate) struct SessionHandle {
    pub(crate) state: Arc<SessionState>,
    pub(crate) decoding: Decoding,
    /// From this side's method numbers to the peer's, where they differ.
    pub(crate) methods: Option<Vec<Option<u32>>>,
    pub(crate) info: &'static ServiceInfo,
    pub(crate) _connection: Arc<Guard>,
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        self.state.act(|session| session.close());
    }
}
