//! In place of `rpc-transport/src/sync.rs`: locks, atomics and tasks of shuttle; what tokio has is tokio's own, with a place
//! before each step where the scheduler may let another task go first.

pub(crate) use shuttle::future::spawn_local;
pub(crate) use shuttle::sync::atomic::{AtomicU64, Ordering};
pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};

/// Others may have their turn here, as at every atomic. (To yield would wake the task once more.)
fn step() {
    AtomicU64::new(0).load(Ordering::Relaxed);
}

pub(crate) struct Notify(tokio::sync::Notify);

impl Notify {
    pub(crate) fn new() -> Self {
        Self(tokio::sync::Notify::new())
    }

    pub(crate) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
        step();
        self.0.notified()
    }

    pub(crate) fn notify_waiters(&self) {
        step();
        self.0.notify_waiters();
    }
}

pub(crate) mod mpsc {
    use tokio::sync::mpsc::{self, error::SendError};

    use super::step;

    pub(crate) struct Sender<T>(mpsc::Sender<T>);
    pub(crate) struct Receiver<T>(mpsc::Receiver<T>);

    pub(crate) fn channel<T>(room: usize) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = mpsc::channel(room);
        (Sender(sender), Receiver(receiver))
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<T> Sender<T> {
        pub(crate) async fn send(&self, value: T) -> Result<(), SendError<T>> {
            step();
            self.0.send(value).await
        }
    }

    impl<T> Receiver<T> {
        pub(crate) async fn recv(&mut self) -> Option<T> {
            step();
            self.0.recv().await
        }
    }
}

pub(crate) mod oneshot {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::sync::oneshot::{self, error::RecvError};

    use super::step;

    pub(crate) struct Sender<T>(oneshot::Sender<T>);
    pub(crate) struct Receiver<T>(oneshot::Receiver<T>);

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Sender(sender), Receiver(receiver))
    }

    impl<T> Sender<T> {
        pub(crate) fn is_closed(&self) -> bool {
            step();
            self.0.is_closed()
        }

        pub(crate) async fn closed(&mut self) {
            step();
            self.0.closed().await;
        }

        pub(crate) fn send(self, value: T) -> Result<(), T> {
            step();
            let sent = self.0.send(value);
            step();
            sent
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, RecvError>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            step();
            Pin::new(&mut self.0).poll(cx)
        }
    }
}
