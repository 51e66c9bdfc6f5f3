//! The counts that a kernel takes, from the shapes of an operator's operands.

use crate::graph::OwnOperator;

/// Bytes that a thread loads at once: a pack.
const PACK_BYTES: usize = 16;

/// The most packs of a tensor: the kernels count with 32 bits, beyond the last one too.
const MOST_PACKS: u32 = 1 << 31;

/// The counts of a kernel, the first of which are the packs of the result, for operands of these shapes.
///
/// # Errors
/// What is wrong with a shape.
pub(super) fn counts(operator: OwnOperator, shapes: &[Vec<usize>], element_bytes: usize) -> Result<Vec<u32>, String> {
    let name = operator.name();
    let pack = PACK_BYTES / element_bytes;
    let bad = || format!("{name} does not take operands of the shapes {shapes:?}");
    let packs = |elements: usize| {
        let whole = elements.is_multiple_of(pack).then_some(elements / pack).ok_or_else(bad)?;
        u32::try_from(whole).ok().filter(|packs| *packs <= MOST_PACKS).ok_or_else(|| {
            format!(
                "{name} takes at most {} GB, got operands of the shapes {shapes:?}; use smaller batches",
                MOST_PACKS as usize * PACK_BYTES / 1_000_000_000
            )
        })
    };
    let first = shapes.first().ok_or_else(bad)?;
    let elements: usize = first.iter().product();
    match (operator, &shapes[1..]) {
        (OwnOperator::GatedGelu | OwnOperator::GatedSilu, [second]) if second == first => Ok(vec![packs(elements)?]),
        (OwnOperator::AddBias | OwnOperator::BiasGelu, [bias]) if first.ends_with(bias) && bias.len() == 1 => {
            Ok(vec![packs(elements)?, packs(bias[0])?])
        }
        (OwnOperator::Rotate, [cosine, sine]) if cosine == sine => {
            let ([_, sequence, width], [positions, half]) = (first.as_slice(), cosine.as_slice()) else {
                return Err(bad());
            };
            if *half == 0 || !width.is_multiple_of(2 * half) || sequence > positions {
                return Err(bad());
            }
            Ok(vec![packs(elements)?, count(*sequence)?, count(width / (2 * half))?, packs(*half)?])
        }
        _ => Err(bad()),
    }
}

fn count(value: usize) -> Result<u32, String> {
    u32::try_from(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_from_shapes() {
        let of = |operator, shapes: &[&[usize]], bytes| {
            counts(operator, &shapes.iter().map(|shape| shape.to_vec()).collect::<Vec<_>>(), bytes)
        };
        assert_eq!(of(OwnOperator::GatedGelu, &[&[6, 32], &[6, 32]], 2), Ok(vec![24]));
        assert_eq!(of(OwnOperator::GatedSilu, &[&[6, 32], &[6, 32]], 4), Ok(vec![48]));
        assert_eq!(of(OwnOperator::AddBias, &[&[6, 32], &[32]], 2), Ok(vec![24, 4]));
        assert_eq!(of(OwnOperator::AddBias, &[&[2, 3, 32], &[32]], 2), Ok(vec![24, 4]));
        assert_eq!(of(OwnOperator::BiasGelu, &[&[0, 32], &[32]], 2), Ok(vec![0, 4]));
        // Two rows of three tokens, four heads of 16; the tables may have more positions.
        assert_eq!(of(OwnOperator::Rotate, &[&[2, 3, 64], &[5, 8], &[5, 8]], 2), Ok(vec![48, 3, 4, 1]));

        for (operator, shapes, bytes) in [
            (OwnOperator::GatedGelu, &[&[6, 32][..], &[3, 64]][..], 2),
            (OwnOperator::GatedGelu, &[&[1, 12], &[1, 12]], 2),
            (OwnOperator::AddBias, &[&[6, 32], &[16]], 2),
            (OwnOperator::Rotate, &[&[2, 6, 64], &[5, 8], &[5, 8]], 2),
            (OwnOperator::Rotate, &[&[2, 3, 64], &[5, 8], &[6, 8]], 2),
            (OwnOperator::Rotate, &[&[2, 3, 24], &[5, 8], &[5, 8]], 2),
            (OwnOperator::GatedGelu, &[], 2),
        ] {
            let error = of(operator, shapes, bytes).unwrap_err();
            assert!(error.contains("does not take operands of the shapes"), "{error}");
        }
        let error = of(OwnOperator::GatedGelu, &[&[1 << 20, 1 << 16], &[1 << 20, 1 << 16]], 2).unwrap_err();
        assert!(error.starts_with("GatedGelu takes at most 34 GB, got operands of the shapes [["), "{error}");
    }
}
