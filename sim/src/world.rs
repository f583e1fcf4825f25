//! One run: a server, its disk, its clients, and what must always hold.

use std::collections::{BTreeMap, VecDeque};

use menes_jetstream::engine::{ApiRequest, Change, Engine, Options};
use menes_jetstream::{AccountName, GroupId, Timestamp};

use crate::application::Tally;
use crate::backups::Backups;
use crate::disk::{SimDisk, SimLog, SimState, Space};
use crate::model::{Op, StreamModel};
use crate::mutant::Mutant;
use crate::random::Random;
use crate::side::Side;
use crate::wire::Wire;

const START: i64 = 1_800_000_000_000_000_000;
pub(crate) const MILLISECOND: i64 = 1_000_000;
pub(crate) const SECOND: i64 = 1_000 * MILLISECOND;

/// What a run is told to do.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Everything the run draws comes from this.
    pub seed: u64,
    /// Steps before the faults stop.
    pub steps: u64,
    /// A planted bug.
    pub mutant: Option<Mutant>,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Report {
    /// Publishes acknowledged.
    pub acked: u64,
    /// Commands answered.
    pub commands: u64,
    /// Crashes.
    pub crashes: u64,
    /// Crashes after a failed sync.
    pub failures: u64,
    /// Refusals of a full disk.
    pub refused: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Double acks answered.
    pub settled: u64,
    /// Streams that came back out of a backup.
    pub restored: u64,
    /// Hash of everything that happened, in order.
    pub trace: u64,
    /// The last events, oldest first.
    pub events: VecDeque<String>,
}

/// An invariant that did not hold.
#[derive(Debug)]
pub struct Violation {
    /// Which, and how.
    pub what: String,
    /// What the run had done by then.
    pub report: Box<Report>,
}

/// An operation that was sent and is not answered.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) op: Op,
    pub(crate) inbox: String,
}

/// A stream, or the place for one.
pub(crate) struct Slot {
    pub(crate) model: StreamModel,
    /// In the order in which the log has them.
    pub(crate) flight: VecDeque<Flight>,
    /// The engine's number for the stream, while it captures messages.
    pub(crate) group: Option<GroupId>,
    /// Message ids whose first attempt died in a crash, with their subjects.
    pub(crate) retry: Vec<(u64, String)>,
}

impl Slot {
    /// Whether a command about the stream or its consumers is under way.
    pub(crate) fn is_changing(&self) -> bool {
        let is_change = |flight: &Flight| {
            !matches!(
                flight.op,
                Op::Publish(_) | Op::Purge { .. } | Op::DeleteMessage(_)
            )
        };
        self.flight.iter().any(is_change)
    }
}

/// A delivery that may be acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) slot: usize,
    pub(crate) stream: u64,
    pub(crate) consumer: String,
    pub(crate) incarnation: u64,
    pub(crate) seq: u64,
    /// Where the ack goes.
    pub(crate) subject: String,
}

/// A pull request that waits.
#[derive(Clone, Debug)]
pub(crate) struct Pull {
    pub(crate) slot: usize,
    pub(crate) consumer: String,
    pub(crate) left: u64,
}

/// A run in progress.
pub struct World {
    pub(crate) settings: Settings,
    pub(crate) random: Random,
    pub(crate) now: Timestamp,
    pub(crate) disk: SimDisk,
    pub(crate) space: Space,
    pub(crate) may_fail: bool,
    pub(crate) options: Options,
    pub(crate) engine: Option<Engine<SimLog, SimState, Tally>>,
    pub(crate) wire: Wire,
    pub(crate) account: AccountName,
    pub(crate) slots: Vec<Slot>,
    /// Double acks that wait for their answer.
    pub(crate) acks: BTreeMap<String, Delivery>,
    pub(crate) pulls: BTreeMap<String, Pull>,
    /// Deliveries not acknowledged yet.
    pub(crate) open: Vec<Delivery>,
    /// Commands of the application: applied for sure, and sent.
    pub(crate) tally: Vec<u64>,
    pub(crate) tally_flight: VecDeque<u64>,
    pub(crate) next_number: u64,
    /// Streams that are not modelled.
    pub(crate) side: Side,
    /// A stream out to a backup and back.
    pub(crate) backups: Backups,
    pub(crate) report: Report,
}

impl World {
    /// Runs one seed to the end.
    ///
    /// # Errors
    /// The first invariant that did not hold.
    pub fn run(settings: Settings) -> Result<Report, Violation> {
        let mut world = Self::new(settings);
        match world.play() {
            Ok(()) => Ok(world.report),
            Err(what) => Err(Violation {
                what,
                report: Box::new(world.report),
            }),
        }
    }

    fn new(settings: Settings) -> Self {
        let mut random = Random::new(settings.seed);
        let slots = 1 + random.below(3);
        let segment_bytes = [2 << 10, 16 << 10, 64 << 10][random.below(3) as usize];
        let options = Options {
            cache_bytes: [0, 4 << 10, 64 << 20][random.below(3) as usize],
            max_entry_bytes: [200, 1 << 20][random.below(2) as usize],
            delivery_burst: [1, 16, 1024][random.below(3) as usize],
            ..Options::default()
        };
        Self {
            settings,
            random,
            now: Timestamp(START),
            disk: SimDisk::new(segment_bytes, settings.mutant),
            space: Space::Enough,
            may_fail: false,
            options,
            engine: None,
            wire: Wire::default(),
            account: AccountName::global(),
            slots: (0..slots)
                .map(|_| Slot {
                    model: StreamModel::new(),
                    flight: VecDeque::new(),
                    group: None,
                    retry: Vec::new(),
                })
                .collect(),
            acks: BTreeMap::new(),
            pulls: BTreeMap::new(),
            open: Vec::new(),
            tally: Vec::new(),
            tally_flight: VecDeque::new(),
            next_number: 1,
            side: Side::new(settings.seed),
            backups: Backups::new(settings.seed),
            report: Report::default(),
        }
    }

    fn play(&mut self) -> Result<(), String> {
        self.start()?;
        for slot in 0..self.slots.len() {
            self.create_stream(slot);
            self.settle_disk()?;
            self.create_consumer(slot);
            self.settle_disk()?;
        }
        if self.settings.seed.is_multiple_of(2) {
            self.make_side_streams()?;
        }
        for _ in 0..self.settings.steps {
            self.act_aside();
            self.act_on_backups()?;
            self.step()?;
        }
        self.heal()
    }

    pub(crate) fn note(&mut self, event: impl FnOnce() -> String) {
        let text = event();
        // FNV-1a over the text.
        let mut hash = self.report.trace ^ 0xcbf2_9ce4_8422_2325;
        for byte in text.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.report.trace = hash;
        if self.report.events.len() == 5000 {
            self.report.events.pop_front();
        }
        self.report.events.push_back(text);
    }

    pub(crate) fn start(&mut self) -> Result<(), String> {
        let (log, state) = self.disk.open();
        let options = Options {
            seed: self.random.draw(),
            ..self.options.clone()
        };
        let engine = Engine::open(log, state, Tally::default(), options, self.now)
            .map_err(|error| format!("the engine does not open: {error}"))?;
        self.engine = Some(engine);
        self.wire.links.clear();
        for slot in &mut self.slots {
            slot.group = None;
        }
        self.take_changes();
        Ok(())
    }

    fn take_changes(&mut self) {
        let Some(engine) = &mut self.engine else {
            return;
        };
        for change in engine.take_changes() {
            match change {
                Change::Capture {
                    group, subjects, ..
                } => {
                    let slot = subjects.first().and_then(|subject| {
                        let number = subject.strip_prefix('s')?.strip_suffix(".>")?;
                        number.parse::<usize>().ok()
                    });
                    if let Some(slot) = slot.and_then(|slot| self.slots.get_mut(slot)) {
                        slot.group = Some(group);
                    } else if let Some(subject) = subjects.first() {
                        self.side.captured(subject, group);
                    }
                }
                Change::Listen {
                    listener, subjects, ..
                } => {
                    let subjects = subjects.into_iter();
                    self.wire
                        .links
                        .extend(subjects.map(|subject| (subject, listener)));
                }
                Change::Unlisten { listener } => {
                    self.wire.links.retain(|_, other| *other != listener);
                }
                Change::Release { group, .. } => {
                    for slot in &mut self.slots {
                        if slot.group == Some(group) {
                            slot.group = None;
                        }
                    }
                }
            }
        }
    }

    /// A number that nothing else in the run has.
    pub(crate) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(crate) fn request(&mut self, subject: &str, reply: &str, payload: &str) {
        if let Some(engine) = &mut self.engine {
            let request = ApiRequest {
                account: &self.account,
                subject: subject.as_bytes(),
                reply: reply.as_bytes(),
                header: b"",
                payload: payload.as_bytes(),
                client: b"",
            };
            engine.request(request, self.now, &mut self.wire);
        }
    }

    /// A question, which is answered at once.
    pub(crate) fn ask(&mut self, subject: &str, payload: &str) -> Result<String, String> {
        let inbox = format!("ask.{}", self.number());
        self.request(subject, &inbox, payload);
        let at = self.wire.sent.iter().rposition(|sent| sent.target == inbox);
        let at = at.ok_or_else(|| format!("{subject} is not answered"))?;
        let sent = self.wire.sent.remove(at);
        Ok(sent.header + &sent.payload)
    }

    pub(crate) fn settle_disk(&mut self) -> Result<(), String> {
        for _ in 0..4 {
            self.turn()?;
            self.disk.begin_sync();
            self.disk.end_sync();
            self.turn()?;
            self.now = Timestamp(self.now.0 + MILLISECOND);
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.now = Timestamp(self.now.0 + (self.random.below(5_000_000) as i64));
        let slot = self.random.below(self.slots.len() as u64) as usize;
        match self.random.below(200) {
            0..=59 => self.publish(slot),
            60..=91 => self.turn()?,
            92..=113 => self.disk.begin_sync(),
            114..=131 => {
                self.disk.end_sync();
                self.turn()?;
            }
            132..=138 => self.disk.end_flush(),
            139..=154 => self.pull(slot),
            155..=170 => self.acknowledge(),
            171..=176 => {
                let wait = self.random.below(3 * SECOND as u64) as i64;
                self.now = Timestamp(self.now.0 + wait);
                self.turn()?;
            }
            177..=188 => self.change(slot),
            189 | 190 => self.toggle_listener(slot),
            191 => {
                let space = [Space::Enough, Space::Enough, Space::Low, Space::None];
                self.space = space[self.random.below(4) as usize];
                let space = self.space;
                self.note(|| format!("space: {space:?}"));
                self.disk.set_space(self.space);
            }
            192 | 193 => self.count(),
            194 if self.random.chance(50) => {
                self.note(|| "the next sync fails".to_owned());
                self.may_fail = true;
                self.disk.fail_next_sync();
            }
            195 | 196 => {
                if let Some(engine) = &mut self.engine {
                    engine.flush_state().map_err(|error| error.to_string())?;
                }
            }
            197 | 198 => self.crash()?,
            _ => self.turn()?,
        }
        Ok(())
    }

    /// Lets the engine do what it can, and the clients read what it sent.
    pub(crate) fn turn(&mut self) -> Result<(), String> {
        for _ in 0..200 {
            let Some(engine) = &mut self.engine else {
                return Ok(());
            };
            let more = engine.turn(self.now, &mut self.wire);
            engine.check();
            let failure = engine.poisoned().map(ToString::to_string);
            self.take_changes();
            if let Some(engine) = &mut self.engine {
                engine.send_link_requests(&mut self.wire);
            }
            self.receive()?;
            self.take_completions()?;
            if let Some(error) = failure {
                if !self.may_fail {
                    return Err(format!("the engine poisoned itself: {error}"));
                }
                self.report.failures += 1;
                return self.crash();
            }
            if !more && self.wire.sent.is_empty() {
                return Ok(());
            }
        }
        Err("the engine does not come to rest".to_owned())
    }

    /// Proposes a command of the application.
    fn count(&mut self) {
        let number = self.number();
        self.note(|| format!("count {number}"));
        self.tally_flight.push_back(number);
        if let Some(engine) = &mut self.engine {
            engine.propose_application(number.to_be_bytes().to_vec(), number);
        }
    }

    fn take_completions(&mut self) -> Result<(), String> {
        let Some(engine) = &mut self.engine else {
            return Ok(());
        };
        for completion in engine.take_completions() {
            let token = completion.token;
            match completion.result {
                Ok(()) => {
                    if self.tally_flight.pop_front() != Some(token) {
                        return Err(format!("command {token} is done before an earlier one"));
                    }
                    self.tally.push(token);
                    self.report.commands += 1;
                }
                Err(error) if error.err_code == 10047 && self.space == Space::None => {
                    self.tally_flight.retain(|other| *other != token);
                }
                // Unknown: it may be in the log.
                Err(error) if error.err_code == 10008 && self.may_fail => {}
                Err(error) => return Err(format!("command {token} is refused: {error}")),
            }
        }
        Ok(())
    }
}
