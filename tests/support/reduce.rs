//! Makes a failing statement shorter.

use std::time::{Duration, Instant};

/// Tries to leave out or simplify parts of a statement for as long as it still fails, or until the time is over.
/// Returns the shortest statement that failed.
pub(crate) fn reduce(sql: &str, limit: Duration, fails: impl Fn(&str) -> bool) -> String {
    let start = Instant::now();
    let mut best = tokens(sql);
    loop {
        let before = best.len();
        let mut edits = edits(&best);
        let mut place = 0;
        while place < edits.len() && start.elapsed() < limit {
            let shorter = edits[place].apply(&best);
            if fails(&shorter.join(" ")) {
                best = shorter;
                edits = self::edits(&best);
            } else {
                place += 1;
            }
        }
        if best.len() == before || start.elapsed() >= limit {
            return best.join(" ");
        }
    }
}

/// Words, numbers, texts in quotes, marks of calls, and operators.
fn tokens(sql: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = sql.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = if first == '\'' {
            rest[1..].find('\'').map_or(rest.len(), |end| end + 2)
        } else if first == '⟨' {
            rest.find(' ').unwrap_or(rest.len())
        } else if rest[first.len_utf8()..].starts_with('⟩') {
            first.len_utf8() + '⟩'.len_utf8()
        } else if first.is_alphanumeric() {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.').unwrap_or(rest.len())
        } else if ["||", "<>", "<=", ">="].iter().any(|operator| rest.starts_with(operator)) {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
    }
    tokens
}

fn depth_change(token: &str) -> isize {
    match token {
        "(" | "[" | "CASE" => 1,
        ")" | "]" | "END" => -1,
        token if token.starts_with('⟨') => 1,
        token if token.ends_with('⟩') => -1,
        _ => 0,
    }
}

/// The end of the balanced part that begins here with an opening token.
fn closing(tokens: &[String], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (place, token) in tokens.iter().enumerate().skip(open) {
        depth += depth_change(token);
        if depth == 0 {
            return Some(place);
        }
    }
    None
}

/// A part of a statement, and what to write instead.
struct Edit {
    from: usize,
    to: usize,
    instead: Vec<String>,
}

impl Edit {
    fn saved(&self) -> usize {
        self.to - self.from - self.instead.len()
    }

    fn apply(&self, tokens: &[String]) -> Vec<String> {
        [&tokens[..self.from], &self.instead, &tokens[self.to..]].concat()
    }
}

/// Whether an expression or a clause may begin or end beside this token.
fn separates(token: &str) -> bool {
    token == "," || depth_change(token) != 0 || (token.len() > 1 && token.chars().all(|c| c.is_ascii_uppercase()))
}

/// Ways to make a statement shorter, many of which do not give SQL, those that save the most first.
fn edits(tokens: &[String]) -> Vec<Edit> {
    let mut edits = Vec::new();
    for from in 0..tokens.len() {
        let begins = from == 0 || separates(&tokens[from]) || separates(&tokens[from - 1]);
        let mut depth = 0;
        for to in from + 1..=tokens.len() {
            depth += depth_change(&tokens[to - 1]);
            if depth < 0 {
                break;
            }
            let ends = to == tokens.len() || separates(&tokens[to]) || separates(&tokens[to - 1]);
            if depth == 0 && begins && ends {
                edits.push(Edit { from, to, instead: Vec::new() });
            }
        }
        if depth_change(&tokens[from]) > 0
            && let Some(end) = closing(tokens, from)
        {
            // One of the parts instead of the whole, with and without the name of the function before it.
            let mut depth = 0;
            let mut part = from + 1;
            for place in from + 1..=end {
                let divides =
                    depth == 0 && [",", "WHEN", "THEN", "ELSE", "AND", "OR"].contains(&tokens[place].as_str());
                if place == end || divides {
                    let instead = tokens[part..place].to_vec();
                    if !instead.is_empty() {
                        edits.push(Edit { from: from.saturating_sub(1), to: end + 1, instead: instead.clone() });
                        edits.push(Edit { from, to: end + 1, instead });
                    }
                    part = place + 1;
                }
                depth += depth_change(&tokens[place]);
            }
            for constant in ["NULL", "true", "1"] {
                edits.push(Edit { from, to: end + 1, instead: vec![constant.to_owned()] });
            }
        }
    }
    edits.retain(|edit| edit.to - edit.from > edit.instead.len());
    edits.sort_by_key(|edit| std::cmp::Reverse(edit.saved()));
    edits
}
