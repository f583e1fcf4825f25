//! A state machine beside the streams that remembers every command it was given.

use menes_jetstream::engine::Application;
use menes_jetstream::ports::{StateStore, StoreError, StoreErrorKind, Table};
use menes_jetstream::txn::Txn;

const KEY: &[u8] = b"tally";

/// The numbers of the commands applied, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(pub Vec<u64>);

fn number(bytes: &[u8]) -> Result<u64, StoreError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| StoreError::new(StoreErrorKind::Corrupt, "not a number"))?;
    Ok(u64::from_be_bytes(bytes))
}

impl Application for Tally {
    fn load(&mut self, state: &dyn StateStore) -> Result<(), StoreError> {
        let row = state.get(Table::Application, KEY)?.unwrap_or_default();
        self.0 = row.chunks(8).map(number).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn apply(&mut self, command: &[u8], txn: &mut Txn<'_>) -> Result<(), StoreError> {
        self.0.push(number(command)?);
        let row = self.0.iter().flat_map(|n| n.to_be_bytes()).collect();
        txn.put(Table::Application, KEY.to_vec(), row);
        Ok(())
    }
}
