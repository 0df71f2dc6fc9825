//! A graph runtime for hosts that have none of their own: ComfyUI's workflows, its validation, its events.
//!
//! * [`workflow`] reads the API format, [`mod@validate`] finds every problem in it before anything runs, in the words of [`problem`],
//! * [`executor`] runs what is valid, repeats nothing that did not change, and can be stopped at any time; [`run`] is what it is asked and answers,
//! * [`events`] is what a run tells while it goes on,
//! * [`single`] checks and runs one node by itself, for hosts that have a graph of their own.

mod cache;
mod coerce;
pub mod events;
pub mod executor;
mod host;
mod lists;
mod literal;
mod order;
pub mod problem;
pub mod run;
pub mod single;
pub mod validate;
pub mod workflow;

pub use events::{Event, EventKind, EventSink, IgnoreEvents};
pub use executor::Executor;
pub use problem::{NodeProblems, Problem, Validation};
pub use run::{CancelFlag, NodeFailure, NodeReport, RunError, RunOptions, RunReport};
pub use validate::validate;
pub use workflow::{Input, SetError, Workflow, WorkflowError, WorkflowNode};
