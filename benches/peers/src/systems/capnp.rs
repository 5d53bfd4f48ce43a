//! capnp-rpc: generated code over the two-party network on TCP, its streams buffered, as the documentation of `VatNetwork`
//! says is best, and with nodelay. Items come by `-> stream`, which has capnp's own flow control. A reader has the answer
//! where it lies; what W6 gives to its caller is read out in full, as the others do by decoding.

use std::any::Any;
use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, new_client, twoparty};
use futures::AsyncReadExt;
use futures::io::{BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::common::Nested;
use crate::neighbour::{Neighbour, Outcome};

#[allow(clippy::all, reason = "it is generated")]
mod echo_capnp {
    include!(concat!(env!("OUT_DIR"), "/echo_capnp.rs"));
}

use echo_capnp::{echo, handle, nested, sink};

struct Echoes;
struct Handle;
struct Counter {
    size: usize,
    seen: Rc<Cell<u64>>,
}

impl handle::Server for Handle {}

impl sink::Server for Counter {
    async fn push(self: Rc<Self>, item: sink::PushParams) -> capnp::Result<()> {
        self.seen.set(self.seen.get() + u64::from(item.get()?.get_bytes()?.len() == self.size));
        Ok(())
    }
}

impl echo::Server for Echoes {
    async fn echo(self: Rc<Self>, arguments: echo::EchoParams, mut results: echo::EchoResults) -> capnp::Result<()> {
        results.get().set_bytes(arguments.get()?.get_bytes()?);
        Ok(())
    }

    async fn nested(self: Rc<Self>, arguments: echo::NestedParams, mut results: echo::NestedResults) -> capnp::Result<()> {
        results.get().set_value(arguments.get()?.get_value()?)
    }

    async fn items(self: Rc<Self>, arguments: echo::ItemsParams, _: echo::ItemsResults) -> capnp::Result<()> {
        let (count, size, sink) = {
            let arguments = arguments.get()?;
            (arguments.get_count(), arguments.get_size(), arguments.get_sink()?)
        };
        let item = vec![7; size as usize];
        for _ in 0..count {
            let mut push = sink.push_request();
            push.get().set_bytes(&item);
            push.send().await?;
        }
        Ok(())
    }

    async fn idle(self: Rc<Self>, _: echo::IdleParams, mut results: echo::IdleResults) -> capnp::Result<()> {
        results.get().set_handle(new_client(Handle));
        Ok(())
    }
}

fn write(value: &Nested, mut out: nested::Builder<'_>) {
    out.set_id(value.id);
    out.set_name(&value.name);
    let mut tags = out.reborrow().init_tags(value.tags.len() as u32);
    for (at, tag) in value.tags.iter().enumerate() {
        tags.set(at as u32, tag);
    }
    let mut points = out.reborrow().init_points(value.points.len() as u32);
    for (at, point) in value.points.iter().enumerate() {
        points.set(at as u32, *point);
    }
    let mut map = out.init_map(value.map.len() as u32);
    for (at, (key, value)) in value.map.iter().enumerate() {
        let mut entry = map.reborrow().get(at as u32);
        entry.set_key(key);
        entry.set_value(*value);
    }
}

fn read(value: nested::Reader<'_>) -> Outcome<Nested> {
    let map = value.get_map()?.iter().map(|entry| Ok((entry.get_key()?.to_string()?, entry.get_value())));
    Ok(Nested {
        id: value.get_id(),
        name: value.get_name()?.to_string()?,
        tags: value.get_tags()?.iter().map(|tag| Ok(tag?.to_string()?)).collect::<Outcome<_>>()?,
        points: value.get_points()?.iter().collect(),
        map: map.collect::<Outcome<_>>()?,
    })
}

fn network(stream: TcpStream, side: Side) -> Outcome<Box<twoparty::VatNetwork<impl futures::AsyncRead + Unpin>>> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.compat().split();
    let network = twoparty::VatNetwork::new(BufReader::new(reader), BufWriter::new(writer), side, Default::default());
    Ok(Box::new(network))
}

pub(crate) struct Capnp(echo::Client);

impl Capnp {
    async fn open(address: &str) -> Outcome<echo::Client> {
        let mut system = RpcSystem::new(network(TcpStream::connect(address).await?, Side::Client)?, None);
        let client = system.bootstrap(Side::Server);
        tokio::task::spawn_local(system);
        Ok(client)
    }
}

impl Neighbour for Capnp {
    const NAME: &'static str = "capnp-rpc";
    const UNIT: &'static str = "a capability";
    type Value = Nested;

    async fn serve(announce: impl FnOnce(String)) -> Outcome<Infallible> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?.to_string());
        let echoes: echo::Client = new_client(Echoes);
        loop {
            let network = network(listener.accept().await?.0, Side::Server)?;
            tokio::task::spawn_local(RpcSystem::new(network, Some(echoes.clone().client)));
        }
    }

    async fn connect(address: &str, callers: usize) -> Outcome<Vec<Self>> {
        let client = Self::open(address).await?;
        Ok((0..callers).map(|_| Self(client.clone())).collect())
    }

    async fn echo(&mut self, body: &Bytes, see: impl FnOnce(&[u8])) -> Outcome<()> {
        let mut request = self.0.echo_request();
        request.get().set_bytes(body);
        see(request.send().promise.await?.get()?.get_bytes()?);
        Ok(())
    }

    async fn nested(&mut self, value: &Nested) -> Outcome<Nested> {
        let mut request = self.0.nested_request();
        write(value, request.get().init_value());
        read(request.send().promise.await?.get()?.get_value()?)
    }

    async fn items(&mut self, count: u64, size: u32) -> Outcome<u64> {
        let seen = Rc::new(Cell::new(0));
        let mut request = self.0.items_request();
        let mut wanted = request.get();
        wanted.set_count(count);
        wanted.set_size(size);
        wanted.set_sink(new_client(Counter { size: size as usize, seen: seen.clone() }));
        request.send().promise.await?;
        // The last pushes may still be under way when their sender has sent them; they come in order, before a next call.
        self.echo(&Bytes::new(), |_| ()).await?;
        Ok(seen.get())
    }

    async fn idle(address: &str, count: usize) -> Outcome<Box<dyn Any>> {
        let client = Self::open(address).await?;
        let mut handles = Vec::new();
        for _ in 0..count {
            handles.push(client.idle_request().send().promise.await?.get()?.get_handle()?);
        }
        Ok(Box::new((client, handles)))
    }
}
