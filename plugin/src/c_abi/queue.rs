//! What waits until the host asks for it: the newest progress, picture and status line, and all lines for the log.

use std::collections::VecDeque;

use vocable_host_sdk::abi::{Level, PreviewImage};

/// Something that happened in a job.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    Progress { step: u64, total: u64, picture: Option<PreviewImage> },
    Status(String),
    Log(Level, String),
    Done,
}

/// Events in order. What is newer takes the place of what it replaces, so that neither progress nor status can keep the other from its turn.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Event>);

impl Queue {
    /// Progress; the picture of the one that waits stays if there is no newer one.
    pub(super) fn progress(&mut self, step: u64, total: u64, picture: Option<&PreviewImage>) {
        let new = picture.cloned();
        for event in &mut self.0 {
            if let Event::Progress { picture, .. } = event {
                let picture = new.or(picture.take());
                *event = Event::Progress { step, total, picture };
                return;
            }
        }
        self.0.push_back(Event::Progress { step, total, picture: new });
    }

    pub(super) fn status(&mut self, text: &str) {
        match self.0.iter_mut().find(|event| matches!(event, Event::Status(_))) {
            Some(event) => *event = Event::Status(text.to_string()),
            None => self.0.push_back(Event::Status(text.to_string())),
        }
    }

    pub(super) fn log(&mut self, level: Level, text: &str) {
        self.0.push_back(Event::Log(level, text.to_string()));
    }

    pub(super) fn next(&mut self) -> Option<Event> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut Queue) -> Vec<Event> {
        std::iter::from_fn(|| queue.next()).collect()
    }

    #[test]
    fn only_the_newest_waits_but_for_the_log() {
        let mut queue = Queue::default();
        queue.log(Level::Info, "a");
        for step in 1..=3 {
            queue.progress(step, 9, None);
            queue.status(&step.to_string());
            queue.log(Level::Warn, "b");
        }
        let waiting = [
            Event::Log(Level::Info, "a".into()),
            Event::Progress { step: 3, total: 9, picture: None },
            Event::Status("3".into()),
            Event::Log(Level::Warn, "b".into()),
            Event::Log(Level::Warn, "b".into()),
            Event::Log(Level::Warn, "b".into()),
        ];
        assert_eq!(drain(&mut queue), waiting);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_picture_waits_for_its_turn_and_comes_once() {
        let picture = |grey: u8| PreviewImage::new(1, 1, vec![grey; 3]).unwrap();
        let mut queue = Queue::default();
        queue.progress(1, 9, Some(&picture(1)));
        queue.progress(2, 9, Some(&picture(2)));
        queue.progress(3, 9, None);
        assert_eq!(drain(&mut queue), [Event::Progress { step: 3, total: 9, picture: Some(picture(2)) }]);
        queue.progress(4, 9, None);
        assert_eq!(drain(&mut queue), [Event::Progress { step: 4, total: 9, picture: None }]);
    }

    #[test]
    fn nobody_starves_who_asks_for_one_at_a_time() {
        let mut queue = Queue::default();
        let mut seen = Vec::new();
        for step in 0..10 {
            queue.progress(step, 10, None);
            queue.status("");
            seen.extend(queue.next());
        }
        assert!(seen.iter().filter(|event| matches!(event, Event::Status(_))).count() >= 4, "{seen:?}");
    }
}
