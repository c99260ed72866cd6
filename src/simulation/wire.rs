//! HTTP as an engine speaks it, over a byte stream in memory.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream,
};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::world::World;

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    /// Without the API version.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Value,
}

impl Request {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What comes back.
pub(super) enum Reply {
    Json(u16, Value),
    Bytes(Vec<u8>),
    /// Pieces until the sender goes, or the client.
    Stream(mpsc::UnboundedReceiver<Vec<u8>>),
    /// The connection breaks.
    Broken,
}

impl Reply {
    pub(super) fn message(status: u16, message: impl Into<String>) -> Self {
        Self::Json(status, json!({ "message": message.into() }))
    }
}

/// Serves one connection to the engine called `engine`.
pub(super) async fn serve(world: Arc<World>, engine: String, stream: DuplexStream) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = BufReader::new(reader);
    while let Some(request) = read(&mut reader).await {
        let is_head = request.method == "HEAD";
        let reply = tokio::select! {
            reply = super::api::answer(&world, &engine, request) => reply,
            () = closed(&mut reader) => return,
            () = world.breaks_off(&engine) => return,
        };
        let sent = match reply {
            Reply::Json(status, body) => {
                let body = if is_head || status == 204 {
                    Vec::new()
                } else {
                    body.to_string().into_bytes()
                };
                write(&mut writer, status, "application/json", &body).await
            }
            Reply::Bytes(body) => {
                write(&mut writer, 200, "application/vnd.docker.raw-stream", &body).await
            }
            Reply::Stream(pieces) => {
                tokio::select! {
                    sent = stream_out(&mut writer, pieces) => sent,
                    () = closed(&mut reader) => return,
                    () = world.breaks_off(&engine) => return,
                }
            }
            Reply::Broken => return,
        };
        if sent.is_none() {
            return;
        }
    }
}

/// Waits until the client goes away.
async fn closed(reader: &mut BufReader<ReadHalf<DuplexStream>>) {
    if !matches!(reader.fill_buf().await, Ok(bytes) if bytes.is_empty()) {
        // The next request waits for its turn.
        std::future::pending::<()>().await;
    }
}

async fn read(reader: &mut BufReader<ReadHalf<DuplexStream>>) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut is_chunked) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await.ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        is_chunked |= line.starts_with("transfer-encoding:");
    }
    let mut body = Vec::new();
    if is_chunked {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).await.ok()?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).await.ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else {
        body = vec![0; length];
        reader.read_exact(&mut body).await.ok()?;
    }
    let url = reqwest::Url::parse(&format!("http://engine{target}")).ok()?;
    let path = decoded(url.path());
    let path = match path.strip_prefix("/v1.") {
        Some(rest) => rest.split_once('/').map(|(_, rest)| format!("/{rest}"))?,
        None => path,
    };
    let query = url.query_pairs().into_owned().collect();
    Some(Request { method, path, query, body: serde_json::from_slice(&body).unwrap_or_default() })
}

fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn write(
    writer: &mut WriteHalf<DuplexStream>,
    status: u16,
    media_type: &str,
    body: &[u8],
) -> Option<()> {
    let head = format!(
        "HTTP/1.1 {status} X\r\napi-version: 1.41\r\ncontent-type: {media_type}\r\n{}\r\n",
        if status == 204 || status == 304 {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        }
    );
    writer.write_all(head.as_bytes()).await.ok()?;
    writer.write_all(body).await.ok()?;
    writer.flush().await.ok()
}

async fn stream_out(
    writer: &mut WriteHalf<DuplexStream>,
    mut pieces: mpsc::UnboundedReceiver<Vec<u8>>,
) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\napi-version: 1.41\r\ncontent-type: application/json\r\n\
        transfer-encoding: chunked\r\n\r\n";
    writer.write_all(head.as_bytes()).await.ok()?;
    writer.flush().await.ok()?;
    while let Some(piece) = pieces.recv().await {
        writer.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.ok()?;
        writer.write_all(&piece).await.ok()?;
        writer.write_all(b"\r\n").await.ok()?;
        writer.flush().await.ok()?;
    }
    writer.write_all(b"0\r\n\r\n").await.ok()?;
    writer.flush().await.ok()
}
