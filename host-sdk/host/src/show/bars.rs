//! One bar for the running node, and a line for each that took its time.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::Painter;

/// Nodes that are faster leave no line.
const WORTH_A_LINE: Duration = Duration::from_millis(500);
const REDRAW: Duration = Duration::from_millis(200);
const WAITING: &str = "{spinner} {prefix}  {elapsed}  {msg}";
const COUNTING: &str = "{spinner} {prefix}  {bar:24} {pos}/{len}  {eta} left  {msg}";
/// For nodes that say themselves how long they will take.
const TOLD: &str = "{spinner} {prefix}  {bar:24} {msg}";

#[derive(Default)]
pub(super) struct Bars {
    current: Option<Current>,
}

struct Current {
    bar: ProgressBar,
    name: String,
    since: Instant,
    style: &'static str,
}

impl Current {
    fn style(&mut self, template: &'static str) {
        if self.style != template {
            self.style = template;
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style);
            }
        }
    }
}

impl Painter for Bars {
    fn begin(&mut self, name: &str) {
        let bar = ProgressBar::new(0).with_prefix(name.to_string());
        let mut current = Current { bar, name: name.to_string(), since: Instant::now(), style: "" };
        current.style(WAITING);
        current.bar.enable_steady_tick(REDRAW);
        self.current = Some(current);
    }

    fn progress(&mut self, value: u64, max: u64) {
        if let Some(current) = &mut self.current {
            // A node may begin another part of its work: a new count, a new estimate.
            if current.bar.length() != Some(max) || value < current.bar.position() {
                current.bar.set_length(max);
                current.bar.reset_eta();
            }
            let told = current.bar.message().contains("left");
            current.style(if told { TOLD } else { COUNTING });
            current.bar.set_position(value);
        }
    }

    fn status(&mut self, text: &str) {
        if let Some(current) = &mut self.current {
            current.bar.set_message(text.to_string());
        }
    }

    fn end(&mut self) {
        if let Some(current) = self.current.take() {
            current.bar.finish_and_clear();
            let took = current.since.elapsed();
            if took >= WORTH_A_LINE {
                eprintln!("{}  {:.1} s", current.name, took.as_secs_f64());
            }
        }
    }

    fn say(&mut self, line: &str) {
        match &self.current {
            Some(current) => current.bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }
}
