//! An upload on its way to the gRPC server: the pieces as they come, each as a message.
//!
//! Nothing is read before the server has room for it, so what an upload holds here is bounded: one piece, and what hyper has
//! read ahead of the client and is sending to the server, which is below 2 MiB together.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

use crate::envelope::Envelope;
use crate::problem::Problem;
use crate::sent::{Broken, Lent};

/// Bytes of a message at most.
const PIECE: usize = 256 * 1024;

/// Why an upload ends before its end.
#[derive(Debug)]
pub(crate) enum Cut {
    BrokeOff,
    Stalled,
}

impl Cut {
    pub(crate) fn problem(self, patience: Duration) -> Problem {
        match self {
            Self::BrokeOff => Problem::broke_off(),
            Self::Stalled => Problem::stalled(patience),
        }
    }
}

/// The body of a call to the gRPC server.
pub(crate) struct Relay {
    from: Lent,
    envelope: Envelope,
    /// What goes out next.
    ready: VecDeque<Bytes>,
    /// How long the client may send nothing while it is waited for, and until when that is.
    patience: Duration,
    until: Pin<Box<Sleep>>,
    waits: bool,
    /// Who is told why this ends early.
    cut: Option<oneshot::Sender<Cut>>,
}

impl Relay {
    /// The first message, and the pieces after it.
    pub(crate) fn new(
        first: Bytes,
        from: Lent,
        envelope: Envelope,
        patience: Duration,
    ) -> (Self, oneshot::Receiver<Cut>) {
        let (cut, told) = oneshot::channel();
        let ready = VecDeque::from([first]);
        let until = Box::pin(sleep(patience));
        (Self { from, envelope, ready, patience, until, waits: false, cut: Some(cut) }, told)
    }

    fn push(&mut self, mut data: Bytes) {
        self.waits &= data.is_empty();
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            self.ready.extend([self.envelope.front(piece.len()), piece]);
        }
    }

    /// Whether the client has sent nothing for too long.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.waits {
            self.waits = true;
            self.until.as_mut().reset(Instant::now() + self.patience);
        }
        self.until.as_mut().poll(context)
    }

    /// Ends the call so that the server sees it broken off, and not at its end: hyper resets the stream of a body that failed with
    /// INTERNAL_ERROR, which stays an error there. CANCEL would not.
    fn end(&mut self, why: Cut) -> Broken {
        if let Some(cut) = self.cut.take() {
            let _ = cut.send(why);
        }
        Broken
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let why = match Pin::new(&mut self.from).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.push(frame.into_data().unwrap_or_default());
                    continue;
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(_))) => Cut::BrokeOff,
                Poll::Pending if self.poll_patience(context).is_pending() => return Poll::Pending,
                Poll::Pending => Cut::Stalled,
            };
            return Poll::Ready(Some(Err(self.end(why))));
        }
    }
}
