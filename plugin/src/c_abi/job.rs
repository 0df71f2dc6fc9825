//! Work on a thread of its own, that can be listened to, stopped and forgotten.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vocable_host_sdk::abi::{Host, NodeError, Outputs, catch_panic};

use super::host::{JobHost, Settings};
use super::queue::{Event, Queue};

/// A job as its host holds it. Dropping it stops the work and does not wait for it; results that nobody can take any more are let go by the work's thread.
pub struct VocableJob(Arc<Shared>);

/// What host and thread share.
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    cancelled: AtomicBool,
}

struct State {
    queue: Queue,
    outcome: Outcome,
}

enum Outcome {
    Working,
    Done(Outputs),
    Failed(NodeError),
    Taken,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to the events.
    pub(super) fn say(&self, what: impl FnOnce(&mut Queue)) {
        what(&mut self.lock().queue);
        self.changed.notify_all();
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn end(&self, outcome: Outcome) {
        self.lock().outcome = outcome;
        self.changed.notify_all();
    }
}

impl VocableJob {
    /// Starts `work`. All that it holds is let go before the job is done, if it keeps to that itself.
    pub(super) fn start(
        settings: Settings,
        work: impl FnOnce(&Settings, &dyn Host) -> Result<Outputs, NodeError> + Send + 'static,
    ) -> Result<Self, NodeError> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State { queue: Queue::default(), outcome: Outcome::Working }),
            changed: Condvar::new(),
            cancelled: AtomicBool::new(false),
        });
        let job = shared.clone();
        let body = move || {
            let host = JobHost { settings: &settings, job: Some(&job) };
            let outcome = match catch_panic("the job", || work(&settings, &host)) {
                Ok(outputs) => Outcome::Done(outputs),
                Err(error) => Outcome::Failed(error),
            };
            job.end(outcome);
        };
        std::thread::Builder::new()
            .name("vocable-job".to_string())
            .spawn(body)
            .map_err(|error| NodeError::internal("no thread can be started").caused_by(&error))?;
        Ok(Self(shared))
    }

    /// The next event, waited for up to `timeout`. The last is [`Event::Done`], again and again.
    pub(super) fn poll(&self, timeout: Duration) -> Option<Event> {
        let nothing = |state: &mut State| state.queue.is_empty() && matches!(state.outcome, Outcome::Working);
        let state = self.0.lock();
        let (mut state, _) = self
            .0
            .changed
            .wait_timeout_while(state, timeout, nothing)
            .unwrap_or_else(PoisonError::into_inner);
        match state.queue.next() {
            Some(event) => Some(event),
            None if matches!(state.outcome, Outcome::Working) => None,
            None => Some(Event::Done),
        }
    }

    pub(super) fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// The results, once.
    pub(super) fn take(&self) -> Result<Outputs, NodeError> {
        let mut state = self.0.lock();
        match std::mem::replace(&mut state.outcome, Outcome::Taken) {
            Outcome::Done(outputs) => Ok(outputs),
            Outcome::Taken => Err(NodeError::invalid_input("the job's outputs were taken already")),
            Outcome::Working => {
                state.outcome = Outcome::Working;
                Err(NodeError::invalid_input("the job is not done")
                    .help("Poll it until its event VOCABLE_EVENT_DONE comes."))
            }
            Outcome::Failed(error) => {
                state.outcome = Outcome::Failed(error.clone());
                Err(error)
            }
        }
    }
}

impl Drop for VocableJob {
    fn drop(&mut self) {
        self.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use vocable_host_sdk::abi::{ErrorKind, Handle, Level, Value};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn start(work: impl FnOnce(&dyn Host) -> Result<Outputs, NodeError> + Send + 'static) -> VocableJob {
        VocableJob::start(Settings::parse("{}").unwrap(), |_, host| work(host)).unwrap()
    }

    fn until_cancelled(host: &dyn Host) -> Result<Outputs, NodeError> {
        while !host.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(NodeError::cancelled())
    }

    #[test]
    fn events_come_in_order_and_done_comes_last_and_for_ever() {
        let (go, wait) = channel::<()>();
        let job = start(move |host| {
            wait.recv().unwrap();
            host.log(Level::Warn, "a");
            host.progress(1, 2, None);
            host.status("b");
            host.log(Level::Info, "c");
            Ok(Outputs::one(7))
        });
        assert_eq!(job.poll(Duration::ZERO), None);
        assert!(job.take().unwrap_err().message.contains("not done"));
        go.send(()).unwrap();
        let events: Vec<_> = (0..6).filter_map(|_| job.poll(LONG)).collect();
        let wanted = [
            Event::Log(Level::Warn, "a".into()),
            Event::Progress { step: 1, total: 2, picture: None },
            Event::Status("b".into()),
            Event::Log(Level::Info, "c".into()),
            Event::Done,
            Event::Done,
        ];
        assert_eq!(events, wanted);
        assert_eq!(job.take().unwrap().results[0].as_int(), Some(7));
        assert!(job.take().unwrap_err().message.contains("taken already"));
        assert_eq!(job.poll(Duration::ZERO), Some(Event::Done));
    }

    #[test]
    fn a_panic_is_the_jobs_error_and_can_be_asked_for_again() {
        let job = start(|_| panic!("oh"));
        assert_eq!(job.poll(LONG), Some(Event::Done));
        for _ in 0..2 {
            let error = job.take().unwrap_err();
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Panicked, "the job panicked: oh"));
        }
    }

    #[test]
    fn cancel_reaches_the_work_and_a_poll_that_waits_hears_the_end() {
        let job = start(until_cancelled);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| job.poll(LONG));
            job.cancel();
            assert_eq!(waiting.join().unwrap(), Some(Event::Done));
        });
        assert_eq!(job.take().unwrap_err().kind, ErrorKind::Cancelled);
    }

    /// Tells when it goes, and on which thread.
    struct Told(std::sync::mpsc::Sender<Option<String>>);

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send(std::thread::current().name().map(str::to_string));
        }
    }

    #[test]
    fn a_forgotten_job_ends_by_itself_and_lets_its_results_go() {
        let (told, heard) = channel();
        let job = start(move |host| {
            let _ = until_cancelled(host);
            let handle = Handle::new("X", Arc::new(Told(told)));
            Ok(Outputs::one(Value::Handle(handle)))
        });
        let before = Instant::now();
        drop(job);
        assert!(before.elapsed() < Duration::from_secs(5), "freeing does not wait");
        assert_eq!(heard.recv_timeout(LONG).unwrap().as_deref(), Some("vocable-job"));
    }
}
