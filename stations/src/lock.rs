//! Which task may touch which station and group now.
//!
//! A task asks for all it needs at once and waits its turn at each; since all tasks line up in the
//! same order, none waits for one that waits for it. Tasks that only register share a station.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use menes_jetstream::AccountName;

use crate::name::{GroupName, SchemaName, StationName};
use crate::stations::TaskId;

/// What a task takes hold of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LockKey {
    pub(crate) account: AccountName,
    pub(crate) name: LockName,
}

/// A thing that can be held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LockName {
    Station(StationName),
    Group(StationName, GroupName),
    Schema(SchemaName),
    /// The users of the account, and the tenant itself.
    Users,
}

/// Whether others may hold it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Shared,
    Exclusive,
}

#[derive(Debug, Default)]
struct Lock {
    holders: BTreeSet<TaskId>,
    exclusive: bool,
    waiting: VecDeque<(TaskId, Hold)>,
}

impl Lock {
    fn admits(&self, hold: Hold) -> bool {
        self.holders.is_empty() || (hold == Hold::Shared && !self.exclusive)
    }

    fn admit(&mut self, task: TaskId, hold: Hold) {
        self.holders.insert(task);
        self.exclusive = hold == Hold::Exclusive;
    }
}

/// All locks that are held.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    locks: BTreeMap<LockKey, Lock>,
    /// How many locks each waiting task still lacks.
    lacking: BTreeMap<TaskId, usize>,
}

impl Locks {
    /// Lines `task` up for all of `keys`, each named once. True when it holds them all already.
    pub(crate) fn acquire(&mut self, task: TaskId, keys: &[(LockKey, Hold)]) -> bool {
        let mut lacking = 0;
        for (key, hold) in keys {
            let lock = self.locks.entry(key.clone()).or_default();
            if lock.waiting.is_empty() && lock.admits(*hold) {
                lock.admit(task, *hold);
            } else {
                lock.waiting.push_back((task, *hold));
                lacking += 1;
            }
        }
        if lacking > 0 {
            self.lacking.insert(task, lacking);
        }
        lacking == 0
    }

    /// Gives up the locks of a task that held them all; returns the tasks that now hold theirs.
    pub(crate) fn release(&mut self, task: TaskId, keys: &[(LockKey, Hold)]) -> Vec<TaskId> {
        let mut complete = Vec::new();
        for (key, _) in keys {
            let Some(lock) = self.locks.get_mut(key) else {
                continue;
            };
            lock.holders.remove(&task);
            while let Some(&(next, hold)) = lock.waiting.front()
                && lock.admits(hold)
            {
                lock.waiting.pop_front();
                lock.admit(next, hold);
                if let Some(lacking) = self.lacking.get_mut(&next) {
                    *lacking -= 1;
                    if *lacking == 0 {
                        self.lacking.remove(&next);
                        complete.push(next);
                    }
                }
            }
            if lock.holders.is_empty() {
                self.locks.remove(key);
            }
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(station: &str) -> LockKey {
        LockKey {
            account: AccountName::global(),
            name: LockName::Station(StationName::parse(station).expect("a good name")),
        }
    }

    #[test]
    fn readers_share_and_a_writer_waits_for_them_but_not_for_later_ones() {
        let mut locks = Locks::default();
        let shared = [(key("s"), Hold::Shared)];
        let exclusive = [(key("s"), Hold::Exclusive)];
        assert!(locks.acquire(TaskId(1), &shared));
        assert!(locks.acquire(TaskId(2), &shared));
        assert!(!locks.acquire(TaskId(3), &exclusive));
        assert!(!locks.acquire(TaskId(4), &shared));
        assert!(!locks.acquire(TaskId(5), &shared));
        assert_eq!(locks.release(TaskId(1), &shared), []);
        assert_eq!(locks.release(TaskId(2), &shared), [TaskId(3)]);
        assert_eq!(locks.release(TaskId(3), &exclusive), [TaskId(4), TaskId(5)]);
        assert_eq!(locks.release(TaskId(5), &shared), []);
        assert_eq!(locks.release(TaskId(4), &shared), []);
        assert!(locks.locks.is_empty() && locks.lacking.is_empty());
    }

    #[test]
    fn a_task_runs_when_it_holds_everything() {
        let mut locks = Locks::default();
        let (a, b) = ([(key("a"), Hold::Exclusive)], [(key("b"), Hold::Exclusive)]);
        let both = [a[0].clone(), b[0].clone()];
        assert!(locks.acquire(TaskId(1), &a));
        assert!(locks.acquire(TaskId(2), &b));
        assert!(!locks.acquire(TaskId(3), &both));
        assert!(!locks.acquire(TaskId(4), &a));
        assert_eq!(locks.release(TaskId(1), &a), []);
        assert_eq!(locks.release(TaskId(2), &b), [TaskId(3)]);
        assert_eq!(locks.release(TaskId(3), &both), [TaskId(4)]);
    }
}
