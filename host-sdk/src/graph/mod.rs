//! A graph runtime for hosts that have none of their own: ComfyUI's workflows, its validation, its events.
//!
//! * [`workflow`] reads the API format, [`validate`] finds every problem in it before anything runs,
//! * [`executor`] runs what is valid, repeats nothing that did not change, and can be stopped at any time,
//! * [`events`] is what a run tells while it goes on.

mod cache;
mod coerce;
pub mod events;
pub mod executor;
mod host;
mod lists;
mod order;
pub mod validate;
pub mod workflow;

pub use events::{Event, EventKind, EventSink, IgnoreEvents};
pub use executor::{CancelFlag, Executor, NodeFailure, NodeReport, RunError, RunOptions, RunReport};
pub use validate::{NodeProblems, Problem, Validation, validate};
pub use workflow::{Input, SetError, Workflow, WorkflowError, WorkflowNode};
