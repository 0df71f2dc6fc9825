//! How a node runs engine work: on the host's number of threads, with the host's cancel, on a device.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use candle_core::{Device, Tensor};
use rayon::ThreadPool;
use vocable_engine::CancelToken;
use vocable_engine::checkpoint::Precision;
use vocable_host_sdk::abi::{HostContext, NodeError};

use crate::convert::node_error;

/// How often the host is asked whether the user wants to stop.
const POLL: Duration = Duration::from_millis(20);

/// Runs `body` on the host's number of threads and hands it a flag that goes up within [`POLL`] of the user's wish to stop.
pub(crate) fn with_cancel<T: Send>(
    host: &HostContext<'_>,
    body: impl FnOnce(&CancelToken) -> vocable_engine::Result<T> + Send,
) -> Result<T, NodeError> {
    with_cancel_for_nodes(host, |cancel| body(cancel).map_err(node_error))
}

/// [`with_cancel`] for work that speaks to the host in between and so has the host's errors.
pub(crate) fn with_cancel_for_nodes<T: Send>(
    host: &HostContext<'_>,
    body: impl FnOnce(&CancelToken) -> Result<T, NodeError> + Send,
) -> Result<T, NodeError> {
    watched(host, || {}, body)
}

/// The same for work that counts in `done` how far it is: the host hears of it as it grows, up to `total`.
pub(crate) fn with_cancel_and_count<T: Send>(
    host: &HostContext<'_>,
    done: &AtomicUsize,
    total: usize,
    body: impl FnOnce(&CancelToken) -> Result<T, NodeError> + Send,
) -> Result<T, NodeError> {
    let told = AtomicUsize::new(0);
    let tell = || {
        let done = done.load(Ordering::Relaxed).min(total);
        if told.swap(done, Ordering::Relaxed) != done {
            host.progress(done as u64, total as u64, None);
        }
    };
    let result = watched(host, tell, body)?;
    host.progress(total as u64, total as u64, None);
    Ok(result)
}

/// Runs `body` on the pool; another thread looks every [`POLL`] whether the user wants to stop, and calls `each`.
fn watched<T: Send>(
    host: &HostContext<'_>,
    each: impl Fn() + Sync,
    body: impl FnOnce(&CancelToken) -> Result<T, NodeError> + Send,
) -> Result<T, NodeError> {
    host.check_cancelled()?;
    let pool = pool(host.threads())?;
    let token = CancelToken::new();
    // Never sent to: the watcher ends when the sender is dropped, also by a panic of `body`.
    let (alive, ended) = channel::<()>();
    thread::scope(|scope| {
        let (flag, each) = (token.clone(), &each);
        let watch = move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(POLL) {
                if host.is_cancelled() {
                    flag.cancel();
                    return;
                }
                each();
            }
        };
        thread::Builder::new()
            .name("vocable-cancel".to_string())
            .spawn_scoped(scope, watch)
            .map_err(|error| NodeError::internal("no thread can be started").caused_by(&error))?;
        let _alive = alive;
        pool.install(|| body(&token))
    })
}

/// A pool with that many threads, of which nobody else has the use: a thread that waits inside one job's work would take up another job's whole work, and the
/// first would neither go on nor hear that it should stop. The last one is kept for the next job.
fn pool(threads: usize) -> Result<Arc<ThreadPool>, NodeError> {
    static POOL: Mutex<Option<Arc<ThreadPool>>> = Mutex::new(None);
    let mut kept = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) =
        kept.as_ref().filter(|pool| pool.current_num_threads() == threads && Arc::strong_count(pool) == 1)
    {
        return Ok(pool.clone());
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("vocable-{index}"))
        .build()
        .map_err(|error| {
            NodeError::internal(format!("{threads} threads cannot be started")).caused_by(&error)
        })?;
    let pool = Arc::new(pool);
    *kept = Some(pool.clone());
    Ok(pool)
}

/// Pixels that the autoencoder takes at once.
const PIXELS_AT_ONCE: usize = 512 * 512;

/// Runs `body` over `batch [B, C, h, w]`, as many rows at once as memory should bear at `factor` pixels for each place, and
/// puts the results together, in ordinary memory.
pub(crate) fn in_portions(
    host: &HostContext<'_>,
    batch: &Tensor,
    factor: usize,
    body: impl Fn(&Tensor) -> vocable_engine::Result<Tensor>,
) -> vocable_engine::Result<Tensor> {
    let (rows, _, height, width) = batch.dims4()?;
    let at_once = (PIXELS_AT_ONCE / (height * width * factor * factor).max(1)).max(1);
    let mut results = Vec::new();
    for first in (0..rows).step_by(at_once) {
        let count = at_once.min(rows - first);
        results.push(body(&batch.narrow(0, first, count)?.contiguous()?)?.to_device(&Device::Cpu)?);
        host.progress((first + count) as u64, rows as u64, None);
    }
    Ok(Tensor::cat(&results, 0)?)
}

/// What the input `device` may say.
pub(crate) const DEVICES: [&str; 3] = ["auto", "cpu", "cuda"];

/// The device of that name, with one stream for all threads: a model is loaded on one and used on another. `auto` is the GPU where there is one that this build can use.
pub(crate) fn open_device(name: &str) -> Result<Device, NodeError> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" => Ok(Device::new_cuda_with_stream(0).unwrap_or(Device::Cpu)),
        "cuda" => Device::new_cuda_with_stream(0).map_err(|error| {
            let why = if cfg!(feature = "cuda") {
                "no usable GPU was found"
            } else {
                "this build has no GPU support"
            };
            NodeError::incompatible(format!("device `cuda` is not there: {why}"))
                .help("Choose the device `cpu` or `auto`, or use a build with the feature `cuda`.")
                .caused_by(&error)
        }),
        other => {
            Err(NodeError::invalid_input(format!("device `{other}` is not one of {}", DEVICES.join(", "))))
        }
    }
}

/// The precision of that name.
pub(crate) fn precision(name: &str) -> Result<Precision, NodeError> {
    Precision::from_name(name).ok_or_else(|| {
        let names = Precision::ALL.map(|(name, _)| name);
        NodeError::invalid_input(format!("precision `{name}` is not one of {}", names.join(", ")))
    })
}

/// A short name for a model: `weights` names what was read; precision and device decide, too, what is computed with it.
pub(crate) fn fingerprint_of(weights: &str, precision: Precision, device: &Device) -> String {
    format!("{weights}-{}-{}", precision.name(), if device.is_cpu() { "cpu" } else { "cuda" })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use vocable_host_sdk::abi::{ErrorKind, SilentHost};

    use super::*;
    use crate::testing::ImpatientHost;

    #[test]
    fn the_flag_goes_up_soon_after_the_users_wish() {
        let host = ImpatientHost::after(Duration::from_millis(50));
        let start = Instant::now();
        let error = with_cancel(&HostContext::new(&host), |token| -> vocable_engine::Result<()> {
            loop {
                token.check()?;
                thread::sleep(Duration::from_millis(1));
            }
        })
        .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Cancelled);
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn work_runs_on_the_hosts_number_of_threads_and_its_panic_comes_out() {
        let host = SilentHost::default();
        let context = HostContext::new(&host);
        let threads = with_cancel(&context, |_| Ok(rayon::current_num_threads())).unwrap();
        assert_eq!(threads, context.threads());
        let panicked = std::panic::catch_unwind(|| {
            with_cancel(&HostContext::new(&SilentHost::default()), |_| -> vocable_engine::Result<()> {
                panic!("oh")
            })
        });
        assert!(panicked.is_err());
    }

    #[test]
    fn jobs_at_once_have_threads_of_their_own() {
        let first = pool(1).unwrap();
        // With one pool this would wait for the first job's work, which waits for this.
        let second = pool(1).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        first.install(|| second.install(|| ()));
    }

    #[test]
    fn unknown_names_are_refused() {
        assert!(open_device("tpu").unwrap_err().message.contains("auto, cpu, cuda"));
        assert!(precision("int8").unwrap_err().message.contains("bf16"));
    }

    #[test]
    fn a_model_is_named_by_what_it_computes_with_too() {
        let name = |precision| fingerprint_of("abc", precision, &Device::Cpu);
        assert_eq!(name(Precision::F32), "abc-f32-cpu");
        assert_ne!(name(Precision::F32), name(Precision::Bf16));
    }
}
