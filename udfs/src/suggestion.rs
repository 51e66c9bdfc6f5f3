//! Suggestions for names that were misspelt.

/// Similarity (Jaro-Winkler, 0 to 1) from which a known name is suggested. Two letters in each other's place, or one
/// too many in a name of three, are above 0.85; names that only start alike are below 0.8.
const SIMILAR: f64 = 0.8;

/// ` (did you mean 'max_length'?)`, with the known name that is most like the given one; nothing if none is like it.
pub(crate) fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let given = given.to_lowercase();
    let similarity = |name: &'a str| (strsim::jaro_winkler(&given, &name.to_lowercase()), name);
    let similar = known.into_iter().map(similarity).filter(|(similarity, _)| *similarity >= SIMILAR);
    let best = similar.reduce(|best, other| if other.0 > best.0 { other } else { best });
    best.map(|(_, name)| format!(" (did you mean '{name}'?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::OPTION_NAMES;

    #[test]
    fn the_most_similar_name_is_suggested() {
        let suggested = |given| did_you_mean(given, OPTION_NAMES.iter().copied());
        for (given, name) in [
            ("max_lenght", "max_length"),
            ("maxlength", "max_length"),
            ("Normalise", "normalize"),
            ("cutoff_layer", "cutoff_layers"),
            ("query_max_len", "query_max_length"),
        ] {
            assert_eq!(suggested(given), format!(" (did you mean '{name}'?)"));
        }
        for given in ["", "batch_size", "é"] {
            assert_eq!(suggested(given), "", "{given}");
        }
        assert_eq!(did_you_mean("m33", ["gemma", "m3"]), " (did you mean 'm3'?)");
        assert_eq!(did_you_mean("m4", ["gemma", "m3"]), "");
    }
}
