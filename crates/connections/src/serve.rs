//! Accepts connections and serves them until the end.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::body::Paced;
use crate::io::Socket;
use crate::limits::Limits;
use crate::peer::{Peer, Verdict};
use crate::{Share, Shares, network};

/// How often a connection is looked at. What ends it is measured in seconds.
const LOOK: Duration = Duration::from_millis(500);

/// Serves each connection by what `make` makes of it, until `shutdown`; then lets calls finish, and cuts the rest. True where some had to be cut.
pub async fn serve<M, S, I, B>(
    listener: TcpListener,
    http: Builder<TokioExecutor>,
    limits: Limits,
    make: M,
    shutdown: impl Future<Output = ()>,
) -> bool
where
    M: Fn(&Peer, Socket) -> (S, I),
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send + 'static,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stop = CancellationToken::new();
    let door = Door {
        places: Arc::new(Semaphore::new(affordable(limits.connections))),
        limits: Arc::new(limits),
        of_network: Shares::default(),
        unread: Shares::default(),
    };
    // Dropping the set cuts what is left in it.
    let mut open = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let (stream, peer, place) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = open.join_next() => continue,
            accepted = door.accept(&listener) => match accepted {
                Some(accepted) => accepted,
                None => continue,
            },
        };
        let (inner, socket) = make(&peer, Socket::new(stream, peer.clone()));
        let inner = Arc::new(inner);
        let caller = peer.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (peer, at_work) = (caller.clone(), caller.begin_request());
            request.extensions_mut().insert(peer.clone());
            inner.call(request).map(move |reply| {
                let Ok(reply) = reply;
                Ok::<_, Infallible>(reply.map(|body| Paced::new(body, &peer, at_work)))
            })
        });
        let connection = http.serve_connection(TokioIo::new(socket), service).into_owned();
        let stop = stop.clone();
        open.spawn(async move {
            tokio::pin!(connection);
            let mut ends = false;
            let ended = loop {
                let look = sleep(LOOK);
                tokio::select! {
                    biased;
                    ended = &mut connection => break ended.map_or("broken", |()| "ended"),
                    () = stop.cancelled(), if !ends => {
                        ends = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    () = look => match peer.judge() {
                        Verdict::GoesOn => {}
                        Verdict::Idle if ends => {}
                        Verdict::Idle => {
                            ends = true;
                            connection.as_mut().graceful_shutdown();
                        }
                        Verdict::Cut(why) => break why,
                    },
                }
            };
            metrics::counter!("virtualstack_connections_closed_total", "why" => ended).increment(1);
            drop(place);
        });
    }
    drop(listener);
    stop.cancel();
    let rest = async { while open.join_next().await.is_some() {} };
    tokio::time::timeout(door.limits.drain, rest).await.is_err()
}

/// Who gets in.
struct Door {
    places: Arc<Semaphore>,
    limits: Arc<Limits>,
    of_network: Shares<IpAddr>,
    unread: Shares<IpAddr>,
}

impl Door {
    /// The next connection, if it may come in. When none can be had for now, as when descriptors run out, waits a little.
    async fn accept(&self, listener: &TcpListener) -> Option<(TcpStream, Peer, tokio::sync::OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                sleep(Duration::from_millis(100)).await;
                return None;
            }
        };
        let Ok(share) = self.share(address) else {
            metrics::counter!("virtualstack_connections_refused_total").increment(1);
            return None;
        };
        let _ = stream.set_nodelay(true);
        Some((stream, Peer::new(address, Arc::clone(&self.limits), share, self.unread.clone()), place))
    }

    fn share(&self, address: SocketAddr) -> Result<Option<Share<IpAddr>>, usize> {
        let ip = address.ip().to_canonical();
        if self.limits.exempt.iter().any(|exempt| exempt.contains(&ip)) {
            return Ok(None);
        }
        self.of_network.take([(network(ip), self.limits.per_network)]).map(Some)
    }
}

/// So many of the connections that are wished for as leave descriptors for the database and files: there are two ports.
fn affordable(wished: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // What most systems give by default is meant for programs that wait for few at once; more may be taken without asking.
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::debug!(%error, "the process may not open as many files as it could");
    }
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return wished };
    let affordable = usize::try_from(descriptors).unwrap_or(usize::MAX) / 5 * 2;
    if affordable < wished {
        tracing::warn!(wished, affordable, "the process may open too few files for as many connections");
    }
    wished.min(affordable)
}
