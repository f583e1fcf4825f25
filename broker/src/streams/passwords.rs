//! Passwords hashed and tokens made, away from the engine: hashing is slow on purpose.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use data_encoding::HEXLOWER;
use menes_stations::user::PasswordHash;
use menes_stations::{NewToken, Secret, StepError, StepResult, TaskId};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::driver::Alarm;
use crate::auth::password;

type Done = Arc<Mutex<Vec<(TaskId, StepResult)>>>;

/// The way to the thread that hashes, and back.
pub(crate) struct PasswordDesk {
    work: Sender<(TaskId, Secret)>,
    done: Done,
}

impl PasswordDesk {
    /// Starts the thread. It ends with the desk.
    pub(crate) fn new(alarm: Arc<Alarm>) -> Result<Self, std::io::Error> {
        let (work, todo) = mpsc::channel::<(TaskId, Secret)>();
        let done = Done::default();
        let finished = Arc::clone(&done);
        thread::Builder::new()
            .name("passwords".to_owned())
            .spawn(move || {
                for (task, secret) in todo {
                    finished.lock().push((task, hashed(&secret)));
                    alarm.ring();
                }
            })?;
        Ok(Self { work, done })
    }

    /// Lets a password be hashed; false when nobody does.
    pub(crate) fn hash(&self, task: TaskId, password: Secret) -> bool {
        self.work.send((task, password)).is_ok()
    }

    /// What is done.
    pub(crate) fn take_done(&self) -> Vec<(TaskId, StepResult)> {
        std::mem::take(&mut self.done.lock())
    }
}

fn hashed(secret: &Secret) -> StepResult {
    let hash = password::hash(secret.expose());
    let hash = hash.and_then(|text| PasswordHash::parse(&text).ok());
    hash.map_or_else(failed, StepResult::Hashed)
}

/// The result when no password can be hashed.
pub(crate) fn failed() -> StepResult {
    StepResult::Failed(StepError {
        err_code: 0,
        description: "the password could not be hashed".to_owned(),
    })
}

/// A token that nobody can guess.
pub(crate) fn new_token() -> StepResult {
    let text = password::random_token();
    let id = password::random_id();
    StepResult::Token(Box::new(NewToken {
        id,
        digest: HEXLOWER.encode(&Sha256::digest(text.as_bytes())),
        secret: Secret::new(text),
    }))
}
