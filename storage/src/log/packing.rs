//! Payloads of entries that are kept in less room: one S2 block each.
//!
//! An entry is what one stream gathered in a turn, so the more messages come at once, the better
//! they compress. Where that saves too little, the payload stays as it is.

use bytes::Bytes;

use super::MAX_SEGMENT_BYTES;

/// Shorter payloads stay as they are.
const MIN_BYTES: usize = 64;
/// At least one part in so many has to be saved.
const MIN_SAVED: usize = 16;

/// The payload compressed; `None` when that is not worth it.
pub(super) fn pack(payload: &[u8]) -> Option<Bytes> {
    if payload.len() < MIN_BYTES {
        return None;
    }
    let packed = minlz::encode(payload);
    (packed.len() < payload.len() - payload.len() / MIN_SAVED).then(|| packed.into())
}

/// The payload that was compressed; `None` for anything that is not one, and for what would take
/// more room than a segment has.
pub(super) fn unpack(packed: &[u8]) -> Option<Bytes> {
    let (len, _) = minlz::decode_len(packed).ok()?;
    if len > MAX_SEGMENT_BYTES as usize {
        return None;
    }
    let payload = minlz::decode(packed).ok()?;
    (payload.len() == len).then(|| payload.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_repeats_takes_less_room_and_what_does_not_stays() {
        let repeats = b"{\"order\": 17, \"state\": \"sent\"}".repeat(30);
        let packed = pack(&repeats).expect("it saves a lot");
        assert!(packed.len() * 5 < repeats.len(), "{}", packed.len());
        assert_eq!(unpack(&packed).expect("sound"), repeats);
        let mut random = super::super::faults::Random(1);
        let noise: Vec<u8> = (0..1000).map(|_| random.next() as u8).collect();
        assert_eq!(pack(&noise), None);
        assert_eq!(pack(b"short short short"), None);
    }

    #[test]
    fn a_length_beyond_any_segment_is_refused_without_taking_the_room() {
        // A block that says it holds 4 GiB less one.
        assert_eq!(unpack(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked_and_nothing_panics(
            words in prop::collection::vec(0_u8..20, 0..2000),
            cut in any::<usize>(),
            flip in any::<usize>(),
        ) {
            if let Some(packed) = pack(&words) {
                prop_assert_eq!(unpack(&packed).expect("sound"), &words[..]);
                let mut bad = packed.to_vec();
                let at = flip % (bad.len() * 8);
                bad[at / 8] ^= 1 << (at % 8);
                drop(unpack(&bad));
                drop(unpack(&packed[..cut % packed.len()]));
            }
            drop(unpack(&words));
        }
    }
}
