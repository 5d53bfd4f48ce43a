//! Bytes to frames and back (docs/PROTOCOL.md §2 to §7 and §9). Pure functions over slices: nothing is kept, nothing panics
//! on any input, and nothing is allocated that the input's own length does not bound.
//!
//! ```text
//! frame, hello  →  header  →  varint
//! ```

pub mod frame;
pub mod header;
pub mod hello;
pub mod varint;

pub use frame::Frame;
pub use header::{Head, HeadBuf, RawFrame};

/// Why bytes from the peer make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The frame ends inside of a field.
    #[error("the frame ends inside of {field}")]
    Truncated {
        /// The field that was being read.
        field: &'static str,
    },
    /// A varint used more bytes than its value needs.
    #[error("{field} is not minimally encoded")]
    NonMinimal {
        /// The field that was being read.
        field: &'static str,
    },
    /// A field holds a value outside of its range.
    #[error("{field} is {value}, but {rule}")]
    Range {
        /// The field that was being read.
        field: &'static str,
        /// What it held.
        value: u64,
        /// What it must hold.
        rule: &'static str,
    },
    /// A text field is not UTF-8.
    #[error("{field} is not UTF-8")]
    Utf8 {
        /// The field that was being read.
        field: &'static str,
    },
    /// A key that must be understood is not known.
    #[error("key {key} must be understood, and is not known here")]
    UnknownKey {
        /// The key's number.
        key: u64,
    },
    /// A key that must be present is missing.
    #[error("{field} is missing")]
    Missing {
        /// The field that is missing.
        field: &'static str,
    },
}
