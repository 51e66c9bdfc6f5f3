//! How each node of a plan is rewritten, from the bottom up, so that calls are columns where they are needed.
//!
//! A node asks its input for the calls in its own expressions and for those that the node above wants. The input
//! returns those that it has or can carry; [`Hoist`] computes the others in a projection between the two.

mod aggregate;
mod calls;
mod existence;
mod filter;
mod join;
mod join_filters;
mod projection;
mod rewrite;
mod scored;
mod sort;
mod unnest;

pub(super) use rewrite::Hoist;
pub(super) use unnest::has_nested;
