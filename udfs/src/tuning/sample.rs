//! Measures token budgets on the model and device that will run.

use super::probe::{Measured, measure, probe_tokens};
use crate::engine::{Encoded, Engine};
use crate::error::Result;

/// How many times longer than the measurement the run must be that it serves.
const RUN_TO_PROBE: u64 = 100;

/// A passage of ordinary length: with its query, about 200 tokens in any of the tokenizers.
const PASSAGE: &str = "The giant panda, also known as the panda bear or simply the panda, is a bear species endemic to China. It is \
    characterised by its white coat with black patches around the eyes, ears, legs and shoulders. Its body is rotund; adult \
    individuals weigh 100 to 115 kg and are typically 1.2 to 1.9 m long. It is sexually dimorphic, with males being typically \
    10 to 20 percent larger than females. A thumb is visible on its forepaw, which helps in holding bamboo in place for \
    feeding. It has large molar teeth and expanded temporal fossa to meet its dietary requirements. It can digest starch and \
    is mostly herbivorous with a diet consisting almost entirely of bamboo and bamboo shoots. It lives in a few mountain \
    ranges in central China, mainly in Sichuan, and in neighbouring Shaanxi and Gansu.";

/// `rows` different pairs of the same length.
fn sample(rows: usize) -> (Vec<String>, Vec<&'static str>) {
    ((0..rows).map(|row| format!("what does panda {row:08} eat?")).collect(), vec![PASSAGE; rows])
}

/// Runs batches of different sizes around `usual` tokens and returns the rates of those that fit into the device's
/// memory. `None` if that would take longer than a hundredth of the time for `rows` rows. `encode` makes a window from
/// queries and passages.
///
/// # Errors
/// Those of running the model.
pub(crate) fn tune(
    engine: &Engine,
    usual: usize,
    rows: u64,
    encode: impl Fn(&[Option<&str>], &[Option<&str>]) -> Encoded,
) -> Result<Option<Vec<Measured>>> {
    let window = |rows: usize| {
        let (queries, passages) = sample(rows);
        let queries: Vec<Option<&str>> = queries.iter().map(|query| Some(query.as_str())).collect();
        let passages: Vec<Option<&str>> = passages.into_iter().map(Some).collect();
        encode(&queries, &passages)
    };
    let pair_tokens = window(1).lengths().first().map_or(1, |tokens| (*tokens as usize).max(1));
    if rows.saturating_mul(pair_tokens as u64) < RUN_TO_PROBE * probe_tokens(usual) as u64 {
        return Ok(None);
    }
    measure(usual, |batch_tokens| {
        let cost = engine.run_whole(window((batch_tokens / pair_tokens).max(1)))?;
        let whole = cost.batches == 1;
        Ok(whole.then(|| (cost.tokens + cost.padding_tokens) as f64 / cost.device_time.as_secs_f64().max(1e-9)))
    })
    .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pair_of_a_sample_repeats() {
        let (queries, passages) = sample(1000);
        let distinct: std::collections::HashSet<&String> = queries.iter().collect();
        assert_eq!((distinct.len(), passages.len()), (1000, 1000));
    }
}
