//! Makes a sequence smaller that shows a difference.

use super::generate::Sequence;

/// Tries to leave out steps and operations while `differs` holds; gives the smallest found.
pub fn shrink(sequence: &Sequence, mut differs: impl FnMut(&Sequence) -> bool) -> Sequence {
    let mut best = sequence.clone();
    let mut attempts = 150_usize;
    loop {
        let before = best.size();
        // From the end: what comes behind the difference goes first.
        let mut at = best.steps.len();
        while at > 0 && attempts > 0 {
            at -= 1;
            let mut less = best.clone();
            less.steps.remove(at);
            attempts -= 1;
            if differs(&less) {
                best = less;
            }
        }
        for step in (0..best.steps.len()).rev() {
            for op in (0..best.steps[step].ops.len()).rev() {
                if attempts == 0 || best.steps[step].ops.len() < 2 {
                    break;
                }
                let mut less = best.clone();
                less.steps[step].remove(op);
                attempts -= 1;
                if differs(&less) {
                    best = less;
                }
            }
        }
        if best.size() == before || attempts == 0 {
            return best;
        }
    }
}
