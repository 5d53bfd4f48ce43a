//! A session as its clients, calls and streams hold it: when the last of them lets go, the session closes.

use std::sync::Arc;
use std::time::Duration;

use rpc_core::code::Code;
use rpc_core::service::ServiceInfo;
use rpc_core::status::Fault;
use rpc_core::streaming::Decoding;

use crate::state::{Guard, SessionState};

/// A session of this side.
pub(crate) struct SessionHandle {
    pub(crate) state: Arc<SessionState>,
    pub(crate) decoding: Decoding,
    /// From this side's method numbers to the peer's, where they differ.
    pub(crate) methods: Option<Vec<Option<u32>>>,
    pub(crate) info: &'static ServiceInfo,
    /// The time of unary calls that state none.
    pub(crate) default_deadline: Duration,
    pub(crate) _connection: Arc<Guard>,
}

impl SessionHandle {
    /// The peer's number of a method.
    ///
    /// # Errors
    /// The peer's service does not have the method.
    #[inline]
    pub(crate) fn method(&self, method: u32) -> Result<u32, Fault> {
        match &self.methods {
            None => Ok(method),
            Some(methods) => methods.get(method as usize).copied().flatten().ok_or_else(|| self.unknown(method)),
        }
    }

    fn unknown(&self, method: u32) -> Fault {
        let name = self.info.methods.get(method as usize).map_or("?", |method| method.name);
        Fault::from_code(Code::UNKNOWN_METHOD, format!("the peer's {} has no method `{name}`", self.info.name), false)
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        self.state.act(|session| session.close());
    }
}
