//! The options of a scoring call. Each is declared once, in [`declarations`]: names, parsing, JSON, merging, the
//! families' lists, command line flags and documentation follow from there.

mod cutoffs;
mod declarations;
mod declare;
mod heads;
mod kind;
mod precision;
mod score_options;

pub use cutoffs::Cutoffs;
pub use declarations::{OPTION_NAMES, OptionDeclaration, ScoreOptions};
pub use heads::Heads;
pub(crate) use kind::MAX_COUNT;
pub use kind::OptionKind;
pub use precision::Precision;
