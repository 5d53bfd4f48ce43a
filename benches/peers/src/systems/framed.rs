//! What an application writes above a transport that has streams and no calls, for quinn and yamux: a stream for each
//! caller, which stays, and on it one request after the other. A request is `u8 kind, u32 length, body`, an answer `u32
//! length, body`. The struct of W6 travels in postcard, by the same code as that of `rpc`.

use bytes::Bytes;
use futures::{StreamExt, stream};
use rpc::Codec;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::common::Nested;
use crate::neighbour::Outcome;

const ECHO: u8 = 0;
const NESTED: u8 = 1;
/// Answered by as many items as the body says.
const ITEMS: u8 = 2;

/// A body may have so many bytes.
const LONGEST: usize = 64 << 20;
/// Items go to the stream by as many bytes.
const BATCH: usize = 32 << 10;

async fn read_body(reader: &mut (impl AsyncRead + Unpin), length: [u8; 4], body: &mut Vec<u8>) -> Outcome<()> {
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err("a body is too long".into());
    }
    body.resize(length, 0);
    reader.read_exact(body).await?;
    Ok(())
}

fn append(out: &mut Vec<u8>, body: &[u8]) -> Outcome<()> {
    out.extend(u32::try_from(body.len())?.to_le_bytes());
    out.extend(body);
    Ok(())
}

/// Answers a stream's requests until the other side ends it.
///
/// The transport has what came in its own buffers; one more here would be the largest part of a stream that is only there.
pub(super) async fn answer(mut reader: impl AsyncRead + Unpin, mut writer: impl AsyncWrite + Unpin) -> Outcome<()> {
    let (mut head, mut body, mut out) = ([0; 5], Vec::new(), Vec::new());
    loop {
        match reader.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let [kind, length @ ..] = head;
        read_body(&mut reader, length, &mut body).await?;
        match kind {
            ECHO => append(&mut out, &body)?,
            NESTED => {
                let value: Nested = Codec::Postcard.decode(&body, None)?;
                body.clear();
                Codec::Postcard.encode(&value, &mut body)?;
                append(&mut out, &body)?;
            }
            ITEMS => {
                let (count, size): (u64, u32) = Codec::Postcard.decode(&body, None)?;
                // A stream as that of an application, not a loop that fills a buffer.
                let item = Bytes::from(vec![7; size as usize]);
                let mut items = stream::iter((0..count).map(move |_| item.clone()));
                while let Some(item) = items.next().await {
                    append(&mut out, &item)?;
                    if out.len() >= BATCH {
                        writer.write_all(&out).await?;
                        out.clear();
                    }
                }
            }
            _ => return Err("no such request".into()),
        }
        writer.write_all(&out).await?;
        writer.flush().await?;
        out.clear();
    }
}

/// A stream of one caller.
pub(super) struct Caller<R, W> {
    reader: BufReader<R>,
    writer: W,
    body: Vec<u8>,
    out: Vec<u8>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Caller<R, W> {
    pub(super) fn new(reader: R, writer: W) -> Self {
        Self { reader: BufReader::new(reader), writer, body: Vec::new(), out: Vec::new() }
    }

    async fn ask(&mut self, kind: u8, body: &[u8]) -> Outcome<()> {
        self.out.clear();
        self.out.push(kind);
        append(&mut self.out, body)?;
        self.writer.write_all(&self.out).await?;
        Ok(self.writer.flush().await?)
    }

    async fn read(&mut self) -> Outcome<()> {
        let mut length = [0; 4];
        self.reader.read_exact(&mut length).await?;
        read_body(&mut self.reader, length, &mut self.body).await
    }

    pub(super) async fn echo(&mut self, body: &Bytes, see: impl FnOnce(&[u8])) -> Outcome<()> {
        self.ask(ECHO, body).await?;
        self.read().await?;
        see(&self.body);
        Ok(())
    }

    pub(super) async fn nested(&mut self, value: &Nested) -> Outcome<Nested> {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        Codec::Postcard.encode(value, &mut body)?;
        self.ask(NESTED, &body).await?;
        self.body = body;
        self.read().await?;
        Ok(Codec::Postcard.decode(&self.body, None)?)
    }

    pub(super) async fn items(&mut self, count: u64, size: u32) -> Outcome<u64> {
        let mut wanted = Vec::new();
        Codec::Postcard.encode(&(count, size), &mut wanted)?;
        self.ask(ITEMS, &wanted).await?;
        let mut seen = 0;
        for _ in 0..count {
            self.read().await?;
            seen += u64::from(self.body.len() == size as usize);
        }
        Ok(seen)
    }
}
