//! Windows that follow their source.
//!
//! ```text
//! source ──> rows that wait ──cut──> windows in flight ──> answers, in order
//!            (up to a full window)   (two)
//! ```
//!
//! A window is cut
//!
//! 1. when it is full,
//! 2. when the source has nothing more for now and the engines have nothing to do at all,
//! 3. when the source has nothing more for now, the first of the rows has waited for the longest delay, and either no
//!    window of this stream is in flight or the engines' queues are empty,
//! 4. when the source has ended.
//!
//! So a row on its own is scored at once, and while a device is busy the rows behind it become large windows. Rule 3
//! sends no rows that would only wait in the queue behind this stream's own. And a stream that keeps the engines busy
//! cannot hold up another for longer than the delay: then it takes its turn.
//!
//! The second window of a stream goes when the first is on the device, or answered. Encoded at the same time, the
//! larger one might come before it in the queue, and the first rows would be late.
//!
//! Without a delay only rules 1 and 4 apply. Windows then depend on the rows alone.

mod clock;
mod pace;
mod waiting_rows;
mod windows;

pub(crate) use pace::Following;
#[cfg(feature = "datafusion")]
pub(crate) use waiting_rows::WaitingRows;
pub(crate) use windows::score_windows;
