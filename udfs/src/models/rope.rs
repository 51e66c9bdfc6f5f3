//! The base of rotary positions, in every spelling of `config.json`.
//!
//! transformers 4 writes `rope_theta` and, if positions are scaled, `rope_scaling`; transformers 5 writes
//! `rope_parameters` with both, or one such object for each type of layer. Scaled positions are refused: no published
//! reranker has them.
//! (`RotaryEmbeddingConfigMixin`, transformers 5.17, `modeling_rope_utils.py`)

use crate::checkpoint::{Config, Object};
use crate::error::Result;

/// The default of all reference classes.
const DEFAULT_THETA: f64 = 10_000.0;

const THETA: &str = "rope_theta";
const ROTARY_PART: &str = "partial_rotary_factor";
const FACTOR: &str = "factor";

/// The types of layers that have parameters of their own in transformers 5.
const LAYER_TYPES: [&str; 2] = ["full_attention", "sliding_attention"];

/// The base of the rotary positions.
///
/// # Errors
/// [`Error::Checkpoint`](crate::Error::Checkpoint) for scaled or partial rotary positions, bases that contradict each
/// other, and keys that are not known.
pub(super) fn rope_theta(config: &Config) -> Result<f64> {
    let mut found = Found { config, theta: None };
    found.add(THETA, config.optional_number(THETA)?)?;
    found.require_whole(ROTARY_PART, config.optional_number(ROTARY_PART)?)?;
    for key in ["rope_scaling", "rope_parameters"] {
        // Older programs wrote `false`.
        if config.get(key).is_some_and(|value| value == false) {
            continue;
        }
        let Some(parameters) = config.object(key)? else { continue };
        if parameters.keys().any(|key| LAYER_TYPES.contains(&key)) {
            parameters.require_known(&LAYER_TYPES)?;
            for layer_type in parameters.keys() {
                found.add_all(&parameters.object(layer_type)?)?;
            }
        } else {
            found.add_all(&parameters)?;
        }
    }
    Ok(found.theta.map_or(DEFAULT_THETA, |(_, theta)| theta))
}

/// The base found so far, under the name where it was found.
struct Found<'a> {
    config: &'a Config,
    theta: Option<(String, f64)>,
}

impl Found<'_> {
    fn add_all(&mut self, parameters: &Object<'_>) -> Result<()> {
        for key in ["rope_type", "type"] {
            parameters.require(key, "default")?;
        }
        parameters.require_known(&[THETA, "rope_type", "type", ROTARY_PART, FACTOR])?;
        self.require_whole(&parameters.path_of(FACTOR), parameters.optional_number(FACTOR)?)?;
        self.require_whole(&parameters.path_of(ROTARY_PART), parameters.optional_number(ROTARY_PART)?)?;
        self.add(&parameters.path_of(THETA), parameters.optional_number(THETA)?)
    }

    fn add(&mut self, name: &str, theta: Option<f64>) -> Result<()> {
        let Some(theta) = theta else { return Ok(()) };
        if !(theta.is_finite() && theta > 0.0) {
            return Err(self.config.error(format!("{name} is {theta}, expected a number above 0")));
        }
        match &self.theta {
            Some((other, known)) if known.to_bits() != theta.to_bits() => Err(self.config.error(format!(
                "{other} is {known} and {name} is {theta}; versions of transformers read one or the other; keep the one \
                 that the model was trained with"
            ))),
            _ => {
                self.theta = Some((name.to_owned(), theta));
                Ok(())
            }
        }
    }

    fn require_whole(&self, name: &str, part: Option<f64>) -> Result<()> {
        match part {
            Some(part) if part.to_bits() != 1.0_f64.to_bits() => {
                Err(self.config.error(format!("{name} is {part}, which is not supported; expected 1")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;

    fn theta(config: &Value) -> Result<f64, String> {
        let config = Config::parse(Path::new("config.json"), config.to_string().as_bytes()).unwrap();
        rope_theta(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn all_spellings_are_read() {
        assert_eq!(theta(&json!({})), Ok(1e4));
        for config in [
            json!({"rope_theta": 5e5}),
            json!({"rope_theta": 500_000, "rope_scaling": null}),
            json!({"rope_theta": 5e5, "rope_scaling": {"type": "default"}}),
            json!({"rope_theta": 5e5, "rope_scaling": false, "rope_parameters": {}}),
            json!({"rope_scaling": {"rope_type": "default", "rope_theta": 5e5}}),
            json!({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 1.0}}),
            json!({"rope_theta": 5e5, "rope_parameters": {"rope_theta": 5e5}}),
            json!({"rope_theta": 5e5, "rope_scaling": {"type": "default", "factor": 1.0}}),
            json!({"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 5e5}}}),
            json!({"rope_parameters": {"full_attention": {"rope_theta": 5e5}, "sliding_attention": {"rope_theta": 5e5}}}),
        ] {
            assert_eq!(theta(&config), Ok(5e5), "{config}");
        }
    }

    #[test]
    fn what_is_not_implemented_or_contradicts_itself_is_refused_by_name() {
        for (config, expected) in [
            (
                json!({"rope_scaling": {"type": "linear", "factor": 2.0}}),
                "rope_scaling.type is \"linear\", expected \"default\"",
            ),
            (
                json!({"rope_scaling": {"rope_type": "yarn", "factor": 4}}),
                "rope_scaling.rope_type is \"yarn\", expected",
            ),
            (
                json!({"rope_parameters": {"rope_type": "default", "factor": 2.0}}),
                "rope_parameters.factor is 2, which is not supported; expected 1",
            ),
            (
                json!({"rope_parameters": {"full_attention": {"rope_type": "llama3"}}}),
                "rope_parameters.full_attention.rope_type is \"llama3\", expected",
            ),
            (
                json!({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}),
                "rope_theta is 10000 and rope_parameters.rope_theta is 500000; ",
            ),
            (
                json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}}),
                "rope_parameters.full_attention.rope_theta is 1000000 and rope_parameters.sliding_attention.rope_theta is",
            ),
            (
                json!({"rope_parameters": {"full_attention": {}, "rope_theta": 1e4}}),
                "rope_parameters.rope_theta is 10000.0, which is not",
            ),
            (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor is 0.5, which is not supported; expected 1"),
            (json!({"rope_theta": 0}), "rope_theta is 0, expected a number above 0"),
            (json!({"rope_theta": "5e5"}), "rope_theta is \"5e5\", expected a number"),
            (json!({"rope_parameters": 5e5}), "rope_parameters is 500000.0, expected an object"),
        ] {
            let error = theta(&config).unwrap_err();
            assert!(error.starts_with(&format!("checkpoint file config.json: {expected}")), "{config}: {error}");
        }
    }
}
