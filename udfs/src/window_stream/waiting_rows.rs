//! What a window is cut from.

use crate::window::{Rows, WindowCutter};

/// Rows that wait until they are cut into windows.
pub(crate) trait WaitingRows {
    /// Rows of the source.
    type Rows;
    /// Rows that are scored together.
    type Window;
    /// Why rows cannot wait, or not become a window.
    type Error;

    /// Adds rows.
    fn push(&mut self, rows: Self::Rows);

    /// Accounts for the rows that wait. Called before more are read.
    fn account(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Whether there is a full window.
    fn has_full(&self) -> bool;

    /// Whether there are rows behind the full windows.
    fn has_rest(&self) -> bool;

    /// The first full window.
    fn take_full(&mut self) -> Result<Option<Self::Window>, Self::Error>;

    /// The rows behind the full windows. Called when there are no full windows.
    fn take_rest(&mut self) -> Result<Option<Self::Window>, Self::Error>;
}

impl<R: Rows> WaitingRows for WindowCutter<R> {
    type Rows = R;
    type Window = Vec<R>;
    type Error = crate::Error;

    fn push(&mut self, rows: R) {
        self.push(rows);
    }

    fn has_full(&self) -> bool {
        self.has_full()
    }

    fn has_rest(&self) -> bool {
        !self.pending().is_empty()
    }

    fn take_full(&mut self) -> Result<Option<Vec<R>>, Self::Error> {
        Ok(self.next_full())
    }

    fn take_rest(&mut self) -> Result<Option<Vec<R>>, Self::Error> {
        Ok(Some(self.finish()).filter(|rest| !rest.is_empty()))
    }
}
