//! Sends a part of a tenant's file to where the hypervisor wants it, as it comes.
//!
//! No more than a few pieces are in memory at any time. A source may be slow; a hypervisor that takes nothing for as long as a
//! call may take is given up. What was begun and is not whole is never ended as if it were.

use std::io::{self, Write as _};
use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures::{Stream, StreamExt as _, stream};
use reqwest::{Body, RequestBuilder, Response, StatusCode};
use sha1::{Digest as _, Sha1};
use tokio::sync::mpsc;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::super::import::{Attendance, ImageSource};
use super::super::{Fault, FaultClass};
use super::import_faults::{broken_disk, no_room, not_taken, source_ended, unreachable, upload_failed};
use super::soap::causes;
use super::tls::hex;

/// The largest piece that is sent at once.
const PIECE: usize = 256 << 10;
/// How much compressed data is undone at once; a thousand times as much may come out of it.
const MORSEL: usize = 4 << 10;
/// How long the last piece may take to be counted when the answer is there already.
const SETTLING: Duration = Duration::from_secs(1);
/// How much of an answer is worth reading.
const MAX_ANSWER: usize = 2 << 10;

/// What is sent.
pub(super) struct Cargo<'a> {
    pub(super) source: &'a dyn ImageSource,
    /// Where it stands in the source, in this order.
    pub(super) parts: &'a [Range<u64>],
    /// Whether gzip is around it, and then how much may come out of it at most.
    pub(super) inflates_to: Option<u64>,
}

/// What was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) bytes: u64,
    pub(super) sha1: String,
}

/// How much of a whole import was read.
pub(super) struct Meter<'a> {
    attendance: &'a Attendance,
    done: AtomicU64,
    total: u64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(attendance: &'a Attendance, total: u64) -> Self {
        attendance.report(0, total);
        Self { attendance, done: AtomicU64::new(0), total }
    }

    fn add(&self, bytes: usize) {
        let done = self.done.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        self.attendance.report(done, self.total);
    }
}

impl Cargo<'_> {
    /// The bytes that are read from the source.
    pub(super) fn source_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.end.saturating_sub(part.start)).sum()
    }

    /// Sends it all, and awaits the answer.
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        meter: &Meter<'_>,
        patience: Duration,
    ) -> Result<Sent, Fault> {
        let (pieces, given) = mpsc::channel(1);
        let mut request = request.body(Body::wrap_stream(body(given)));
        if self.inflates_to.is_none() {
            request = request.header(reqwest::header::CONTENT_LENGTH, self.source_bytes());
        }
        let mut answer = pin!(request.send());
        let mut fed = pin!(self.feed(&pieces, meter, patience));
        let sent = tokio::select! {
            sent = &mut fed => sent?,
            early = &mut answer => match early {
                // It knows from the length that nothing follows, and may be faster than we are.
                Ok(answer) if answer.status().is_success() => return self.content_early(timeout(SETTLING, fed).await),
                early => return Err(refusal(early).await),
            },
        };
        match timeout(patience, answer).await {
            Ok(Ok(answer)) if answer.status().is_success() => Ok(sent),
            Ok(answer) => Err(refusal(answer).await),
            Err(_) => Err(not_taken("no answer after the last byte")),
        }
    }

    /// What was sent when the answer came, if that was all.
    fn content_early(&self, fed: Result<Result<Sent, Fault>, Elapsed>) -> Result<Sent, Fault> {
        fed.unwrap_or_else(|_| {
            let detail = format_args!("an answer before the end of {} bytes", self.source_bytes());
            Err(upload_failed(detail))
        })
    }

    async fn feed(&self, pieces: &Pieces, meter: &Meter<'_>, patience: Duration) -> Result<Sent, Fault> {
        let mut outlet = Outlet { pieces, patience, hash: Sha1::new(), bytes: 0 };
        let mut inflater = self.inflates_to.map(Inflater::new);
        for part in self.parts {
            let mut stream = self.source.read(part.clone()).await?;
            let mut left = part.end.saturating_sub(part.start);
            while let Some(read) = stream.next().await {
                let read = read?;
                let more = || source_ended("it gave more than it was asked for");
                left = left.checked_sub(read.len() as u64).ok_or_else(more)?;
                let step = if inflater.is_some() { MORSEL } else { PIECE };
                for start in (0..read.len()).step_by(step) {
                    let morsel = read.slice(start..read.len().min(start + step));
                    let size = morsel.len();
                    let out = match &mut inflater {
                        Some(inflater) => inflater.push(&morsel)?,
                        None => morsel,
                    };
                    outlet.give(out).await?;
                    meter.add(size);
                }
            }
            if left > 0 {
                return Err(source_ended(format_args!("{left} bytes before the end of {part:?}")));
            }
        }
        if let Some(inflater) = inflater {
            outlet.give(inflater.finish()?).await?;
        }
        Ok(outlet.end().await)
    }
}

/// Where the body of a request takes its pieces from.
type Pieces = mpsc::Sender<Option<Bytes>>;

/// What goes out, measured.
struct Outlet<'a> {
    pieces: &'a Pieces,
    patience: Duration,
    hash: Sha1,
    bytes: u64,
}

impl Outlet<'_> {
    async fn give(&mut self, mut out: Bytes) -> Result<(), Fault> {
        while !out.is_empty() {
            let piece = out.split_to(out.len().min(PIECE));
            self.hash.update(&piece);
            self.bytes += piece.len() as u64;
            self.hand_over(piece).await?;
        }
        Ok(())
    }

    /// Where nobody takes any more, the answer says why.
    async fn hand_over(&self, piece: Bytes) -> Result<(), Fault> {
        match timeout(self.patience, self.pieces.send(Some(piece))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => match timeout(self.patience, std::future::pending()).await {
                Ok(never) => never,
                Err(_) => Err(not_taken("the connection takes no more, and there is no answer")),
            },
            Err(_) => Err(not_taken(format_args!("nothing was taken for {} seconds", self.patience.as_secs()))),
        }
    }

    async fn end(self) -> Sent {
        // Where the length was said, nobody waits for the end.
        let _ = timeout(self.patience, self.pieces.send(None)).await;
        Sent { bytes: self.bytes, sha1: hex(&self.hash.finalize()) }
    }
}

/// A body that ends where its end was said, and breaks off otherwise.
fn body(given: mpsc::Receiver<Option<Bytes>>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold(Some(given), |given| async move {
        let mut given = given?;
        match given.recv().await {
            Some(Some(piece)) => Some((Ok(piece), Some(given))),
            Some(None) => None,
            None => Some((Err(io::Error::other("given up half way")), None)),
        }
    })
}

/// What an answer means that is no success, or that came too early.
async fn refusal(answer: reqwest::Result<Response>) -> Fault {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) if error.is_connect() => return unreachable(causes(&error)),
        Err(error) => return upload_failed(causes(&error)),
    };
    let status = answer.status();
    let url = answer.url().host_str().unwrap_or_default().to_owned();
    let text = beginning(answer).await;
    let detail = format!("{url}: HTTP {status}: {text}");
    let text = text.to_lowercase();
    let full = ["no space", "enough space", "disk space", "disk full", "insufficient space"]
        .iter()
        .any(|words| text.contains(words));
    match status {
        StatusCode::INSUFFICIENT_STORAGE => no_room(detail),
        _ if status.is_server_error() && full => no_room(detail),
        StatusCode::FORBIDDEN => Fault::new(
            FaultClass::Permanent,
            "HYPERVISOR_PERMISSION_DENIED",
            "the provider's account on the hypervisor may not do this; ask the provider",
            detail,
        ),
        _ => upload_failed(detail),
    }
}

/// The first words of an answer.
async fn beginning(mut answer: Response) -> String {
    let mut text = Vec::new();
    while text.len() < MAX_ANSWER {
        match timeout(Duration::from_secs(2), answer.chunk()).await {
            Ok(Ok(Some(chunk))) => text.extend_from_slice(&chunk),
            _ => break,
        }
    }
    text.truncate(MAX_ANSWER);
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// Undoes gzip as it comes.
struct Inflater {
    decoder: MultiGzDecoder<Vec<u8>>,
    out: u64,
    most: u64,
}

impl Inflater {
    fn new(most: u64) -> Self {
        Self { decoder: MultiGzDecoder::new(Vec::new()), out: 0, most }
    }

    fn push(&mut self, compressed: &[u8]) -> Result<Bytes, Fault> {
        let pushed = self.decoder.write_all(compressed);
        self.taken(pushed)
    }

    /// Checks that this was the end; what was held back comes out.
    fn finish(mut self) -> Result<Bytes, Fault> {
        let finished = self.decoder.try_finish();
        self.taken(finished)
    }

    fn taken(&mut self, outcome: io::Result<()>) -> Result<Bytes, Fault> {
        outcome.map_err(|error| broken_disk(format_args!("gzip: {error}")))?;
        let out = std::mem::take(self.decoder.get_mut());
        self.out += out.len() as u64;
        if self.out > self.most {
            return Err(broken_disk(format_args!("more than {} bytes come out of gzip", self.most)));
        }
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use futures::stream::BoxStream;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::sync::CancellationToken;

    use super::super::config::Config;
    use super::super::soap::client;
    use super::super::tls::pinned;
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    /// Gives pieces, whatever it is asked for, and counts them.
    struct Repeated {
        piece: Bytes,
        count: usize,
        given: Arc<AtomicUsize>,
    }

    impl Repeated {
        fn new(piece: impl Into<Bytes>, count: usize) -> Self {
            Self { piece: piece.into(), count, given: Arc::default() }
        }

        fn len(&self) -> u64 {
            (self.piece.len() * self.count) as u64
        }
    }

    #[async_trait]
    impl ImageSource for Repeated {
        async fn read(&self, _: Range<u64>) -> Result<BoxStream<'static, Result<Bytes, Fault>>, Fault> {
            let (piece, given) = (self.piece.clone(), Arc::clone(&self.given));
            Ok(stream::iter(0..self.count)
                .map(move |_| {
                    given.fetch_add(piece.len(), Ordering::Relaxed);
                    Ok(piece.clone())
                })
                .boxed())
        }
    }

    /// Sends a source to a host that does what `host` does.
    async fn send<F: Future<Output = ()> + Send + 'static>(
        source: &Repeated,
        claimed: u64,
        inflates_to: Option<u64>,
        host: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> Result<Sent, Fault> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/nfc/1/disk-0.vmdk", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a visitor");
            host(stream).await;
        });
        let client = client(&Config::new(&url, "u"), pinned("00").expect("a thumbprint").0).expect("a client");
        let (attendance, _tasks) = Attendance::new(CancellationToken::new());
        let all = 0..claimed;
        let cargo = Cargo { source, parts: std::slice::from_ref(&all), inflates_to };
        cargo.send(client.post(url), &Meter::new(&attendance, claimed), PATIENCE).await
    }

    /// Reads until nothing more comes for a moment, and answers.
    async fn takes_all(mut stream: TcpStream) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(Ok(1..)) = timeout(PATIENCE / 5, stream.read(&mut buffer)).await {}
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    }

    /// Takes nothing, and says nothing.
    async fn takes_nothing(stream: TcpStream) {
        std::future::pending::<()>().await;
        drop(stream);
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("compressed");
        encoder.finish().expect("compressed")
    }

    #[tokio::test]
    async fn what_is_sent_is_measured() {
        let source = Repeated::new(vec![7; 300_000], 3);
        let sent = send(&source, source.len(), None, takes_all).await.expect("sent");
        assert_eq!((sent.bytes, sent.sha1), (900_000, hex(&Sha1::digest(vec![7; 900_000]))));
        let source = Repeated::new(gzip(&[7; 900_000]), 1);
        let sent = send(&source, source.len(), Some(900_000), takes_all).await.expect("sent");
        assert_eq!((sent.bytes, sent.sha1), (900_000, hex(&Sha1::digest(vec![7; 900_000]))));
    }

    #[tokio::test]
    async fn a_host_that_takes_nothing_is_given_up_and_little_is_read_for_it() {
        let source = Repeated::new(vec![7; 1 << 20], 1_000);
        let fault = send(&source, source.len(), None, takes_nothing).await.expect_err("given up");
        assert_eq!((fault.class, fault.reason), (FaultClass::Retry, "HYPERVISOR_UPLOAD_STALLED"));
        let given = source.given.load(Ordering::Relaxed);
        assert!(given < 100 << 20, "{given} bytes were read, and nobody took them");
    }

    #[tokio::test]
    async fn no_more_comes_out_of_gzip_than_was_said() {
        let source = Repeated::new(gzip(&vec![0; 8 << 20]), 1);
        let fault = send(&source, source.len(), Some(1 << 20), takes_all).await.expect_err("too much");
        assert_eq!((fault.class, fault.reason), (FaultClass::Invalid, "TEMPLATE_DISK_BROKEN"));
        assert!(fault.message.contains("1048576 bytes"), "{fault}");
        let mut cut = gzip(&[7; 100_000]);
        cut.truncate(cut.len() - 6);
        let source = Repeated::new(cut, 1);
        let fault = send(&source, source.len(), Some(1 << 20), takes_all).await.expect_err("cut off");
        assert_eq!(fault.reason, "TEMPLATE_DISK_BROKEN");
    }

    #[tokio::test]
    async fn a_source_gives_what_it_was_asked_for() {
        for (claimed, words) in [(300_001, "1 bytes before the end"), (299_999, "more than it was asked for")] {
            let source = Repeated::new(vec![7; 100_000], 3);
            let fault = send(&source, claimed, None, takes_all).await.expect_err("another size");
            assert_eq!((fault.class, fault.reason), (FaultClass::Retry, "IMAGE_UNREADABLE"));
            assert!(fault.detail.contains(words), "{fault}");
        }
    }
}
