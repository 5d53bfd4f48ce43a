//! Which of a host's addresses answers first (RFC 8305, "Happy Eyeballs").

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;

/// How long an address has to answer until the next one is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Addresses tried at the most: a name that leads to thousands must not make thousands of sockets.
const MOST: usize = 16;

/// Connects to the address that answers first. The others are given up.
pub(super) async fn first_to_answer<T, F>(
    addresses: Vec<SocketAddr>,
    open: impl Fn(SocketAddr) -> F,
) -> io::Result<(T, SocketAddr)>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut waiting = interleave(addresses);
    let mut failed = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
    let mut trying = JoinSet::new();
    loop {
        if let Some(address) = waiting.pop_front() {
            let opening = open(address);
            trying.spawn(async move { (opening.await, address) });
        }
        let ended = if waiting.is_empty() {
            trying.join_next().await
        } else {
            match tokio::time::timeout(HEAD_START, trying.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        };
        match ended {
            Some(Ok((Ok(stream), address))) => return Ok((stream, address)),
            Some(Ok((Err(error), _))) => failed = error,
            Some(Err(panicked)) => failed = io::Error::other(panicked),
            None => return Err(failed),
        }
    }
}

/// The families in turn, the resolver's first one first, each in the resolver's order.
fn interleave(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let six_first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == six_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = VecDeque::new();
    while order.len() < MOST {
        let before = order.len();
        order.extend(first.next());
        order.extend(second.next());
        if order.len() == before {
            break;
        }
    }
    order.truncate(MOST);
    order
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::{Instant, sleep};

    use super::*;

    fn four(n: u8) -> SocketAddr {
        ([127, 0, 0, n], 1).into()
    }

    fn six(n: u16) -> SocketAddr {
        ([0, 0, 0, 0, 0, 0, 0, n], 1).into()
    }

    /// Each address has its time to answer, in milliseconds, and whether it does; tells who won, and when each was tried.
    async fn race(runners: &[(SocketAddr, u64, bool)]) -> (io::Result<SocketAddr>, Vec<u128>) {
        let (start, tried) = (Instant::now(), Mutex::new(Vec::new()));
        let open = |address| {
            tried.lock().unwrap().push(start.elapsed().as_millis());
            let &(_, time, answers) = runners.iter().find(|(runner, ..)| *runner == address).unwrap();
            async move {
                sleep(Duration::from_millis(time)).await;
                if answers { Ok(()) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
            }
        };
        let won = first_to_answer(runners.iter().map(|(address, ..)| *address).collect(), open).await;
        (won.map(|((), address)| address), tried.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_silent_has_a_head_start_and_no_more() {
        let (won, tried) = race(&[(six(1), 60_000, false), (four(1), 10, true)]).await;
        assert_eq!((won.unwrap(), tried), (four(1), vec![0, 250]));
        let (won, tried) = race(&[(six(1), 300, true), (four(1), 100, true)]).await;
        assert_eq!((won.unwrap(), tried), (six(1), vec![0, 250]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_brings_the_next_address_at_once_and_the_last_error_is_told() {
        let (won, tried) = race(&[(four(1), 5, false), (four(2), 5, false), (four(3), 5, true)]).await;
        assert_eq!((won.unwrap(), tried), (four(3), vec![0, 5, 10]));
        let (won, _) = race(&[(four(1), 5, false), (six(2), 5, false)]).await;
        assert_eq!(won.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(race(&[]).await.0.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn families_take_turns_and_many_addresses_are_cut_off() {
        let order = interleave(vec![six(1), six(2), six(3), four(1), four(2)]);
        assert_eq!(order, [six(1), four(1), six(2), four(2), six(3)]);
        assert_eq!(interleave((0..200).map(four).collect()).len(), MOST);
        assert_eq!(interleave((0..9).map(four).chain((0..99).map(six)).collect()).len(), MOST);
    }
}
