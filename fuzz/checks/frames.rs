//! What must hold for any bytes a WebSocket client sends.

use menes_ws::{Decoder, Limits, Violation};

const LIMITS: Limits = Limits {
    max_message_bytes: 4_096,
    spare_frames: 8,
};

/// Cutting the input changes neither payload nor control frames nor violation.
pub(crate) fn frames(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else {
        return;
    };
    let whole = drive(data, data.len());
    assert!(drive(data, data.len() * usize::from(first) / 256) == whole);
    assert!(whole.0.len() <= data.len());
}

type Decoded = (Vec<u8>, Vec<String>, Option<Violation>);

fn drive(data: &[u8], cut: usize) -> Decoded {
    let mut decoder = Decoder::new(LIMITS);
    let (mut payload, mut controls, mut end) = (Vec::new(), Vec::new(), None);
    for piece in [&data[..cut], &data[cut..]] {
        let mut piece = piece.to_vec();
        let (len, result) = decoder.decode(&mut piece, |control| {
            controls.push(format!("{control:?}"));
            Ok(())
        });
        payload.extend_from_slice(&piece[..len]);
        end = end.or_else(|| result.err());
    }
    (payload, controls, end)
}
