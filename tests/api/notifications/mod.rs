//! The module notifications as clients see it.

mod broadcasts;
mod reach;
