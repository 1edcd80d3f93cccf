//! A client of HTTP/2 that writes its frames by hand and so can break every rule, and says what it was told.

use std::collections::HashMap;
use std::sync::Arc;

use portico::runtime::task::{self, Task};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};
use tokio_rustls::client::TlsStream;

use crate::world::{Dial, PATIENCE};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113, 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags; an acknowledgement is the same bit as the end of a stream.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// What a setting is about, and what a GOAWAY says.
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const PROTOCOL_ERROR: u32 = 1;
pub const STREAM_CLOSED: u32 = 5;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A head as HPACK writes it without its tables: each field a literal, but for the scheme.
pub fn head(method: &str, host: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    const SCHEME_HTTPS: u8 = 0x87;
    const AUTHORITY: u8 = 1;
    const PATH: u8 = 4;
    const METHOD: u8 = 2;
    let mut block = vec![METHOD];
    literal(&mut block, method);
    block.push(SCHEME_HTTPS);
    for (name, value) in [(AUTHORITY, host), (PATH, path)] {
        block.push(name);
        literal(&mut block, value);
    }
    block.extend(self::fields(fields));
    block
}

/// Fields alone, as trailers are.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(&mut block, name);
        literal(&mut block, value);
    }
    block
}

/// A field that goes into the reader's table.
pub fn kept(name: &str, value: &str) -> Vec<u8> {
    const INCREMENTAL: u8 = 0x40;
    let mut block = vec![INCREMENTAL];
    literal(&mut block, name);
    literal(&mut block, value);
    block
}

fn literal(block: &mut Vec<u8>, text: &str) {
    const IN_ONE_BYTE: usize = 127;
    if text.len() < IN_ONE_BYTE {
        block.push(text.len() as u8);
    } else {
        block.push(IN_ONE_BYTE as u8);
        let mut rest = text.len() - IN_ONE_BYTE;
        while rest >= 128 {
            block.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        block.push(rest as u8);
    }
    block.extend(text.as_bytes());
}

pub fn settings(of: &[(u16, u32)]) -> Vec<u8> {
    let fields = of.iter().map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, &fields.collect::<Vec<_>>().concat())
}

pub fn reset(stream: u32) -> Vec<u8> {
    const CANCEL: u32 = 8;
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

pub fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// What a client does with what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Nothing is taken from the socket.
    Never,
    /// It is read and not answered.
    Silently,
    /// Pings are answered; windows are never opened.
    Answering,
}

/// What the server said so far.
#[derive(Debug, Default)]
pub struct Told {
    /// Code and debug text.
    pub goaway: Option<(u32, String)>,
    /// Frames by type.
    pub frames: HashMap<u8, usize>,
    /// Bytes of DATA.
    pub data: usize,
    /// Acknowledgements of the client's own SETTINGS and PING, by type.
    pub answers: HashMap<u8, usize>,
    /// The server has closed.
    pub ended: bool,
}

impl Told {
    pub fn count(&self, kind: u8) -> usize {
        self.frames.get(&kind).copied().unwrap_or_default()
    }

    pub fn answers_to(&self, kind: u8) -> usize {
        self.answers.get(&kind).copied().unwrap_or_default()
    }

    pub fn is_over(&self) -> bool {
        self.ended || self.goaway.is_some()
    }
}

type Writer = Arc<Mutex<WriteHalf<TlsStream<TcpStream>>>>;

/// One connection behind its preface.
pub struct Wire {
    writer: Writer,
    told: watch::Receiver<Told>,
    /// Of a connection that is never read.
    _unread: Option<ReadHalf<TlsStream<TcpStream>>>,
    _reader: Option<Task>,
}

impl Wire {
    pub async fn connect(dial: &Dial, reading: Reading, own: &[(u16, u32)]) -> Self {
        let stream = dial.tls(b"h2").await;
        stream.get_ref().0.set_nodelay(true).expect("a socket");
        let (read, write) = tokio::io::split(stream);
        let writer = Arc::new(Mutex::new(write));
        let (sender, told) = watch::channel(Told::default());
        let (unread, reader) = if reading == Reading::Never {
            (Some(read), None)
        } else {
            let answers = (reading == Reading::Answering).then(|| Arc::clone(&writer));
            (None, Some(task::spawn("wire", listen(read, sender, answers))))
        };
        let wire = Self { writer, told, _unread: unread, _reader: reader };
        assert!(wire.send(&[PREFACE, &settings(own)].concat()).await);
        wire
    }

    /// Whether these bytes could be written.
    pub async fn send(&self, bytes: &[u8]) -> bool {
        let mut writer = self.writer.lock().await;
        writer.write_all(bytes).await.is_ok() && writer.flush().await.is_ok()
    }

    /// Sends the bytes of each round until the server will have no more; yields how many it let come, at most `rounds`.
    pub async fn flood(&self, rounds: u32, mut bytes: impl FnMut(u32) -> Vec<u8>) -> u32 {
        for round in 0..rounds {
            if self.told.borrow().is_over() || !self.send(&bytes(round)).await {
                return round;
            }
        }
        rounds
    }

    /// Waits until the server has dealt with all that was sent.
    pub async fn settled(&self) -> bool {
        let pongs = self.told.borrow().answers_to(PING);
        if !self.send(&frame(PING, 0, 0, &[0; 8])).await {
            return false;
        }
        let told = self.when(|told| told.answers_to(PING) > pongs || told.is_over()).await;
        told.answers_to(PING) > pongs
    }

    /// What was said, once this holds.
    pub async fn when(&self, so: impl FnMut(&Told) -> bool) -> watch::Ref<'_, Told> {
        let mut told = self.told.clone();
        let result = tokio::time::timeout(PATIENCE, told.wait_for(so)).await.map(|told| told.is_ok());
        assert_eq!(result, Ok(true), "{:?}", *self.told.borrow());
        self.told.borrow()
    }

    /// Waits for the end of this connection, and checks that it is the one that floods get, where there was time to say so.
    pub async fn is_told_to_calm_down(&self) {
        let told = self.when(Told::is_over).await;
        if let Some((code, why)) = &told.goaway {
            assert_eq!(*code, ENHANCE_YOUR_CALM, "{why}");
        }
    }
}

async fn listen(mut read: ReadHalf<TlsStream<TcpStream>>, told: watch::Sender<Told>, answers: Option<Writer>) {
    while let Some((kind, flags, payload)) = next(&mut read).await {
        if let (Some(writer), PING, 0) = (&answers, kind, flags & ACK) {
            let _ = writer.lock().await.write_all(&frame(PING, ACK, 0, &payload)).await;
            let _ = writer.lock().await.flush().await;
        }
        told.send_modify(|told| {
            *told.frames.entry(kind).or_default() += 1;
            told.data += if kind == DATA { payload.len() } else { 0 };
            if matches!(kind, SETTINGS | PING) && flags & ACK != 0 {
                *told.answers.entry(kind).or_default() += 1;
            }
            if let (GOAWAY, Some(code)) = (kind, payload.get(4..8)) {
                let code = u32::from_be_bytes(code.try_into().expect("four"));
                told.goaway = Some((code, String::from_utf8_lossy(&payload[8..]).into_owned()));
            }
        });
    }
    told.send_modify(|told| told.ended = true);
    told.closed().await;
}

async fn next(read: &mut ReadHalf<TlsStream<TcpStream>>) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    read.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    read.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], payload))
}
