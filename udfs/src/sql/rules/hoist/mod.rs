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
mod nested_calls;
mod projection;
mod rewrite;
mod scored;
mod sort;
mod window;

pub(super) use nested_calls::has_nested_call;
pub(super) use rewrite::Hoist;
