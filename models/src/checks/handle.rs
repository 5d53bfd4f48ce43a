//! With its last handle a session ends, and then its connection.

use std::sync::Arc;
use std::time::Duration;

use rpc_core::codec::Codec;
use rpc_core::service::ServiceInfo;
use rpc_core::streaming::Decoding;
use shuttle::future::block_on;
use shuttle::thread;

use super::handle::SessionHandle;
use crate::checks::of_state::{drive, opened};
use crate::state::Guard;

fn the_last_handle_closes_the_session_and_its_connection() {
    static INFO: ServiceInfo = ServiceInfo { name: "Model", methods: &[], fingerprint: 0 };
    let (link, session) = opened();
    let handle = Arc::new(SessionHandle {
        state: Arc::clone(&session),
        decoding: Decoding { codec: Codec::Postcard, limits: None },
        methods: None,
        info: &INFO,
        default_deadline: Duration::from_secs(30),
        _connection: Guard::new(Arc::clone(&link), true),
    });
    let holders = [Arc::clone(&handle), handle].map(|handle| thread::spawn(move || drop(handle)));
    let taken = block_on(drive(&link, &session, usize::MAX));
    assert!(taken > 0, "the peer is told of the session's end before the connection's");
    assert!(session.lock().proto.is_closing());
    holders.into_iter().for_each(|holder| holder.join().expect("it does not panic"));
}

pub(crate) const CHECKS: &[crate::Check] =
    &[("the last handle closes the session and its connection", the_last_handle_closes_the_session_and_its_connection)];
