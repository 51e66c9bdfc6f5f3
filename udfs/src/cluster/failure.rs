//! Makes the errors of failed jobs readable.

/// What precedes the error of a task.
const TASK_FAILED: &str = "Task failed due to runtime execution error: ";

/// What precedes the reason of a scheduler that refuses a plan.
const ANSWER: &str = "Status { code: ";

/// The first error in a scheduler's message, as one line: the task's own error, without the layers around it, which
/// print it in debug format.
pub fn failure_cause(message: &str) -> String {
    let below = [TASK_FAILED, ANSWER].iter().find_map(|layer| message.split_once(layer));
    let cause = below.map_or(message, |(_, cause)| cause).trim();
    match quoted(cause) {
        Some(text) if cause.len() < message.trim().len() => first_line(&text).to_owned(),
        _ => first_line(cause).to_owned(),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The first string literal, unescaped.
fn quoted(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('"')?;
    let mut unquoted = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return Some(unquoted),
            '\\' => match characters.next()? {
                'n' => unquoted.push('\n'),
                't' => unquoted.push('\t'),
                'r' => unquoted.push('\r'),
                other => unquoted.push(other),
            },
            other => unquoted.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_task_is_told_without_its_layers() {
        for (message, cause) in [
            (
                r#"Job 7 failed: Job failed due to stage 1 failed: Task failed due to runtime execution error: DataFusionError(Execution("model 'x': it's \"gone\"\nbacktrace"))"#,
                r#"model 'x': it's "gone""#,
            ),
            ("Task failed due to runtime execution error: Cancelled", "Cancelled"),
            (r#"Execution error: Status { code: InvalidArgument, message: "no \"f\"", metadata: {} }"#, "no \"f\""),
            ("Job 7 failed: \"x\"\nmore", "Job 7 failed: \"x\""),
            ("Task failed due to runtime execution error: General(\"unended", "General(\"unended"),
        ] {
            assert_eq!(failure_cause(message), cause);
        }
    }
}
