//! A thread that serves connections.
//!
//! Every worker runs a single-threaded runtime. A connection is given to one worker when it is
//! accepted and stays there: its reads, its parsing and its writes happen on that thread, with the
//! worker's read buffer and [`RouteBatch`]. What crosses threads are queued bytes and wakes.

use std::cell::{RefCell, RefMut};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::client::Transport;
use super::counters::Counters;
use super::limits::READ_BYTES;
use super::websocket::{self, Upgrade};
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
}

impl Worker {
    fn new(index: usize, shared: Arc<Shared>) -> Self {
        let counters = shared.add_counters();
        let batch = shared.route_batch_with(Arc::clone(&counters));
        Self {
            index,
            shared,
            counters,
            batch: RefCell::new(batch),
            read_buffer: RefCell::new(vec![0; READ_BYTES]),
        }
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

    pub(super) fn write_deadline(&self) -> Duration {
        self.shared.options().timing.write_deadline
    }
}

/// What is spoken at a listener.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// NATS.
    Nats,
    /// NATS inside WebSocket frames.
    WebSocket(Arc<Upgrade>),
}

/// A socket on its way to a worker.
pub(crate) struct Accepted {
    pub(crate) socket: std::net::TcpStream,
    pub(crate) address: SocketAddr,
    pub(crate) listener: SocketAddr,
    pub(crate) door: Door,
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
    let runtime = Builder::new_current_thread()
        .enable_all()
        .event_interval(31)
        .build()
        .map_err(StartError::Worker)?;
    thread::Builder::new()
        .name(format!("menes-worker-{index}"))
        .spawn(move || {
            let worker = Rc::new(Worker::new(index, shared));
            let local = LocalSet::new();
            runtime.block_on(local.run_until(accept(worker, incoming)));
            // Connections that are still closing get their time.
            runtime.block_on(local);
            // Nobody waits if the server was dropped instead of shut down.
            let _ = ended.send(());
        })
        .map_err(StartError::Worker)?;
    Ok((WorkerHandle { sockets }, wait))
}

async fn accept(worker: Rc<Worker>, mut incoming: UnboundedReceiver<Accepted>) {
    while let Some(accepted) = incoming.recv().await {
        let Accepted {
            socket,
            address,
            listener,
            door,
        } = accepted;
        let stream = socket
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(socket));
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::error!("cannot take connection of {address}: {error}");
                continue;
            }
        };
        let worker = Rc::clone(&worker);
        match door {
            Door::Nats => tokio::task::spawn_local(async move {
                let (read, write) = stream.into_split();
                super::serve(worker, read, write, Transport::Nats, address, listener).await;
            }),
            Door::WebSocket(upgrade) => {
                let served = websocket::serve(worker, stream, upgrade, address, listener);
                tokio::task::spawn_local(served)
            }
        };
    }
}
