//! Bytes arrive in order and whole, and nobody who waits is forgotten.

use std::io;

use shuttle::future::block_on;
use shuttle::thread;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::chunks::{Chunks, pair};

/// More than a lane takes before its writer waits.
const PIECE: usize = 300 * 1024;
const PIECES: usize = 3;

/// Writes until the other end does not read any more, and tells how much it took.
async fn write(mut end: Chunks) -> Result<usize, io::Error> {
    for n in 0..PIECES {
        end.write_all(&vec![n as u8; PIECE]).await?;
    }
    end.shutdown().await?;
    Ok(PIECES * PIECE)
}

fn a_writer_that_waits_and_a_reader_that_waits_both_go_on() {
    let (ours, mut theirs) = pair();
    let writer = thread::spawn(move || block_on(write(ours)));
    let mut all = Vec::new();
    block_on(theirs.read_to_end(&mut all)).expect("it is read");
    assert_eq!(writer.join().expect("it does not panic").expect("it is written"), all.len());
    let in_order = all.chunks(PIECE).enumerate().all(|(n, piece)| piece == vec![n as u8; PIECE]);
    assert!(in_order, "bytes are out of order");
}

fn a_writer_whose_reader_goes_away_is_told() {
    let (ours, mut theirs) = pair();
    let writer = thread::spawn(move || block_on(write(ours)));
    block_on(theirs.read_exact(&mut [0; 10])).expect("it is read");
    drop(theirs);
    let written = writer.join().expect("it does not panic");
    // All of it never has room.
    assert_eq!(written.map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
}

fn a_reader_whose_writer_goes_away_reads_what_was_written_and_the_end() {
    let (mut ours, mut theirs) = pair();
    let writer = thread::spawn(move || block_on(ours.write_all(&[7; 100])).expect("there is room"));
    let mut all = Vec::new();
    block_on(theirs.read_to_end(&mut all)).expect("it is read");
    writer.join().expect("it does not panic");
    assert_eq!(all, [7; 100]);
}

fn both_ends_write_and_read_at_once() {
    let (ours, theirs) = pair();
    let echo = |mut end: Chunks| async move {
        let mut got = [0; 2];
        for n in 0..3 {
            end.write_all(&[n, n]).await?;
            end.read_exact(&mut got).await?;
            assert_eq!(got, [n, n]);
        }
        io::Result::Ok(())
    };
    let other = thread::spawn(move || block_on(echo(theirs)));
    block_on(echo(ours)).expect("it is written and read");
    other.join().expect("it does not panic").expect("it is written and read");
}

pub(crate) const CHECKS: &[crate::Check] = &[
    ("a writer that waits and a reader that waits both go on", a_writer_that_waits_and_a_reader_that_waits_both_go_on),
    ("a writer whose reader goes away is told", a_writer_whose_reader_goes_away_is_told),
    ("a reader whose writer goes away reads the rest", a_reader_whose_writer_goes_away_reads_what_was_written_and_the_end),
    ("both ends write and read at once", both_ends_write_and_read_at_once),
];
