//! What every test runs in: a runtime, a bound for what hangs, and an eye on panics of the library.

use std::future::Future;
use std::panic;
use std::sync::{Mutex, Once};
use std::time::Duration;

use rpc::Limits;
use tokio::runtime::Builder;

/// A test that takes this long has hung.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// Panics of the library's own code; handlers' are not among them.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn watch_for_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let ours = info.location().is_some_and(|at| at.file().contains("rpc-core") || at.file().contains("rpc-transport"));
            if ours && let Ok(mut panics) = PANICS.lock() {
                panics.push(info.to_string());
            }
            let text = info.payload().downcast_ref::<&str>().copied().unwrap_or_default();
            if !text.contains("on purpose") {
                before(info);
            }
        }));
    });
}

/// The default limits, with a change.
pub(crate) fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// Runs a test on `threads` threads; one is the runtime without workers.
#[track_caller]
pub(crate) fn run_on<F: Future>(threads: usize, test: F) -> F::Output {
    watch_for_panics();
    let mut builder = if threads > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    let runtime = builder.worker_threads(threads).enable_all().build().expect("a runtime starts");
    let output = runtime.block_on(async { tokio::time::timeout(HANG, test).await });
    let output = output.unwrap_or_else(|_| panic!("the test hung for {HANG:?}"));
    let panics = PANICS.lock().map(|panics| panics.clone()).unwrap_or_default();
    assert!(panics.is_empty(), "the library panicked: {panics:#?}");
    output
}

/// Runs a test on two workers.
#[track_caller]
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    run_on(2, test)
}

/// Waits until something is true; the test's own bound is the limit.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let bound = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    // Sooner than the test's bound, so that the message tells what was waited for.
    tokio::time::timeout(HANG / 3, bound).await.unwrap_or_else(|_| panic!("it never came true: {what}"));
}

/// Fails the test with a sentence where `future` hangs.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(HANG / 3, future).await.unwrap_or_else(|_| panic!("it hung: {what}"))
}
