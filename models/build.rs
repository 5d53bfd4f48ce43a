//! Writes the mutants: rooms with one change each, which some check of the room must notice.

use std::path::Path;
use std::{env, fs};

/// Room, name of the mutant, what is replaced and by what.
const MUTANTS: &[(&str, &str, &str, &str)] = &[
    (
        "budget",
        "it_looks_before_it_listens",
        "let fell = self.inner.fell.notified();
            if self.level() < BudgetLevel::Full {
                return;
            }
            fell.await;",
        "if self.level() < BudgetLevel::Full {
                return;
            }
            self.inner.fell.notified().await;",
    ),
    (
        "budget",
        "it_tells_of_what_it_sees_later",
        "if self.level(before) == BudgetLevel::Full && self.level(before - bytes) < BudgetLevel::Full",
        "if self.level(self.held.load(Ordering::Relaxed) + bytes) == BudgetLevel::Full
            && self.level(before - bytes) < BudgetLevel::Full",
    ),
    (
        "budget",
        "it_releases_in_two_steps",
        "let before = self.held.fetch_sub(bytes, Ordering::Relaxed);",
        "let before = self.held.load(Ordering::Relaxed);
        self.held.store(before - bytes, Ordering::Relaxed);",
    ),
    (
        "budget",
        "it_grows_in_two_steps",
        "inner.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok();",
        "grown(inner.held.load(Ordering::Relaxed)).is_some();
        inner.held.fetch_add(if took { bytes } else { 0 }, Ordering::Relaxed);",
    ),
    (
        "peers",
        "it_counts_behind_its_look",
        "*count += 1;",
        "drop(counts);
            *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(who.clone()).or_default() += 1;",
    ),
    ("actor", "it_serves_those_who_have_gone", "() = reply.closed() => return,", "() = std::future::pending() => return,"),
    (
        "actor",
        "it_answers_before_it_lets_go",
        "let result = tokio::select! {
        biased;
        () = reply.closed() => return,
        result = polled => result,",
        "let mut polled = polled;
    let result = tokio::select! {
        biased;
        () = reply.closed() => return,
        result = &mut polled => result,",
    ),
    (
        "actor",
        "it_never_lets_the_service_go",
        "let service = Rc::new(service);",
        "let service = Rc::new(service);
        std::mem::forget(Rc::clone(&service));",
    ),
    (
        "state",
        "it_wakes_before_it_says_what_for",
        "let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        state.commands.push(command);
        let driver = state.driver.take();",
        "let driver = self.lock().driver.take();
        let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        state.commands.push(command);",
    ),
    (
        "state",
        "it_looks_for_an_end_and_then_listens",
        "let ended = self.ended.notified();
        if let Some(error) = self.closed() {
            return error;
        }
        ended.await;",
        "if let Some(error) = self.closed() {
            return error;
        }
        self.ended.notified().await;",
    ),
    (
        "state",
        "it_looks_for_a_sessions_end_and_then_listens",
        "let over = self.over.notified();
            if let Some(closed) = self.lock().ended.clone() {
                return closed;
            }
            over.await;",
        "if let Some(closed) = self.lock().ended.clone() {
                return closed;
            }
            self.over.notified().await;",
    ),
    (
        "state",
        "it_writes_when_it_has_looked_for_the_driver",
        "let mut state = link.lock();
        let result = act(proto, &mut state.out);
        let driver = state.driver.take();
        drop(state);",
        "let driver = link.lock().driver.take();
        let result = act(proto, &mut link.lock().out);",
    ),
    (
        "state",
        "it_flushes_and_tells_nobody",
        "state.driver.is_some() && (state.out.needs_driver() || !state.commands.is_empty())",
        "state.driver.is_some() && !state.commands.is_empty()",
    ),
    ("handle", "it_keeps_its_session_open", "self.state.act(|session| session.close());", "let _ = &self.state;"),
    (
        "chunks",
        "it_looks_and_waits_in_two_steps",
        "if lane.len == 0 && !lane.ended {
            lane.reader = Some(cx.waker().clone());",
        "if lane.len == 0 && !lane.ended {
            drop(lane);
            lock(&self.incoming).reader = Some(cx.waker().clone());",
    ),
];

fn main() {
    let (ours, rooms) = (Path::new("src/checks"), Path::new("../rpc-transport/src"));
    let out = env::var("OUT_DIR").expect("cargo names a folder");
    // What is included cannot have text of its own at its top.
    let write = |name: &str, source: &str| {
        let lines = source.lines().filter(|line| !line.starts_with("//!"));
        let source: String = lines.flat_map(|line| [line, "\n"]).collect();
        fs::write(Path::new(&out).join(format!("{name}.rs")), source).expect("the folder can be written");
    };
    let read = |path: &Path| {
        println!("cargo::rerun-if-changed={}", path.display());
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    println!("cargo::rerun-if-changed=build.rs");
    for (room, name, from, to) in MUTANTS {
        let source = read(&rooms.join(format!("{room}.rs")));
        assert_eq!(source.matches(from).count(), 1, "`{room}` has once what `{name}` replaces");
        write(name, &source.replace(from, to));
        write(&format!("checks_{room}"), &read(&ours.join(format!("{room}.rs"))));
    }
}
