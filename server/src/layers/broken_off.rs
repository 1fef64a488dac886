//! Bodies of requests that break off, told from those that come to their end.
//!
//! A client may reset its stream. hyper takes a reset by NO_ERROR for the end of the body, and tonic one by CANCEL for the end of
//! the messages: half of an upload would look like all of it. So both are made errors here that neither knows.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tonic::body::Body;

#[derive(Debug, thiserror::Error)]
#[error("the stream broke off: {0}")]
struct BrokeOff(String);

/// A request whose body ends only where its client says so.
pub(crate) fn tell(request: Request<Incoming>) -> Request<Body> {
    // Over HTTP/1.1 hyper itself makes an error of it.
    let tells_end = request.version() == Version::HTTP_2;
    request.map(|body| Body::new(Sent { body, tells_end }))
}

struct Sent {
    body: Incoming,
    /// Whether the body itself knows that it has come to its end.
    tells_end: bool,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(match frame {
            None if self.tells_end && !self.body.is_end_stream() => {
                Some(Err(BrokeOff("it was reset before its end".to_owned())))
            }
            frame => frame.map(|frame| frame.map_err(|error| BrokeOff(error.to_string()))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
