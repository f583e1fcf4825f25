//! What the driver asks for on behalf of the application, and what it may look at.
//!
//! Calls take the same way as requests of the JetStream API and obey the same rules; their outcome
//! comes back as a [`Completion`](super::Completion) with the token of the call.

use super::deliver::MAX_REMOVED;
use super::{Application, Engine, Origin};
use crate::api::consumer_config::Endpoint;
use crate::api::{ApiError, request};
use crate::command::{Purge, StreamCommand};
use crate::consumer::{ConsumerConfig, ConsumerInfo};
use crate::ids::{AccountName, GroupId, StreamSeq};
use crate::ports::{LogStore, Outbox, StateStore, StoreErrorKind};
use crate::record::StoredMessage;
use crate::stream::{Filters, StreamConfig, StreamState};
use crate::time::Timestamp;

/// What the driver asks for on behalf of the application.
#[derive(Clone, Debug)]
pub enum InternalCall {
    /// Make a stream; one with the same configuration is success.
    CreateStream(Box<StreamConfig>),
    /// Remove a stream.
    DeleteStream {
        /// Its name.
        name: String,
        /// Keep it, and succeed, if a message was ever stored in it.
        only_if_unused: bool,
    },
    /// Make a consumer or change one.
    CreateConsumer {
        /// Name of the stream.
        stream: String,
        /// What it should be.
        config: Box<ConsumerConfig>,
    },
    /// Remove a consumer.
    DeleteConsumer {
        /// Name of the stream.
        stream: String,
        /// Name of the consumer.
        consumer: String,
    },
    /// Change a stream.
    UpdateStream(Box<StreamConfig>),
    /// Remove messages of a stream.
    Purge {
        /// Name of the stream.
        stream: String,
        /// Which messages.
        purge: Purge,
    },
    /// Remove one message of a stream.
    DeleteMessage {
        /// Name of the stream.
        stream: String,
        /// Which message.
        seq: StreamSeq,
    },
    /// Let a consumer begin again at a sequence.
    ResetConsumer {
        /// Name of the stream.
        stream: String,
        /// Name of the consumer.
        consumer: String,
        /// The next message it sees.
        start: StreamSeq,
    },
    /// Stop handing out until this time; zero goes on at once.
    PauseConsumer {
        /// Name of the stream.
        stream: String,
        /// Name of the consumer.
        consumer: String,
        /// Until when.
        until: Timestamp,
    },
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    fn propose_for(
        &mut self,
        account: &AccountName,
        stream: &str,
        command: StreamCommand,
        origin: Origin,
    ) -> Result<(), ApiError> {
        let (group, _) = self.stream_config(account, stream)?;
        self.propose_stream(group, command, origin);
        Ok(())
    }

    /// Up to `limit` messages of a stream from a sequence on, only those on a subject that matches
    /// `filter` if there is one. Damaged messages are passed over.
    ///
    /// # Errors
    /// 10059, or what reading gave.
    pub fn messages(
        &mut self,
        account: &AccountName,
        stream: &str,
        filter: Option<&str>,
        from: StreamSeq,
        limit: usize,
    ) -> Result<Vec<StoredMessage>, ApiError> {
        let (group, _) = self.stream_config(account, stream)?;
        let filters = filter.map_or_else(Filters::all, |filter| Filters::new([filter]));
        self.with_view(group, |target, view| {
            let mut found = Vec::new();
            let mut from = from;
            while found.len() < limit
                && let Some(seq) = target.stream.next_sequence(from, &filters, view)?
            {
                match target.stream.message(seq, view) {
                    Ok(message) => found.extend(message),
                    Err(error) if error.kind == StoreErrorKind::Corrupt => {
                        tracing::warn!("message {seq} of {stream} cannot be read: {error}");
                    }
                    Err(error) => return Err(error),
                }
                from = seq.next();
            }
            Ok(found)
        })
    }

    /// The first sequence stored at or after a time, or the one after the last.
    ///
    /// # Errors
    /// 10059, or what reading gave.
    pub fn seq_at_time(
        &mut self,
        account: &AccountName,
        stream: &str,
        time: Timestamp,
    ) -> Result<StreamSeq, ApiError> {
        let (group, _) = self.stream_config(account, stream)?;
        self.with_view(group, |target, view| {
            let found = target.stream.seq_at_time(time, view)?;
            Ok(found.unwrap_or_else(|| target.stream.last_seq().next()))
        })
    }

    /// How a consumer stands.
    ///
    /// # Errors
    /// 10059, 10014, or what reading gave.
    pub fn consumer_state(
        &mut self,
        account: &AccountName,
        stream: &str,
        consumer: &str,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Result<ConsumerInfo, ApiError> {
        self.stream_config(account, stream)?;
        let (group, id) = self
            .find(account, stream, consumer)
            .ok_or_else(ApiError::consumer_not_found)?;
        self.consumer_info(group, id, now, out)
    }

    /// The configuration of a stream, if it exists.
    #[must_use]
    pub fn config_of(&self, account: &AccountName, stream: &str) -> Option<&StreamConfig> {
        self.stream_config(account, stream)
            .ok()
            .map(|(_, config)| config)
    }

    /// Names of an account's streams, sorted.
    pub fn stream_names(&self, account: &AccountName) -> impl Iterator<Item = &str> {
        self.meta.streams(account).map(|(name, _)| name)
    }

    /// The name of the stream behind a group, if it exists.
    #[must_use]
    pub fn name_of(&self, group: GroupId) -> Option<&str> {
        Some(self.groups.get(&group)?.stream.name())
    }

    /// The group of a stream, if it exists.
    #[must_use]
    pub fn group_of(&self, account: &AccountName, stream: &str) -> Option<GroupId> {
        self.meta.group(account, stream)
    }

    /// A call of the application; its outcome comes as a [`Completion`](super::Completion) with `token`.
    pub fn call(
        &mut self,
        account: &AccountName,
        call: InternalCall,
        token: u64,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let origin = Origin::Internal(token);
        let result = match call {
            InternalCall::CreateStream(config) => {
                let name = config.name.clone();
                let request = request::StreamRequest {
                    config: *config,
                    pedantic: false,
                };
                self.propose_create_stream(account, &name, request, origin.clone(), now)
            }
            InternalCall::DeleteStream {
                name,
                only_if_unused,
            } => self.propose_delete_stream(account, &name, only_if_unused, origin.clone()),
            InternalCall::CreateConsumer { stream, config } => {
                let name = config.durable_name.as_ref().or(config.name.as_ref());
                let name = name.cloned().unwrap_or_default();
                let request = request::ConsumerRequest {
                    stream_name: stream.clone(),
                    config: *config,
                    action: request::Action::default(),
                    pedantic: false,
                };
                let endpoint = Endpoint::Named {
                    consumer: &name,
                    filter: None,
                };
                self.propose_create_consumer(
                    account,
                    &stream,
                    endpoint,
                    request,
                    origin.clone(),
                    now,
                    out,
                )
            }
            InternalCall::DeleteConsumer { stream, consumer } => {
                self.propose_delete_consumer(account, &stream, &consumer, origin.clone())
            }
            InternalCall::UpdateStream(config) => {
                let name = config.name.clone();
                let request = request::StreamRequest {
                    config: *config,
                    pedantic: false,
                };
                self.propose_update_stream(account, &name, request, origin.clone(), now)
            }
            InternalCall::Purge { stream, mut purge } => {
                purge.most = Some(MAX_REMOVED);
                let command = StreamCommand::Purge(purge);
                self.propose_for(account, &stream, command, origin.clone())
            }
            InternalCall::DeleteMessage { stream, seq } => {
                let command = StreamCommand::DeleteMessage { seq };
                self.propose_for(account, &stream, command, origin.clone())
            }
            InternalCall::ResetConsumer {
                stream,
                consumer: name,
                start,
            } => {
                let command = StreamCommand::ResetConsumer {
                    name,
                    start: Some(start),
                };
                self.propose_for(account, &stream, command, origin.clone())
            }
            InternalCall::PauseConsumer {
                stream,
                consumer,
                until,
            } => {
                let name = consumer;
                let command = StreamCommand::PauseConsumer { name, until };
                self.propose_for(account, &stream, command, origin.clone())
            }
        };
        if let Err(error) = result {
            self.answer(origin, Err(error), now, out);
        }
    }

    /// Whether there is a stream of this name.
    #[must_use]
    pub fn has_stream(&self, account: &AccountName, name: &str) -> bool {
        self.meta.group(account, name).is_some()
    }

    /// Whether the stream has a consumer of this name.
    #[must_use]
    pub fn has_consumer(&self, account: &AccountName, stream: &str, name: &str) -> bool {
        self.find(account, stream, name).is_some()
    }

    /// The counters of a stream, if it exists.
    ///
    /// # Errors
    /// 10059, or what reading it gave.
    pub fn stream_state(
        &mut self,
        account: &AccountName,
        name: &str,
    ) -> Result<StreamState, ApiError> {
        let (group, _) = self.stream_config(account, name)?;
        self.with_view(group, |target, view| target.stream.state(view))
    }
}
