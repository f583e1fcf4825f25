//! Bugs planted on purpose: a checker that misses one of them proves nothing.

use menes_jetstream::consumer::{Change, ConsumerEvent};

/// One way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A sync reports success and did nothing.
    SkipTheSync,
    /// Acknowledgements leave while the sync is still running.
    AckBeforeTheSync,
    /// The applied position is written apart from the rows.
    AppliedIndexInASecondWrite,
    /// The table of message ids is gone after a restart.
    ForgetDedupe,
    /// An ack moves the floor over messages that are not acknowledged.
    AckFloorOverUnacked,
    /// After a restart a stream that was being filled from a backup passes for a whole one.
    HalfARestore,
}

impl Mutant {
    /// Every planted bug.
    pub const ALL: [Self; 6] = [
        Self::SkipTheSync,
        Self::AckBeforeTheSync,
        Self::AppliedIndexInASecondWrite,
        Self::ForgetDedupe,
        Self::AckFloorOverUnacked,
        Self::HalfARestore,
    ];

    /// Name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SkipTheSync => "skip-the-sync",
            Self::AckBeforeTheSync => "ack-before-the-sync",
            Self::AppliedIndexInASecondWrite => "applied-index-in-a-second-write",
            Self::ForgetDedupe => "forget-dedupe",
            Self::AckFloorOverUnacked => "ack-floor-over-unacked",
            Self::HalfARestore => "half-a-restore",
        }
    }

    /// The mutant with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutant| mutant.name() == name)
    }

    /// An ack of one message as an ack of all up to it.
    pub(crate) fn ack_everything_below(event: ConsumerEvent) -> ConsumerEvent {
        match *event.change() {
            Change::Acked { stream_seq } => {
                ConsumerEvent::new(event.consumer(), Change::AckedAll { stream_seq })
            }
            _ => event,
        }
    }
}
