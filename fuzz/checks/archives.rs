//! Backups, and the files of another server's store: whatever they hold, they are read or refused,
//! and what was read lies in them.

use menes_jetstream::archive::{
    BlockReader, BlockRecord, EntryReader, OldArchive, Unpacker, block_index, consumer_position,
    stream_index,
};

/// The first byte chooses what the rest is.
pub(crate) fn archive(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 6 {
        0 => block(rest),
        1 => drop(block_index(rest)),
        2 => drop(stream_index(rest)),
        3 => drop(consumer_position(rest)),
        4 => {
            let mut archive = OldArchive::default();
            archive.push(rest);
            while let Ok(Some(_)) = archive.next_part() {}
        }
        _ => {
            let mut plain = Vec::new();
            drop(Unpacker::default().push(rest, &mut plain));
            let mut reader = EntryReader::default();
            reader.push(rest);
            while let Ok(Some(_)) = reader.next_entry() {}
        }
    }
}

fn block(bytes: &[u8]) {
    let mut held = 0;
    for record in BlockReader::new(bytes) {
        match record {
            Ok(BlockRecord::Message(message)) => {
                assert!(message.seq > 0);
                let (_, parts) = message.summed();
                held += parts.map(<[u8]>::len).iter().sum::<usize>();
            }
            Ok(BlockRecord::Removed(_)) | Err(_) => {}
        }
    }
    assert!(held <= bytes.len());
}
