//! JSON instead of postcard: for a whole connection or one session, seen on the wire, and what both sides read where they
//! have no codec in common. In an application, `rpc = { version = "0.1", features = ["json"] }`.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::collections::BTreeMap;

use rpc::{Codec, Connection, Endpoint, Server};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle { radius: f64 },
}

#[rpc::service]
trait Drawing {
    async fn add(&self, layer: &str, shape: Shape) -> rpc::Result<BTreeMap<u32, Shape>>;
}

struct Paper;

impl Drawing for Paper {
    async fn add(&self, _layer: &str, shape: Shape) -> rpc::Result<BTreeMap<u32, Shape>> {
        Ok([(1, Shape::Point), (2, shape)].into())
    }
}

/// Stands between a client and a server, and tells in the end what the client sent.
async fn listen_in(server: &Endpoint) -> std::io::Result<(String, oneshot::Receiver<Vec<u8>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("tcp://{}", listener.local_addr()?);
    let server = server.to_string().replace("tcp://", "");
    let (told, heard) = oneshot::channel();
    tokio::spawn(async move {
        let (client, server) = (listener.accept().await?.0, TcpStream::connect(server).await?);
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
        let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        while let n @ 1.. = from_client.read(&mut buffer).await? {
            seen.extend_from_slice(&buffer[..n]);
            to_server.write_all(&buffer[..n]).await?;
        }
        to_server.shutdown().await?;
        back.abort();
        let _ = told.send(seen);
        std::io::Result::Ok(())
    });
    Ok((endpoint, heard))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().service(DrawingServer::new(Paper)).listen("tcp://127.0.0.1:0").await?;
    let circle = Shape::Circle { radius: 0.1 };
    let expected = BTreeMap::from([(1, Shape::Point), (2, circle.clone())]);

    // JSON first, for all sessions of the connection that do not say otherwise. The call is the same.
    let (endpoint, heard) = listen_in(server.endpoint()).await?;
    let connection = Connection::builder().codecs([Codec::Json, Codec::Postcard]).open(&endpoint).await?;
    let json: DrawingClient = connection.session().open().await?;
    let compact: DrawingClient = connection.session().codec(Codec::Postcard).open().await?;
    assert_eq!(json.add("the \"top\" one", circle.clone()).await?, expected);
    assert_eq!(compact.add("below", circle.clone()).await?, expected);
    drop((json, compact));
    connection.close().await;

    // On the wire the one is text, arguments as an array, and the other is not.
    let wire = String::from_utf8_lossy(&heard.await?).into_owned();
    let text = r#"["the \"top\" one",{"Circle":{"radius":0.1}}]"#;
    assert!(wire.contains(text) && wire.contains("below") && !wire.contains("[\"below\""));
    println!("sent: {text}");

    // Whoever speaks JSON alone is refused where it is not spoken; both lists are in the error.
    let old = Server::builder().codecs([Codec::Postcard]).service(DrawingServer::new(Paper)).listen("mem://old").await?;
    let refused = Connection::builder().codecs([Codec::Json]).open(old.endpoint()).await.unwrap_err();
    assert!(refused.to_string().ends_with("the client has json, the server has postcard"), "{refused}");
    println!("refused: {refused}");
    Ok(())
}
