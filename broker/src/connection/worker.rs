//! A thread that serves connections.
//!
//! Every worker runs a single-threaded runtime. A connection is given to one worker when it is
//! accepted and stays there: its reads, its parsing and its writes happen on that thread, with the
//! worker's read buffer and [`RouteBatch`]. What crosses threads are queued bytes and wakes.

use std::cell::{Cell, RefCell, RefMut};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};

use super::client::{Client, Endpoint, Transport};
use super::counters::Counters;
use super::limits::READ_BYTES;
use super::secure::{self, ClientDoor};
use super::websocket::{self, Upgrade};
use crate::config::options::WriteTimeout;
use crate::error::StartError;
use crate::routing::RouteBatch;
use crate::server::Shared;

/// What the connections of one thread have in common.
pub(crate) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    batch: RefCell<RouteBatch>,
    read_buffer: RefCell<Vec<u8>>,
    /// The deadline for writing, and the options it was taken from.
    write_deadline: Cell<(u64, Duration)>,
}

impl Worker {
    fn new(index: usize, shared: Arc<Shared>) -> Self {
        let counters = shared.add_counters();
        let batch = shared.route_batch(Some(index), Arc::clone(&counters));
        Self {
            index,
            write_deadline: Cell::new((
                shared.generation(),
                shared.options().timing.write_deadline,
            )),
            shared,
            counters,
            batch: RefCell::new(batch),
            read_buffer: RefCell::new(vec![0; READ_BYTES]),
        }
    }

    /// A connection that begins.
    pub(super) fn new_client(
        &self,
        transport: Transport,
        address: SocketAddr,
        listener: SocketAddr,
    ) -> Client {
        let endpoint = Endpoint {
            address,
            listener,
            transport,
            worker: self.index,
        };
        let max_pending = self.shared.options().limits.max_pending;
        Client::new(self.shared.next_client_id(), endpoint, max_pending)
    }

    /// Number among the workers, from 0.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The batch of this thread. Never held across an await.
    pub(super) fn batch(&self) -> RefMut<'_, RouteBatch> {
        self.batch.borrow_mut()
    }

    /// The buffer that connections read into. Never held across an await.
    pub(super) fn read_buffer(&self) -> RefMut<'_, Vec<u8>> {
        self.read_buffer.borrow_mut()
    }

    /// Takes an empty buffer back.
    pub(super) fn recycle(&self, buffer: Vec<u8>) {
        self.batch.borrow_mut().buffers().put(buffer);
    }

    /// Whether a socket that took nothing in time has as much time again.
    pub(super) fn retries_writes(&self) -> bool {
        self.shared.options().timing.write_timeout == WriteTimeout::Retry
    }

    pub(super) fn write_deadline(&self) -> Duration {
        let generation = self.shared.generation();
        let (known, deadline) = self.write_deadline.get();
        if known == generation {
            return deadline;
        }
        let deadline = self.shared.options().timing.write_deadline;
        self.write_deadline.set((generation, deadline));
        deadline
    }
}

/// What is spoken at a listener.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// NATS.
    Nats(Arc<ClientDoor>),
    /// NATS inside WebSocket frames.
    WebSocket(Arc<Upgrade>),
}

/// A connection on its way to a worker.
pub(crate) enum Accepted {
    /// A socket.
    Socket {
        socket: std::net::TcpStream,
        address: SocketAddr,
        listener: SocketAddr,
        door: Door,
    },
    /// A client inside the server: the address is that of whoever it acts for.
    Inside {
        stream: DuplexStream,
        address: SocketAddr,
        listener: SocketAddr,
    },
}

/// The way to a running worker. Dropping it lets the worker end once its connections have.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    sockets: UnboundedSender<Accepted>,
}

impl WorkerHandle {
    /// Gives the worker a connection. It is dropped if the worker has ended.
    pub(crate) fn accept(&self, accepted: Accepted) {
        // The worker ends only after the acceptors have: a socket lost here is a connection made
        // while the server stops.
        drop(self.sockets.send(accepted));
    }
}

/// Starts a worker. The receiver resolves when it has ended.
pub(crate) fn start(
    index: usize,
    shared: Arc<Shared>,
) -> Result<(WorkerHandle, oneshot::Receiver<()>), StartError> {
    let (sockets, incoming) = unbounded_channel();
    let (ended, wait) = oneshot::channel();
    let (started, starting) = mpsc::channel();
    let run = move || {
        // Made here: a local runtime stays on its thread.
        let runtime = match runtime(index, &shared) {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        drop(started.send(Ok(())));
        let worker = Rc::new(Worker::new(index, shared));
        runtime.block_on(serve(worker, incoming));
        drop(runtime);
        // Nobody waits if the server was dropped instead of shut down.
        let _ = ended.send(());
    };
    thread::Builder::new()
        .name(format!("menes-worker-{index}"))
        .spawn(run)
        .map_err(StartError::Worker)?;
    let outcome = starting.recv().map_err(io::Error::other);
    outcome
        .and_then(|outcome| outcome)
        .map_err(StartError::Worker)?;
    Ok((WorkerHandle { sockets }, wait))
}

/// A local runtime that says when it sleeps.
fn runtime(index: usize, shared: &Arc<Shared>) -> io::Result<LocalRuntime> {
    let (sleeps, wakes) = (Arc::clone(shared), Arc::clone(shared));
    Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || sleeps.inbox(index).set_asleep(true))
        .on_thread_unpark(move || wakes.inbox(index).set_asleep(false))
        .build_local(LocalOptions::default())
}

/// Takes connections until no more can come, then waits for those there are to end.
async fn serve(worker: Rc<Worker>, mut incoming: UnboundedReceiver<Accepted>) {
    let shared = Arc::clone(worker.shared());
    let index = worker.index();
    let inbox = tokio::task::spawn_local(async move { shared.inbox(index).serve().await });
    let settler = tokio::task::spawn_local(settle(Rc::clone(&worker)));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = incoming.recv() => match accepted {
                Some(accepted) => accept(&worker, accepted, &mut connections),
                None => break,
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
        }
    }
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
    worker.batch().hand_over();
    inbox.abort();
    settler.abort();
}

/// Sees to receivers on other threads whenever the connections of this one left some.
async fn settle(worker: Rc<Worker>) {
    poll_fn(|cx| {
        worker.batch().settle(cx.waker());
        Poll::<()>::Pending
    })
    .await;
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!("a connection failed: {error}");
    }
}

fn accept(worker: &Rc<Worker>, accepted: Accepted, connections: &mut JoinSet<()>) {
    let (socket, address, listener, door) = match accepted {
        Accepted::Socket {
            socket,
            address,
            listener,
            door,
        } => (socket, address, listener, door),
        Accepted::Inside {
            stream,
            address,
            listener,
        } => {
            let worker = Rc::clone(worker);
            connections.spawn_local(super::serve_inside(worker, stream, address, listener));
            return;
        }
    };
    let stream = socket
        .set_nonblocking(true)
        .and_then(|()| TcpStream::from_std(socket));
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => return tracing::error!("cannot take connection of {address}: {error}"),
    };
    let worker = Rc::clone(worker);
    match door {
        Door::Nats(door) if door.is_plain() => {
            connections.spawn_local(super::serve_tcp(worker, stream, address, listener))
        }
        Door::Nats(door) => {
            connections.spawn_local(secure::serve(worker, stream, door, address, listener))
        }
        Door::WebSocket(upgrade) => {
            connections.spawn_local(websocket::serve(worker, stream, upgrade, address, listener))
        }
    };
}
