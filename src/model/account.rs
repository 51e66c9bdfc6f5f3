//! The account of a checkpoint as `rerank model inspect` prints it.

use datafusion_rerank::CheckpointPart;

/// The keys or tensors of a file that share a fate.
struct Group<'a> {
    file: &'a str,
    /// Why they are ignored; `None` if they are used.
    ignored: Option<&'a str>,
    /// Patterns, and how many names match each.
    names: Vec<(String, usize)>,
}

/// One line per file and fate: the names of the keys and tensors that are used, or that are ignored for a reason.
/// Tensors that differ in a number only share an entry, `layers.*.norm.weight (18)`. Files themselves are left out.
pub(crate) fn lines(parts: &[CheckpointPart]) -> Vec<String> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for part in parts {
        let Some(name) = &part.name else { continue };
        let (file, ignored, pattern) = (part.file.as_str(), part.ignored.as_deref(), pattern(name));
        let position = groups.iter().position(|group| (group.file, group.ignored) == (file, ignored));
        let position = position.unwrap_or_else(|| {
            groups.push(Group { file, ignored, names: Vec::new() });
            groups.len() - 1
        });
        let names = &mut groups[position].names;
        match names.iter_mut().find(|(known, _)| *known == pattern) {
            Some((_, count)) => *count += 1,
            None => names.push((pattern, 1)),
        }
    }
    // Stable: files stay in their order, and what is used comes first.
    let files: Vec<&str> = groups.iter().map(|group| group.file).collect();
    groups.sort_by_key(|group| (files.iter().position(|file| *file == group.file), group.ignored.is_some()));
    groups.iter().map(Group::line).collect()
}

/// What became of a part, in words.
pub(crate) fn fate(ignored: Option<&str>) -> String {
    ignored.map_or_else(|| "used".to_owned(), |reason| format!("ignored ({reason})"))
}

impl Group<'_> {
    fn line(&self) -> String {
        let fate = fate(self.ignored);
        let name =
            |(name, count): &(String, usize)| if *count == 1 { name.clone() } else { format!("{name} ({count})") };
        format!("{}\t{fate}\t{}", self.file, self.names.iter().map(name).collect::<Vec<_>>().join(", "))
    }
}

/// The name with an asterisk for each number.
fn pattern(name: &str) -> String {
    let part = |part: &str| match part {
        number if number.bytes().all(|byte| byte.is_ascii_digit()) && !number.is_empty() => "*".to_owned(),
        part => part.to_owned(),
    };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use datafusion_rerank::{EngineOptions, Reranker};

    use super::*;

    #[test]
    fn keys_and_tensors_are_grouped_by_file_and_fate() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-minicpm-layerwise-reranker");
        let reranker = Reranker::open(folder, &EngineOptions::default()).unwrap();
        let lines = lines(&reranker.model().account());
        let has = |start: &str, part: &str| lines.iter().any(|line| line.starts_with(start) && line.contains(part));
        assert!(has("config.json\tused\t", "scale_emb"), "{lines:#?}");
        assert!(has("config.json\tignored (training only)\t", "attention_dropout"), "{lines:#?}");
        assert!(has("model.safetensors\tused\t", "model.layers.*.mlp.up_proj.weight (8)"), "{lines:#?}");
        assert!(has("tokenizer_config.json\tused\t", "bos_token"), "{lines:#?}");
        assert!(
            has("tokenizer_config.json\tignored (each call sets lengths and padding)\t", "padding_side"),
            "{lines:#?}"
        );
        assert!(!lines.iter().any(|line| line.contains("model.py")), "{lines:#?}");
    }
}
