//! How long rows may wait for others.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};

/// Default of the longest time that rows of a stream wait for others to be scored with.
pub const DEFAULT_MAX_DELAY: Duration = Duration::from_millis(50);

/// The text that switches the limit off.
const OFF: &str = "off";

/// The longest time that rows of a stream wait for others to be scored with, as people write it; `None` is no limit:
/// see [`Reranker::with_max_delay`](crate::Reranker::with_max_delay).
///
/// Its text is a time with units (`50ms`, `1s`, `1m 30s`), a whole number of milliseconds, or `off` for `None`.
/// Default: [`DEFAULT_MAX_DELAY`].
///
/// ```
/// use std::time::Duration;
///
/// use datafusion_rerank::MaxDelay;
///
/// assert_eq!("1s".parse::<MaxDelay>()?, MaxDelay(Some(Duration::from_secs(1))));
/// assert_eq!("off".parse::<MaxDelay>()?, MaxDelay(None));
/// assert_eq!(MaxDelay::default().to_string(), "50ms");
/// # Ok::<(), datafusion_rerank::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxDelay(pub Option<Duration>);

impl MaxDelay {
    /// What its text may be, for messages.
    pub(crate) const EXPECTED: &str = "a time such as 50ms or 1s, a whole number of milliseconds, or off";
}

impl Default for MaxDelay {
    fn default() -> Self {
        Self(Some(DEFAULT_MAX_DELAY))
    }
}

impl FromStr for MaxDelay {
    type Err = Error;

    /// # Errors
    /// [`Error::Input`] for another text.
    fn from_str(text: &str) -> Result<Self> {
        if text.eq_ignore_ascii_case(OFF) {
            return Ok(Self(None));
        }
        if let Ok(milliseconds) = text.parse() {
            return Ok(Self(Some(Duration::from_millis(milliseconds))));
        }
        let delay =
            humantime::parse_duration(text).map_err(|_| Error::input(format!("expected {}", Self::EXPECTED)))?;
        Ok(Self(Some(delay)))
    }
}

impl Display for MaxDelay {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(delay) => humantime::format_duration(delay).fmt(f),
            None => f.write_str(OFF),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (text, delay) in [
            ("50ms", Some(Duration::from_millis(50))),
            ("1s", Some(Duration::from_secs(1))),
            ("1m 30s", Some(Duration::from_secs(90))),
            ("250us", Some(Duration::from_micros(250))),
            ("20", Some(Duration::from_millis(20))),
            ("0", Some(Duration::ZERO)),
            ("off", None),
            ("OFF", None),
        ] {
            let read: MaxDelay = text.parse().unwrap();
            assert_eq!(read, MaxDelay(delay), "{text}");
            assert_eq!(read.to_string().parse::<MaxDelay>().unwrap(), read);
        }
        for wrong in ["", "soon", "-1", "-1s", "1.5", "5 parsecs"] {
            let error = wrong.parse::<MaxDelay>().unwrap_err().to_string();
            assert_eq!(error, "expected a time such as 50ms or 1s, a whole number of milliseconds, or off", "{wrong}");
        }
    }
}
