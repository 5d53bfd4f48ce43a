//! quinn: streams of QUIC with TLS, as QUIC has no other; a stream for each caller, which stays (`framed` says what is on
//! it). It is a transport and no framework: calls are what its user writes. Set beyond the defaults: as many streams as W3
//! and W7 have. Datagrams as long as loopback takes, which its documentation offers, took less CPU in W2 and lost more in
//! W3 and W5, so they are as long as by default. A certificate that the server makes and tells with its address, which the
//! client then trusts.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig, VarInt};

use super::framed;
use crate::common::Nested;
use crate::neighbour::{Neighbour, Outcome};

/// More than W3 and W7 have.
const STREAMS: u32 = 20_000;
const HOST: &str = "localhost";

pub(crate) struct Quinn {
    caller: framed::Caller<RecvStream, SendStream>,
    /// Its last handle closes the connection.
    _connection: Connection,
}

impl Quinn {
    async fn open(address: &str, callers: usize) -> Outcome<Vec<Self>> {
        let (address, certificate) = address.split_once(' ').ok_or("the address has no certificate")?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(from_hex(certificate)?))?;
        let mut endpoint = Endpoint::client("127.0.0.1:0".parse()?)?;
        endpoint.set_default_client_config(ClientConfig::with_root_certificates(Arc::new(roots))?);
        let connection = endpoint.connect(address.parse()?, HOST)?.await?;
        let mut all = Vec::new();
        for _ in 0..callers {
            let (writer, reader) = connection.open_bi().await?;
            let mut caller = framed::Caller::new(reader, writer);
            // The other side learns of a stream by what comes on it.
            caller.echo(&Bytes::new(), |_| ()).await?;
            all.push(Self { caller, _connection: connection.clone() });
        }
        Ok(all)
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Outcome<Vec<u8>> {
    let pair = |at: usize| text.get(at..at + 2).ok_or("half a byte").map(|pair| u8::from_str_radix(pair, 16));
    (0..text.len()).step_by(2).map(|at| Ok(pair(at)??)).collect()
}

impl Neighbour for Quinn {
    const NAME: &'static str = "quinn";
    const UNIT: &'static str = "a stream in both directions";
    type Value = Nested;

    async fn serve(announce: impl FnOnce(String)) -> Outcome<Infallible> {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut config = ServerConfig::with_single_cert(vec![certificate.clone()], key.into())?;
        let mut transport = TransportConfig::default();
        transport.max_concurrent_bidi_streams(VarInt::from_u32(STREAMS));
        config.transport_config(Arc::new(transport));
        let endpoint = Endpoint::server(config, "127.0.0.1:0".parse()?)?;
        announce(format!("{} {}", endpoint.local_addr()?, to_hex(&certificate)));
        while let Some(incoming) = endpoint.accept().await {
            let connection = incoming.await?;
            tokio::spawn(async move {
                while let Ok((writer, reader)) = connection.accept_bi().await {
                    tokio::spawn(framed::answer(reader, writer));
                }
            });
        }
        Err("the endpoint has closed".into())
    }

    async fn connect(address: &str, callers: usize) -> Outcome<Vec<Self>> {
        Self::open(address, callers).await
    }

    async fn echo(&mut self, body: &Bytes, see: impl FnOnce(&[u8])) -> Outcome<()> {
        self.caller.echo(body, see).await
    }

    async fn nested(&mut self, value: &Nested) -> Outcome<Nested> {
        self.caller.nested(value).await
    }

    async fn items(&mut self, count: u64, size: u32) -> Outcome<u64> {
        self.caller.items(count, size).await
    }

    async fn idle(address: &str, count: usize) -> Outcome<Box<dyn Any>> {
        Ok(Box::new(Self::open(address, count).await?))
    }
}
