//! Figures of the engine for monitoring: taken by the engine thread, read by anyone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use menes_jetstream::engine::{AccountFigures, Application, Engine, Figures};
use menes_jetstream::ports::{LogStore, StateStore};

/// The engine at one moment.
#[derive(Clone, Debug, Default)]
pub struct StreamsStatus {
    /// Folder of the stores.
    pub store_dir: PathBuf,
    /// Totals.
    pub figures: Figures,
    /// Per account, by name.
    pub accounts: Vec<AccountFigures>,
    /// Why nothing is acknowledged any more.
    pub poisoned: Option<String>,
}

/// The latest figures.
#[derive(Debug)]
pub struct Status {
    latest: ArcSwap<StreamsStatus>,
}

impl Status {
    pub(crate) fn new(folder: &Path) -> Self {
        let status = StreamsStatus {
            store_dir: folder.to_owned(),
            ..StreamsStatus::default()
        };
        Self {
            latest: ArcSwap::from_pointee(status),
        }
    }

    /// The latest figures, at most a second old.
    #[must_use]
    pub fn load(&self) -> Arc<StreamsStatus> {
        self.latest.load_full()
    }

    pub(crate) fn update<L: LogStore, S: StateStore, A: Application>(
        &self,
        engine: &Engine<L, S, A>,
    ) {
        let store_dir = self.latest.load().store_dir.clone();
        let (figures, accounts) = engine.figures();
        let poisoned = engine.poisoned().map(ToString::to_string);
        self.latest.store(Arc::new(StreamsStatus {
            store_dir,
            figures,
            accounts,
            poisoned,
        }));
    }
}
