//! Plain lines, for files and pipes: not many, but enough to see that a run lives.

use std::time::{Duration, Instant};

use super::Painter;

/// Lines are at least so far apart.
const SHORTEST: Duration = Duration::from_secs(2);
/// After so long there is a line even if little happened.
const LONGEST: Duration = Duration::from_secs(30);
/// Nodes that are faster leave no line.
const WORTH_A_LINE: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct Lines {
    name: String,
    text: String,
    since: Option<Instant>,
    pace: Pace,
    /// When the node last wrote into the log: it then says itself how far it is.
    logged: Option<Instant>,
}

/// When the next line is due.
#[derive(Default)]
struct Pace {
    last: Option<Instant>,
    tenth: u64,
}

impl Pace {
    /// Whether a line is due at `value` of `max`: another tenth is done, or nothing was said for long.
    fn is_due(&mut self, value: u64, max: u64, now: Instant) -> bool {
        let tenth = value.saturating_mul(10).checked_div(max).unwrap_or(0);
        let waited = self.last.map_or(Duration::ZERO, |last| now.duration_since(last));
        let due = (tenth != self.tenth && waited >= SHORTEST) || waited >= LONGEST;
        if due || self.last.is_none() {
            (self.last, self.tenth) = (Some(now), tenth);
        }
        due
    }
}

impl Painter for Lines {
    fn begin(&mut self, name: &str) {
        let now = Instant::now();
        *self = Self { name: name.to_string(), since: Some(now), ..Self::default() };
        self.pace.last = Some(now);
    }

    fn progress(&mut self, value: u64, max: u64) {
        let now = Instant::now();
        let logs = self.logged.is_some_and(|logged| now.duration_since(logged) < LONGEST);
        if logs || !self.pace.is_due(value, max, now) {
            return;
        }
        if self.text.contains("left") {
            eprintln!("{}: {}", self.name, self.text);
        } else {
            let elapsed = self.since.map_or(0.0, |since| since.elapsed().as_secs_f64());
            let left = elapsed * max.saturating_sub(value) as f64 / value.max(1) as f64;
            eprintln!("{}: {value} of {max}, {left:.0} s left {}", self.name, self.text);
        }
    }

    fn status(&mut self, text: &str) {
        self.text = text.to_string();
    }

    fn end(&mut self) {
        if let Some(took) = self.since.take().map(|since| since.elapsed())
            && took >= WORTH_A_LINE
        {
            eprintln!("{}: {:.1} s", self.name, took.as_secs_f64());
        }
    }

    fn say(&mut self, line: &str) {
        let now = Some(Instant::now());
        (self.pace.last, self.logged) = (now, now);
        eprintln!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_few() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut pace = Pace { last: Some(start), tenth: 0 };
        // A run of 20 s and 200 steps: at most a line every two seconds.
        let lines = (1..=200).filter(|step| pace.is_due(*step, 200, at(*step as f64 / 10.0))).count();
        assert!((8..=10).contains(&lines), "{lines}");
        // A slow one: a line every thirty seconds.
        let mut pace = Pace { last: Some(start), tenth: 0 };
        let lines = (1..=300).filter(|step| pace.is_due(*step, 100_000, at(*step as f64))).count();
        assert_eq!(lines, 10);
    }
}
