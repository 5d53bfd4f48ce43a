//! What stands in the place of TLS in a build that has none.

use std::io;

use crate::endpoint::Endpoint;
use crate::error::OpenError;
use crate::stream::{Connected, Listener};

/// Settings that nobody can have.
#[derive(Debug, Clone)]
pub(crate) enum ClientTls {}

/// Settings that nobody can have.
#[derive(Debug, Clone)]
pub(crate) enum ServerTls {}

/// TLS over what was connected; there is none.
pub(crate) enum Connector {}

impl Connector {
    /// Never.
    pub(crate) async fn new(_: Option<ClientTls>, _: Option<&Endpoint>) -> Result<Option<Self>, String> {
        Ok(None)
    }

    /// Never.
    pub(crate) async fn over(&self, _: Connected) -> io::Result<Connected> {
        match *self {}
    }

    /// Never.
    pub(crate) fn explain(&self, _: String, _: OpenError) -> OpenError {
        match *self {}
    }
}

/// TLS over what listens; there is none.
pub(crate) enum Acceptor {}

impl Acceptor {
    /// Never.
    pub(crate) fn new(_: Option<ServerTls>, _: Option<&Endpoint>) -> Result<Option<Self>, String> {
        Ok(None)
    }

    /// Never.
    pub(crate) fn over(self, _: Box<dyn Listener>) -> Box<dyn Listener> {
        match self {}
    }
}
