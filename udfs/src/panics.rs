//! Turns panics of the library's own threads into errors for their callers.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};

/// Runs `work`. A panic becomes an error that names the model, the action and the panic's message.
///
/// The caller is responsible for what `work` may leave half done.
///
/// # Errors
/// Those of `work`, or [`Error::Model`] if it panicked.
pub(crate) fn catch_panic<T>(model: &str, action: impl Display, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| Err(panicked(model, action, payload.as_ref())))
}

/// The error for a panic with this payload.
pub(crate) fn panicked(model: &str, action: impl Display, payload: &(dyn Any + Send)) -> Error {
    let reason = reason(payload);
    Error::model(model, format!("{action} panicked: {reason}; this is a bug, please report it"))
}

/// The message of a panic.
fn reason(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_says_what_it_said() {
        assert_eq!(catch_panic("m3", "loading", || Ok(1)).unwrap(), 1);
        let rows = 3;
        let fails = |work: &dyn Fn() -> i32| catch_panic("m3", "loading", || Ok(work())).unwrap_err().to_string();
        for (error, reason) in [
            (fails(&|| panic!("no rows")), "no rows"),
            (fails(&|| panic!("{rows} rows")), "3 rows"),
            (fails(&|| std::panic::panic_any(1)), "no reason given"),
        ] {
            assert_eq!(error, format!("model 'm3': loading panicked: {reason}; this is a bug, please report it"));
        }
    }
}
