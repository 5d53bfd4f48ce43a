//! Each call of a service on its thread has its answer, a call that is dropped takes its handler along, and the service goes
//! with the last of both.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use rpc_core::status::Never;
use shuttle::future::block_on;
use shuttle::sync::mpsc;
use shuttle::thread;

use super::actor::Actor;

/// Tells when it is dropped.
struct Told(mpsc::Sender<()>, Arc<AtomicBool>);

impl Told {
    fn new() -> (Self, mpsc::Receiver<()>, Arc<AtomicBool>) {
        let ((tell, told), gone) = (mpsc::channel(), Arc::default());
        (Self(tell, Arc::clone(&gone)), told, gone)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
        // Nobody may wait for it.
        let _ = self.0.send(());
    }
}

/// A service that cannot leave its thread.
struct Counts {
    calls: Cell<u64>,
    _told: Told,
}

fn each_call_has_its_answer_and_the_service_goes_with_the_last() {
    let (told, gone, _) = Told::new();
    let actor = Actor::new(Counts { calls: Cell::new(0), _told: told });
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let actor = actor.clone();
            thread::spawn(move || {
                let call = actor.direct::<_, u64, Never>(|service| {
                    Box::pin(async move {
                        service.calls.set(service.calls.get() + 1);
                        Ok(service.calls.get())
                    })
                });
                drop(actor);
                block_on(call).expect("it is answered")
            })
        })
        .collect();
    drop(actor);
    let mut answers: Vec<_> = callers.into_iter().map(|caller| caller.join().expect("it does not panic")).collect();
    answers.sort_unstable();
    assert_eq!(answers, [1, 2, 3]);
    // It hangs where the service stays.
    gone.recv().expect("it is told");
}

fn a_call_that_is_dropped_takes_its_handler_along() {
    let actor = Actor::new(());
    let (told, gone, _) = Told::new();
    let caller = thread::spawn(move || {
        let call = actor.direct::<_, (), Never>(move |_| {
            Box::pin(async move {
                let _told = told;
                pending().await
            })
        });
        let mut call = pin!(call);
        block_on(poll_fn(|cx| {
            assert!(call.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        }));
    });
    gone.recv().expect("it is told");
    caller.join().expect("it does not panic");
}

fn what_a_handler_held_is_free_when_its_caller_hears_of_it() {
    let actor = Actor::new(());
    let (told, _, gone) = Told::new();
    let call = actor.direct::<_, (), Never>(move |_| {
        let mut ready = false;
        // Held by the handler itself, for as long as that is there.
        Box::pin(poll_fn(move |cx| {
            let _held = &told;
            if std::mem::replace(&mut ready, true) {
                return Poll::Ready(Ok(()));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }))
    });
    thread::spawn(move || {
        block_on(call).expect("it is answered");
        assert!(gone.load(Ordering::SeqCst), "the handler is gone");
    })
    .join()
    .expect("it does not panic");
}

pub(crate) const CHECKS: &[crate::Check] = &[
    ("each call has its answer and the service goes with the last", each_call_has_its_answer_and_the_service_goes_with_the_last),
    ("a call that is dropped takes its handler along", a_call_that_is_dropped_takes_its_handler_along),
    ("what a handler held is free when its caller hears of it", what_a_handler_held_is_free_when_its_caller_hears_of_it),
];
