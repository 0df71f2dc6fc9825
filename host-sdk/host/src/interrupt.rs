//! Ctrl-C, and the signal to terminate.

use std::sync::Arc;

use vocable_host_sdk::graph::CancelFlag;

use crate::show::Screen;

/// The first signal asks the run to stop, the second ends the process.
pub(crate) fn watch(cancel: CancelFlag, screen: Arc<Screen>) {
    let handled = ctrlc::set_handler(move || {
        if cancel.is_cancelled() {
            std::process::exit(130);
        }
        cancel.cancel();
        // What is kept only the running node knows; it says so when it has stopped.
        screen.say("stopping. Ctrl-C once more leaves at once, and then nothing more is saved.");
    });
    // Without a handler Ctrl-C ends the process, as everywhere; there is nothing better to do.
    let _ = handled;
}
