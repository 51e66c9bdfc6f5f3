//! The layers of a layer-wise checkpoint that have a scoring head, and those that a call asks for.

use crate::checkpoint::{Config, Tensors};
use crate::error::{Error, Result};
use crate::graph::{GraphBuilder, Value, linear_f32};
use crate::options::ScoreOptions;

/// A score that the graph returns: the layer after which it is read, and the head that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Exit {
    pub(crate) layer: usize,
    pub(crate) head: usize,
}

/// The layers that have a scoring head: `first`, `first + step`, ... up to `last`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ExitLayers {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) step: usize,
}

impl ExitLayers {
    pub(super) fn read(config: &Config, layers: usize, step: usize) -> Result<Self> {
        let first = config.count("start_layer")?;
        if first > layers {
            return Err(config.error(format!("start_layer {first} is above num_hidden_layers {layers}")));
        }
        Ok(Self { first, last: layers, step })
    }

    /// All layers with a head, ascending.
    pub(super) fn layers(&self) -> impl Iterator<Item = usize> {
        (self.first..=self.last).step_by(self.step)
    }

    /// All layers with a head, each with its own.
    pub(super) fn all(&self) -> Vec<Exit> {
        self.layers().map(|layer| Exit { layer, head: self.head_of(layer) }).collect()
    }

    /// The layers asked for, in that order; by default the last layer.
    ///
    /// # Errors
    /// [`Error::Option`] naming the allowed range (the reference silently drops impossible layers).
    pub(super) fn asked(&self, options: &ScoreOptions) -> Result<Vec<usize>> {
        let asked = options.cutoff_layers.as_ref().map_or_else(|| vec![self.last], |cutoffs| cutoffs.layers().to_vec());
        match asked.iter().find(|&&layer| !self.layers().any(|exit| exit == layer)) {
            None => Ok(asked),
            Some(layer) => {
                let step = if self.step == 1 { String::new() } else { format!(" in steps of {}", self.step) };
                Err(Error::option(
                    "cutoff_layers",
                    format!(
                        "{layer} is not an exit of this model; its exits are layers {} to {}{step}",
                        self.first, self.last
                    ),
                ))
            }
        }
    }

    /// The head that was trained for this layer.
    pub(super) fn head_of(&self, layer: usize) -> usize {
        (layer - self.first) / self.step
    }
}

/// A head's logit: `[batch, hidden]` to `[batch, 1]`.
pub(super) fn head(g: &mut GraphBuilder, tensors: &Tensors, x: &Value, head: usize, hidden: usize) -> Result<Value> {
    let weight = tensors.get(&format!("lm_head.{head}.linear_head.weight"), &[1, hidden])?;
    Ok(linear_f32(g, x, weight, None))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn exits_are_checked_and_keep_their_order() {
        let exits = ExitLayers { first: 8, last: 40, step: 4 };
        let asked = |cutoffs| exits.asked(&ScoreOptions::from_json(&json!({"cutoff_layers": cutoffs})).unwrap());
        assert_eq!(asked(json!(null)).unwrap(), [40]);
        assert_eq!(asked(json!([40, 8, 12, 8])).unwrap(), [40, 8, 12, 8]);
        let error = asked(json!([8, 9])).unwrap_err().to_string();
        assert_eq!(
            error,
            "option cutoff_layers: 9 is not an exit of this model; its exits are layers 8 to 40 in steps of 4"
        );
        assert_eq!(exits.head_of(16), 2);
    }
}
