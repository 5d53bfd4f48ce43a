//! What stands below the layers of a client: a request becomes a call over the session.

use std::fmt;
use std::sync::Arc;

use rpc_core::proto::AnswerKind;
use rpc_core::service::{MethodKind, Reply, ReplyFuture, Request, Service, ServiceInfo};
use rpc_core::status::Never;

use crate::call::Call;
use crate::handle::SessionHandle;

/// The calls of a session, as a service.
pub(crate) struct Calls(pub(crate) Arc<SessionHandle>);

impl Service for Calls {
    fn info(&self) -> &'static ServiceInfo {
        self.0.info
    }

    fn call(&self, mut request: Request) -> ReplyFuture {
        let answer = answer_of(request.info().kind);
        let (items, metadata, deadline) = (request.take_output(), request.shared_metadata(), request.deadline());
        let urgency = request.urgency();
        let call = match self.0.method(request.method()) {
            Ok(method) => Call::<Reply, Never>::remote(&self.0, method, request.into_body(), items, answer, |_, reply| Ok(reply)),
            Err(fault) => Call::failed(fault),
        };
        let call = call.prepared(deadline, metadata, urgency);
        Box::pin(async move { call.await.unwrap_or_else(|error| Reply::Fault(error.into_fault())) })
    }
}

/// What the caller of a method waits for.
fn answer_of(kind: MethodKind) -> AnswerKind {
    match kind {
        MethodKind::Unary | MethodKind::ClientStream => AnswerKind::One,
        MethodKind::ServerStream | MethodKind::BidiStream => AnswerKind::Many,
        MethodKind::OneWay => AnswerKind::None,
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("service", &self.0.info.name).finish_non_exhaustive()
    }
}
