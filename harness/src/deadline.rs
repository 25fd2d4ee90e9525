//! Waiting for something to become true, with an end to the patience.
//!
//! Invariant: never waits past the deadline, and always looks once more at the end of it.

use std::thread;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_micros(500);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Calls `look` until it gives a value or `patience` is over; pauses grow from half a millisecond to 20.
pub fn until<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        let last = Instant::now() >= end;
        if let Some(found) = look() {
            return Some(found);
        }
        if last {
            return None;
        }
        thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::until;
    use std::time::Duration;

    #[test]
    fn looks_once_even_without_patience() {
        assert_eq!(until(Duration::ZERO, || Some(1)), Some(1));
    }

    #[test]
    fn gives_up_at_the_deadline() {
        assert_eq!(until(Duration::from_millis(5), || None::<()>), None);
    }
}
