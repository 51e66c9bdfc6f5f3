//! Readable errors of the query engine.

use anyhow::anyhow;
use datafusion::error::DataFusionError;

/// The root cause of an error of the query engine, on one line and without its wrappers.
pub(crate) fn root_error(error: &DataFusionError) -> anyhow::Error {
    match error.find_root() {
        DataFusionError::Plan(message)
        | DataFusionError::Execution(message)
        | DataFusionError::Configuration(message)
        | DataFusionError::NotImplemented(message) => anyhow!("{}", first_line(message)),
        DataFusionError::External(external) => {
            // The errors of the reader and the library are already readable.
            let mut causes = vec![external.to_string()];
            let mut cause = external.source();
            while let Some(deeper) = cause {
                causes.push(deeper.to_string());
                cause = deeper.source();
            }
            anyhow!("{}", causes.join(": "))
        }
        root => anyhow!("{}", first_line(&root.strip_backtrace())),
    }
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}
