//! What happened, line by line, with its simulated time. Two runs of one seed must give the same bytes.
//!
//! The trace is the one ambient state of the simulator: one run is one thread.

use super::executor;
use std::cell::RefCell;
use std::fmt::{self, Write as _};

struct Trace {
    hash: u64,
    lines: u64,
    print: bool,
    line: String,
}

thread_local! {
    static TRACE: RefCell<Trace> =
        const { RefCell::new(Trace { hash: 0, lines: 0, print: false, line: String::new() }) };
}

/// Adds a line to the trace: arguments as for `format!`.
macro_rules! trace {
    ($($argument:tt)*) => { $crate::world::trace::add(format_args!($($argument)*)) };
}
pub(crate) use trace;

/// Starts a trace; `print` also puts every line on stdout.
pub(crate) fn start(print: bool) {
    TRACE.with_borrow_mut(|trace| {
        trace.hash = 0xcbf2_9ce4_8422_2325;
        trace.lines = 0;
        trace.print = print;
    });
}

/// See [`trace!`].
pub(crate) fn add(line: fmt::Arguments<'_>) {
    TRACE.with_borrow_mut(|trace| {
        let Trace { hash, lines, print, line: buffer } = trace;
        buffer.clear();
        let now = executor::now();
        // Writing to a string does not fail.
        let _ = writeln!(buffer, "{:>7}.{:09} {line}", now / 1_000_000_000, now % 1_000_000_000);
        *lines += 1;
        for chunk in buffer.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            *hash = (*hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3);
            *hash ^= *hash >> 29;
        }
        if *print {
            print_line(buffer);
        }
    });
}

#[expect(clippy::print_stdout, reason = "the trace is what was asked for")]
fn print_line(line: &str) {
    print!("{line}");
}

/// Hash and number of lines so far.
pub(crate) fn summary() -> (u64, u64) {
    TRACE.with_borrow(|trace| (trace.hash, trace.lines))
}
